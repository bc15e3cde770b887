"""The layers of the VAE's network in parts along T: less memory, and fewer passes over it.

B C T H W. Before each convolution one pass reads its input and writes what it will read: normalised and activated or
enlarged, with repeated edges, for a few output frames at a time. None of that is ever held for a whole clip, and a
residual block adds its result onto its input in place. Only the statistics of a norm need the whole clip first.
"""

from collections.abc import Iterable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.components import CausalConvolution, GroupNorm, ResidualBlock, Sampler, Upsampler
from pipeline.vae.compiled import compiled_passes
from pipeline.vae.layers import Layers
from pipeline.vae.passes import EAGER_PASSES, Passes
from pipeline.vae.window import Window, even_parts

_PART_BYTES: Final = 2**29  # that a convolution reads: 13 output frames of 256 channels, 256 x 256 pixels, 16 bits


class StreamedLayers(Layers):
    """`memory_format`: how tensors lie in memory between the layers. Tensor cores read channels last; any other format
    is copied to it and back by each convolution. `passes`: compiled for each device and dtype where that is possible.
    """

    def __init__(
        self,
        *,
        memory_format: torch.memory_format = torch.channels_last_3d,
        passes: Passes | None = None,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self._memory_format = memory_format
        self._passes = passes
        self._part_bytes = part_bytes

    def warm_up(self, device: torch.device, dtype: torch.dtype) -> None:
        if self._passes is None:
            device = torch.empty(0, device=device).device  # "cuda" with its index, as tensors have it
            compiled_passes(device, dtype, self._memory_format)

    def conv(self, conv: CausalConvolution, x: Tensor) -> Tensor:
        return self._convolved(conv, x.contiguous(memory_format=self._memory_format))

    def norm(self, norm: GroupNorm, x: Tensor) -> Tensor:
        scale, shift = self._scale_and_shift(norm, x)
        return (x.float() * scale + shift).to(x.dtype)

    def activated_conv(self, norm: GroupNorm, conv: CausalConvolution, x: Tensor) -> Tensor:
        return self._convolved(conv, x, activation=self._scale_and_shift(norm, x))

    def resnet(self, block: ResidualBlock, x: Tensor) -> Tensor:
        hidden = self.activated_conv(block.norm1, block.conv1, x)
        out = x if block.conv_shortcut is None else self._convolved(block.conv_shortcut, x)
        return self._convolved(block.conv2, hidden, activation=self._scale_and_shift(block.norm2, hidden), onto=out)

    def downsample(self, sampler: Sampler, x: Tensor) -> Tensor:
        return self._convolved(sampler.conv, x)

    def upsample(self, sampler: Upsampler, x: Tensor) -> Tensor:
        return self._convolved(sampler.conv, x, factor=sampler.upsample_factor)

    def _convolved(
        self,
        causal: CausalConvolution,
        x: Tensor,
        *,
        factor: tuple[int, int, int] = (1, 1, 1),
        activation: tuple[Tensor, Tensor] | None = None,
        onto: Tensor | None = None,
    ) -> Tensor:
        """The convolution of `x`, enlarged by `factor` or activated: in a new tensor, or added to `onto`."""
        conv = causal.conv
        window = Window(conv, x, factor)
        weight = conv.weight.contiguous(memory_format=self._memory_format)
        out = onto
        for part in window.parts(self._part_bytes):
            computed = F.conv3d(self._read(x, window, part, activation), weight, conv.bias, conv.stride)
            if onto is not None:
                onto[:, :, part.start : part.stop] += computed
            elif len(part) == window.frames:
                return computed.contiguous(memory_format=self._memory_format)
            else:
                if out is None:
                    out = self._empty(computed, (*computed.shape[:2], window.frames, *computed.shape[3:]))
                out[:, :, part.start : part.stop] = computed
            del computed  # before the next part is made
        return out

    def _read(self, x: Tensor, window: Window, part: range, activation: tuple[Tensor, Tensor] | None) -> Tensor:
        """What the convolution reads for the output frames `part`."""
        if window.is_input and activation is None:
            return x[:, :, part.start : part.stop]
        positions = window.positions(part)
        read = self._empty(x, (*x.shape[:2], *(len(each) for each in positions)))
        if activation is None:
            self._passes_for(x).gather(read, x, positions)
        else:
            self._passes_for(x).gather_activated(read, x, positions, *activation)
        return read

    def _scale_and_shift(self, norm: GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
        """The norm as x * scale + shift, fp32 [B,C,1,1,1].

        A norm has few groups of up to millions of values: reduced at once, they would occupy few of a GPU's processors.
        So rows come first. By the law of total variance a group's variance is the mean of its rows' variances and the
        variance of their means; no difference of large squares appears.
        """
        means, variances = (each.unflatten(3, (norm.num_groups, -1)) for each in self._row_moments(x))  # B T H G C/G
        between, mean = torch.var_mean(means, (1, 2, 4), correction=0, keepdim=True)
        variance = variances.mean((1, 2, 4), keepdim=True) + between
        weight, bias = (each.float().unflatten(0, (norm.num_groups, -1)) for each in (norm.weight, norm.bias))
        scale = weight / (variance + norm.eps).sqrt()
        shift = bias - mean * scale
        return scale.reshape(len(x), -1, 1, 1, 1), shift.reshape(len(x), -1, 1, 1, 1)

    def _row_moments(self, x: Tensor) -> Iterable[Tensor]:
        passes = self._passes_for(x)
        if passes is not EAGER_PASSES:
            return passes.row_moments(x)
        parts = even_parts(x.shape[2], x[:, :, 0].nbytes, self._part_bytes)  # eagerly, all of them are held in fp32
        moments = [passes.row_moments(x[:, :, part.start : part.stop]) for part in parts]
        return (torch.cat(each, dim=1) for each in zip(*moments, strict=True))

    def _passes_for(self, x: Tensor) -> Passes:
        if self._passes is not None:
            return self._passes
        if x.shape[2] == 1:  # code compiled for one frame, an image, would serve for that alone
            return EAGER_PASSES
        return compiled_passes(x.device, x.dtype, self._memory_format)

    def _empty(self, like: Tensor, size: tuple[int, ...]) -> Tensor:
        return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=self._memory_format)

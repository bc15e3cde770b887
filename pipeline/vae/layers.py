"""The layers of the VAE's network, over the submodules of `AutoencoderKLHunyuanVideo`: here as diffusers computes them.

B C T H W. `vae/streamed.py` computes the same in parts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.components import CausalConvolution, GroupNorm, ResidualBlock, Sampler, Upsampler


class Layers:
    """Each layer as a whole, one after the other. An argument `x` must not be used again by the caller."""

    def warm_up(self, device: torch.device, dtype: torch.dtype) -> None:
        """What the first tile on that device and of that dtype would have to wait for."""

    def conv(self, conv: CausalConvolution, x: Tensor) -> Tensor:
        return conv(x)

    def norm(self, norm: GroupNorm, x: Tensor) -> Tensor:
        return norm(x)

    def activated_conv(self, norm: GroupNorm, conv: CausalConvolution, x: Tensor) -> Tensor:
        """Norm, SiLU, convolution."""
        return conv(F.silu(norm(x)))

    def resnet(self, block: ResidualBlock, x: Tensor) -> Tensor:
        return block(x)

    def downsample(self, sampler: Sampler, x: Tensor) -> Tensor:
        return sampler(x)

    def upsample(self, sampler: Upsampler, x: Tensor) -> Tensor:
        return sampler(x)

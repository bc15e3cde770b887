"""What is measured: the models, from a folder or of random weights made on the device, and inputs of a request.

Random weights are normal with deviation 0.02, norms 1, biases 0. They cost the same time as trained ones.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from pipeline.attention.choice import choose_attention
from pipeline.attention.probe import Heads
from pipeline.denoise import Sampling, denoise, predictions, sigma_schedule
from pipeline.fused.compiled import compiled_passes, is_compiled
from pipeline.fused.kernels import Kernels
from pipeline.fused.passes import EAGER_PASSES
from pipeline.load import load_pipeline
from pipeline.memory.dtypes import DtypePolicy
from pipeline.memory.host_layers import is_modulation, keep_modulation_on_host
from pipeline.memory.placement import onloaded
from pipeline.options import ATTENTION, FUSED, Dtype
from pipeline.pacing import Pacer
from pipeline.prepared import Prepared, prepare
from pipeline.rope import rotary_tables
from pipeline.shapes import LatentShape, PixelShape, Strides, TokenGrid
from pipeline.share import Share
from pipeline.step_cache import StepCache
from pipeline.transformer import Branch, Context, compute_dtype
from weights.convert import SHIFT
from weights.originals.plan_transformer import FULL_SIZE as TRANSFORMER
from weights.originals.plan_vae import FULL_SIZE as VAE

SMALL_TRANSFORMER: dict[str, Any] = {**TRANSFORMER, "num_attention_heads": 6, "num_layers": 4, "num_single_layers": 8}
"""Width 768: what one processor core computes in seconds, with the shares of attention and MLP of the full size."""

SMALL_VAE: dict[str, Any] = {**VAE, "block_out_channels": [16, 32, 32, 32], "norm_num_groups": 8}

TILING: dict[str, Any] = {"sample_size": 256, "sample_tsize": 64, "mid_block_causal_attn": True}
"""Keys of the published VAE that diffusers' class does not declare."""

TEXT_ROWS = 831
"""Of the published LLaVA: 256 tokens of text and 576 of the image, one of which replaces its own token."""

GUIDANCE = 7.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Configs of transformer and VAE; `full`: the published ones."""

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    full: bool

    @classmethod
    def named(cls, *, small: bool) -> "Sizes":
        return cls(
            transformer=SMALL_TRANSFORMER if small else TRANSFORMER, vae=SMALL_VAE if small else VAE, full=not small
        )


class Subject:
    """The models on one device. Each is made when a stage asks for it, so that one without room fails alone."""

    def __init__(self, sizes: Sizes, *, device: torch.device, dtype: Dtype, folder: Path | None = None) -> None:
        self.sizes = sizes
        self.device = device
        self.folder = folder
        self.dtypes = DtypePolicy.named(dtype, device.type)
        self._dtype = dtype

    @cached_property
    def loaded(self) -> Any:
        """The pipeline in the folder; None where weights are random."""
        if self.folder is None:
            return None
        return load_pipeline(self.folder, device=str(self.device), dtype=self._dtype)

    @cached_property
    def transformer(self) -> Any:
        if self.loaded is not None:
            return self.loaded.transformer
        with torch.device("meta"):
            model = HunyuanVideoTransformer3DModel(**self.sizes.transformer)
        model = random_weights(model, self.device, self.dtypes.transformer)
        if self.device.type != "cpu":  # as `load_pipeline` does
            for name, parameter in model.named_parameters():
                if is_modulation(name):
                    parameter.data = parameter.data.cpu()
            keep_modulation_on_host(model)
        return model

    @cached_property
    def kernels(self) -> Kernels:
        """Those that a server chooses by default."""
        if self.loaded is not None:
            return self.loaded._kernels
        attention = choose_attention(ATTENTION, self.heads).function
        passes = EAGER_PASSES
        if is_compiled(FUSED, self.device):
            passes = compiled_passes(self.transformer.config, self.dtypes.transformer, self.device)
        return Kernels(attention=attention, passes=passes)

    @property
    def heads(self) -> Heads:
        config = self.transformer.config
        return Heads(
            count=config.num_attention_heads,
            width=config.attention_head_dim,
            dtype=self.dtypes.transformer,
            device=self.device,
        )

    @cached_property
    def vae(self) -> Any:
        if self.loaded is not None:
            return self.loaded.vae
        with torch.device("meta"):
            model = AutoencoderKLHunyuanVideo(**{key: self.sizes.vae[key] for key in _VAE_KEYS})
        model.register_to_config(**TILING)
        return random_weights(model, self.device, self.dtypes.vae)

    def latents(self, size: PixelShape, *, seed: int = 0) -> Tensor:
        """Noise fp32 [1,16,T,h,w]."""
        shape = LatentShape.from_pixels(size, Strides.of(self.vae.config, self.transformer.config))
        channels = self.transformer.config.in_channels
        drawn = torch.Generator().manual_seed(seed)
        return torch.randn(1, channels, shape.frames, shape.height, shape.width, generator=drawn).to(self.device)


class Request:
    """One size on the models of `subject`: two guidance branches with `text_rows` valid rows of text."""

    def __init__(self, subject: Subject, size: PixelShape, text_rows: tuple[int, int]) -> None:
        self.transformer = subject.transformer
        self.kernels = subject.kernels
        self.name = f"{size.height}x{size.width}, {size.frames} frames"
        self.latents = subject.latents(size)
        config = self.transformer.config
        frames, height, width = self.latents.shape[2:]
        grid = TokenGrid(frames=frames, height=height // config.patch_size, width=width // config.patch_size)
        self.tokens = (1 + frames) * grid.per_frame
        self.branches = [_branch(self.transformer, self.latents, rows) for rows in text_rows]
        cos, sin = rotary_tables(grid, config.rope_axes_dim, config.rope_theta, text_rows=max(text_rows))
        self.rope = cos.to(subject.device), sin.to(subject.device)
        self._pacer = Pacer(subject.device)
        timesteps, _ = _schedule(1)
        self.timestep = timesteps.to(subject.device)
        with torch.no_grad(), onloaded(self.transformer):
            given = prepare(self.transformer, self.branches, self.timestep, start_step=0)
        self._prepared = dict(enumerate(given))

    def step(self) -> list[Tensor]:
        """What a step computes: the velocities fp32 [1,16,T,h,w] of both branches."""
        return self._predictions(self._prepared)

    def branch(self) -> list[Tensor]:
        """The same of the second branch alone."""
        return self._predictions({1: self._prepared[1]})

    @contextmanager
    def computing_with(self, kernels: Kernels) -> Iterator[None]:
        before, self.kernels = self.kernels, kernels
        try:
            yield
        finally:
            self.kernels = before

    @torch.no_grad()
    def denoised(self, steps: int, cache: StepCache | None = None) -> Tensor:
        """Latents after `steps` guided steps, with the step cache `cache`."""
        return denoise(
            self.transformer,
            self.latents,
            self.branches,
            share=Share(self.rope),
            schedule=_schedule(steps),
            sampling=Sampling(steps=steps, guidance_scale=GUIDANCE, ip_cfg_scale=0, step_cache=None),
            kernels=self.kernels,
            cache=cache,
            on_block=self._pacer,
            on_step=lambda _step, _timestep, latents, _velocity: latents,
        )

    @torch.no_grad()
    def _predictions(self, prepared: Mapping[int, Prepared]) -> list[Tensor]:
        context = Context(share=Share(self.rope), kernels=self.kernels, on_block=self._pacer)
        cache = StepCache((True,))
        return predictions(
            self.transformer, self.latents, self.timestep, prepared, context=context, cache=cache, step=0
        )


def _schedule(steps: int) -> tuple[Tensor, Tensor]:
    return sigma_schedule(FlowMatchEulerDiscreteScheduler(shift=SHIFT), steps)


def random_weights(model: nn.Module, device: torch.device, dtype: torch.dtype) -> Any:
    """A model that was made on the meta device, on `device`."""
    model = nn.Module.to(model, dtype).to_empty(device=device).eval().requires_grad_(False)  # diffusers' `to` warns
    random = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.02, generator=random)
        else:
            parameter.fill_(float(name.endswith("weight")))
    return model


def _branch(transformer: Any, latents: Tensor, valid: int) -> Branch:
    config, dtype, device = transformer.config, compute_dtype(transformer), latents.device
    random = torch.Generator().manual_seed(valid)
    text = torch.randn(1, TEXT_ROWS, config.text_embed_dim, generator=random)
    return Branch(
        text=text.to(device, dtype),
        mask=(torch.arange(TEXT_ROWS, device=device) < valid).long()[None],
        pooled=torch.randn(1, config.pooled_projection_dim, generator=random).to(device, dtype),
        reference=torch.randn(1, config.in_channels, 1, *latents.shape[3:], generator=random).to(device),
        valid=valid,
    )


_VAE_KEYS = ("latent_channels", "block_out_channels", "layers_per_block", "norm_num_groups", "scaling_factor")

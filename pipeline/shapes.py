"""Pixels -> latents -> tokens. Strides are used only here and come from the models' configs.

T frames, H W sides; `F = 1 + time * (T_latent - 1)`, because the causal VAE encodes the first frame alone.
"""

from dataclasses import dataclass
from numbers import Integral

from pipeline.components import TransformerConfig, VaeConfig


@dataclass(frozen=True, slots=True)
class Strides:
    """Pixels per latent (`time`, `space`) and latents per token side (`patch`, `patch_time`)."""

    time: int
    space: int
    patch: int
    patch_time: int

    @classmethod
    def of(cls, vae_config: VaeConfig, transformer_config: TransformerConfig) -> "Strides":
        return cls(
            time=vae_config.temporal_compression_ratio,
            space=vae_config.spatial_compression_ratio,
            patch=transformer_config.patch_size,
            patch_time=transformer_config.patch_size_t,
        )


@dataclass(frozen=True, slots=True)
class PixelShape:
    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, value in (("num_frames", self.frames), ("height", self.height), ("width", self.width)):
            whole_number(name, value)


@dataclass(frozen=True, slots=True)
class LatentShape:
    frames: int
    height: int
    width: int

    @classmethod
    def from_pixels(cls, pixels: PixelShape, strides: Strides) -> "LatentShape":
        """Raises ValueError for a shape the model cannot generate; the message says which it can."""
        side = strides.space * strides.patch
        for name, value in (("height", pixels.height), ("width", pixels.width)):
            if value < side or value % side:
                raise ValueError(f"`{name}` must be a positive multiple of {side}, got {value}")
        if pixels.frames < 1 or (pixels.frames - 1) % strides.time:
            raise ValueError(f"`num_frames` must be {strides.time}n+1 (1, 5, 9, ...), got {pixels.frames}")
        return cls(
            frames=(pixels.frames - 1) // strides.time + 1,
            height=pixels.height // strides.space,
            width=pixels.width // strides.space,
        )


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Tokens of the video; the reference adds one more frame of them in front."""

    frames: int
    height: int
    width: int

    @classmethod
    def from_latents(cls, latents: LatentShape, strides: Strides) -> "TokenGrid":
        return cls(
            frames=latents.frames // strides.patch_time,
            height=latents.height // strides.patch,
            width=latents.width // strides.patch,
        )

    @property
    def per_frame(self) -> int:
        return self.height * self.width


def whole_number(name: str, value: object) -> None:
    """Raises ValueError unless `value` is an integer of some type; 5.0 is not."""
    if not isinstance(value, Integral):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}")  # noqa: TRY004 - as every bad argument

"""Which dtype the weights have, model by model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DtypePolicy:
    """Dtypes of the weights by component; what is computed with them, and how wide, is the same under every policy.

    transformer: Linear layers and attention in its dtype, fp8 layers taken back to it one by one. As under the
        autocast the reference runs in, LayerNorms and the scale and shift behind them are fp32 and rounded once; so are
        the rotary tables and the text mean of the refiner. Velocities leave it as fp32.
    latents, noise, guidance, Euler steps: fp32 always. (The reference mixes guidance in bf16.)
    text_encoders: LLaVA and CLIP, fp16 as in the reference; their states enter the transformer in its dtype.
    vae: fp16 as in the reference. A tile that overflows is computed again in fp32; tiles are blended, and the
        identity's posterior read, in fp32.
    """

    transformer: torch.dtype
    text_encoders: torch.dtype
    vae: torch.dtype

    @classmethod
    def named(cls, name: str, device: str) -> "DtypePolicy":
        """ "float32" everywhere, or "bfloat16" as published: bf16 transformer, fp16 encoders and VAE.

        fp16 convolutions have no fast CPU kernels, and encoders and VAE are small: on the CPU they stay fp32.
        """
        if name == "float32":
            return cls(torch.float32, torch.float32, torch.float32)
        if name == "bfloat16":
            half = torch.float32 if torch.device(device).type == "cpu" else torch.float16
            return cls(torch.bfloat16, half, half)
        raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {name!r}")


@contextmanager
def in_float32(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Holds `module` (of `dtype`, 16 bit) in fp32 for a while. Widening and narrowing again loses nothing."""
    module.to(dtype=torch.float32)
    try:
        yield
    finally:
        module.to(dtype=dtype)


@contextmanager
def exact_float32() -> Iterator[None]:
    """cuDNN convolves fp32 tensors in fp32 for a while. Its default is TF32, with 10 bits of mantissa: decoded frames
    were off by 1.3e-3 instead of 3.5e-6.
    """
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield

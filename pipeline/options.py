"""What a deployment can choose about the pipeline, and the defaults. Importing this module does not import torch.

`server/settings.py` takes types and defaults from here, so that each exists once.
"""

from typing import Final, Literal, TypeAlias, get_args

MemoryPlan: TypeAlias = Literal["resident", "offload_encoders", "stream_blocks"]
"""What stays on the device, from fast and large to slow and small: see `memory/placement.py`."""

MemoryPlanChoice: TypeAlias = Literal["auto", "resident", "offload_encoders", "stream_blocks"]
"""A plan, or the fastest that fits: see `memory/decide.py`."""

Dtype: TypeAlias = Literal["float32", "bfloat16"]
"""Of the transformer's weights; what the other models get: see `memory/dtypes.py`."""

Alpha: TypeAlias = Literal["white", "drop"]
"""Transparent identity images: composited on white, or the colours below the alpha channel, as the reference does."""

Posterior: TypeAlias = Literal["mode", "sample"]
"""How the VAE's posterior of the identity image is read: its mode, or a sample, as the reference does."""

StepCacheName: TypeAlias = Literal["reference", "first_block"]
"""Which transformer blocks are reused between steps, and when: see `step_cache.py`."""

Fused: TypeAlias = Literal["auto", "compiled", "eager"]
"""The passes between a block's layers and its attention (`fused/`) and those of the VAE (`vae/passes.py`), which a GPU
alone has. "auto" compiles them on a GPU."""

AttentionName: TypeAlias = Literal["auto", "sdpa", "fa3", "fa4", "fa3_fp8", "sage"]
"""What computes attention: see `attention/choice.py`."""

CpuLinear: TypeAlias = Literal["torch", "onednn"]
"""What computes the transformer's Linear layers in fp32 on a CPU: see `cpu_linear.py`."""

Background: TypeAlias = Literal["keep", "white"]
"""Of the identity image: as it came, or the subject cut out on white, as in the reference's own examples."""

MEMORY_PLAN: Final[MemoryPlan] = "resident"
MEMORY_PLANS: Final[tuple[MemoryPlan, ...]] = get_args(MemoryPlan)
ATTENTION: Final[AttentionName] = "auto"
CPU_LINEAR: Final[CpuLinear] = "torch"
DTYPE: Final[Dtype] = "bfloat16"
ALPHA: Final[Alpha] = "white"
POSTERIOR: Final[Posterior] = "mode"
FUSED: Final[Fused] = "auto"
MLP_CHUNK: Final = 0
"""Tokens that go through an MLP at once; 0 for all: see `fused/kernels.py`."""
STEP_CACHE_THRESHOLD: Final = 0.06
"""Of "first_block": what its authors took for HunyuanVideo at 30 steps; not calibrated for this model."""
BACKGROUND: Final[Background] = "keep"
BUNDLED_CLASSIFIER: Final = "bundled"
"""The image classifier that is part of the package: see `safety/bundled.py`."""
EXPLICIT_SCORE: Final = 0.8
"""From this probability a picture counts as explicit."""
PREVIEW_EVERY_S: Final = 3.0
CRF: Final = 18
"""x264's constant rate factor, 0..51, lower is better: visually close to lossless."""

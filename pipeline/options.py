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

StepCacheName: TypeAlias = Literal["reference"]
"""The schedule of reused transformer blocks: see `step_cache.py`."""

MEMORY_PLAN: Final[MemoryPlan] = "resident"
MEMORY_PLANS: Final[tuple[MemoryPlan, ...]] = get_args(MemoryPlan)
DTYPE: Final[Dtype] = "bfloat16"
ALPHA: Final[Alpha] = "white"
POSTERIOR: Final[Posterior] = "mode"
CRF: Final = 18
"""x264's constant rate factor, 0..51, lower is better: visually close to lossless."""

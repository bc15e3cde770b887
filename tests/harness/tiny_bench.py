"""What `bench model` measures in seconds: a transformer of width 64 and a VAE of 8 channels."""

from typing import Any

import torch

from pipeline.checks.bench.plan import BenchPlan
from pipeline.checks.bench.subject import Request, Sizes, Subject
from pipeline.shapes import PixelShape
from weights.originals.plan_transformer import FULL_SIZE as TRANSFORMER
from weights.originals.plan_vae import FULL_SIZE as VAE

SIZES = Sizes(
    transformer={
        **TRANSFORMER,
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "num_layers": 2,
        "num_single_layers": 2,
        "rope_axes_dim": [8, 12, 12],
        "text_embed_dim": 32,
        "pooled_projection_dim": 24,
    },
    vae={**VAE, "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4},
    full=False,
)
SHAPE = PixelShape(frames=5, height=32, width=48)
CPU = torch.device("cpu")


def tiny_plan(**changed: Any) -> BenchPlan:
    """All stages of one size, once."""
    options: dict[str, Any] = {"sizes": [SHAPE], "text_rows": (7, 40), "repeats": 1, "steps": 4}
    return BenchPlan(device=CPU, dtype="float32", models=SIZES, **(options | changed))


def tiny_request() -> Request:
    return Request(Subject(SIZES, device=CPU, dtype="float32"), SHAPE, (7, 40))

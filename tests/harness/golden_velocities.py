"""One forward of each guidance branch of the reference's 16-bit runs, whose text states are fp16."""

from typing import Any

import torch
from torch import Tensor

from pipeline.fused.kernels import EAGER
from pipeline.prepared import prepare, refined_text
from pipeline.rope import rotary_tables
from pipeline.shapes import TokenGrid
from pipeline.share import Share
from pipeline.transformer import Branch, Context, compute_dtype, head, trunk


def golden_velocities(dit: Any, io: dict[str, Tensor]) -> Tensor:
    """fp32 [2,16,T,h,w] of a bf16 `dit`; `io` is dit_tiny_io."""
    rope = rotary_tables(TokenGrid(3, 4, 6), dit.config.rope_axes_dim, dit.config.rope_theta, text_rows=45)
    dtype, rows = compute_dtype(dit), []
    for row in range(2):
        one = slice(row, row + 1)
        mask = io["in.text_mask"][one]
        branch = Branch(
            text=io["in.text_states"][one].half().to(dtype),
            mask=mask,
            pooled=io["in.text_states_2"][one].half().to(dtype),
            reference=io["in.ref_latents"][one],
            valid=int(mask.sum()),
        )
        timestep = io["in.t"][one]
        (prepared,) = prepare(dit, [branch], timestep, start_step=0)
        forward: dict[str, Any] = {"modulation": prepared.modulation[0], "branch": branch}
        forward["context"] = Context(share=Share(rope), kernels=EAGER, on_block=lambda: None)
        x = trunk(dit, io["in.x"][one], refined_text(dit, prepared, timestep), **forward)
        assert x.dtype == torch.bfloat16
        rows.append(head(dit, x, size=io["in.x"][one].shape, **forward))
    velocity = torch.cat(rows)
    assert velocity.dtype == torch.float32
    return velocity

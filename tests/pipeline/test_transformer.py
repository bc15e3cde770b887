"""Every tensor of one forward pass against the reference's, on its tiny transformer."""

from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor

from pipeline import denoise
from pipeline.blocks import double_block, single_block
from pipeline.fused.kernels import EAGER
from pipeline.modulation import Modulation, modulations
from pipeline.prepared import prepare, refined_text
from pipeline.rope import rotary_tables
from pipeline.shapes import TokenGrid
from pipeline.share import Share
from pipeline.step_cache import StepCache
from pipeline.transformer import Branch, Context, conditioning_vector, head, patchify, trunk

TOLERANCE = 2e-5
IMAGE_TOKENS = 96


@pytest.fixture(scope="module")
def rope(dit: Any) -> tuple[Tensor, Tensor]:
    return rotary_tables(TokenGrid(3, 4, 6), dit.config.rope_axes_dim, dit.config.rope_theta, text_rows=45)


@pytest.fixture(params=[0, 1], ids=["negative", "positive"])
def row(request: pytest.FixtureRequest) -> int:
    return request.param


def _branch(io: dict[str, Tensor], row: int, reference: Tensor | None = None) -> Branch:
    mask = io["in.text_mask"][row : row + 1]
    reference = io["in.ref_latents"][row : row + 1] if reference is None else reference
    return Branch(
        text=io["in.text_states"][row : row + 1],
        mask=mask,
        pooled=io["in.text_states_2"][row : row + 1],
        reference=reference,
        valid=int(mask.sum()),
    )


def _context(rope: Any, counted: list[None] | None = None) -> Context:
    counted = [] if counted is None else counted
    return Context(share=Share(rope), kernels=EAGER, on_block=lambda: counted.append(None))


def _trunk(dit: Any, latents: Tensor, timestep: Tensor, branch: Branch, context: Context) -> tuple[Tensor, Modulation]:
    """Its result, and the modulation of that forward."""
    (prepared,) = prepare(dit, [branch], timestep, start_step=0)
    text, modulation = refined_text(dit, prepared, timestep), prepared.modulation[0]
    return trunk(dit, latents, text, modulation=modulation, branch=branch, context=context), modulation


def _forward(
    dit: Any, io: dict[str, Tensor], branch: Branch, rope: Any, *, counted: list[None] | None = None
) -> Tensor:
    latents, context = io["in.x"][:1], _context(rope, counted)
    x, modulation = _trunk(dit, latents, io["in.t"][:1], branch, context)
    return head(dit, x, modulation=modulation, branch=branch, context=context, size=latents.shape)


def test_embeddings(dit: Any, dit_io: dict[str, Tensor], row: int, close: Any) -> None:
    branch, one = _branch(dit_io, row), slice(row, row + 1)
    close("patch embedding", patchify(dit, dit_io["in.x"][one]), dit_io["mid.img_in_x"][one], TOLERANCE)
    close("patch embedding", patchify(dit, branch.reference), dit_io["mid.img_in_ref"][one], TOLERANCE)
    vec = conditioning_vector(dit, dit_io["in.t"][one], branch)
    close("conditioning vector", vec, dit_io["mid.vec"][one], TOLERANCE)


def test_refiner_rows_padding_included(dit: Any, dit_io: dict[str, Tensor], row: int, close: Any) -> None:
    branch, one = _branch(dit_io, row), slice(row, row + 1)
    seen: dict[str, Tensor] = {}
    refiner = dit.context_embedder
    hooks = [
        refiner.time_text_embed.text_embedder.register_forward_hook(lambda *io: seen.update(context=io[2])),
        refiner.token_refiner.refiner_blocks[0].register_forward_hook(lambda *io: seen.update(block0=io[2])),
    ]
    out = refiner(branch.text, dit_io["in.t"][one], branch.mask)
    for hook in hooks:
        hook.remove()
    close("token refiner", seen["context"], dit_io["mid.txt_in_context"][one], TOLERANCE)
    close("token refiner", seen["block0"], dit_io["mid.txt_in_block0"][one], TOLERANCE)
    close("token refiner", out, dit_io["mid.txt_in"][one], TOLERANCE)


def test_every_block(dit: Any, dit_io: dict[str, Tensor], row: int, rope: Any, close: Any) -> None:
    branch, one = _branch(dit_io, row), slice(row, row + 1)
    (modulation,) = modulations(dit, [conditioning_vector(dit, dit_io["in.t"][one], branch)])
    image = patchify(dit, torch.cat([branch.reference, dit_io["in.x"][one]], dim=2))[0]
    text = dit_io["mid.txt_in"][row, : branch.valid]
    shared: dict[str, Any] = {"rope": [table[: IMAGE_TOKENS + branch.valid] for table in rope], "kernels": EAGER}
    for index, block in enumerate(dit.transformer_blocks):
        image, text = double_block(block, image, text, modulation.double[index], **shared)
        close("double blocks", image, dit_io[f"mid.double{index}.img"][row], TOLERANCE)
        close("double blocks", text, dit_io[f"mid.double{index}.txt"][row, : branch.valid], TOLERANCE)
    x = torch.cat([image, text])
    for index, block in enumerate(dit.single_transformer_blocks):
        x = single_block(block, x, modulation.single[index], **shared)
        close("single blocks", x, dit_io[f"mid.single{index}.x"][row, : len(x)], TOLERANCE)


def test_velocity(dit: Any, dit_io: dict[str, Tensor], row: int, rope: Any, close: Any) -> None:
    counted: list[None] = []
    velocity = _forward(dit, dit_io, _branch(dit_io, row), rope, counted=counted)
    close("velocity", velocity, dit_io[f"out.x_row{row}_alone"], TOLERANCE)
    close("velocity", velocity, dit_io["out.x_cfg_batch"][row : row + 1], TOLERANCE)
    assert len(counted) == len(dit.transformer_blocks) + len(dit.single_transformer_blocks)


def test_velocities_of_identity_guidance(dit: Any, dit_io: dict[str, Tensor], rope: Any, close: Any) -> None:
    white = dit_io["in.ip.uncond_ref"]
    for index, (row, reference) in enumerate([(0, white), (1, white), (1, None)]):
        velocity = _forward(dit, dit_io, _branch(dit_io, row, reference), rope)
        close("velocity, ip-CFG batch", velocity, dit_io["out.x_ipcfg_batch3"][index : index + 1], TOLERANCE)


def test_cached_step(dit: Any, dit_io: dict[str, Tensor], row: int, rope: Any, close: Any) -> None:
    """The trunk of one step under the head of another, fed as the loop feeds it; its latents do not enter."""
    branch, one = _branch(dit_io, row), slice(row, row + 1)
    cache, context = StepCache([True, False, True]), _context(rope)
    assert not torch.equal(dit_io["in.cache.x"], dit_io["in.x"])
    timesteps = torch.cat([dit_io["in.t"][one], dit_io["in.cache.t"][one]])
    (prepared,) = prepare(dit, [branch], timesteps, start_step=0)
    shared: dict[str, Any] = {"context": context, "cache": cache}
    velocities = [
        denoise._predict(dit, dit_io[latents][one], timestep, prepared, key=(step, row), **shared)
        for step, (latents, timestep) in enumerate(zip(["in.x", "in.cache.x"], timesteps.split(1), strict=True))
    ]
    close("cached step", velocities[1], dit_io["out.x_cached_step"][one], TOLERANCE)
    x, _ = _trunk(dit, dit_io["in.x"][one], dit_io["in.t"][one], branch, context)
    close("cached step", x, dit_io["mid.cache_out"][one, : x.shape[1]], TOLERANCE)


def test_full_size_shapes() -> None:
    """The published configuration at 720p and 129 frames, without values."""
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel(guidance_embeds=False).bfloat16()
        latents, frame = torch.empty(1, 16, 33, 90, 160), torch.empty(1, 16, 1, 90, 160)
        branch = Branch(
            text=torch.empty(1, 831, 4096, dtype=torch.bfloat16),
            mask=torch.ones(1, 831, dtype=torch.long),
            pooled=torch.empty(1, 768, dtype=torch.bfloat16),
            reference=frame,
            valid=596,
        )
        table = torch.empty(34 * 3600 + 831, 128)
        counted: list[None] = []
        context = _context((table, table), counted)
        x, modulation = _trunk(model, latents, torch.empty(1), branch, context)
        velocity = head(model, x, modulation=modulation, branch=branch, context=context, size=latents.shape)
    assert x.shape == (1, 34 * 3600 + 596, 3072)
    assert x.dtype == torch.bfloat16
    assert velocity.shape == latents.shape
    assert len(counted) == 60

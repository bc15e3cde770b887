"""Predicted memory against shapes, counted tensors and what was measured on a GPU."""

import json
import logging
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel

from pipeline.checks.live_bytes import LiveBytes
from pipeline.demo.model import build_demo_model
from pipeline.denoise import Sampling, denoise, sigma_schedule
from pipeline.load import load_pipeline
from pipeline.memory.block_ring import BUFFERS
from pipeline.memory.decide import decided
from pipeline.memory.device_copies import HostCopies
from pipeline.memory.host_layers import keep_modulation_on_host, moved_tensors
from pipeline.memory.model_sizes import PUBLISHED, ModelSizes
from pipeline.memory.placement import apply_memory_plan, onloaded
from pipeline.memory.planner import CLIPS, LARGEST, MEASURED, TODAY, Clip, Stage, choose, decoding, denoising, need
from pipeline.options import MemoryPlan, StepCacheName
from pipeline.rope import rotary_tables
from pipeline.shapes import TokenGrid
from pipeline.share import Share
from pipeline.transformer import Branch
from tests.harness.tiny_model import DIT_CONFIG
from weights.originals.plan_transformer import FULL_SIZE
from weights.originals.structure import transformer_shapes, vae_shapes

GB = 10**9
SHORT, LONG = Clip(896, 512, 81), Clip(896, 512, 129)


def test_the_published_sizes_are_those_of_the_model_classes() -> None:
    shapes = transformer_shapes(FULL_SIZE)
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    modulation = ("norm1.linear", "norm1_context.linear", "norm.linear")
    tables = sum(
        2 * math.prod(shape)
        for name, shape in shapes.items()
        if "transformer_blocks." in name and name.rsplit(".", 1)[0].endswith(modulation)
    )
    vae = vae_shapes({"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32})
    assert PUBLISHED.transformer == total
    assert PUBLISHED.modulation == tables
    assert PUBLISHED.vae == sum(2 * math.prod(shape) for shape in vae.values())


@pytest.mark.parametrize(
    ("predicted", "measured"),
    [
        pytest.param(
            PUBLISHED.transformer + sum(denoising(PUBLISHED, LONG, MEASURED).values()), 31.1, id="transformer alone"
        ),
        pytest.param(PUBLISHED.vae + decoding(PUBLISHED, LONG, MEASURED)["tile"], 14.7, id="a tile of the VAE"),
        pytest.param(PUBLISHED.vae + sum(decoding(PUBLISHED, LONG, MEASURED).values()), 16.0, id="decoding a clip"),
        # By nvidia-smi, with segments of fixed size.
        pytest.param(PUBLISHED.total, 43, id="weights of a server"),
        pytest.param(need(PUBLISHED, "resident", SHORT, engine=MEASURED).taken["decode"], 68.8, id="resident server"),
        pytest.param(
            need(PUBLISHED, "stream_blocks", SHORT, engine=MEASURED).taken["denoise"],
            15.0,
            id="streaming server, steps",
        ),
    ],
)
def test_predictions_are_within_a_tenth_of_what_an_h100_showed(predicted: int, measured: float) -> None:
    assert predicted / GB == pytest.approx(measured, rel=0.1)


def test_as_many_blocks_are_streamed_as_there_are_buffers() -> None:
    assert TODAY.streamed_blocks == BUFFERS


def test_the_largest_clip_stays_resident_on_80_gb() -> None:
    """An H100 reports 81,559 MiB."""
    assert choose(PUBLISHED, gpu=81_559 * 2**20, host=8 * GB, clip=LARGEST).plan == "resident"


@pytest.mark.parametrize(
    ("dtype", "step_cache"),
    [(torch.float32, None), (torch.bfloat16, None), (torch.float32, "reference"), (torch.float32, "first_block")],
)
def test_denoising_holds_as_many_bytes_as_predicted(dtype: torch.dtype, step_cache: StepCacheName | None) -> None:
    """Counted in a small transformer whose activations outweigh everything else: in one step, or in as many guided ones
    as the step cache needs to have something.
    """
    steps, guidance = (1, 1.0) if step_cache is None else (6, 7.5)
    config = DIT_CONFIG | {"num_single_layers": 2, "text_embed_dim": 8}
    model = HunyuanVideoTransformer3DModel(**config).to(dtype).eval().requires_grad_(False)
    clip, rows = Clip(256, 192, 13), 20
    grid = TokenGrid(frames=4, height=12, width=16)
    mask = torch.ones(1, rows, dtype=torch.int64)
    branch = Branch(
        text=torch.randn(1, rows, 8, dtype=dtype),
        mask=mask,
        pooled=torch.randn(1, 24, dtype=dtype),
        reference=torch.randn(1, 16, 1, 24, 32),
        valid=rows,
    )
    noise = torch.randn(1, 16, 4, 24, 32)
    sampling = Sampling(
        steps=steps, guidance_scale=guidance, ip_cfg_scale=0.0, step_cache=step_cache, step_cache_threshold=0.0
    )
    with LiveBytes() as live:
        rope = rotary_tables(grid, config["rope_axes_dim"], 256.0, text_rows=rows)
        denoise(
            model,
            noise,
            [branch] if step_cache is None else [branch, branch],
            share=Share(rope),
            schedule=sigma_schedule(FlowMatchEulerDiscreteScheduler(shift=13.0), steps),
            sampling=sampling,
            on_block=lambda: None,
            on_step=lambda _step, _timestep, latents, _velocity: latents,
        )
    sizes = replace(PUBLISHED, hidden=64, mlp=256, head=32, itemsize=dtype.itemsize)
    assert clip.tokens == 5 * grid.per_frame
    engine = replace(TODAY, step_cache=step_cache)
    velocities = 0 if step_cache is None else 4 * noise.nbytes  # three of the step before; small at full size
    assert sum(denoising(sizes, clip, engine, text_rows=rows).values()) + velocities == pytest.approx(
        live.peak, rel=0.1
    )


@pytest.mark.parametrize("plan", ["offload_encoders", "stream_blocks"])
def test_weights_are_on_the_device_as_predicted(plan: MemoryPlan, tmp_path: Path) -> None:
    """In every stage of a request that follows on another."""
    folder = build_demo_model(tmp_path / "demo")
    pipe, sizes = load_pipeline(folder, device="cpu", dtype="float32"), ModelSizes.of(folder, "float32")
    models = {name: pipe.components[name] for name in ("vae", "text_encoder", "text_encoder_2", "transformer")}
    keep_modulation_on_host(models["transformer"])
    home = {tensor.data_ptr() for model in models.values() for tensor in moved_tensors(model)}
    if plan == "stream_blocks":
        apply_memory_plan(pipe, plan, "cpu", Copies())
    else:
        before = None
        for name in pipe.model_cpu_offload_seq.split("->"):  # as diffusers does, with meta for the GPU
            models[name].to = lambda device, model=models[name]: model.to_empty(device=device)
            _, before = cpu_offload_with_hook(models[name], torch.device("meta"), prev_module_hook=before)

    def on_device() -> int:
        tensors = [tensor for model in models.values() for tensor in moved_tensors(model)]
        if plan == "offload_encoders":
            return sum(tensor.nbytes for tensor in tensors if tensor.device.type == "meta")
        return sum(tensor.nbytes for tensor in tensors if tensor.data_ptr() not in home)

    found: dict[str, int] = {}
    for name, stage in (("vae", "decode"), ("text_encoder", "encode"), ("text_encoder_2", ""), ("vae", "")):
        with onloaded(models[name]):
            found[stage] = on_device()
    del found[""]  # smaller than LLaVA, but for the demo's CLIP
    if plan == "offload_encoders":
        with onloaded(models["transformer"]):
            found["denoise"] = on_device()
    for stage, held in found.items():
        terms = need(sizes, plan, SHORT).stages[cast(Stage, stage)]
        weights = [terms.get(model, 0) for model in ("transformer", "encoders", "LLaVA", "VAE")]
        assert sum(weights) == pytest.approx(held, rel=0.1), stage


class Copies(HostCopies):
    """What is there is another tensor than what is here."""

    def there(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()


def test_a_converted_folder_is_measured_by_its_headers(tmp_path: Path) -> None:
    folder = build_demo_model(tmp_path / "demo")
    sizes = ModelSizes.of(folder, "float32")
    stored = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert sizes.total == pytest.approx(stored, rel=0.02)
    assert all(getattr(sizes, field.name) for field in fields(sizes))
    half = ModelSizes.of(folder, "bfloat16")
    assert half.total * 2 == sizes.total
    assert ModelSizes.of(folder, "bfloat16", on_cpu=True).vae == sizes.vae


@pytest.mark.parametrize(
    ("gpu", "host", "plan"),
    [
        (80, 16, "resident"),
        (48, 16, "resident"),
        (32, 64, "offload_encoders"),
        (32, 32, "stream_blocks"),
        (24, 64, "stream_blocks"),
        (8, 64, "stream_blocks"),
    ],
)
def test_auto_is_the_fastest_plan_that_has_room(gpu: int, host: int, plan: str) -> None:
    chosen = choose(PUBLISHED, gpu=gpu * GB, host=host * GB)
    assert chosen.plan == plan
    assert chosen.fits == (gpu > 8)


@pytest.mark.parametrize("clip", CLIPS, ids=str)
def test_more_room_never_makes_a_plan_slower(clip: Clip) -> None:
    order = ["stream_blocks", "offload_encoders", "resident"]
    plans = [choose(PUBLISHED, gpu=gpu * GB, host=64 * GB, clip=clip).plan for gpu in range(4, 90, 2)]
    assert [order.index(plan) for plan in plans] == sorted(order.index(plan) for plan in plans)


@pytest.fixture
def full_size(tmp_path: Path) -> Path:
    """Headers of a full-size model without its weights."""

    def write(name: str, shapes: dict[str, Any], config: dict[str, Any]) -> None:
        (tmp_path / name).mkdir()
        header = json.dumps({key: {"shape": shape, "dtype": "BF16"} for key, shape in shapes.items()}).encode()
        (tmp_path / name / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        (tmp_path / name / "config.json").write_text(json.dumps(config))

    write("transformer", transformer_shapes(FULL_SIZE), FULL_SIZE)
    text = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    embedding = [128_320, 4096]
    rest = [PUBLISHED.text_encoder // 2 - math.prod(embedding)]
    write(
        "text_encoder",
        {"embed_tokens": embedding, "rest": [rest[0] // 2], "more": [rest[0] // 2]},
        {"text_config": text},
    )
    write("text_encoder_2", {"all": [PUBLISHED.text_encoder_2 // 2]}, {})
    write("vae", {"all": [PUBLISHED.vae // 2]}, {"block_out_channels": [128]})
    return tmp_path


def test_a_full_size_folder_is_the_published_model(full_size: Path) -> None:
    sizes = ModelSizes.of(full_size, "bfloat16")
    assert replace(sizes, largest_leaf=PUBLISHED.largest_leaf) == PUBLISHED


def test_a_named_plan_without_room_is_refused_with_one_that_fits(full_size: Path) -> None:
    with pytest.raises(
        ValueError, match=r"generator.memory_plan: 'resident' needs .* 24.0 GB are free; 'stream_blocks'"
    ):
        decided(full_size, dtype="bfloat16", wanted="resident", gpu=24 * GB, host=64 * GB)


def test_a_named_plan_with_room_for_short_clips_is_taken_and_warned_of(
    full_size: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert decided(full_size, dtype="bfloat16", wanted="resident", gpu=465 * GB // 10, host=64 * GB) == "resident"
    assert "'offload_encoders' fits" in caplog.text


@pytest.mark.parametrize(
    ("gpu", "host", "plan"), [(48, 64, "offload_encoders"), (48, 16, "stream_blocks"), (4, 16, "stream_blocks")]
)
def test_after_an_out_of_memory_a_plan_without_room_is_passed_over(
    gpu: int, host: int, plan: str, full_size: Path
) -> None:
    chosen = decided(
        full_size, dtype="bfloat16", wanted="offload_encoders", or_smaller=True, gpu=gpu * GB, host=host * GB
    )
    assert chosen == plan


def test_auto_counts_what_the_step_cache_keeps(full_size: Path) -> None:
    def plan(step_cache: StepCacheName | None) -> str:
        return decided(full_size, dtype="bfloat16", wanted="auto", step_cache=step_cache, gpu=50 * GB, host=64 * GB)

    assert plan(None) == plan("reference") == "resident"
    assert plan("first_block") == "offload_encoders"


def test_auto_says_why(full_size: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert decided(full_size, dtype="bfloat16", wanted="auto", gpu=24 * GB, host=64 * GB) == "stream_blocks"
    assert "stream_blocks takes" in caplog.text
    assert "resident needs" in caplog.text

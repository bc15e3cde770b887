"""The pipeline as its users call it, against whole runs of the reference."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from PIL import Image
from torch import Tensor

from pipeline import denoise
from pipeline.conditioning.encode import Subject
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.progress import Progress
from pipeline.shapes import PixelShape
from pipeline.step_cache import full_steps
from tests.harness.golden_runs import RUNS, SIZE, golden_latents, with_config, words

SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2}


@pytest.mark.parametrize("tag", RUNS)
def test_whole_runs_equal_the_reference(
    tag: str,
    pipe: HunyuanCustomPipeline,
    identity: Image.Image,
    pipeline_io: dict[str, Tensor],
    text_cases: dict[str, Any],
    close: Any,
) -> None:
    steps: list[Tensor] = []

    def on_step(_pipe: Any, _step: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(tensors["latents"])
        return tensors

    given: dict[str, Any] = {"io": pipeline_io, "cases": text_cases, "identity": identity}
    latents = golden_latents(tag, pipe, callback_on_step_end=on_step, **given)
    close(f"latents, {tag}", latents, pipeline_io[f"{tag}.final_latents"], 1e-4)
    if tag == "cfg7.5_s10_shift13":
        close("latents after each of 10 steps", torch.stack(steps), pipeline_io[f"{tag}.latents_per_step"], 1e-4)

    expected = pipeline_io[f"{tag}.video"]
    video: Any = pipe.decode(latents, "pt", None)
    close(f"video, {tag}", video.transpose(1, 2), expected, 1e-4 if expected.dtype == torch.float32 else 5e-4)
    frames = torch.from_numpy(np.stack([np.asarray(frame) for frame in pipe.decode(latents, "pil", None)[0]]))
    expected = pipeline_io[f"{tag}.video_u8"]
    close("frames in uint8", frames.permute(3, 0, 1, 2)[None], expected, 1, unit="levels of 255")
    assert not pipe.text_encoder.training


def test_every_prediction_of_a_run_equals_the_reference(
    pipe: HunyuanCustomPipeline,
    identity: Image.Image,
    pipeline_io: dict[str, Tensor],
    text_cases: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    close: Any,
) -> None:
    """Both branches of all 10 steps, before guidance."""
    predictions: list[Tensor] = []
    predict = denoise._predict

    def record(*arguments: Any, **options: Any) -> Tensor:
        predictions.append(predict(*arguments, **options))
        return predictions[-1]

    monkeypatch.setattr(denoise, "_predict", record)
    arguments = words(text_cases["woman"]) | SIZE | {"num_inference_steps": 10, "output_type": "latent"}
    given = {"latents": pipeline_io["in.initial_noise_seed1024"], "ref_latents": pipeline_io["in.ref_latents"]}
    pipe(image=identity, **arguments, **given)
    expected = pipeline_io["cfg7.5_s10_shift13.model_out_per_step"]
    close("predictions of 10 steps", torch.stack(predictions).reshape(expected.shape), expected, 2e-5)


def test_the_identity_image_is_encoded_like_the_reference(
    pipe: HunyuanCustomPipeline, pipeline_io: dict[str, Tensor], close: Any
) -> None:
    """Mode, and the reference's samples: identity first, then white, from one generator."""
    small = pipeline_io["in.ref_u8"][0, :, 0].permute(1, 2, 0)
    subject = Subject(
        pixels=small.repeat_interleave(8, 0).repeat_interleave(8, 1).numpy(),
        prompt="a dog",
        subject_name="dog",
        negative_prompt="",
        negative_subject_name="person",
        reference=None,
        identity_guidance=True,
    )
    size = PixelShape(9, 64, 96)
    *_, mode = pipe.encode(subject, size)
    close("identity latents", mode.reference, pipeline_io["in.ref_latents_mode"], 2e-5)
    sampling = with_config(pipe, reference_posterior="sample")
    negative, positive, full = sampling.encode(subject, size, torch.Generator().manual_seed(1024))
    close("identity latents", full.reference, pipeline_io["in.ref_latents"], 2e-5)
    close("identity latents", positive.reference, pipeline_io["in.uncond_ref_latents"], 2e-5)
    assert negative.reference is positive.reference


def test_a_seed_means_the_reference_s_noise(
    pipe: HunyuanCustomPipeline, pipeline_io: dict[str, Tensor], close: Any
) -> None:
    noise = pipe.prepare_latents(PixelShape(9, 64, 96), torch.Generator().manual_seed(1024), None, None)
    has_avx = "AVX" in torch.backends.cpu.get_cpu_capability()  # without, torch's normal samples round differently
    close("initial noise", noise, pipeline_io["in.initial_noise_seed1024"], 0 if has_avx else 2e-6)


def test_equal_seeds_give_equal_frames(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    def run(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return pipe("a dog", identity, generator=generator, output_type="np", **SMALL).frames

    assert np.array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_noise_does_not_depend_on_how_the_identity_is_encoded(
    posterior: str, pipe: HunyuanCustomPipeline, identity: Image.Image
) -> None:
    expected = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(5))
    seen: list[Tensor] = []
    run = with_config(pipe, reference_posterior=posterior)
    drawn = run("x", identity, generator=torch.Generator().manual_seed(5), output_type="latent", **SMALL).frames
    seen.append(drawn)
    generator = torch.Generator().manual_seed(5)
    torch.randn(expected.shape, generator=generator)
    given = run("x", identity, latents=expected, generator=generator, output_type="latent", **SMALL).frames
    assert torch.equal(drawn, given)


@pytest.mark.parametrize("side", ["prompt", "negative_prompt"])
def test_a_prompt_beyond_the_window_is_bit_for_bit_the_one_that_fills_it(
    side: str, pipe: HunyuanCustomPipeline, identity: Image.Image
) -> None:
    """249 tokens fit beside an ending of 7; what follows them changes nothing, not even in CLIP's 77."""

    def run(tokens: int) -> Tensor:
        words = {"prompt": "a dog", "subject_name": "object"} | {side: " a" * tokens}
        noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
        return pipe(image=identity, latents=noise, output_type="latent", **(words | SMALL)).frames

    full = run(249)
    assert torch.equal(run(250), full)
    assert torch.equal(run(5000), full)
    assert not torch.equal(run(248), full)


def test_output_types(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    def run(output_type: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        return pipe("a dog", identity, generator=generator, output_type=output_type, return_dict=False, **SMALL)[0]

    assert run("latent").shape == (1, 16, 2, 4, 6)
    tensor, array, pictures = run("pt"), run("np"), run("pil")
    assert tensor.shape == (1, 5, 3, 32, 48)
    assert array.shape == (1, 5, 32, 48, 3)
    assert 0 <= tensor.min() <= tensor.max() <= 1
    assert np.array_equal(tensor.permute(0, 1, 3, 4, 2).numpy(), array)
    assert len(pictures) == 1
    assert np.array_equal(np.stack([np.asarray(p) for p in pictures[0]]), (array[0] * 255).astype(np.uint8))


def test_progress_counts_every_unit(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    reports: list[Progress] = []
    size = SMALL | {"height": 48, "width": 64, "num_frames": 21}
    pipe("a dog", identity, step_cache=None, callback_on_progress=reports.append, output_type="np", **size)
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == ["encode", "denoise", "decode"]
    for stage, total in (
        ("encode", 2 * 2 + 2 * 3),  # LLaVA and CLIP for two prompts, tiles of the identity image
        ("denoise", 2 * 2 * 4),  # steps, guidance rows, blocks
        ("decode", 2 * 2 * 3),  # temporal tiles, rows, columns
    ):
        of_stage = [report for report in reports if report.stage == stage]
        assert [report.done for report in of_stage] == list(range(1, total + 1))
        assert {report.total for report in of_stage} == {total}


@pytest.mark.parametrize("scales", [{"guidance_scale": 1.0}, {}, {"ip_cfg_scale": 3.0}])
def test_the_first_block_cache_leaves_out_blocks_and_counts_them(
    scales: dict[str, float], pipe: HunyuanCustomPipeline, identity: Image.Image
) -> None:
    """At threshold 0 it changes no bit; without a limit it reuses wherever its schedule allows."""

    def run(**options: Any) -> tuple[Tensor, int]:
        done: list[int] = []
        computed: list[None] = []
        hook = pipe.transformer.transformer_blocks[1].attn.to_q.register_forward_hook(lambda *_: computed.append(None))
        latents = pipe(
            "a dog",
            identity,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            callback_on_progress=lambda report: done.append(report.done) if report.stage == "denoise" else None,
            **(SMALL | {"num_inference_steps": 6} | scales | options),
        ).frames
        hook.remove()
        branches = 1 if scales.get("guidance_scale") else 2 + len(scales)
        assert done == list(range(1, 6 * branches * 4 + 1))
        return latents, len(computed) // branches

    plain, steps = run()
    assert steps == 6
    never, steps = run(step_cache="first_block", step_cache_threshold=0.0)
    assert steps == 6
    assert torch.equal(never, plain)
    always, steps = run(step_cache="first_block", step_cache_threshold=math.inf)
    assert steps == sum(full_steps("first_block", 6)) == 3
    assert not torch.equal(always, plain)


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_a_callback_that_raises_cancels_and_the_next_call_is_unharmed(
    stage: str, pipe: HunyuanCustomPipeline, identity: Image.Image
) -> None:
    def run(callback: Any) -> Any:
        generator = torch.Generator().manual_seed(3)
        return pipe(
            "a dog",
            identity,
            generator=generator,
            step_cache="reference",
            callback_on_progress=callback,
            output_type="np",
            **(SMALL | {"num_inference_steps": 6}),
        ).frames

    def cancel(progress: Progress) -> None:
        if progress.stage == stage:
            raise KeyError("cancelled")

    expected = run(None)
    with pytest.raises(KeyError, match="cancelled"):
        run(cancel)
    assert np.array_equal(run(None), expected)


def test_interrupt_stops_at_the_next_block(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    blocks: list[Progress] = []
    kept: list[Tensor] = []

    def on_progress(progress: Progress) -> None:
        if progress.stage == "denoise":
            blocks.append(progress)
            pipe._interrupt = len(blocks) == 11  # in the second of two steps of 8 blocks

    def on_step(_pipe: Any, _step: int, _timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        kept.append(tensors["latents"])
        return {}

    latents = pipe(
        "a dog",
        identity,
        output_type="latent",
        callback_on_progress=on_progress,
        callback_on_step_end=on_step,
        **SMALL,
    ).frames
    assert len(blocks) == 11
    assert len(kept) == 1
    assert latents is kept[0]
    assert pipe.interrupt
    pipe("a dog", identity, output_type="latent", **SMALL)
    assert not pipe.interrupt


def test_a_step_callback_may_replace_the_latents(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    replaced = torch.zeros(1, 16, 2, 4, 6)
    result = pipe(
        "x", identity, output_type="latent", callback_on_step_end=lambda *_: {"latents": replaced}, **SMALL
    ).frames
    assert result is replaced


def test_nothing_stays_on_the_modules(pipe: HunyuanCustomPipeline, identity: Image.Image) -> None:
    def attributes() -> dict[str, set[str]]:
        parts = (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
        return {f"{i}.{name}": set(vars(m)) for i, part in enumerate(parts) for name, m in part.named_modules()}

    before = attributes()
    pipe("x", identity, step_cache="reference", **(SMALL | {"num_inference_steps": 6}))
    assert attributes() == before


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"height": 40}, "`height` must be a positive multiple of 16"),
            ({"width": 0}, "`width` must be a positive multiple of 16"),
            ({"num_frames": 0}, "`num_frames` must be 4n"),
            ({"num_frames": 8}, "`num_frames` must be 4n"),
            ({"num_frames": 5.0}, "`num_frames` must be a whole number"),
            ({"height": 32.0}, "`height` must be a whole number"),
            ({"width": "48"}, "`width` must be a whole number"),
            ({"num_inference_steps": 2.5}, "`num_inference_steps` must be a whole number"),
            ({"start_step": 0.5}, "`start_step` must be a whole number"),
            ({"guidance_scale": math.nan}, "`guidance_scale` must be a finite number"),
            ({"guidance_scale": math.inf}, "`guidance_scale` must be a finite number"),
            ({"ip_cfg_scale": math.nan}, "`ip_cfg_scale` must be a finite number"),
            ({"num_inference_steps": 0}, "`num_inference_steps` must be at least 1"),
            ({"output_type": "gif"}, "`output_type` must be one of"),
            ({"step_cache": "x"}, "`step_cache` must be"),
            ({"step_cache_threshold": math.nan}, "`step_cache_threshold` must not be negative"),
            ({"ip_cfg_scale": -1.0}, "`ip_cfg_scale` must not be negative"),
            ({"ip_cfg_scale": 2.0, "guidance_scale": 1.0}, "needs a `guidance_scale` above 1"),
            ({"latents": torch.zeros(1, 16, 2, 4, 7)}, "`latents` must have shape"),
            ({"ref_latents": torch.zeros(1, 16, 2, 4, 6)}, "`ref_latents` must have shape"),
            ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, "'latents', 'velocity'"),
            ({"subject_name": "very " * 400}, "`subject_name` is too long"),
        ],
    )
    def test_is_refused_with_its_name(
        self, options: dict[str, Any], message: str, pipe: HunyuanCustomPipeline, identity: Image.Image
    ) -> None:
        with pytest.raises(ValueError, match=message):
            pipe("a dog", identity, **(SMALL | options))

    @pytest.mark.parametrize("arguments", [(["a dog"], "image"), ("a dog", "path.png"), (None, None)])
    def test_of_another_type_is_refused(self, arguments: Any, pipe: HunyuanCustomPipeline) -> None:
        with pytest.raises(TypeError, match=r"`(prompt|image)` must be"):
            pipe(*arguments, **SMALL)

    @pytest.mark.parametrize(
        ("prompt", "size"),
        [("", (1, 1)), ("x" * 10_000, (1, 4000)), ("é漢🎻" * 3000, (4000, 1))],
        ids=["", "x", "é漢🎻"],
    )
    def test_odd_prompts_and_images_still_make_a_video(
        self, prompt: str, size: tuple[int, int], pipe: HunyuanCustomPipeline
    ) -> None:
        frames = pipe(prompt, Image.new("RGB", size), output_type="np", **SMALL).frames
        assert np.isfinite(frames).all()


class TestSaving:
    def test_round_trip(self, pipe: HunyuanCustomPipeline, identity: Image.Image, tmp_path: Path, close: Any) -> None:
        with_config(pipe, shift=5.0, alpha="drop", negative_subject_name="thing").save_pretrained(tmp_path)
        index = json.loads((tmp_path / "model_index.json").read_text())
        assert index["transformer"] == ["diffusers", "HunyuanVideoTransformer3DModel"]
        components = {key: value for key, value in index.items() if isinstance(value, list)}
        assert len(components) == 7
        # Names of our own modules would tie a stored model to where those are.
        assert {library for library, _ in components.values()} == {"diffusers", "transformers"}
        loaded = HunyuanCustomPipeline.from_pretrained(tmp_path)
        assert (loaded.config.alpha, loaded.config.negative_subject_name) == ("drop", "thing")
        assert loaded.scheduler.config.shift == 5.0
        assert type(loaded.transformer) is HunyuanVideoTransformer3DModel

        def run(source: HunyuanCustomPipeline) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return source("a dog", identity, generator=generator, output_type="latent", **SMALL).frames

        # Not bit for bit: some CPUs' kernels add up in an order that depends on where in memory a weight begins.
        own = run(with_config(pipe, shift=5.0, alpha="drop", negative_subject_name="thing"))
        close("latents, saved and loaded again", run(loaded), own, 2e-4)

    def test_an_index_without_our_keys_gets_the_defaults(self, pipe: HunyuanCustomPipeline, tmp_path: Path) -> None:
        pipe.save_pretrained(tmp_path)
        index = json.loads((tmp_path / "model_index.json").read_text())
        for key in ("alpha", "negative_subject_name", "reference_posterior"):
            del index[key]
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        assert HunyuanCustomPipeline.from_pretrained(tmp_path).config.negative_subject_name == "person"

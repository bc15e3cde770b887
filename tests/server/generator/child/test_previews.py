"""What a job shows of its clip: while it is denoised, and when it is there. The demo model in this process."""

import base64
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageSequence

from pipeline.preview import ColourMap
from pipeline.preview import Preview as Made
from pipeline.safety.flagged import Flagged
from server.generator.child.contract import Cancelled
from server.generator.child.previews import JobPreviews
from server.generator.child.renderer import HunyuanCustomRenderer
from server.generator.messages import Generate, JobMessage, Load, Log, Preview, Working
from server.settings import GeneratorSettings, ImageSettings, PromptSettings, SafetySettings, VideoSettings
from tests.harness.generate_job import generate_job


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> HunyuanCustomRenderer:
    """Previews as often as possible; a clip that is checked is flagged."""
    load = Load(
        generator=GeneratorSettings(device="cpu", dtype="float32", torch_threads=1),
        prompt=PromptSettings(),
        video=VideoSettings(preview_every_s=1e-9),
        image=ImageSettings(),
        safety=SafetySettings(frame_threshold=1e-9),
        data_dir=str(tmp_path_factory.mktemp("data")),
    )
    return HunyuanCustomRenderer(load, lambda what: None)  # noqa: ARG005


@pytest.fixture
def job(tmp_path: Path) -> Generate:
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "identity.png")
    return generate_job(
        tmp_path,
        image=str(tmp_path / "identity.png"),
        thumbnail=str(tmp_path / "x.webp"),
        check_safety=False,
        expand_prompt=False,
        guidance_scale=1.0,
        width=64,
        height=48,
        num_frames=5,
        num_inference_steps=2,
    )


def test_a_video_has_previews_before_it_and_a_thumbnail_beside_it(
    render: HunyuanCustomRenderer, job: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[JobMessage] = []

    def report(message: JobMessage) -> None:
        heard.append(message)
        for thread in threading.enumerate():
            if thread.name == "preview":
                thread.join()

    render.render(job, report)
    seen = [message for message in heard if isinstance(message, Preview)]
    assert len(seen) == 2, "one for each step"
    assert isinstance(heard[-1], Log)
    with Image.open(str(job.thumbnail)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (64, 48))
    clip = Path(job.output).read_bytes()

    # Without any of it: no preview, no thumbnail, the same video.
    Path(job.checkpoint).unlink()
    Path(str(job.thumbnail)).unlink()
    heard.clear()
    monkeypatch.setattr(render, "_colour_map", None)
    render.render(job.model_copy(update={"thumbnail": None}), heard.append)
    assert not any(isinstance(message, Preview) for message in heard)
    assert Path(job.output).read_bytes() == clip
    assert not list(Path(job.output).parent.glob("*.webp"))


def cancelled_in_the_last_tile(message: JobMessage) -> None:
    if isinstance(message, Working) and message.stage == "decode":
        raise Cancelled


@pytest.mark.parametrize(
    ("changed", "report", "error"),
    [
        ({"check_safety": True}, lambda message: None, Flagged),  # noqa: ARG005
        ({}, cancelled_in_the_last_tile, Cancelled),
    ],
    ids=["flagged", "cancelled"],
)
def test_no_thumbnail_is_left_of_a_clip_that_is_thrown_away(
    render: HunyuanCustomRenderer,
    job: Generate,
    changed: dict[str, Any],
    report: Callable[[JobMessage], None],
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        render.render(job.model_copy(update=changed), report)
    assert not Path(str(job.thumbnail)).exists()


def test_a_thumbnail_that_cannot_be_written_is_a_line_of_the_log(render: HunyuanCustomRenderer, job: Generate) -> None:
    heard: list[JobMessage] = []
    render.render(job.model_copy(update={"thumbnail": str(Path(job.image) / "x.webp")}), heard.append)
    assert isinstance(heard[-1], Log)
    assert heard[-1].message.startswith("No thumbnail: ")
    assert Path(job.output).exists()


def previews(job: Generate) -> JobPreviews:
    return JobPreviews(ColourMap(torch.zeros(3, 16), torch.zeros(3)), job, every_s=3.0)


def test_a_preview_is_a_small_animation_as_long_as_the_clip(job: Generate) -> None:
    long, heard = previews(job.model_copy(update={"num_frames": 129})), list[Preview]()
    frames = [Image.effect_noise((320, 180), 90).convert("RGB") for _ in range(8)]
    long._encode(Made(step=3, total=30, frames=frames))
    long.send(heard.append)  # type: ignore[arg-type]
    long.send(heard.append)  # type: ignore[arg-type]
    [message] = heard
    content = base64.b64decode(message.picture)
    assert len(content) <= 64_000
    with Image.open(io.BytesIO(content)) as animation:
        shown = [frame.copy() for frame in ImageSequence.Iterator(animation)]
    assert {frame.size for frame in shown} == {(160, 90)}
    assert sum(frame.info["duration"] for frame in shown) == pytest.approx(1000 * 129 / 25, abs=8)


def test_a_preview_that_cannot_be_encoded_is_left_out(job: Generate, caplog: pytest.LogCaptureFixture) -> None:
    broken, heard = previews(job), list[JobMessage]()
    broken._encode(Made(step=3, total=30, frames=[]))
    broken.send(heard.append)
    assert not heard
    assert "no preview of step 3" in caplog.text

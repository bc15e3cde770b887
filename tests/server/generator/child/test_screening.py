"""Screening in this process: what it lets pass, what it logs, the picture that an interrupted request goes on with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.conditioning.segmenter import Subject
from pipeline.language.chat import ChatModel, Question
from pipeline.language.writer import Words
from pipeline.mp4 import write_mp4
from pipeline.safety.flagged import Flagged
from server.generator.child.checkpoints import Checkpoints
from server.generator.child.renderer import HunyuanCustomRenderer
from server.generator.child.screening import Screening
from server.generator.messages import Generate, JobMessage, Load, Log
from server.settings import GeneratorSettings, ImageSettings, PromptSettings, SafetySettings, VideoSettings
from tests.harness.explicit_picture import explicit_pixels, explicit_png
from tests.harness.generate_job import generate_job
from tests.harness.tiny_segmenter import write_segmenter
from weights.errors import VerifyError

WORDS = Words(prompt="a violin", subject_name="violin")
CPU = GeneratorSettings(device="cpu", dtype="float32")


def load(*, image: dict[str, Any] | None = None, safety: dict[str, Any] | None = None) -> Load:
    return Load(
        generator=CPU,
        prompt=PromptSettings(),
        video=VideoSettings(),
        image=ImageSettings(**(image or {})),
        safety=SafetySettings(**(safety or {})),
        data_dir="",
    )


def screening(**sections: Any) -> Screening:
    return Screening(load(**sections), torch.device("cpu"), None, lambda what: None)  # noqa: ARG005


@pytest.fixture
def job(tmp_path: Path) -> Generate:
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "identity.png")
    return generate_job(tmp_path, image=str(tmp_path / "identity.png"), width=224, height=224, num_frames=17)


class Said:
    """The lines of a job's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, message: JobMessage) -> None:
        assert isinstance(message, Log)
        self.lines.append(message.message)


def test_a_request_that_passes_is_left_as_it_is_and_the_log_says_what_looked_at_it(job: Generate) -> None:
    said = Said()
    assert screening().admit(job, said) is job
    assert len(said.lines) == 1
    assert said.lines[0].startswith("Safety checker: prompt and image passed, score 0.")


def test_what_is_not_checked_is_said(job: Generate, tmp_path: Path) -> None:
    (tmp_path / "identity.png").write_bytes(explicit_png())
    off, said = screening(safety={"model": "none"}), Said()
    assert off.admit(job, said) is job
    assert said.lines == ['The safety checker is switched off on this server (safety.model = "none")']
    said = Said()
    unchecked = job.model_copy(update={"check_safety": False})
    assert screening().admit(unchecked, said) is unchecked
    assert said.lines == ["The safety checker is off, as the request asks"]


def test_the_language_model_reads_the_prompt_and_the_list_reads_what_it_writes(job: Generate) -> None:
    class SaysYes:
        asked: ClassVar[list[str]] = []

        def yes_or_no(self, question: Question) -> bool:
            self.asked.append(question.text)
            return True

    strict, chat = screening(), SaysYes()
    strict.have_prompts_read_by(cast(ChatModel, chat))
    with pytest.raises(Flagged, match="the language model"):
        strict.admit(job, Said())
    assert '"a violin"' in chat.asked[0]
    strict.check_expanded(job, "a violin, warm light")
    with pytest.raises(Flagged, match="after its expansion: nudity"):
        strict.check_expanded(job, "a violin, a naked man plays it")
    strict.check_expanded(job.model_copy(update={"check_safety": False}), "a naked man")


def test_thresholds_are_settings(job: Generate) -> None:
    with pytest.raises(Flagged) as caught:
        screening(safety={"image_threshold": 1e-9}).admit(job, Said())
    assert caught.value.where == "image"


def clip(explicit: int | None) -> Iterator[NDArray[np.uint8]]:
    frames = np.full((17, *explicit_pixels().shape), 90, np.uint8)
    if explicit is not None:
        frames[explicit] = explicit_pixels()
    yield frames[:9]
    yield frames[9:]


@pytest.mark.parametrize("explicit", [None, 0, 16])
def test_no_video_is_left_of_a_clip_with_an_explicit_frame(job: Generate, explicit: int | None) -> None:
    said, output = Said(), Path(job.output)
    frames = screening().passed(clip(explicit), job, said)
    size = {"fps": job.fps, "num_frames": job.num_frames, "width": job.width, "height": job.height, "threads": 1}
    if explicit is None:
        write_mp4(frames, output, **size)
        assert said.lines[0].startswith("Safety checker: 3 frames passed, highest score 0.")
        return
    with pytest.raises(Flagged, match=f"frame {explicit + 1} of 17"):
        write_mp4(frames, output, **size)
    assert not list(output.parent.glob("*.mp4*"))


def test_a_clip_is_not_looked_at_if_the_request_asks_so(job: Generate) -> None:
    frames = screening().passed(clip(0), job.model_copy(update={"check_safety": False}), Said())
    assert sum(map(len, frames)) == 17


def test_a_missing_classifier_stops_the_loading_before_the_model_is_read(tmp_path: Path) -> None:
    absent = tmp_path / "models/safety"
    with pytest.raises(VerifyError, match=rf"{absent}/config\.json: missing; run: hunyuan-custom weights prepare"):
        HunyuanCustomRenderer(load(safety={"model": str(absent)}), lambda what: None)  # noqa: ARG005


@pytest.fixture
def cutting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Screening:
    """The background shall be white; the segmenter is a real, untrained one that finds the left half."""
    folder = write_segmenter(tmp_path / "segmenter")
    found = screening(image={"background": "white", "segmenter": str(folder)})
    mask = np.zeros((70, 90), np.float32)
    mask[:, :45] = 1
    monkeypatch.setattr(found._segmenter, "subject", lambda pixels: Subject(mask, "person", 0.97))  # noqa: ARG005
    return found


def test_the_subject_is_cut_out_once_and_an_interrupted_request_goes_on_with_the_same_picture(
    cutting: Screening, job: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    admitted = cutting.admit(job, said)
    assert admitted.image == job.cut_out
    assert said.lines[-1] == "Background white: person (score 0.97) cut out by segmenter"
    with Image.open(admitted.image) as picture:
        assert picture.info["Background"] == "white: person (score 0.97) cut out by segmenter"
        pixels = np.asarray(picture)
    assert (pixels[:, :45] == np.asarray(Image.new("RGB", (1, 1), "teal"))).all()
    assert (pixels[:, 45:] == 255).all()

    before, noise = Path(admitted.image).read_bytes(), torch.zeros(1, 16, 2, 8, 12)
    Checkpoints(admitted, "weights", CPU, None, alpha="white").keep(1, noise + 1, WORDS)
    monkeypatch.setattr(cutting._segmenter, "subject", None)  # is not asked again
    again = cutting.admit(job, said)
    assert Path(again.image).read_bytes() == before
    assert Checkpoints(again, "weights", CPU, None, alpha="white").start(noise)[0] == 1

    stored = job.model_copy(update={"image": admitted.image, "cut_out": f"{job.cut_out}.other"})
    assert cutting.admit(stored, said) is stored, "a stored picture that says it was cut out is not cut again"


@pytest.mark.parametrize("absent", [True, False])
def test_without_a_segmenter_or_a_subject_the_background_is_kept_and_the_log_says_why(
    cutting: Screening, job: Generate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, absent: bool
) -> None:
    said = Said()
    if absent:
        cutting = screening(image={"background": "white", "segmenter": str(tmp_path / "nothing")})
    else:
        monkeypatch.setattr(cutting._segmenter, "subject", lambda pixels: None)  # noqa: ARG005
    assert cutting.admit(job, said) is job
    why = "nothing/config.json: missing; run: hunyuan-custom weights prepare" if absent else "no subject was found"
    assert "The background is kept" in said.lines[-1]
    assert why in said.lines[-1]

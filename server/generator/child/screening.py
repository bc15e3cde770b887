"""What a request passes before and after its video is made: the safety checker, and the cut-out of its picture.

With several ranks rank 0 does it for all, and what it raises, all raise.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.conditioning.identity_image import rgb_pixels
from pipeline.conditioning.segmenter import Segmenter, load_segmenter, on_white
from pipeline.language.chat import ChatModel, Question
from pipeline.parallel.ranks import Ranks
from pipeline.safety.checker import SafetyChecker, Thresholds
from pipeline.safety.classifier import load_classifier
from pipeline.safety.flagged import Flagged
from pipeline.safety.prompt_words import flagged
from server.generator.child.contract import Cancelled, OnLoading, Report
from server.generator.messages import Generate, Load, Log
from weights.errors import WeightsError

logger = logging.getLogger(__name__)

_DONE: Final = "Background"  # the text chunk of a picture that was cut out


class Screening:
    """Loads the classifier, and the segmenter where the settings ask for it, on `device`."""

    def __init__(self, load: Load, device: torch.device, ranks: Ranks | None, on_loading: OnLoading) -> None:
        self._ranks = ranks
        self._leads = load.rank == 0
        self._image = load.image
        self._off = load.safety.off
        self.checker: SafetyChecker | None = None
        self._segmenter: Segmenter | str = "not configured"  # or why there is none
        if self._leads and not load.safety.off:
            on_loading("loading the safety classifier")
            classifier = load_classifier(load.safety.model, device=str(device), dtype=load.generator.dtype)
            thresholds = Thresholds(image=load.safety.image_threshold, frame=load.safety.frame_threshold)
            self.checker = SafetyChecker(classifier, thresholds)
        if self._leads and load.image.background == "white":
            on_loading("loading the segmenter")
            try:
                self._segmenter = load_segmenter(Path(load.image.segmenter), device=str(device))
            except (WeightsError, ValueError) as error:
                logger.warning("identity images keep their background: %s", error)
                self._segmenter = str(error)

    def have_prompts_read_by(self, chat: ChatModel) -> None:
        """The language model reads prompts from now on, after the word list."""
        if self.checker is not None:
            self.checker.ask = lambda question: chat.yes_or_no(Question(text=question))

    def check_expanded(self, job: Generate, prompt: str) -> None:
        """What was made of the job's prompt, by the word list. The same on all ranks. Raises Flagged."""
        if job.check_safety and not self._off and (category := flagged(prompt)):
            raise Flagged("prompt", f"the word list, after its expansion: {category}")

    def admit(self, job: Generate, report: Report) -> Generate:
        """The request as it is rendered: with another picture if its subject was cut out.

        Raises:
            Flagged: the safety checker found something.
        """
        stop: Exception | None = None
        if self._leads:
            try:
                self._look_at(job, report)
            except Exception as error:
                stop = error
        if self._ranks is not None and self._ranks.any(stop is not None):
            raise stop or Cancelled
        if stop is not None:
            raise stop
        return job.model_copy(update={"image": job.cut_out}) if Path(job.cut_out).is_file() else job

    def passed(self, frames: Iterable[NDArray[np.uint8]], job: Generate, report: Report) -> Iterator[NDArray[np.uint8]]:
        """The frames of the clip, each chunk when it has passed. Raises Flagged: then the clip is thrown away."""
        if self.checker is None or not job.check_safety:
            yield from frames
            return
        check = self.checker.frames(job.num_frames)
        yield from check.passed(frames)
        found = f"{check.checked} frames passed, highest score {check.highest:.2f}, in {check.seconds:.2f} s"
        report(Log(message=f"Safety checker: {found}"))

    def _look_at(self, job: Generate, report: Report) -> None:
        if self.checker is None and job.check_safety:
            report(
                Log(message='The safety checker is switched off on this server (safety.model = "none")', level="WARN")
            )
        if not job.check_safety:
            report(Log(message="The safety checker is off, as the request asks"))
        with Image.open(job.image) as image:
            cut_before = _DONE in image.info
            pixels = rgb_pixels(image, alpha=self._image.alpha)
        if self.checker is not None and job.check_safety:
            self.checker.check_prompts(job.prompt, job.negative_prompt)
            score = self.checker.check_image(pixels)
            by = self.checker.classifier.name
            report(Log(message=f"Safety checker: prompt and image passed, score {score:.2f} by {by}"))
        if self._image.background == "white" and not cut_before and not Path(job.cut_out).is_file():
            self._cut_out(pixels, Path(job.cut_out), report)

    def _cut_out(self, pixels: NDArray[np.uint8], path: Path, report: Report) -> None:
        """Write the subject on white, with a text chunk that says so; nothing where there is no subject to be found."""
        if isinstance(self._segmenter, str):
            report(Log(message=f"The background is kept: {self._segmenter}", level="WARN"))
            return
        subject = self._segmenter.subject(pixels)
        if subject is None:
            report(Log(message="The background is kept: no subject was found in the picture", level="WARN"))
            return
        said = f"white: {subject.label} (score {subject.score:.2f}) cut out by {self._segmenter.name}"
        text = PngInfo()
        text.add_text(_DONE, said)
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            Image.fromarray(on_white(pixels, subject.mask)).save(file, "PNG", pnginfo=text, compress_level=1)
            file.flush()
            os.fsync(file.fileno())  # after a power cut the next attempt would find an empty picture
        part.replace(path)
        report(Log(message=f"Background {said}"))

"""The three places where a request is checked: its prompts, its identity image, and the frames of the finished clip."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.safety.classifier import ImageClassifier
from pipeline.safety.flagged import Flagged
from pipeline.safety.prompt_words import flagged, flagged_negative

YesOrNo: TypeAlias = Callable[[str], bool]
"""A language model's answer to a question: whether it is yes."""

FRAME_STRIDE: Final = 8
"""Every so many frames one is looked at: three in a second of 25 frames."""

QUESTION: Final = (
    "Here is a request for a video, between quotation marks:\n\n"
    '"{prompt}"\n\n'
    "Does it ask for nudity, sexual acts, children in a sexual context, or rape? Answer with yes or no."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Probabilities from which a picture counts as explicit."""

    image: float
    frame: float


class SafetyChecker:
    """`ask`, a language model, reads the prompt after the word list; None: the list alone. It may be set later."""

    def __init__(self, classifier: ImageClassifier, thresholds: Thresholds, *, ask: YesOrNo | None = None) -> None:
        self.classifier = classifier
        self._thresholds = thresholds
        self.ask = ask

    def check_prompts(self, prompt: str, negative_prompt: str) -> None:
        """Raises Flagged."""
        if category := flagged(prompt):
            raise Flagged("prompt", f"the word list: {category}")
        if category := flagged_negative(negative_prompt):
            raise Flagged("negative_prompt", f"the word list: {category}")
        if self.ask is not None and self.ask(QUESTION.format(prompt=prompt)):
            raise Flagged("prompt", "the language model")

    def check_image(self, pixels: NDArray[np.uint8]) -> float:
        """[H,W,3] -> its score. Raises Flagged."""
        [score] = self.classifier.scores([pixels])
        if score >= self._thresholds.image:
            raise Flagged("image", f"score {score:.2f}")
        return score

    def frames(self, count: int) -> "FrameCheck":
        """The check of one clip of so many frames."""
        return FrameCheck(self.classifier, self._thresholds.frame, count)


class FrameCheck:
    """One clip's. `checked` frames were looked at, `highest` is their highest score, `seconds` what it took."""

    def __init__(self, classifier: ImageClassifier, threshold: float, count: int) -> None:
        self._classifier = classifier
        self._threshold = threshold
        self._count = count
        self.checked, self.highest, self.seconds = 0, 0.0, 0.0

    def passed(self, chunks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Chunks [n,H,W,3], each when its frames have passed; those beyond the clip's count are not in it.

        Raises Flagged.
        """
        first = 0
        for chunk in chunks:
            started = time.perf_counter()
            end = min(first + len(chunk), self._count)
            numbers = range(-(-first // FRAME_STRIDE) * FRAME_STRIDE, end, FRAME_STRIDE)
            if numbers:
                self._look_at(numbers, chunk[numbers.start - first :: FRAME_STRIDE][: len(numbers)])
            first += len(chunk)
            self.seconds += time.perf_counter() - started
            yield chunk

    def _look_at(self, numbers: range, frames: NDArray[np.uint8]) -> None:
        scores = self._classifier.scores(list(frames))
        self.checked += len(scores)
        self.highest = max(self.highest, *scores)
        for number, score in zip(numbers, scores, strict=True):
            if score >= self._threshold:
                raise Flagged("frames", f"frame {number + 1} of {self._count}, score {score:.2f}")

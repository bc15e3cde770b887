"""The three checks of a request, with the bundled classifier."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.safety.checker import FRAME_STRIDE, SafetyChecker, Thresholds
from pipeline.safety.classifier import load_classifier
from pipeline.safety.flagged import Flagged
from tests.harness.explicit_picture import explicit_pixels


@pytest.fixture(scope="module")
def checker() -> SafetyChecker:
    classifier = load_classifier("bundled", device="cpu", dtype="float32")
    return SafetyChecker(classifier, Thresholds(image=0.8, frame=0.8))


def clip(*, explicit: int | None, chunks: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """Grey frames of the classifier's size, one of them explicit, in chunks of these lengths."""
    frames = np.full((sum(chunks), *explicit_pixels().shape), 128, np.uint8)
    if explicit is not None:
        frames[explicit] = explicit_pixels()
    yield from np.split(frames, np.cumsum(chunks)[:-1])


def test_prompts_are_refused_by_the_list_and_by_the_language_model(checker: SafetyChecker) -> None:
    checker.check_prompts("a woman is playing a violin", "ugly")
    with pytest.raises(Flagged, match="the word list: sexual") as caught:
        checker.check_prompts("porn", "")
    assert caught.value.where == "prompt"
    with pytest.raises(Flagged) as caught:
        checker.check_prompts("a violin", "rape")
    assert caught.value.where == "negative_prompt"
    asked: list[str] = []

    def always_yes(question: str) -> bool:
        asked.append(question)
        return True

    strict = SafetyChecker(checker.classifier, Thresholds(image=0.8, frame=0.8), ask=always_yes)
    with pytest.raises(Flagged, match="the language model"):
        strict.check_prompts('he said "no"', "")
    assert '"he said "no""' in asked[0]


def test_an_identity_image_is_refused(checker: SafetyChecker) -> None:
    assert checker.check_image(np.full((64, 64, 3), 200, np.uint8)) < 0.8
    with pytest.raises(Flagged, match=r"score (0\.99|1\.00)") as caught:
        checker.check_image(explicit_pixels())
    assert caught.value.where == "image"


@pytest.mark.parametrize("chunks", [(25,), (8, 9, 8), (1, 6, 18)])
def test_every_eighth_frame_is_looked_at_before_it_is_passed_on(
    checker: SafetyChecker, chunks: tuple[int, ...]
) -> None:
    check = checker.frames(25)
    frames = list(check.passed(clip(explicit=FRAME_STRIDE + 1, chunks=chunks)))
    assert [len(chunk) for chunk in frames] == list(chunks)
    assert check.checked == 4, "frames 1, 9, 17 and 25"

    passed: list[NDArray[np.uint8]] = []
    with pytest.raises(Flagged, match=r"frame 17 of 25, score") as caught:
        passed.extend(checker.frames(25).passed(clip(explicit=2 * FRAME_STRIDE, chunks=chunks)))
    assert caught.value.where == "frames"
    assert sum(map(len, passed)) <= 2 * FRAME_STRIDE, "the chunk with that frame is not passed on"


def test_frames_beyond_the_clip_are_not_looked_at(checker: SafetyChecker) -> None:
    check = checker.frames(8)
    assert len(list(check.passed(clip(explicit=FRAME_STRIDE, chunks=(9,))))) == 1
    assert check.checked == 1

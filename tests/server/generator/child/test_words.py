"""Who decides a job's words, and what its log says of them. `tests/system/test_ranks.py` has real ranks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from pipeline.language.writer import Words
from pipeline.progress import Progress, ProgressCallback
from server.generator.child.contract import Cancelled
from server.generator.child.words import JobWords
from server.generator.messages import JobMessage, Log
from tests.harness.generate_job import generate_job

JOB = generate_job(prompt="a dog")
KEPT = Words(prompt="a dog, as before. 漢🎻", subject_name="dog")


class Writer:
    """Reports one token, and writes what it was given."""

    method = "by LLaVA"

    def __init__(self, words: Words) -> None:
        self._words = words

    def write(self, _prompt: str, _image: Image.Image, *, expand: bool, callback: ProgressCallback | None) -> Words:
        assert expand
        assert callback is not None
        callback(Progress("expand", 1, 2))
        return self._words


def reported(_progress: Progress) -> None:
    pass


def cancelled(_progress: Progress) -> None:
    raise Cancelled


def without_memory(_progress: Progress) -> None:
    raise MemoryError


class TwoRanks:
    """Two threads in place of two processes; what the first one shares waits for the second."""

    def __init__(self, rank: int, shared: SimpleQueue[Tensor]) -> None:
        self.rank = rank
        self._shared = shared

    def as_first(self, value: Tensor) -> Tensor:
        if self.rank == 0:
            self._shared.put(value)
            return value
        first = self._shared.get(timeout=60)
        assert (value.shape, value.dtype) == (first.shape, first.dtype)  # or gloo would fail
        return first


@pytest.mark.parametrize("on_progress", [reported, cancelled, without_memory])
@pytest.mark.parametrize("kept", [None, KEPT])
def test_the_first_rank_decides_for_all_and_none_waits_when_it_ends_early(
    kept: Words | None, on_progress: ProgressCallback
) -> None:
    shared: SimpleQueue[Tensor] = SimpleQueue()

    def decide(rank: int) -> list[str] | None:
        ranks: Any = TwoRanks(rank, shared)
        words = JobWords(Writer(Words(prompt=f"漢 of rank {rank}", subject_name="dog")), ranks)
        try:
            own = kept if rank == 0 else None  # the first alone reads checkpoints
            made = words.decide(JOB, kept=own, report=lambda _: None, on_progress=on_progress)
        except (MemoryError, Cancelled) as error:
            assert isinstance(error, MemoryError) == (rank == 0 and on_progress is without_memory)
            return None
        return [made.prompt, made.subject_name]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(decide, range(2))
    asked = ["漢 of rank 0", "dog"] if on_progress is reported else None
    assert first == second == (asked if kept is None else [KEPT.prompt, "dog"])


@pytest.mark.parametrize(
    ("outcome", "lines"),
    [
        ({"prompt": "a dog. Soft light.", "expanded": True}, ["Prompt expanded by LLaVA: a dog. Soft light."]),
        ({"prompt": "a dog", "problem": "it took too long"}, ["Prompt not expanded: it took too long"]),
        ({"prompt": "a dog"}, []),
    ],
)
def test_the_job_s_log_says_what_became_of_the_prompt(outcome: dict[str, Any], lines: list[str]) -> None:
    words, said = Words(subject_name="dog", **outcome), list[JobMessage]()
    assert JobWords(Writer(words), None).decide(JOB, kept=None, report=said.append, on_progress=reported) == words
    assert [line.message for line in said if isinstance(line, Log)] == ["Subject: dog", *lines]


def test_an_input_that_is_to_be_forgotten_stays_out_of_the_log() -> None:
    words, said = Words(prompt="a dog. Soft light.", subject_name="dog", expanded=True), list[JobMessage]()
    job = JOB.model_copy(update={"log_prompt": False})
    JobWords(Writer(words), None).decide(job, kept=None, report=said.append, on_progress=reported)
    assert [line.message for line in said if isinstance(line, Log)] == ["Prompt expanded by LLaVA"]


def test_words_of_an_earlier_attempt_are_taken_without_asking(tmp_path: Path) -> None:
    job = JOB.model_copy(update={"image": str(tmp_path / "gone")})
    words = JobWords(Writer(Words(prompt="other", subject_name="other")), None)
    assert words.decide(job, kept=KEPT, report=lambda _: None, on_progress=cancelled) == KEPT

"""The peak is that of the run, not of what brings the model into its place before and after."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.checks.bench.stopwatch import Case, Stopwatch

LARGE = 256 * 2**20


def _touched() -> bytearray:
    return bytearray(b"\1") * LARGE


@contextmanager
def _moving() -> Iterator[None]:
    _touched()
    yield
    _touched()


def test_the_peak_is_that_of_the_run() -> None:
    stopwatch = Stopwatch(torch.device("cpu"), repeats=0, limit_s=60)
    timed = stopwatch.minima([Case("moving", lambda: None, _moving), Case("large", _touched)])
    small, large = timed["moving"].peak_bytes, timed["large"].peak_bytes
    assert small is not None
    assert large is not None
    assert large - small > LARGE // 2

"""A flag between a signal handler and the code that it interrupts."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from server.signal_flag import SignalFlag


@pytest.fixture
def flag() -> Iterator[SignalFlag]:
    """Set by SIGALRM."""
    made = SignalFlag()
    before = signal.signal(signal.SIGALRM, lambda *_: made.set())
    yield made
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_ends_a_wait_at_once_and_all_later_ones(flag: SignalFlag) -> None:
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGALRM]).start()
    began = time.monotonic()
    assert flag.wait(60)
    assert flag.wait(60)
    assert time.monotonic() - began < 30
    assert flag.is_set()


def test_without_a_signal_the_wait_ends_with_its_time(flag: SignalFlag) -> None:
    began = time.monotonic()
    assert not flag.wait(0.1)
    assert time.monotonic() - began > 0.09
    assert not flag.is_set()


def test_signals_in_the_middle_of_everything_block_nothing(flag: SignalFlag) -> None:
    """An Event stands still sooner or later: its lock is not one that a thread may take twice."""
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    for _ in range(10_000):
        flag.set()
        flag.wait(0)
    assert flag.is_set()

"""What has expired is removed in the background, whatever one of the sweeps runs into."""

import errno
import threading

import pytest

from server.worker.expiry.sweeper import Sweeper
from tests.harness.live_server import until


@pytest.mark.parametrize("reason", [errno.EIO, errno.ENOSPC])
def test_a_sweep_that_fails_does_not_stop_the_next_one(reason: int) -> None:
    """On a full disk the next one may be the one that makes room."""
    swept = threading.Event()

    def fail() -> None:
        raise OSError(reason, "the disk is gone")

    Sweeper([fail, swept.set], every_s=60).start_if_due()
    assert swept.wait(10)


def test_a_slow_sweep_is_not_started_twice_and_holds_nothing_up() -> None:
    begun, go_on = [], threading.Event()

    def slow() -> None:
        begun.append(1)
        go_on.wait(10)

    sweeper = Sweeper([slow], every_s=0)
    for _ in range(3):
        sweeper.start_if_due()
    until(lambda: bool(begun))
    assert len(begun) == 1
    go_on.set()

    def swept_again() -> bool:
        sweeper.start_if_due()
        return len(begun) == 2

    until(swept_again)

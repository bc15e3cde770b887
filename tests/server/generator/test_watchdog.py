"""What counts as silence of a generator, and how often a cancel is looked for."""

import pytest

from server.generator.messages import Working
from server.generator.watchdog import Watchdog
from server.settings import GeneratorSettings


def test_a_pause_of_the_worker_is_not_the_generators_silence() -> None:
    now = [0.0]
    limits = GeneratorSettings(first_block_timeout_s=10, stall_timeout_s=3)
    watchdog = Watchdog(limits, lambda: False, look_every_s=1, clock=lambda: now[0])
    watchdog.heard(Working(stage="denoise", done=1, total=9))
    now[0] += 3600  # this process was frozen, or the machine
    assert watchdog.stalled() is None
    for _ in range(3):
        now[0] += 1
        limit = watchdog.stalled()
    assert limit == 3


def test_the_longer_limit_holds_until_the_video_is_worked_on() -> None:
    """Encoding follows the tokens of the prompt, and may first have to move models."""
    now = [0.0]
    limits = GeneratorSettings(first_block_timeout_s=10, stall_timeout_s=3)
    watchdog = Watchdog(limits, lambda: False, look_every_s=1, clock=lambda: now[0])

    def silent_for_5_s() -> list[float | None]:
        limits_passed = []
        for _ in range(5):
            now[0] += 1
            limits_passed.append(watchdog.stalled())
        return limits_passed

    watchdog.heard(Working(stage="expand", done=9, total=268))
    assert silent_for_5_s() == [None] * 5
    watchdog.heard(Working(stage="denoise", done=1, total=9))
    assert silent_for_5_s()[-1] == 3


@pytest.mark.parametrize("frozen", ["while it asks", "before it looks"])
def test_a_pause_of_the_worker_is_no_time_to_react_to_a_cancel(frozen: str) -> None:
    now = [0.0]

    def cancel_requested() -> bool:
        now[0] += 3600 * (frozen == "while it asks")
        return True

    watchdog = Watchdog(GeneratorSettings(cancel_grace_s=3), cancel_requested, look_every_s=1, clock=lambda: now[0])
    now[0] += 1
    assert watchdog.cancel_arrived()
    now[0] += 3600 * (frozen == "before it looks")
    assert not watchdog.cancel_ignored()
    for _ in range(4):
        now[0] += 1
        ignored = watchdog.cancel_ignored()
    assert ignored


def test_a_slow_database_is_not_asked_with_every_message() -> None:
    now, asked = [0.0], []

    def cancel_requested() -> bool:
        now[0] += 3  # as long as one that is away takes
        asked.append(now[0])
        return False

    watchdog = Watchdog(GeneratorSettings(), cancel_requested, look_every_s=0.5, clock=lambda: now[0])
    now[0] += 1
    for _ in range(100):
        assert not watchdog.cancel_arrived()
    assert len(asked) == 1

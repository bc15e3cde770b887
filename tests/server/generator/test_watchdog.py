"""What counts as silence of a generator."""

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

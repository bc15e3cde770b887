"""The chaos phase of `bench faults`, small: processes die at random, and every job is there once."""

from server.bench.chaos import run_chaos


def test_nothing_is_lost_and_nothing_is_there_twice() -> None:
    chaos = run_chaos(40, seed=1, killing_s=4)
    assert chaos.passed, chaos.lines()
    assert chaos.kills.total() > 0

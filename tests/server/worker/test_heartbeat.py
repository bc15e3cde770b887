"""When a worker writes its row: often enough to count as alive, and at once when its generator's state has changed."""

from typing import Any

import pytest

from server.generator.state import GeneratorState, Phase
from server.worker.heartbeat import Heartbeat


class Registry:
    """Remembers the states it was told, or is away."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.away = False

    def beat(self, _worker_id: str, *, state: str, **_: object) -> bool:
        if self.away:
            raise OSError("away")
        self.states.append(state)
        return False


class Generator:
    state = GeneratorState(Phase.LOADING, "starting")


def test_a_heartbeat_is_due_after_its_interval_and_with_every_new_state() -> None:
    registry, generator, now = Registry(), Generator(), [0.0]
    parts: Any = (registry, generator)
    heartbeat = Heartbeat(*parts, worker_id="w", every_s=2, clock=lambda: now[0])
    assert heartbeat.due
    heartbeat.beat()
    assert not heartbeat.due
    generator.state = GeneratorState(Phase.READY, "model", 7)
    assert heartbeat.due
    heartbeat.beat()
    assert not heartbeat.due
    now[0] += 2
    assert heartbeat.due
    assert registry.states == ["loading", "ready"]


def test_a_worker_that_stops_is_not_ready_whatever_its_generator_is() -> None:
    registry, generator = Registry(), Generator()
    generator.state = GeneratorState(Phase.READY, "model", 7)
    parts: Any = (registry, generator)
    heartbeat = Heartbeat(*parts, worker_id="w", every_s=2)
    heartbeat.beat()
    heartbeat.stop()
    heartbeat.beat()
    assert registry.states == ["ready", "stopped"]


def test_a_heartbeat_that_failed_stays_due() -> None:
    registry = Registry()
    parts: Any = (registry, Generator())
    heartbeat = Heartbeat(*parts, worker_id="w", every_s=2, clock=lambda: 0.0)
    registry.away = True
    with pytest.raises(OSError, match="away"):
        heartbeat.beat()
    assert heartbeat.due


def test_a_heartbeat_that_took_long_is_followed_by_another() -> None:
    """What the row says is as old as the time before: a worker that was frozen in between counts as silent."""
    now = [0.0]

    class SlowRegistry(Registry):
        def beat(self, _worker_id: str, *, state: str, **_: object) -> bool:
            now[0] += 60
            return super().beat(_worker_id, state=state)

    parts: Any = (SlowRegistry(), Generator())
    heartbeat = Heartbeat(*parts, worker_id="w", every_s=2, clock=lambda: now[0])
    heartbeat.beat()
    assert heartbeat.due

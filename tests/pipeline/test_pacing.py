import torch

from pipeline.pacing import Pacer


class Event:
    """Stands for a CUDA event: remembers whether it was waited for."""

    def __init__(self) -> None:
        self.recorded = self.awaited = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded
        self.awaited = True


def test_the_cpu_stays_two_blocks_ahead() -> None:
    events: list[Event] = []

    def event() -> Event:
        events.append(Event())
        return events[-1]

    pacer = Pacer(torch.device("cuda"), event=event)
    for _ in range(5):
        pacer()
    assert [e.awaited for e in events] == [True, True, True, False, False]


def test_on_the_cpu_nothing_is_queued() -> None:
    Pacer(torch.device("cpu"))()

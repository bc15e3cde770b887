"""A worker that stops gives its job back, whatever the thread that renders does at that moment."""

import sys
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest

from server.worker import claims
from server.worker.claims import Claims


@pytest.mark.parametrize("line", range(1, 9))
def test_an_attempt_ends_while_the_worker_stops(monkeypatch: pytest.MonkeyPatch, line: int) -> None:
    """Another thread may get in before any line of `release`: here the end of the attempt does."""
    monkeypatch.setattr(claims, "running_workflow", lambda: "workflow")
    monkeypatch.setattr(claims, "give_back_render", Mock())
    held, left = Claims(Mock(), Mock(), "worker"), line
    held.claim(Mock())

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code is not Claims.release.__code__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                held.attempt_ended()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        held.release()
    finally:
        sys.settrace(before)

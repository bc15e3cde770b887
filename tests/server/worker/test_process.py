"""What a worker does when it stops, whatever fails of it."""

import errno
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from server.signal_flag import SignalFlag
from server.worker import process
from server.worker.process import WorkerProcess
from tests.harness.in_process import settings_for


def test_a_log_that_cannot_be_written_does_not_keep_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "destroy_before_exit", Mock())
    worker: Any = object.__new__(WorkerProcess)
    worker._settings = settings_for(tmp_path)
    for part in ("_claims", "_heartbeat", "_generator", "_registry", "_render", "_report", "_work", "_webhooks"):
        setattr(worker, part, Mock())
    worker._engine = None
    worker._render.write_log.side_effect = OSError(errno.ENOSPC, "No space left on device")
    worker.finish(SignalFlag())
    assert worker._claims.release.called

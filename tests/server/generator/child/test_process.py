"""The generator process and its worker's messages."""

import errno
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from server.generator.child.process import GeneratorProcess
from server.generator.launch import start_generator_process
from server.generator.messages import Failed, Ready
from tests.harness.generate_job import generate_job


def test_a_message_that_cannot_be_understood_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    process, channel = start_generator_process()
    channel.send(Ready(model="", seconds=0.0))  # what it says itself
    assert process.wait(timeout=60) == 1
    channel.close()
    assert "the worker says what cannot be understood" in capfd.readouterr().err


def test_a_disk_that_turns_read_only_does_not_end_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model would have to be loaded again. Such a disk also refuses to remove what is not there."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    answer = GeneratorProcess(Mock())._handle(Mock(render=refuse), generate_job(tmp_path))
    assert isinstance(answer, Failed)
    assert answer.reason == "disk"

"""The generator process and its worker's messages."""

import pytest

from server.generator.launch import start_generator_process
from server.generator.messages import Ready


def test_a_message_that_cannot_be_understood_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    process, channel = start_generator_process()
    channel.send(Ready(model="", seconds=0.0))  # what it says itself
    assert process.wait(timeout=60) == 1
    channel.close()
    assert "the worker says what cannot be understood" in capfd.readouterr().err

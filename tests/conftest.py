"""Real servers for the front-door and contract tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_server import FAST, Server, launch


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it as they found it."""
    running = launch(tmp_path_factory.mktemp("server"), **FAST)
    yield running
    running.stop()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of one test, stopped at its end. The same data directory unless another is named."""
    started: list[Server] = []

    def start(data_dir: Path = tmp_path, **options: Any) -> Server:
        started.append(launch(data_dir, **{**FAST, **options}))
        return started[-1]

    yield start
    for running in started:
        running.stop()

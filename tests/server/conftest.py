"""What tests here share: a server with short limits, a database, and how many cases fuzz tests try.

`--hypothesis-profile=benchmark` tries 20,000.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from hypothesis import settings

from server.database import create_engine, migrate
from server.engine import engine_client
from tests.live_server import FAST, Server, launch

settings.register_profile("benchmark", max_examples=2840)

SHORT_LIMITS = {
    "api__header_timeout_s": 1,
    "api__body_idle_s": 0.6,
    "api__body_timeout_s": 1.5,
    "api__max_body_bytes": 1_000_000,
    "api__body_memory_bytes": 1_000_000,
    "image__max_bytes": 200_000,
    "image__total_timeout_s": 1.5,
    "webhooks__retry_delays_s": "[0.1, 0.1, 0.1]",
    "webhooks__jitter": 0,
    "webhooks__poll_s": 0.2,
    "webhooks__timeout_s": 1,
    "webhooks__retry_timeout_s": 1,
}


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with short limits and schedules, for all tests that leave it as they found it."""
    running = launch(tmp_path_factory.mktemp("impatient"), **FAST, **SHORT_LIMITS)
    yield running
    running.stop()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database of one test, with its tables."""
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    migrate(url, tmp_path / "lock")
    opened = create_engine(url)
    yield opened
    opened.dispose()


@pytest.fixture
def engine(database: sa.Engine) -> Iterator[DBOSClient]:
    """What puts workflows into its queues."""
    client = engine_client(database)
    yield client
    client.destroy()

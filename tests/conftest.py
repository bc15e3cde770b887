"""Fixtures that start real servers and databases; the table of differences from the reference.

`--hypothesis-profile=benchmark` tries 20,000 cases where fuzz tests try a few hundred.
"""

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSClient
from hypothesis import HealthCheck, settings

from server.bench.throwaway_postgres import Postgres, find_binaries
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.jobs.dbos_queues import dbos_client
from server.logs import JsonFormatter, RedactingFormatter
from server.parent_death import die_with_parent
from tests.harness.client_programs import missing
from tests.harness.live_server import FAST, Deployment, Server, launch
from tests.harness.measured import MEASURED, Close
from tests.harness.shared_servers import SharedServers, by_shared_server, used_in

collect_ignore = [] if "CONTAINERS" in os.environ else ["containers"]  # minutes: `make containers`

settings.register_profile("benchmark", max_examples=2840)
# The same cases in every run, and no limit on time that a busy machine would exceed.
settings.register_profile(
    "suite", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
gc.disable()  # until all is imported, of which nothing is garbage


def pytest_configure(config: pytest.Config) -> None:
    """A process of pytest-xdist ends with the one that started it, and all servers with it."""
    if hasattr(config, "workerinput"):
        die_with_parent()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = by_shared_server(items)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _fake_videos(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """Where fake generators keep the videos that they have encoded: one folder for all processes of this run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "fake-videos"
    folder.mkdir(exist_ok=True)
    os.environ["FAKE_VIDEOS"] = str(folder)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A command that runs in a test's process says for all of it what is logged, and where."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, RedactingFormatter | JsonFormatter):
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def close() -> Close:
    return MEASURED.close


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED.rows:
        terminalreporter.section("largest differences from the reference")
        for line in MEASURED.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def _shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    servers = SharedServers(tmp_path_factory)
    yield servers
    servers.stop_all_but(())


@pytest.fixture(scope="module", autouse=True)
def _no_idle_server(request: pytest.FixtureRequest, _shared_servers: SharedServers) -> None:
    _shared_servers.stop_all_but(used_in(request.path, request.session.items))


@pytest.fixture(scope="module")
def server(_shared_servers: SharedServers) -> Server:
    """One server for all tests that leave it as they found it."""
    return _shared_servers.get("server")


@pytest.fixture(scope="module")
def impatient(_shared_servers: SharedServers) -> Server:
    """A server with short limits and schedules, for all tests that leave it as they found it."""
    return _shared_servers.get("impatient")


@pytest.fixture(scope="module")
def tls_server(_shared_servers: SharedServers) -> Server:
    """A server with a certificate of its own, for all tests that leave it as they found it."""
    return _shared_servers.get("tls_server")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One for all tests, each of which takes a database of its own; started by the first that asks."""
    binaries = find_binaries()
    if binaries is None:
        missing("needs PostgreSQL: apt-get install postgresql")
    server = Postgres(binaries)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of one test, stopped at its end. The same data directory unless another is named."""
    with contextlib.ExitStack() as started:

        def start(data_dir: Path = tmp_path, **options: Any) -> Server:
            running = launch(data_dir, **{**FAST, **options})
            started.callback(running.stop)
            return running

        yield start


@pytest.fixture
def start_api(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """An API without a worker, for tests in which no job runs: half the price of a server."""
    with contextlib.ExitStack() as started:

        def start(**settings: Any) -> Server:
            migrate(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}", tmp_path / "migrate.lock")
            return started.enter_context(Deployment(tmp_path, {**FAST, **settings})).start_api()

        yield start


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
    client = dbos_client(database)
    yield client
    client.destroy()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def either_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    """One database for the tests of a file, of each kind in turn."""
    folder = tmp_path_factory.mktemp("either")
    url = f"sqlite:///{folder / 'x.sqlite'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").new_database()
    migrate(url, folder / "lock")
    opened = create_engine(url)
    yield opened
    opened.dispose()

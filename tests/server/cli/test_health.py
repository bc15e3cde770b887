"""`hunyuan-custom health`, as a container's health check calls it."""

import re
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli.main import app
from server.db.connection import create_engine
from server.db.tables import worker_table
from tests.harness.command import run_command
from tests.harness.live_server import Server


def _health(server: Server, *options: str) -> Result:
    return CliRunner().invoke(app, ["health", "--data-dir", str(server.data_dir), *options])


@pytest.mark.parametrize("options", [(), ("--ready",), ("--worker",), ("--worker", "--ready")])
def test_a_running_server_is_well(server: Server, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", str(server.http.base_url.port))
    done = _health(server, *options)
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.parametrize("question", [(), ("--ready",)])
@pytest.mark.parametrize("way", ["--port", "--server"])
def test_a_server_that_is_named_is_asked(server: Server, way: str, question: tuple[str, ...]) -> None:
    where = str(server.http.base_url.port) if way == "--port" else server.url
    done = _health(server, way, where, *question)
    assert (done.exit_code, done.output) == (0, "")


@pytest.mark.parametrize("way", ["--port", "--server"])
def test_no_server_is_one_line_and_exit_code_1(server: Server, way: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nothing listens
        port = taken.getsockname()[1]
        done = _health(server, way, str(port) if way == "--port" else f"http://127.0.0.1:{port}")
    assert done.exit_code == 1
    assert "does not answer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("way", ["--port", "--server"])
def test_a_draining_server_is_alive_and_not_ready(server: Server, way: str) -> None:
    where = str(server.http.base_url.port) if way == "--port" else server.url
    server.http.post("/admin/drain", json={"draining": True})
    try:
        alive, ready = _health(server, way, where), _health(server, way, where, "--ready")
    finally:
        server.http.post("/admin/drain", json={"draining": False})
    assert (alive.exit_code, ready.exit_code) == (0, 1)
    assert ready.stderr.startswith('503 {"status":')
    assert "not ready" in ready.stderr


@pytest.mark.parametrize("other", [("--port", "8000"), ("--worker",)])
def test_two_things_to_ask_are_a_mistake(other: tuple[str, ...]) -> None:
    ran = run_command("health", "--server", "http://127.0.0.1:8000", *other)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_https_is_asked_over_https(tls_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", str(tls_server.http.base_url.port))
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__TLS_CERT", str(tls_server.data_dir / "tls" / "server.pem"))
    assert _health(tls_server).exit_code == 0


def test_a_worker_that_is_unknown_or_silent_is_not_well(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_WORKER_ID", "another")
    assert "no worker another has registered" in _health(server, "--worker").stderr
    database = create_engine(f"sqlite:///{server.data_dir / 'hunyuan-custom.sqlite'}")
    silent = {"pid": 1, "state": "ready", "detail": "", "heartbeat_at": time.time() - 3600}
    with database.begin() as transaction:
        transaction.execute(worker_table.insert().values(id="another", draining=True, **silent))
    try:
        done = _health(server, "--worker")
    finally:
        with database.begin() as transaction:
            transaction.execute(worker_table.delete().where(worker_table.c.id == "another"))
        database.dispose()
    assert done.exit_code == 1
    assert re.search(r"last heard of 36\d\d s ago", done.stderr), done.stderr


@pytest.mark.parametrize("database", ["missing", "empty", "away"])
def test_no_database_is_one_line_and_none_is_made(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database == "empty":
        (tmp_path / "hunyuan-custom.sqlite").touch()
    if database == "away":
        monkeypatch.setenv("HUNYUAN_CUSTOM_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/jobs")
    done = CliRunner().invoke(app, ["health", "--worker", "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "secret" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["hunyuan-custom.sqlite"] * (database == "empty")

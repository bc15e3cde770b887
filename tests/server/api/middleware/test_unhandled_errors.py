"""Unforeseen errors: a JSON 500 with an id for the caller, the traceback with the same id for the log."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from fastapi import FastAPI

from server.db.connection import create_engine
from tests.harness.in_process import open_api
from tests.harness.live_server import APP, example


def test_an_unforeseen_error_is_a_json_500(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = open_api(tmp_path)

    @cast(FastAPI, client.app).get("/api/breaks")
    async def breaks() -> None:
        raise ZeroDivisionError("secret detail")

    with client, caplog.at_level(logging.ERROR):
        answer = client.get("/api/breaks", headers={"Origin": "http://localhost:3000"})
    assert (answer.status_code, answer.json()) == (
        500,
        {"detail": "Internal Server Error", "error_type": "internal_error"},
    )
    assert answer.headers["x-fal-error-type"] == "internal_error"
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000", "a page can read it too"
    (record,) = [record for record in caplog.records if record.name == "server.api.middleware.unhandled_errors"]
    assert answer.headers["x-fal-request-id"] in record.getMessage()
    assert record.exc_info
    assert "secret detail" in caplog.text


def test_an_error_of_the_database_logs_no_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_api(tmp_path) as client:
        with closing(sqlite3.connect(tmp_path / "hunyuan-custom.sqlite")) as database:
            database.execute("ALTER TABLE request RENAME COLUMN base_url TO lost")
        answer = client.post(f"/queue/{APP}", json=example(prompt="a secret wish"))
    assert (answer.status_code, answer.json()["error_type"]) == (500, "internal_error")
    assert "OperationalError" in caplog.text
    assert "secret wish" not in caplog.text


def test_neither_does_one_of_postgres() -> None:
    assert create_engine("postgresql+psycopg://nobody@127.0.0.1:9/x").hide_parameters


@pytest.mark.parametrize("path", ["/health/live", "/nothing", "/openapi.json"])
def test_every_answer_has_an_id(tmp_path: Path, path: str) -> None:
    with open_api(tmp_path) as client:
        ids = [client.get(path).headers["x-fal-request-id"] for _ in range(2)]
        assert len(set(ids)) == 2
        assert client.options(path).headers["x-fal-request-id"]

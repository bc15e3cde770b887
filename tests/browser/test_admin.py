"""The operator's page, as an operator uses it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server.db.connection import create_engine
from server.db.tables import measurement_table, worker_table
from server.jobs.measurements import Measured
from tests.harness.chromium import Page
from tests.harness.live_server import Server, example

pytestmark = pytest.mark.usefixtures("calm")


@pytest.fixture(autouse=True)
def _takes_requests_again(server: Server) -> Iterator[None]:
    yield
    server.http.post("/admin/drain", json={"draining": False})


@contextmanager
def worker_with_ranks(server: Server, name: str, ranks: int) -> Iterator[None]:
    """A worker that reported so many GPUs: its rows alone, since they are all that a page can see of one."""
    gpus = [
        {"gpu": rank, "used_bytes": 40 * 10**9, "peak_bytes": (50 + rank) * 10**9, "total_bytes": 80 * 10**9}
        for rank in range(ranks)
    ]
    now = time.time()
    of = {
        worker_table: {"id": name, "pid": 1, "state": "ready", "detail": "", "draining": False, "heartbeat_at": now},
        measurement_table: {"worker_id": name, "measured_json": Measured(gpus=gpus).model_dump_json(), "at": now},
    }
    database = create_engine(f"sqlite:///{server.data_dir / 'hunyuan-custom.sqlite'}")
    try:
        with database.begin() as transaction:
            for table, row in of.items():
                transaction.execute(table.insert().values(**row))
        yield
    finally:
        with database.begin() as transaction:
            transaction.execute(worker_table.delete().where(worker_table.c.id == name))
            transaction.execute(measurement_table.delete().where(measurement_table.c.worker_id == name))
        database.dispose()


def test_an_operator_sees_what_runs_and_drains(
    tab: Page, server: Server, barriers: Callable[[Page], list[str]]
) -> None:
    def workers() -> list[dict[str, Any]]:
        return list(server.http.get("/health/ready").json()["workers"])

    def says(selector: str, *words: str) -> None:
        for word in words:
            tab.until(f"document.querySelector('{selector}').innerText.includes('{word}')")

    running = server.submit(example(prompt="WORKS_SLOWLY"))
    server.until_running(running)
    waiting = server.submit(example(prompt="AT_ONCE"))
    tab.go(f"{server.url}/admin")
    says("#running", running[:8], "denoising")
    says("#queue", waiting[:8])
    says("#workers", workers()[0]["id"], "ready")
    with worker_with_ranks(server, "two-gpus", 2):
        says("#workers", "rank 0: 40 GB of 80 GB, peak 50 GB", "rank 1: 40 GB of 80 GB, peak 51 GB")
        assert not barriers(tab)
    tab.until("!document.querySelector('#workers').innerText.includes('two-gpus')")

    tab.click("#drain")
    assert not workers()[0]["draining"], "it is asked first"
    tab.click("#confirm-yes")
    says("#problems", "take no more requests")
    assert workers()[0]["draining"]
    tab.click("#running button", saying="Cancel")
    tab.click("#confirm-yes")
    says("#problems", "nothing runs")
    assert server.result(running).status_code == 499
    assert server.status(waiting)["status"] == "IN_QUEUE"
    tab.click("#language")
    says("#problems", "Leergelaufen")
    tab.resize(320, 640, mobile=True)
    tab.prefer(prefers_color_scheme="dark")
    assert tab.js("document.documentElement.scrollWidth") == 320, "nothing to scroll to sideways"
    assert not barriers(tab)

    tab.click("#drain")
    assert server.finish(waiting).status_code == 200
    tab.until("document.getElementById('problems').innerText === ''")
    assert not workers()[0]["draining"]
    assert re.search(r"\b0 ▸ 0\b", str(tab.until("document.title.includes('0 ▸ 0') && document.title")))

"""The operator's page, as an operator uses it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.chromium import Page
from tests.harness.live_server import Server, example

pytestmark = pytest.mark.usefixtures("calm")


@pytest.fixture(autouse=True)
def _takes_requests_again(server: Server) -> Iterator[None]:
    yield
    server.http.post("/admin/drain", json={"draining": False})


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
    assert not barriers(tab)

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

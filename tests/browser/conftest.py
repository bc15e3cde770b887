"""One browser for all tests, and a fresh tab in a context of its own for each."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness import registries
from tests.harness.chromium import Browser, Page, origins
from tests.harness.live_server import Server

# Colours that are on their way to others are no contrast to judge.
SETTLED = """Promise.all(document.getAnimations()
    .filter(({ effect }) => effect.getComputedTiming().endTime < Infinity)
    .map(({ finished }) => finished.catch(() => {})))"""
AXE = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`))"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[Callable[[], Page]]:
    """Tabs of one window: they share what the browser keeps of a site."""
    context = browser.open_context()
    yield lambda: browser.open_page(context)
    browser.close_context(context)


@pytest.fixture
def tab(open_tab: Callable[[], Page]) -> Page:
    return open_tab()


@pytest.fixture
def calm(tab: Page, server: Server) -> Iterator[None]:
    """Nothing is asked of other servers, and nothing complains except about answers that a test provokes."""
    yield
    for request in server.http.get("/playground/requests").json()["requests"]:
        server.cancel(request["request_id"])  # of a test that failed
    assert origins(tab.urls) == {server.url}
    refused = re.compile(r"Failed to load resource: (the server responded with a status of (4|50)|net::ERR_)")
    assert not [line for line in tab.complaints if not refused.match(line)]


@pytest.fixture(scope="session")
def node_packages(pytestconfig: pytest.Config) -> Path:
    """A folder with the JavaScript packages."""
    return registries.node_packages(pytestconfig)


@pytest.fixture(scope="session")
def barriers(node_packages: Path) -> Callable[[Page], list[str]]:
    """What axe-core finds on a page that keeps people out, as it is now."""
    axe = (node_packages / "node_modules/axe-core/axe.min.js").read_text()

    def find(page: Page) -> list[str]:
        if not page.js("typeof axe === 'object'"):
            page.js(f"{axe}; 0")
        page.js(SETTLED)
        return list(page.js(AXE))

    return find


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file to drop."""
    path = tmp_path / "woman.jpg"
    path.write_bytes(PHOTO.read_bytes())
    return path

"""The playground as people use it: with mouse, keyboard and drops, through reloads, lost connections and other tabs."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil
import pytest

from tests.harness.chromium import Page
from tests.harness.keyed import create_key
from tests.harness.live_server import Server, example

pytestmark = pytest.mark.usefixtures("calm")

PAGE_BYTES: Final = 150_000
USABLE_MS: Final = 1000  # on two cores
PLAYING: Final = "document.querySelector('#stage video')?.currentTime > 0.1"
PICTURE: Final = "document.querySelector('.view canvas').checkVisibility()"
STEPS: Final = (
    "[...document.querySelectorAll('.log pre')].map((log) => log.textContent.match(/block \\d+/g) ?? [])[0] ?? []"
)
# Of the picture's field, with and without the bar of an upload.
HEIGHTS: Final = """[false, true].map((isHidden) => {
    document.querySelector(".view progress").hidden = isHidden;
    return document.querySelector(".drop").offsetHeight;
})"""
# Where what is below a video begins when the video comes into the stage.
WATCH_BODY: Final = """new MutationObserver(() => {
    window.bodyTop ??= document.querySelector("#stage .strip + .body")?.offsetTop;
}).observe(document.getElementById("stage"), { childList: true })"""
# Has the list of requests read now, and its answer held back until `release()`, which waits until the page has it.
HOLD_LIST: Final = """(() => {
    const ask = window.fetch;
    const released = new Promise((resolve) => {
        window.release = () => new Promise((done) => { resolve(); setTimeout(done, 100); });
    });
    window.fetch = async (...call) => {
        window.fetch = ask;
        const answer = new Response(await (await ask(...call)).text());
        window.isHeld = true;
        await released;
        return answer;
    };
    document.dispatchEvent(new Event("visibilitychange"));
})()"""

Barriers = Callable[[Page], list[str]]


def request_id(tab: Page) -> str:
    """Of the chosen request."""
    return str(tab.until("location.hash.slice(2)"))


def headline(tab: Page, text: str) -> None:
    """Wait for it in the stage."""
    tab.until(f"document.getElementById('stage').innerText.includes({json.dumps(text)})")


def brightness(tab: Page) -> int:
    """Of the page's background: 0 to 255."""
    colour = str(tab.js("getComputedStyle(document.documentElement).backgroundColor"))
    assert colour.startswith("rgb("), "not transparent"
    return max(map(int, re.findall(r"\d+", colour)))


def test_a_first_visit_is_light_and_soon_usable(tab: Page, server: Server, barriers: Barriers) -> None:
    tab.go(f"{server.url}/")
    tab.until("document.readyState === 'complete'")
    assert 10_000 < tab.loaded_bytes < PAGE_BYTES
    for _ in range(20):  # the machine may be busy with other tests
        if tab.js("window.readyAt") < USABLE_MS:
            break
        tab.reload()
    assert tab.js("window.readyAt") < USABLE_MS
    assert not tab.complaints
    assert not barriers(tab)

    assert not any("example.jpg" in url for url in tab.urls)
    tab.click("button", saying="Use example")
    tab.until(PICTURE)
    assert "A woman is playing a violin." in str(tab.js("document.querySelector('#f-prompt').value"))


def test_a_dropped_picture_becomes_a_video_that_is_kept_and_deleted(
    tab: Page, server: Server, picture: Path, barriers: Barriers
) -> None:
    tab.go(f"{server.url}/")
    tab.drop("#fields", picture)
    tab.until(PICTURE)
    assert "896 × 512" in tab.text(".image")
    assert len(set(tab.js(HEIGHTS))) == 1, "nothing moves when the upload is over"
    tab.fill("#f-prompt", "a woman is playing a violin")
    tab.click("label[for='f-aspect_ratio-9:16']")
    assert "512 × 896" in tab.text(".image"), "what the model sees follows the shape of the video"
    tab.js(WATCH_BODY)
    tab.click("#submit")
    tab.until(PLAYING)
    made = request_id(tab)
    assert tab.js(
        "[...'wh'].map((side) => document.querySelector('video')[side === 'w' ? 'videoWidth' : 'videoHeight'])"
    ) == [512, 896]
    tab.until("document.querySelectorAll('.strip:not(.unseen) canvas').length === 8")
    assert tab.js("document.querySelector('#stage .body').offsetTop === window.bodyTop"), (
        "the buttons stay where they are"
    )
    tab.click(".strip button:nth-child(7)")
    tab.until("document.querySelector('#stage video').currentTime > 3")
    assert tab.until("document.querySelector('.grid img')?.naturalWidth > 0"), "a thumbnail in the history"
    assert not barriers(tab)

    tab.click("#code")
    code = tab.until("document.querySelector('#code-dialog[open] pre')?.textContent")
    assert server.url in code
    assert "a woman is playing a violin" in code
    assert not barriers(tab)
    tab.press("Escape")

    tab.go(f"{server.url}/")
    tab.click(f"a[href='#/{made}']")
    tab.until(PLAYING)
    tab.click("#stage button", saying="Use these settings")
    tab.until("document.getElementById('f-prompt').value === 'a woman is playing a violin'")
    tab.until(PICTURE)
    assert tab.js("document.getElementById('f-seed').value") == str(server.result(made).json()["seed"])

    tab.js(HOLD_LIST)
    tab.until("window.isHeld")
    tab.click("#stage button.danger")
    tab.click("#delete-yes")
    tab.until(f"!document.querySelector(\"a[href='#/{made}']\")")
    assert server.result(made).status_code == 404
    tab.js("release()")
    assert tab.js(f"!document.querySelector(\"a[href='#/{made}']\")"), "a list that was read before has it no more"


def test_a_running_request_is_watched_through_reloads_tabs_and_lost_connections(
    tab: Page, server: Server, picture: Path, open_tab: Callable[[], Page], barriers: Barriers
) -> None:
    tab.go(f"{server.url}/")
    tab.drop("body", picture)
    tab.until(PICTURE)
    tab.fill("#f-prompt", "WORKS_SLOWLY")
    tab.click("#submit")
    headline(tab, "left")
    running = request_id(tab)
    first = tab.until("document.querySelector('img.preview')?.src")
    tab.until(f"document.querySelector('img.preview').src !== {json.dumps(first)}")
    assert not barriers(tab)
    tab.resize(320, 640, mobile=True)
    tab.until("document.querySelector('.log .last').innerText")
    assert (
        tab.js("(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth)(document.getElementById('stage'))") == 0
    )
    tab.resize(1280, 900)

    tab.reload()
    tab.until("document.querySelector('img.preview')")
    assert request_id(tab) == running
    other = open_tab()
    other.go(f"{server.url}/")
    other.until("document.querySelector('img.preview')")
    assert request_id(other) == running, "another tab shows what runs"
    assert re.search(r"\d+ %", str(other.js("document.title")))
    other.close()
    tab.front()

    tab.click(".log summary")
    before = len(tab.js(STEPS))
    psutil.Process(server.pid_of("api")).kill()  # another one may be there before the page has noticed
    tab.until(f"({STEPS}).length > {before} + 5")
    tab.offline(True)
    tab.until("document.getElementById('connection').dataset.news === 'lost'")
    before = len(tab.js(STEPS))
    tab.offline(False)
    tab.until("document.getElementById('connection').dataset.news === 'back'")
    tab.until(f"({STEPS}).length > {before} + 5")
    blocks = [int(line.split()[1]) for line in tab.js(STEPS)]
    assert blocks == list(range(blocks[0], blocks[0] + len(blocks))), "no line is missing and none is there twice"

    tab.click("#stage button", saying="Cancel")
    headline(tab, "This request was cancelled.")
    assert server.result(running).status_code == 499
    assert tab.text(f"a[href='#/{running}'] .badge") == "cancelled"


def test_errors_stand_beside_their_fields(tab: Page, server: Server, barriers: Barriers) -> None:
    tab.go(f"{server.url}/")
    tab.click("#submit")
    assert tab.text("#e-image_url") == "A picture is needed."
    assert tab.text("#e-prompt") == "A prompt is needed."
    assert tab.focused() == "f-image_url"
    assert not barriers(tab)

    tab.fill("#f-url", "http://127.0.0.1:1/x.png")
    tab.fill("#f-prompt", "a colour")
    tab.fill("#f-num_frames", "5")
    tab.click("#submit")
    tab.until("document.getElementById('e-num_frames').innerText.includes('81')")
    assert tab.focused() == "f-num_frames"
    tab.fill("#f-num_frames", "81")
    assert not tab.text("#e-num_frames"), "it goes with its cause"
    tab.click("#submit")
    tab.until("document.getElementById('e-image_url').innerText")
    headline(tab, "The server could not fetch the picture from its URL.")

    tab.go(f"{server.url}/#/../../admin/overview")
    headline(tab, "There is no such request")
    assert f"{server.url}/admin/overview" not in tab.urls, "an address is the name of a request and nothing else"
    tab.fill("#f-url", "http://[/cdn/files/a/b/c")
    tab.fill("#f-prompt", "the picture has no address that can be read")
    tab.reload()
    assert tab.js("document.getElementById('f-prompt').value").startswith("the picture"), "the page can still be used"


def test_a_video_whose_time_is_over_says_so(tab: Page, server: Server, barriers: Barriers) -> None:
    expired, lost = [server.submit(example(prompt=f"AT_ONCE {n}")) for n in range(2)]
    addresses = [server.finish(made).json()["video"]["url"] for made in (expired, lost)]
    (server.data_dir / urlsplit(addresses[1]).path.lstrip("/")).unlink()
    with contextlib.closing(sqlite3.connect(server.data_dir / "hunyuan-custom.sqlite", timeout=30)) as database:
        database.execute("UPDATE request SET media_deleted = 1, thumbnail_key = NULL WHERE id = ?", [expired])
        database.commit()
    for made in (expired, lost):
        tab.go(f"{server.url}/#/{made}")
        headline(tab, "This video has expired")
    assert tab.text(f"a[href='#/{expired}'] .badge") == "expired"
    assert not barriers(tab)


def test_without_a_mouse(tab: Page, server: Server, picture: Path) -> None:
    def tab_to(selector: str, limit: int = 40) -> None:
        for _ in range(limit):
            tab.press("Tab")
            if tab.js(f"document.activeElement.matches({json.dumps(selector)})"):
                assert tab.js("document.activeElement.checkVisibility()")
                return
        raise AssertionError(f"{selector} is not reached by the keyboard")

    tab.go(f"{server.url}/")
    tab_to(".skip", 1)
    tab.press("Enter")
    tab_to("#f-image_url", 2)
    tab.choose_file("#f-image_url", picture)
    tab.until(PICTURE)
    tab_to("#f-prompt")
    tab.write("WORKS_SLOWLY")
    tab_to("[name=aspect_ratio]", 2)
    tab.press("ArrowRight")
    assert tab.js("document.querySelector('[name=aspect_ratio]:checked').value") == "9:16"
    tab_to("#submit")
    tab.press("Enter")
    headline(tab, "left")
    assert tab.js("document.activeElement !== document.body"), "the focus is not lost"
    tab_to("#stage button")
    tab.press(" ")
    headline(tab, "This request was cancelled.")
    assert tab.js("document.activeElement.id") == "stage", "the focus stays where the button was"
    tab_to("#grid a")
    tab_to("#f-prompt")
    tab.press("a", control=True)
    tab.write("a colour")
    tab.press("Enter", control=True)
    tab.until(PLAYING)


def test_on_a_phone_in_the_dark_and_in_german(tab: Page, server: Server, barriers: Barriers) -> None:
    made = server.submit(example(prompt="a colour " + "x" * 80))
    server.until_completed(made)
    tab.prefer(prefers_color_scheme="dark")
    tab.resize(320, 640, mobile=True)
    for address in ("/", f"/#/{made}"):
        tab.go(server.url + address)
        assert tab.js("document.documentElement.scrollWidth") == 320, "nothing to scroll to sideways"
    tab.until(PLAYING)
    assert brightness(tab) < 60
    assert not barriers(tab)
    tab.click("#language")
    for _ in range(2):
        assert tab.js("document.documentElement.lang") == "de"
        tab.until("document.getElementById('stage').innerText.includes('Löschen')")
        assert "Bild" in tab.text("#fields")
        assert tab.js("document.documentElement.scrollWidth") == 320
        tab.reload()
    tab.click("#theme")
    tab.until("document.documentElement.dataset.theme === 'light'")
    assert brightness(tab) > 200


def test_a_key_is_asked_for_and_stays_in_the_tab(
    tab: Page, start_api: Callable[..., Server], open_tab: Callable[[], Page], barriers: Barriers, server: Server
) -> None:
    closed = start_api()
    key = create_key(closed, "alice")
    tab.go(f"{closed.url}/")
    assert not barriers(tab)
    assert tab.focused() == "key"
    tab.write("wrong:key")
    tab.press("Enter")
    tab.until("document.getElementById('key-error').innerText")
    tab.press("a", control=True)
    tab.write(key)
    tab.press("Enter")
    tab.until("document.body.dataset.ready")
    tab.reload()
    tab.until("document.body.dataset.ready")
    other = open_tab()
    other.go(f"{closed.url}/")
    assert other.js("document.body.dataset.key") == "asked", "another tab has no key"
    assert key not in str(tab.js("JSON.stringify([localStorage, document.cookie, location.href])"))
    tab.front()
    tab.fill("#f-prompt", "known to alice alone")
    tab.js("sessionStorage.setItem('hunyuan-custom key', 'ended:key')")
    tab.js("document.dispatchEvent(new Event('visibilitychange'))")
    tab.until("document.body.dataset.key === 'asked'")
    tab.write(create_key(closed, "bob"))
    tab.press("Enter")
    tab.until("document.body.dataset.ready && document.getElementById('f-prompt').value === ''")
    tab.click("#sign-out")
    tab.until("document.body.dataset.key === 'asked'")
    tab.urls[:] = [url.replace(closed.url, server.url) for url in tab.urls]

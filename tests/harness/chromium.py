"""Debian's Chromium, driven over its DevTools protocol: real mouse, keys, drops and networks, without a driver.

One process for all tests; each has a context of its own, which is what an incognito window is.
"""

import base64
import itertools
import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from websockets.sync.client import connect

from server.bench.waiting import CLOSELY_S, until
from server.parent_death import tied
from tests.harness.client_programs import clean_environment, missing

_OPTIONS: Final = [
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
]
_KEYS: Final = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39}
_CONTROL: Final = 2
_USABLE: Final = (
    "document.body.dataset.ready || document.body.dataset.key || document.querySelector('.admin:not(.empty)')"
)
_READY = """new MutationObserver(() => { if (document.body?.dataset.ready) window.readyAt ??= performance.now() })
    .observe(document, { subtree: true, childList: true, attributes: true })"""

# Where an element is to be clicked; until the next aim a click that hits another one is kept from the page.
_AIM: Final = """(selector, saying) => {
    const all = [...document.querySelectorAll(selector)];
    const element = all.find(({ innerText }) => innerText.includes(saying));
    if (!element || element.disabled) return null;
    element.scrollIntoView({ block: "center", behavior: "instant" });
    const box = element.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    if (!element.contains(document.elementFromPoint(x, y))) return null;
    window.aim?.abort();
    window.aim = new AbortController();
    window.hasMissed = false;
    const check = (event) => {
        if (event.type !== "click") window.hasMissed ||= !element.contains(event.target);
        if (!window.hasMissed) return;
        event.preventDefault();
        event.stopImmediatePropagation();
    };
    for (const kind of ["mousedown", "mouseup", "click"])
        addEventListener(kind, check, { capture: true, signal: window.aim.signal });
    return [x, y];
}"""


def chromium() -> str:
    """The program; a test without it is skipped, or fails with CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or missing("no Chromium: apt-get install chromium")


class Browser:
    """A running Chromium. Used by one thread: what it reports is read while something is asked."""

    def __init__(self, folder: Path) -> None:
        command = [chromium(), *_OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            tied(command), env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        where = folder / "DevToolsActivePort"
        until(lambda: where.exists() and len(where.read_text().split()) == 2)
        port, path = where.read_text().split()
        address = f"ws://127.0.0.1:{port}{path}"
        self._closing = ExitStack()
        # No pings: what pages report fills the socket while a test waits for something else, and hides the answers.
        self._socket = self._closing.enter_context(
            connect(address, max_size=None, compression=None, proxy=None, ping_interval=None)
        )
        self._numbers = itertools.count(1)
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._process.terminate()
        self._process.wait()

    def call(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; what pages report meanwhile reaches them.

        Raises:
            RuntimeError: Chromium refuses.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            heard = json.loads(self._socket.recv(timeout=60))
            if heard.get("id") == number:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']['message']}")
                return dict(heard["result"])
            page = self._pages.get(heard.get("sessionId", ""))
            if page is not None:
                page.hear(heard["method"], heard["params"])

    def open_context(self) -> str:
        """Cookies, storage and cache of their own; returns an id."""
        return str(self.call("Target.createBrowserContext")["browserContextId"])

    def close_context(self, context: str) -> None:
        """And all pages in it."""
        self.call("Target.disposeBrowserContext", browserContextId=context)

    def open_page(self, context: str) -> "Page":
        """An empty tab."""
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = str(self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        page = self._pages[session] = Page(self, target, session)
        page.prepare()
        return page


class Page:
    """One tab: what a person does in it, what is there, and what it has loaded and complained about."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session
        self.complaints: list[str] = []
        self.urls: list[str] = []
        self._bytes: dict[str, int] = defaultdict(int)

    def prepare(self) -> None:
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self._call(f"{domain}.enable")
        self.begin_with(_READY)
        self.resize(1280, 900)

    def begin_with(self, script: str) -> None:
        """Run it before the scripts of every page that is opened from now on."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def hear(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent" if not event["request"]["url"].startswith(("data:", "blob:")):
                self.urls.append(event["request"]["url"])
            case "Network.loadingFinished":
                self._bytes[event["requestId"]] += int(event["encodedDataLength"])
            case "Runtime.exceptionThrown":
                details = event["exceptionDetails"]
                self.complaints.append(str(details.get("exception", details).get("description", details)))
            case "Runtime.consoleAPICalled" if event["type"] in {"error", "warning", "assert"}:
                self.complaints.append(" ".join(str(value.get("value", value)) for value in event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] == "error":
                self.complaints.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")

    # what is there

    def js(self, expression: str) -> Any:
        """The value of an expression; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def until(self, expression: str, timeout_s: float = 60) -> Any:
        """Wait until an expression is true; returns its value, true for an element."""
        seen: list[Any] = [None]
        value = f"(async () => {{ const value = await ({expression}); return value instanceof Node || value }})()"

        def holds() -> bool:
            with suppress(RuntimeError):  # the page is being loaded
                seen[0] = self.js(value)
            return bool(seen[0])

        try:
            until(holds, timeout_s, every_s=CLOSELY_S)
        except TimeoutError:
            raise AssertionError(f"never: {expression}; {self.complaints}\n{self.text('body')}") from None
        return seen[0]

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def focused(self) -> str:
        """The id of the element that has the focus; else what it is and says."""
        return str(
            self.js("(({ id, localName, innerText }) => id || `${localName} ${innerText}`)(document.activeElement)")
        )

    @property
    def loaded_bytes(self) -> int:
        """What has come over the network, headers included."""
        return sum(self._bytes.values())

    def screenshot(self, path: Path) -> None:
        """For who writes a test: what it is about."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    # what a person does

    def go(self, url: str, ready: str = _USABLE) -> None:
        """Open an address, also the same one with another fragment, and wait until the page can be used."""
        self._call("Page.navigate", url=url)
        self.until(ready)

    def reload(self) -> None:
        self.js("document.body.dataset.old = true")
        self._call("Page.reload")
        self.until(f"!document.body.dataset.old && ({_USABLE})")

    def front(self) -> None:
        """Make it the tab that is looked at."""
        self._call("Page.bringToFront")

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)

    def click(self, selector: str, saying: str = "") -> None:
        """With the mouse, in the middle of what is seen of the first one with that text; not if covered or disabled.

        What is hit in its place, as the page moves meanwhile, hears nothing of it, and the mouse goes there again.
        """
        until(lambda: self._hits(selector, saying), every_s=CLOSELY_S)

    def _hits(self, selector: str, saying: str) -> bool:
        x, y = self._middle(selector, saying)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        with suppress(RuntimeError):  # the click has led to another page
            return not self.js("window.hasMissed")
        return True

    def _middle(self, selector: str, saying: str) -> tuple[float, float]:
        found = self.until(f"({_AIM})({json.dumps(selector)}, {json.dumps(saying)})")
        return found[0], found[1]

    def write(self, text: str) -> None:
        """Type into what has the focus, in place of what is selected."""
        self._call("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field."""
        self.click(selector)
        assert self.js(f"document.activeElement.matches({json.dumps(selector)})"), "clicked beside it"
        self.press("a", control=True)
        self.write(text)

    def press(self, key: str, *, control: bool = False) -> None:
        """A key by its DOM name."""
        code = _KEYS.get(key) or ord(key.upper())
        pressed: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        pressed |= {"modifiers": _CONTROL * control, "code": key if len(key) > 1 else ""}
        if control and key == "a":
            pressed["commands"] = ["selectAll"]
        writes = {"Enter": "\r", " ": " "}.get(key, "")
        down = {"type": "keyDown", "text": writes} if writes else {"type": "rawKeyDown"}
        self._call("Input.dispatchKeyEvent", **down, **pressed)
        self._call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def drop(self, selector: str, file: Path) -> None:
        """Drag a file of this machine there and let go."""
        x, y = self._middle(selector, "")
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose_file(self, selector: str, file: Path) -> None:
        """What the system's file dialog does, which no test can see."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    # where a person is

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)

    def prefer(self, **features: str) -> None:
        """Preferences of the system, as `prefers_color_scheme="dark"`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self._call("Emulation.setEmulatedMedia", features=named)

    def offline(self, is_away: bool) -> None:
        limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self._call("Network.emulateNetworkConditions", offline=is_away, **limits)


def origins(urls: Iterable[str]) -> set[str]:
    """Where URLs lead."""
    return {f"{split.scheme}://{split.netloc}" for split in map(urlsplit, urls)}

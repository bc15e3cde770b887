"""Seconds from the start of a server to its first video in a browser: `python -m tests.browser.first_video`.

With the demo model and its settings, at the page as a newcomer uses it: the example, and nothing changed.
"""

import sys
import tempfile
import time
from pathlib import Path

from server.bench.deployment import Deployment
from tests.harness.chromium import Browser

LIMIT_S = 600


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()

        def say(what: str) -> None:
            sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {what}\n")

        with Deployment(folder / "data", {}) as deployment, Browser(folder / "profile") as browser:
            server = deployment.serve(ready=False)
            page = browser.open_page(browser.open_context())
            page.go(f"{server.url}/")
            say("the page can be used")
            page.click("button", saying="Use example")
            page.until("document.querySelector('.view canvas').checkVisibility()")
            page.click("#submit")
            page.until("location.hash.length > 2", LIMIT_S)
            say("the request is accepted")
            page.until("document.querySelector('img.preview')", LIMIT_S)
            say("a preview is shown")
            page.until("document.querySelector('#stage video')?.currentTime > 0.1", LIMIT_S)
            say("the video plays")
            server.stop()


if __name__ == "__main__":
    main()

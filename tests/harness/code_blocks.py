"""The code blocks of the documentation that call a server."""

import re

from tests.harness.live_server import ROOT

README = (ROOT / "README.md").read_text()
BASE = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if BASE in text]

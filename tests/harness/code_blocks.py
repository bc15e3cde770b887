"""The documentation as the tests read it: its files and the code blocks in them."""

import re
from pathlib import Path

from tests.harness.live_server import ROOT

README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "examples" / "README.md"]
BASE = "http://127.0.0.1:8000"


def code_blocks(language: str) -> list[tuple[Path, str]]:
    """All blocks of a language, each with the file that it stands in."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [(path, text) for path in DOCUMENTS for text in pattern.findall(path.read_text())]


def blocks(language: str) -> list[str]:
    """Those that call a server: they run as they stand."""
    return [text for _, text in code_blocks(language) if BASE in text]

"""A request as code: the lines of the documentation, and code that does what the form would."""

from pathlib import Path
from typing import Any

from tests.harness.code_blocks import BASE, code_blocks
from tests.harness.live_server import ROOT
from tests.harness.page_modules import in_node

CLIENTS = ROOT / "docs" / "clients.md"
VIOLIN = "Realistic, High-quality. A woman is playing a violin."
FILE = {"name": "woman.jpg", "type": "image/jpeg"}


def snippets(folder: Path, **request: Any) -> dict[str, str]:
    """The code in each language."""
    script = 'import { LANGUAGES } from "./snippets.js";\n\n' + (
        "answer(Object.fromEntries(Object.entries(LANGUAGES).map(([name, code]) => [name, code(REQUEST)])));"
    )
    found: dict[str, str] = in_node(folder, script, REQUEST={"base": BASE, "needsKey": False, **request})
    return found


def documented(language: str) -> str:
    """The block of docs/clients.md that calls a server."""
    (found,) = [text for path, text in code_blocks(language) if path == CLIENTS and BASE in text]
    return found


def test_they_are_the_lines_of_the_documentation(tmp_path: Path) -> None:
    code = snippets(tmp_path, input={"prompt": VIOLIN}, file=FILE)
    assert code["python"] == documented("python")
    assert code["javascript"] == documented("js")
    assert code["curl"] == documented("bash")


def test_a_key_is_named_and_never_written(tmp_path: Path) -> None:
    code = snippets(tmp_path, input={"prompt": "x", "image_url": "https://a/b.png"}, needsKey=True)
    assert "FAL_KEY" in code["python"].splitlines()[0]
    assert "credentials: process.env.FAL_KEY," in code["javascript"]
    assert code["curl"].count('-H "Authorization: Key $FAL_KEY"') == 3


def test_https_needs_no_helper(tmp_path: Path) -> None:
    code = snippets(tmp_path, base="https://gpu.example/hc", input={"prompt": "x", "image_url": "https://a/b.png"})
    assert "fal_plain_http" not in code["python"]
    compile(code["python"], "snippet", "exec")
    assert 'os.environ["FAL_KEY"] = "local:local"' in code["python"]
    assert 'os.environ["FAL_QUEUE_RUN_HOST"] = "gpu.example/hc/queue"' in code["python"]
    assert "https://gpu.example/hc/api/fal/proxy" in code["javascript"]

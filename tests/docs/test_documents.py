"""README and docs stay true to the code: what they name exists, and what exists is in them."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from server.cli.main import app
from server.settings import Settings
from tests.docs.generated import DOCS, commands, configuration
from tests.harness.code_blocks import DOCUMENTS, README, code_blocks
from tests.harness.live_server import ROOT

_REGENERATE = "run `python -m tests.docs.generated`"


def test_the_settings_are_documented() -> None:
    assert (DOCS / "configuration.md").read_text() == configuration(), _REGENERATE


def test_the_commands_are_documented() -> None:
    assert (DOCS / "commands.md").read_text() == commands(), _REGENERATE


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_the_readme_leads_to_every_document() -> None:
    linked = {(README.parent / target).resolve() for target, _ in _links(README)}
    assert set(DOCS.iterdir()) <= linked


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_resolves(document: Path) -> None:
    broken = []
    for target, anchor in _links(document):
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert not broken


def test_commands_in_console_blocks_exist() -> None:
    lines = [line[2:] for _, text in code_blocks("console") for line in text.splitlines() if line.startswith("$ ")]
    called = [shlex.split(line) for line in lines]
    assert not [line for line in called if Path(line[0]).name == "hunyuan-custom" and not _is_valid(line[1:])]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert not [line for line in called if line[0] == "make" and line[1] not in targets]


def test_settings_in_toml_blocks_are_valid() -> None:
    assert code_blocks("toml")
    for _, text in code_blocks("toml"):
        Settings.model_validate(tomllib.loads(text))


def test_settings_named_in_the_text_exist() -> None:
    known = set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", configuration(), re.MULTILINE))
    sections = "|".join({key.split(".")[0] for key in known})
    pattern = re.compile(rf"`((?:{sections})\.[a-z_]+)(?: = [^`]*)?`")
    named = {key for path in DOCUMENTS for key in pattern.findall(path.read_text())}
    assert len(named) > 10
    assert not [key for key in named - known if not _module(key)]


def test_modules_named_in_the_architecture_exist() -> None:
    text = (DOCS / "architecture.md").read_text()
    rooms = re.findall(r"`((?:server|pipeline|weights|configs|tests)/[a-z_/]*)`", text)
    assert not [room for room in rooms if not (ROOT / room).is_dir()]
    packages = {path.parent for top in ("server", "pipeline", "weights") for path in ROOT.glob(f"{top}/**/__init__.py")}
    undocumented = {f"{path.relative_to(ROOT)}/" for path in packages if path.parent != ROOT} - set(rooms)
    assert undocumented <= {"server/api/middleware/", "server/api/routes/"}  # they are part of `server/api/`
    found = re.findall(r"`([a-z_]+(?:\.[a-z0-9_]+)+)`(?:, `([a-z_]+)`)?", text)
    names = [name for name in found if not name[0].endswith((".py", ".toml"))]
    assert names
    assert not [name for name in names if not _module(*name)]


def test_what_python_blocks_import_exists() -> None:
    imported = [
        (statement.module or "", alias.name)
        for _, text in code_blocks("python")
        for statement in ast.walk(ast.parse(text))
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").split(".")[0] in {"pipeline", "server"}
        for alias in statement.names
    ]
    assert imported
    assert not [name for name in imported if not _module(*name)]


def _links(document: Path) -> Iterator[tuple[str, str]]:
    """(path, anchor) of every link and picture that does not lead elsewhere."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", link):
            target, _, anchor = link.partition("#")
            yield target, anchor


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_valid(words: list[str]) -> bool:
    """Whether a command line names a command, and options which that command has."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return False
        command, words = command.commands[words[0]], words[1:]
    known = {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
    return all(word.split("=")[0] in known for word in words if word.startswith("--"))


def _module(name: str, attribute: str = "") -> bool:
    """Whether a dotted name leads to a module of ours (below `server/` or on top), or to something defined in one."""
    words = name.split(".")
    for top in (ROOT / "server", ROOT):
        for length in range(len(words), 0, -1):
            path = top.joinpath(*words[:length]).with_suffix(".py")
            if path.is_file():
                text = path.read_text()
                wanted = [*words[length:], *([attribute] if attribute else [])]
                return all(re.search(rf"^\s*(?:async )?(?:def|class) {word}\b", text, re.MULTILINE) for word in wanted)
    return False

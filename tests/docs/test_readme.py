"""The README stays true: every setting, command and route is in it, and its code blocks run as they stand."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from server.cli.main import app
from server.fal.example import PHOTO
from server.settings import Settings
from tests.harness.code_blocks import BASE, README, blocks
from tests.harness.live_server import ROOT, Server


def settings_with_defaults(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_with_defaults(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def row(key: str, field: Any) -> str:
    """A row of the README's table; the test prints the missing ones, ready to be pasted."""
    default = field.default
    shown = f"`{default}`" if default not in (None, "", (), Path()) and "SecretStr" not in repr(default) else ""
    return f"| `{key}` | {shown} | {field.description} |"


def test_every_setting_is_in_the_readme() -> None:
    missing = [line for line in (row(*pair) for pair in settings_with_defaults(Settings)) if line not in README]
    assert not missing, "\n".join(missing)


def commands(command: Any, name: str = "hunyuan-custom") -> Iterator[str]:
    if hasattr(command, "commands"):
        for part, inner in command.commands.items():
            yield from commands(inner, f"{name} {part}")
    else:
        yield name


def test_every_command_is_in_the_readme() -> None:
    missing = [name for name in commands(typer.main.get_command(app)) if f"`{name}" not in README]
    assert not missing


def test_every_route_is_in_the_readme(server: Server) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    missing = [path for path in paths if f"`{path}`" not in README]
    assert not missing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the README's reader has at hand."""
    shutil.copy(PHOTO, tmp_path / "woman.jpg")
    shutil.copy(ROOT / "server" / "clients" / "fal_plain_http.py", tmp_path)
    return tmp_path


def run(command: list[str], folder: Path, **environment: str) -> str:
    finished = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_python_blocks_run(server: Server, folder: Path) -> None:
    assert blocks("python")
    for block in blocks("python"):
        output = run([sys.executable, "-c", block.replace(BASE, server.url)], folder)
        assert "Denoising step" in output  # which ones, depends on when the client polls
        assert server.http.get(output.splitlines()[-1]).status_code == 200


def test_the_curl_blocks_run(server: Server, folder: Path) -> None:
    assert blocks("bash")
    for block in blocks("bash"):
        output = run(["bash", "-euo", "pipefail", "-c", block.replace(BASE, server.url)], folder)
        assert '"video"' in output

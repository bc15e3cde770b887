"""The command as a process: its script, and `python -m server` where the script is not on the path."""

import subprocess
import sys
from pathlib import Path

import pytest

from server.version import VERSION
from tests.harness.in_process import open_api
from tests.harness.live_server import ROOT


def run(*words: str) -> str:
    command = [sys.executable, "-m", "server", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.mark.parametrize("words", [("--help",), ()])
def test_help_lists_the_commands(words: tuple[str, ...]) -> None:
    shown = run(*words)
    assert "drop-in replacement" in shown
    for name in ("serve", "demo", "api", "worker", "migrate", "drain", "usage", "backup", "restore", "doctor"):
        assert f" {name} " in shown, name
    for group in ("keys", "webhooks", "weights", "bench"):
        assert f" {group} " in shown, group


def test_the_version_is_one_everywhere(tmp_path: Path) -> None:
    assert run("--version").strip() == VERSION
    with open_api(tmp_path) as client:
        assert client.get("/openapi.json").json()["info"]["version"] == VERSION

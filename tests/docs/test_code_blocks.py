"""The examples in README and docs run as they stand; every route is documented."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness.code_blocks import BASE, blocks
from tests.harness.live_server import ROOT, Server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the reader has at hand."""
    shutil.copy(PHOTO, tmp_path / "woman.jpg")
    shutil.copy(ROOT / "server" / "clients" / "fal_plain_http.py", tmp_path)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    finished = subprocess.run(
        command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_documented_routes_are_those_that_exist(server: Server) -> None:
    table = (ROOT / "docs" / "api.md").read_text().partition("## Input")[0]
    documented = {
        (path, method) for path, methods in re.findall(r"^\| `(/[^`]+)` \| ([A-Z, ]+) \|", table, re.MULTILINE)
        for method in methods.split(", ")
    }  # fmt: skip
    paths = server.http.get("/openapi.json").json()["paths"]
    existing = {(path, method.upper()) for path, methods in paths.items() for method in methods}
    missing = existing - documented
    stale = {(path, method) for path, method in documented - existing if path != "/api/fal/proxy"}  # rewritten
    assert (missing, stale) == (set(), set())


def test_the_python_blocks_run(server: Server, folder: Path) -> None:
    found = blocks("python")
    assert any("with_logs" in block for block in found)
    for block in found:
        output = run([sys.executable, "-c", block.replace(BASE, server.url)], folder)
        if "with_logs" in block:
            assert "Denoising step" in output  # which ones, depends on when the client polls
        assert server.http.get(output.splitlines()[-1]).status_code == 200


def test_the_curl_blocks_run(server: Server, folder: Path) -> None:
    assert blocks("bash")
    for block in blocks("bash"):
        output = run(["bash", "-euo", "pipefail", "-c", block.replace(BASE, server.url)], folder)
        assert '"video"' in output

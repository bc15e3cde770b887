"""The JavaScript in README, docs and examples runs as it stands."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from server.parent_death import tied
from tests.harness.client_programs import clean_environment
from tests.harness.code_blocks import BASE, blocks
from tests.harness.live_server import ROOT, Server


@pytest.fixture
def folder(tmp_path: Path, node_packages: Path) -> Path:
    """What the reader has at hand."""
    shutil.copy(PHOTO, tmp_path / "woman.jpg")
    shutil.copy(ROOT / "server/clients/fal_server_url.mjs", tmp_path)
    shutil.copy(ROOT / "docs/examples/javascript/subscribe.mjs", tmp_path)
    scope = tmp_path / "node_modules" / "@fal-ai"
    scope.mkdir(parents=True)
    (scope / "client").symlink_to(node_packages / "node_modules" / "current")
    return tmp_path


def test_the_javascript_blocks_run(server: Server, folder: Path) -> None:
    assert blocks("js")
    for number, block in enumerate(blocks("js")):
        script = folder / f"block{number}.mjs"
        script.write_text(block.replace(BASE, server.url))
        finished = subprocess.run(
            ["node", script],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert finished.returncode == 0, finished.stderr
        assert server.http.get(finished.stdout.splitlines()[-1]).status_code == 200


def start_example(folder: Path, prompt: str, server: Server) -> subprocess.Popen[str]:
    return subprocess.Popen(
        tied(["node", "subscribe.mjs", "woman.jpg", prompt, "out.mp4"], number=signal.SIGTERM),
        cwd=folder, env=clean_environment(HUNYUAN_URL=server.url), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_example_downloads_the_video(server: Server, folder: Path) -> None:
    output, errors = start_example(folder, "a colour", server).communicate(timeout=60)
    assert errors == ""
    lines = output.splitlines()
    assert any(line.startswith("Denoising step 30/30") for line in lines)
    assert len(lines) == len(set(lines))
    assert (folder / "out.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_example_cancels_when_it_is_interrupted(server: Server, folder: Path) -> None:
    process = start_example(folder, "WORKS_SLOWLY", server)
    assert process.stdout is not None
    while "block" not in (line := process.stdout.readline()):
        assert line, "it ended"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "client_cancelled" in errors
    assert not [path for path in folder.iterdir() if path.name.startswith("out")]

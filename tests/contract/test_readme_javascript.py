"""The JavaScript in README and docs runs as it stands."""

import shutil
import subprocess
from pathlib import Path

from server.fal.example import PHOTO
from tests.harness.client_programs import clean_environment
from tests.harness.code_blocks import BASE, blocks
from tests.harness.live_server import Server


def test_the_javascript_blocks_run(server: Server, node_packages: Path, tmp_path: Path) -> None:
    shutil.copy(PHOTO, tmp_path / "woman.jpg")
    scope = tmp_path / "node_modules" / "@fal-ai"
    scope.mkdir(parents=True)
    (scope / "client").symlink_to(node_packages / "node_modules" / "current")
    assert blocks("js")
    for number, block in enumerate(blocks("js")):
        script = tmp_path / f"block{number}.mjs"
        script.write_text(block.replace(BASE, server.url))
        finished = subprocess.run(
            ["node", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        assert server.http.get(finished.stdout.splitlines()[-1]).status_code == 200

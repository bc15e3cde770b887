"""Calls made up from this server's own schema: no 5xx, and no status that it does not document."""

import subprocess
import sys
from pathlib import Path

from tests.live_server import Server

SECONDS = 8


def test_the_schema_holds_what_it_promises(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--max-time", str(SECONDS)]
    command += ["--generation-database", "none", "--seed", "1", "--no-shrink", "--warnings", "off", "--no-color"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert server.finish(server.submit()).status_code == 200, "the server is well afterwards"

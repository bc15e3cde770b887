"""Calls made up from this server's own schema: no 5xx but those documented, and nothing that it does not document."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.db.migrations import migrate
from tests.harness.cluster import Cluster
from tests.harness.live_server import FAST, Server

FUZZING_S = 10
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API without a worker: none of the addresses that are made up here is ever looked at."""
    folder = tmp_path_factory.mktemp("api")
    migrate(f"sqlite:///{folder / 'hunyuan-custom.sqlite'}", folder / "lock")
    cluster = Cluster(folder, **FAST, api__deadline_poll_s=0.05)
    yield cluster.start_api()
    cluster.kill()


@pytest.mark.parametrize("phases", [["examples,coverage"], ["fuzzing", "--max-time", str(FUZZING_S)]])
def test_the_schema_holds_what_it_promises(api: Server, tmp_path: Path, phases: list[str]) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/openapi.json", "--checks", CHECKS]
    command += ["--phases", *phases]
    command += ["--generation-database", "none", "--seed", "1", "--no-shrink", "--warnings", "off", "--no-color"]
    command += ["-H", "X-Fal-Request-Timeout: 0.2"]  # sync runs end with their 504
    config = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "4xx", "503", "504"]\n'  # it says so itself
    (tmp_path / "schemathesis.toml").write_text(config)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    if "--max-time" not in phases:
        operations = sum(len(methods) for methods in api.http.get("/openapi.json").json()["paths"].values())
        assert re.findall(r"Tested: (\d+)", done.stdout) == [str(operations)], "every operation was called"
    assert api.http.get("/health/live").is_success

"""fal's JavaScript client, two versions of it, and its server proxy."""

import json
import subprocess
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness.client_programs import clean_environment
from tests.harness.live_server import ROOT, Server

DRIVER = Path(__file__).parent / "clients" / "drive_fal_js.mjs"
HELPER = ROOT / "server" / "clients" / "fal_server_url.mjs"
CALLS = [
    "run",
    "subscribe",
    "subscribe_streaming",
    "submit_status_result",
    "cancel",
    "invalid_input",
    "unknown_request",
    "upload",
    "storage_upload",
]


def _drive(folder: Path, package: str, mode: str, url: str, calls: list[str], **environment: str) -> None:
    command = ["node", str(DRIVER), package, mode, url, str(PHOTO), str(HELPER), *calls]
    plain = clean_environment(**environment)
    done = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == dict.fromkeys(calls, "ok")


@pytest.mark.parametrize("package", ["current", "old"])
def test_with_the_request_middleware(server: Server, node_packages: Path, package: str) -> None:
    _drive(node_packages, package, "middleware", server.url, CALLS)


def test_through_the_proxy_door(server: Server, node_packages: Path) -> None:
    """`proxyUrl` alone; 1.6 knows it in browsers only."""
    _drive(node_packages, "current", "proxy", server.url, CALLS)


def test_through_fals_own_server_proxy(server: Server, node_packages: Path) -> None:
    _drive(node_packages, "current", "server", server.url, CALLS)


def test_over_tls_with_a_private_authority(tls_server: Server, node_packages: Path) -> None:
    authority = str(tls_server.data_dir / "tls" / "ca.pem")
    _drive(
        node_packages,
        "current",
        "middleware",
        tls_server.url,
        ["run", "subscribe_streaming"],
        NODE_EXTRA_CA_CERTS=authority,
    )

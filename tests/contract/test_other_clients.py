"""Clients of others that speak fal's protocol, each as published, with fal's host names led to this server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness.client_programs import clean_environment
from tests.harness.live_server import Server

CLIENTS = Path(__file__).parent / "clients"


def _ca(server: Server) -> str:
    return str(server.data_dir / "tls" / "ca.pem")


def _drive(folder: Path, server: Server, call: str) -> str:
    """What the call wrote to stderr; it went well."""
    command = ["node", str(CLIENTS / "drive_other_js.mjs"), server.url, str(PHOTO), call]
    environment = clean_environment(NODE_EXTRA_CA_CERTS=_ca(server))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == {call: "ok"}
    return done.stderr


@pytest.mark.parametrize("call", ["ai_sdk", "huggingface", "serverless_client"])
def test_javascript_with_a_hosts_entry(tls_server: Server, node_packages: Path, call: str) -> None:
    _drive(node_packages, tls_server, call)


def test_the_ai_sdk_loads_no_video_from_an_address_of_this_machine(server: Server, node_packages: Path) -> None:
    """Documented: it needs fal's host names. If this fails, it has become better and the documentation can say so."""
    command = ["node", str(CLIENTS / "drive_other_js.mjs"), server.url, str(PHOTO), "ai_sdk_elsewhere"]
    done = subprocess.run(
        command, cwd=node_packages, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert "URL with IP address 127.0.0.1 is not allowed" in done.stderr


def test_huggingface_hub_with_a_hosts_entry(tls_server: Server) -> None:
    command = [sys.executable, str(CLIENTS / "drive_huggingface_hub.py"), tls_server.url, str(PHOTO)]
    environment = clean_environment(SSL_CERT_FILE=_ca(tls_server))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

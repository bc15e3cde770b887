"""fal's Python client, two versions of it, each in every way it can be pointed at this server."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness.client_programs import OLD_FAL_CLIENT, clean_environment
from tests.harness.live_server import Server

DRIVER = Path(__file__).parent / "clients" / "drive_fal_client.py"
CALLS = ["run", "subscribe", "submit_status_result", "cancel", "invalid_input", "unknown_request", "iter_events"]
CALLS += ["async_calls"]
UPLOADS = ["upload_file", "upload_image"]
CURRENT = importlib.metadata.version("fal-client")


def _drive(mode: str, url: str, calls: list[str], *, version: str = CURRENT, **environment: str) -> None:
    command = [sys.executable, str(DRIVER), mode, url, str(PHOTO), *calls]
    everything = clean_environment(FAL_KEY="local:local", **environment)
    done = subprocess.run(command, env=everything, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"version": version, "calls": dict.fromkeys(calls, "ok")}


def _ca(server: Server) -> str:
    return str(server.data_dir / "tls" / "ca.pem")


@pytest.mark.timeout(120)  # lines that never come
def test_with_nothing_but_the_printed_environment(tls_server: Server) -> None:
    """FAL_RUN_HOST, FAL_QUEUE_RUN_HOST and SSL_CERT_FILE, exactly as `serve --tls-self-signed` prints them."""
    assert tls_server.process.stdout is not None
    printed: dict[str, str] = {}
    for line in tls_server.process.stdout:
        if line.startswith("export "):
            name, value = line.removeprefix("export ").strip().split("=", 1)
            printed[name] = value
        if "NODE_EXTRA_CA_CERTS" in printed:  # the last one
            break
    assert printed["SSL_CERT_FILE"] == printed["NODE_EXTRA_CA_CERTS"] == _ca(tls_server)
    _drive("env", "-", CALLS, **printed)


def test_with_a_hosts_entry(tls_server: Server) -> None:
    """fal's names lead to this server: then even uploads need no configuration but the authority."""
    _drive("hosts", tls_server.url, [*CALLS, *UPLOADS], SSL_CERT_FILE=_ca(tls_server))


def test_with_the_helper_over_plain_http(server: Server) -> None:
    _drive("http", server.url, [*CALLS, *UPLOADS, "start_timeout"])


@pytest.mark.parametrize("mode", ["http", "hosts"])
def test_an_old_client(mode: str, server: Server, tls_server: Server, old_fal_client: Path) -> None:
    url = server.url if mode == "http" else tls_server.url
    old = {"PYTHONPATH": str(old_fal_client), "SSL_CERT_FILE": _ca(tls_server)}
    _drive(mode, url, [*CALLS, *UPLOADS], version=OLD_FAL_CLIENT, **old)


def test_an_old_client_by_environment_needs_one_name_for_both_hosts(tls_server: Server, old_fal_client: Path) -> None:
    """0.10 knows FAL_RUN_HOST only and puts `queue.` before it: the sync run works, the queue needs that name too."""
    port = tls_server.url.rpartition(":")[2]
    environment = {"FAL_RUN_HOST": f"localhost:{port}", "SSL_CERT_FILE": _ca(tls_server)}
    _drive("env", "-", ["run"], version=OLD_FAL_CLIENT, PYTHONPATH=str(old_fal_client), **environment)

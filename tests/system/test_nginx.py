"""The reverse proxy that is shipped, as Debian's nginx runs it, in front of a real server."""

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from server.bench.reserved_port import reserved_port
from server.parent_death import tied
from server.serve.tls import self_signed
from tests.harness.client_programs import missing
from tests.harness.live_server import APP, FAST, ROOT, Server, example, launch, until
from tests.harness.pictures import png
from tests.harness.raw_http import read_all
from tests.harness.uploads import INITIATE


@dataclass(frozen=True)
class Proxy:
    """A running nginx, and the server behind it."""

    port: int
    trust: ssl.SSLContext
    http: httpx.Client
    server: Server
    folder: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return self.trust.wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        missing("needs nginx: apt-get install nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    server = launch(folder / "data", ready=False, **FAST, api__trusted_proxies='["127.0.0.1"]')
    assert server.process.stdout is not None
    key = server.process.stdout.readline().split()[-1]
    reserved = reserved_port()
    port = int(reserved.getsockname()[1])
    files = self_signed(folder / "tls", ["localhost"], datetime.datetime.now(datetime.UTC))
    (folder / "nginx.conf").write_text(
        configuration(
            {
                "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
                "/etc/nginx/videos.example.pem": str(files.certificate),
                "/etc/nginx/videos.example.key": str(files.key),
                "127.0.0.1:8000": str(httpx.URL(server.url).netloc.decode()),
                "/var/log/nginx": str(folder),
                "client_header_timeout 10s": "client_header_timeout 1s",
                "limit_conn per_ip 100": "limit_conn per_ip 10",
                "\nhttp {": f"\npid {folder}/pid;\nhttp {{\n{temporary_paths(folder)}",
            }
        )
    )
    options = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")  # the folder is private
    command = tied([nginx, *options, "-g", directives], number=signal.SIGTERM)  # which ends its workers too
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    trust = ssl.create_default_context(cafile=files.authority)
    try:
        headers = {"Authorization": f"Key {key}"}
        url = f"https://localhost:{port}"
        with httpx.Client(base_url=url, verify=trust, trust_env=False, timeout=60, headers=headers) as client:
            until(lambda: running.poll() is not None or _listens(port))
            assert running.poll() is None, running.communicate()[1]
            until(lambda: client.get("/health/ready").is_success)
            yield Proxy(port, trust, client, server, folder)
    finally:
        running.terminate()
        running.communicate(timeout=60)
        reserved.close()
        server.stop()


def configuration(changes: dict[str, str]) -> str:
    text = (ROOT / "docs" / "nginx.conf").read_text()
    for shipped, here in changes.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    return text


def temporary_paths(folder: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(f"    {kind}_temp_path {folder / kind};" for kind in kinds)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_urls_are_the_proxys_whatever_the_client_says(proxy: Proxy) -> None:
    forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp", "X-Forwarded-Prefix": "/evil",
              "Forwarded": "host=evil.example"}  # fmt: skip
    body = proxy.http.post(f"/queue/{APP}", json=example(prompt=""), headers=forged).json()
    for name in ("status_url", "response_url", "cancel_url"):
        assert body[name].startswith(f"{proxy.url}/queue/{APP}/requests/")
    assert proxy.http.get(body["status_url"]).json()["status"] == "COMPLETED"


def test_without_a_key_every_call_is_refused(proxy: Proxy) -> None:
    answer = httpx.post(f"{proxy.url}/queue/{APP}", json=example(), verify=proxy.trust, trust_env=False, timeout=60)
    assert answer.status_code == 401


def test_a_video_from_upload_to_download(proxy: Proxy) -> None:
    urls = proxy.http.post(INITIATE, json={}).json()
    assert proxy.http.put(urls["upload_url"], content=png()).status_code == 200
    request_id = proxy.http.post(f"/queue/{APP}", json=example(image_url=urls["file_url"])).json()["request_id"]
    until(lambda: proxy.http.get(f"/queue/{APP}/requests/{request_id}/status").json()["status"] == "COMPLETED")
    video = proxy.http.get(f"/queue/{APP}/requests/{request_id}").json()["video"]
    whole = proxy.http.get(video["url"])
    assert len(whole.content) == video["file_size"]
    part = proxy.http.get(video["url"], headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    logged = "".join((proxy.folder / name).read_text() for name in ("access.log", "error.log"))
    assert "/cdn/upload/" in logged
    assert "token=" not in logged
    assert urls["upload_url"].partition("token=")[2] not in logged


def test_events_come_when_they_happen(proxy: Proxy) -> None:
    request_id = proxy.http.post(f"/queue/{APP}", json=example(prompt="WORKS_SLOWLY")).json()["request_id"]
    place = f"/queue/{APP}/requests/{request_id}"
    statuses = []
    with proxy.http.stream("GET", f"{place}/status/stream?logs=1") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                statuses.append(json.loads(line[6:])["status"])
                if len(statuses) == 3:  # the request is far from its end: nothing was held back
                    assert proxy.http.put(f"{place}/cancel").status_code == 202
    assert statuses[-1] == "COMPLETED"


def test_a_client_with_slow_headers_is_cut_off(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        started = time.monotonic()
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n")
        answer = read_all(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 30


def test_limits_answer_in_json(proxy: Proxy) -> None:
    large = proxy.http.post(f"/queue/{APP}", content=b"x" * (30 * 2**20 + 1))
    assert (large.status_code, large.json()["error_type"]) == (413, "bad_request")
    refused: list[httpx.Response] = []

    def crowded() -> bool:
        with contextlib.ExitStack() as held:
            for _ in range(12):  # a connection counts from its first request on, and while that is not whole
                connection = held.enter_context(contextlib.closing(proxy.connect()))
                connection.sendall(b"POST /health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
            refused.append(proxy.http.get("/health/live"))
        return refused[-1].status_code == 429

    until(crowded)
    assert (refused[-1].json()["error_type"], refused[-1].headers["retry-after"]) == ("too_many_requests", "1")
    until(lambda: proxy.http.get("/health/live").status_code == 200)

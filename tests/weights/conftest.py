"""Tiny checkpoints made by the reference (tests/golden), as the tests of this folder want them."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.harness.tiny_model import DIT_CONFIG, GOLDEN, dit_weights, write_original
from weights.convert import convert


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", name="dit_weights")
def _dit_weights() -> dict[str, Tensor]:
    """The tiny DiT under its original names."""
    return dit_weights()


@pytest.fixture(scope="session")
def dit_config() -> dict[str, Any]:
    """The tiny DiT's sizes under diffusers' names."""
    return dict(DIT_CONFIG)


@pytest.fixture
def original(tmp_path: Path, dit_weights: dict[str, Tensor], dit_config: dict[str, Any]) -> Path:
    """A complete tiny model in the original layout, bf16-variant file names, fp32 values."""
    return write_original(tmp_path / "originals", dit_weights, dit_config)


@pytest.fixture(scope="session")
def converted_once(
    tmp_path_factory: pytest.TempPathFactory, dit_weights: dict[str, Tensor], dit_config: dict[str, Any]
) -> Path:
    """`original`, converted; for copying, not for changing."""
    folder = tmp_path_factory.mktemp("once")
    return convert(write_original(folder / "originals", dit_weights, dit_config), folder / "out").target


@pytest.fixture
def fp8_original(original: Path, dit_weights: dict[str, Tensor]) -> Path:
    """`original` with the fp8 variant beside bf16: the reference's fp8 weights and scales."""
    given = load_file(GOLDEN / "fp8_io.safetensors")
    weights = {key: value.bfloat16() for key, value in dit_weights.items()}
    for key, value in given.items():
        if key.startswith("w8."):
            weights[key.removeprefix("w8.")] = value.view(torch.float8_e4m3fn)
    scales = {key.removeprefix("map."): value for key, value in given.items() if key.startswith("map.")}
    folder = original / "models/hunyuancustom_720P"
    torch.save({"module": weights}, folder / "mp_rank_00_model_states_fp8.pt")
    torch.save({"module": scales}, folder / "mp_rank_00_model_states_fp8_map.pt")
    return original


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the tensors made by the reference."""
    return GOLDEN


class FakeHub:
    """What `huggingface_hub` needs of a hub, on 127.0.0.1: a listing with sizes and hashes, and files with ranges.

    `requests` records (method, path, Range header); `cut` drops the connection once after so many bytes of a file.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.token: str | None = None
        self.cut: int | None = None
        self.damaged = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def publish(self, repository: str, folder: Path, *, commit: str = "a" * 40) -> None:
        """Serve every file below `folder`, at `main` and at `commit`."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[repository] = files
        self.commits[repository] = commit

    def fetched(self) -> list[str]:
        """Names of the files that were asked for, in order."""
        return [path.rpartition("/")[2] for method, path, _ in self.requests if "/resolve/" in path and method == "GET"]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append((request.command, path, request.headers.get("Range")))
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(request, 401, b"{}")
            return
        for name, files in self.repositories.items():
            if path.startswith(f"/api/models/{name}"):
                revision = path.rpartition("/revision/")[2] if "/revision/" in path else "main"
                self._listing(request, name, files, revision)
                return
            if path.startswith(f"/{name}/resolve/{self.commits[name]}/"):
                self._file(request, files[path.removeprefix(f"/{name}/resolve/{self.commits[name]}/")])
                return
        self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _listing(self, request: BaseHTTPRequestHandler, name: str, files: dict[str, bytes], revision: str) -> None:
        if revision not in ("main", self.commits[name]):
            self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for path, content in files.items():
            git = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git}
            if path.endswith((".pt", ".bin", ".safetensors")):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        body = {"id": name, "sha": self.commits[name], "siblings": siblings, "tags": [], "private": False}
        self._send(request, 200, json.dumps(body).encode())

    def _file(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        if self.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"Accept-Ranges": "bytes", "ETag": '"tag"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(request, 206 if start else 200, content[start:], headers)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "HEAD":
            return
        if self.cut is not None and len(body) > self.cut:
            body, self.cut = body[: self.cut], None
            request.close_connection = True
        request.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that `huggingface_hub` of this process takes for the real one."""
    from huggingface_hub import constants, file_download

    fake = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield fake
    fake.close()


@pytest.fixture
def good(converted_once: Path, tmp_path: Path) -> Path:
    """An earlier, good conversion."""
    return shutil.copytree(converted_once, tmp_path / "good")

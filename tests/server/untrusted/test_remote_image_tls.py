"""https origins: the connection goes to the address that was checked, the certificate must be the name's."""

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpcore
import httpx
import pytest

from server.errors import FileDownloadError
from server.serve.tls import self_signed
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.pinned_connections import PinnedBackend
from server.untrusted.remote_image import ImageFetcher
from tests.harness.outbound import LIMITS, OK, PUBLIC


@dataclass
class TlsOrigin:
    """An https server on loopback whose certificate names `woman.example` only."""

    port: int
    authority: Path
    asked_for: list[str | None] = field(default_factory=list)

    def connect(self, address: str, port: int, timeout: float) -> httpcore.NetworkStream:
        assert (address, port) == (PUBLIC, 443), "the connection goes to the address that was checked"
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.port, timeout=timeout)


@pytest.fixture(scope="module")
def tls_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsOrigin]:
    files = self_signed(tmp_path_factory.mktemp("tls"), ["woman.example"], datetime.datetime.now(datetime.UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = TlsOrigin(listener.getsockname()[1], files.authority)
        context.sni_callback = lambda _socket, name, _context: origin.asked_for.append(name)

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(OK)

        threading.Thread(target=serve, daemon=True).start()
        yield origin
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("name", "fits"), [("woman.example", True), ("other.example", False)])
def test_the_certificate_must_be_the_names_though_the_address_is_pinned(
    tls_origin: TlsOrigin, monkeypatch: pytest.MonkeyPatch, name: str, fits: bool
) -> None:
    context = ssl.create_default_context(cafile=tls_origin.authority)
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: context)
    assert _fetch_over_tls(tls_origin, name) is fits
    assert tls_origin.asked_for[-1] == name


def test_an_unknown_authority_is_not_trusted(tls_origin: TlsOrigin) -> None:
    assert not _fetch_over_tls(tls_origin, "woman.example")


def _fetch_over_tls(origin: TlsOrigin, name: str) -> bool:
    def backend(deadline: float) -> httpcore.NetworkBackend:
        return PinnedBackend(
            OutboundPolicy(),
            connect_timeout_s=5,
            deadline=deadline,
            resolve=lambda *_: [PUBLIC],
            connect=origin.connect,
        )

    try:
        return ImageFetcher(LIMITS, OutboundPolicy(), backend).fetch(f"https://{name}/x") == b"image"
    except FileDownloadError:
        return False

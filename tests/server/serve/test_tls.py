"""The certificate of `--tls-self-signed`: whom it names, how long it lasts, and who can read its key."""

import datetime
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from server.bench.deployment import Deployment
from server.serve.tls import NAMES, TlsFiles, environment_lines, self_signed
from tests.harness.live_server import Server

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def _names(files: TlsFiles) -> set[str]:
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName)) | {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}


def test_it_names_this_machine_and_fals_hosts(tmp_path: Path) -> None:
    files = self_signed(tmp_path / "tls", ["videos.example", "192.0.2.7"], NOW)
    assert _names(files) == {*NAMES, "videos.example", "192.0.2.7"}
    assert {"localhost", "fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media", "127.0.0.1"} <= set(NAMES)


def test_the_authority_signs_it_and_can_sign_nothing_else(tmp_path: Path) -> None:
    files = self_signed(tmp_path / "tls", [], NOW)
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    left = {path.name for path in (tmp_path / "tls").iterdir()}
    assert left == {"ca.pem", "server.pem", "server.key"}, "the authority's key exists nowhere"
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_it_stays_until_it_must_change(tmp_path: Path) -> None:
    files = self_signed(tmp_path, [], NOW)
    first = files.authority.read_bytes()
    assert self_signed(tmp_path, [], NOW + 700 * DAY) == files
    assert files.authority.read_bytes() == first
    self_signed(tmp_path, [], NOW + 790 * DAY)
    renewed = files.authority.read_bytes()
    assert renewed != first
    self_signed(tmp_path, ["new.example"], NOW + 791 * DAY)
    assert files.authority.read_bytes() != renewed
    files.certificate.write_text("damaged")
    self_signed(tmp_path, [], NOW)
    assert _names(files) == set(NAMES)


@pytest.mark.parametrize("written", range(3))
def test_a_renewal_that_was_interrupted_is_made_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    self_signed(tmp_path, [], NOW)
    left, replace = iter(range(written)), Path.replace

    def replace_until_the_end(part: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return replace(part, target)

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(Path, "replace", replace_until_the_end)
        self_signed(tmp_path, [], NOW + 790 * DAY)
    files = self_signed(tmp_path, [], NOW + 790 * DAY)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files.authority.read_bytes()))
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    assert key.public_key() == certificate.public_key()


def test_the_printed_lines_point_clients_here(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key")
    lines = environment_lines(files, "https://127.0.0.1:8443").splitlines()
    assert "export FAL_RUN_HOST=127.0.0.1:8443/run" in lines
    assert "export FAL_QUEUE_RUN_HOST=127.0.0.1:8443/queue" in lines
    assert f"export SSL_CERT_FILE={files.authority}" in lines
    assert f"export NODE_EXTRA_CA_CERTS={files.authority}" in lines
    assert "localhost:8443" in environment_lines(files, "https://0.0.0.0:8443")


def test_a_certificate_of_ones_own(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    # Where `LiveServer` looks for its issuer.
    files = self_signed(tmp_path / "tls", [], datetime.datetime.now(datetime.UTC))
    server = start_server(options=["--tls-cert", str(files.certificate), "--tls-key", str(files.key)])
    assert server.url.startswith("https://")
    answer = server.finish(server.submit())
    assert answer.json()["video"]["url"].startswith(server.url)
    assert server.http.get(answer.json()["video"]["url"]).status_code == 200


@pytest.mark.parametrize("missing", ["--tls-cert", "--tls-key"])
def test_a_missing_file_stops_the_start(tmp_path: Path, missing: str) -> None:
    done = Deployment(tmp_path, {}).command("serve", "--port", "0", missing, str(tmp_path / "no.pem"))
    assert done.returncode == 2
    assert missing.removeprefix("--").replace("-", "_") in done.stderr

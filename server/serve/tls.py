"""A certificate authority of one's own for `serve --tls-self-signed`: fal's Python client speaks https only.

The authority signs one certificate and its key is thrown away, so that trusting it means trusting this server and
nothing else, ever. Both are renewed together under the same paths: the environment lines stay true.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# fal's own host names too: with a hosts entry that points them here, every client works without configuration.
NAMES: Final = (
    "localhost",
    "queue.localhost",
    "fal.run",
    "queue.fal.run",
    "rest.fal.ai",
    "rest.alpha.fal.ai",
    "v3.fal.media",
    "ws.fal.run",
    "127.0.0.1",
    "::1",
)
_LIFE: Final = datetime.timedelta(days=800)  # Apple's limit for server certificates is 825
_RENEW_BEFORE: Final = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: what clients trust, and what the server presents."""

    authority: Path
    certificate: Path
    key: Path


def self_signed(directory: Path, names: Sequence[str], now: datetime.datetime) -> TlsFiles:
    """The files in `directory`, made anew if they are missing, about to expire, or lack one of `names`."""
    files = TlsFiles(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    wanted = sorted({*NAMES, *names})
    if not _is_good(files, wanted, now):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _create(files, wanted, now)
    return files


def environment_lines(files: TlsFiles, url: str) -> str:
    """What a user puts into the shell of a Python or node client, for a server at `url`."""
    # A wildcard address is no name for a client; another machine puts the server's own name here.
    address = url.removeprefix("https://").replace("0.0.0.0", "localhost").replace("[::]", "localhost")  # noqa: S104
    return "\n".join(
        [
            "# Python (fal-client 0.11 and later); it also wants FAL_KEY: a key, or any text for a server without keys",
            f"export FAL_RUN_HOST={address}/run",
            f"export FAL_QUEUE_RUN_HOST={address}/queue",
            f"export SSL_CERT_FILE={files.authority}",
            "# node",
            f"export NODE_EXTRA_CA_CERTS={files.authority}",
        ]
    )


def _is_good(files: TlsFiles, wanted: Sequence[str], now: datetime.datetime) -> bool:
    if not (files.authority.is_file() and files.certificate.is_file() and files.key.is_file()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return set(_general_names(wanted)) <= set(names) and certificate.not_valid_after_utc - now > _RENEW_BEFORE


def _create(files: TlsFiles, names: Sequence[str], now: datetime.datetime) -> None:
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hunyuan-custom-server, this machine only")])
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hunyuan-custom-server")])
    authority = (
        _dated(now, authority_name, authority_key.public_key())
        .issuer_name(authority_name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _dated(now, server_name, server_key.public_key())
        .issuer_name(authority_name)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(files.key, server_key.private_bytes(pem, *plain), mode=0o600)
    _write(files.authority, authority.public_bytes(pem), mode=0o644)
    # The last one, since it is looked at: if this is interrupted before, all are made again at the next start.
    _write(files.certificate, certificate.public_bytes(pem), mode=0o644)


def _dated(
    now: datetime.datetime, subject: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a client's clock may be behind
        .not_valid_after(now + _LIFE)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Atomically, and a key is never readable by others, not even for a moment."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    part.replace(path)

"""The pages for browsers and the files they load: read and compressed once, at start.

They hold no data and need no key; what they show comes from the API. Their addresses stay the same from one version to
the next, so a browser asks each time and is told by the ETag that nothing changed.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.datastructures import Headers

from server.fal.example import PHOTO
from server.settings import Settings

_SERVER: Final = Path(__file__).parent.parent
_GZIP: Final = re.compile(r"(?:^|[,\s])(?:x-)?gzip\s*(?:,|$|;\s*q\s*=\s*(?!0(?:\.0*)?\s*(?:,|$)))", re.IGNORECASE)
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file in both of its forms."""

    content: bytes
    compressed: bytes
    tag: str
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, headers: Mapping[str, str]) -> Self:
        """Compress a file of this package."""
        content = path.read_bytes()
        tag = hashlib.sha256(content).hexdigest()[:20]
        return cls(content, gzip.compress(content, 9, mtime=0), tag, _TYPES[path.suffix], headers)

    def answer(self, asked: Headers) -> Response:
        """200 in the form that the browser takes, or 304 if it has the file."""
        takes_gzip = _GZIP.search(asked.get("accept-encoding", "")) is not None
        zipped = takes_gzip and len(self.compressed) < len(self.content)
        tag = f'"{self.tag}-gz"' if zipped else f'"{self.tag}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **self.headers}
        known = {name.strip().removeprefix("W/") for name in asked.get("if-none-match", "").split(",")}
        if known & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(self.compressed if zipped else self.content, media_type=self.media_type, headers=headers)


@dataclass(frozen=True, slots=True)
class PageFiles:
    """All of them, by name; no other name is ever looked for on the disk."""

    pages: Mapping[str, PageFile]
    static: Mapping[str, PageFile]

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Read them."""
        policy = {"Content-Security-Policy": content_security_policy(settings)}
        found = sorted((_SERVER / "playground").iterdir())
        helpers = sorted(path for path in (_SERVER / "clients").iterdir() if path.suffix in _TYPES)
        static = {path.name: PageFile.read(path, {}) for path in found if path.suffix in _TYPES.keys() - {".html"}}
        static |= {path.name: PageFile.read(path, {"Content-Disposition": "attachment"}) for path in helpers}
        static["example.jpg"] = PageFile.read(PHOTO, {})
        return cls({path.stem: PageFile.read(path, policy) for path in found if path.suffix == ".html"}, static)


def content_security_policy(settings: Settings) -> str:
    """What a page may load: its own files, and media that this server redirects to its object store."""
    store = _store_origin(settings)
    media = f"'self' blob: {store}".strip()
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {media} data:; media-src {media}; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


def _store_origin(settings: Settings) -> str:
    """Where links to the bucket lead, "" without one."""
    if not settings.storage_url:
        return ""
    store = settings.object_storage
    bucket = urlsplit(settings.storage_url).netloc
    links = store.public_endpoint or store.endpoint or f"https://{bucket}.s3.{store.region}.amazonaws.com"
    parts = urlsplit(links)
    return f"{parts.scheme}://{parts.netloc}"

"""URLs of this server's own files, which need no network: uploads and finished videos."""

import re
from typing import Final

import httpx

from server.storage.files import Storage

UPLOADS_PATH: Final = "/cdn/files/"
# Only the end of a path is known: what comes before it depends on the proxy in front.
_OURS: Final = re.compile(r"/(cdn/files|files)/([^/]+/[^/]+/[^/]+)$")
_UPLOADS: Final = "uploads"
_AREAS: Final = {"cdn/files": _UPLOADS, "files": "files"}


def upload_key(url: str) -> str | None:
    """The storage key behind the URL of an upload, be it there or not; None for another URL."""
    key = _named_key(url)
    return key if key is not None and key.startswith(f"{_UPLOADS}/") else None


def stored_key(url: str, storage: Storage) -> str | None:
    """The storage key behind a URL of ours, None for another URL or a file that is gone.

    Host and prefix do not matter: they differ with the proxy in front, and who has the 192 random bits of a path may
    read the file anyway.
    """
    key = _named_key(url)
    return key if key is not None and storage.size(key) is not None else None


def _named_key(url: str) -> str | None:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None
    found = _OURS.search(parsed.path) if parsed.scheme in {"http", "https"} else None
    return None if found is None else f"{_AREAS[found[1]]}/{found[2]}"

"""URLs of this server's own files, which need no network: uploads and finished videos."""

import re
from typing import Final

import httpx

from server.storage.files import Storage

UPLOADS_PATH: Final = "/cdn/files/"
# Only the end of a path is known: what comes before it depends on the proxy in front.
_OURS: Final = re.compile(r"/(cdn/files|files)/([^/]+/[^/]+/[^/]+)$")
_AREAS: Final = {"cdn/files": "uploads", "files": "files"}


def stored_key(url: str, storage: Storage) -> str | None:
    """The storage key behind a URL of ours, None for another URL or a file that is gone.

    Host and prefix do not matter: they differ with the proxy in front, and who has the 192 random bits of a path may
    read the file anyway.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None
    found = _OURS.search(parsed.path) if parsed.scheme in {"http", "https"} else None
    if found is None:
        return None
    key = f"{_AREAS[found[1]]}/{found[2]}"
    return key if storage.size(key) is not None else None

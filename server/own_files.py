"""URLs of this server's own files, which need no network: uploads and finished videos."""

import httpx

from server.storage import Storage

UPLOADS_PATH = "/cdn/files/"
_AREAS = {UPLOADS_PATH: "uploads/", "/files/": "files/"}


def stored_key(url: str, storage: Storage) -> str | None:
    """The storage key behind a URL of ours, None for a foreign URL or a file that is gone.

    The host is not looked at: it differs with the door and the proxy in front, and whoever knows the 192 random bits
    of a path may read the file anyway.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None
    if parsed.scheme not in {"http", "https"}:
        return None
    for prefix, area in _AREAS.items():
        if parsed.path.startswith(prefix):
            key = area + parsed.path.removeprefix(prefix)
            return key if storage.size(key) is not None else None
    return None

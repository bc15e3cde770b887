"""The port of a file store: files of jobs under keys, identity images in, videos out.

A store is a directory of this machine (`storage/local.py`) or, for many machines, a bucket (`storage/s3.py`). Keys are
made here, never from user input; who has one may read the file, since its token has 192 random bits.
"""

import logging
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from server.errors import StorageAway
from server.storage.scratch import Scratch

logger = logging.getLogger(__name__)

_KEY = re.compile(r"(inputs|files|uploads)/[A-Za-z0-9_-]{2}/([A-Za-z0-9_-]{32})/[A-Za-z0-9._-]{1,80}")


class Storage(ABC):
    """Files under keys. `scratch` is where they are made before they are put.

    Every method may raise `StorageAway`.
    """

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch

    def check(self) -> None:  # noqa: B027 - a directory has been made by now, or the start has failed
        """Called once, at the start.

        Raises:
            SettingsError: nothing can be stored with these settings, now or later.
        """

    @staticmethod
    def new_key(area: str, name: str) -> str:
        """A fresh key like `files/AB/<token>/<name>`; area is `inputs`, `uploads` or `files`."""
        token = secrets.token_urlsafe(24)
        return f"{area}/{token[:2]}/{token}/{name}"

    @abstractmethod
    def put(self, source: Path, key: str) -> int:
        """Move a finished file to its key, durably; returns its size in bytes. The source is gone afterwards."""

    def put_bytes(self, content: bytes, key: str) -> None:
        """Store bytes under a key."""
        with self.scratch.file("put.part") as part:
            part.write_bytes(content)
            self.put(part, key)

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of a stored file, None for an unknown or malformed key."""

    @abstractmethod
    def local(self, key: str) -> AbstractContextManager[Path | None]:
        """A path to read a stored file from, for the time of the block; None for an unknown or malformed key."""

    @abstractmethod
    def download(self, key: str, method: str) -> Path | str | None:
        """What answers a GET or HEAD: a file of this machine, or a URL of the store's own that is good for a while.

        None for an unknown or malformed key.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file; nothing happens if it is not there."""

    def discard(self, key: str) -> bool:
        """Delete a file if that is possible now; a failure is logged, so that it does not keep others from deletion."""
        try:
            self.delete(key)
        except (OSError, StorageAway):
            logger.exception("%s could not be removed", key)
            return False
        return True

    @abstractmethod
    def stored(self, area: str, *, older_than_s: float) -> Iterator[str]:
        """The keys of an area that have been there for so long, in no order."""


def is_key(key: str) -> bool:
    """Whether `new_key` could have made it."""
    return _KEY.fullmatch(key) is not None


def checked_key(key: str) -> str:
    """The key, as part of a path or of an object's name.

    Raises:
        ValueError: it is none.
    """
    if not is_key(key):
        raise ValueError(f"not a storage key: {key!r}")
    return key

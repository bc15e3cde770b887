"""Files of jobs: identity images in, videos out. Keys are made here, never from user input.

A store is a directory of this machine or, for many machines, a bucket (`storage/s3.py`). Either way a file in the
making is in a local scratch directory.
"""

import logging
import os
import re
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from server.errors import StorageAway
from server.settings import Settings

logger = logging.getLogger(__name__)

_CHECKPOINT = ".checkpoint"
_KEY = re.compile(r"(inputs|files|uploads)/[A-Za-z0-9_-]{2}/([A-Za-z0-9_-]{32})/[A-Za-z0-9._-]{1,80}")


class Storage(ABC):
    """Where files are. Whoever knows a key may read the file: its token has 192 random bits.

    Every method but those of the scratch directory may raise `StorageAway`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._scratch = data_dir / "tmp"
        self._scratch.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:  # noqa: B027 - a directory has been made by now, or the start has failed
        """Asked once, at the start.

        Raises:
            SettingsError: nothing can be stored with these settings, however long one waits.
        """

    @staticmethod
    def new_key(area: str, name: str) -> str:
        """A fresh key like `files/AB/<token>/<name>`; area is `inputs`, `uploads` or `files`."""
        token = secrets.token_urlsafe(24)
        return f"{area}/{token[:2]}/{token}/{name}"

    @abstractmethod
    def put(self, source: Path, key: str) -> int:
        """Move a finished file to its key, durably; returns its size in bytes. The source is gone afterwards."""

    def discard(self, key: str) -> bool:
        """Delete a file if that is possible now; one that is not must not keep others from it."""
        try:
            self.delete(key)
        except (OSError, StorageAway):
            logger.exception("%s could not be removed", key)
            return False
        return True

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of a stored file, None for an unknown or malformed key."""

    @abstractmethod
    def local(self, key: str) -> AbstractContextManager[Path | None]:
        """A path to read a stored file from, for the time of the block; None for an unknown or malformed key."""

    @abstractmethod
    def link(self, key: str, method: str) -> str | None:
        """A URL of the store's own to GET or HEAD a file, good for a few minutes; None: it is served from here."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file; nothing happens if it is not there."""

    @abstractmethod
    def stored(self, area: str, *, older_than_s: float) -> Iterator[str]:
        """The keys of an area that have been there for so long, in no order."""

    def put_bytes(self, content: bytes, key: str) -> None:
        """Store bytes under a key."""
        with self.scratch("put.part") as part:
            part.write_bytes(content)
            self.put(part, key)

    def free_bytes(self) -> int:
        """Space left where files are made."""
        return shutil.disk_usage(self._scratch).free

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A local path for a file in the making; removed if it is still there."""
        path = self._scratch / f"{secrets.token_hex(8)}-{name}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def rendering(self, name: str) -> Path:
        """Where a generator writes its video; `publish` moves it to a key."""
        return self._scratch / name

    def checkpoint(self, request_id: str) -> Path:
        """Where a generator keeps how far a request is."""
        return self._scratch / f"{request_id}{_CHECKPOINT}"

    def forget_checkpoint(self, request_id: str) -> None:
        """Remove it, and what a generator that was killed while it wrote has left."""
        for path in self._scratch.glob(f"{request_id}{_CHECKPOINT}*"):
            path.unlink(missing_ok=True)

    def checkpoints(self) -> list[str]:
        """The requests that have one on this machine."""
        return [path.name.removesuffix(_CHECKPOINT) for path in self._scratch.glob(f"*{_CHECKPOINT}")]

    def sweep_scratch(self, *, older_than_s: float) -> int:
        """Remove what killed processes left in the scratch directory; returns how many files that were."""
        return _remove(self._scratch.iterdir(), older_than_s)

    def sweep_parts(self, *, older_than_s: float) -> int:
        """Remove what killed processes left half written, wherever in the data directory."""
        return _remove((path for path in _files(self._data_dir) if path.suffix == ".part"), older_than_s)


class LocalStorage(Storage):
    """A directory."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._root = root

    def put(self, source: Path, key: str) -> int:
        """Move a finished file to its key, durably; returns its size in bytes. The source is gone afterwards."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as handle:
            os.fsync(handle.fileno())
        try:
            source.replace(target)
        except FileNotFoundError:  # somebody else has moved it
            raise
        except OSError:  # another file system: copy beside the target, then rename
            part = target.with_suffix(".part")
            try:
                shutil.copyfile(source, part)
                with part.open("rb") as handle:
                    os.fsync(handle.fileno())
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            source.unlink()
        for directory in target.parents:  # any of them may be new
            _fsync_directory(directory)
            if directory == self._root:
                break
        return target.stat().st_size

    def find(self, key: str) -> Path | None:
        """The local path of a stored file, or None for an unknown or malformed key."""
        if not is_key(key):
            return None
        path = self._path(key)
        return path if path.is_file() and not path.is_symlink() else None

    def size(self, key: str) -> int | None:
        """Bytes of a stored file."""
        path = self.find(key)
        return None if path is None else path.stat().st_size

    @contextmanager
    def local(self, key: str) -> Iterator[Path | None]:
        """The file itself."""
        yield self.find(key)

    def link(self, key: str, method: str) -> str | None:  # noqa: ARG002
        """None: these files are served from here."""
        return None

    def delete(self, key: str) -> None:
        """Remove a file and its token's directory; nothing happens if it is not there."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: half of a copy is beside it, see `sweep_parts`
            path.parent.rmdir()

    def stored(self, area: str, *, older_than_s: float) -> Iterator[str]:
        """From the directory."""
        limit = time.time() - older_than_s
        for path in _files(self._root / area):
            key = path.relative_to(self._root).as_posix()
            with suppress(FileNotFoundError):  # deleted meanwhile
                if is_key(key) and path.stat().st_mtime < limit:
                    yield key

    def _path(self, key: str) -> Path:
        if not is_key(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self._root / key


def open_storage(settings: Settings) -> Storage:
    """The store of this deployment."""
    if not settings.storage_url:
        return LocalStorage(settings.data_dir)
    from server.storage.s3 import ObjectStorage

    return ObjectStorage(settings.storage_url, settings.object_storage, data_dir=settings.data_dir)


def is_key(key: str) -> bool:
    """Whether `new_key` could have made it."""
    return _KEY.fullmatch(key) is not None


def _files(root: Path) -> Iterator[Path]:
    """All files below; directories may come and go meanwhile, which `Path.rglob` does not bear."""
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)


def _remove(paths: Iterable[Path], older_than_s: float) -> int:
    limit, removed = time.time() - older_than_s, 0
    for path in paths:
        with suppress(FileNotFoundError):  # it was somebody's work, and is done
            if path.stat().st_mtime < limit:
                path.unlink()
                removed += 1
    return removed


def _fsync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

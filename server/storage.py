"""Files of jobs: identity images in, videos out. Keys are made here, never from user input."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KEY = re.compile(r"(inputs|files|uploads)/[A-Za-z0-9_-]{2}/([A-Za-z0-9_-]{32})/[A-Za-z0-9._-]{1,80}")


class LocalStorage:
    """A directory. Whoever knows a key may read the file: its token has 192 random bits."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "tmp").mkdir(parents=True, exist_ok=True)

    @staticmethod
    def new_key(area: str, name: str) -> str:
        """A fresh key like `files/AB/<token>/<name>`; area is `inputs`, `uploads` or `files`."""
        token = secrets.token_urlsafe(24)
        return f"{area}/{token[:2]}/{token}/{name}"

    def put(self, source: Path, key: str) -> int:
        """Move a finished file to its key, durably; returns its size in bytes. The source is gone afterwards."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as handle:
            os.fsync(handle.fileno())
        try:
            source.replace(target)
        except OSError:  # another file system: copy beside the target, then rename
            part = target.with_suffix(".part")
            shutil.copyfile(source, part)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            part.replace(target)
            source.unlink()
        _fsync_directory(target.parent)
        return target.stat().st_size

    def put_bytes(self, content: bytes, key: str) -> None:
        """Store bytes under a key."""
        with self.scratch("put.part") as part:
            part.write_bytes(content)
            self.put(part, key)

    def find(self, key: str) -> Path | None:
        """The local path of a stored file, or None for an unknown or malformed key."""
        if not _KEY.fullmatch(key):
            return None
        path = self._path(key)
        return path if path.is_file() and not path.is_symlink() else None

    def free_bytes(self) -> int:
        """Space left on the storage's file system."""
        return shutil.disk_usage(self._root).free

    def delete(self, key: str) -> None:
        """Remove a file and its token's directory; nothing happens if it is not there."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            path.parent.rmdir()

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A path on the storage's own file system for a file in the making; removed if it is still there."""
        path = self._root / "tmp" / f"{secrets.token_hex(8)}-{name}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def rendering(self, name: str) -> Path:
        """Where a generator writes its video; `publish` moves it to a key."""
        return self._root / "tmp" / name

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a storage key: {key!r}")
        return self._root / key


def _fsync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A file store in a directory of this machine."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.storage.files import Storage, checked_key, is_key
from server.storage.scratch import Scratch, files_below


class LocalStorage(Storage):
    """A directory, with the scratch directory in it: putting a file is a rename."""

    def __init__(self, root: Path) -> None:
        super().__init__(Scratch(root))
        self._root = root

    def put(self, source: Path, key: str) -> int:
        """Move a finished file to its key, durably; returns its size in bytes. The source is gone afterwards."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as handle:
            os.fsync(handle.fileno())
        try:
            source.replace(target)
        except FileNotFoundError:  # another process has moved it
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
        """The path of a stored file, or None for an unknown or malformed key."""
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

    def download(self, key: str, method: str) -> Path | None:  # noqa: ARG002
        """The file itself."""
        return self.find(key)

    def delete(self, key: str) -> None:
        """Remove a file and its token's directory; nothing happens if it is not there."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: half of a copy is beside it, see `Scratch.sweep_parts`
            path.parent.rmdir()

    def stored(self, area: str, *, older_than_s: float) -> Iterator[str]:
        """From the directory."""
        limit = time.time() - older_than_s
        for path in files_below(self._root / area):
            key = path.relative_to(self._root).as_posix()
            with suppress(FileNotFoundError):  # deleted meanwhile
                if is_key(key) and path.stat().st_mtime < limit:
                    yield key

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)


def _fsync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

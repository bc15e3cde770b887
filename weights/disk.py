"""A disk's refusals as one line; and whether it has room, before anything is written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from weights.errors import TargetError

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "read-only file system",
    errno.ENOTDIR: "something that is no folder is in the way",
    errno.EEXIST: "something is in the way",
    errno.ELOOP: "a link that leads to itself",
}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn `OSError` into a `TargetError` that names the file it is about, else `path`."""
    try:
        yield
    except OSError as error:
        raise refusal(error, path) from error


def refusal(error: OSError, path: Path) -> TargetError:
    """`error` in one line."""
    reason = REFUSALS.get(error.errno or 0, error.strerror or str(error))
    return TargetError(f"{error.filename or path}: cannot be written ({reason})")


def require_space(folder: Path, needed: int) -> None:
    """Raise `TargetError` unless the file system that holds `folder`, or will, has `needed` bytes free."""
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < needed:
        raise TargetError(f"{folder}: needs {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")


def same_disk(first: Path, second: Path) -> bool:
    """Whether both paths, which need not exist yet, are on one file system."""
    return existing_parent(first).stat().st_dev == existing_parent(second).stat().st_dev


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def drop_from_cache(path: Path) -> None:
    """Have the next read of a file come from the disk: before timing it, or counting what is read."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)

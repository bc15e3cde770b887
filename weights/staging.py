"""A folder appears whole or not at all: built under another name beside its place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from weights.errors import TargetError

MARKER = "conversion.json"
"""A folder holding this file was made here and may be replaced by a newer conversion."""


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes `target`'s place when the block ends without an exception.

    What a killed run left is removed first; an older conversion stays untouched until the last moment. Raises
    `TargetError` when `target` is something else, when another conversion runs, or when nothing can be written.
    """
    target = target.absolute()
    staging, retired = (target.with_name(f".{target.name}.{word}") for word in ("converting", "replaced"))
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f".{target.name}.lock")):
            _recover(target, retired)
            if target.exists() and not (target / MARKER).exists() and (not target.is_dir() or any(target.iterdir())):
                raise TargetError(f"{target}: exists and is not a conversion made here; choose another folder")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                yield staging
                _sync_folder(staging)
                if target.exists():
                    target.rename(retired)
                staging.rename(target)
                _sync_folder(target.parent)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
                _recover(target, retired)


def _recover(target: Path, retired: Path) -> None:
    """Killed between the two renames: the older conversion comes back. Afterwards: it goes."""
    if retired.exists():
        if target.exists():
            shutil.rmtree(retired)
        else:
            retired.rename(target)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.fstat(file.fileno()).st_nlink == 1  # not the file that a finished conversion has just removed
        except BlockingIOError:
            free = False
        if not free:
            raise TargetError(f"{path}: another conversion into this folder is running")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = {errno.ENOSPC: "the disk is full", errno.EROFS: "read-only file system"}.get(
            error.errno or 0, error.strerror or str(error)
        )
        raise TargetError(f"{error.filename or target}: cannot be written ({reason})") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder: Path, needed: int) -> None:
    """Raise `TargetError` unless the file system under `folder` (or its nearest parent) has `needed` bytes free."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise TargetError(f"{folder}: needs {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")

"""A folder appears whole or not at all: built beside the target under another name, then exchanged with it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from weights.disk import disk_errors, require_space
from weights.errors import TargetError

MARKER = "conversion.json"
"""A folder holding this file was made here and may be replaced by a newer conversion."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def check_target(target: Path) -> None:
    """Raise `TargetError` for a target that a conversion can never replace, before hours of download."""
    with disk_errors(target):
        with contextlib.suppress(FileNotFoundError):
            target.stat()  # refuses a link to itself, which `resolve` answers differently in every version of Python
        if target.resolve().is_mount():
            raise TargetError(f"{target}: a mount point, which cannot be exchanged; choose a folder inside it")
        if target.exists() and not (target / MARKER).exists() and (not target.is_dir() or any(target.iterdir())):
            raise TargetError(f"{target}: exists and is not a conversion made here; choose another folder")


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `target` when the block ends without an exception.

    What a killed run left is removed first; an older conversion stays untouched until the last moment. Raises
    `TargetError` when `target` is something else, when another conversion runs, or when nothing can be written.
    """
    check_target(target)
    target = target.resolve()  # of a link, the folder it leads to: that is the disk meant
    with _locked_and_clean(target):
        check_target(target)
        staging = _staging(target)
        with disk_errors(staging):
            staging.mkdir()
        try:
            yield staging
            with disk_errors(target):
                _install(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with disk_errors(target):
                _recover(target)


def remove_left_overs(target: Path) -> None:
    """Give back the disk space that a killed conversion into `target` holds. Raises `TargetError`."""
    with _locked_and_clean(target.resolve()):
        pass


def left_overs(target: Path) -> list[Path]:
    """What a killed conversion into `target` left, or a running one holds."""
    target = target.resolve()
    return [path for path in (_staging(target), _retired(target)) if path.exists()]


@contextlib.contextmanager
def scratch_folder(path: Path, needed: int) -> Iterator[Path]:
    """An empty folder with `needed` bytes free, gone at the end; what a killed run left in it goes first.

    Raises `TargetError` without the space, or while another run uses it.
    """
    with _locked(path.with_name(f"{path.name}.lock")):
        shutil.rmtree(path, ignore_errors=True)
        with disk_errors(path):
            require_space(path, needed)
            path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _locked_and_clean(target: Path) -> Iterator[None]:
    with _locked(target.with_name(f".{target.name}.lock")):
        with disk_errors(target):
            _recover(target)
        shutil.rmtree(_staging(target), ignore_errors=True)
        yield


def _install(staging: Path, target: Path) -> None:
    for folder in (*filter(Path.is_dir, staging.iterdir()), staging):
        _sync_folder(folder)
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        target.rename(_retired(target))
        staging.rename(target)
    _sync_folder(target.parent)


def _staging(target: Path) -> Path:
    return target.with_name(f".{target.name}.converting")


def _retired(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change names in one step; False where kernel, C library or file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


def _recover(target: Path) -> None:
    """Killed between two renames: the older conversion comes back. Afterwards: it goes."""
    retired = _retired(target)
    if retired.exists():
        if target.exists():
            shutil.rmtree(retired)
        else:
            retired.rename(target)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        with disk_errors(path):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = os.fstat(file.fileno()).st_nlink == 1  # not the file that a finished run has just removed
            except BlockingIOError:
                free = False
        if not free:
            raise TargetError(f"{path}: another run into this folder is going on")
        try:
            yield
        finally:
            with disk_errors(path):
                path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

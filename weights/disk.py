"""A disk's refusals as one line; and whether it has room, before anything is written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from weights.errors import TargetError

_READ_AHEAD = 64 * 2**20  # bytes asked for at once

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


def read_whole(path: Path) -> None:
    """Have the next read of a file come from the page cache, if it fits."""
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(_READ_AHEAD)
        while file.readinto(buffer):
            pass


def read_ahead(paths: Iterable[Path]) -> None:
    """Have the system read files into the page cache, unless they would fill it; what is there already costs nothing.

    Blocks while the disk is slower than the requests: meant for a thread.
    """
    sizes = {path: path.stat().st_size for path in paths}
    if sum(sizes.values()) > available_memory():
        return
    for path, size in sizes.items():
        handle = os.open(path, os.O_RDONLY)
        try:
            for offset in range(0, size, _READ_AHEAD):
                os.posix_fadvise(handle, offset, _READ_AHEAD, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(handle)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can have without swapping, by the machine and by its cgroups (version 2), which limit a
    container; the page cache counts as such. Linux; none elsewhere. `root`: of `proc` and `sys`.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    machine = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    return min([machine, *_left_in_cgroups(root)])


def _left_in_cgroups(root: Path) -> Iterator[int]:
    """Of the cgroup of this process and those around it, as far as they have a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for own in [mounted / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]:
        for group in (own, *own.parents):
            if group.is_relative_to(mounted) and (left := _left_in(group)) is not None:
                yield left


def _left_in(group: Path) -> int | None:
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        rows = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        counted = {name: int(nbytes) for name, nbytes in rows}
    except (OSError, ValueError):  # no limit is "max"
        return None
    return max(0, limit - used + counted.get("active_file", 0) + counted.get("inactive_file", 0))

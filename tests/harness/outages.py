"""Ways in which a database can be away, each a context: broken inside, whole again after it."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.bench.throwaway_postgres import Postgres
from tests.harness.client_programs import missing


@contextmanager
def postgres_stopped(postgres: Postgres) -> Iterator[None]:
    """Every connection is cut, and none can be made."""
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@contextmanager
def postgres_read_only(postgres: Postgres) -> Iterator[None]:
    """It answers, and refuses to write."""
    postgres.make_read_only(True)
    try:
        yield
    finally:
        postgres.make_read_only(False)


@contextmanager
def immutable(data_dir: Path) -> Iterator[None]:
    """The files of SQLite can be read and not written, not even by root or through an open handle.

    Its index in shared memory stays writable: the kernel would end a process that writes into a mapping of it.
    """
    files = [str(path) for path in data_dir.glob("hunyuan-custom.sqlite*") if not path.name.endswith("-shm")]
    made = subprocess.run(["chattr", "+i", *files], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"no right to make a file immutable: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is left, until one of the files in it is removed."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as everything, contextlib.suppress(OSError):
        while True:
            everything.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def mounted(disk: Path, size: str) -> Iterator[None]:
    """A file system of this size, where this user may mount one."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        missing("no right to mount a tmpfs")
    try:
        yield
    finally:
        # Lazy: a process that was killed may still have a file open.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def turning_read_only(disk: Path, image: Path) -> Iterator[Callable[[], None]]:
    """A file system of its own, and what makes it read-only under those that write to it, as an error of its disk does.

    It can be written again only after a new mount. Needs loop devices; without them the test is skipped.
    """
    disk.mkdir()
    image.touch()
    made = [["truncate", "-s", "32M", str(image)], ["mkfs.ext4", "-q", str(image)]]
    mounting = ["mount", "-o", "loop,errors=remount-ro", str(image), str(disk)]
    if any(subprocess.run(command, capture_output=True, check=False).returncode for command in [*made, mounting]):
        pytest.skip("no right to mount an image")
    try:
        found = subprocess.run(["losetup", "-j", str(image)], capture_output=True, text=True, check=True).stdout
        fault = Path("/sys/fs/ext4", Path(found.partition(":")[0]).name, "trigger_fs_error")
        if not fault.exists():
            pytest.skip("no right to break a file system")

        def fail() -> None:
            fault.write_text("1")

        yield fail
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

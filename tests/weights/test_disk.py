import ctypes
import mmap
import time
from pathlib import Path

import pytest

from tests.harness.client_programs import missing
from weights import disk
from weights.disk import available_memory, drop_from_cache, read_ahead, read_whole

SIZE = 8 * 2**20
GIB = 2**30


def cached_share(path: Path) -> float:
    """How much of a file is in the page cache."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(mapped)
        libc = ctypes.CDLL(None)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapped)), pages) == 0
        del first
        return sum(page & 1 for page in pages) / len(pages)


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A file that is not in the page cache."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(SIZE))
    drop_from_cache(path)
    if cached_share(path) > 0:
        missing("a file system on a disk below the temporary folder")
    return path


@pytest.mark.parametrize("read", [read_whole, lambda path: read_ahead([path])], ids=["read_whole", "read_ahead"])
def test_what_is_read_before_it_is_needed_is_in_the_page_cache(read: object, on_disk: Path) -> None:
    assert callable(read)
    read(on_disk)
    deadline = time.monotonic() + 30
    while (share := cached_share(on_disk)) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert share == 1


def test_files_that_would_fill_the_memory_are_not_read_ahead(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "available_memory", lambda: SIZE - 1)
    read_ahead([on_disk])
    assert cached_share(on_disk) == 0


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("", {}, 64 * GIB),
        ("", {"": (32 * GIB, 12 * GIB)}, 24 * GIB),  # in a container, which sees its own cgroup as the root
        ("a/b", {"a": (32 * GIB, 12 * GIB), "a/b": (None, 12 * GIB)}, 24 * GIB),
        ("a/b", {"a": (32 * GIB, 12 * GIB), "a/b": (16 * GIB, 12 * GIB)}, 8 * GIB),
        ("", {"": (256 * GIB, 12 * GIB)}, 64 * GIB),
    ],
    ids=["no limit", "container", "limit around", "two limits", "more than there is"],
)
def test_available_memory_is_what_the_cgroups_leave(
    own: str, limits: dict[str, tuple[int | None, int]], expected: int, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {64 * GIB // 1024} kB\n")
    (tmp_path / "proc/self/cgroup").write_text(f"0::/{own}\n")
    for name, (limit, used) in limits.items():
        group = tmp_path / "sys/fs/cgroup" / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{limit or 'max'}\n")
        (group / "memory.current").write_text(f"{used}\n")
        (group / "memory.stat").write_text(f"anon {used}\nactive_file {GIB}\ninactive_file {3 * GIB}\n")
    assert available_memory(tmp_path) == expected

"""A container's limit counts, whichever version of control groups sets it and however the group is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from weights.available_memory import available_memory

GB = 10**9


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A /proc of a machine with 50 GB left."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {50 * GB // 1024} kB\n")
    (proc / "self/cgroup").write_text("")
    return proc


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def left(proc: Path) -> int:
    return available_memory(proc, proc.parent / "cgroup")


def test_without_a_limit_the_machine_decides(machine: Path) -> None:
    assert left(machine) == pytest.approx(50 * GB, rel=1e-6)
    (machine / "self/cgroup").write_text("0::/app\n")
    group(machine.parent / "cgroup/app", max="max", current=5 * GB)
    assert left(machine) == pytest.approx(50 * GB, rel=1e-6)


def test_the_tightest_of_nested_groups_and_pages_that_can_be_dropped(machine: Path) -> None:
    (machine / "self/cgroup").write_text("0::/outer/inner\n")
    group(machine.parent / "cgroup/outer/inner", max=30 * GB, current=10 * GB)
    assert left(machine) == 20 * GB
    group(machine.parent / "cgroup/outer", max=12 * GB, current=11 * GB, stat=f"anon 5\ninactive_file {3 * GB}")
    assert left(machine) == 4 * GB


def test_version_1_and_a_path_of_the_host(machine: Path) -> None:
    (machine / "self/cgroup").write_text("5:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    group(machine.parent / "cgroup/memory", limit_in_bytes=8 * GB, usage_in_bytes=GB, stat=f"total_inactive_file {GB}")
    assert left(machine) == 8 * GB


def test_more_used_than_allowed_is_nothing_left(machine: Path) -> None:
    (machine / "self/cgroup").write_text("0::/\n")
    group(machine.parent / "cgroup", max=GB, current=2 * GB)
    assert left(machine) == 0

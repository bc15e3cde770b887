"""How much memory this process can still get: of the machine, and of the container it may run in (Linux)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LIMITS = (  # version: files of limit and usage, and the line of memory.stat that counts what can be dropped at once
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes, by the tightest limit. Beyond it a process of a container is killed, whatever the machine has left."""
    machine = int(re.search(r"MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text())[1]) * 1024  # type: ignore[index]
    return max(0, min([machine, *_left_in_groups(proc, cgroups)]))


def _left_in_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What this process's group and every group around it have left, of those that have a limit."""
    for line in _read(proc / "self/cgroup").splitlines():
        _, controllers, inside = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        root = cgroups / controllers
        folder = root / inside.lstrip("/")
        # Seen from inside a container the path is often the host's, and the container's own group is the root.
        for group in (folder, *folder.parents):
            for limit, usage, droppable in _LIMITS:
                maximum, used = _read(group / limit).strip(), _read(group / usage).strip()
                if maximum.isdecimal() and used.isdecimal():
                    dropped = re.search(rf"^{droppable} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
                    yield int(maximum) - int(used) + (int(dropped[1]) if dropped else 0)
            if group == root:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

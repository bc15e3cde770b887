"""The processors beside a GPU: a worker that stays on them copies weights and frames over the shorter way."""

from collections.abc import Sequence
from pathlib import Path

from server.serve.gpus import ROOT, Gpu


def processors_beside(gpus: Sequence[Gpu], root: Path = ROOT) -> frozenset[int]:
    """Numbers of the processors of the nodes that the cards hang on; empty where one cannot be read."""
    found: set[int] = set()
    for gpu in gpus:
        folder = root / "sys/bus/pci/devices" / gpu.address
        try:
            if int((folder / "numa_node").read_text()) < 0:  # the firmware does not say
                return frozenset()
            found |= processors((folder / "local_cpulist").read_text())
        except (OSError, ValueError):
            return frozenset()
    return frozenset(found)


def processors(text: str) -> set[int]:
    """A list as the kernel writes it, `0-3,8`, as numbers.

    Raises:
        ValueError: it is not one.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found

"""The processors beside a GPU, as the kernel lists them."""

from pathlib import Path

import pytest

from server.serve.gpus import Gpu
from server.serve.numa import processors, processors_beside

FIRST, SECOND = Gpu("GPU-a", "0000:1b:00.0"), Gpu("GPU-b", "0000:c3:00.0")


def add(root: Path, gpu: Gpu, *, node: str, cpus: str) -> None:
    folder = root / "sys/bus/pci/devices" / gpu.address
    folder.mkdir(parents=True)
    (folder / "numa_node").write_text(f"{node}\n")
    (folder / "local_cpulist").write_text(f"{cpus}\n")


def test_a_group_has_the_processors_of_all_its_cards(tmp_path: Path) -> None:
    add(tmp_path, FIRST, node="0", cpus="0-1,8")
    add(tmp_path, SECOND, node="1", cpus="4-5")
    assert processors_beside([FIRST], tmp_path) == {0, 1, 8}
    assert processors_beside([FIRST, SECOND], tmp_path) == {0, 1, 4, 5, 8}


def test_nothing_is_bound_where_the_nodes_are_unknown(tmp_path: Path) -> None:
    add(tmp_path, FIRST, node="-1", cpus="0-63")
    assert processors_beside([FIRST], tmp_path) == frozenset()
    assert processors_beside([SECOND], tmp_path) == frozenset()
    assert processors_beside([], tmp_path) == frozenset()


def test_a_list_of_processors() -> None:
    assert processors("0-2,7,10-11\n") == {0, 1, 2, 7, 10, 11}
    with pytest.raises(ValueError, match="invalid literal"):
        processors("")

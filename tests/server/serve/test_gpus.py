"""Which GPUs are seen, and which worker gets which."""

from pathlib import Path

import pytest

from server.errors import SettingsError
from server.serve.gpus import Gpu, cards, deal, installed_gpus, visible_devices

BOTH = [Gpu("GPU-aaaa-1", "0000:1b:00.0"), Gpu("GPU-bbbb-2", "0000:c3:00.0")]


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("2,0", ["2", "0"]),
        (" 1 , 3 ", ["1", "3"]),
        ("GPU-aaaa-1,GPU-b", ["GPU-aaaa-1", "GPU-b"]),
        ("MIG-7f2a,MIG-GPU-aaaa-1/3/0", ["MIG-7f2a", "MIG-GPU-aaaa-1/3/0"]),
        ("0,-1,2", ["0"]),  # what follows an impossible one is hidden
        ("0,4,1", ["0"]),  # of four cards
        ("NoDevFiles", []),  # Slurm's word for none
    ],
)
def test_what_cuda_shows(variable: str | None, seen: list[str]) -> None:
    assert visible_devices(variable, 4) == seen


def test_indices_are_believed_where_the_cards_are_unknown() -> None:
    assert visible_devices("6,7", 0) == ["6", "7"]
    assert visible_devices(None, 0) == []


@pytest.mark.parametrize("variable", ["0,1,0", "0,00", "GPU-a,GPU-a"])
def test_a_device_named_twice_is_refused(variable: str) -> None:
    with pytest.raises(SettingsError, match=r"CUDA_VISIBLE_DEVICES: .* is named twice"):
        visible_devices(variable, 4)


def test_groups_are_dealt_out_in_order() -> None:
    assert deal(["3", "1", "2"], replicas=3, ranks=1) == [["3"], ["1"], ["2"]]
    assert deal(list("01234567"), replicas=2, ranks=4) == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
    assert deal(list("0123"), replicas=1, ranks=3) == [["0", "1", "2"]]


def test_too_few_devices_are_one_line() -> None:
    with pytest.raises(SettingsError) as refused:
        deal(["0", "1", "2"], replicas=2, ranks=2)
    line = str(refused.value)
    assert line.startswith("generator.replicas, generator.ranks: 2 x 2 need 4 GPUs and 3 can be seen (0,1,2)")
    assert "\n" not in line
    with pytest.raises(SettingsError, match=r"0 can be seen \(none\)"):
        deal([], replicas=2, ranks=1)


def test_ranks_cannot_share_out_mig_instances() -> None:
    assert deal(["MIG-a", "MIG-b"], replicas=2, ranks=1) == [["MIG-a"], ["MIG-b"]]
    with pytest.raises(SettingsError, match=r"generator\.ranks: .*MIG"):
        deal(["MIG-a", "MIG-b"], replicas=1, ranks=2)


def test_the_cards_behind_the_names() -> None:
    assert cards(["1", "0"], BOTH) == BOTH[::-1]
    assert cards(["GPU-bbbb", "MIG-GPU-aaaa-1/3/0"], BOTH) == BOTH[::-1]
    assert cards(["0", "MIG-7f2a"], BOTH) == []
    assert cards(["GPU-"], BOTH) == []
    assert cards(["2"], BOTH) == []


def test_installed_cards_are_those_with_a_device_file(tmp_path: Path) -> None:
    """As a container may have it: all are listed, some can be opened. The order is that of the slots."""
    for address, uuid, minor in (("0000:C3:00.0", "GPU-c", 0), ("0000:1b:00.0", "GPU-a", 2), ("0000:5e:00.0", "x", 1)):
        folder = tmp_path / "proc/driver/nvidia/gpus" / address
        folder.mkdir(parents=True)
        (folder / "information").write_text(
            f"Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"
        )
    (tmp_path / "dev").mkdir()
    for minor in (0, 2):
        (tmp_path / f"dev/nvidia{minor}").touch()
    assert installed_gpus(tmp_path) == [Gpu("GPU-a", "0000:1b:00.0"), Gpu("GPU-c", "0000:c3:00.0")]
    assert installed_gpus(tmp_path / "dev") == []

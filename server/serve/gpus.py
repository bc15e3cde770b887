"""Which GPUs each worker of one machine gets: whole groups, dealt out in order.

A worker sees its group alone, through CUDA_VISIBLE_DEVICES, and calls it `cuda:0` to `cuda:N-1`; how its ranks divide
that is for the generator to say. Nothing here asks CUDA: that would take memory of every GPU in a process that renders
nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.errors import SettingsError

ROOT: Final = Path("/")
_DRIVER: Final = "proc/driver/nvidia/gpus"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card as the driver lists it; `address` is that of its PCI slot, as sysfs writes it."""

    uuid: str
    address: str


def installed_gpus(root: Path = ROOT) -> list[Gpu]:
    """Cards that this machine or container can open, by PCI slot: the order of `nvidia-smi`. Empty where unknown."""
    found = []
    for folder in sorted((root / _DRIVER).glob("*")):
        try:
            text = (folder / "information").read_text()
        except OSError:
            continue
        uuid, minor = (re.search(rf"^{key}:\s*(\S+)", text, re.MULTILINE) for key in ("GPU UUID", "Device Minor"))
        # A container may see all cards listed and have the device files of some.
        if uuid and minor and (root / f"dev/nvidia{minor[1]}").exists():
            found.append(Gpu(uuid[1], folder.name.lower()))
    return found


def visible_devices(variable: str | None, installed: int) -> list[str]:
    """The devices that CUDA shows with this value of CUDA_VISIBLE_DEVICES, each by a name that may stand in it.

    Names are indices, `GPU-...` or `MIG-...`. As in CUDA, what follows an impossible one is hidden. `installed` is the
    number of cards, 0 if it is not known.

    Raises:
        SettingsError: a device is named twice; CUDA would show none.
    """
    if variable is None:
        return [str(index) for index in range(installed)]
    names: list[str] = []
    for name in (part.strip() for part in variable.split(",")):
        if name.isascii() and name.isdigit():
            if installed and int(name) >= installed:
                break
            name = str(int(name))  # "00" is the first one, too  # noqa: PLW2901
        elif not name.startswith(("GPU-", "MIG-")):
            break
        if name in names:
            raise SettingsError(f"CUDA_VISIBLE_DEVICES: {name} is named twice in {variable!r}")
        names.append(name)
    return names


def deal(devices: Sequence[str], *, replicas: int, ranks: int) -> list[list[str]]:
    """One group of `ranks` devices for each of the replicas, in order; devices beyond that stay unused.

    Raises:
        SettingsError: too few devices, or a group of several MIG instances.
    """
    needed = replicas * ranks
    if len(devices) < needed:
        seen = ",".join(devices) or "none"
        raise SettingsError(
            f"generator.replicas, generator.ranks: {replicas} x {ranks} need {needed} GPUs and {len(devices)} can be "
            f"seen ({seen}); see nvidia-smi -L and CUDA_VISIBLE_DEVICES"
        )
    if ranks > 1 and any(name.startswith("MIG-") for name in devices[:needed]):
        raise SettingsError("generator.ranks: CUDA shows a process one MIG instance only; set it to 1")
    return [list(devices[first : first + ranks]) for first in range(0, needed, ranks)]


def cards(devices: Sequence[str], installed: Sequence[Gpu]) -> list[Gpu]:
    """The cards behind devices that were dealt; empty unless all are known."""
    found = [_card(name, installed) for name in devices]
    return [card for card in found if card is not None] if None not in found else []


def _card(name: str, installed: Sequence[Gpu]) -> Gpu | None:
    if name.isdigit():
        return installed[int(name)] if int(name) < len(installed) else None
    # A MIG instance is MIG-GPU-<card>/<instances> to drivers before 470; later names do not tell the card.
    uuid = name.removeprefix("MIG-").partition("/")[0]
    matching = [gpu for gpu in installed if gpu.uuid.startswith(uuid)]  # CUDA takes a beginning if it is unique
    return matching[0] if len(matching) == 1 else None

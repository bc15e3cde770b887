"""The workers of one machine, `generator.replicas` of them: their ids, their GPUs, and how each is started."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from server.errors import SettingsError
from server.serve.children import Start
from server.serve.gpus import ROOT, cards, deal, installed_gpus, visible_devices
from server.serve.numa import processors_beside
from server.settings import WORKER_ID_LENGTH, Settings
from server.worker.worker_lock import lock_worker_id

_KILL_AFTER_S: Final = 15.0
_MARGIN_S: Final = 5.0  # what a worker needs beyond its job's grace
# Numbers then mean what they mean to nvidia-smi, and not the fastest card first.
_ORDER: Final = "CUDA_DEVICE_ORDER"
_BY_SLOT: Final = "PCI_BUS_ID"
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def worker_ids(settings: Settings) -> list[str]:
    """The first is `worker_id` itself, so that a server that gets more GPUs keeps the jobs it had.

    Raises:
        SettingsError: the longest would be too long.
    """
    own = settings.worker_id
    names = [own, *(f"{own}-{number}" for number in range(1, settings.generator.replicas))]
    if len(names[-1]) > WORKER_ID_LENGTH:
        raise SettingsError(f"worker_id: {names[-1]}, of the last replica, has more than {WORKER_ID_LENGTH} characters")
    return names


def lock_worker_ids(settings: Settings) -> ExitStack:
    """All ids, locked until this is closed.

    Raises:
        SettingsError: a worker of one of them is running on this data directory.
    """
    with ExitStack() as held:
        for name in worker_ids(settings):
            held.enter_context(lock_worker_id(settings, name))
        return held.pop_all()


def stop_within_s(settings: Settings) -> float:
    """How long a worker has to end, with the grace of its job."""
    return max(_KILL_AFTER_S, settings.jobs.shutdown_grace_s + _MARGIN_S)


def worker_starts(
    settings: Settings, arguments: Sequence[str], *, environment: Mapping[str, str] = os.environ, root: Path = ROOT
) -> list[Start]:
    """How each worker is started; `arguments` lead it to the same settings.

    A single one is left with every GPU that this process sees, and with all processors.

    Raises:
        SettingsError: the machine has too few GPUs, or they cannot be divided like that.
    """
    generator = settings.generator
    words = ["worker", *arguments]
    if generator.replicas == 1:
        return [Start("worker", words)]
    ids = worker_ids(settings)
    named = [Start("worker", [*words, "--worker-id", name], name=f"worker {name}") for name in ids]
    if generator.device == "cpu":
        return named
    if generator.device != "cuda":
        raise SettingsError(
            f'generator.device: {generator.device} is one GPU; with generator.replicas it is "cuda" or "cpu"'
        )
    installed = installed_gpus(root)
    devices = visible_devices(environment.get(_VISIBLE), len(installed))
    order = environment.get(_ORDER, _BY_SLOT)
    found = []
    for start, group in zip(named, deal(devices, replicas=generator.replicas, ranks=generator.ranks), strict=True):
        known = cards(group, installed) if order == _BY_SLOT else []
        own = {_ORDER: order, _VISIBLE: ",".join(group)}
        found.append(Start(start.role, start.words, start.name, (), own, processors_beside(known, root)))
    return found

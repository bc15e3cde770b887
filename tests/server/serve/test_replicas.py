"""How the workers of one machine are started: ids, locks, GPUs, processors."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.serve import children
from server.serve.children import Children, Start
from server.serve.replicas import lock_worker_ids, worker_ids, worker_starts
from server.serve.supervisor import WorkerGroup
from server.settings import Settings
from server.settings_loader import load_settings
from server.worker.worker_lock import lock_worker_id
from tests.harness.live_server import until


def settings(folder: Path, *, worker_id: str = "gpu", **generator: Any) -> Settings:
    return load_settings(None, {"data_dir": folder, "worker_id": worker_id, "generator": generator})


def test_the_first_replica_keeps_the_id(tmp_path: Path) -> None:
    assert worker_ids(settings(tmp_path)) == ["gpu"]
    assert worker_ids(settings(tmp_path, replicas=3)) == ["gpu", "gpu-1", "gpu-2"]
    with pytest.raises(SettingsError, match=r"^worker_id: .* has more than 64 characters"):
        worker_ids(settings(tmp_path, worker_id="x" * 63, replicas=2))


def test_every_id_is_locked_or_none(tmp_path: Path) -> None:
    two = settings(tmp_path, replicas=2)
    with lock_worker_id(two, "gpu-1"), pytest.raises(SettingsError, match="a worker named gpu-1 is running"):
        lock_worker_ids(two)
    with lock_worker_ids(two), pytest.raises(SettingsError, match="a worker named gpu is running"):
        lock_worker_id(two, "gpu")


def test_a_single_worker_is_left_as_it_was(tmp_path: Path) -> None:
    """With all that the machine shows, whatever it shows."""
    (start,) = worker_starts(settings(tmp_path, ranks=4), ["--config", "x"], environment={}, root=tmp_path)
    assert start == Start("worker", ["worker", "--config", "x"])


def test_each_worker_gets_its_group(tmp_path: Path) -> None:
    four = settings(tmp_path, replicas=2, ranks=2)
    starts = worker_starts(four, [], environment={"CUDA_VISIBLE_DEVICES": "3,2,1,0"}, root=tmp_path)
    assert [start.words for start in starts] == [["worker", "--worker-id", name] for name in ("gpu", "gpu-1")]
    assert [start.environment["CUDA_VISIBLE_DEVICES"] for start in starts] == ["3,2", "1,0"]
    assert {start.environment["CUDA_DEVICE_ORDER"] for start in starts} == {"PCI_BUS_ID"}
    assert not any(start.cpus for start in starts)
    with pytest.raises(SettingsError, match=r"2 x 2 need 4 GPUs and 0 can be seen"):
        worker_starts(four, [], environment={}, root=tmp_path)


def test_workers_stay_beside_their_cards(tmp_path: Path) -> None:
    for index, address in enumerate(["0000:1b:00.0", "0000:c3:00.0"]):
        driver, slot = tmp_path / "proc/driver/nvidia/gpus" / address, tmp_path / "sys/bus/pci/devices" / address
        driver.mkdir(parents=True)
        slot.mkdir(parents=True)
        (driver / "information").write_text(f"GPU UUID: \t GPU-{index}\nDevice Minor: \t {index}\n")
        (slot / "numa_node").write_text(f"{index}\n")
        (slot / "local_cpulist").write_text(f"{index}\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / f"dev/nvidia{index}").touch()
    two = settings(tmp_path, replicas=2)
    assert [start.cpus for start in worker_starts(two, [], environment={}, root=tmp_path)] == [{0}, {1}]
    fastest_first = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}  # which card an index means is not known then
    assert not any(start.cpus for start in worker_starts(two, [], environment=fastest_first, root=tmp_path))


def test_replicas_without_a_gpu_have_nothing_to_divide(tmp_path: Path) -> None:
    starts = worker_starts(settings(tmp_path, replicas=2, device="cpu"), [], environment={}, root=tmp_path)
    assert [start.environment for start in starts] == [{}, {}]
    with pytest.raises(SettingsError, match=r"^generator\.device: cuda:1 is one GPU"):
        worker_starts(settings(tmp_path, replicas=2, device="cuda:1"), [], environment={}, root=tmp_path)


def test_a_dead_worker_is_restarted_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen
    started: list[tuple[str, Any]] = []

    def start_sleeping(command: list[str], **options: Any) -> Any:
        process = start(["sleep", "60"], **options)
        started.append((command[-1], process))
        return process

    monkeypatch.setattr(subprocess, "Popen", start_sleeping)
    monkeypatch.setattr(children, "_FIRST_DELAY_S", 0.01)
    with WorkerGroup(settings(tmp_path, replicas=2, device="cpu"), []):
        until(lambda: len(started) == 2)
        (first, killed), (second, spared) = started
        assert [first, second] == ["gpu", "gpu-1"]
        killed.kill()
        until(lambda: len(started) == 3)
        assert started[2][0] == "gpu"
        assert spared.poll() is None
    assert spared.poll() is not None, "all have ended with the group"


def test_a_process_stays_on_its_processors(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    one = frozenset([min(allowed)])
    log = tmp_path / "log"
    bound = Start("bound", ["--help"], cpus=one | {10**4})  # the second is not for this process to use
    seen: list[set[int]] = []
    real = subprocess.Popen

    def look(_command: list[str], **options: Any) -> Any:
        process = real(["sleep", "60"], **options)
        seen.append(os.sched_getaffinity(process.pid))
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", look)
        group = Children([bound, Start("free", ["--help"])], stop_within_s=5, log=log)
        group.start()
        until(lambda: len(seen) == 2)
        group.stop()
    assert seen == [one, allowed]

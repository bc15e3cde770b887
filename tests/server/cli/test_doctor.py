"""`hunyuan-custom doctor` on machines and deployments with something wrong."""

import fcntl
import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.doctor import machine
from server.settings import CONFIGS

Doctor: TypeAlias = Callable[..., tuple[int, dict[str, dict[str, str]]]]
GPU = CONFIGS / "gpu-80gb.toml"


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Its exit code and its findings by subject."""

    def run(*words: str, data_dir: Path = tmp_path / "data") -> tuple[int, dict[str, dict[str, str]]]:
        result = CliRunner().invoke(app, ["doctor", "--json", "--data-dir", str(data_dir), *words])
        report = json.loads(result.stdout)
        assert report["ok"] == (result.exit_code == 0)
        return result.exit_code, {one["subject"]: one for one in report["findings"]}

    return run


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A driver that gives this answer."""

    def write(answer: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.setattr(machine, "_cuda_of_torch", lambda: "13.0")

    return write


def card(*, driver: str = "580.95.05", capability: str = "9.0", free: int = 81_000) -> str:
    return f"echo 'NVIDIA H100 80GB HBM3, {capability}, 81559, {free}, {driver}'"


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return str(path)


def test_a_laptop_can_run_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", "0")
    result = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 0, result.stdout
    assert all(line.startswith("ok ") for line in result.stdout.splitlines())
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_is_a_problem_unless_it_is_this_server(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", str(taken.getsockname()[1]))
        code, found = doctor()
        assert (code, found["port"]["state"]) == (1, "problem")
        assert "api.port" in found["port"]["remedy"]
        (tmp_path / "data").mkdir()
        with (tmp_path / "data" / "worker-local.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code, found = doctor()
    assert (code, found["port"]["state"]) == (0, "ok")


@pytest.mark.parametrize("data_dir", ["/proc/data", "a-file/data"])
def test_a_data_dir_that_cannot_hold_anything(
    data_dir: str, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", "0")
    (tmp_path / "a-file").touch()
    code, found = doctor(data_dir=tmp_path / data_dir)
    assert (code, found["data_dir"]["state"]) == (1, "problem")
    assert found["data_dir"]["remedy"]


def test_missing_weights_come_with_the_command_that_gets_them(doctor: Doctor, tmp_path: Path) -> None:
    settings = f'[api]\nport = 0\n[generator]\nmodel = "{tmp_path}/models"\ndevice = "cpu"\n'
    code, found = doctor("--config", config(tmp_path, settings))
    assert (code, found["weights"]["state"]) == (1, "problem")
    assert found["weights"]["remedy"] == f"hunyuan-custom weights prepare --out {tmp_path}/models"


def test_models_beside_the_model_are_missing(doctor: Doctor, tmp_path: Path) -> None:
    settings = (
        f'[api]\nport = 0\n[generator]\ndevice = "cpu"\n[safety]\nmodel = "{tmp_path}/safety"\n'
        f'[image]\nbackground = "white"\nsegmenter = "{tmp_path}/segmenter"\n'
    )
    code, found = doctor("--config", config(tmp_path, settings))
    assert (code, found["safety"]["state"], found["segmenter"]["state"]) == (1, "problem", "warning")
    for subject in ("safety", "segmenter"):
        assert found[subject]["remedy"].startswith(f"hunyuan-custom weights prepare --out {tmp_path}/")


@pytest.mark.parametrize(
    ("answer", "subject", "says"),
    [
        (card(driver="535.183.01"), "driver", "install driver 580 or newer"),
        (card(capability="7.5"), "gpu", "bfloat16"),
        ("exit 9", "gpu", "--gpus all"),
        ("echo 'no devices were found'", "gpu", "--gpus all"),
        (card(free=20_000), "memory", "stream_blocks"),
    ],
    ids=["old driver", "old GPU", "no driver", "no GPU", "GPU in use"],
)
def test_a_gpu_that_cannot_be_used(
    answer: str, subject: str, says: str, doctor: Doctor, nvidia_smi: Callable[[str], None]
) -> None:
    nvidia_smi(answer)
    code, found = doctor("--config", str(GPU))
    assert (code, found[subject]["state"]) == (1, "problem")
    assert says in found[subject]["remedy"]


def test_a_gpu_that_can_be_used(
    doctor: Doctor, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvidia_smi(card())
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    _, found = doctor("--config", str(GPU))
    assert (found["compiler"]["state"], found["compiler"]["remedy"]) == ("warning", "apt-get install python3-dev")
    (tmp_path / "Python.h").touch()
    _, found = doctor("--config", str(GPU))
    assert {found[subject]["state"] for subject in ("gpu", "driver", "memory", "attention", "compiler")} == {"ok"}
    assert "84.9 of 85.5 GB free" in found["gpu"]["text"]


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("RANKS", "set generator.ranks to 1 or less"),
        ("REPLICAS", "set generator.ranks x generator.replicas to 1 or less"),
    ],
)
def test_more_processes_than_gpus(
    setting: str, remedy: str, nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(card())
    monkeypatch.setenv(f"HUNYUAN_CUSTOM_GENERATOR__{setting}", "2")
    result = CliRunner().invoke(app, ["doctor", "--config", str(GPU)])
    assert remedy in result.stdout


def test_a_database_that_is_away(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("HUNYUAN_CUSTOM_DATABASE_URL", f"postgresql://user:secret@127.0.0.1:{port}/jobs")
        code, found = doctor()
    assert (code, found["database"]["state"]) == (1, "problem")
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(("version", "state"), [(1, "warning"), (99, "problem")])
def test_tables_of_another_version(
    version: int, state: str, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", "0")
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data" / "hunyuan-custom.sqlite")) as database, database:
        database.executescript("CREATE TABLE request (id); CREATE TABLE schema_version (version INTEGER NOT NULL)")
        database.execute("INSERT INTO schema_version VALUES (?)", (version,))
    code, found = doctor()
    assert (code, found["database"]["state"]) == (int(state == "problem"), state)


def test_keys_that_would_travel_unencrypted(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__PORT", "0")
    monkeypatch.setenv("HUNYUAN_CUSTOM_API__HOST", "0.0.0.0")  # noqa: S104 - the point
    code, found = doctor()
    assert (code, found["access"]["state"]) == (0, "warning")
    assert "--tls-self-signed" in found["access"]["remedy"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpu-memory", "80GB"), "resident takes"),
        (("--gpu-memory", "32 GiB", "--host-memory", "64GB"), "offload_encoders takes"),
        (("--gpu-memory", "24576MiB", "--host-memory", "64"), "stream_blocks takes"),
        (("--gpu-memory", "12GB", "--host-memory", "64GB"), "12.0 GB are too little"),
    ],
)
def test_another_machine_can_be_asked_about(words: tuple[str, ...], says: str, doctor: Doctor) -> None:
    _, found = doctor(*words)
    assert found["memory"]["text"].startswith(says)


def test_the_table_marks_what_does_not_fit(tmp_path: Path) -> None:
    words = ["doctor", "--data-dir", str(tmp_path), "--gpu-memory", "24GB", "--host-memory", "64GB"]
    head, *rows = CliRunner().invoke(app, words).stdout.splitlines()[-4:]
    assert "1280x720x129" in head
    marks = {row.split()[0]: row.count("!") for row in rows}
    assert marks == {"resident": 4, "offload_encoders": 3, "stream_blocks": 0}


@pytest.mark.parametrize("amount", ["24TB", "much", "0", "-1GB"])
def test_an_amount_of_memory_that_is_none(amount: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path), f"--gpu-memory={amount}"])
    assert result.exit_code != 0
    assert "--gpu-memory" in str(result.exception)

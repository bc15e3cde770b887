"""The systemd units: accepted by systemd where it is installed, and in step with the settings and commands."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from server.settings import CONFIGS
from server.settings_loader import load_settings
from tests.docs.generated import DOCS, commands
from tests.harness.client_programs import missing

UNITS = sorted((DOCS / "systemd").glob("*.service"))
_INSTALLED = "/opt/hunyuan-custom/bin/hunyuan-custom"


def directives(unit: Path) -> dict[str, str]:
    """By name; the values of one that is repeated stand beside each other."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found[name] = f"{found[name]} {value}" if name in found else value
    return found


def environment(unit: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for word in directives(unit)["Environment"].split())


def test_there_is_one_for_each_kind_of_process() -> None:
    assert [unit.name for unit in UNITS] == [
        "hunyuan-custom-api.service",
        "hunyuan-custom-worker@.service",
        "hunyuan-custom.service",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_its_command_exists(unit: Path) -> None:
    program, command, option, _ = directives(unit)["ExecStart"].split()
    assert (program, option) == (_INSTALLED, "--config")
    assert f"| `hunyuan-custom {command}` |" in commands()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_wrong_settings_do_not_restart_for_ever(unit: Path) -> None:
    given = directives(unit)
    assert (given["Restart"], given["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_waits_longer_than_the_grace_of_its_processes(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the settings that the unit itself names, which are settings."""
    for name in [name for name in os.environ if name.startswith("HUNYUAN_CUSTOM_")]:
        monkeypatch.delenv(name)
    for name, value in environment(unit).items():
        monkeypatch.setenv(name, value.replace("%S", "/x").replace("%H-%i", "host-0"))
    settings = load_settings(CONFIGS / "demo.toml")
    grace_s = settings.api.shutdown_grace_s if "api" in unit.name else settings.jobs.shutdown_grace_s
    assert int(directives(unit)["TimeoutStopSec"]) == grace_s + 20


def test_systemd_accepts_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("needs systemd-analyze: apt-get install systemd")
    for unit in UNITS:
        name = unit.name.replace("@.", "@0.")
        (tmp_path / name).write_text(unit.read_text().replace(_INSTALLED, "/bin/true"))
        (tmp_path / unit.name).write_text((tmp_path / name).read_text())
    paths = [str(path) for path in tmp_path.iterdir() if "@." not in path.name]
    said = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert not [line for line in said.stderr.splitlines() if "hunyuan-custom" in line]  # others' units are not ours

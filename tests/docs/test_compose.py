"""The compose file against what it names: settings, commands, configuration files, explained variables."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from server.cli.main import app
from server.cli.options import read_settings
from server.settings import ENV_PREFIX, Settings
from tests.harness.live_server import ROOT

COMPOSE = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
EXPLAINED = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
OURS = {name: service for name, service in SERVICES.items() if "hunyuan-custom-server" in service["image"]}


def test_every_variable_is_explained() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", COMPOSE))
    for service in SERVICES.values():
        used |= {name for name, value in service.get("environment", {}).items() if value is None}  # passed on if set
    assert used <= EXPLAINED
    assert EXPLAINED - used == set()


@pytest.mark.parametrize("name", OURS)
def test_settings_in_the_environment_exist(name: str) -> None:
    for variable in OURS[name].get("environment", {}):
        if variable.startswith(ENV_PREFIX):
            section, _, key = variable.removeprefix(ENV_PREFIX).lower().partition("__")
            field = Settings.model_fields[section]
            assert not key or key in field.annotation.model_fields  # type: ignore[union-attr]


def test_variables_of_traces_reach_every_process_of_ours() -> None:
    """An empty value would not do: OpenTelemetry's SDK takes that of some variables for a wrong one."""
    for name in ("server", "demo", "api", "worker"):
        passed = {key for key, value in OURS[name]["environment"].items() if key.startswith("OTEL_") and value is None}
        assert {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED"} <= passed


@pytest.mark.parametrize("name", OURS)
def test_commands_and_configuration_files_exist(name: str) -> None:
    words = OURS[name].get("command", ["serve"])
    command: Any = typer.main.get_command(app)
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
    assert not hasattr(command, "commands"), words
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    for word in words:
        if word.startswith("configs/") and "$" not in word:
            assert (ROOT / word).is_file()


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("gpu-*.toml")), ids=lambda path: path.stem)
def test_models_of_a_configuration_are_those_of_the_volume(config: Path) -> None:
    """Its folders are relative: the image has a link to where the volume is mounted."""
    link = re.search(r"^RUN ln -s (\S+) (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert link
    assert f"${{MODELS:-models}}:{link[1]}:ro" in OURS["server"]["volumes"]
    settings = read_settings(config, None)
    for folder in (settings.generator.model, settings.safety.model, settings.image.segmenter):
        assert Path(folder).parts[0] == link[2]


@pytest.mark.parametrize("name", OURS)
def test_nothing_gains_rights_or_writes_outside_its_volumes(name: str) -> None:
    service = OURS[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_unless_the_operator_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert re.match(r"(\$\{[A-Z_]*BIND:-127\.0\.0\.1\}|127\.0\.0\.1):", port)


def test_what_is_mounted_from_here_is_there_and_read_only() -> None:
    mounts = re.findall(r"^ +- (\./[^:]+):\S+?(:ro)?$", COMPOSE, re.MULTILINE)
    assert mounts
    assert not [path for path, read_only in mounts if not (ROOT / path).is_file() or not read_only]


def test_no_service_has_a_password_by_default() -> None:
    secrets = re.findall(r"\$\{([A-Z0-9_]*(?:PASSWORD|SECRET|TOKEN)[A-Z0-9_]*):?-?([^}]*)\}", COMPOSE)
    assert len(secrets) > 4
    assert not [name for name, default in secrets if default]

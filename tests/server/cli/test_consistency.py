"""What all commands have in common: help with examples, JSON where something is listed, one line for a mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from server.cli.main import app
from server.settings import CONFIGS
from tests.harness.command import run_command
from tests.harness.live_server import ROOT


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *words, name)
        else:
            yield (*words, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_it_understands(words: tuple[str, ...]) -> None:
    lines = [line for line in (COMMANDS[words].epilog or "").splitlines() if line.startswith("hunyuan-custom ")]
    assert lines
    known = {name for option in COMMANDS[words].params for name in (*option.opts, *option.secondary_opts)}
    for line in lines:
        assert line.split()[1 : len(words) + 1] == list(words)
        assert {word for word in line.split() if word.startswith("--")} <= known


@pytest.mark.parametrize(
    "words", [("keys", "list"), ("webhooks", "list"), ("requests", "list"), ("usage",), ("status",)]
)
def test_what_lists_or_reports_does_so_as_json(words: tuple[str, ...], tmp_path: Path) -> None:
    run_command("migrate", "--data-dir", str(tmp_path))
    ran = run_command(*words, "--json", "--data-dir", str(tmp_path))
    assert ran.code == 0, ran.err
    assert isinstance(json.loads(ran.out), list | dict)


def test_health_says_as_json_what_is_wrong(tmp_path: Path) -> None:
    health = run_command("health", "--worker", "--json", "--data-dir", str(tmp_path))
    said = json.loads(health.out)
    assert (health.code, said["ok"], health.err) == (1, False, "")
    assert "no database" in said["problem"]


MISTAKES: dict[str, tuple[int, tuple[str, ...]]] = {
    "unknown setting": (2, ("migrate", "--config", "typo.toml")),
    "no configuration": (2, ("keys", "list", "--config", "none.toml")),
    "a database that is none": (2, ("keys", "list", "--data-dir", "garbage")),
    "a database that is away": (1, ("keys", "list", "--config", "away.toml")),
    "unknown key": (2, ("keys", "revoke", "x", "--data-dir", "empty")),
    "unknown webhook": (2, ("webhooks", "redeliver", "x", "--data-dir", "empty")),
    "a server that is away": (1, ("status", "--server", "http://127.0.0.1:1")),
    "a file where a folder should be": (2, ("migrate", "--data-dir", "typo.toml/data")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_is_one_line(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("typo.toml").write_text("[api]\nprot = 1")
    Path("away.toml").write_text('database_url = "postgresql://user:s3cret@127.0.0.1:1/jobs"')
    Path("garbage").mkdir()
    Path("garbage/hunyuan-custom.sqlite").write_text("this is no database" * 100)
    code, words = MISTAKES[mistake]
    ran = run_command(*words)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (code, "", 1), ran.err
    assert ran.err.startswith("error: ")
    assert "s3cret" not in ran.err


def test_a_broken_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m server requests list --data-dir {tmp_path} 2>&1 | head -c 0"
    run_command("migrate", "--data-dir", str(tmp_path))
    shown = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.stderr == ""


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("hunyuan-custom gen", "generate"),
        ("hunyuan-custom requests list --status fa", "failed"),
        (f"hunyuan-custom serve --config {CONFIGS}/gpu-8", str(CONFIGS / "gpu-80gb.toml")),
        ("hunyuan-custom generate a b --resolution ", "720p"),
    ],
)
def test_the_shell_completes(typed: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_HUNYUAN_CUSTOM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    assert found in run_command().out.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_made_for_a_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    script = run_command("--show-completion", shell).out
    assert "_HUNYUAN_CUSTOM_COMPLETE" in script
    assert os.linesep in script

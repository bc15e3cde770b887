"""The two documents that are written by a program: `python -m tests.docs.generated` after a change of what they list.

`docs/configuration.md` comes from the settings, `docs/commands.md` from the command line.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from server.cli.main import app
from server.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"

_CONFIGURATION = """# Configuration

Generated from the settings in [`server/settings.py`](../server/settings.py) by `python -m tests.docs.generated`.

Settings come from a TOML file (`--config`) or from the environment: `HUNYUAN_CUSTOM_` + name, sections joined by two
underscores. A command-line option wins over the environment, the environment over the file. An unknown key or a value
out of range stops the start and names the key. Times are in seconds, sizes in bytes.

```toml
data_dir = "/srv/hunyuan-custom"

[api]
port = 9000 # the same as HUNYUAN_CUSTOM_API__PORT=9000

[generator]
model = "models/bf16"
memory_plan = "resident"
```

Ready-made files: [`demo.toml`](../configs/demo.toml), [`gpu-24gb.toml`](../configs/gpu-24gb.toml),
[`gpu-80gb.toml`](../configs/gpu-80gb.toml), [`gpu-8x80gb.toml`](../configs/gpu-8x80gb.toml),
[`cluster.toml`](../configs/cluster.toml).
"""

_COMMANDS = """# Commands

Generated from the command line by `python -m tests.docs.generated`.

`make` installs the `hunyuan-custom` command into `.venv/bin`; `python -m server` is the same. `--help` explains the
options of a command. `--config` is the TOML file of the deployment (the demo's by default), `--data-dir` overrides
`data_dir`. Where there is `--server`, the command asks that server over HTTP instead, with the key of `--key` or
`FAL_KEY`.

What a command was asked for is on stdout, all else on stderr: progress is a bar on a terminal, elsewhere a line every
few seconds. With `--json` stdout is one JSON value. `NO_COLOR` takes the colours away. For completion in bash, zsh or
fish: `hunyuan-custom --install-completion`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | what was asked for failed, or was found faulty |
| 2 | a wrong option, setting, database, key, id or input, named in one line on stderr |
| 3 | refused by the safety checker |
| 130 | cancelled: by Ctrl-C, or by another call |

| command | what it does | options |
|---|---|---|
"""


def configuration() -> str:
    """The text of `docs/configuration.md`."""
    parts = [_CONFIGURATION, "## Top level\n", _table(_fields(Settings), "")]
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is not None:
            parts += [f"## {name}\n", f"{inspect.getdoc(section)}\n", _table(_fields(section), f"{name}.")]
    return "\n".join(parts)


def commands() -> str:
    """The text of `docs/commands.md`."""
    return _COMMANDS + "".join(_command_rows(typer.main.get_command(app), "hunyuan-custom"))


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {name: field for name, field in model.model_fields.items() if _section(field) is None}


def _table(fields: dict[str, FieldInfo], prefix: str) -> str:
    rows = [f"| `{prefix}{name}` | {_default(field)} | {_description(field)} |\n" for name, field in fields.items()]
    return "".join(["| key | default | what it is |\n|---|---|---|\n", *rows])


def _default(field: FieldInfo) -> str:
    default = field.default
    if default in (None, "", ()) or "SecretStr" in repr(default):
        return ""
    if isinstance(default, tuple):
        return f"`{json.dumps(default)}`"
    return f"`{default:.12g}`" if isinstance(default, float) else f"`{default}`"


def _description(field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    if get_origin(field.annotation) is Literal:
        return f"{text} ({', '.join(f'`{choice}`' for choice in get_args(field.annotation))})"
    return text


def _command_rows(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for part, inner in command.commands.items():
            yield from _command_rows(inner, f"{name} {part}")
        return
    visible = [option for option in command.params if not getattr(option, "hidden", False)]
    arguments = [option.name.upper() for option in visible if option.param_type_name == "argument"]
    options = [f"`{option.opts[0]}`" for option in visible if option.param_type_name == "option"]
    summary = (command.help or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    yield f"| `{' '.join([name, *arguments])}` | {summary} | {' '.join(options)} |\n"


if __name__ == "__main__":
    (DOCS / "configuration.md").write_text(configuration())
    (DOCS / "commands.md").write_text(commands())

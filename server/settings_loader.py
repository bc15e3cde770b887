"""Settings as one deployment has them: command line over environment over TOML file over the defaults.

A wrong value is named with the option, the variable or the file that it comes from.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from server.errors import SettingsError
from server.settings import ENV_PREFIX, Settings


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings of this process.

    Args:
        config: a TOML file, or None for the defaults alone.
        overrides: nested keys that win over everything (command-line options).

    Raises:
        SettingsError: unreadable file, unknown key, or a value out of range; the message names the key.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"{config}: no such configuration file")
    _refuse_unknown_environment()

    class FromFile(Settings):
        model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(toml_file=config)

    try:
        loaded = FromFile(**(overrides or {}))
    except ValidationError as error:
        problems = "; ".join(
            _problem(e["loc"], e["msg"].removeprefix("Value error, "), config, overrides or {}) for e in error.errors()
        )
        raise SettingsError(problems) from error
    except ValueError as error:  # TOML syntax, or JSON in a variable that pydantic-settings could not parse
        raise SettingsError(f"{config or 'settings'}: {error}") from error
    data_dir = loaded.data_dir.absolute()
    return loaded.model_copy(update={"data_dir": data_dir, "database_url": _database_url(loaded, data_dir)})


def _problem(loc: tuple[int | str, ...], message: str, config: Path | None, overrides: Mapping[str, Any]) -> str:
    """One wrong setting, with the place that its value comes from: an option, a variable or the file."""
    path = [str(part) for part in loc]
    where, given = str(config or "settings"), overrides
    variables = {name.upper(): name for name in os.environ}
    for length in range(1, len(path) + 1):
        where = variables.get(f"{ENV_PREFIX}{'__'.join(path[:length])}".upper(), where)
    for part in path:
        given = given.get(part, {}) if isinstance(given, Mapping) else given
    if given not in ({}, None):
        where = "command line"
    return f"{where}: {'.'.join(path)}: {message}"


def _database_url(loaded: Settings, data_dir: Path) -> str:
    """As SQLAlchemy wants it: with the driver that is installed."""
    if not loaded.database_url:
        return f"sqlite:///{data_dir / 'hunyuan-custom.sqlite'}"
    return re.sub(r"^postgres(ql)?(\+psycopg)?://", "postgresql+psycopg://", loaded.database_url)


def _refuse_unknown_environment() -> None:
    """A misspelt variable must not be ignored (pydantic-settings checks only nested names)."""
    known = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    for variable in os.environ:
        upper = variable.upper()
        if upper.startswith(ENV_PREFIX) and upper.split("__", 1)[0] not in known:
            raise SettingsError(f"{variable}: unknown setting")

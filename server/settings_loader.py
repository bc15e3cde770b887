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
from server.settings_problem import problem, unknown_variable


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
        problems = (problem(one, config, overrides or {}) for one in error.errors())
        raise SettingsError("; ".join(problems)) from error
    except OSError as error:
        raise SettingsError(f"{config}: {error.strerror}") from error
    except ValueError as error:  # TOML syntax, or JSON in a variable that pydantic-settings could not parse
        raise SettingsError(f"{config or 'settings'}: {error}") from error
    data_dir = loaded.data_dir.absolute()
    return loaded.model_copy(update={"data_dir": data_dir, "database_url": _database_url(loaded, data_dir)})


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
            raise SettingsError(unknown_variable(variable))

"""What is wrong with one setting, as one line: where it comes from, key, value, what is allowed, what was meant.

A value is repeated unless it may hold a secret.
"""

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from server.settings import ENV_PREFIX, Settings

_LONGEST_VALUE: Final = 60  # characters of a value that is repeated
_MAY_HOLD_SECRETS: Final = {"database_url"}


def problem(error: ErrorDetails, config: Path | None, overrides: Mapping[str, Any]) -> str:
    """One wrong setting of a configuration file, the environment or the command line."""
    path = [str(part) for part in error["loc"]]
    key, where = ".".join(path), _source(path, config, overrides)
    if error["type"] == "extra_forbidden":
        return f"{where}: {key}: {_unknown(path)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {message}{_given(path, error['input'])}{_meant(path, error['input'])}"


def unknown_variable(name: str) -> str:
    """A variable with our prefix that no setting has."""
    path = name[len(ENV_PREFIX) :].lower().split("__")
    nearest = _nearest(path)
    hint = f"; did you mean {ENV_PREFIX}{nearest.upper().replace('.', '__')}?" if nearest else ""
    return f"{name}: unknown setting{hint}"


def _unknown(path: list[str]) -> str:
    nearest = _nearest(path)
    if nearest is not None:
        return f"unknown setting; did you mean {nearest}?"
    section = _field_at(path[:-1])
    inside = (_section(section) if section is not None else None) or Settings
    return f"unknown setting; there are {', '.join(inside.model_fields)}"


def _nearest(path: list[str]) -> str | None:
    """The dotted name that this one resembles: spelt wrong, or of another section."""
    known = list(_names(Settings))
    of_that_name = [name for name in known if name.split(".")[-1] == path[-1]]
    return next(iter(of_that_name or difflib.get_close_matches(".".join(path), known, n=1, cutoff=0.75)), None)


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        section = _section(field)
        if section is not None:
            yield from _names(section, f"{prefix}{name}.")


def _given(path: list[str], value: object) -> str:
    """The value itself, where it says more than the message and is no secret."""
    field = _field_at(path)
    if field is None or _section(field) or field.annotation is SecretStr or path[0] in _MAY_HOLD_SECRETS:
        return ""
    shown = repr(str(value) if isinstance(value, Path) else value)
    return f", not {shown if len(shown) <= _LONGEST_VALUE else f'{shown[:_LONGEST_VALUE]}...'}"


def _meant(path: list[str], value: object) -> str:
    """The nearest of the allowed words."""
    field = _field_at(path)
    words = [word for word in _choices(field.annotation) if isinstance(word, str)] if field is not None else []
    near = difflib.get_close_matches(str(value), words, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _choices(annotation: Any) -> Iterator[object]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    for part in get_args(annotation):
        yield from _choices(part)


def _field_at(path: list[str]) -> FieldInfo | None:
    """The setting at the path, or the one that has an item there."""
    model: type[BaseModel] | None = Settings
    field = None
    for name in path:
        found = model.model_fields.get(name) if model is not None else None
        if found is None:
            break
        field, model = found, _section(found)
    return field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _source(path: list[str], config: Path | None, overrides: Mapping[str, Any]) -> str:
    """The place that its value comes from: an option, a variable or the file."""
    where, given = str(config or "settings"), overrides
    variables = {name.upper(): name for name in os.environ}
    for length in range(1, len(path) + 1):
        where = variables.get(f"{ENV_PREFIX}{'__'.join(path[:length])}".upper(), where)
    for part in path:
        given = given.get(part, {}) if isinstance(given, Mapping) else given
    return "command line" if given not in ({}, None) else where

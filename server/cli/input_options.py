"""Options for the fields of the endpoint's input: names, types, ranges, defaults and help come from its schema."""

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeVar

import annotated_types
import typer
from pydantic.fields import FieldInfo

from server.fal.schemas import HunyuanCustomInput

ARGUMENTS: Final = ("image_url", "prompt")  # are arguments of the command

_LONGEST_DEFAULT: Final = 40  # characters that are shown

Command = TypeVar("Command", bound=Callable[..., None])


def with_input_options(command: Command) -> Command:
    """The command, which takes `**fields`, with one option for each field that is no argument."""
    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *_parameters()])  # type: ignore[attr-defined]
    return command


def _parameters() -> Iterator[inspect.Parameter]:
    for name, field in HunyuanCustomInput.model_fields.items():
        if name not in ARGUMENTS:
            annotation = Annotated[field.annotation, _option(name, field)]  # type: ignore[name-defined]  # made now
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def _option(name: str, field: FieldInfo) -> Any:
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        flag = f"{flag}/{flag.replace('--enable-', '--disable-')}"
    lowest, highest = (
        next((getattr(rule, bound) for rule in field.metadata if isinstance(rule, kind)), None)
        for kind, bound in ((annotated_types.Ge, "ge"), (annotated_types.Le, "le"))
    )
    has_range = lowest is not None and highest is not None
    return typer.Option(
        flag,
        help=field.description,
        min=lowest if has_range else None,
        max=highest if has_range else None,
        show_default=len(str(field.default)) <= _LONGEST_DEFAULT,
        rich_help_panel="Video",
    )

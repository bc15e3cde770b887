"""The offending input as an error shows it: a small part of it, and always encodable.

A body of 30 MB must not come back in every one of its errors, nor lie in the database with them.
"""

import json
import math
from typing import Any, Final

_STRING: Final = 200  # characters: a data: URI would echo megabytes
_BITS: Final = 128  # of a number that is still shown as one
_ALL: Final = 2048  # bytes of JSON, about


def echo(value: Any) -> Any:
    """The value with long strings cut, and without what does not fit."""
    return _Echo().of(value)


class _Echo:
    def __init__(self) -> None:
        self._left = _ALL

    def of(self, value: Any) -> Any:
        if isinstance(value, dict | list):
            self._left -= 4  # empty ones cost something too
        if isinstance(value, dict):
            shown: dict[str, Any] = {}
            for key, item in value.items():
                if self._left <= 0:
                    break
                shown[self._text(str(key))] = self.of(item)
            return shown
        if isinstance(value, list):
            listed: list[Any] = []
            for item in value:
                if self._left <= 0:
                    break
                listed.append(self.of(item))
            return listed
        if isinstance(value, str):
            return self._text(value)
        is_nan = isinstance(value, float) and not math.isfinite(value)
        is_huge = isinstance(value, int) and value.bit_length() > _BITS
        return self._text(str(value)) if is_nan or is_huge else self._counted(value)

    def _text(self, text: str) -> str:
        shown = text[: _STRING + 1].encode("utf-8", "backslashreplace").decode()
        return str(self._counted(shown if len(shown) <= _STRING else f"{shown[:_STRING]}…"))

    def _counted(self, value: Any) -> Any:
        self._left -= len(json.dumps(value)) + 2  # a comma or a colon, and a space
        return value

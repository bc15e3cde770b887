"""What every refusal has in common: one line that names file and key, and nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.command import run_command
from weights.convert import convert
from weights.errors import WeightsError
from weights.originals.layout import Variant


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_ino, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")}


def refused(original: Path, good: Path, kind: type[WeightsError], *words: str, variant: Variant | None = None) -> None:
    """By the function and at the command line, in one line with these words and with nothing changed."""
    before = snapshot(good)
    with pytest.raises(kind) as caught:
        convert(original, good, variant=variant)
    assert type(caught.value) is kind
    options = [] if variant is None else ["--variant", variant]
    told = run_command("weights", "convert", str(original), str(good), *options)
    assert (told.code, told.out) == (1, "")
    for message in (f"error: {caught.value}\n", told.err):
        assert message.startswith("error: ")
        assert message.index("\n") == len(message) - 1
        for word in words:
            assert word in message
    assert snapshot(good) == before
    assert sorted(path.name for path in good.parent.iterdir() if path.name.startswith(".")) == []

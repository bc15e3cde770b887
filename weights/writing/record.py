"""`conversion.json`: what a converted folder says about itself. Written last (`write_components`), read here alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weights.errors import CheckpointError
from weights.writing.component import read_json
from weights.writing.staging import MARKER
from weights.writing.written_file import WrittenFile


@dataclass(frozen=True)
class Record:
    """`content` is a JSON object, perhaps of another version; what it lacks is None, and its files are no files."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Raises `CheckpointError`: there is none, or it is damaged."""
        return cls(folder / MARKER, read_json(folder / MARKER))

    @property
    def format(self) -> object:
        """Version of the conversion."""
        return self.content.get("format")

    @property
    def variant(self) -> object:
        """Precision of the transformer."""
        return self.content.get("variant")

    @property
    def sources(self) -> object:
        """Size and time of every original."""
        return self.content.get("sources")

    def files(self) -> Sequence[WrittenFile]:
        """All files but this one. Raises `CheckpointError`."""
        try:
            return [
                WrittenFile(name=str(file["name"]), size=int(file["size"]), crc32=int(file["crc32"]))
                for file in self.content["files"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error!r})") from error

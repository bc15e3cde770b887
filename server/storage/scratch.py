"""The scratch directory of this machine: files in the making, renderings and checkpoints, before any store has them."""

import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CHECKPOINT = ".checkpoint"


class Scratch:
    """`tmp` in the data directory, which it shares with all processes of this machine."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "tmp"
        self._folder.mkdir(parents=True, exist_ok=True)

    def free_bytes(self) -> int:
        """Space left where files are made."""
        return shutil.disk_usage(self._folder).free

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A path for a file in the making; removed if it is still there at the end of the block."""
        path = self._folder / f"{secrets.token_hex(8)}-{name}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def rendering(self, name: str) -> Path:
        """Where a generator writes its video; `publish` moves it to a key."""
        return self._folder / name

    def forget_rendering(self, video: Path) -> None:
        """Remove one, the picture beside it, and what is left of one whose generator was killed while it wrote."""
        for path in self._folder.glob(f"{video.stem}.*"):
            path.unlink(missing_ok=True)

    def checkpoint(self, request_id: str) -> Path:
        """Where a generator saves the state of a request's render."""
        return self._folder / f"{request_id}{_CHECKPOINT}"

    def cut_out(self, request_id: str) -> Path:
        """Where a generator saves the picture that it made of a request's image: part of the checkpoint."""
        return self._folder / f"{request_id}{_CHECKPOINT}.png"

    def forget_checkpoint(self, request_id: str) -> None:
        """Remove it, and what is left of one that was being written when its generator was killed."""
        for path in self._folder.glob(f"{request_id}{_CHECKPOINT}*"):
            path.unlink(missing_ok=True)

    def checkpoints(self) -> list[str]:
        """The requests that have one on this machine."""
        return [path.name.removesuffix(_CHECKPOINT) for path in self._folder.glob(f"*{_CHECKPOINT}")]

    def sweep(self, *, older_than_s: float, but_not_of: Collection[str] = ()) -> int:
        """Remove what killed processes left here, except the files of these requests; returns how many that were."""
        needed = tuple(but_not_of)
        return _remove((path for path in self._folder.iterdir() if not path.name.startswith(needed)), older_than_s)

    def sweep_parts(self, *, older_than_s: float) -> int:
        """Remove what killed processes left half written, anywhere in the data directory."""
        return _remove((path for path in files_below(self._data_dir) if path.suffix == ".part"), older_than_s)


def scratch_thumbnail(rendering: Path) -> Path:
    """Where a generator leaves a picture of the clip that it has rendered."""
    return rendering.with_suffix(".webp")


def files_below(root: Path) -> Iterator[Path]:
    """All files of a tree, whose directories may come and go meanwhile (with `Path.rglob` that is an error)."""
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)


def _remove(paths: Iterable[Path], older_than_s: float) -> int:
    limit, removed = time.time() - older_than_s, 0
    for path in paths:
        with suppress(FileNotFoundError):  # another process has finished with it
            if path.stat().st_mtime < limit:
                path.unlink()
                removed += 1
    return removed

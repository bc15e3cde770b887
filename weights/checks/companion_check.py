"""Is a companion complete in its folder? By name, size and header; its contents too, if asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weights.errors import VerifyError, WeightsError
from weights.hub.lock_file import LockFile, check_hash, check_size
from weights.reporter import Progress, ignore
from weights.writing.safetensors_file import list_safetensors

_NEEDED = ("config.json", "preprocessor_config.json", "model.safetensors")


def check_companion(folder: Path) -> None:
    """Raise `VerifyError`: the first file that is missing or damaged, and the command that repairs it."""
    for fault in companion_faults(folder, contents=False):
        raise VerifyError(fault)


def companion_faults(folder: Path, *, contents: bool, progress: Progress = ignore) -> Iterator[str]:
    """One line for each file that is not what it must be."""
    only_fp8 = (folder.parent / "fp8").is_dir() and not (folder.parent / "bf16").is_dir()  # no second one of 26 GB
    model = f"--variant fp8 --out {folder.parent / 'fp8'}" if only_fp8 else f"--out {folder.parent / 'bf16'}"
    command = f"run: hunyuan-custom weights prepare {model}"
    try:
        lock = LockFile.read(folder)
    except WeightsError as error:
        yield f"{error}; delete it and {command}"
        return
    for name in _NEEDED:
        path = folder / name
        try:
            if not path.is_file():
                raise VerifyError(f"{path}: missing")
            if name in lock.files:
                check_size(path, lock.files[name])
                if contents:
                    check_hash(path, lock.files[name], progress)
            if path.suffix == ".safetensors":
                list_safetensors(path)
        except WeightsError as error:
            yield f"{error}; {command}"

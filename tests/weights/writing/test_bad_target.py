"""A target that cannot be written or replaced: disk full, read-only, not a conversion."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.harness.command import run_command
from tests.harness.original_files import CLIP_WEIGHTS, DIT, LLAVA_WEIGHTS, VAE
from tests.harness.refusals import refused
from weights.convert import convert
from weights.errors import TargetError


class SmallDisk(io.FileIO):
    """A file on a disk that has room for `capacity` bytes."""

    def __init__(self, path: Path, capacity: int) -> None:
        super().__init__(path, "wb")
        self._left = capacity

    def write(self, data: Any) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def _cannot_link(*_: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder", "text_encoder_2"])
def test_the_disk_fills_up_at_60_percent(
    original: Path, good: Path, component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"transformer": DIT, "vae": VAE, "text_encoder": LLAVA_WEIGHTS, "text_encoder_2": CLIP_WEIGHTS}[component]
    capacity = int(0.6 * (original / left).stat().st_size)
    opened = Path.open

    def open_on_a_small_disk(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "wb" and f"/{component}/" in str(path):
            return SmallDisk(path, capacity)
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_on_a_small_disk)
    monkeypatch.setattr(os, "link", _cannot_link)  # the encoders are copied
    refused(original, good, TargetError, f"/{component}/", "the disk is full")


def test_too_little_disk_is_noticed_before_anything_is_written(
    original: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(good)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000_000))  # noqa: ARG005
    refused(original, good, TargetError, str(good), "0.1 GB are free")


def test_a_read_only_target(original: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def read_only(path: Path, *args: object, **options: object) -> None:
        if path.name == ".good.converting":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(original, good, TargetError, str(good.parent), "read-only")


def test_a_folder_with_other_files_is_not_replaced(original: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").touch()
    with pytest.raises(TargetError, match="not a conversion made here"):
        convert(original, tmp_path / "photos")
    assert (tmp_path / "photos/me.jpg").exists()


def test_a_target_that_is_a_link_to_itself(original: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for target in (loop, loop / "inside"):
        told = run_command("weights", "convert", str(original), str(target))
        assert told.code == 1
        assert told.err == f"error: {target}: cannot be written (a link that leads to itself)\n"


def test_a_mount_point_cannot_be_exchanged(original: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == good)
    refused(original, good, TargetError, str(good), "mount point")


def test_what_the_system_refuses_is_one_line_too(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    for command in (["verify", str(original)], ["convert", str(original), str(original.parent / "out")]):
        told = run_command("weights", *command)
        assert told.code == 1
        assert told.err.startswith("error: ")
        assert "Permission denied" in told.err
        assert told.err.count("\n") == 1

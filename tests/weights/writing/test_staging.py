"""A conversion replaces its target whole or not at all, whenever a run is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.original_files import DIT
from weights.checks.loading_check import check_loadable
from weights.checks.verify import verify
from weights.convert import convert, is_current
from weights.errors import TargetError
from weights.reporter import Reporter
from weights.writing import staging
from weights.writing.staging import MARKER

HANGING = """
import sys, time
from pathlib import Path
from weights import convert
from weights.writing import shard_writer, staging
def hang():
    print("there", flush=True)
    time.sleep(600)
def hang_in_the_vae(path, parts, progress, write=shard_writer.write_file):
    written = write(path, parts, progress=progress)
    if "/vae/" in str(path):
        hang()
    return written
def hang_after(first, second, exchange=staging._exchange):
    exchange(first, second)
    hang()
if sys.argv[3] == "writing":
    shard_writer.write_file = hang_in_the_vae
else:
    staging._exchange = hang_after
convert.convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@contextlib.contextmanager
def killed_while(moment: str, original: Path, out: Path) -> Iterator[None]:
    """A conversion in a process of its own that gets as far as `moment`, and no further than the block."""
    command = [sys.executable, "-c", HANGING, str(original), str(out), moment]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        try:
            yield
        finally:
            process.kill()


def test_a_killed_run_leaves_nothing_that_loads_and_the_next_one_starts_cleanly(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with killed_while("writing", original, out), pytest.raises(TargetError, match="another run into this folder"):
        convert(original, out)
    assert not out.exists()
    assert list(tmp_path.rglob("model_index.json")) == []
    convert(original, out)
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


@pytest.mark.parametrize("moment", ["writing", "exchanging"])
def test_killed_over_a_good_conversion_there_is_one_that_loads_at_every_moment(
    original: Path, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "out"
    convert(original, out)
    before = (out / MARKER).stat().st_ino
    with killed_while(moment, original, out):
        check_loadable(out)
    assert verify(out) == []
    assert ((out / MARKER).stat().st_ino == before) == (moment == "writing")
    notes: list[str] = []
    verify(out, contents=False, reporter=Reporter(say=notes.append))
    assert any(".out.converting" in note and "GB" in note for note in notes)
    convert(original, out)
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_without_an_exchange_two_renames_do(
    original: Path, converted_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(converted_once, tmp_path / "out")
    before = (out / MARKER).stat().st_ino
    monkeypatch.setattr(staging, "_exchange", lambda first, second: False)  # noqa: ARG005
    convert(original, out)
    assert (out / MARKER).stat().st_ino != before
    assert verify(out) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_what_a_killed_run_left_does_not_count_as_used_disk(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".out.converting").mkdir()
    (tmp_path / ".out.converting/big").write_bytes(bytes(50_000_000))
    usage = shutil.disk_usage(tmp_path)

    def nearly_full(_path: Path) -> object:
        used = sum(path.stat().st_size for path in (tmp_path / ".out.converting").rglob("*"))
        return usage._replace(free=140_000_000 - used)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    convert(original, tmp_path / "out")
    assert verify(tmp_path / "out") == []


def test_only_our_own_errors_are_the_target_s(tmp_path: Path) -> None:
    """What goes wrong inside the block has nothing to do with this folder."""
    for folder in (staging.staged_folder(tmp_path / "out"), staging.scratch_folder(tmp_path / "scratch", 0)):
        with pytest.raises(ConnectionResetError), folder:
            raise ConnectionResetError
    assert list(tmp_path.iterdir()) == []


def test_a_link_as_target_means_the_folder_it_leads_to(original: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big/model")
    convert(original, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert verify(tmp_path / "big/model") == []


def test_a_conversion_is_current_until_an_original_changes(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not is_current(original, out, None)
    convert(original, out)
    assert is_current(original, out, None)
    record = (out / MARKER).read_bytes()
    for damaged in (record[:100], b"\xff\xfe", b"[]"):
        (out / MARKER).write_bytes(damaged)
        assert not is_current(original, out, None)
    (out / MARKER).write_bytes(record)
    os.utime(original / DIT, (1, 1))
    assert not is_current(original, out, None)


def test_a_conversion_replaces_an_older_one_and_what_a_killed_run_left(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(original, out)
    before = (out / "transformer/diffusion_pytorch_model.safetensors").stat().st_ino
    (tmp_path / ".out.converting/transformer").mkdir(parents=True)
    (tmp_path / ".out.converting/transformer/left").touch()
    convert(original, out)
    assert (out / "transformer/diffusion_pytorch_model.safetensors").stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["originals", "out"]


def test_killed_between_the_two_renames_the_older_conversion_comes_back(original: Path, tmp_path: Path) -> None:
    convert(original, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.replaced")
    shutil.rmtree(original)
    with pytest.raises(Exception, match="missing"):
        convert(original, tmp_path / "out")
    with staging.staged_folder(tmp_path / "out"):
        assert (tmp_path / "out/model_index.json").is_file()


def test_an_empty_folder_may_be_the_target(original: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(original, tmp_path / "out")
    assert verify(tmp_path / "out") == []

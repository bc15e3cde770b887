"""What cannot be loaded is refused by file name and with the command to run, before anything is loaded."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from weights.checks.loading_check import check_loadable
from weights.convert import convert
from weights.errors import VerifyError
from weights.originals.layout import Variant
from weights.writing.staging import MARKER

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def converted(converted_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(converted_once, tmp_path / "out")


def test_a_sound_folder_passes_with_and_without_its_record(converted: Path) -> None:
    check_loadable(converted)
    (converted / MARKER).unlink()
    check_loadable(converted)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_truncated_file_is_named(converted: Path, recorded: bool) -> None:
    if not recorded:
        (converted / MARKER).unlink()
    (converted / VAE).write_bytes((converted / VAE).read_bytes()[:-1])
    with pytest.raises(
        VerifyError, match=r"vae/diffusion_pytorch_model.*truncated.*run: hunyuan-custom weights prepare"
    ):
        check_loadable(converted)


def test_a_missing_file_is_named(converted: Path) -> None:
    (converted / VAE).unlink()
    with pytest.raises(VerifyError, match=r"vae/diffusion_pytorch_model.safetensors: missing"):
        check_loadable(converted)


def test_an_empty_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"run: hunyuan-custom weights prepare --out .+"):
        check_loadable(tmp_path / "none")


def test_the_command_makes_the_same_variant_again(fp8_original: Path, tmp_path: Path) -> None:
    out = convert(fp8_original, tmp_path / "out", variant=Variant.FP8).target
    (out / VAE).unlink()
    with pytest.raises(VerifyError, match=r"run: hunyuan-custom weights prepare --variant fp8 --out .+/out"):
        check_loadable(out)
    (out / MARKER).write_text('{"files": 7}')
    with pytest.raises(VerifyError, match=r"run: hunyuan-custom weights prepare --out .+/out"):
        check_loadable(out)


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"weight_map": 7}'])
def test_a_damaged_file_of_names_is_the_one_that_is_named(converted: Path, damaged: str) -> None:
    index = converted / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    for path in (index, converted / MARKER):  # the record is looked at first
        path.write_text(damaged)
        with pytest.raises(VerifyError, match=f"^{re.escape(str(path))}: "):
            check_loadable(converted)

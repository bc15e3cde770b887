"""Companions: fetched from a hub on 127.0.0.1 into folders beside the model, pinned, and verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from weights.checks.companion_check import check_companion
from weights.checks.verify import verify
from weights.errors import DownloadError, VerifyError
from weights.hub.lock_file import LockFile
from weights.hub.manifest import Manifest, read_manifest
from weights.prepare import prepare_companions
from weights.reporter import Reporter


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest()


@pytest.fixture
def published(hub: Any, manifest: Manifest, tmp_path: Path) -> None:
    """Every companion of the manifest on the fake hub, with what else its repository holds."""
    for companion in manifest.companions:
        folder = tmp_path / "hub" / companion.name
        folder.mkdir(parents=True)
        for name in (*companion.files, "pytorch_model.bin", "optimizer.pt"):
            (folder / name).write_text(f'{{"of": "{companion.name}"}}')
        save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
        hub.publish(companion.repository.name, folder)


def fetch(manifest: Manifest, models: Path) -> list[str]:
    lines: list[str] = []
    prepare_companions(manifest, models, reporter=Reporter(say=lines.append))
    return lines


@pytest.mark.usefixtures("published")
def test_companions_are_fetched_once_without_what_is_not_needed(hub: Any, manifest: Manifest, tmp_path: Path) -> None:
    lines = fetch(manifest, tmp_path / "models")
    assert f"{tmp_path}/models/safety: ready (Falconsai/nsfw_image_detection, Apache-2.0)" in lines
    assert "optimizer.pt" not in hub.fetched()
    for companion in manifest.companions:
        lock = LockFile.read(tmp_path / "models" / companion.folder)
        assert (lock.licence, set(lock.files)) == (companion.licence, set(companion.files))
        assert verify(tmp_path / "models" / companion.folder) == []
    hub.requests.clear()
    fetch(manifest, tmp_path / "models")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("there", "command"),
    [((), "--out models/bf16"), (("fp8",), "--variant fp8 --out models/fp8"), (("bf16", "fp8"), "--out models/bf16")],
)
def test_a_missing_companion_comes_with_the_command_for_the_model_that_is_there(
    there: tuple[str, ...], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variant in there:
        (tmp_path / "models" / variant).mkdir(parents=True)
    with pytest.raises(VerifyError, match=f"run: hunyuan-custom weights prepare {command}$"):
        check_companion(Path("models/safety"))


@pytest.mark.usefixtures("published")
def test_a_damaged_companion_is_named_and_fetched_again(manifest: Manifest, tmp_path: Path) -> None:
    fetch(manifest, tmp_path / "models")
    weights = tmp_path / "models/safety/model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1])
    with pytest.raises(VerifyError, match=r"model\.safetensors: .* bytes, .*run: hunyuan-custom weights prepare --out"):
        check_companion(weights.parent)
    weights.write_bytes(good[:-1] + b"x")
    check_companion(weights.parent)
    assert "sha256" in verify(weights.parent)[0], "contents are compared by verify alone"
    weights.unlink()
    fetch(manifest, tmp_path / "models")
    assert weights.read_bytes() == good


@pytest.mark.usefixtures("published")
def test_the_lock_refuses_another_file_and_a_repository_without_one(
    hub: Any, manifest: Manifest, tmp_path: Path
) -> None:
    fetch(manifest, tmp_path / "models")
    (tmp_path / "models/safety/config.json").unlink()
    hub.repositories["Falconsai/nsfw_image_detection"]["config.json"] += b" "
    with pytest.raises(DownloadError, match="not the lock file's"):
        fetch(manifest, tmp_path / "models")
    del hub.repositories["Falconsai/nsfw_image_detection"]["config.json"]
    with pytest.raises(DownloadError, match=r"config\.json: not in the repository"):
        fetch(manifest, tmp_path / "models")


def test_every_companion_has_a_licence_that_allows_its_use(manifest: Manifest) -> None:
    assert {companion.name for companion in manifest.companions} == {"safety", "segmenter"}
    assert {companion.licence for companion in manifest.companions} <= {"Apache-2.0", "MIT", "BSD-3-Clause"}

"""Download and prepare against a hub on 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from weights import download as download_module
from weights.download import download
from weights.errors import DownloadError, TargetError, WeightsError
from weights.hub import partial_path
from weights.lock_file import LOCK_NAME, LockFile
from weights.manifest import Manifest, read_manifest
from weights.original_layout import Variant
from weights.prepare import Reporter, prepare
from weights.staging import MARKER
from weights.verify import verify

DIT = "models/hunyuancustom_720P/mp_rank_00_model_states.pt"
LLAVA = "models/llava-llama-3-8b-v1_1"


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest()


@pytest.fixture
def published(hub: Any, original: Path) -> Path:
    """The tiny model as `tencent/HunyuanCustom` on the fake hub."""
    hub.publish("tencent/HunyuanCustom", original)
    return original


def get(manifest: Manifest, folder: Path, *, accept: bool = True, variant: Variant = Variant.BF16) -> int:
    return download(manifest, variant, folder, ask=lambda notice: accept, say=lambda line: None)  # noqa: ARG005


def test_everything_is_fetched_once_and_locked(hub: Any, published: Path, tmp_path: Path, manifest: Manifest) -> None:
    folder = tmp_path / "originals2"
    fetched = get(manifest, folder)
    lock = LockFile.read(folder)
    assert fetched == len(lock.files) > 10
    assert lock.files[DIT].commit == "a" * 40
    assert lock.files[DIT].hash.startswith("sha256:")
    assert lock.files[f"{LLAVA}/config.json"].hash.startswith("git-sha1:")
    assert (folder / DIT).read_bytes() == (published / DIT).read_bytes()
    shutil.copy(published / "models/hunyuancustom_720P/config.json", (folder / DIT).parent)  # ours alone: tiny sizes
    assert verify(folder) == []
    hub.requests.clear()
    assert get(manifest, folder) == 0
    assert hub.requests == []


def test_a_listing_without_models_in_front_and_a_fallback_repository(
    hub: Any, original: Path, tmp_path: Path, manifest: Manifest
) -> None:
    llava = tmp_path / "llava"
    shutil.move(original / LLAVA, llava)
    hub.publish("tencent/HunyuanCustom", original / "models")
    hub.publish("xtuner/llava-llama-3-8b-v1_1-transformers", llava, commit="b" * 40)
    get(manifest, tmp_path / "new")
    locked = LockFile.read(tmp_path / "new").files["llava-llama-3-8b-v1_1/tokenizer.json"]
    assert (locked.repository, locked.commit, locked.path) == (
        "xtuner/llava-llama-3-8b-v1_1-transformers",
        "b" * 40,
        "tokenizer.json",
    )


@pytest.mark.usefixtures("published")
def test_a_killed_download_goes_on_where_it_ended(hub: Any, tmp_path: Path, manifest: Manifest) -> None:
    folder = tmp_path / "new"
    get(manifest, folder)
    lock = LockFile.read(folder)
    content = (folder / DIT).read_bytes()
    part = partial_path(folder / DIT, lock.files[DIT])
    part.write_bytes(content[:1_000_000])
    (folder / DIT).unlink()
    hub.requests.clear()
    assert get(manifest, folder) == 1
    ranges = [sent for _, path, sent in hub.requests if path.endswith("mp_rank_00_model_states.pt")]
    assert "bytes=1000000-" in ranges
    assert (folder / DIT).read_bytes() == content
    assert not part.exists()


def test_a_dropped_connection_is_resumed(hub: Any, published: Path, tmp_path: Path, manifest: Manifest) -> None:
    hub.cut = 1_500_000
    get(manifest, tmp_path / "new")
    assert (tmp_path / "new" / DIT).read_bytes() == (published / DIT).read_bytes()
    assert any(sent not in (None, "bytes=0-") for _, _, sent in hub.requests)


@pytest.mark.usefixtures("published")
def test_damage_on_the_way_is_noticed_and_not_kept(hub: Any, tmp_path: Path, manifest: Manifest) -> None:
    hub.damaged = True
    with pytest.raises(DownloadError, match=r"mp_rank_00_model_states\.pt: arrived damaged"):
        get(manifest, tmp_path / "new")
    assert not any(path.suffix in (".pt", ".part") for path in (tmp_path / "new").rglob("*"))


@pytest.mark.usefixtures("published")
def test_a_declined_licence_downloads_nothing_and_is_asked_once(hub: Any, tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(DownloadError, match="not accepted"):
        get(manifest, tmp_path / "new", accept=False)
    assert hub.requests == []
    get(manifest, tmp_path / "new")
    (tmp_path / "new" / DIT).unlink()
    assert get(manifest, tmp_path / "new", accept=False) == 1


@pytest.mark.usefixtures("published")
def test_disk_space_is_checked_before_the_first_byte(
    hub: Any, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4_000_000))  # noqa: ARG005
    with pytest.raises(TargetError, match="GB of disk"):
        get(manifest, tmp_path / "new")
    assert hub.fetched() == []


@pytest.mark.usefixtures("published")
def test_the_lock_pins_the_commit_and_refuses_another_file(hub: Any, tmp_path: Path, manifest: Manifest) -> None:
    get(manifest, tmp_path / "new")
    (tmp_path / "new" / DIT).unlink()
    hub.commits["tencent/HunyuanCustom"] = "c" * 40  # the branch moved on and the old commit is gone
    with pytest.raises(DownloadError, match="no such revision"):
        get(manifest, tmp_path / "new")
    hub.commits["tencent/HunyuanCustom"] = "a" * 40
    hub.repositories["tencent/HunyuanCustom"][DIT] += b"x"
    with pytest.raises(DownloadError, match="not the lock file's"):
        get(manifest, tmp_path / "new")


@pytest.mark.usefixtures("published")
def test_what_the_hub_refuses_is_one_line(
    hub: Any, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadError, match=r"_fp8\.pt: not in the repository"):
        get(manifest, tmp_path / "new", variant=Variant.FP8)
    hub.token = "secret"
    with pytest.raises(DownloadError, match="refused; is HF_TOKEN set") as caught:
        get(manifest, tmp_path / "new")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(DownloadError, match="run again"):
        get(manifest, tmp_path / "new")


def test_files_brought_by_other_means_are_not_fetched_again(
    hub: Any, published: Path, tmp_path: Path, manifest: Manifest
) -> None:
    folder = tmp_path / "new"
    (folder / DIT).parent.mkdir(parents=True)
    shutil.copy(published / DIT, folder / DIT)
    vae = folder / "models/vae_3d/hyvae_v1_0801/pytorch_model.pt"
    vae.parent.mkdir(parents=True)
    vae.write_bytes(bytes((published / vae.relative_to(folder)).stat().st_size))  # right size, wrong content
    get(manifest, folder)
    assert "mp_rank_00_model_states.pt" not in hub.fetched()
    assert vae.read_bytes() == (published / vae.relative_to(folder)).read_bytes()


def test_prepare_does_everything_once(
    hub: Any, published: Path, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals, target, lines = tmp_path / "new", tmp_path / "ready", []
    fetch_verified = download_module._fetch_verified

    def with_tiny_sizes(locked: Any, destination: Path) -> None:
        fetch_verified(locked, destination)
        if destination.name == "mp_rank_00_model_states.pt":
            shutil.copy(published / "models/hunyuancustom_720P/config.json", destination.parent)

    monkeypatch.setattr(download_module, "_fetch_verified", with_tiny_sizes)

    def run() -> None:
        reporter = Reporter(say=lines.append, start=lambda total: None, progress=lambda count: None)  # noqa: ARG005
        prepare(
            manifest,
            Variant.BF16,
            originals=originals,
            target=target,
            ask=lambda notice: True,  # noqa: ARG005
            reporter=reporter,
        )

    run()
    assert verify(target) == []
    stamp, before = (target / MARKER).stat().st_mtime_ns, len(hub.requests)
    run()
    assert ((target / MARKER).stat().st_mtime_ns, len(hub.requests)) == (stamp, before)
    assert lines[-1] == f"{target}: ready"
    (target / "vae/diffusion_pytorch_model.safetensors").unlink()
    run()
    assert verify(target) == []
    assert len(hub.requests) == before
    shutil.rmtree(originals)
    run()
    assert "originals are gone" in lines[-1]
    assert len(hub.requests) == before


@pytest.mark.usefixtures("published")
def test_the_command_honours_endpoint_and_token(hub: Any, tmp_path: Path) -> None:
    hub.token = "secret"
    command = [sys.executable, "-c", "from weights.commands import app; app()", "download", "--originals", "new"]
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "secret",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    refused = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "--accept-licence" in refused.stderr
    assert "Tencent" in refused.stdout
    done = subprocess.run(
        [*command, "--accept-licence"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / DIT).is_file()
    assert json.loads((tmp_path / "new" / LOCK_NAME).read_text())["licence"].startswith("Tencent")


def test_a_manifest_with_a_wrong_entry_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    text = Path(__file__).parents[2].joinpath("configs/weights.toml").read_text()
    path.write_text(text.replace("gigabytes = 25.6", "gigabites = 25.6"))
    with pytest.raises(WeightsError, match="gigabites"):
        read_manifest(path)
    path.write_text("[licence")
    with pytest.raises(WeightsError, match=r"weights\.toml"):
        read_manifest(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_manifest(tmp_path / "none.toml")

"""Download and prepare against a hub on 127.0.0.1."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import load_file

from tests.harness.original_files import DIT
from weights.checks.verify import verify
from weights.errors import DownloadError, TargetError, WeightsError
from weights.hub import download as download_module
from weights.hub.download import download, remove_damaged
from weights.hub.lock_file import LOCK_NAME, LockFile
from weights.hub.manifest import Manifest, read_manifest
from weights.hub.repository import partial_path
from weights.originals.layout import Variant
from weights.prepare import prepare
from weights.reporter import Reporter
from weights.writing.staging import MARKER

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
    return download(manifest, variant, folder, ask=lambda notice: accept)  # noqa: ARG005


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
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # a closed port
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


@pytest.mark.usefixtures("published")
def test_progress_adds_up_to_what_was_to_be_fetched(tmp_path: Path, manifest: Manifest) -> None:
    total: list[int] = []
    done: list[int] = []
    reporter = Reporter(start=lambda _, nbytes: total.append(nbytes), progress=done.append)
    download(manifest, Variant.BF16, tmp_path / "new", ask=lambda _: True, reporter=reporter)
    assert total == [sum(done)]
    assert sum(done) > 0


@pytest.fixture
def with_tiny_sizes(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the transformer is fetched, the config that says how tiny it is comes along."""
    fetch_verified = download_module._fetch_verified

    def fetch(locked: Any, destination: Path, progress: Any) -> None:
        fetch_verified(locked, destination, progress)
        if destination.parent.name == "hunyuancustom_720P":
            shutil.copy(published / "models/hunyuancustom_720P/config.json", destination.parent)

    monkeypatch.setattr(download_module, "_fetch_verified", fetch)


def run_prepare(manifest: Manifest, originals: Path, target: Path, variant: Variant = Variant.BF16) -> list[str]:
    lines: list[str] = []
    reporter = Reporter(say=lines.append)
    ask = lambda notice: True  # noqa: ARG005, E731
    prepare(manifest, variant, originals=originals, target=target, ask=ask, reporter=reporter)
    return lines


@pytest.mark.usefixtures("with_tiny_sizes")
def test_prepare_does_everything_once(hub: Any, tmp_path: Path, manifest: Manifest) -> None:
    originals, target = tmp_path / "new", tmp_path / "ready"
    run_prepare(manifest, originals, target)
    assert verify(target) == []
    stamp, before = (target / MARKER).stat().st_mtime_ns, len(hub.requests)
    assert run_prepare(manifest, originals, target)[-1] == f"{target}: ready"
    assert ((target / MARKER).stat().st_mtime_ns, len(hub.requests)) == (stamp, before)
    (target / "vae/diffusion_pytorch_model.safetensors").unlink()
    run_prepare(manifest, originals, target)
    assert verify(target) == []
    (target / MARKER).write_bytes(b"\0" * 100)
    run_prepare(manifest, originals, target)
    assert verify(target) == []
    assert len(hub.requests) == before
    shutil.rmtree(originals)
    assert "originals are gone" in run_prepare(manifest, originals, target)[-1]
    assert len(hub.requests) == before


@pytest.mark.usefixtures("with_tiny_sizes")
def test_prepare_of_another_variant_is_not_ready_with_this_one(
    hub: Any, fp8_original: Path, tmp_path: Path, manifest: Manifest
) -> None:
    hub.publish("tencent/HunyuanCustom", fp8_original)
    target = tmp_path / "ready"
    run_prepare(manifest, tmp_path / "bf16", target)
    shutil.rmtree(tmp_path / "bf16")
    run_prepare(manifest, tmp_path / "fp8", target, Variant.FP8)
    assert json.loads((target / MARKER).read_text())["variant"] == "fp8"
    assert run_prepare(manifest, tmp_path / "fp8", target, Variant.FP8)[-1] == f"{target}: ready"


@pytest.mark.usefixtures("with_tiny_sizes")
def test_an_original_damaged_since_its_download_is_fetched_again(
    hub: Any, published: Path, tmp_path: Path, manifest: Manifest
) -> None:
    originals, target = tmp_path / "new", tmp_path / "ready"
    get(manifest, originals)
    for name in (DIT, f"{LLAVA}/model.safetensors"):
        damaged = bytearray((published / name).read_bytes())
        damaged[len(damaged) // 2 : len(damaged) // 2 + 8] = b"\xff" * 8
        (originals / name).write_bytes(damaged)
    assert [DIT in fault and "delete it and run" in fault for fault in verify(originals)[:1]] == [True]
    hub.requests.clear()
    lines = run_prepare(manifest, originals, target)
    assert sum("removed, to be fetched again" in line for line in lines) == 2
    assert sorted(set(hub.fetched())) == ["model.safetensors", "mp_rank_00_model_states.pt"]
    assert verify(target) == []


def test_only_the_chosen_variant_s_damaged_files_are_removed(
    hub: Any, fp8_original: Path, tmp_path: Path, manifest: Manifest
) -> None:
    """The other variant lies in the same folder, and the download that follows would not bring it back."""
    hub.publish("tencent/HunyuanCustom", fp8_original)
    folder = tmp_path / "both"
    for variant in Variant:
        get(manifest, folder, variant=variant)
    fp8 = (folder / DIT).with_name("mp_rank_00_model_states_fp8.pt")
    for path in (folder / DIT, fp8):
        path.write_bytes(path.read_bytes()[:-1])
    assert remove_damaged(Variant.FP8, folder, manifest, lambda line: None)  # noqa: ARG005
    assert ((folder / DIT).exists(), fp8.exists()) == (True, False)


@pytest.mark.usefixtures("published")
def test_prepare_refuses_a_hopeless_target_before_it_downloads(hub: Any, tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").touch()
    with pytest.raises(TargetError, match="not a conversion made here"):
        run_prepare(manifest, tmp_path / "new", tmp_path / "photos")
    assert hub.requests == []


@pytest.mark.usefixtures("published")
def test_disk_space_counts_what_will_be_written_and_where(
    hub: Any, published: Path, tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(download_module, "require_space", lambda folder, needed: asked.append((folder, needed)))
    originals, target = tmp_path / "a/new", tmp_path / "b/ready"
    get(manifest, originals)
    sizes = {name: locked.size for name, locked in LockFile.read(originals).files.items()}
    linked = sizes[f"{LLAVA}/model.safetensors"]
    assert asked == [(originals, 2 * sum(sizes.values()) - linked)], "CLIP's text tower is written, LLaVA linked"
    shutil.rmtree(originals)
    asked.clear()
    monkeypatch.setattr(download_module, "same_disk", lambda first, second: False)  # noqa: ARG005
    download(manifest, Variant.BF16, originals, ask=lambda _: True, target=target)
    assert asked == [(originals, sum(sizes.values())), (target, sum(sizes.values()))]
    weights = published / LLAVA / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    hub.publish("tencent/HunyuanCustom", published, commit="d" * 40)
    monkeypatch.setattr(download_module, "same_disk", lambda first, second: True)  # noqa: ARG005
    asked.clear()
    get(manifest, tmp_path / "bins")
    sizes = {name: locked.size for name, locked in LockFile.read(tmp_path / "bins").files.items()}
    assert asked == [(tmp_path / "bins", 2 * sum(sizes.values()))]


@pytest.mark.parametrize("where", ["file/new", "/proc/nowhere"])
@pytest.mark.usefixtures("published")
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, manifest: Manifest, where: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match="cannot be written"):
        get(manifest, tmp_path / where)


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only file system")]
)
@pytest.mark.usefixtures("published")
def test_a_disk_that_refuses_during_the_download_is_named_with_the_file(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file_download, "http_get", refuse)
    with pytest.raises(TargetError, match=rf"\.part: cannot be written \({words}\)"):
        get(manifest, tmp_path / "new")


@pytest.mark.usefixtures("published")
def test_the_command_honours_endpoint_and_token(hub: Any, tmp_path: Path) -> None:
    hub.token = "secret"
    command = [sys.executable, "-m", "server", "weights", "download", "--originals", "new"]
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "secret",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[3]),
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
    text = Path(__file__).parents[3].joinpath("configs/weights.toml").read_text()
    path.write_text(text.replace("gigabytes = 25.6", "gigabites = 25.6"))
    with pytest.raises(WeightsError, match="gigabites"):
        read_manifest(path)
    path.write_text("[licence")
    with pytest.raises(WeightsError, match=r"weights\.toml"):
        read_manifest(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_manifest(tmp_path / "none.toml")

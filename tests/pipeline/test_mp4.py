"""pipeline/mp4.py against the real ffmpeg, and against stand-ins that die, flood or are missing."""

import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pipeline.mp4 import Mp4Error, write_mp4
from tests.harness.outages import mounted

ORANGE = (230, 120, 40)


def clip(num_frames: int, *, size: tuple[int, int] = (32, 48), chunk: int = 3) -> Iterator[np.ndarray]:
    """Orange above, a bar that grows with the frame number below."""
    height, width = size
    for start in range(0, num_frames, chunk):
        frames = np.empty((min(chunk, num_frames - start), height, width, 3), np.uint8)
        frames[:] = ORANGE
        for offset, frame in enumerate(frames):
            frame[height // 2 :, : 2 * (start + offset)] = 20
        yield frames


def noise(num_frames: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(num_frames):
        yield random.integers(0, 256, (1, 128, 256, 3), np.uint8)


def probe(path: Path) -> str:
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    return subprocess.run([ffmpeg, "-hide_banner", "-i", path], capture_output=True, text=True, check=False).stderr


def decode(path: Path, *, width: int, height: int) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def children() -> set[str]:
    return set(Path("/proc/self/task").joinpath(str(os.getpid()), "children").read_text().split())


@pytest.fixture(autouse=True)
def no_process_survives() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("fps", [16, 25, 30])
def test_the_file_is_what_a_browser_plays(tmp_path: Path, fps: int) -> None:
    path = tmp_path / "video.mp4"
    size = write_mp4(clip(13), path, fps=fps, num_frames=13, width=96, height=64, threads=1)
    video = re.search(r"Video: .*", probe(path))
    assert video is not None
    for fact in ("h264", "yuv420p(tv, bt709", "96x64", f" {fps} fps"):
        assert fact in video[0]
    content = path.read_bytes()
    assert len(content) == size
    assert content.index(b"moov") < content.index(b"mdat")
    assert [child.name for child in tmp_path.iterdir()] == ["video.mp4"]


def test_colours_and_order_survive_the_way_through_yuv(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_mp4(clip(17), path, fps=25, num_frames=17, width=48, height=32, threads=1)
    frames = decode(path, width=48, height=32)
    assert len(frames) == 17
    assert np.abs(frames[:, 2:12].astype(int) - ORANGE).max() <= 8
    bars = (frames[:, 24].astype(int).sum(axis=-1) < 200).sum(axis=-1)
    assert np.abs(bars - 2 * np.arange(17)).max() <= 2


def test_extra_frames_are_dropped_and_small_frames_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    frames = clip(133, size=(16, 28), chunk=3)
    write_mp4(frames, path, fps=25, num_frames=130, width=112, height=64, threads=1)
    assert not list(frames), "the source was not read to its end"
    assert "112x64" in probe(path)
    assert len(decode(path, width=112, height=64)) == 130


def test_same_frames_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name, chunk in (("a", 1), ("b", 5)):
        path = tmp_path / f"{name}.mp4"
        write_mp4(clip(9, chunk=chunk), path, fps=25, num_frames=9, width=96, height=64, threads=2)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"fps": 15}, "fps"),
        ({"fps": 31}, "fps"),
        ({"width": 95}, "even"),
        ({"height": 0}, "even"),
        ({"num_frames": 0}, "num_frames"),
        ({"threads": 0}, "threads"),
    ],
)
def test_arguments_that_can_never_work(tmp_path: Path, wrong: dict[str, int], why: str) -> None:
    options: dict[str, int] = {"fps": 25, "num_frames": 5, "width": 96, "height": 64, "threads": 1} | wrong
    with pytest.raises(ValueError, match=why):
        write_mp4(clip(5), tmp_path / "video.mp4", **options)
    assert not list(tmp_path.iterdir())


def broken(kind: str) -> Iterator[np.ndarray]:
    yield np.zeros((2, 32, 48, 3), np.uint8)
    if kind == "size":
        yield np.zeros((2, 32, 50, 3), np.uint8)
    elif kind == "float":
        yield np.zeros((2, 32, 48, 3), np.float32)
    elif kind == "raises":
        raise KeyError("the decoder failed")


@pytest.mark.parametrize(
    ("kind", "error", "why"),
    [
        ("size", ValueError, "changed"),
        ("float", ValueError, "float32"),
        ("raises", KeyError, "decoder failed"),
        ("short", Mp4Error, "only 2 of 9"),
    ],
)
def test_bad_frames_leave_nothing_behind(tmp_path: Path, kind: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        write_mp4(broken(kind), tmp_path / "video.mp4", fps=25, num_frames=9, width=96, height=64, threads=1)
    assert not list(tmp_path.iterdir())


def test_no_frames_at_all(tmp_path: Path) -> None:
    with pytest.raises(Mp4Error, match="only 0 of 5"):
        write_mp4([], tmp_path / "video.mp4", fps=25, num_frames=5, width=96, height=64, threads=1)


def test_a_failure_keeps_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"older")
    with pytest.raises(Mp4Error):
        write_mp4(broken("short"), path, fps=25, num_frames=9, width=96, height=64, threads=1)
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize(("name", "why"), [("gone", "No such file"), ("file", "Not a directory")])
def test_a_directory_that_cannot_be_written(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Mp4Error, match=why):
        write_mp4(clip(5), tmp_path / name / "video.mp4", fps=25, num_frames=5, width=96, height=64, threads=1)


def test_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "256k"):
        small = tmp_path / "small"
        with pytest.raises(Mp4Error, match="No space left on device"):
            write_mp4(noise(40), small / "video.mp4", fps=25, num_frames=40, width=256, height=128, threads=1)
        assert not list(small.iterdir())


def test_a_file_size_limit(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(Mp4Error, match=f"killed by signal {signal.SIGXFSZ.value}|File too large"):
            write_mp4(noise(40), tmp_path / "video.mp4", fps=25, num_frames=40, width=256, height=128, threads=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_ffmpeg_killed_in_the_middle(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        before = children()
        for index in range(40):
            yield np.zeros((1, 512, 896, 3), np.uint8)
            if index == 3:
                (ffmpeg,) = children() - before
                os.kill(int(ffmpeg), signal.SIGKILL)

    with pytest.raises(Mp4Error, match="killed by signal 9"):
        write_mp4(frames(), tmp_path / "video.mp4", fps=25, num_frames=40, width=896, height=512, threads=1)
    assert not list(tmp_path.iterdir())


STAND_INS = {
    "floods_stderr": (
        "sys.stderr.write('noise\\n' * 200_000); sys.stderr.write('last words'); sys.exit(3)",
        "last word",
    ),
    "ignores_its_input": ("sys.stderr.write('no codec'); sys.exit(1)", "status 1: no codec"),
    "says_nothing": ("sys.stdin.buffer.read(); sys.exit(9)", "status 9: it gave no reason"),
    "claims_success": ("sys.stdin.buffer.read()", "could not be stored"),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_an_ffmpeg_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    script, why = STAND_INS[name]
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    with pytest.raises(Mp4Error, match=why):
        write_mp4(noise(20), tmp_path / "video.mp4", fps=25, num_frames=20, width=256, height=128, threads=1)
    assert [child.name for child in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_missing_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    with pytest.raises(Mp4Error, match="could not be started"):
        write_mp4(clip(5), tmp_path / "video.mp4", fps=25, num_frames=5, width=96, height=64, threads=1)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, pipeline.mp4; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

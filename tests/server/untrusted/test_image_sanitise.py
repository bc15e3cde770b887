"""Images are decoded in a process of their own, with limits, and leave it as plain pixels."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image, PngImagePlugin

from server.bench.waiting import LIMIT_S
from server.errors import ImageLoadError, ImageTooLarge, ImageTooSmall, ModelError, UnsupportedImageFormat
from server.settings import ImageSettings
from server.untrusted.image_decoder import ImageDecoder
from server.untrusted.media_types import HEAD_BYTES, media_type
from tests.harness.live_server import ROOT, until
from tests.harness.pictures import bomb


def encoded(form: str = "PNG", size: tuple[int, int] = (80, 70), mode: str = "RGB", **options: object) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, 1 if mode == "1" else None).save(content, form, **options)
    return content.getvalue()


def decode(content: bytes, tmp_path: Path, **limits: float) -> Image.Image:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    ImageDecoder(ImageSettings(**limits)).decode(source, target)
    return Image.open(io.BytesIO(target.read_bytes()), formats=["PNG"])


def refusal(content: bytes, tmp_path: Path, **limits: float) -> ModelError:
    with pytest.raises(ModelError) as caught:
        decode(content, tmp_path, **limits)
    return caught.value


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_an_image_becomes_a_plain_png(tmp_path: Path, form: str) -> None:
    image = decode(encoded(form), tmp_path)
    assert (image.size, image.mode, image.format) == ((80, 70), "RGB", "PNG")


@pytest.mark.parametrize(
    ("mode", "becomes"), [("L", "RGB"), ("P", "RGB"), ("1", "RGB"), ("I;16", "RGB"), ("LA", "RGBA"), ("RGBA", "RGBA")]
)
def test_every_colour_mode_becomes_rgb_or_rgba(tmp_path: Path, mode: str, becomes: str) -> None:
    assert decode(encoded(mode=mode), tmp_path).mode == becomes


def test_rotation_is_applied_and_everything_but_pixels_is_left_behind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    exif[0x010E] = "secret description"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "secret comment")
    content = encoded("PNG", exif=exif, pnginfo=texts, icc_profile=b"secret profile") + b"<script>secret</script>"
    image = decode(content, tmp_path)
    assert image.size == (70, 80)
    assert b"secret" not in (tmp_path / "target").read_bytes()
    assert not image.info


def test_sides_and_pixels_are_limited(tmp_path: Path) -> None:
    small = refusal(encoded(size=(63, 100)), tmp_path)
    assert (type(small), small.ctx) == (ImageTooSmall, {"min_height": 64, "min_width": 64})
    for size, limit in (((8193, 64), "8193 pixels on a side, the limit is 8192"), ((8192, 6145), "50331648 pixels")):
        large = refusal(encoded(size=size, mode="1"), tmp_path)
        assert (type(large), large.ctx) == (ImageTooLarge, {"max_height": 8192, "max_width": 8192})
        assert limit in str(large), "the limit that was crossed"


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    assert type(refusal(bomb(), tmp_path)) is ImageTooLarge


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        b"<!doctype html><script>alert(1)</script>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff",
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    assert type(refusal(content, tmp_path)) is ImageLoadError


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' width='100' height='100'/>",
        encoded("ICO"),
        encoded("JPEG2000"),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100,
        b"8BPS\0\1",
    ],
)
def test_pictures_of_other_formats_are_called_that(tmp_path: Path, content: bytes) -> None:
    assert type(refusal(content, tmp_path)) is UnsupportedImageFormat


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_truncated_files_are_refused(tmp_path: Path, form: str) -> None:
    noise = Image.effect_noise((200, 200), 90)
    content = io.BytesIO()
    noise.save(content, form)
    assert type(refusal(content.getvalue()[: len(content.getvalue()) // 2], tmp_path)) is ImageLoadError


def test_a_process_that_runs_out_of_memory_refuses_its_image_only(tmp_path: Path) -> None:
    content = encoded(size=(8000, 6000), mode="RGB")
    assert type(refusal(content, tmp_path, decode_memory_bytes=200 * 2**20)) is ImageLoadError
    assert decode(encoded(), tmp_path).size == (80, 70)


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    assert type(refusal(encoded(), tmp_path, decode_timeout_s=0.001)) is ImageLoadError
    assert caplog.messages == ["an image took longer than 0.001 s to decode"]
    assert not _decoders()


def test_a_process_whose_answer_cannot_be_read_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **_options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(subprocess.Popen, "communicate", no_memory)
    with pytest.raises(MemoryError):
        decode(encoded(), tmp_path)
    assert not _decoders()


def test_time_in_which_this_process_is_frozen_is_not_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = subprocess.Popen.communicate

    def frozen_until_the_end(process: subprocess.Popen[bytes], *_: object, timeout: float | None = None) -> Any:
        if process.poll() is None:
            process.wait()
            raise subprocess.TimeoutExpired(process.args, timeout or 0.0)
        return wait(process)

    monkeypatch.setattr(subprocess.Popen, "communicate", frozen_until_the_end)
    assert decode(encoded(), tmp_path).size == (80, 70)


_DECODES = """
import signal, sys
from pathlib import Path
from server.settings import ImageSettings
from server.untrusted.image_decoder import ImageDecoder

signal.signal(signal.SIGINT, lambda *_: None)  # as a worker, which ends in its own time
ImageDecoder(ImageSettings()).decode(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_ctrl_c_at_the_terminal_does_not_refuse_the_image(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    os.mkfifo(source)
    command = [sys.executable, "-c", _DECODES, source, target]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE) as worker:
        with source.open("wb") as image:  # opened by both sides from here on
            until(lambda: bool(_decoders(worker.pid)))
            os.killpg(worker.pid, signal.SIGINT)
            image.write(encoded())
        _, said = worker.communicate(timeout=LIMIT_S)
    assert worker.returncode == 0, said
    with Image.open(target) as decoded:
        assert decoded.size == (80, 70)


def test_a_process_that_is_killed_refuses_its_image_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = encoded(size=(8000, 5000), mode="RGBA")
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(refusal, content, tmp_path)
        until(lambda: bool(_decoders()))
        for process in _decoders():
            process.kill()
        assert type(decoding.result()) is ImageLoadError
    assert "ended with -9" in caplog.text
    assert decode(encoded(), tmp_path).size == (80, 70)


def _decoders(parent: int | None = None) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            found += [child] if "server.untrusted.decoder_process" in child.cmdline() else []
    return found


def test_the_largest_permitted_image_fits_into_the_limits(tmp_path: Path) -> None:
    for form, mode in (("PNG", "RGBA"), ("PNG", "I;16"), ("JPEG", "RGB"), ("WEBP", "RGB")):
        assert decode(encoded(form, size=(8192, 6144), mode=mode), tmp_path).size == (8192, 6144)


def test_media_types_are_read_from_the_content() -> None:
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        assert media_type(encoded(form)[:HEAD_BYTES]) == f"image/{form.lower()}"
    assert media_type(b"BMW and other cars are described here") is None
    assert media_type(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "image/avif"
    assert media_type(b"") is None
    assert media_type(b"<svg") is None

"""Pictures that cameras, phones and programs write: the stored identity image has the right pixels."""

import base64
import io
from collections.abc import Iterator

import pytest
from PIL import Image, ImageChops

from server.errors import ImageLoadError, ModelError
from server.untrusted.image_sanitise import PixelLimits, sanitise
from tests.harness.live_server import Server, example
from tests.harness.real_pictures import PICTURES, SIZE, Picture, encoded

LIMITS = PixelLimits(64, 8192, 8192 * 6144)


def sanitised(content: bytes) -> Image.Image:
    target = io.BytesIO()
    sanitise(io.BytesIO(content), target, LIMITS)
    return Image.open(target, formats=["PNG"])


def shows(found: Image.Image, picture: Picture) -> None:
    assert (found.size, found.mode) == (picture.shows.size, picture.shows.mode)
    differences = ImageChops.difference(found, picture.shows).getextrema()
    assert max(most for _, most in differences) <= picture.tolerance, differences


def is_refused(content: bytes) -> bool:
    try:
        sanitised(content)
    except ImageLoadError:
        return True
    return False


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_keeps_its_pixels(name: str) -> None:
    picture = PICTURES[name]()
    shows(sanitised(picture.content), picture)


@pytest.mark.parametrize("name", PICTURES)
def test_a_submitted_picture_is_stored_with_its_pixels(server: Server, name: str) -> None:
    picture = PICTURES[name]()
    uri = f"data:;base64,{base64.b64encode(picture.content).decode()}"
    request_id = server.submit(example(image_url=uri, num_inference_steps=10))
    answer = server.finish(request_id)
    assert answer.status_code == 200, answer.text
    (stored,) = (server.data_dir / "inputs").rglob(f"{request_id}.png")
    shows(Image.open(stored), picture)


def _cuts(content: bytes) -> Iterator[bytes]:
    """The file without its end: a few bytes, or more of it."""
    for missing in (*range(1, 40), *range(40, len(content) - 700, 97)):
        yield content[:-missing]


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize(
    "options", [{}, {"restart_marker_blocks": 1}, {"restart_marker_blocks": 3}, {"optimize": True}]
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_all_its_pixels_stays_refused(
    progressive: bool, options: dict[str, int], subsampling: int
) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((96, 80), 90) for _ in range(3)])
    content = encoded(noise, "JPEG", progressive=progressive, subsampling=subsampling, **options)
    sanitised(content[:-2])
    taken = [len(content) - len(cut) for cut in _cuts(content[:-3]) if not is_refused(cut)]
    assert not taken


CUT = [
    ("PNG", {}), ("PNG", {"compress_level": 0}), ("JPEG", {}), ("JPEG", {"progressive": True}),
    ("GIF", {}), ("BMP", {}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("AVIF", {}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # Pillow's; the decoding process shows none
@pytest.mark.parametrize(("form", "options"), CUT)
def test_a_cut_file_is_refused_or_lacks_no_pixel(form: str, options: dict[str, object]) -> None:
    noise = Image.merge("RGB", [Image.effect_noise(SIZE, 90) for _ in range(3)])
    content = encoded(noise, form, **options)
    whole = sanitised(content).tobytes()
    assert is_refused(content[: len(content) // 2])
    for cut in _cuts(content):
        assert is_refused(cut) or sanitised(cut).tobytes() == whole


def test_pixels_of_unknown_meaning_are_an_unsupported_format() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ModelError) as caught:
            sanitised(encoded(Image.new(mode, SIZE), "TIFF"))
        assert caught.value.error_type == "unsupported_image_format"

"""Pictures that cameras, phones and programs write: the stored identity image has the right pixels."""

import base64
import struct
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image, ImageChops

from server.errors import ImageLoadError, ModelError
from tests.harness.live_server import Server, example
from tests.harness.pictures import chunk
from tests.harness.real_pictures import PICTURES, SIZE, Picture, encoded, grey_png, sanitised

ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


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


def test_a_png_with_fewer_rows_than_it_says_is_refused() -> None:
    """Its file is whole and its checksums are right: an unfinished picture, saved as it was."""
    for rows in (79, 40, 1):
        assert is_refused(grey_png(8, [[200] * 96] * rows, height=80))
    sanitised(grey_png(8, [[200] * 96] * 80, height=80))


@pytest.mark.parametrize("size", [(64, 64), (65, 67), (97, 131), (200, 64)])
@pytest.mark.parametrize("colours", [(0, 1), (0, 16), (2, 8), (2, 16), (3, 2), (4, 8), (6, 16)])
def test_all_rows_of_an_interlaced_png_are_counted(size: tuple[int, int], colours: tuple[int, int]) -> None:
    width, height = size
    header = struct.pack(">IIBBBBB", width, height, colours[1], colours[0], 0, 0, 1)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours[0]]
    length = 0
    for first_x, first_y, across, down in ADAM7:
        columns, rows = len(range(first_x, width, across)), len(range(first_y, height, down))
        length += rows * (1 + (columns * channels * colours[1] + 7) // 8) if columns else 0
    for missing, refused in ((0, False), (1, True)):
        data = chunk(b"IDAT", zlib.compress(b"\0" * (length - missing)))
        palette = chunk(b"PLTE", b"\1\2\3") if colours[0] == 3 else b""
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + data + chunk(b"IEND")
        assert is_refused(content) is refused


def test_pixels_of_unknown_meaning_are_an_unsupported_format() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ModelError) as caught:
            sanitised(encoded(Image.new(mode, SIZE), "TIFF"))
        assert caught.value.error_type == "unsupported_image_format"

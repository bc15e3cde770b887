"""Colours that a file describes in other ways than by an ICC profile become sRGB, as browsers show them.

What is expected is computed with the matrices and anchors that the standards print, not with those of the code.
"""

import struct

import numpy as np
import pytest
from PIL import Image

from server.untrusted.avif_colour import avif_colour
from server.untrusted.cicp import colour_of
from tests.harness.pictures import chunk
from tests.harness.real_pictures import SIZE, display_p3, encoded, from_p3, sanitised, with_chunks

PIXEL = (180, 110, 70)
D65, BT709 = (0.3127, 0.3290), ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
FROM_P3 = [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
FROM_BT2020 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]  # BT.2087
SRGB_CHUNK = chunk(b"sRGB", b"\0")


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(white: tuple[float, float], *primaries: tuple[float, float]) -> bytes:
    points = [round(value * 100_000) for point in (white, *primaries) for value in point]
    return chunk(b"cHRM", struct.pack(">8I", *points))


def cicp(primaries: int, transfer: int, matrix: int = 0, full_range: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, matrix, full_range]))


def png(*added: bytes, pixel: tuple[int, ...] = PIXEL, **options: object) -> bytes:
    return with_chunks(encoded(Image.new("RGB", SIZE, pixel), "PNG", **options), *added)


def avif(primaries: int, transfer: int, **options: object) -> bytes:
    return avif_of(Image.new("RGB", SIZE, PIXEL), primaries, transfer, **options)


def avif_of(image: Image.Image, primaries: int, transfer: int, **options: object) -> bytes:
    content = encoded(image, "AVIF", quality=100, subsampling="4:4:4", **options)
    before, found, after = content.partition(b"colrnclx")
    assert found
    return before + found + struct.pack(">HH", primaries, transfer) + after[4:]


def pixel_of(content: bytes) -> tuple[int, ...]:
    found = sanitised(content).getpixel((40, 40))
    assert isinstance(found, tuple)
    return found


def srgb(light: np.ndarray | list[float]) -> tuple[int, ...]:
    """Linear light -> 8-bit sRGB."""
    clipped = np.clip(light, 0, 1)
    samples = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return tuple(int(value) for value in np.round(255 * samples))


def linear(pixel: tuple[int, ...]) -> np.ndarray:
    samples = np.array(pixel) / 255
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def bt709_linear(pixel: tuple[int, ...]) -> np.ndarray:
    samples = np.array(pixel) / 255
    return np.where(samples < 0.081, samples / 4.5, ((samples + 0.099) / 1.099) ** (1 / 0.45))


def from_matrix(matrix: list[list[float]], light: np.ndarray) -> tuple[int, ...]:
    return srgb(np.array(matrix) @ light)


BRIGHTER = tuple(round(255 * (value / 255) ** (1 / 2.2)) for value in PIXEL)  # a file with gamma 1.0
IN_P3 = from_matrix(FROM_P3, linear(PIXEL))


@pytest.mark.parametrize(
    ("chunks", "shown"),
    [
        ((gama(1.0),), BRIGHTER),
        ((gama(0.45455),), PIXEL),
        ((gama(0.0),), PIXEL),
        ((gama(1.0), SRGB_CHUNK), PIXEL),
        ((chrm(D65, *BT709), gama(0.45455)), PIXEL),
        ((chrm(D65, *P3),), IN_P3),
        ((chrm(D65, *P3), gama(0.45455)), IN_P3),
        ((chrm(D65, *P3), SRGB_CHUNK), PIXEL),
        ((chrm(D65, P3[0], P3[0], P3[0]),), PIXEL),  # no space is spanned
        ((chrm((0.0, 0.0), *P3),), PIXEL),
        ((cicp(12, 13),), IN_P3),
        ((cicp(12, 13), gama(1.0), SRGB_CHUNK), IN_P3),
        ((cicp(1, 13),), PIXEL),
        ((cicp(1, 8),), srgb([value / 255 for value in PIXEL])),
        ((cicp(1, 1),), srgb(bt709_linear(PIXEL))),
        ((cicp(9, 14),), from_matrix(FROM_BT2020, bt709_linear(PIXEL))),
        ((cicp(1, 4),), srgb((np.array(PIXEL) / 255) ** 2.2)),
        ((cicp(3, 13),), PIXEL),  # reserved
        ((cicp(12, 13, matrix=1),), PIXEL),  # not RGB
        ((cicp(12, 13, full_range=0),), PIXEL),
        ((cicp(12, 13)[:-1] + b"\0",), PIXEL),  # a wrong checksum
    ],
)
def test_the_chunks_of_a_png_count_in_their_order(chunks: tuple[bytes, ...], shown: tuple[int, ...]) -> None:
    assert pixel_of(png(*chunks)) == pytest.approx(shown, abs=1)


def test_an_icc_profile_counts_after_cicp_and_before_the_rest() -> None:
    assert pixel_of(png(gama(1.0), SRGB_CHUNK, icc_profile=display_p3())) == pytest.approx(from_p3(PIXEL), abs=2)
    assert pixel_of(png(cicp(1, 13), icc_profile=display_p3())) == PIXEL
    assert pixel_of(avif(1, 8, icc_profile=display_p3())) == pytest.approx(from_p3(PIXEL), abs=2)


@pytest.mark.parametrize(
    ("codes", "shown"),
    [((1, 13), PIXEL), ((2, 2), PIXEL), ((12, 13), IN_P3), ((9, 14), from_matrix(FROM_BT2020, bt709_linear(PIXEL)))],
)
def test_the_code_points_of_an_avif_count(codes: tuple[int, int], shown: tuple[int, ...]) -> None:
    assert pixel_of(avif(*codes)) == pytest.approx(shown, abs=2)


def test_damaged_boxes_of_an_avif_name_no_colours() -> None:
    content = avif(12, 13)
    assert avif_colour(content) == colour_of(12, 13)
    for kind in (b"meta", b"iprp", b"ipco", b"ipma", b"pitm", b"colr", b"nclx"):
        assert avif_colour(content.replace(kind, b"free")) is None
    assert {avif_colour(content[:length]) for length in range(len(content))} <= {None, colour_of(12, 13)}


@pytest.mark.parametrize(("transfer", "reference_white"), [(16, 148), (18, 191)])
def test_hdr_is_tone_mapped(transfer: int, reference_white: int) -> None:
    """PQ 58 % and HLG 75 % are 203 cd/m2 (BT.2408), 1 in the curve x(1 + x/w^2)/(1 + x) with w = 1000/203."""
    white = srgb([(1 + (203 / 1000) ** 2) / 2])[0]
    greys = Image.new("L", (256, 80))
    greys.putdata([*range(256)] * 80)
    exact, lossy = (
        np.asarray(sanitised(content))[40].astype(int)
        for content in (
            with_chunks(encoded(greys.convert("RGB"), "PNG"), cicp(9, transfer)),
            avif_of(greys.convert("RGB"), 9, transfer),
        )
    )
    for levels in (exact, lossy):
        assert levels[0].tolist() == [0, 0, 0]
        assert levels[255].tolist() == [255, 255, 255]
        assert levels[reference_white] == pytest.approx([white] * 3, abs=2)
    assert (np.diff(exact, axis=0) >= 0).all()
    assert (np.ptp(exact, axis=1) <= 1).all(), "greys stay grey"


def test_colours_of_hdr_are_those_of_the_formulas() -> None:
    """PQ by its published equation, and BT.2020 by the matrix of BT.2087."""
    pixel = (150, 120, 90)
    root = (np.array(pixel) / 255) ** (1 / 78.84375)
    light = 10_000 / 203 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    mapped = light * (1 + light.max() * (203 / 1000) ** 2) / (1 + light.max())
    assert pixel_of(png(cicp(9, 16), pixel=pixel)) == pytest.approx(from_matrix(FROM_BT2020, mapped), abs=1)


def test_greys_and_transparency_keep_their_kind() -> None:
    grey = with_chunks(encoded(Image.new("L", SIZE, 100), "PNG"), gama(1.0), chrm(D65, *P3))
    assert pixel_of(grey) == pytest.approx((round(255 * (100 / 255) ** (1 / 2.2)),) * 3, abs=1)
    for codes in ((12, 13), (9, 16)):
        see_through = with_chunks(encoded(Image.new("RGBA", SIZE, (*PIXEL, 77)), "PNG"), cicp(*codes))
        assert pixel_of(see_through)[3] == 77

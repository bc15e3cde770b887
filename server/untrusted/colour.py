"""Colours as a file describes them without an ICC profile, and their conversion to sRGB.

SDR becomes an ICC profile of primaries and curve, so that one colour engine converts everything. HDR (PQ, HLG) is
computed here, with the tone mapping that Chromium uses on an SDR screen: x(1 + x/w^2)/(1 + x) of the brightest channel.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image

Curve: TypeAlias = Callable[[float], float]
"""Sample 0..1 -> light 0..1."""

Chromaticity: TypeAlias = tuple[float, float]
Vector: TypeAlias = Sequence[float]

D65: Final[Chromaticity] = (0.3127, 0.3290)
BT709: Final[tuple[Chromaticity, ...]] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))

_D50: Final = (0.9642, 1.0, 0.8249)  # XYZ, of ICC's connection space
_BRADFORD: Final = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_SAMPLES: Final = 256  # of a curve: the pixels have 8 bits
_ROWS: Final = 64  # of a picture in HDR at a time
_SDR_WHITE, _HDR_WHITE = 203.0, 1000.0  # cd/m2: BT.2408's reference white; the peak that Chromium assumes


def srgb_light(sample: float) -> float:
    """IEC 61966-2-1: sample -> light."""
    return sample / 12.92 if sample <= 0.04045 else float(((sample + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdr:
    """A curve of BT.2100: light up to `peak` cd/m2, after the system gamma of the screen that it is meant for."""

    curve: Curve
    peak: float
    system_gamma: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """What the numbers of a picture mean. `before_icc`: this counts and an ICC profile beside it does not."""

    primaries: tuple[Chromaticity, ...] = BT709
    white: Chromaticity = D65
    curve: Curve | Hdr = srgb_light
    before_icc: bool = False

    @property
    def is_srgb(self) -> bool:
        return (self.primaries, self.white, self.curve) == (BT709, D65, srgb_light)

    def profile(self, curve: Curve) -> bytes:
        """An ICC profile (version 2, matrix and curves) with this colour's primaries.

        Raises:
            ValueError: the primaries do not span a space.
        """
        columns = zip(*_to_d50(self.primaries, self.white), strict=True)
        samples = [round(65535 * curve(at / (_SAMPLES - 1))) for at in range(_SAMPLES)]
        light = b"curv\0\0\0\0" + struct.pack(f">I{_SAMPLES}H", _SAMPLES, *samples)
        tags = {b"wtpt": _xyz(_D50)}
        tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
        return _icc(tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), light))

    def tone_mapped(self, image: Image.Image, hdr: Hdr) -> Image.Image:
        """An RGB picture in HDR -> sRGB."""
        import numpy as np  # which few pictures need

        matrix = _to_d50(self.primaries, self.white)
        luminance = np.array(matrix[1], np.float32)  # Y
        to_srgb = np.array(_product(_inverse(_to_d50(BT709, D65)), matrix), np.float32).T
        light_of = np.array([hdr.curve(at / 255) for at in range(256)], np.float32)
        light = np.linspace(0, 1, 65536)
        sample_of = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        sample_of = np.round(255 * sample_of).astype(np.uint8)
        most = _HDR_WHITE / _SDR_WHITE
        shown = Image.new("RGB", image.size)
        for top in range(0, image.height, _ROWS):  # a large picture is not there in floating point
            strip = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
            rows = light_of[np.asarray(strip)]
            if hdr.system_gamma != 1:
                rows *= (rows @ luminance)[..., None] ** (hdr.system_gamma - 1)
            rows *= hdr.peak / _SDR_WHITE
            brightest = rows.max(axis=-1, keepdims=True)
            rows *= (1 + brightest / most**2) / (1 + brightest)  # `most` becomes 1
            rows = (rows @ to_srgb).clip(0, 1)
            shown.paste(Image.fromarray(sample_of[(65535 * rows + 0.5).astype(np.uint16)]), (0, top))
        return shown


def _to_d50(primaries: Sequence[Chromaticity], white: Chromaticity) -> list[Vector]:
    """The matrix from light of these primaries to XYZ, adapted to D50 as ICC wants it (Bradford)."""
    unscaled = list(zip(*(_xyz_of(primary) for primary in primaries), strict=True))
    scales = _times(_inverse(unscaled), _xyz_of(white))
    native = [[value * scale for value, scale in zip(row, scales, strict=True)] for row in unscaled]
    cones = zip(_times(_BRADFORD, _D50), _times(_BRADFORD, _xyz_of(white)), strict=True)
    adapted = [[to / of * value for value in row] for (to, of), row in zip(cones, _BRADFORD, strict=True)]
    return _product(_product(_inverse(_BRADFORD), adapted), native)


def _xyz_of(chromaticity: Chromaticity) -> Vector:
    """XYZ with Y = 1."""
    x, y = chromaticity
    if y <= 0:
        raise ValueError("a colour without luminance")
    return (x / y, 1.0, (1 - x - y) / y)


def _times(matrix: Sequence[Vector], vector: Vector) -> Vector:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def _product(left: Sequence[Vector], right: Sequence[Vector]) -> list[Vector]:
    return [list(row) for row in zip(*(_times(left, column) for column in zip(*right, strict=True)), strict=True)]


def _inverse(matrix: Sequence[Vector]) -> list[Vector]:
    """Of 3 x 3, by cross products."""
    a, b, c = matrix
    rows = [_cross(b, c), _cross(c, a), _cross(a, b)]
    determinant = sum(x * y for x, y in zip(a, rows[0], strict=True))
    if abs(determinant) < 1e-6:
        raise ValueError("primaries on one line")
    return [[value / determinant for value in column] for column in zip(*rows, strict=True)]


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _xyz(values: Vector) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


def _icc(tags: dict[bytes, bytes]) -> bytes:
    """A display profile for RGB: header, table of tags, tags."""
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s28x", at + len(body), 0x02200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    illuminant = struct.pack(">iii", *(round(value * 65536) for value in _D50))
    return (head + illuminant).ljust(128, b"\0") + table + body

"""Code points of ITU-T H.273 (CICP): how PNG's cICP chunk and AVIF's nclx box name colours."""

import math
from typing import Final

from server.untrusted.colour import BT709, D65, Chromaticity, Colour, Curve, Hdr, srgb_light

_C: Final[Chromaticity] = (0.310, 0.316)
_DCI: Final[Chromaticity] = (0.314, 0.351)
_BT2020: Final = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
_BT601_525: Final = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_P3: Final = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))

_UNSPECIFIED: Final = 2
_PRIMARIES: Final[dict[int, tuple[tuple[Chromaticity, ...], Chromaticity]]] = {
    1: (BT709, D65),
    _UNSPECIFIED: (BT709, D65),  # as browsers read it
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), _C),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: (_BT601_525, D65),
    7: (_BT601_525, D65),
    8: (((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), _C),
    9: (_BT2020, D65),
    11: (_P3, _DCI),
    12: (_P3, D65),
    22: (((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), D65),
}


def colour_of(primaries: int, transfer: int, *, before_icc: bool = False) -> Colour | None:
    """None for a code point that is reserved or names no colours of three channels."""
    known, curve = _PRIMARIES.get(primaries), _CURVES.get(transfer)
    if known is None or curve is None:
        return None
    return Colour(primaries=known[0], white=known[1], curve=curve, before_icc=before_icc)


def _power(exponent: float) -> Curve:
    return lambda sample: float(sample**exponent)


def _bt709_light(sample: float) -> float:
    """The inverse of the camera's curve, as browsers read it."""
    return sample / 4.5 if sample < 0.081 else float(((sample + 0.099) / 1.099) ** (1 / 0.45))


def _smpte240_light(sample: float) -> float:
    return sample / 4 if sample < 0.0913 else float(((sample + 0.1115) / 1.1115) ** (1 / 0.45))


def _pq_light(sample: float) -> float:
    """SMPTE ST 2084."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = sample ** (1 / m2)
    return float((max(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1))


def _hlg_light(sample: float) -> float:
    """BT.2100: the light of the scene."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return sample**2 / 3 if sample <= 0.5 else (math.exp((sample - c) / a) + b) / 12


_CURVES: Final[dict[int, Curve | Hdr]] = {
    1: _bt709_light,
    _UNSPECIFIED: srgb_light,
    4: _power(2.2),
    5: _power(2.8),
    6: _bt709_light,
    7: _smpte240_light,
    8: _power(1.0),
    13: srgb_light,
    14: _bt709_light,
    15: _bt709_light,
    16: Hdr(curve=_pq_light, peak=10_000),
    17: _power(2.6),
    18: Hdr(curve=_hlg_light, peak=1_000, system_gamma=1.2),
}

"""A plot of lines and dots as SVG, readable on light and dark pages. The vertical axis is logarithmic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 24, 52
_COLOURS: Final = ("#d1495b", "#edae49", "#30a46c", "#3e7cb1", "#8e6bbf")
_GREY: Final = "#808080"


@dataclass(frozen=True, slots=True)
class Line:
    """A line through `points`, and single `dots` of its colour."""

    name: str
    points: Sequence[Point]
    dots: Sequence[Point] = ()


def line_plot(lines: Sequence[Line], *, x_label: str, y_label: str, x_ticks: Sequence[float], y: Point) -> str:
    """The text of an SVG file. `y` is from where to where the vertical axis goes; what lies below is cut off."""
    low, high = math.log10(y[0]), math.log10(y[1])

    def place(x: float, value: float) -> Point:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (math.log10(value) - low) / (high - low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="13" fill="{_GREY}">'
    ]
    for tick in x_ticks:
        left, bottom = place(tick, y[0])
        parts.append(f'<path d="M{left:.1f} {bottom:.1f}V{_TOP}" stroke="{_GREY}" stroke-opacity=".25"/>')
        parts.append(f'<text x="{left:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{tick:g}</text>')
    for power in range(math.ceil(low), math.floor(high) + 1):
        left, middle = place(x_ticks[0], 10.0**power)
        parts.append(f'<path d="M{left:.1f} {middle:.1f}H{_WIDTH - _RIGHT}" stroke="{_GREY}" stroke-opacity=".25"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{middle + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text transform="translate(16 {_HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">')
    parts.append(f"{escape(y_label)}</text>")
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [place(*point) for point in line.points if y[0] <= point[1] <= y[1]]
        path = "L".join(f"{left:.1f} {top:.1f}" for left, top in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for left, top in (place(*dot) for dot in line.dots if y[0] <= dot[1] <= y[1]):
            parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 12}" y="{_TOP + 14 + 20 * number}" fill="{colour}">')
        parts.append(f"{escape(line.name)}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"

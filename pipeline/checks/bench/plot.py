"""Time of a step against its tokens, as a picture without a plotting library."""

from collections.abc import Sequence
from html import escape

from pipeline.checks.bench.step import ROOFLINE, STEP, STOCK
from pipeline.checks.bench.table import Row

_WIDTH, _HEIGHT, _MARGIN = 720, 440, 64
_COLOURS = {STEP: "#1a6", ROOFLINE: "#888", STOCK: "#c33"}
_TICKS = 5


def plot(rows: Sequence[Row], title: str) -> str:
    """SVG with one line for our step, its bare operations and diffusers' class; "" without a measured step."""
    lines = {
        name: sorted((row.tokens, row.seconds) for row in rows if row.what == name and row.tokens and row.seconds)
        for name in _COLOURS
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    most_tokens, most_seconds = (max(values) * 1.05 for values in zip(*points, strict=True))

    def at(tokens: float, seconds: float) -> tuple[float, float]:
        return (
            _MARGIN + tokens / most_tokens * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - seconds / most_seconds * (_HEIGHT - 2 * _MARGIN),
        )

    marks = [_text(_WIDTH / 2, _MARGIN / 2, title, "middle")]
    for tick in range(_TICKS + 1):
        tokens, seconds = most_tokens * tick / _TICKS, most_seconds * tick / _TICKS
        (x, bottom), (left, y) = at(tokens, 0), at(0, seconds)
        marks += [
            f'<path d="M{left:.1f} {y:.1f}H{_WIDTH - _MARGIN}" stroke="#ddd"/>',
            _text(x, bottom + 20, f"{tokens:,.0f}", "middle"),
            _text(left - 8, y + 4, f"{seconds:.3g}", "end"),
        ]
    marks += [
        _text(_WIDTH / 2, _HEIGHT - 16, "image tokens", "middle"),
        _text(_MARGIN, _MARGIN - 12, "seconds a step", "middle"),
    ]
    for number, (name, line) in enumerate(lines.items()):
        marks += _line(name, [at(*point) for point in line], 20 + 18 * number)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(marks)}</svg>\n'
    )


def _line(name: str, points: Sequence[tuple[float, float]], below: float) -> list[str]:
    """With its points and its name in the legend; nothing where it was not measured."""
    if not points:
        return []
    colour = _COLOURS[name]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    y = _MARGIN + below
    legend = f'<path d="M{_MARGIN + 12} {y - 4}h20" stroke="{colour}" stroke-width="2"/>'
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *dots,
        legend,
        _text(_MARGIN + 38, y, name, "start"),
    ]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

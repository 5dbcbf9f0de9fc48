"""Charts as SVG: panels of lines over a common axis, or of bars, each with a scale from zero."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 720, 180, 70, 20, 40, 40
INK, GRID, COLOURS = "#24292f", "#d0d7de", ("#0969da", "#bc4c00", "#1a7f37")


class Line(NamedTuple):
    """A panel's data."""

    name: str
    points: Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """A bar of a panel."""

    name: str
    length: float
    is_ours: bool


def draw_bars(title: str, panels: Mapping[str, Sequence[Bar]]) -> str:
    """Return a drawing with a panel of bars for each title, each in its own scale."""
    left, line, gap = 190, 18, 34
    parts = [_text(20, 24, title, size=15)]
    top = float(TOP)
    for name, bars in panels.items():
        parts.append(_text(20, top + 14, name))
        longest = max(bar.length for bar in bars)
        for number, bar in enumerate(bars):
            y = top + 22 + number * line
            long = (WIDTH - left - 70) * bar.length / longest
            colour = COLOURS[0] if bar.is_ours else GRID
            parts += [
                _text(left - 8, y + 11, bar.name, anchor="end"),
                (
                    f'<rect x="{left}" y="{y:.1f}" width="{long:.1f}" height="{line - 4}"'
                    f' fill="{colour}"/>'
                ),
                _text(left + long + 6, y + 11, f"{bar.length:,.2f}"),
            ]
        top += len(bars) * line + gap
    return "\n".join([*_page(top), *parts, "</svg>\n"])


def _page(height: float) -> list[str]:
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
    ]


def draw(title: str, axis: str, lines: Sequence[Line]) -> str:
    """Return the drawing, on white, since the page behind it may be dark."""
    height = TOP + len(lines) * (PANEL + GAP) + 10
    right = max(x for line in lines for x, _ in line.points)
    parts = [*_page(height), _text(LEFT, 24, title, size=15)]
    for number, line in enumerate(lines):
        parts += _panel(
            line, TOP + number * (PANEL + GAP) + 14, right, COLOURS[number % len(COLOURS)]
        )
    parts += [_text(WIDTH - RIGHT, height - 6, axis, anchor="end"), "</svg>\n"]
    return "\n".join(parts)


def _panel(line: Line, top: float, right: float, colour: str) -> Iterator[str]:
    room = PANEL - 14
    step = _round_step(max(y for _, y in line.points) / 4)
    highest = step * math.ceil(max(y for _, y in line.points) / step)
    across = _round_step(right / 6)
    yield _text(LEFT, top - 4, line.name)
    for count in range(round(highest / step) + 1):
        y = top + room * (1 - count * step / highest)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, y + 4, f"{count * step:,.0f}", anchor="end")
    for count in range(int(right / across) + 1):
        yield _text(
            _across(count * across, right),
            top + room + 16,
            f"{count * across:,.0f}",
            anchor="middle",
        )
    points = " ".join(
        f"{_across(x, right):.1f},{top + room * (1 - y / highest):.1f}" for x, y in line.points
    )
    yield f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'


def _across(x: float, right: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * x / right


def _round_step(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power: float = 10 ** math.floor(math.log10(max(least, 1e-9)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{INK}" text-anchor="{anchor}" '
        f'font-size="{size}">{words}</text>'
    )

"""Formats values for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import typer

from etl.terminal import parts, visible, wrapped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {
    "succeeded": "green",
    "ok": "green",
    "failed": "red",
    "failing": "bold red",
    "cancelled": "yellow",
    "warning": "yellow",
    "skipped": "dim",
    "pending": "cyan",
    "running": "cyan",
    "unknown": "magenta",
}


def say(text: str, *, err: bool = False) -> None:
    """Print prose for people, wrapped on a terminal. `typer.echo` prints what must stay exact."""
    typer.echo(wrapped(text, sys.stderr if err else sys.stdout), err=err)


def styled(text: str, style: str | None = None) -> Text:
    """Return text for a table or a line, in which brackets are not markup."""
    from rich.text import Text

    return Text(text, style or "")


def state(word: str) -> Text:
    """Return a state or a verdict in its colour."""
    return styled(word, STYLES.get(word))


def instant(time: datetime | None) -> str:
    """Return a time in UTC, to the second; `-` if there is none."""
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"


def span(seconds: float | None) -> str:
    """Return a duration in seconds as `12 s`, `3 m 04 s`, `2 h 05 m` or `3 d 04 h`; None: `-`."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{span(-seconds)}"
    whole = round(seconds)
    for size, unit, part, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // part:02} {smaller}"
    return f"{whole} s"


def duration(milliseconds: float | None) -> str:
    """Return a duration to the millisecond below a minute, otherwise as `span`; None: `-`."""
    if milliseconds is None:
        return "-"
    return (
        f"{milliseconds / 1000:.3f} s" if abs(milliseconds) < 60_000 else span(milliseconds / 1000)
    )


def amount(number: Decimal) -> str:
    """Return all digits of a number, without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def listing(
    out: Console,
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[str | Text], str | Sequence[str]]],
    *,
    numbers: Sequence[str] = (),
) -> None:
    """Print entries, each as a line of cells with indented texts below it.

    The texts are not cells, because ids of 36 characters leave no room for them in 80 columns.

    Args:
        out: where to print.
        headings: one per cell.
        rows: the cells and the texts of each entry.
        numbers: headings of the columns that are aligned right.
    """
    entries = [
        (
            [styled(_line(cell)) if isinstance(cell, str) else cell for cell in cells],
            [_line(one) for one in ([below] if isinstance(below, str) else below)],
        )
        for cells, below in rows
    ]
    widths = [
        max(styled(heading).cell_len, *(cells[column].cell_len for cells, _ in entries))
        for column, heading in enumerate(headings)
    ]

    def line(cells: Sequence[Text]) -> Text:
        made = styled("")
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            fill = " " * (width - cell.cell_len)
            made += styled(fill) + cell if headings[column] in numbers else cell + styled(fill)
            made += styled("  ")
        made.rstrip()
        return made

    out.print(line([styled(heading, "bold") for heading in headings]))
    for cells, below in entries:
        out.print(line(cells), soft_wrap=True)
        for one in below:
            print_wrapped(out, styled(f"  {one}", "dim"), indent=2)


def print_wrapped(out: Console, line: Text, *, indent: int) -> None:
    """Print a line, wrapped between words; every further line is indented by `indent` spaces."""
    for begin, end in parts(line.plain, out.width, out.width - indent):
        out.print(styled(" " * indent if begin else "") + line[begin:end], soft_wrap=True)


def fields(out: Console, rows: Iterable[tuple[str, str | Text]], *, indent: int = 0) -> None:
    """Print names and values, one pair per line; long values are wrapped below themselves."""
    pairs = [
        (" " * indent + _line(name), styled(_line(value)) if isinstance(value, str) else value)
        for name, value in rows
    ]
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        label = name.ljust(width)
        for line in value.split(allow_blank=True):
            for begin, end in parts(line.plain, max(out.width - width, 20)):
                out.print(styled(label, "dim"), line[begin:end], sep="", soft_wrap=True)
                label = " " * width


def _line(text: str) -> str:
    """Return the text as one line, made visible, so that its width is the width shown."""
    return visible(" ".join(text.splitlines()))

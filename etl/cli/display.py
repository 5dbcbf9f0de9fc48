"""How values look to people. Text that came from the API is made harmless before it reaches a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# What a terminal would obey instead of show: an error text may hold escape sequences, by accident or on purpose.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")

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


def plain(text: str, length: int | None = None) -> str:
    """The text on one line, without control characters, cut to `length` characters."""
    line = " ".join(_CONTROLS.sub(" ", text).split())
    return line if length is None or len(line) <= length else line[: length - 1] + "…"


def lines(text: str) -> str:
    """The text with its line breaks, without other control characters."""
    return "\n".join(_CONTROLS.sub(" ", line) for line in text.split("\n"))


def styled(text: str, style: str | None = None) -> Text:
    """Text for a table or a line, in which brackets are no markup."""
    from rich.text import Text

    return Text(text, style or "")


def state(word: str) -> Text:
    """A state or a verdict in its colour."""
    return styled(word, STYLES.get(word))


def instant(time: datetime | None) -> str:
    """A time in UTC, to the second."""
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%SZ}"


def span(seconds: float | None) -> str:
    """A duration in its two largest units: `12 s`, `3 m 04 s`, `2 h 05 m`, `3 d 04 h`."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{span(-seconds)}"
    whole = round(seconds)
    for size, unit, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size:,} {unit} {whole % size // part:02} {smaller}"
    return f"{whole} s"


def duration(milliseconds: float | None) -> str:
    """A duration to the millisecond below a minute, else as `span`."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds / 1000:.3f} s" if abs(milliseconds) < 60_000 else span(milliseconds / 1000)


def counted(number: int, noun: str) -> str:
    """`1 run`, `10,332 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listing(
    out: Console,
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[str | Text], str]],
    *,
    numbers: Sequence[str] = (),
) -> None:
    """Print entries of one line of cells and an indented text below it; columns named in `numbers` are set flush right.

    Two lines an entry, because ids of 36 characters leave a terminal of 80 columns no room for more cells.
    """
    entries = [([styled(cell) if isinstance(cell, str) else cell for cell in cells], below) for cells, below in rows]
    widths = [
        max(len(heading), *(cells[column].cell_len for cells, _ in entries)) for column, heading in enumerate(headings)
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
        out.print(
            styled(textwrap.fill(below, out.width, initial_indent="  ", subsequent_indent="  "), "dim"), soft_wrap=True
        )


def fields(out: Console, rows: Iterable[tuple[str, str | Text]], *, indent: int = 0) -> None:
    """Print names and values, a pair a line; long values go on below themselves."""
    pairs = [(" " * indent + name, styled(value) if isinstance(value, str) else value) for name, value in rows]
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        label = name.ljust(width)
        for part in value.wrap(out, max(out.width - width, 20), overflow="fold"):
            part.rstrip()
            out.print(styled(label, "dim"), part, sep="", soft_wrap=True)
            label = " " * width

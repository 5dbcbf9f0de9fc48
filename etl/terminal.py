"""Text from servers, made safe to show on a terminal.

Names, ids and errors from a server may contain characters that a terminal obeys or hides. While a
command runs, both standard streams (`guarded`) and the console for tables and bars (`console`)
escape these characters as Python does (`\\x1b`, `\\u202e`). Nothing disappears, and two different
ids never look the same.
"""

from __future__ import annotations

import codecs
import io
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Control characters except the line break, line separators, surrogates, and the characters that
# Unicode calls default ignorable: direction marks, zero-width characters, tags. The variation
# selectors after an emoji are not included.
_OBEYED_OR_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Replacements for the project's own ornaments, for an encoding that lacks them.
_SIMPLER = {
    "█": "#",
    "…": "...",
    "→": "->",
    "–": "-",
    "—": "-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}
_WORD = re.compile(r"\S+")
_UNBROKEN = re.compile(r"(?:`[^`]+`|\S)+")
NARROWEST = 20
"""The fewest columns that are used, even if the terminal reports fewer."""
LONGEST_LINE = 4000
"""Maximum columns of a line about an error. An id has at most 512, a URL a few thousand."""


def visible(text: str) -> str:
    """Return the text with every character escaped that a terminal obeys or hides.

    Line breaks stay.
    """
    return _OBEYED_OR_HIDDEN.sub(lambda found: _written_out(found.group()), text)


def plain(text: str, length: int | None = None) -> str:
    """Return the text on one line, made visible, cut to `length` columns; None: not cut.

    A wide character, such as a Chinese one or an emoji, takes two columns.
    """
    line = visible(" ".join(text.split()))
    if length is None or 2 * len(line) <= length:
        return line
    from rich.cells import cell_len, chop_cells

    if len(line) <= length and cell_len(line) <= length:
        return line
    return chop_cells(line[: length - 1], length - 1)[0] + "…"


def first_plain(*texts: str | None, length: int | None = None) -> str:
    """Return the first text that is not blank, as `plain` does; empty if all are blank or None."""
    return next((one for one in (plain(text or "", length) for text in texts) if one), "")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 run`, `10,332 runs`.

    Args:
        number: how many.
        noun: the words after 1.
        plural: the words after any other number; None: the noun with an `s`.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def wrapped(text: str, stream: TextIO) -> str:
    """Return prose with its lines wrapped between words, if the stream is a terminal.

    Text in backticks, such as a command, stays on one line if it fits one. `parts` says which words
    are broken. Elsewhere, such as in a log file, each line stays one line.
    """
    if not stream.isatty():
        return text
    # The environment variable COLUMNS may have any value.
    columns = max(shutil.get_terminal_size().columns, NARROWEST)
    return "\n".join(_wrapped_line(line, columns) for line in text.split("\n"))


def _wrapped_line(line: str, columns: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    later = f"{indent}  "
    first, *others = parts(line, columns, columns - len(later))
    return "\n".join([line[slice(*first)], *(later + line[slice(*other)] for other in others)])


def parts(line: str, columns: int, later: int | None = None) -> list[tuple[int, int]]:
    """Return the start and the end of each part of a line that is wrapped between words.

    Text in backticks stays in one part if it fits one. A longer word is a part of its own, so that
    it can be copied; but Chinese or Japanese text, which has no spaces, is broken between its
    characters.

    Args:
        line: one line of text.
        columns: the width of the first part.
        later: the width of the other parts; None: `columns`.
    """
    from rich.cells import cell_len

    width = columns
    others = columns if later is None else later
    found: list[tuple[int, int]] = []
    begin = end = 0
    for group in _UNBROKEN.finditer(line):
        for span_begin, span_end in _spans(line, group.span(), others):
            if end and cell_len(line[begin:span_end]) > width:
                found.append((begin, end))
                begin, width = span_begin, others
            end = span_end
    return [*found, (begin, end)]


def _spans(line: str, group: tuple[int, int], columns: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of a group of words that are not broken."""
    from rich.cells import cell_len, split_graphemes

    if cell_len(line[slice(*group)]) <= columns:
        yield group
        return
    for word in _WORD.finditer(line, *group):
        begin, end = word.span()
        if cell_len(word.group()) > columns:
            before = 0
            for at, _, width in split_graphemes(word.group())[0]:
                if before and 2 in (before, width):
                    yield begin, word.start() + at
                    begin = word.start() + at
                before = width
        yield begin, end


def paragraphs(text: str) -> str:
    """Return a text of several lines, made visible; tabs become spaces."""
    return visible(text.replace("\r\n", "\n").expandtabs(4))


def safe_json(text: str) -> str:
    """Return equivalent JSON without characters that a terminal obeys or hides."""
    return _OBEYED_OR_HIDDEN.sub(_json_escape, text)


def printable(text: str, encoding: str | None) -> str:
    """Return the text with replacements for the characters that the encoding lacks."""
    try:
        return text.encode(encoding or "utf-8", _ERRORS).decode(encoding or "utf-8")
    except LookupError:
        return text


def ascii_json(text: str) -> str:
    """Return equivalent JSON in ASCII."""
    return re.sub("[^\x00-\x7e]", _json_escape, text)


def is_unicode(encoding: str | None) -> bool:
    """Return whether the encoding has every character."""
    return encoding is None or encoding.lower().replace("_", "-").startswith("utf")


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output and standard error while the block runs."""
    before = sys.stdout, sys.stderr
    output, notes = (io.StringIO() if one is None else one for one in before)
    sys.stdout, sys.stderr = GuardedStream(output), _Notes(notes)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console for tables, colours and bars on a standard stream.

    It writes no escape sequences other than its own.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Guarded(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for one in super().render(renderable, options):
                yield (
                    one
                    if one.control
                    else Segment(printable(visible(one.text), self.encoding), one.style)
                )

    made = Guarded(
        file=unguarded(sys.stderr if stderr else sys.stdout), highlight=False, soft_wrap=soft_wrap
    )
    if made.width < NARROWEST:
        # The environment variable COLUMNS may have any value.
        made.width = NARROWEST
    return made


def unguarded(stream: TextIO) -> TextIO:
    """Return the unguarded stream, for a writer that makes its own text visible."""
    return stream._stream if isinstance(stream, GuardedStream) else stream


class GuardedStream(io.TextIOBase):
    """A stream that makes all text visible, in characters that the stream below can encode."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding that callers may assume: every text is accepted."""
        return "utf-8"

    @property
    def buffer(self) -> BinaryIO:
        """The binary stream below, for a caller that writes exact bytes."""
        return self._stream.buffer

    def write(self, text: str) -> int:
        """Write the text, made visible; return its length."""
        self._stream.write(printable(visible(text), self._stream.encoding))
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream below is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream below."""
        return self._stream.fileno()

    def close(self) -> None:
        """Do nothing: the stream below belongs to its creator."""


class _Notes(GuardedStream):
    """Standard error: notes that a full disk refuses must not stop the work."""

    def write(self, text: str) -> int:
        """Write the text if that is possible; return its length."""
        with _unless_full():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream below if that is possible."""
        with _unless_full():
            super().flush()


@contextmanager
def _unless_full() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _written_out(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _json_escape(found: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _utf16(found.group()))


def _utf16(text: str) -> Iterator[int]:
    encoded = text.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(encoded[at : at + 2]) for at in range(0, len(encoded), 2))


def _write_simpler(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_SIMPLER.get(one) or _written_out(one) for one in missing), error.end


_ERRORS = "orchestra-etl.simpler"
codecs.register_error(_ERRORS, _write_simpler)

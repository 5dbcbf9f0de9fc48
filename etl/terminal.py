"""What others wrote, as a terminal may show it: names, ids and errors from a server are data, and a terminal obeys some of it.

Both standard streams are guarded for as long as a command runs (`guarded`), and so is the console
of tables and bars (`console`). What is hidden or obeyed is written as Python would write it
(`\\x1b`, `\\u202e`): nothing disappears, and two different ids never look the same.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Control characters but the line break, line separators, surrogates, and what Unicode calls
# ignorable by default: marks of direction, of width zero, tags. The selectors behind an emoji are
# none of these.
_OBEYED_OR_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Our own ornaments, where the terminal has none of them.
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
NARROWEST = 20
"""Columns that are used whatever the terminal claims to have."""
LONGEST_LINE = 4000
"""Characters of a line about an error. An id has 512 at most, a URL some thousands."""


def visible(text: str) -> str:
    """The text with its line breaks; every other character that a terminal would obey or hide is written out."""
    return _OBEYED_OR_HIDDEN.sub(lambda found: _written_out(found.group()), text)


def plain(text: str, length: int | None = None) -> str:
    """The text on one line, made visible, cut to `length` characters."""
    line = visible(" ".join(text.split()))
    return line if length is None or len(line) <= length else line[: length - 1] + "…"


def safe_json(text: str) -> str:
    """JSON that means the same, without characters that a terminal would obey or hide."""
    return _OBEYED_OR_HIDDEN.sub(_json_escape, text)


def printable(text: str, encoding: str | None) -> str:
    """The text in characters that the encoding has."""
    try:
        return text.encode(encoding or "utf-8", _ERRORS).decode(encoding or "utf-8")
    except LookupError:
        return text


def ascii_json(text: str) -> str:
    """JSON that means the same, in ASCII."""
    return re.sub("[^\x00-\x7e]", _json_escape, text)


def is_unicode(encoding: str | None) -> bool:
    """Whether the encoding has every character."""
    return encoding is None or encoding.lower().replace("_", "-").startswith("utf")


@contextmanager
def guarded() -> Iterator[None]:
    """Guard standard output and standard error while the block runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        GuardedStream(io.StringIO() if one is None else one) for one in before
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console for tables, colours and bars on a standard stream. Its own escape sequences are the only ones."""
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
        # COLUMNS may say anything.
        made.width = NARROWEST
    return made


def unguarded(stream: TextIO) -> TextIO:
    """The stream itself, for a writer that guards what it writes."""
    return stream._stream if isinstance(stream, GuardedStream) else stream


class GuardedStream(io.TextIOBase):
    """Writes text to a stream made visible, in the stream's own characters, whatever library the text comes from."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Every text is taken."""
        return "utf-8"

    @property
    def buffer(self) -> BinaryIO:
        """For exact bytes, where somebody asks for them."""
        return self._stream.buffer

    def write(self, text: str) -> int:
        """Write it."""
        self._stream.write(printable(visible(text), self._stream.encoding))
        return len(text)

    def writable(self) -> bool:
        """It is."""
        return True

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    def close(self) -> None:
        """Leave the stream below open: it is not ours."""


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

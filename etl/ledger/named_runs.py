"""Detection of run ids in bytes that belong to no run.

Such bytes are bad rows of a run list, and responses that are not a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from etl.records import MAX_ID_BYTES

K = TypeVar("K")

STRINGS_AT_ONCE = 10_000
"""Maximum number of strings in one lookup."""

# Possessive quantifiers, and a match of an unclosed string to the end, keep the scan linear:
# otherwise each quote would cause another scan of the bytes behind it.
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:(")|\\?\Z)', re.DOTALL)
_NEIGHBOURS = re.compile(rb'"([^"]*+)(?=")')
# Each character of an id may be written as an escape of six bytes. Longer strings without escapes
# are not ids.
_LONGEST = 6 * MAX_ID_BYTES
# JSON inside a string inside a string. Deeper nesting is not expected.
_DEPTH = 3


def strings_of(body: bytes, depth: int = _DEPTH) -> Iterator[str]:
    """Yield the strings of a JSON text that can be an id, in any spelling, nested JSON included.

    Nested JSON is JSON inside a string. If the bytes are not JSON, yield all of them as one string,
    and the text between any two neighbouring quotes, because it is unknown which quotes open a
    string. An unclosed string is skipped: it may be the beginning of a longer id. The work grows
    linearly with the length of the body, for any content.
    """
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
        is_json = True
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        is_json = False
        if len(body) <= MAX_ID_BYTES:
            yield from _usable(body.strip().decode(errors="replace"))
    for written in _written(body, is_json=is_json):
        has_escapes = b"\\" in written
        if len(written) > _LONGEST and not has_escapes:
            continue
        text = written.decode(errors="replace")
        if has_escapes:
            try:
                text = json.loads(f'"{text}"', strict=False)
            except ValueError:
                continue
        yield from _usable(text)
        if '"' in text and depth:
            yield from strings_of(text.encode(errors="replace"), depth - 1)


def _written(body: bytes, *, is_json: bool) -> Iterator[bytes]:
    """Yield the text between quotes, as it is written."""
    yield from (match[1] for match in _STRING.finditer(body) if match[2])
    if not is_json:
        # Read again as if the first quote had closed a string, and then without regard to escapes.
        yield from (match[1] for match in _STRING.finditer(body, body.find(b'"') + 1) if match[2])
        yield from (match[1] for match in _NEIGHBOURS.finditer(body))


def naming(bodies: Iterable[tuple[K, bytes]], known: Callable[[list[str]], set[str]]) -> set[K]:
    """Return the keys of the bodies that hold one of the run ids as a whole string.

    Args:
        bodies: each with its key.
        known: returns those of at most `STRINGS_AT_ONCE` strings that are ids of the runs in
            question.
    """
    named = ((string, key) for key, body in bodies for string in strings_of(body))
    found: set[K] = set()
    while some := list(islice(named, STRINGS_AT_ONCE)):
        ids = known(sorted({string for string, _ in some}))
        found.update(key for string, key in some if string in ids)
    return found


def _usable(text: str) -> Iterator[str]:
    """Yield the text if it can be an id in the ledger."""
    try:
        if 0 < len(text.encode()) <= MAX_ID_BYTES and "\0" not in text:
            yield text
    except UnicodeError:
        pass

"""Which runs are named by bytes that belong to no run: bad rows of a run list, and answers that are no list."""

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
"""So many strings are looked up at once."""

# Possessive, and what is not closed is taken whole: no byte is gone over again for each quote
# before it.
_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:(")|\\?\Z)', re.DOTALL)
_NEIGHBOURS = re.compile(rb'"([^"]*+)(?=")')
# Of six bytes each, as an escape. Longer strings are no id, but may hold JSON.
_LONGEST = 6 * MAX_ID_BYTES
# JSON in a string in a string; nobody nests it deeper.
_DEPTH = 3


def strings_of(body: bytes, depth: int = _DEPTH) -> Iterator[str]:
    """The strings of a JSON text that can be an id, however they are written, and those of JSON that stands in a string.

    Of bytes that are no JSON: all of them as one, and what stands between any two neighbouring
    quotes, since nobody can tell which of them open a string. What is cut off counts for nothing:
    it may be the begin of a longer id. The work grows with the length of the body, whatever is in
    it.
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
    """What stands between quotes, as it is written."""
    yield from (match[1] for match in _STRING.finditer(body) if match[2])
    if not is_json:
        # As if the first quote had closed a string; and without a thought for escapes.
        yield from (match[1] for match in _STRING.finditer(body, body.find(b'"') + 1) if match[2])
        yield from (match[1] for match in _NEIGHBOURS.finditer(body))


def naming(bodies: Iterable[tuple[K, bytes]], known: Callable[[list[str]], set[str]]) -> set[K]:
    """The keys of those bodies that hold the id of one of these runs as a whole string.

    Args:
        bodies: each with its key.
        known: which of these strings, at most `STRINGS_AT_ONCE`, are ids of the runs that are meant.
    """
    named = ((string, key) for key, body in bodies for string in strings_of(body))
    found: set[K] = set()
    while some := list(islice(named, STRINGS_AT_ONCE)):
        ids = known(sorted({string for string, _ in some}))
        found.update(key for string, key in some if string in ids)
    return found


def _usable(text: str) -> Iterator[str]:
    """The text, if it can be an id in the ledger."""
    try:
        if 0 < len(text.encode()) <= MAX_ID_BYTES and "\0" not in text:
            yield text
    except UnicodeError:
        pass

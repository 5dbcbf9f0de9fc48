"""The first difference between two JSON values.

The values are JSON text as PostgreSQL prints `jsonb`. Only the parts that differ are split further,
level by level, so that no number loses digits and equal parts cost one comparison of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import zip_longest

import msgspec
from msgspec import Raw

LONGEST_VALUE = 200
"""Maximum number of characters of a value that are shown."""
LONGEST_PATH = 500
"""Maximum number of characters of a path that are shown."""

# Each level reads the rest of the value once more. Python 3.11 cannot read more levels; newer
# versions read as many as fit on the stack.
_DEEPEST = 1000

# Characters before the first differing one, if a long string is cut.
_BEFORE = 40

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
ID_AND_TIME_WORDS = frozenset(
    {"id", "ids", "at", "created", "date", "duration", "fingerprint", "latency", "ms"}
    | {"signature", "time", "timestamp", "ts"}
)
"""Last words of the names of members that differ between any two calls."""
_ID_OR_TIME = re.compile(
    rb'"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"'
    rb'|"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"'
)

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[Raw])
_STRING = msgspec.json.Decoder(str)


class JsonDifference(msgspec.Struct, frozen=True):
    """The place of the first difference, and both values there."""

    path: str
    """In PostgreSQL's jsonpath, such as `$.messages[0].content`; cut short if it is long."""
    a: str | None
    """The value as JSON, cut short around the first differing character; None: it is missing."""
    b: str | None
    is_minor: bool
    """Whether only ids and times differ: then this is the first of them."""


class _Place(msgspec.Struct, frozen=True):
    """A place in a document, as its last part and the place around it."""

    key: str | int
    around: _Place | None


_Members = Iterator[tuple[_Place | None, Raw | None, Raw | None]]


def first_difference(
    a: bytes, b: bytes, *, own_ids: tuple[str, str] = ("", "")
) -> JsonDifference | None:
    """Return the first difference in document order; None if there is none.

    Ids and times differ between any two runs. Such a difference counts only if there is no other:
    one in a member whose name ends in a word of `ID_AND_TIME_WORDS`, between two UUIDs or two
    times, or between two values that are equal except for their own run's id.

    Args:
        a: JSON text in UTF-8.
        b: the same.
        own_ids: the id of each value's run; empty: none.

    Raises:
        RecursionError: the values differ in more than 1,000 levels, or one is nested too deeply.
    """
    minor: JsonDifference | None = None
    # One iterator for each level that is open, so that only the way to a difference is kept.
    levels: list[_Members] = [iter([(None, Raw(a), Raw(b))])]
    while levels:
        for place, one, other in levels[-1]:
            if one == other:
                continue
            members = None if one is None or other is None else _members(place, one, other)
            if members is not None:
                if len(levels) == _DEEPEST:
                    raise RecursionError
                levels.append(members)
                break
            if _are_equal_numbers(one, other):
                continue
            if not _is_minor(place, one, other, own_ids):
                return _difference(place, one, other, is_minor=False)
            minor = minor or _difference(place, one, other, is_minor=True)
        else:
            levels.pop()
    return minor


def _members(place: _Place | None, one: Raw, other: Raw) -> _Members | None:
    """Return the members of two objects or two arrays, in document order; None for others."""
    kinds = bytes(memoryview(one)[:1]), bytes(memoryview(other)[:1])
    if kinds == (b"{", b"{"):
        objects = _OBJECT.decode(one), _OBJECT.decode(other)
        names = sorted(objects[0].keys() | objects[1].keys(), key=_order)
        return ((_Place(name, place), objects[0].get(name), objects[1].get(name)) for name in names)
    if kinds == (b"[", b"["):
        arrays = _ARRAY.decode(one), _ARRAY.decode(other)
        pairs = enumerate(zip_longest(*arrays))
        return ((_Place(index, place), *pair) for index, pair in pairs)
    return None


def _order(key: str) -> tuple[int, bytes]:
    """Return where `jsonb` places a member: shorter names first."""
    name = key.encode()
    return len(name), name


def _are_equal_numbers(one: Raw | None, other: Raw | None) -> bool:
    """Return whether both are numbers of the same value, such as 1.1 and 1.10."""
    if one is None or other is None:
        return False
    texts = bytes(one).decode(), bytes(other).decode()
    return all(text[0] in "-0123456789" for text in texts) and (
        Decimal(texts[0]) == Decimal(texts[1])
    )


def _is_minor(
    place: _Place | None, one: Raw | None, other: Raw | None, own_ids: tuple[str, str]
) -> bool:
    while place is not None and isinstance(place.key, int):
        place = place.around
    if place is not None and isinstance(place.key, str):
        words = _WORDS.findall(place.key[-100:])
        if words and words[-1].lower() in ID_AND_TIME_WORDS:
            return True
    if one is None or other is None:
        return False
    values = bytes(one), bytes(other)
    if all(map(_ID_OR_TIME.fullmatch, values)):
        return True
    without = [
        value.replace(id.encode(), b"\0") if id else value
        for value, id in zip(values, own_ids, strict=True)
    ]
    return without[0] == without[1]


def _difference(
    place: _Place | None, one: Raw | None, other: Raw | None, *, is_minor: bool
) -> JsonDifference:
    values = [b"" if value is None else bytes(value) for value in (one, other)]
    if all(value[:1] == b'"' for value in values):
        strings = [_STRING.decode(value) for value in values]
        at = next(
            (at for at, (x, y) in enumerate(zip(*strings, strict=False)) if x != y),
            min(map(len, strings)),
        )
        start = at - _BEFORE if at > LONGEST_VALUE - _BEFORE else 0
        a, b = (_part(string, start) for string in strings)
    else:
        a, b = map(_cut, values)
    return JsonDifference(_path(place), a or None, b or None, is_minor)


def _part(string: str, start: int) -> str:
    """Return a part of a string as a JSON string; an ellipsis stands for what is left out."""
    end = start + LONGEST_VALUE
    shown = msgspec.json.encode(string[start:end]).decode()
    return f"{'…' if start else ''}{shown}{'…' if len(string) > end else ''}"


def _cut(value: bytes) -> str:
    # A character has at most four bytes; the last one may be incomplete.
    text = value[: 4 * LONGEST_VALUE + 4].decode(errors="ignore")
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def _path(place: _Place | None) -> str:
    parts = []
    while place is not None:
        parts.append(_step(place.key))
        place = place.around
    path = "$" + "".join(reversed(parts))
    half = LONGEST_PATH // 2
    return path if len(path) <= LONGEST_PATH else f"{path[:half]}…{path[-half:]}"


def _step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _NAME.fullmatch(key) else f".{msgspec.json.encode(key).decode()}"

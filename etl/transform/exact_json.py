"""Parsing and writing of JSON without the loss of a digit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Any

from msgspec import Raw


class _Number(float):
    """A float that keeps the text of its number. JSONPath filters compare it as a float."""

    text: str

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, text)
        number.text = text
        return number


def _integer(text: str) -> int | _Number:
    # int() refuses more than 4,300 digits, and turns -0 into 0.
    return int(text) if len(text) < 19 and text != "-0" else _Number(text)


_WORDS = {None: "null", True: "true", False: "false"}
_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=_Number, parse_constant=_Number, strict=False
)


def parse(own: Raw) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError, RecursionError: the text cannot be read.
    """
    # Bytes that are not UTF-8 become lone surrogates. `payloads` replaces and notes them as such.
    return _DECODER.decode(bytes(own).decode(errors="surrogateescape"))


def written(value: Any, *, ordered: bool = False) -> bytes:
    """Return the value as JSON, with every number as it was spelled.

    If `ordered`, the members of objects are sorted by name.
    """
    # Python and JSON escape a lone surrogate in the same way: \ud800.
    return _json(value, ordered).encode(errors="backslashreplace")


def _json(value: Any, ordered: bool) -> str:
    # Exact types, the most frequent first: this function takes half of the time of a redaction.
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is dict:
        members = sorted(value.items()) if ordered else value.items()
        return (
            "{"
            + ",".join(
                [f"{encode_basestring(name)}:{_json(inner, ordered)}" for name, inner in members]
            )
            + "}"
        )
    if kind is list:
        return "[" + ",".join([_json(inner, ordered) for inner in value]) + "]"
    if kind is _Number:
        text: str = value.text
        return text
    return _WORDS[value] if value is None or kind is bool else str(value)


def kind_of(value: Any) -> str:
    """Return the JSON type of a parsed value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "number"


def same_value(one: bytes, other: bytes) -> bool:
    """Return whether two JSON texts have the same value to the last digit.

    The members must also have the same order. Return False if one of the texts cannot be read.
    """
    try:
        return written(parse(Raw(one))) == written(parse(Raw(other)))
    except (ValueError, RecursionError):
        return False


def texts_of(value: Any) -> Iterator[str]:
    """Yield every string in a parsed JSON value, except the names of members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)

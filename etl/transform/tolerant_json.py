"""The tolerant reading of JSON text, without recursion: where its parts begin and end.

It accepts what the decoder refuses: lone surrogates, bytes that are not UTF-8, NaN, Infinity, and
any depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from msgspec import Raw

Members = dict[str, Raw]
"""An object's members in their order, byte for byte; a duplicate name has its last value."""

# Python before 3.11.5 (Debian 12 has 3.11.2) does not return to the start of the last, failed
# iteration of a possessive repetition. The last alternative in each repetition is therefore one
# that consumes nothing if it fails.
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})|[^"\\]++)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_VALUE = re.compile(
    _SPACE + rb"(?:([\[{])|" + _STRING + rb"|-?Infinity|" + _NUMBER + rb"|true|false|null|NaN)"
)
_KEY = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE)
_EMPTY = {ord("["): re.compile(_SPACE + rb"\]"), ord("{"): re.compile(_SPACE + rb"\}")}
_AFTER_VALUE = re.compile(_SPACE + rb"([,\]}])")
# The next separator, outside strings. A quotation mark as the separator opens a string that never
# ends.
_SEPARATOR = re.compile(rb'(?:"(?:\\.|[^"\\]++)*+"|[^\[\]{},"]++)*+([\[\]{},"])', re.DOTALL)
# The same inside an element, where commas are not separators.
_BRACKET = re.compile(rb'(?:"(?:\\.|[^"\\]++)*+"|[^\[\]{}"]++)*+([\[\]{}"])', re.DOTALL)
# Elements without brackets, escapes and inner commas, each with the comma after it.
_PLAIN = re.compile(rb'(?:[^\[\]{}",]*+(?:"[^"\\,]*+"[^\[\]{}",]*+)?,)+')
# The bytes that it matches at once: it takes 270 bytes of memory for each element.
_RUN_BYTES = 1 << 15

SPACES = b" \t\n\r"
_CLOSER = {ord("["): ord("]"), ord("{"): ord("}")}
_OBJECT_CLOSER = ord("}")
_COMMA = ord(",")


class Malformed(ValueError):
    """The text is not JSON, even if it is read tolerantly."""


def parts(text: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the parts of an array or object: start, end and number of elements or members.

    Neighbours without brackets are yielded together. The text must start with its bracket.

    Raises:
        Malformed: the text is not exactly one array or object.
    """
    closers = bytearray((_CLOSER[text[0]],))
    position = start = 1
    while True:
        if position == start and (run := _PLAIN.match(text, start, start + _RUN_BYTES)):
            yield start, run.end() - 1, text.count(b",", start, run.end())
            position = start = run.end()
        match = (_SEPARATOR if len(closers) == 1 else _BRACKET).match(text, position)
        if match is None:
            raise Malformed
        position = match.end()
        separator = text[position - 1]
        if closer := _CLOSER.get(separator):
            closers.append(closer)
        elif separator == _COMMA:
            yield start, position - 1, 1
            start = position
        elif separator != closers.pop():
            raise Malformed
        elif not closers:
            if position != len(text):
                raise Malformed
            if start > 1 or text[start : position - 1].strip(SPACES):
                yield start, position - 1, 1
            return


def split_object(text: bytes) -> Members:
    """Split an object with the tolerant method.

    Raises:
        Malformed: the text is not exactly one object.
    """
    if not text.startswith(b"{"):
        raise Malformed
    if match := _EMPTY[ord("{")].match(text, 1):
        members: Members = {}
    else:
        members, position, separator = {}, 1, b","
        while separator == b",":
            key, position = _key(text, position)
            end = _value_end(text, position)
            members[_name(key)] = Raw(text[position:end])
            match = _AFTER_VALUE.match(text, end)
            if match is None or match[1] == b"]":
                raise Malformed
            separator, position = match[1], match.end()
    if match is None or match.end() != len(text):
        raise Malformed
    return members


def _key(text: bytes, position: int) -> tuple[bytes, int]:
    match = _KEY.match(text, position)
    if match is None:
        raise Malformed
    return match[1], match.end()


def _name(key: bytes) -> str:
    """Return a member's name; it may contain lone surrogates, also in place of invalid UTF-8."""
    name: str = json.loads(key.decode("utf-8", "surrogateescape"), strict=False)
    return name


def _value_end(text: bytes, position: int) -> int:
    """Return the end of the value that starts at `position`.

    Raises:
        Malformed: no well-formed value starts there.
    """
    closers = bytearray()  # The closing brackets of the open containers, the innermost last.
    while True:
        match = _VALUE.match(text, position)
        if match is None:
            raise Malformed
        position = match.end()
        if match[1]:
            opener = text[position - 1]
            if empty := _EMPTY[opener].match(text, position):
                position = empty.end()
            else:
                closers.append(_CLOSER[opener])
                if closers[-1] == _OBJECT_CLOSER:
                    _, position = _key(text, position)
                continue
        while closers:
            match = _AFTER_VALUE.match(text, position)
            if match is None:
                raise Malformed
            position = match.end()
            if match[1] == b",":
                if closers[-1] == _OBJECT_CLOSER:
                    _, position = _key(text, position)
                break
            if match[1][0] != closers.pop():
                raise Malformed
        else:
            return position


def is_json(text: bytes) -> bool:
    """Return whether the text is one JSON value, read tolerantly."""
    try:
        return not text[_value_end(text, 0) :].strip(SPACES)
    except Malformed:
        return False

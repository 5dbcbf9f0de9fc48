"""Splits JSON text into its parts without parsing it: arrays into elements, objects into members.

Two ways give the same shape. The fast one is the decoder's, which takes an answer as a whole or not at
all. Where it refuses (lone surrogates, bytes that are not UTF-8, NaN, deep nesting, one broken element),
the tolerant one finds the parts by itself, without recursion, so that one bad element costs only itself.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import NamedTuple

import msgspec
from msgspec import Raw

Members = dict[str, Raw]
"""An object's members as they came, in their order; of duplicate names the last value."""

REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises for text that it does not take."""

_ELEMENTS = msgspec.json.Decoder(list[Raw])
_MEMBERS = msgspec.json.Decoder(Members)

# Python before 3.11.5 (Debian 12 has 3.11.2) does not go back to where the last, failed try of a possessive repetition began.
# So the last alternative in each is one that takes nothing where it fails.
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})|[^"\\]++)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_VALUE = re.compile(_SPACE + rb"(?:([\[{])|" + _STRING + rb"|-?Infinity|" + _NUMBER + rb"|true|false|null|NaN)")
_KEY = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE)
_EMPTY = {ord("["): re.compile(_SPACE + rb"\]"), ord("{"): re.compile(_SPACE + rb"\}")}
_AFTER_VALUE = re.compile(_SPACE + rb"([,\]}])")
# The next character that separates, with whole strings skipped; a quotation mark here opens a string that never ends.
_SEPARATOR = re.compile(rb'(?:"(?:\\.|[^"\\]++)*+"|[^\[\]{},"]++)*+([\[\]{},"])', re.DOTALL)

_SPACES = b" \t\n\r"
_CLOSER = {ord("["): ord("]"), ord("{"): ord("}")}
_OBJECT_CLOSER = ord("}")


class Malformed(ValueError):
    """The text is not JSON, however tolerantly it is read."""


class Split(NamedTuple):
    """An array's elements, each as its own bytes and its members; None where it is not a well-formed object."""

    elements: list[tuple[Raw, Members | None]]
    strict: bool
    """True where the fast way took the text: it is UTF-8 and JSON by the standard's letter."""


# Bytes decoded at once to see whether they are UTF-8: text takes up to four times their room.
_PIECE = 1 << 20


def check_utf8(text: bytes) -> None:
    """Raises UnicodeDecodeError where the text is not UTF-8."""
    if len(text) <= _PIECE:
        text.decode()
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _PIECE):
        decoder.decode(text[start : start + _PIECE], final=start + _PIECE >= len(text))


def split_fast(body: bytes) -> Split:
    """Split an array of objects. Raises one of REFUSALS where the text is anything else."""
    check_utf8(body)  # the decoder does not, in the parts that it leaves raw
    members = _MEMBERS.decode
    return Split([(own, members(own)) for own in _ELEMENTS.decode(body)], True)


def split_tolerant(body: bytes) -> Split | None:
    """Split an array of anything; None where the text is not exactly one array, from bracket to bracket.

    A bare `null` is an empty array: servers in Go write it for one.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip(_SPACES)
    if text == b"null":
        return Split([], True)
    own_texts = _split_array(text)
    if own_texts is None:
        return None
    return Split([(Raw(own), _members(own)) for own in own_texts], False)


def split(body: bytes) -> Split | None:
    """Split an array, the fast way where possible; None where the text is not exactly one array."""
    try:
        return split_fast(body)
    except REFUSALS:
        return split_tolerant(body)


def members_of(text: bytes) -> tuple[Members, bool] | None:
    """An object's members, and whether the fast way took the text (see `Split`); None where it is not a well-formed object."""
    try:
        check_utf8(text)
        return _MEMBERS.decode(text), True
    except REFUSALS:
        pass
    try:
        return split_object(text), False
    except Malformed:
        return None


def is_json(text: bytes) -> bool:
    """Whether the text is one JSON value, read tolerantly."""
    try:
        return not text[_value_end(text, 0) :].strip(_SPACES)
    except Malformed:
        return False


def _members(own: bytes) -> Members | None:
    """One element's members; None where it is not a well-formed object."""
    try:
        return _MEMBERS.decode(own)
    except REFUSALS:
        pass
    try:
        return split_object(own)
    except Malformed:
        return None


def _split_array(text: bytes) -> list[bytes] | None:
    if not text.startswith(b"["):
        return None
    elements: list[bytes] = []
    closers = bytearray()
    position = start = 0
    while match := _SEPARATOR.match(text, position):
        position = match.end()
        separator = text[position - 1]
        if closer := _CLOSER.get(separator):
            closers.append(closer)
            start = position if len(closers) == 1 else start
        elif separator == ord(","):
            if len(closers) == 1:
                elements.append(text[start : position - 1].strip(_SPACES))
                start = position
        elif separator != closers.pop():
            return None
        elif not closers:
            last = text[start : position - 1].strip(_SPACES)
            if last or elements:
                elements.append(last)
            return elements if position == len(text) else None
    return None


def split_object(text: bytes) -> Members:
    """Split an object the tolerant way. Raises Malformed where the text is not exactly one object."""
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
    """A member's name; what is not UTF-8 becomes lone surrogates, as lone surrogates stay."""
    name: str = json.loads(key.decode("utf-8", "surrogateescape"), strict=False)
    return name


def _value_end(text: bytes, position: int) -> int:
    """Where the value ends that starts at `position`. Raises Malformed where none does."""
    closers = bytearray()  # of the containers that are open, the innermost last
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

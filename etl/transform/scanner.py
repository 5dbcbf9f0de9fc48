"""Splits JSON text into its parts without parsing it: arrays into elements, objects into members.

Two ways give the same shape. The fast one is the decoder's, which takes an answer as a whole or not
at all. Where it refuses (lone surrogates, bytes that are not UTF-8, NaN, deep nesting, one broken
element), the tolerant one finds the parts by itself, without recursion, so that one bad element
costs only itself.

Elements come one after the other. The fast way holds a view of each (64 bytes), so texts with an
element every few bytes go the tolerant way, which holds none: memory stays in proportion to the
text.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import msgspec
from msgspec import Raw

Members = dict[str, Raw]
"""An object's members as they came, in their order; of duplicate names the last value."""

REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the decoder raises for text that it does not take."""

_ELEMENTS = msgspec.json.Decoder(list[Raw])
_MEMBERS = msgspec.json.Decoder(Members)
_RAW = msgspec.json.Decoder(Raw)

# Python before 3.11.5 (Debian 12 has 3.11.2) does not go back to where the last, failed try of a
# possessive repetition began. So the last alternative in each is one that takes nothing where it
# fails.
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})|[^"\\]++)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_VALUE = re.compile(
    _SPACE + rb"(?:([\[{])|" + _STRING + rb"|-?Infinity|" + _NUMBER + rb"|true|false|null|NaN)"
)
_KEY = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE)
_EMPTY = {ord("["): re.compile(_SPACE + rb"\]"), ord("{"): re.compile(_SPACE + rb"\}")}
_AFTER_VALUE = re.compile(_SPACE + rb"([,\]}])")
# The next character that separates, with whole strings skipped; a quotation mark here opens a
# string that never ends.
_SEPARATOR = re.compile(rb'(?:"(?:\\.|[^"\\]++)*+"|[^\[\]{},"]++)*+([\[\]{},"])', re.DOTALL)
# The same inside an element, where commas separate nothing.
_BRACKET = re.compile(rb'(?:"(?:\\.|[^"\\]++)*+"|[^\[\]{}"]++)*+([\[\]{}"])', re.DOTALL)
# Elements without brackets, escapes and commas of their own, each with the comma behind it.
_PLAIN = re.compile(rb'(?:[^\[\]{}",]*+(?:"[^"\\,]*+"[^\[\]{}",]*+)?,)+')

_SPACES = b" \t\n\r"
_CLOSER = {ord("["): ord("]"), ord("{"): ord("}")}
_OBJECT_CLOSER = ord("}")
_OBJECT = ord("{")
_COMMA = ord(",")


class Malformed(ValueError):
    """The text is not JSON, however tolerantly it is read."""


class Element(NamedTuple):
    """One element of an array; or several neighbours that hold no object, as one."""

    own: Raw
    """Its own bytes; of several, with the commas between them."""
    members: Members | None
    """None where it is not a well-formed object, or has more than `MAX_MEMBERS` members."""
    strict: bool = False
    """Whether it is known to be UTF-8 and JSON by the standard's letter."""
    number: int = 1
    """How many elements these are."""
    unread: bool = False
    """Whether these are the elements behind the last one that was looked at."""


MAX_MEMBERS = 20_000
"""An object with more is no step, run or workflow: each member costs some 200 bytes."""

ALWAYS_READ = 20_000
"""So many elements of an array are looked at one by one, however small they are."""

# So many elements without brackets come one by one; the others as runs of at most so many bytes:
# the pattern takes 270 bytes of memory an element.
_SINGLY = 1_000
_RUN_BYTES = 1 << 15
# Elements are counted behind the last one looked at up to so many: a second, for the smallest.
_COUNTED = 1_000_000
# An array with a comma in every so many bytes does not go the fast way.
_DENSE = 16


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


def elements(body: bytes, *, most: int) -> Iterator[Element]:
    """Split an array of anything, the fast way where possible. The first `most` elements are looked at, those behind them come
    as one, `unread`.

    Raises Malformed, at the latest at the end, where the text is not exactly one array, from
    bracket to bracket.
    """
    if body.count(b",") <= max(5 * ALWAYS_READ, len(body) // _DENSE):
        try:
            return split_fast(body, most)
        except REFUSALS:
            pass
    return split_tolerant(body, most)


def split_fast(body: bytes, most: int = ALWAYS_READ) -> Iterator[Element]:
    """Split an array, at once; `most` elements are looked at. Raises one of REFUSALS where the decoder does not take the text."""
    check_utf8(body)  # the decoder does not, in the parts that it leaves raw
    return _fast(_ELEMENTS.decode(body), most)


def _fast(own_texts: list[Raw], most: int) -> Iterator[Element]:
    behind = own_texts[most:]
    del own_texts[most:]
    for own in own_texts:
        yield _strict(own) or Element(own, _members(bytes(own)))
    if behind:
        yield Element(Raw(b",".join(behind)), None, number=len(behind), unread=True)


def split_tolerant(body: bytes, most: int = ALWAYS_READ) -> Iterator[Element]:
    """Split an array of anything, step by step; `most` elements are looked at. Raises as `elements`.

    A bare `null` is an empty array: servers in Go write it for one.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip(_SPACES)
    if text == b"null":
        return
    if not text.startswith(b"["):
        raise Malformed
    singly = _SINGLY
    looked_at = 0
    parts = _parts(text)
    for start, end, number in parts:
        if number == 1 and looked_at == most:
            yield _unread(text, start, 1 + sum(part[2] for part in islice(parts, _COUNTED)))
            return
        own = text[start:end].strip(_SPACES)
        if number == 1:
            looked_at += 1
            yield Element(Raw(own), _members(own))
        elif singly > 0:
            singly -= number
            for one in own.split(b","):
                yield Element(Raw(one.strip(_SPACES)), None)
        else:
            yield Element(Raw(own), None, number=number)


def _unread(text: bytes, start: int, number: int) -> Element:
    """What lies behind the elements that were looked at. Raises Malformed where the text does not end as an array does."""
    if not text.endswith(b"]"):
        raise Malformed
    return Element(Raw(text[start:-1].strip(_SPACES)), None, number=number, unread=True)


class Split(NamedTuple):
    """A small array's elements, each as its own bytes and its members; None where it is not a well-formed object."""

    elements: list[tuple[Raw, Members | None]]
    strict: bool
    """True where the fast way took the text: it is UTF-8 and JSON by the standard's letter."""


def split(body: bytes) -> Split | None:
    """Split an array as a whole; None where the text is not exactly one array."""
    try:
        found = list(elements(body, most=len(body)))
    except Malformed:
        return None
    return Split([(one.own, one.members) for one in found], all(one.strict for one in found))


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


def is_strict_json(text: bytes) -> bool:
    """Whether the text is one JSON value by the standard's letter."""
    try:
        check_utf8(text)
        _RAW.decode(text)
    except REFUSALS:
        return False
    return True


def _strict(own: Raw) -> Element | None:
    """An element of a text that the decoder took; None where it is an object that cannot be split so."""
    view = memoryview(own)
    if view[0] != _OBJECT or has_too_many_members(own):
        return Element(own, None, True)
    try:
        return Element(own, _MEMBERS.decode(own), True)
    except REFUSALS:
        return None


def _members(own: bytes) -> Members | None:
    """One element's members; None where it is not a well-formed object, or has too many."""
    if not own.startswith(b"{") or has_too_many_members(own):
        return None
    try:
        return _MEMBERS.decode(own)
    except REFUSALS:
        pass
    try:
        return split_object(own)
    except Malformed:
        return None


def has_too_many_members(own: bytes | Raw) -> bool:
    """Whether an object has more than `MAX_MEMBERS` members; told without splitting it."""
    if memoryview(own).nbytes <= 2 * MAX_MEMBERS:
        return False
    text = bytes(own)
    if text.count(b",") < MAX_MEMBERS or not text.startswith(b"{"):
        return False
    parts = 0
    try:
        for _, _, number in _parts(text):
            parts += number
            if parts > MAX_MEMBERS:
                return True
    except Malformed:
        pass
    return False


def _parts(text: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each element of an array, or member of an object, starts and ends, and how many there are: neighbours without
    brackets come as one. The text starts with its bracket; raises Malformed where it is not exactly
    one array or object."""
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
            if start > 1 or text[start : position - 1].strip(_SPACES):
                yield start, position - 1, 1
            return


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

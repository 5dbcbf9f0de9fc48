"""Splitting of JSON text without parsing it: arrays into elements, objects into members.

Two methods have the same result. The fast one uses the decoder, which accepts a response as a whole
or not at all. If it refuses (lone surrogates, bytes that are not UTF-8, NaN, deep nesting, one
malformed element), the tolerant one finds the parts by `tolerant_json`. One bad element then does
not block the others.

Elements are yielded one by one. The fast method holds a view (64 bytes) of each element. Texts with
an element every few bytes are therefore split by the tolerant method, which holds none: memory
stays proportional to the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from etl.transform.tolerant_json import SPACES, Malformed, Members, parts, split_object

REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors that the decoder raises for text that it does not accept."""

_ELEMENTS = msgspec.json.Decoder(list[Raw])
_MEMBERS = msgspec.json.Decoder(Members)
_RAW = msgspec.json.Decoder(Raw)

_OBJECT = ord("{")


class Element(msgspec.Struct, frozen=True):
    """One element of an array, or several neighbouring elements that are not objects."""

    own: Raw
    """The bytes of the element, or of several elements with the commas between them."""
    members: Members | None
    """None if the element is not a well-formed object, or has more than `MAX_MEMBERS` members."""
    strict: bool = False
    """Whether the element is known to be UTF-8 and strict JSON."""
    number: int = 1
    """The number of elements."""
    unread: bool = False
    """Whether these are the elements after the last examined element."""
    record: Any = None
    """What `read` returned for the element, which is then not split (see `elements`)."""


MAX_MEMBERS = 20_000
"""Maximum members of an object that is split: each member takes about 200 bytes of memory."""
# The bytes of the shortest member.
_LEAST_BYTES = len(b'"":0,')

ALWAYS_READ = 20_000
"""The number of elements of an array that are always examined, even if they are tiny."""

# So many elements without brackets are yielded one by one, and later ones in groups.
_SINGLY = 1_000
# Maximum unexamined elements that are counted, which takes a second for the smallest elements.
_COUNTED = 1_000_000
# An array with more than one comma for this many bytes is not split by the fast method.
_DENSE = 16


# The bytes checked for UTF-8 at once: decoded text takes up to four times their memory.
_PIECE = 1 << 20


def check_utf8(text: bytes) -> None:
    """Check that the text is UTF-8.

    Raises:
        UnicodeDecodeError: it is not.
    """
    if len(text) <= _PIECE:
        text.decode()
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _PIECE):
        decoder.decode(text[start : start + _PIECE], final=start + _PIECE >= len(text))


def elements(
    body: bytes, *, most: int, read: Callable[[Raw], Any] | None = None
) -> Iterator[Element]:
    """Split an array, with the fast method if possible.

    The first `most` elements are examined; all later ones are yielded together, as `unread`.

    Args:
        body: the text.
        most: the number of elements to examine.
        read: decodes an element of strict JSON with at most `MAX_MEMBERS` members as a whole, which
            costs less than splitting it; None for an element that must be split.

    Raises:
        Malformed: the text is not exactly one array; raised at the latest after the last element.
    """
    most_commas = max(5 * ALWAYS_READ, len(body) // _DENSE)
    # Each comma of an array follows an element of at least one byte.
    if len(body) <= 2 * most_commas or body.count(b",") <= most_commas:
        try:
            return split_fast(body, most, read)
        except REFUSALS:
            pass
    return split_tolerant(body, most)


def split_fast(
    body: bytes, most: int = ALWAYS_READ, read: Callable[[Raw], Any] | None = None
) -> Iterator[Element]:
    """Split an array with the decoder; the first `most` elements are examined.

    Raises:
        REFUSALS: the decoder does not accept the text.
    """
    check_utf8(body)  # The decoder does not check the parts that it leaves raw.
    return _fast(_ELEMENTS.decode(body), most, read)


def _fast(own_texts: list[Raw], most: int, read: Callable[[Raw], Any] | None) -> Iterator[Element]:
    unread = own_texts[most:]
    del own_texts[most:]
    for own in own_texts:
        if read is not None and not has_too_many_members(own) and (record := read(own)) is not None:
            yield Element(own, None, strict=True, record=record)
        else:
            yield _strict(own) or Element(own, _members(bytes(own)))
    if unread:
        yield Element(Raw(b",".join(unread)), None, number=len(unread), unread=True)


def split_tolerant(body: bytes, most: int = ALWAYS_READ) -> Iterator[Element]:
    """Split an array with the tolerant method; the first `most` elements are examined.

    A bare `null` is read as an empty array, because servers written in Go send it.

    Raises:
        Malformed: as in `elements`.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip(SPACES)
    if text == b"null":
        return
    if not text.startswith(b"["):
        raise Malformed
    singly = _SINGLY
    examined = 0
    found = parts(text)
    for start, end, number in found:
        if number == 1 and examined == most:
            yield _unread(text, start, 1 + sum(part[2] for part in islice(found, _COUNTED)))
            return
        own = text[start:end].strip(SPACES)
        if number == 1:
            examined += 1
            yield Element(Raw(own), _members(own))
        elif singly > 0:
            singly -= number
            for one in own.split(b","):
                yield Element(Raw(one.strip(SPACES)), None)
        else:
            yield Element(Raw(own), None, number=number)


def _unread(text: bytes, start: int, number: int) -> Element:
    """Return the elements after the last examined element, combined into a single `Element`.

    Raises:
        Malformed: the text does not end with the bracket of an array.
    """
    if not text.endswith(b"]"):
        raise Malformed
    return Element(Raw(text[start:-1].strip(SPACES)), None, number=number, unread=True)


class Split(NamedTuple):
    """The elements of a small array, each with its bytes and its members.

    The members are None if the element is not a well-formed object.
    """

    elements: list[tuple[Raw, Members | None]]
    strict: bool
    """Whether the fast method accepted the text: it is UTF-8 and strict JSON."""


def split(body: bytes) -> Split | None:
    """Split a whole array; return None if the text is not exactly one array."""
    try:
        found = list(elements(body, most=len(body)))
    except Malformed:
        return None
    return Split([(one.own, one.members) for one in found], all(one.strict for one in found))


def members_of(text: bytes) -> tuple[Members, bool] | None:
    """Return an object's members, and whether the text is strict JSON (see `Split`).

    None if the text is not a well-formed object.
    """
    try:
        check_utf8(text)
        return _MEMBERS.decode(text), True
    except REFUSALS:
        pass
    try:
        return split_object(text), False
    except Malformed:
        return None


def is_strict_json(text: bytes) -> bool:
    """Return whether the text is one JSON value that conforms to the standard."""
    try:
        check_utf8(text)
        _RAW.decode(text)
    except REFUSALS:
        return False
    return True


def _strict(own: Raw) -> Element | None:
    """Return an element of a text that the decoder accepted.

    None if it is an object that the decoder cannot split.
    """
    view = memoryview(own)
    if view[0] != _OBJECT or has_too_many_members(own):
        return Element(own, None, True)
    try:
        return Element(own, _MEMBERS.decode(own), True)
    except REFUSALS:
        return None


def _members(own: bytes) -> Members | None:
    """Return an element's members; None if it is not a well-formed object, or has too many."""
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
    """Return whether an object has more than `MAX_MEMBERS` members, without splitting it."""
    if len(own) <= _LEAST_BYTES * MAX_MEMBERS:
        return False
    text = bytes(own)
    if text.count(b",") < MAX_MEMBERS or not text.startswith(b"{"):
        return False
    members = 0
    try:
        for _, _, number in parts(text):
            members += number
            if members > MAX_MEMBERS:
                return True
    except Malformed:
        pass
    return False

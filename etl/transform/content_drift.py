"""Payloads of a model's call in which the places of `content_shapes` hold no prompt or no answer.

Only the names of members are compared. So a payload that counts as unknown here has no place that
the SQL functions know.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from etl.transform.content_shapes import CONTAINERS, MAX_DEPTH, REQUEST_CONTAINERS, SHAPES
from etl.transform.scanner import REFUSALS
from etl.transform.shape import REQUEST, RESPONSE, Part
from etl.transform.text_streams import events_of
from etl.transform.usage_reading import INPUTS, OUTPUTS, Deviation, type_of

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_ELEMENTS = msgspec.json.Decoder(list[Raw])
_TEXT = msgspec.json.Decoder(str)
_ANY = msgspec.json.Decoder()
_OBJECT, _ARRAY, _STRING = b"{["[0], b"["[0], b'"'[0]


class _Names:
    """The names of the members by which requests or responses are known."""

    __slots__ = ("containers", "first", "second", "texts")

    def __init__(self, parts: Iterable[Part], containers: Iterable[str]) -> None:
        self.containers = frozenset(containers)
        self.first: frozenset[str] = frozenset()
        """Members each of which shows a known place."""
        self.second: dict[str, frozenset[str]] = {}
        """Containers, with the members of each that show a known place."""
        self.texts: frozenset[str] = frozenset()
        """Containers that are a known place if they are texts."""
        for shape in SHAPES:
            if shape.part not in parts:
                continue
            first, *rest = shape.members
            if first not in self.containers:
                self.first |= {first}
            elif rest:
                self.second[first] = self.second.get(first, frozenset()) | {rest[0]}
            else:
                self.texts |= {first}


_PROMPTS = _Names(REQUEST, REQUEST_CONTAINERS)
_ANSWERS = _Names(RESPONSE, CONTAINERS)
ANSWER_MEMBERS = _ANSWERS.first
"""Members each of which shows that an object may hold an answer."""


UNKNOWN_SHAPES = frozenset({"unknown_prompt", "unknown_answer"})
"""The kinds of drift that are found here."""


def unknown_shapes(inputs: Raw | None, outputs: Raw | None) -> list[Deviation]:
    """Return a deviation for each payload that has no prompt or answer at a known place.

    No content raises an error.

    Args:
        inputs: the inputs of a model's call; None if they are not to be checked.
        outputs: its outputs; None if they are not to be checked.
    """
    found = []
    if inputs is not None and _has_content(inputs) and not has_known_prompt(inputs):
        found.append(Deviation(INPUTS, "unknown_prompt", _type_of(inputs)))
    if outputs is not None and _has_content(outputs) and not has_known_answer(outputs):
        found.append(Deviation(OUTPUTS, "unknown_answer", _type_of(outputs)))
    return found


def has_known_prompt(inputs: Raw) -> bool:
    """Return whether inputs may hold a prompt at a known place. No content raises an error."""
    return _is_known(inputs, _PROMPTS)


def has_known_answer(outputs: Raw) -> bool:
    """Return whether outputs may hold an answer, tool call, image, … at a known place.

    No content raises an error.
    """
    return _is_known(outputs, _ANSWERS)


def _has_content(payload: Raw) -> bool:
    return bytes(memoryview(payload)[:4]) not in (b"null", b"{}", b"[]", b'""')


def _type_of(payload: Raw) -> str:
    try:
        return type_of(_ANY.decode(payload))
    except REFUSALS:
        return "null"


def _is_known(
    value: Raw, names: _Names, inside: frozenset[str] = frozenset(), depth: int = 0
) -> bool:
    first = memoryview(value)[0]
    try:
        if first == _OBJECT:
            members = _MEMBERS.decode(value)
            if not names.first.isdisjoint(members) or not inside.isdisjoint(members):
                return True
            return depth < MAX_DEPTH and any(
                (name in names.texts and memoryview(members[name])[0] in (_STRING, _ARRAY))
                or _is_known(members[name], names, names.second.get(name, frozenset()), depth + 1)
                for name in names.containers & members.keys()
            )
        if first == _ARRAY:
            elements = _ELEMENTS.decode(value)
            lines = [_TEXT.decode(one) for one in elements if memoryview(one)[0] == _STRING]
            return _are_known("\n".join(lines), names, inside, depth) or (
                depth < MAX_DEPTH
                and any(
                    memoryview(one)[0] == _OBJECT and _is_known(one, names, inside, depth + 1)
                    for one in elements
                )
            )
        if first == _STRING:
            text = _TEXT.decode(value).strip()
            return (
                text[:1] in ("{", "[") and _is_known(Raw(text.encode()), names, inside, depth)
            ) or _are_known(text, names, inside, depth)
    except REFUSALS:
        pass
    return False


def _are_known(text: str, names: _Names, inside: frozenset[str], depth: int) -> bool:
    events = events_of(text)
    return events is not None and _is_known(Raw(events), names, inside, depth)

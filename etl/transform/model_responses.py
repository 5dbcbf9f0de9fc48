"""Search for a model's response in a step's outputs.

The response can be the outputs themselves, a part of an integration's result, or the events of a
stream.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from etl.transform.content_drift import ANSWER_MEMBERS
from etl.transform.content_shapes import CONTAINERS, MAX_DEPTH
from etl.transform.fields import MAX_TEXT_CHARACTERS, text_of
from etl.transform.scanner import REFUSALS
from etl.transform.text_streams import events_of
from etl.transform.usage_names import FINISH_REASONS, MODELS
from etl.transform.usage_reading import (
    NAMES,
    OUTPUTS,
    UNREAD,
    Deviations,
    Found,
    gather,
    looks_like_usage,
    note_unknown,
)
from etl.transform.usage_tree import NameTree

_MAX_USAGE_BYTES = 1 << 18
_MAX_ARRAY_BYTES = 8 << 20
_MAX_TEXT_BYTES = 1 << 20
# A stream reports input tokens in its first events and output tokens in its last events.
_FIRST_EVENTS, _LAST_EVENTS = 100, 1_000
_MAX_UNKNOWN = 20
# An object with more members is not a wrapper of a response but, for instance, a table keyed by id.
_FEW = 100

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_ELEMENTS = msgspec.json.Decoder(list[Raw])
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(list[str])
_ANY = msgspec.json.Decoder()
_BESIDE = frozenset({"response_cost", "service_tier", "serviceTier", "results", "_hidden_params"})
"""Members that belong to a response, but do not show that an object is a response."""
_RESPONSES = frozenset({"response", "realtime.response"})
_CHARGED_ITEMS = {
    "web_search_call": "web_searches",
    "file_search_call": "file_searches",
    "code_interpreter_call": "tool_uses",
    "image_generation_call": "tool_uses",
}
"""The output items that are charged per use.

https://platform.openai.com/docs/pricing#built-in-tools
"""
_FINISH_REASONS = tuple(tuple(path.replace("[]", ".[]").split(".")) for path, _ in FINISH_REASONS)
# Up to version 2, Gemini charges a prompt with searches once; later versions charge each search:
# https://ai.google.dev/gemini-api/docs/google-search
_CHARGED_BY_PROMPT = re.compile(r"(?:models/)?gemini-[12]\b", re.ASCII)


_Kind = TypeVar("_Kind")


class _Action(Struct, gc=False):
    type: str | None = None


class _Item(Struct, gc=False):
    """An item in the output of OpenAI's Responses API."""

    type: str | None = None
    action: _Action | None = None
    container_id: str | None = None


class _Grounding(Struct, gc=False):
    webSearchQueries: list[Raw] = []
    web_search_queries: list[Raw] = []


class _Candidate(Struct, gc=False):
    groundingMetadata: _Grounding | None = None
    grounding_metadata: _Grounding | None = None


_ITEMS = msgspec.json.Decoder(list[_Item])
_CANDIDATES = msgspec.json.Decoder(list[_Candidate])


_OBJECT = ord("{")
# The end of most names of usage. A search for these bytes costs less than decoding the value.
_USAGE = b'sage"'
_REPORTING = frozenset(NAMES.members) - _BESIDE
_CONTAINERS = frozenset(CONTAINERS)
_REPORTING_OR_WRAPPING = _REPORTING | _CONTAINERS


def may_hold_usage(value: Raw, depth: int = 0) -> bool:
    """Return whether a value may contain a response; this excludes most payloads at low cost."""
    first = memoryview(value)[0]
    if first == _OBJECT:
        try:
            members = _MEMBERS.decode(value)
        except REFUSALS:
            return False
        if not _REPORTING_OR_WRAPPING.isdisjoint(members):
            if not _REPORTING.isdisjoint(members):
                return True
            # A loop is faster than any(), and this code runs for every step.
            for name in _CONTAINERS & members.keys():
                if depth < MAX_DEPTH and may_hold_usage(members[name], depth + 1):
                    return True
        names = "\n".join(members)
        if ("oken" in names or "sage" in names) and any(map(looks_like_usage, members)):
            return True
        return len(members) <= _FEW and any(map(_object_may_hold_usage, members.values()))
    if first in b'["':
        text = bytes(value)
        return b"usage" in text or b"oken" in text or b"eval_count" in text
    return False


def _object_may_hold_usage(value: Raw) -> bool:
    """Return whether an object may contain usage, at any depth.

    Arrays are not searched: most are long lists of documents or rows.
    """
    return (
        memoryview(value)[0] == _OBJECT
        and len(value) <= _MAX_USAGE_BYTES
        and _USAGE in bytes(value)
    )


class Completion:
    """What a model's response reports about its usage; a stream of events is one response."""

    __slots__ = (
        "_at",
        "_deviations",
        "_ids",
        "_reported",
        "_unknown",
        "_uses",
        "finish_reason",
        "may_answer",
        "model",
    )

    def __init__(self) -> None:
        self.model: str | None = None
        self.finish_reason: str | None = None
        self.may_answer = False
        """Whether a member was met that can hold an answer."""
        self._uses: Found = {}
        self._reported: dict[str, Any] = {}
        self._at: str | None = None
        self._ids: set[str] = set()
        self._unknown: list[tuple[str, str, Raw]] = []
        self._deviations = Deviations()

    @property
    def is_found(self) -> bool:
        """Whether a response with usage was found."""
        return self._at is not None or "ResponseMetadata" in self._reported

    def read(self) -> tuple[Found, Deviations]:
        """Return the usage that was found, and the members that could not be read."""
        found: Found = {}
        if not self.is_found:
            for path, name, raw in self._unknown:
                note_unknown(name, _decoded(raw), self._deviations, path)
        elif len(self._ids) > 1:
            # The usage of several responses is not added: the sum would have neither a single model
            # nor a single input length.
            self._deviations.note(f"{self._at}.usage", "unknown_usage", [])
            found[UNREAD] = len(self._ids)
        else:
            gather(
                NAMES, self._reported, found, deviations=self._deviations, path=self._at or OUTPUTS
            )
            if (searches := self._uses.pop("grounding", None)) is not None:
                by_prompt = (
                    self.model is not None and _CHARGED_BY_PROMPT.match(self.model) is not None
                )
                self._uses["web_searches"] = min(searches, 1) if by_prompt else searches
            for name, count in self._uses.items():
                found.setdefault(name, count)
        return found, self._deviations

    def look(self, value: bytes, path: str, depth: int = 0) -> bool:
        """Search JSON of any type for a response; return whether it could be read.

        No content raises an error.
        """
        try:
            if value.startswith(b"{"):
                self._look_into(_MEMBERS.decode(value), path, depth)
            elif value.startswith(b"[") and len(value) <= _MAX_ARRAY_BYTES:
                elements = _ELEMENTS.decode(value)
                self._look_at_events(elements, f"{path}[]", depth + 1)
                if elements and bytes(elements[0]).startswith(b'"'):
                    self._look_at_stream("\n".join(_TEXTS.decode(value)), path)
            elif value.startswith(b'"') and len(value) <= _MAX_TEXT_BYTES:
                text = _TEXT.decode(value).strip()
                if not (text[:1] in ("{", "[") and self.look(text.encode(), path, MAX_DEPTH - 1)):
                    self._look_at_stream(text, path)
        except REFUSALS:
            return False
        return True

    def _look_at_stream(self, text: str, path: str) -> None:
        # An event can contain the response, which contains the usage.
        if len(text) <= _MAX_TEXT_BYTES and (events := events_of(text)) is not None:
            self.look(events, path, MAX_DEPTH - 3)

    def _look_at_events(self, events: list[Raw], path: str, depth: int) -> None:
        if len(events) > _FIRST_EVENTS + _LAST_EVENTS:
            events = events[:_FIRST_EVENTS] + events[-_LAST_EVENTS:]
        for one in events:
            event = bytes(one)
            if event.startswith(b"{"):
                self._look_into(_MEMBERS.decode(event), path, depth)

    def _look_into(self, members: dict[str, Raw], path: str, depth: int) -> None:
        reports_usage = self._take_usage(members, path)
        self.may_answer = self.may_answer or not ANSWER_MEMBERS.isdisjoint(members)
        if reports_usage or self.model is None:
            self.model = next(
                (text for name in MODELS if (text := _text(members.get(name))) is not None),
                self.model,
            )
        self.finish_reason = _finish_reason(members) or self.finish_reason
        if reports_usage:
            self._take_uses(members)
            id = _text(members.get("id")) or _text(members.get("responseId"))
            if id is not None or _is_whole(members):
                self._ids.add(id or f"{len(self._ids)} without an id")
            return
        if "custom_id" in members:
            self._uses["batch"] = True
        for name in CONTAINERS:
            raw = members.get(name)
            if raw is not None and depth < MAX_DEPTH and may_hold_usage(raw):
                self.look(bytes(raw), f"{path}.{name}", depth + 1)
        for name, raw in members.items():
            if len(self._unknown) >= _MAX_UNKNOWN:
                return
            if name not in _CONTAINERS and (
                looks_like_usage(name) or (len(members) <= _FEW and _object_may_hold_usage(raw))
            ):
                self._unknown.append((path, name, raw))

    def _take_usage(self, members: dict[str, Raw], path: str) -> bool:
        reports_usage = False
        for name in members.keys() & NAMES.members.keys():
            if name == "results" and "inputTextTokenCount" not in members:
                continue  # Other `results` are search results or rows of a query.
            raw = members[name]
            if len(raw) > _MAX_USAGE_BYTES:
                self._deviations.note(f"{path}.{name}", "unknown_usage", {})
                continue
            value = _decoded(raw)
            if _has_usage(NAMES.members[name], value):
                self._reported[name] = _merged(self._reported.get(name), value)
                reports_usage = reports_usage or name not in _BESIDE | {"ResponseMetadata"}
        if reports_usage and self._at is None:
            self._at = path
        return reports_usage

    def _take_uses(self, members: dict[str, Raw]) -> None:
        """Count what OpenAI and Google charge per use, but do not include in the usage."""
        uses = self._uses
        containers = set()
        for item in _typed(_ITEMS, members.get("output")):
            quantity = _CHARGED_ITEMS.get(item.type) if isinstance(item.type, str) else None
            if item.type == "code_interpreter_call":
                if item.container_id in containers:
                    continue  # The charge is per container.
                containers.add(item.container_id)
            elif (
                item.type == "web_search_call"
                and item.action is not None
                and item.action.type not in (None, "search")
            ):
                continue  # The other actions open a page that a search found.
            if quantity is not None:
                uses[quantity] = uses.get(quantity, 0) + 1
        queries = 0
        for candidate in _typed(_CANDIDATES, members.get("candidates")):
            for grounding in candidate.groundingMetadata, candidate.grounding_metadata:
                if grounding is not None:
                    queries += len(grounding.webSearchQueries or grounding.web_search_queries)
        if queries:
            uses["grounding"] = max(uses.get("grounding", 0), queries)


def _is_whole(members: dict[str, Raw]) -> bool:
    """Return whether this is a complete response of a kind that has no id.

    That is OpenAI's list of embeddings, or the last event of a response by Ollama.
    """
    return _text(members.get("object")) == "list" or bytes(members.get("done") or b"") == b"true"


def _has_usage(node: NameTree, value: Any) -> bool:
    """Return whether a member's value contains anything that its entry in the name table covers."""
    if type(value) is dict:
        return not node.members.keys().isdisjoint(value)
    if type(value) is list:
        return bool(node.elements) and bool(value)
    return value is not None and node.quantity is not None


def _merged(before: Any, after: Any) -> Any:
    """Merge the values of one name from two events: the later value wins, unless it is empty."""
    if type(before) is dict and type(after) is dict:
        return before | {
            name: _merged(before.get(name), value)
            for name, value in after.items()
            if value is not None
        }
    return before if before and not after else after


def _finish_reason(members: dict[str, Raw]) -> str | None:
    for first, *rest in _FINISH_REASONS:
        raw = members.get(first)
        if raw is None:
            continue
        reason = _at(raw, rest)
        if reason is not None:
            return reason
    # In OpenAI's Responses and Realtime APIs, only the status shows why a complete response ended.
    return _text(members.get("status")) if _text(members.get("object")) in _RESPONSES else None


def _at(raw: Raw, path: list[str]) -> str | None:
    try:
        for name in path:
            if name == "[]":
                raw = next(iter(_ELEMENTS.decode(raw)), Raw(b"null"))
            else:
                raw = _MEMBERS.decode(raw).get(name, Raw(b"null"))
    except REFUSALS:
        return None
    return _text(raw)


def _typed(decoder: msgspec.json.Decoder[list[_Kind]], raw: Raw | None) -> list[_Kind]:
    if raw is None:
        return []
    try:
        return decoder.decode(raw)
    except REFUSALS:
        return []


def _decoded(raw: Raw) -> Any:
    try:
        return _ANY.decode(raw)
    except REFUSALS:
        return None


def _text(raw: Raw | None) -> str | None:
    """Return a text that fits a column; None if it is not a text, empty or too long."""
    value = text_of(raw)
    return value if value is not None and 0 < len(value) <= MAX_TEXT_CHARACTERS else None

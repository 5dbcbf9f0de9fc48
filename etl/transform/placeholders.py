"""Placeholders for payloads that are no longer stored.

A placeholder contains the values of the step's columns, in every place from which they may have
come. A redaction rule names a place in a payload. With the placeholder, the rule also reaches the
column, for the names of every provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from etl.transform.usage_names import FINISH_REASONS, MODELS, NAMES, REQUEST_MODELS

# The columns by `usage_quantities`.
_COLUMNS = {
    "prompt": "input_tokens", "input": "input_tokens", "billed_input": "input_tokens",
    "output": "output_tokens", "billed_output": "output_tokens", "total": "total_tokens",
    "other": "other_tokens", "citation": "citation_tokens", "cached": "cached_input_tokens",
    "cached_beside": "cached_input_tokens", "written": "cache_write_tokens",
    "written_beside": "cache_write_tokens", "written_5m": "cache_write_tokens",
    "written_1h": "cache_write_1h_tokens", "reasoning": "reasoning_tokens",
    "reasoning_beside": "reasoning_tokens", "input_audio": "input_audio_tokens",
    "cached_audio": "cached_audio_tokens", "output_audio": "output_audio_tokens",
    "input_image": "input_image_tokens", "billed_image": "input_image_tokens",
    "cached_image": "cached_image_tokens", "output_image": "output_image_tokens",
    "input_video": "input_video_tokens", "output_video": "output_video_tokens",
    "web_searches": "web_searches", "file_searches": "file_searches", "tool_uses": "tool_uses",
    "sources": "tool_uses", "audio_seconds": "audio_ms", "document_pages": "document_pages",
    "search_units": "search_units", "tier": "service_tier", "traffic": "service_tier",
    "geo": "service_tier", "speed": "service_tier", "cost": "reported_cost",
    "cost_ticks": "reported_cost", "gateway_cost": "reported_cost",
}  # fmt: skip

Places = Mapping[str, tuple[tuple[str, ...], ...]]


def _places(pairs: Iterator[tuple[str, str]]) -> Places:
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for column, path in pairs:
        found[column] = (*found.get(column, ()), tuple(path.split(".")))
    return found


def _of_outputs() -> Iterator[tuple[str, str]]:
    yield from ((_COLUMNS[quantity], path) for path, quantity, _ in NAMES if quantity in _COLUMNS)
    yield from (("finish_reason", path) for path, _ in FINISH_REASONS)
    yield from (("response_model", path) for path in MODELS)


PLACES: Mapping[str, Places] = {
    "inputs": _places(("request_model", path) for path in REQUEST_MODELS),
    "outputs": _places(_of_outputs()),
}
"""The paths in `inputs` and `outputs` from which each column is read, by payload and column."""


def placeholder(name: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the placeholder for `inputs` or `outputs` (`name`), from the columns of a step."""
    payload: dict[str, Any] = {}
    for column, places in PLACES[name].items():
        value = _json(stored[column])
        if value is not None:
            for place in places:
                _put(payload, place, value)
    return payload


def columns_left(name: str, stored: Mapping[str, Any], left: object) -> dict[str, Any]:
    """Return what redaction left of each column.

    A changed number becomes None; a changed text becomes the new text.

    Args:
        name: `inputs` or `outputs`.
        stored: the columns before redaction.
        left: the placeholder payload of this name after redaction.
    """
    before = placeholder(name, stored)
    columns: dict[str, Any] = {}
    for column, places in PLACES[name].items():
        columns[column] = value = stored[column]
        for place in places if value is not None else ():
            old, new = _get(before, place), _get(left, place)
            if old is not None and new != old:
                columns[column] = new if isinstance(value, str) and isinstance(new, str) else None
                break
    return columns


def _json(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _parts(part: str) -> tuple[str, bool, str, str]:
    member, bracket, condition = part.partition("[")
    by, _, value = condition.removesuffix("]").partition("=")
    return member, bool(bracket), by, value


def _put(payload: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    at = payload
    for part in place[:-1]:
        member, is_array, by, expected = _parts(part)
        inner = at.setdefault(member, [] if is_array else {})
        if is_array and isinstance(inner, list):
            found = next((one for one in inner if not by or one.get(by) == expected), None)
            if found is None:
                found = {by: expected} if by else {}
                inner.append(found)
            inner = found
        if not isinstance(inner, dict):
            return  # Another provider's name has put a number here.
        at = inner
    at.setdefault(place[-1], value)


def _get(payload: object, place: tuple[str, ...]) -> Any:
    at = payload
    for part in place:
        member, is_array, by, expected = _parts(part)
        at = at.get(member) if isinstance(at, dict) else None
        if is_array:
            elements = [one for one in at if isinstance(one, dict)] if isinstance(at, list) else []
            at = next((one for one in elements if not by or one.get(by) == expected), None)
    return at

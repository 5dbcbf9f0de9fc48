"""Redaction of stored rows.

A stored row is turned back into the element that it came from, redacted, and decoded again. Most
columns follow from the element. If the content of a payload is gone (pruned, or never storable), a
placeholder built from the columns replaces it: a rule for the place of a value then also reaches
its column.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from etl.records import Payload, Rejected
from etl.transform.decode import generation_of
from etl.transform.exact_json import same_value, texts_of
from etl.transform.fields import MAX_ELAPSED_SECONDS, MAX_TOKENS, Fields, Findings, object_of
from etl.transform.generation import MAX_ERROR_CHARACTERS, REMOVED_ERROR
from etl.transform.placeholders import columns_left, placeholder
from etl.transform.redact import NotRedactable, Policy, RedactedElement
from etl.transform.runs import decode_page
from etl.transform.scanner import members_of, split
from etl.transform.tolerant_json import Members
from etl.transform.usage_names import MODELS, REQUEST_MODELS
from etl.usage import NO_USAGE, Usage, kinds_of

UNREDACTABLE = "removed: it could not be read, so it could not be redacted"
"""The note of a payload that was removed because it could not be redacted."""

_PLAIN = (
    "id", "user_id", "organization_id", "node_id", "status", "start_time", "end_time",
    "api_elapsed_seconds", "api_tokens",
)  # fmt: skip
"""Columns that each come from one member; a run has no `node_id` and no `api_tokens`."""
_MEMBERS = {"api_elapsed_seconds": "elapsed_time", "api_tokens": "tokens"}
_JSON = ("error", "step_metadata")
_READ = ("request_model", "response_model", "finish_reason")
_USAGE = Usage.__struct_fields__
_PAYLOADS = ("inputs", "outputs")


class StoredPayload(NamedTuple):
    """A payload as it is stored; if both fields are None, its content is gone."""

    data: bytes | None
    """JSON text."""
    raw: bytes | None


class StoredRow(NamedTuple):
    """A stored run or step."""

    plain: Mapping[str, Any]
    """The columns; times as datetime; `error`, `step_metadata` and `extra` as JSON text."""
    payloads: Mapping[str, StoredPayload]
    """`inputs` and `outputs`, if they are stored."""


class RedactedRow(NamedTuple):
    """A row after redaction."""

    columns: dict[str, Any]
    """All columns that rules may change, changed or not; JSON as text."""
    payloads: dict[str, Payload | None]
    """The payloads that change; None if nothing is left."""
    content_hash: bytes


# Members by which `generation` recognises a model's response.
_CALL = {"object": "chat.completion", "usage": {"total_tokens": 1}}


def redact_step(row: StoredRow, policy: Policy) -> RedactedRow:
    """Redact a stored step; its facts do not change (see `generation.with_facts_of`)."""
    stored = row.plain
    members = _element(row, _placeholders(row))
    try:
        left = policy.step(Raw(object_of(members)), members)
    except NotRedactable:
        row, members = _without_content(row)
        left = policy.step(Raw(object_of(members)), members)
    columns, payloads = _read_back(row, left)
    before, after = (
        generation_of(members, suspect=True),
        generation_of(left.members, suspect=left.suspect),
    )
    for names, was, now in (_READ, before, after), (_USAGE, before.usage, after.usage):
        for name in names:
            old, new = getattr(was, name), getattr(now, name)
            columns[name] = stored[name] if old == new else new
    for name in _PAYLOADS:
        if _is_gone(row, name):
            columns |= columns_left(name, stored, _decoded(left.members.get(name)))
    if any(columns[name] != stored[name] for name in _USAGE):
        used = Usage(**{name: columns[name] for name in _USAGE})
        columns["usage_kinds"] = kinds_of(used) if used != NO_USAGE else 0
    reported = stored["reported_error"]
    if reported is not None and not 0 < _count(reported, members) == _count(reported, left.members):
        reported = after.reported_error or REMOVED_ERROR
    columns["reported_error"] = reported
    return RedactedRow(columns, payloads, _hash(policy, left.own))


def redact_run(row: StoredRow, policy: Policy) -> RedactedRow:
    """Redact a run's own row as it is stored."""
    members = _element(row, {})
    try:
        left = policy.run(Raw(object_of(members)), members)
    except NotRedactable:
        row, members = _without_content(row)
        left = policy.run(Raw(object_of(members)), members)
    columns, payloads = _read_back(row, left)
    return RedactedRow(columns, payloads, _hash(policy, left.own))


def redact_listing(listing: bytes, policy: Policy) -> tuple[bytes, bytes] | None:
    """Redact a run's listing; return it with its hash, or None if it cannot be redacted."""
    page = decode_page(b"[" + listing + b"]", policy=policy)
    return next(((run.listing, run.listing_hash) for run in page.runs), None)


def redact_dead_letter(letter: Rejected, policy: Policy) -> Rejected:
    """Redact a dead letter.

    Steps and runs keep what the rules leave of them; any other content is removed.
    """
    is_array = letter.body.lstrip().startswith(b"[")
    # A single value does not show its path or its node, and a response that is not an array is not
    # a step.
    no_element = letter.reason == "not_storable" or (
        letter.reason == "not_an_array" and not is_array
    )
    parts = None if no_element else split(letter.body if is_array else b"[" + letter.body + b"]")
    left = []
    for _, members in parts.elements if parts is not None else ():
        try:
            if members is None:
                raise NotRedactable("not an object")
            members.pop("all_outputs", None)
            left.append(bytes(policy.step(Raw(object_of(members)), members).own))
        except NotRedactable:
            left = []
            break
    if not left:
        return policy.withhold(letter.reason, letter.detail, letter.body, letter.step_id)
    return msgspec.structs.replace(
        letter, body=b"[" + b",".join(left) + b"]" if is_array else left[0], content_hash=None
    )


def redact_names(
    policy: Policy,
    *,
    organization_id: str | None,
    node_id: str | None,
    model: str | None,
    is_call: bool,
) -> tuple[str | None, str | None]:
    """Redact the organisation and the model in a rollup; return both.

    Rollups of runs have neither node nor model. A rollup does not show whether its model is the
    requested or the responding one: calls count as the responding model, other steps as both.
    """
    named: dict[str, Any] = {"node_id": node_id, "organization_id": organization_id}
    if model is not None:
        named["outputs"] = {**dict.fromkeys(MODELS, model), **(_CALL if is_call else {})}
        named |= {} if is_call else {"inputs": dict.fromkeys(REQUEST_MODELS, model)}
    members = {name: _json(value) for name, value in named.items() if value is not None}
    left = policy.step(Raw(object_of(members)), members)
    fields = Fields(None, left.members, Findings("step"), suspect=left.suspect, keep_raw=False)
    new = model
    for payload, names in ("inputs", REQUEST_MODELS), ("outputs", MODELS):
        values = _decoded(left.members.get(payload))
        for name in names if payload in named else ():
            value = values.get(name) if isinstance(values, dict) else None
            if value != model:
                new = value if isinstance(value, str) else None
    return fields.text("organization_id"), new


def _element(row: StoredRow, placeholders: Mapping[str, Any]) -> Members:
    """Return the members of the element that the row came from."""
    stored = row.plain
    members = {
        _MEMBERS.get(column, column): _json(stored[column]) for column in _PLAIN if column in stored
    }
    for name in _JSON:
        if stored.get(name) is not None:
            members[name] = Raw(stored[name].encode())
    for name, payload in row.payloads.items():
        value = payload.data if payload.raw is None else payload.raw
        if value is not None:
            members[name] = Raw(value)
    for name, value in placeholders.items():
        members.setdefault(name, _json(value))
    extra = members_of((stored["extra"] or "{}").encode())
    return {**members, **(extra[0] if extra is not None else {})}


def _placeholders(row: StoredRow) -> dict[str, Any]:
    """Return placeholders for both payloads, built from the columns that were read from them."""
    payloads = {name: placeholder(name, row.plain) for name in _PAYLOADS}
    if (reported := row.plain["reported_error"]) is not None:
        # A place where the error may have been, so that a rule for it reaches the column.
        payloads["outputs"]["result"] = {"error": reported}
    return payloads


def _is_gone(row: StoredRow, name: str) -> bool:
    return row.payloads.get(name, StoredPayload(None, None)) == (None, None)


def _decoded(raw: Raw | None) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(bytes(raw or b"null"))
    return None


def _without_content(row: StoredRow) -> tuple[StoredRow, Members]:
    """Return the row and its element without the parts that may be nested too deeply."""
    plain = {**row.plain, "error": None, "step_metadata": None, "extra": None}
    if "reported_error" in plain:
        plain |= dict.fromkeys((*_READ, *_USAGE))
    bare = StoredRow(plain, {name: StoredPayload(None, b"") for name in row.payloads})
    return bare, _element(StoredRow(plain, {}), {})


def _read_back(
    row: StoredRow, left: RedactedElement
) -> tuple[dict[str, Any], dict[str, Payload | None]]:
    stored = row.plain
    fields = Fields(
        stored["id"], left.members, Findings("step"), suspect=left.suspect, keep_raw=False
    )
    columns: dict[str, Any] = {
        "user_id": fields.text("user_id"),
        "organization_id": fields.text("organization_id"),
    }
    columns |= {name: fields.json(name) for name in _JSON if name in stored}
    # These are read only so that values that do not fit their column stay in `extra`.
    fields.text("status")
    fields.time("start_time")
    fields.time("end_time")
    fields.number("elapsed_time", most=MAX_ELAPSED_SECONDS)
    if "node_id" in stored:
        fields.text("node_id")
        fields.integer("tokens", most=MAX_TOKENS)
    payloads: dict[str, Payload | None] = {}
    for name, old in row.payloads.items():
        if old == (None, b""):
            payloads[name] = Payload(None, 0, note=UNREDACTABLE)
        elif old != (None, None):
            new = fields.payload(name)
            if (
                old.raw is not None
                or new is None
                or not same_value(old.data or b"", bytes(new.data or b""))
            ):
                payloads[name] = new
    own = {_MEMBERS.get(column, column) for column in (*_PLAIN, *_JSON) if column in stored}
    columns["extra"] = fields.rest(frozenset({*own, "inputs", "outputs"}))
    return columns, payloads


def _count(error: str, members: Members) -> int:
    """Return how often the element contains this text as a whole value."""
    found = 0
    for name in ("inputs", "outputs", "error"):
        with suppress(ValueError, RecursionError):
            found += sum(
                text[:MAX_ERROR_CHARACTERS] == error
                for text in texts_of(json.loads(bytes(members.get(name, b"null"))))
            )
    return found


def _json(value: Any) -> Raw:
    return Raw(json.dumps(value.isoformat() if isinstance(value, datetime) else value).encode())


def _hash(policy: Policy, own: Raw) -> bytes:
    """Return a hash that no read produces, so that the next read writes the row once more."""
    return hashlib.blake2b(
        b"redacted where it is stored\0" + policy.version.encode() + bytes(own), digest_size=16
    ).digest()

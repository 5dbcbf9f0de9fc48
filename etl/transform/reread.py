"""Stored steps read again: the columns that follow from payloads, by the rules of today.

The payloads are those in the database, so they are what redaction rules have left, and `jsonb`
keeps neither the order nor the spacing of members. Everything else is what a load of the step would
write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from etl.transform.generation import MAX_ERROR_CHARACTERS, read_generation
from etl.transform.scanner import REFUSALS
from etl.usage import Usage

_USAGE = Usage.__struct_fields__
COLUMNS = (
    "node_type",
    "request_model",
    "response_model",
    *_USAGE,
    "finish_reason",
    "reported_error",
)
"""The columns of a step that follow from its payloads."""

_ANY = msgspec.json.Decoder()


def read_again(
    stored: Mapping[str, Any], inputs: bytes | None, outputs: bytes | None, *, node_type: str | None
) -> dict[str, Any] | None:
    """The columns of a stored step, by the rules of today; None where they are what is stored.

    Of a redacted step, facts stay as the API answered them (see `generation.with_facts_of`): the
    kind of node, and that there was an error.

    Args:
        stored: its `COLUMNS`, and `redaction_policy`.
        inputs: JSON as it is stored; None where the API gave none.
        outputs: the same.
        node_type: the type of its node by the workflow's graph; None where that does not tell.
    """
    seen = read_generation(
        None if inputs is None else Raw(inputs), None if outputs is None else Raw(outputs)
    )
    redacted = stored["redaction_policy"] is not None
    found = {
        "node_type": node_type or (redacted and stored["node_type"]) or seen.node_type,
        "request_model": seen.request_model,
        "response_model": seen.response_model,
        **{name: getattr(seen.usage, name) for name in _USAGE},
        "finish_reason": seen.finish_reason,
        "reported_error": _reported_error(
            stored["reported_error"], seen.reported_error, redacted=redacted
        ),
    }
    # A row of before there was such a column tells nothing by it, as 0 does: that alone is no
    # reason to write it.
    same = all(
        found[name] == (stored[name] or 0 if name == "usage_kinds" else stored[name])
        for name in COLUMNS
    )
    return None if same else found


def _reported_error(stored: str | None, seen: str | None, *, redacted: bool) -> str | None:
    """The text as the API spelled it, where it is the same error."""
    if stored is None or seen is None:
        return seen or (stored if redacted else None)
    return stored if _is_same(stored, seen) else seen


def _is_same(stored: str, seen: str) -> bool:
    """Whether two texts may be the same JSON, whatever the order of its members; of texts that were cut, nobody can tell."""
    if stored == seen:
        return True
    if stored[0] != seen[0] or stored[0] not in "{[":
        return False
    if MAX_ERROR_CHARACTERS in (len(stored), len(seen)):
        return True
    try:
        return bool(_ANY.decode(stored) == _ANY.decode(seen))
    except REFUSALS:
        return False

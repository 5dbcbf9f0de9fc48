"""Rebuild of a stored step: the columns that come from its payloads, by the current rules.

The payloads come from the database: they are redacted, and `jsonb` keeps neither the order nor the
spacing of members. Apart from that, the result is what a load of the step would write.
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
"""The columns of a step that come from its payloads."""

_ANY = msgspec.json.Decoder()


def read_again(
    stored: Mapping[str, Any], inputs: bytes | None, outputs: bytes | None, *, node_type: str | None
) -> dict[str, Any] | None:
    """Return the columns of a stored step by the current rules; None if they did not change.

    A redacted step keeps the facts of the API's response (see `generation.with_facts_of`): the
    type of the node, and whether there was an error.

    Args:
        stored: the step's `COLUMNS` and `redaction_policy`.
        inputs: the stored JSON; None if the API sent none.
        outputs: the stored JSON; None if the API sent none.
        node_type: the node's type in the workflow's graph; None if unknown.
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
    # Rows from before `usage_kinds` existed have null in that column, which means the same as 0.
    # This difference alone is not a reason to write the row.
    same = all(
        found[name] == (stored[name] or 0 if name == "usage_kinds" else stored[name])
        for name in COLUMNS
    )
    return None if same else found


def _reported_error(stored: str | None, seen: str | None, *, redacted: bool) -> str | None:
    """Return the error that is read now, in the stored spelling if it is the same error.

    A redacted step keeps its stored error, even if the redacted payload shows none.
    """
    if stored is None or seen is None:
        return seen or (stored if redacted else None)
    return stored if _is_same(stored, seen) else seen


def _is_same(stored: str, seen: str) -> bool:
    """Return whether two texts may be the same JSON, in any order of members.

    Texts that were cut off cannot be compared: they count as the same.
    """
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

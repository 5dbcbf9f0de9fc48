"""The columns that a step's own members fill, as opposed to those that come from its payloads.

A step in the form that the API describes is decoded in one pass. Any other step is read member by
member, and what does not fit goes into `extra`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder

from etl.records import MAX_ID_BYTES, Payload
from etl.transform.fields import (
    EARLIEST,
    LONGEST_USUAL_TIME,
    MAX_ELAPSED_SECONDS,
    MAX_TEXT_CHARACTERS,
    MAX_TOKENS,
    Fields,
    parse_time,
)
from etl.transform.scanner import REFUSALS


class StepColumns(Struct, frozen=True, gc=False):
    """The columns, as in `records.Step`."""

    id: str
    node_id: str | None
    status: str | None
    user_id: str | None
    organization_id: str | None
    start_time: datetime | None
    end_time: datetime | None
    api_elapsed_seconds: float | None
    api_tokens: int | None
    error: str | None
    step_metadata: str | None
    extra: str | None
    inputs: Payload | None
    outputs: Payload | None


_Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)] | None
_Time = Annotated[str, Meta(max_length=LONGEST_USUAL_TIME)] | None


class Usual(Struct, forbid_unknown_fields=True, gc=False):
    """The members that steps and runs share, in the API's form; each value fits its column."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES // 4)]
    status: _Text = None
    user_id: _Text = None
    organization_id: _Text = None
    start_time: _Time = None
    end_time: _Time = None
    elapsed_time: Annotated[float, Meta(ge=0, le=MAX_ELAPSED_SECONDS)] | None = None
    error: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    outputs: Raw | UnsetType = UNSET

    def times(self, latest: datetime) -> tuple[datetime | None, datetime | None] | None:
        """Return start and end; None if one is not UTC, unreadable or implausible."""
        start = end = None
        if self.start_time:
            start = parse_time(self.start_time)
            if start is None or start.tzinfo is not UTC or not EARLIEST <= start < latest:
                return None
        if self.end_time:
            end = parse_time(self.end_time)
            if end is None or end.tzinfo is not UTC or not EARLIEST <= end < latest:
                return None
        return start, end


class _UsualStep(Usual):
    """A step in the form that the API describes."""

    node_id: _Text = None
    tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None = None
    step_metadata: Raw | UnsetType = UNSET


_USUAL = Decoder(_UsualStep)
_NAMES = frozenset(_UsualStep.__struct_fields__)


def read_usual(own: Raw, *, latest: datetime) -> StepColumns | None:
    """Read a step of the usual form in one pass; return None for any other.

    The result is the same as that of `read_columns`.

    Args:
        own: the step, strict JSON in which jsonb refuses nothing.
        latest: times at or after this time are implausible.
    """
    try:
        step = _USUAL.decode(own)
    except REFUSALS:
        return None
    if (times := step.times(latest)) is None:
        return None
    return StepColumns(
        id=step.id,
        node_id=step.node_id,
        status=step.status,
        user_id=step.user_id,
        organization_id=step.organization_id,
        start_time=times[0],
        end_time=times[1],
        api_elapsed_seconds=step.elapsed_time,
        api_tokens=step.tokens,
        error=json_of(step.error),
        step_metadata=json_of(step.step_metadata),
        extra=None,
        inputs=payload_of(step.inputs),
        outputs=payload_of(step.outputs),
    )


def read_columns(fields: Fields, id: str) -> StepColumns:
    """Read the members of any step with this id."""
    return StepColumns(
        id=id,
        node_id=fields.text("node_id"),
        status=fields.text("status"),
        user_id=fields.text("user_id"),
        organization_id=fields.text("organization_id"),
        start_time=fields.time("start_time"),
        end_time=fields.time("end_time"),
        api_elapsed_seconds=fields.number("elapsed_time", most=MAX_ELAPSED_SECONDS),
        api_tokens=fields.integer("tokens", most=MAX_TOKENS),
        error=fields.json("error"),
        step_metadata=fields.json("step_metadata"),
        inputs=fields.payload("inputs"),
        outputs=fields.payload("outputs"),
        extra=fields.rest(_NAMES),
    )


def json_of(raw: Raw | UnsetType) -> str | None:
    """Return a member of `Usual` for a jsonb column; None if it is missing or null."""
    if raw is UNSET:
        return None
    text = bytes(raw)
    return None if text == b"null" else text.decode()


def payload_of(raw: Raw | UnsetType) -> Payload | None:
    """Return a member of `Usual` as a payload; None if it is missing."""
    return None if raw is UNSET else Payload(raw, len(raw))

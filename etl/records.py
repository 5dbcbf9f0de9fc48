"""The frozen records that pass between the stages.

Extract makes `ApiResponse`; transform makes everything below it; load writes it. Only `Rejected` is also
made where something turns out to be bad later on: by the pipeline and by load. JSON that goes to a
jsonb column travels as text or UTF-8 bytes that PostgreSQL accepts, never as parsed objects:
parsing and printing again would lose digits, and costs more than all the rest of the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from etl.usage import Usage

MAX_ID_BYTES = 512
"""Longer ids are refused: an index entry beyond 2,704 bytes fails, and indexes join two ids."""

State = Literal["pending", "running", "succeeded", "failed", "cancelled", "skipped", "unknown"]

TERMINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "skipped"})
"""States that a step or run does not leave by itself. `unknown` is not among them: it may still move."""


class ApiResponse(msgspec.Struct, frozen=True, gc=False):
    """One whole answer (status 2xx) of the API."""

    body: bytes
    requested_at: float
    """`time.monotonic()` just before the request that gave this answer was sent (not an earlier attempt)."""
    server_time: datetime | None
    """The answer's `Date` header, in UTC; None where it is missing or unreadable."""


class Payload(msgspec.Struct, frozen=True, gc=False):
    """A value for one of the jsonb payload columns."""

    data: msgspec.Raw | None
    """JSON text, UTF-8, that jsonb accepts; None where the value cannot be held at all (see `note`). Mostly a view of the
    answer's own bytes, which `Step.source` keeps anyway: a large answer stands in memory once."""
    size_bytes: int
    """Length of the value as the API sent it, in bytes; after redaction, where there are rules."""
    raw: bytes | None = None
    """The exact bytes, only where `data` is not the same JSON value."""
    note: str | None = None
    """Why `raw` is there, or why `data` is None."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One step of a run, normalised: a row of `steps` with its `inputs` and `outputs`."""

    id: str
    position: int
    """Place in the answer, from 0."""
    node_id: str | None
    node_type: str | None
    user_id: str | None
    organization_id: str | None
    status: str | None
    state: State
    start_time: datetime | None
    end_time: datetime | None
    api_elapsed_seconds: float | None
    api_tokens: int | None
    request_model: str | None
    response_model: str | None
    usage: Usage
    finish_reason: str | None
    error: str | None
    """JSON text (for jsonb), None where the API gave null or nothing."""
    reported_error: str | None
    """Plain text: what the payload reports as an error, whatever the step's status says."""
    step_metadata: str | None
    """JSON text (for jsonb), None where the API gave null or nothing."""
    extra: str | None
    """JSON text of an object: unknown fields, and known ones whose value has a wrong type."""
    inputs: Payload | None
    """None where the API gave no such member (null is a value: data 'null')."""
    outputs: Payload | None
    content_hash: bytes
    """16 bytes; equal hashes mean that a stored row needs no write."""
    source: msgspec.Raw
    """The step's own bytes: a view of the answer, kept so that what the database refuses can be set aside exactly. Where
    the workflow has redaction rules: what they leave of it."""
    redaction_policy: str | None = None
    """Version of the redaction rules that the bytes went through; None where there are none."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """What the API's own row of a run says (history list or single run): a row of `runs` and `run_payloads`."""

    id: str
    status: str | None
    state: State
    start_time: datetime | None
    end_time: datetime | None
    api_elapsed_seconds: float | None
    user_id: str | None
    organization_id: str | None
    error: str | None
    """JSON text (for jsonb)."""
    extra: str | None
    inputs: Payload | None
    outputs: Payload | None
    source: msgspec.Raw
    """The row's own bytes, as `ListedRun.listing` keeps them, so that what the database refuses can be set aside. Where the
    workflow has redaction rules: what they leave of it."""
    redaction_policy: str | None = None
    """Version of the redaction rules that the row went through; None where there are none."""


class ListedRun(msgspec.Struct, frozen=True, gc=False):
    """One row of a page of the run list, kept as bytes until a poll loads it."""

    id: str
    listing: bytes
    """The row's own JSON without `all_outputs` (which repeats the steps' outputs), after redaction."""
    listing_hash: bytes
    """16 bytes over what matters: `listing` without `elapsed_time`, which grows while a run runs."""
    start_time: datetime | None
    end_time: datetime | None = None
    """None where the row gives no end: the run may still be running."""


RejectionReason = Literal[
    "duplicate_id", "id_conflict", "malformed", "not_an_array", "not_an_object", "not_redactable", "not_storable", "rejected",
    "too_large", "too_many", "unusable_id",
]  # fmt: skip
"""Why something is set aside; docs/how-to/operations.md says what to do about each."""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """Something that could not be loaded, with its bytes: a row of `dead_letters`."""

    reason: RejectionReason
    detail: str
    """One sentence for the operator, without payload text."""
    body: bytes
    step_id: str | None = None
    content_hash: bytes | None = None
    """16 bytes in place of the body's own hash, where redaction rules forbid to keep the body."""


DriftKind = Literal[
    "unknown_field", "wrong_type", "unknown_status", "time_without_zone", "unreadable_time", "implausible_time",
    "implausible_number", "unknown_usage",
]  # fmt: skip
"""How an answer differs from what is known."""


class Drift(msgspec.Struct, frozen=True, gc=False):
    """A field that the API's description does not have, or a value of a type it does not give there."""

    subject: Literal["step", "run", "workflow"]
    field: str
    kind: DriftKind
    found: str
    """The JSON type found (`string`, `number`, `object`, …), or for a status the status itself."""
    count: int


class DecodedSteps(msgspec.Struct, frozen=True):
    """All that one answer of the steps endpoint holds."""

    steps: tuple[Step, ...]
    rejected: tuple[Rejected, ...] = ()
    drift: tuple[Drift, ...] = ()
    readable: bool = True
    """False where the body was no JSON array at all: the answer says nothing about the run's steps."""
    digest: bytes = b""
    """Digest of what decides whether two reads found the same: step ids, statuses and end times."""


class DecodedPage(msgspec.Struct, frozen=True):
    """All that one page of the run list holds, in the order of the list."""

    runs: tuple[ListedRun, ...]
    rejected: tuple[Rejected, ...] = ()
    rows: tuple[str | int, ...] = ()
    """What paging must count: every row in the order of the page, by its run's id; one without a usable id by a hash, by which
    this process knows it again."""
    readable: bool = True


class DecodedRun(msgspec.Struct, frozen=True):
    """A run's own row, normalised."""

    run: Run
    rejected: tuple[Rejected, ...] = ()
    drift: tuple[Drift, ...] = ()


class Workflow(msgspec.Struct, frozen=True):
    """A workflow as `GET /workflows` describes it."""

    id: str
    name: str | None
    description: str | None
    version: str | None
    graph: str | None
    """JSON text of the graph."""
    node_types: Mapping[str, str] = {}
    """Node id to node type, read from the graph where it says so."""
    updated_at: datetime | None = None
    """When the workflow was last changed; None where the API does not say."""


class DecodedWorkflows(msgspec.Struct, frozen=True):
    """All that the answer to `GET /workflows` holds."""

    workflows: tuple[Workflow, ...]
    """Those whose runs can be asked for."""
    rejected: tuple[Rejected, ...] = ()
    """Those without a usable id: the id alone, as it came."""

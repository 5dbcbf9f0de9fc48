"""The frozen records that pass between the stages.

Extract creates `ApiResponse`, transform creates all other records, and load writes them. The
pipeline and load also create `Rejected`, for errors that show only there.

JSON for a jsonb column is passed as text or UTF-8 bytes that PostgreSQL accepts, never as parsed
objects. Parsing and serialising would lose digits and costs more than the rest of the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from etl.usage import Usage

MAX_ID_BYTES = 512
"""The longest accepted id, in bytes of UTF-8.

PostgreSQL refuses index entries of more than 2,704 bytes, and some indexes combine two ids.
"""

State = Literal["pending", "running", "succeeded", "failed", "cancelled", "skipped", "unknown"]

TERMINAL_STATES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "skipped"})
"""States that a step or run does not leave by itself.

`unknown` is not terminal: the status may still change.
"""


class ApiResponse(msgspec.Struct, frozen=True, gc=False):
    """One complete response of the API, with status 2xx."""

    body: bytes
    requested_at: float
    """`time.monotonic()`, in seconds, just before the attempt that received this response."""
    server_time: datetime | None
    """The response's `Date` header, in UTC; None if it is missing or unreadable."""


class Payload(msgspec.Struct, frozen=True, gc=False):
    """A value for one of the jsonb payload columns."""

    data: msgspec.Raw | None
    """JSON text in UTF-8 that jsonb accepts; None if jsonb cannot hold the value (see `note`).

    Usually a view of the response's bytes, so that a large response is not copied. `Step.source`
    keeps these bytes in memory anyway.
    """
    size_bytes: int
    """Length in bytes of the value as the API sent it, or after redaction if there are rules."""
    raw: bytes | None = None
    """The exact bytes, only if `data` is not the same JSON value."""
    note: str | None = None
    """Why `raw` is set, or why `data` is None."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """One normalised step of a run: a row of `steps`, with its `inputs` and `outputs`."""

    id: str
    position: int
    """Index in the response, from 0."""
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
    """JSON text for jsonb; None if the API sent null or omitted the member."""
    reported_error: str | None
    """Plain text of the error that the payload reports, independent of the step's status."""
    step_metadata: str | None
    """JSON text for jsonb; None if the API sent null or omitted the member."""
    extra: str | None
    """JSON text of an object: unknown fields, and known fields whose value does not fit."""
    inputs: Payload | None
    """None if the API omitted the member. A null is a value: its `data` is `null`."""
    outputs: Payload | None
    content_hash: bytes
    """16 bytes; a step whose stored row has the same hash is not written."""
    source: msgspec.Raw
    """The step's own bytes, after redaction: a view of the response.

    If the database refuses the step, they become the dead letter.
    """
    redaction_policy: str | None = None
    """Version of the redaction rules that were applied; None if there are none."""


class Run(msgspec.Struct, frozen=True, gc=False):
    """The API's own row of a run, normalised: a row of `runs` and of `run_payloads`.

    It comes from the run list or from a request for the single run.
    """

    id: str
    status: str | None
    state: State
    start_time: datetime | None
    end_time: datetime | None
    api_elapsed_seconds: float | None
    user_id: str | None
    organization_id: str | None
    error: str | None
    """JSON text for jsonb."""
    extra: str | None
    inputs: Payload | None
    outputs: Payload | None
    source: msgspec.Raw
    """The row's own bytes, as in `ListedRun.listing`, after redaction.

    If the database refuses the row, they become the dead letter.
    """
    redaction_policy: str | None = None
    """Version of the redaction rules that were applied; None if there are none."""


class ListedRun(msgspec.Struct, frozen=True, gc=False):
    """One row of a page of the run list, kept as bytes until a poll loads it."""

    id: str
    listing: bytes
    """The row's JSON after redaction, without `all_outputs`, which repeats the steps' outputs."""
    listing_hash: bytes
    """16-byte hash of `listing` without `elapsed_time`, which grows while the run is open."""
    start_time: datetime | None
    end_time: datetime | None = None
    """None if the row has no end: the run may still be running."""


RejectionReason = Literal[
    "duplicate_id", "id_conflict", "malformed", "not_an_array", "not_an_object",
    "not_redactable", "not_storable", "rejected", "too_large", "too_many", "unusable_id",
]  # fmt: skip
"""Why something becomes a dead letter; docs/how-to/operations.md says what to do about each."""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """Something that could not be loaded, with its bytes: a row of `dead_letters`."""

    reason: RejectionReason
    detail: str
    """One sentence for the operator, without content of payloads."""
    body: bytes
    step_id: str | None = None
    content_hash: bytes | None = None
    """16 bytes that replace the hash of the body, for instance if the body must not be kept.

    None: the hash of the body identifies the dead letter.
    """


DriftKind = Literal[
    "unknown_field", "wrong_type", "unknown_status", "time_without_zone", "unreadable_time",
    "implausible_time", "implausible_number", "unknown_usage",
    "unknown_prompt", "unknown_answer",
]  # fmt: skip
"""How a response deviates from the API's description."""


class Drift(msgspec.Struct, frozen=True, gc=False):
    """One kind of deviation from the API's description, and how often one response shows it."""

    subject: Literal["step", "run", "workflow"]
    field: str
    kind: DriftKind
    found: str
    """The JSON type found (`string`, `number`, `object`, …), or the unknown status itself."""
    count: int


class DecodedSteps(msgspec.Struct, frozen=True):
    """The content of one response of the steps endpoint."""

    steps: tuple[Step, ...]
    rejected: tuple[Rejected, ...] = ()
    drift: tuple[Drift, ...] = ()
    readable: bool = True
    """False if the body is not a JSON array: the response says nothing about the run's steps."""
    digest: bytes = b""
    """Digest of the steps' ids, statuses and end times; equal if two reads found no change."""


class DecodedPage(msgspec.Struct, frozen=True):
    """The content of one page of the run list, in the order of the list."""

    runs: tuple[ListedRun, ...]
    rejected: tuple[Rejected, ...] = ()
    rows: tuple[str | int, ...] = ()
    """Every row, in the order of the page: its run's id, or a hash if it has no usable id.

    Paging counts the rows. The hashes are valid only in this process.
    """
    readable: bool = True
    """False if the body is not a JSON array."""


class DecodedRun(msgspec.Struct, frozen=True):
    """A run's own row, normalised, with what was found wrong in it."""

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
    """Node type by node id, for the nodes whose type the graph contains."""
    updated_at: datetime | None = None
    """When the workflow was last changed; None if the API does not say."""


class DecodedWorkflows(msgspec.Struct, frozen=True):
    """The content of the response to `GET /workflows`."""

    workflows: tuple[Workflow, ...]
    """The workflows whose runs can be requested."""
    rejected: tuple[Rejected, ...] = ()
    """Dead letters of the workflows without a usable id.

    Each keeps only the id as the API sent it, cut off after `MAX_ID_BYTES`.
    """


SearchPlace = Literal["prompts", "answers", "errors", "all"]
"""Where a search looks for its phrase."""

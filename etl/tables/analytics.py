"""The tables of the schema `orchestra`, which analysts read: the history."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from etl.records import MAX_ID_BYTES
from etl.tables.columns import ANALYTICS, Bytes, Id, Time, column, metadata, now
from etl.usage import KINDS

_DURATION = Computed(
    "(extract(epoch FROM (end_time - start_time)) * 1000)::double precision",
    persisted=True,
)


def _changed(table: str) -> Index:
    """Return an index for readers that copy changed rows: a few pages for millions of rows."""
    return Index(
        f"{table}_updated_at_idx",
        "updated_at",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    )


workflows = Table(
    "workflows",
    metadata,
    column("id", Id, "The workflow's id.", primary_key=True),
    column("name", Text(), "Its name: from the configuration, else from the API."),
    column("description", Text(), "Its description, from the API."),
    column(
        "labels",
        JSONB,
        "Labels from the configuration, such as team and environment.",
        server_default=text("'{}'"),
    ),
    now("first_seen_at", "When this workflow was first stored."),
    now("updated_at", "When this row last changed."),
    schema=ANALYTICS,
    comment="The workflows whose runs are stored.",
)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    column("workflow_id", Id, "The workflow.", primary_key=True),
    column("first_seen_at", Time, "When this version was first seen.", primary_key=True),
    column("version", Text(), "The version as the API names it."),
    column("graph", JSONB, "Nodes and edges as the API returns them."),
    column(
        "api_updated_at",
        Time,
        "The API's time of the workflow's last change when this version was first seen: the "
        "version was in force from then at the latest. Null if the API does not say.",
    ),
    schema=ANALYTICS,
    comment="Versions of workflows in the order in which they were first seen; append-only.",
)

runs = Table(
    "runs",
    metadata,
    column("id", Id, "The run's id.", primary_key=True),
    column("workflow_id", Id, "The workflow this is a run of.", nullable=False),
    column("organization_id", Id, "The organisation; the API may mask it with asterisks."),
    column("user_id", Id, "The user who started the run; the API may mask it with asterisks."),
    column("status", Text(), "The status as the API returns it; null if it returns none."),
    column(
        "state",
        Text(),
        "The status normalised: pending, running, succeeded, failed, cancelled, skipped or "
        "unknown.",
        nullable=False,
    ),
    column(
        "status_source",
        Text(),
        "api: the API returned the status; derived: it follows from the steps.",
        nullable=False,
    ),
    column(
        "tracking",
        Text(),
        "open: still polled; final: not read again; stale: open for too long, read once a day; "
        "gone: the API no longer has it.",
        nullable=False,
    ),
    column("start_time", Time, "When the run started, according to the API."),
    column("end_time", Time, "When the run ended, according to the API; null while it runs."),
    column("duration_ms", Double(), "end_time minus start_time, in milliseconds.", _DURATION),
    column(
        "api_elapsed_seconds",
        Double(),
        "The API's elapsed_time: whole seconds, truncated. Use duration_ms.",
    ),
    column("error", JSONB, "The run's error as the API returns it."),
    column(
        "extra",
        JSONB,
        "Fields that the API's description lacks, and values of a wrong type, as received.",
    ),
    column(
        "redaction_policy",
        Text(),
        "Version of the redaction rules that were in force when this row was written; null: no "
        "rules.",
    ),
    column(
        "content_hash",
        Bytes,
        "Hash of the stored run. A run with an equal hash is not written again.",
    ),
    now("first_seen_at", "When this run was first loaded."),
    now(
        "updated_at",
        "When the content of this row last changed. A read that finds no change leaves it as it "
        "is.",
    ),
    Index("runs_workflow_id_start_time_idx", "workflow_id", "start_time"),
    Index("runs_start_time_idx", "start_time"),
    _changed("runs"),
    Index(
        "runs_unstarted_idx",
        "workflow_id",
        "first_seen_at",
        postgresql_where=text("start_time IS NULL"),
    ),
    Index(
        "runs_unfinished_idx",
        "workflow_id",
        postgresql_where=text("state IN ('pending', 'running', 'unknown')"),
    ),
    schema=ANALYTICS,
    comment="One row per run of a workflow.",
)

run_payloads = Table(
    "run_payloads",
    metadata,
    column("run_id", Id, "The run.", ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
    column("inputs", JSONB, "The run's input variables."),
    column("outputs", JSONB, "The output of the End node."),
    column(
        "inputs_raw", Bytes, "The exact bytes of inputs; only set if jsonb cannot hold the value."
    ),
    column(
        "outputs_raw", Bytes, "The exact bytes of outputs; only set if jsonb cannot hold the value."
    ),
    column("note", Text(), "Why a raw column is filled, or why a value is null."),
    schema=ANALYTICS,
    comment="The inputs and outputs of each run.",
)

steps = Table(
    "steps",
    metadata,
    column("id", Id, "The step's id: the key of every upsert.", primary_key=True),
    column(
        "run_id",
        Id,
        "The run this step belongs to.",
        ForeignKey(runs.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    column("workflow_id", Id, "The workflow of the run.", nullable=False),
    column("node_id", Text(), "The node of the workflow that this step executed."),
    column(
        "node_type",
        Text(),
        "model, integration, code, ...: from the graph, else from the payload's shape, else null.",
    ),
    column("position", Integer(), "Index in the API's response, from 0.", nullable=False),
    column("user_id", Id, "The user; the API may mask it with asterisks."),
    column("organization_id", Id, "The organisation; the API may mask it with asterisks."),
    column("status", Text(), "The status as the API returns it."),
    column(
        "state",
        Text(),
        "The status normalised: pending, running, succeeded, failed, cancelled, skipped or "
        "unknown.",
        nullable=False,
    ),
    column("start_time", Time, "When the step started."),
    column("end_time", Time, "When the step ended; null while it runs."),
    column("duration_ms", Double(), "end_time minus start_time, in milliseconds.", _DURATION),
    column(
        "api_elapsed_seconds",
        Double(),
        "The API's elapsed_time: whole seconds, truncated. Use duration_ms.",
    ),
    column(
        "api_tokens",
        BigInteger(),
        "The API's tokens: documented as 0 today. Use the token columns.",
    ),
    column(
        "request_model",
        Text(),
        "The requested model (inputs.model, or the provider's own field).",
    ),
    column(
        "response_model",
        Text(),
        "The model that responded (outputs.model, or the provider's own field).",
    ),
    *(column(kind.name, BigInteger(), kind.comment) for kind in KINDS),
    column(
        "total_tokens",
        BigInteger(),
        "Total tokens as reported, if at least the sum of input and output; else that sum.",
    ),
    column(
        "usage_kinds",
        Integer(),
        "Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).",
    ),
    column(
        "service_tier",
        Text(),
        "The provider's service tier: standard, batch, flex, priority, fast or another; null if "
        "the call names none.",
    ),
    column(
        "reported_cost",
        Numeric(),
        "The cost in US dollars, as the provider reports it.",
    ),
    column(
        "finish_reason",
        Text(),
        "Why the model stopped, in its provider's words: stop, length, max_tokens, ... (see "
        "is_cut_off).",
    ),
    column("error", JSONB, "The step's error as the API returns it."),
    column(
        "reported_error",
        Text(),
        "The error that the step's payload reports; a soft failure if its status is a success.",
    ),
    column("step_metadata", JSONB, "step_metadata as the API returns it."),
    column(
        "extra",
        JSONB,
        "Fields that the API's description lacks, and values of a wrong type, as received.",
    ),
    column(
        "redaction_policy",
        Text(),
        "Version of the redaction rules that were in force when this row and its payloads were "
        "written; null: no rules.",
    ),
    column(
        "content_hash",
        Bytes,
        "Hash of the step as received. A step with an equal hash is not written again.",
        nullable=False,
    ),
    column(
        "absent_since",
        Time,
        "Time since which the API's response no longer contains this step; null while it does.",
    ),
    now("first_seen_at", "When this step was first loaded."),
    now(
        "updated_at",
        "When the content of this row last changed. A read that finds no change leaves it as it "
        "is.",
    ),
    Index("steps_run_id_idx", "run_id"),
    Index("steps_workflow_id_start_time_idx", "workflow_id", "start_time"),
    Index("steps_unstarted_idx", "run_id", postgresql_where=text("start_time IS NULL")),
    _changed("steps"),
    Index(
        "steps_error_idx",
        "run_id",
        postgresql_where=text("error IS NOT NULL OR reported_error IS NOT NULL"),
    ),
    Index(
        "steps_reported_cost_idx", "start_time", postgresql_where=text("reported_cost IS NOT NULL")
    ),
    schema=ANALYTICS,
    comment="One row per step of a run.",
)


def _payload_table(name: str, comment: str) -> Table:
    return Table(
        name,
        metadata,
        column(
            "step_id", Id, "The step.", ForeignKey(steps.c.id, ondelete="CASCADE"), primary_key=True
        ),
        column("data", JSONB, "The value; if it is null, note says why."),
        column(
            "size_bytes", BigInteger(), "Length of the value as the API sent it.", nullable=False
        ),
        column("raw", Bytes, "The exact bytes; only set if jsonb cannot hold the value."),
        column("note", Text(), "Why raw is filled, or why data is null."),
        schema=ANALYTICS,
        comment=comment,
    )


inputs = _payload_table("inputs", "The inputs of each step.")
outputs = _payload_table("outputs", "The outputs of each step.")

run_requests = Table(
    "run_requests",
    metadata,
    column("id", BigInteger(), "Order of arrival.", Identity(always=True), primary_key=True),
    column("workflow_id", Id, "The workflow the run belongs to.", nullable=False),
    column("run_id", Id, "The run to be tracked.", nullable=False),
    now("requested_at", "When the request was made."),
    # A longer id does not fit into an index, and would block the whole queue.
    CheckConstraint(f"octet_length(run_id) BETWEEN 1 AND {MAX_ID_BYTES}", name="run_id_length"),
    CheckConstraint(
        f"octet_length(workflow_id) BETWEEN 1 AND {MAX_ID_BYTES}", name="workflow_id_length"
    ),
    schema=ANALYTICS,
    comment="A queue: insert a run to have it tracked. The service empties it.",
)

PAYLOADS: Mapping[Table, tuple[str, ...]] = {
    workflow_versions: ("graph",),
    runs: ("extra",),
    run_payloads: ("inputs", "outputs", "inputs_raw", "outputs_raw"),
    steps: ("step_metadata", "extra"),
    inputs: ("data", "raw"),
    outputs: ("data", "raw"),
}
"""The columns that contain, or can contain, what users and models said.

Grants follow this list. Retention follows its part that belongs to runs
(`admin.removal.RUN_PAYLOADS`). Nodes of a graph can contain prompts.

Error texts are not payloads: without them, analysts could not see why a run failed. If they quote
content that must not be stored, a redaction rule removes it.
"""

_HASHES: Mapping[Table, tuple[str, ...]] = {runs: ("content_hash",), steps: ("content_hash",)}
"""Hashes of content.

A short payload can be found by hashing guesses until one fits, so the hashes are as private as the
content.
"""

PRIVATE: Mapping[Table, tuple[str, ...]] = {
    table: (*columns, *_HASHES.get(table, ())) for table, columns in PAYLOADS.items()
}
"""The columns that only readers of payloads may read. Grants follow this list."""

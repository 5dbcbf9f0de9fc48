"""Every table of both schemas: the schema's one truth. Alembic revisions are checked against it.

`orchestra` is what analysts read; `orchestra_etl` is what the service needs to do its work. Times are
`timestamptz` in UTC; ids are text compared byte by byte, because the API's ids are not always UUIDs.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

ANALYTICS = "orchestra"
OPERATIONS = "orchestra_etl"

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

Id = Text(collation="C")
Time = DateTime(timezone=True)
Bytes = LargeBinary()

_DURATION = Computed(
    "(extract(epoch FROM (end_time - start_time)) * 1000)::double precision",
    persisted=True,
)


def _c(
    name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]], comment: str, *more: Any, **options: Any
) -> Column[Any]:
    return Column(name, kind, *more, comment=comment, **options)


def _now(name: str, comment: str) -> Column[Any]:
    return _c(name, Time, comment, nullable=False, server_default=text("now()"))


workflows = Table(
    "workflows",
    metadata,
    _c("id", Id, "The workflow's id.", primary_key=True),
    _c("name", Text(), "Its name: from the configuration, else from the API."),
    _c("description", Text(), "Its description, from the API."),
    _c("labels", JSONB, "Labels from the configuration, such as team and environment.", server_default=text("'{}'")),
    _now("first_seen_at", "When this workflow was first known here."),
    _now("updated_at", "When this row last changed."),
    schema=ANALYTICS,
    comment="The workflows whose runs are stored.",
)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    _c("workflow_id", Id, "The workflow.", primary_key=True),
    _c("observed_at", Time, "When this version was first seen.", primary_key=True),
    _c("version", Text(), "The version as the API names it."),
    _c("graph", JSONB, "Nodes and edges as the API gives them."),
    schema=ANALYTICS,
    comment="Versions of workflows in the order they were observed; append-only.",
)

runs = Table(
    "runs",
    metadata,
    _c("id", Id, "The run's id.", primary_key=True),
    _c("workflow_id", Id, "The workflow this is a run of.", nullable=False),
    _c("organization_id", Id, "The organisation; the API may mask it with asterisks."),
    _c("user_id", Id, "The user who started it; the API may mask it with asterisks."),
    _c("status", Text(), "The status as the API gives it; null where the API gives none."),
    _c(
        "state",
        Text(),
        "The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.",
        nullable=False,
    ),
    _c(
        "status_source",
        Text(),
        "api: the API gave the status; derived: it follows from the steps.",
        nullable=False,
    ),
    _c(
        "tracking",
        Text(),
        "open: still polled; final: will not change; stale: given up as open; gone: the API no longer has it.",
        nullable=False,
    ),
    _c("start_time", Time, "When it started, by the API."),
    _c("end_time", Time, "When it ended, by the API; null while it runs."),
    _c("duration_ms", Double(), "end_time minus start_time, in milliseconds.", _DURATION),
    _c("api_elapsed_seconds", Double(), "The API's elapsed_time: whole seconds, truncated. Use duration_ms."),
    _c("error", JSONB, "The run's error as the API gives it."),
    _c("extra", JSONB, "Fields the API's description does not have, and values of a wrong type, as they came."),
    _now("first_seen_at", "When this run was first loaded."),
    _now("updated_at", "When the content of this row last changed; an unchanged read does not touch it."),
    Index("runs_workflow_id_start_time_idx", "workflow_id", "start_time"),
    schema=ANALYTICS,
    comment="One row a run of a workflow.",
)

run_payloads = Table(
    "run_payloads",
    metadata,
    _c("run_id", Id, "The run.", ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
    _c("inputs", JSONB, "The run's input variables."),
    _c("outputs", JSONB, "The output of the End node."),
    _c("inputs_raw", Bytes, "The exact bytes of inputs, only where jsonb cannot hold the value."),
    _c("outputs_raw", Bytes, "The exact bytes of outputs, only where jsonb cannot hold the value."),
    _c("note", Text(), "Why a raw column is filled, or why a value is null."),
    schema=ANALYTICS,
    comment="What a run was given and what it gave.",
)

steps = Table(
    "steps",
    metadata,
    _c("id", Id, "The step's id: the key of every upsert.", primary_key=True),
    _c("run_id", Id, "The run this step belongs to.", ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    _c("workflow_id", Id, "The workflow, as in runs.", nullable=False),
    _c("node_id", Text(), "The node of the workflow that this step executed."),
    _c("node_type", Text(), "model, integration, code, ...: from the graph, else from the payload's shape, else null."),
    _c("position", Integer(), "Place in the API's answer, from 0.", nullable=False),
    _c("user_id", Id, "The user, as given; may be masked."),
    _c("organization_id", Id, "The organisation, as given; may be masked."),
    _c("status", Text(), "The status as the API gives it."),
    _c(
        "state",
        Text(),
        "The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.",
        nullable=False,
    ),
    _c("start_time", Time, "When the step started."),
    _c("end_time", Time, "When the step ended; null while it runs."),
    _c("duration_ms", Double(), "end_time minus start_time, in milliseconds.", _DURATION),
    _c("api_elapsed_seconds", Double(), "The API's elapsed_time: whole seconds, truncated. Use duration_ms."),
    _c("api_tokens", BigInteger(), "The API's tokens: documented as 0 today. Use the token columns."),
    _c("request_model", Text(), "The model that was asked for (inputs.model)."),
    _c("response_model", Text(), "The model that answered (outputs.model)."),
    _c("input_tokens", BigInteger(), "Prompt tokens the model reports."),
    _c("output_tokens", BigInteger(), "Completion tokens the model reports."),
    _c("total_tokens", BigInteger(), "Total tokens the model reports."),
    _c("cached_input_tokens", BigInteger(), "Prompt tokens served from a cache, part of input_tokens."),
    _c("reasoning_tokens", BigInteger(), "Reasoning tokens, part of output_tokens."),
    _c("finish_reason", Text(), "Why the model stopped: stop, length, tool_calls, ..."),
    _c("error", JSONB, "The step's error as the API gives it."),
    _c(
        "reported_error",
        Text(),
        "What an integration reported as failed although the step's status is a success (a soft failure).",
    ),
    _c("step_metadata", JSONB, "step_metadata as the API gives it."),
    _c("extra", JSONB, "Fields the API's description does not have, and values of a wrong type, as they came."),
    _c("content_hash", Bytes, "Hash of the step as it came; equal hashes need no write.", nullable=False),
    _c("absent_since", Time, "Since when the API's answer no longer holds this step; null while it does."),
    _now("first_seen_at", "When this step was first loaded."),
    _now("updated_at", "When the content of this row last changed; an unchanged read does not touch it."),
    Index("steps_run_id_idx", "run_id"),
    Index("steps_workflow_id_start_time_idx", "workflow_id", "start_time"),
    schema=ANALYTICS,
    comment="One row a step of a run.",
)


def _payload_table(name: str, comment: str) -> Table:
    return Table(
        name,
        metadata,
        _c("step_id", Id, "The step.", ForeignKey(steps.c.id, ondelete="CASCADE"), primary_key=True),
        _c("data", JSONB, "The value; see note where it is null."),
        _c("size_bytes", BigInteger(), "Length of the value as the API sent it.", nullable=False),
        _c("raw", Bytes, "The exact bytes, only where jsonb cannot hold the value."),
        _c("note", Text(), "Why raw is filled, or why data is null."),
        schema=ANALYTICS,
        comment=comment,
    )


inputs = _payload_table("inputs", "What each step was given.")
outputs = _payload_table("outputs", "What each step gave.")

run_requests = Table(
    "run_requests",
    metadata,
    _c("id", BigInteger(), "Order of arrival.", Identity(always=True), primary_key=True),
    _c("workflow_id", Id, "The workflow the run belongs to.", nullable=False),
    _c("run_id", Id, "The run to be tracked.", nullable=False),
    _now("requested_at", "When the request was made."),
    # A longer id fits into no index, and would keep the whole queue from being emptied.
    CheckConstraint("octet_length(run_id) BETWEEN 1 AND 512", name="run_id_length"),
    CheckConstraint("octet_length(workflow_id) BETWEEN 1 AND 512", name="workflow_id_length"),
    schema=ANALYTICS,
    comment="A queue: insert a run here to have it tracked; the service empties it.",
)

run_ledger = Table(
    "run_ledger",
    metadata,
    _c("run_id", Id, "The run.", primary_key=True),
    _c("workflow_id", Id, "Its workflow; the run list is authoritative.", nullable=False),
    _c("source", Text(), "How the run was first heard of: list, config, track or request.", nullable=False),
    _c("tracking", Text(), "open, final, stale or gone.", nullable=False, server_default=text("'open'")),
    _c("first_seen_at", Time, "When the run entered the ledger.", nullable=False, server_default=text("now()")),
    _c(
        "opened_at",
        Time,
        "When it was last opened: ages count from here.",
        nullable=False,
        server_default=text("now()"),
    ),
    _c("listing", Bytes, "The run's row as the list gave it, until a poll has loaded it."),
    _c("listing_hash", Bytes, "Hash of the row last seen, in the list or read alone."),
    _c("start_time", Time, "When the run started, by the list; null where no list has shown it."),
    _c("listed_at", Time, "Database time at which the page that gave this listing was requested."),
    _c("listed_sweep", BigInteger(), "The sweep that listed it; a member of the watermark once that is complete."),
    _c("priority", SmallInteger(), "0 live, 1 backfill.", nullable=False, server_default=text("0")),
    _c("due_at", Time, "When to poll it next; null: not again.", server_default=text("now()")),
    _c(
        "fencing_token",
        BigInteger(),
        "Raised by every claim and by whatever asks for a newer read; a load with an older one is refused.",
        nullable=False,
        server_default=text("0"),
    ),
    _c("leased_until", Time, "End of the claim in force; null: not claimed, or the claim is consumed."),
    _c("steps_observed_at", Time, "Database time at which the steps last loaded were requested."),
    _c("run_observed_at", Time, "Database time at which the run's own row last loaded was requested."),
    _c("run_state", Text(), "The run's state by the API's own row last loaded."),
    _c("run_end_time", Time, "The run's end by the API's own row last loaded."),
    _c("read_digest", Bytes, "Digest of step ids, statuses and end times at the last read."),
    _c(
        "checks",
        SmallInteger(),
        "Reads in a row that found the run finished and nothing new.",
        nullable=False,
        server_default=text("0"),
    ),
    _c("attempts", SmallInteger(), "Reads in a row that failed.", nullable=False, server_default=text("0")),
    _c("last_error", Text(), "Why the last read failed, in one line."),
    _c("not_found_since", Time, "Since when the API answers 404 for the steps."),
    Index(
        "run_ledger_due_idx",
        "priority",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index("run_ledger_workflow_id_tracking_idx", "workflow_id", "tracking"),
    schema=OPERATIONS,
    comment="What is known of every run, when it is due, and who holds it.",
)

sweeps = Table(
    "sweeps",
    metadata,
    _c("workflow_id", Id, "The workflow.", primary_key=True),
    _c("fencing_token", BigInteger(), "Number of the sweep last begun.", nullable=False, server_default=text("0")),
    _c("leased_until", Time, "End of the running sweep's lease; null: none runs."),
    _c(
        "watermark",
        BigInteger(),
        "Number of the last complete sweep: runs listed by it or before are known without a hole.",
        nullable=False,
        server_default=text("0"),
    ),
    _c("started_at", Time, "When the last sweep began."),
    _c("completed_at", Time, "When a sweep was last complete."),
    _c("reconciled_at", Time, "When the last complete walk of the whole list began."),
    _c("new_runs", Integer(), "Runs that the last complete sweep found new."),
    _c("listed_runs", Integer(), "Rows that the last walk of the whole list saw: the listable window."),
    _c("last_error", Text(), "Why the last sweep failed, in one line; null: it did not."),
    schema=OPERATIONS,
    comment="The state of each workflow's walk of the run list.",
)

gaps = Table(
    "gaps",
    metadata,
    _c("id", BigInteger(), "Number of the gap.", Identity(always=True), primary_key=True),
    _c("workflow_id", Id, "The workflow.", nullable=False),
    _now("detected_at", "When the gap was found."),
    _c("after_time", Time, "Start of the newest run known before the gap."),
    _c("before_time", Time, "Start of the oldest run listed behind the gap."),
    _c("detail", Text(), "What was seen.", nullable=False),
    _c("acknowledged_at", Time, "When somebody took note of it."),
    Index("gaps_workflow_id_idx", "workflow_id"),
    schema=OPERATIONS,
    comment="Times in which runs may have come and gone without being listed to us.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _c("id", BigInteger(), "Number of the letter.", Identity(always=True), primary_key=True),
    _c("workflow_id", Id, "The workflow.", nullable=False),
    _c(
        "run_id", Id, "The run; empty where the bad thing is a row of the run list without a usable id.", nullable=False
    ),
    _c("step_id", Id, "The step, where its id is known."),
    _c("reason", Text(), "A fixed word.", nullable=False),
    _c("detail", Text(), "One sentence for the operator, without payload.", nullable=False),
    _c("content_hash", Bytes, "Hash of the body.", nullable=False),
    _c("body", Bytes, "The bytes that could not be loaded.", nullable=False),
    _c("occurrences", Integer(), "How often it was seen.", nullable=False, server_default=text("1")),
    _now("first_seen_at", "When it was first set aside."),
    _now("last_seen_at", "When it was last set aside."),
    _c("resolved_at", Time, "When a later read did without it, or somebody discarded it."),
    _c("resolution", Text(), "loaded or discarded."),
    UniqueConstraint("workflow_id", "run_id", "reason", "content_hash"),
    Index("dead_letters_run_id_idx", "run_id", postgresql_where=text("resolved_at IS NULL")),
    schema=OPERATIONS,
    comment="What could not be loaded, with its bytes, to be looked at and tried again.",
)

drift = Table(
    "drift",
    metadata,
    _c("workflow_id", Id, "The workflow.", primary_key=True),
    _c("subject", Text(), "step, run or workflow.", primary_key=True),
    _c("field", Text(), "The field.", primary_key=True),
    _c("kind", Text(), "unknown_field, wrong_type, unknown_status, ...", primary_key=True),
    _c("found", Text(), "The type or status found.", primary_key=True),
    _c("occurrences", BigInteger(), "In how many loaded steps or runs.", nullable=False),
    _now("first_seen_at", "When it was first seen."),
    _now("last_seen_at", "When it was last seen."),
    _c("last_run_id", Id, "A run that shows it.", nullable=False),
    schema=OPERATIONS,
    comment="Where the API's answers differ from its description.",
)

request_budget = Table(
    "request_budget",
    metadata,
    _c("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    _c("available", Double(), "Requests that may start now.", nullable=False),
    _now("refilled_at", "When available was last brought up to date."),
    _c("not_before", Time, "No request by any replica before this time: the server asked for a pause."),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="The request budget that all replicas share.",
)

described = Table(
    "described",
    metadata,
    _c("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    _c("at", Time, "When GET /workflows was last asked.", nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="When the API was last asked what workflows there are.",
)

state_map = Table(
    "state_map",
    metadata,
    _c("status", Text(), "A status, folded: lower case, without spaces, hyphens and underscores.", primary_key=True),
    _c("state", Text(), "The state it is mapped to by the configuration.", nullable=False),
    schema=OPERATIONS,
    comment="The configured mapping that the stored states were written by.",
)

"""The tables of the schema `orchestra_etl`, which belongs to the service."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from etl.tables.columns import OPERATIONS, Bytes, Id, Time, column, metadata, now

run_ledger = Table(
    "run_ledger",
    metadata,
    column("run_id", Id, "The run.", primary_key=True),
    column("workflow_id", Id, "Its workflow, according to the run list.", nullable=False),
    column(
        "source",
        Text(),
        "How the run was first found: list, config, track or request.",
        nullable=False,
    ),
    column(
        "tracking",
        Text(),
        "open, final, stale or gone; erased or pruned: a tombstone, never read again.",
        nullable=False,
        server_default=text("'open'"),
    ),
    column(
        "first_seen_at",
        Time,
        "When the run entered the ledger.",
        nullable=False,
        server_default=text("now()"),
    ),
    column(
        "opened_at",
        Time,
        "When tracking was last set to open. The run's age is counted from here.",
        nullable=False,
        server_default=text("now()"),
    ),
    column("listing", Bytes, "The run's row of the run list, kept until a poll has loaded it."),
    column(
        "listing_hash",
        Bytes,
        "Hash of the run's row when it was last seen, in the run list or in a response for this "
        "run alone.",
    ),
    column(
        "start_time",
        Time,
        "When the run started, according to the run list; null if no list has contained the run.",
    ),
    column("listed_at", Time, "Database time at which the page with this listing was requested."),
    column(
        "listed_sweep",
        BigInteger(),
        "Number of the sweep that listed the run. If it is not above sweeps.watermark, a complete"
        " sweep has listed the run.",
    ),
    column(
        "priority", SmallInteger(), "0 live, 1 backfill.", nullable=False, server_default=text("0")
    ),
    column(
        "due_at", Time, "When the run is next polled; null: never.", server_default=text("now()")
    ),
    column(
        "fencing_token",
        BigInteger(),
        "Raised by every claim and by every request for a newer read; a load with an older token "
        "is refused.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "leased_until",
        Time,
        "End of the claim in force; null: not claimed, or the claim is consumed.",
    ),
    column(
        "steps_observed_at",
        Time,
        "Database time of the request that returned the steps as they are stored.",
    ),
    column(
        "run_observed_at",
        Time,
        "Database time of the request that returned the run's own row as it is stored.",
    ),
    column("run_state", Text(), "The run's state in its own row of the API, as last loaded."),
    column("run_end_time", Time, "The run's end in its own row of the API, as last loaded."),
    column("read_digest", Bytes, "Digest of step ids, statuses and end times at the last read."),
    column(
        "checks",
        SmallInteger(),
        "Consecutive reads that found the run finished and nothing new.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "attempts",
        SmallInteger(),
        "Consecutive reads that failed.",
        nullable=False,
        server_default=text("0"),
    ),
    column("last_error", Text(), "Why the last read failed, in one line."),
    column(
        "not_found_since",
        Time,
        "Time since which the API has returned 404 for the steps; null: it does not.",
    ),
    column(
        "reopened_by",
        Text(),
        "What last requested a newer read of a run that was already known: list, config, track, "
        "reread, repair or states; null: nothing has.",
    ),
    column(
        "removed_at",
        Time,
        "When the run was erased or pruned. Afterwards, only its ids and times are kept.",
    ),
    Index(
        "run_ledger_due_idx",
        "priority",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index("run_ledger_workflow_id_tracking_idx", "workflow_id", "tracking"),
    schema=OPERATIONS,
    comment="One row per known run: what is known about it, when it is due, and its claim.",
)

sweeps = Table(
    "sweeps",
    metadata,
    column("workflow_id", Id, "The workflow.", primary_key=True),
    column(
        "fencing_token",
        BigInteger(),
        "Number of the latest sweep.",
        nullable=False,
        server_default=text("0"),
    ),
    column("leased_until", Time, "End of the running sweep's lease; null: no sweep is running."),
    column(
        "watermark",
        BigInteger(),
        "Number of the last complete sweep: every run that it or an earlier one listed is known.",
        nullable=False,
        server_default=text("0"),
    ),
    column("started_at", Time, "When the last sweep began."),
    column("swept_at", Time, "When the last complete sweep ended."),
    column(
        "complete_until",
        Time,
        "When the last complete sweep began; null: no sweep has completed since this column was "
        "added.",
    ),
    column("reconciled_at", Time, "When the last complete walk of the whole list began."),
    column("new_runs", Integer(), "New runs that the last complete sweep found."),
    column(
        "listed_runs",
        Integer(),
        "Rows of the run list at the last walk of the whole list.",
    ),
    column(
        "known_runs",
        BigInteger(),
        "Known runs of the workflow at the last walk of the whole list; more than listed_runs if "
        "the list has dropped runs.",
    ),
    column(
        "repaired_runs",
        Integer(),
        "Runs that the last walk of the whole list found missing from the tables and queued for a "
        "re-read.",
    ),
    column("last_error", Text(), "Why the last sweep failed, in one line; null: it did not fail."),
    column(
        "list_problem",
        Text(),
        "How the run list deviates from the API's description, found by the last walk to the end "
        "of the list; null: it does not deviate.",
    ),
    schema=OPERATIONS,
    comment="The state of each workflow's sweeps of the run list.",
)

gaps = Table(
    "gaps",
    metadata,
    column("id", BigInteger(), "Number of the gap.", Identity(always=True), primary_key=True),
    column("workflow_id", Id, "The workflow.", nullable=False),
    now("detected_at", "When the gap was found."),
    column("after_time", Time, "Start of the newest run known before the gap."),
    column("before_time", Time, "Start of the oldest run listed after the gap."),
    column("detail", Text(), "What the sweep observed.", nullable=False),
    column("acknowledged_at", Time, "When a user acknowledged it."),
    Index("gaps_workflow_id_idx", "workflow_id"),
    schema=OPERATIONS,
    comment="Periods in which runs may have appeared and disappeared without being listed.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    column("id", BigInteger(), "The dead letter's id.", Identity(always=True), primary_key=True),
    column("workflow_id", Id, "The workflow.", nullable=False),
    column(
        "run_id",
        Id,
        "The run; empty for a row of the run list without a usable id.",
        nullable=False,
    ),
    column("step_id", Id, "The step, if its id is known."),
    column("reason", Text(), "The reason code.", nullable=False),
    column("detail", Text(), "One sentence for the operator, without payload.", nullable=False),
    column(
        "content_hash",
        Bytes,
        "Hash of the body; a keyed hash if the body is not kept.",
        nullable=False,
    ),
    column(
        "body",
        Bytes,
        "The bytes that could not be loaded; empty if redaction rules do not allow storing them.",
        nullable=False,
    ),
    column(
        "occurrences", Integer(), "How often it was seen.", nullable=False, server_default=text("1")
    ),
    now("first_seen_at", "When it was first set aside."),
    now("last_seen_at", "When it was last set aside."),
    column("resolved_at", Time, "When a later read loaded the record, or a user discarded it."),
    column("resolution", Text(), "loaded or discarded."),
    UniqueConstraint("workflow_id", "run_id", "reason", "content_hash"),
    Index("dead_letters_run_id_idx", "run_id", postgresql_where=text("resolved_at IS NULL")),
    schema=OPERATIONS,
    comment="Records that could not be loaded, with their bytes.",
)

drift = Table(
    "drift",
    metadata,
    column("workflow_id", Id, "The workflow.", primary_key=True),
    column("subject", Text(), "step, run or workflow.", primary_key=True),
    column("field", Text(), "The field.", primary_key=True),
    column("kind", Text(), "unknown_field, wrong_type, unknown_status, ...", primary_key=True),
    column("found", Text(), "The type or status found.", primary_key=True),
    column(
        "occurrences",
        BigInteger(),
        "Number of loaded steps or runs that show the difference.",
        nullable=False,
    ),
    now("first_seen_at", "When it was first seen."),
    now("last_seen_at", "When it was last seen."),
    column("last_run_id", Id, "The latest run that shows the difference.", nullable=False),
    schema=OPERATIONS,
    comment="Differences between the API's responses and its description.",
)

request_budget = Table(
    "request_budget",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column("available", Double(), "Requests that may start now.", nullable=False),
    now("refilled_at", "When available was last recomputed."),
    column(
        "not_before",
        Time,
        "No replica sends a request before this time, because the server requested a pause; null:"
        " no pause.",
    ),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="The request budget that all replicas share.",
)

workflow_refresh = Table(
    "workflow_refresh",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column("refreshed_at", Time, "When GET /workflows was last read.", nullable=False),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="When the list of workflows was last read from the API.",
)

state_map = Table(
    "state_map",
    metadata,
    column(
        "status",
        Text(),
        "A status in lower case, without spaces, hyphens and underscores.",
        primary_key=True,
    ),
    column("state", Text(), "The state that the configuration maps the status to.", nullable=False),
    schema=OPERATIONS,
    comment="The configured mapping from statuses to states with which the stored states were "
    "computed.",
)

redaction_policies = Table(
    "redaction_policies",
    metadata,
    column("version", Text(), "The version, as in redaction_policy of the rows.", primary_key=True),
    column("rules", JSONB, "The rules of this version, without any key.", nullable=False),
    now("first_used_at", "When the version was first in force."),
    schema=OPERATIONS,
    comment="The redaction rules that stored rows were written under.",
)

locks = Table(
    "locks",
    metadata,
    column("name", Text(), "What is locked.", primary_key=True),
    schema=OPERATIONS,
    comment="Rows that processes lock for work that only one process may do at a time. Only the "
    "loader may lock them.",
)

retention = Table(
    "retention",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column(
        "payload_horizon",
        Time,
        "Payloads of runs that ended before this time are pruned, and not stored again.",
    ),
    column("run_horizon", Time, "Runs that ended before this time are pruned, and not read again."),
    now("updated_at", "When a horizon last moved."),
    CheckConstraint("id = 1", name="one_row"),
    schema=OPERATIONS,
    comment="How far back data is kept. Both horizons only move forward.",
)

rebuilds = Table(
    "rebuilds",
    metadata,
    column(
        "transform_version",
        SmallInteger(),
        "Version of the rules that derive columns from payloads.",
        primary_key=True,
        autoincrement=False,
    ),
    column(
        "after_step_id",
        Id,
        "Id of the last step that is done, in the order of ids; null: none yet.",
    ),
    column("steps", BigInteger(), "Steps done so far.", nullable=False, server_default=text("0")),
    column(
        "changed",
        BigInteger(),
        "Steps that changed.",
        nullable=False,
        server_default=text("0"),
    ),
    column("started_at", Time, "When the rebuild started; null: not yet."),
    column("finished_at", Time, "When all steps were done; null: not yet."),
    schema=OPERATIONS,
    comment="Progress of orchestra-etl rebuild, which derives the columns of stored steps again "
    "with newer rules.",
)

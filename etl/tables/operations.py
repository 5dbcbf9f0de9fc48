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
    column("workflow_id", Id, "Its workflow; the run list is authoritative.", nullable=False),
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
        "When it was last opened: ages count from here.",
        nullable=False,
        server_default=text("now()"),
    ),
    column("listing", Bytes, "The run's row of the list, until a poll has loaded it."),
    column("listing_hash", Bytes, "Hash of the row last seen, in the list or read alone."),
    column("start_time", Time, "When the run started, by the list; null if no list has shown it."),
    column("listed_at", Time, "Database time at which the page with this listing was requested."),
    column(
        "listed_sweep",
        BigInteger(),
        "The sweep that listed it; a member of the watermark once that is complete.",
    ),
    column(
        "priority", SmallInteger(), "0 live, 1 backfill.", nullable=False, server_default=text("0")
    ),
    column("due_at", Time, "When to poll it next; null: not again.", server_default=text("now()")),
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
        "steps_observed_at", Time, "Database time at which the steps last loaded were requested."
    ),
    column(
        "run_observed_at",
        Time,
        "Database time at which the run's own row last loaded was requested.",
    ),
    column("run_state", Text(), "The run's state by the API's own row last loaded."),
    column("run_end_time", Time, "The run's end by the API's own row last loaded."),
    column("read_digest", Bytes, "Digest of step ids, statuses and end times at the last read."),
    column(
        "checks",
        SmallInteger(),
        "Reads in a row that found the run finished and nothing new.",
        nullable=False,
        server_default=text("0"),
    ),
    column(
        "attempts",
        SmallInteger(),
        "Reads in a row that failed.",
        nullable=False,
        server_default=text("0"),
    ),
    column("last_error", Text(), "Why the last read failed, in one line."),
    column("not_found_since", Time, "Since when the API returns 404 for the steps."),
    column(
        "reopened_by",
        Text(),
        "What last requested a newer read of the known run: list, config, track, reread, repair or"
        " states; null: nothing has.",
    ),
    column(
        "removed_at",
        Time,
        "When the run was erased or pruned; nothing but its ids and times is kept then.",
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
    column("leased_until", Time, "End of the running sweep's lease; null: none runs."),
    column(
        "watermark",
        BigInteger(),
        "Number of the last complete sweep: every run that it or an earlier one listed is known.",
        nullable=False,
        server_default=text("0"),
    ),
    column("started_at", Time, "When the last sweep began."),
    column("swept_at", Time, "When a sweep was last complete."),
    column(
        "complete_until",
        Time,
        "When the last complete sweep began; null: none has completed since this column exists.",
    ),
    column("reconciled_at", Time, "When the last complete walk of the whole list began."),
    column("new_runs", Integer(), "Runs that the last complete sweep found new."),
    column(
        "listed_runs",
        Integer(),
        "Rows of the run list at the last walk of the whole list.",
    ),
    column(
        "known_runs",
        BigInteger(),
        "Runs of the workflow known at that walk; more than listed_runs if the list has dropped "
        "runs.",
    ),
    column(
        "repaired_runs",
        Integer(),
        "Runs that the last walk of the whole list found missing from the tables and queued for a "
        "re-read.",
    ),
    column("last_error", Text(), "Why the last sweep failed, in one line; null: it did not."),
    column(
        "list_problem",
        Text(),
        "How the run list deviates from the API's description, by the last walk to its end; null: "
        "it does not.",
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
    column("before_time", Time, "Start of the oldest run listed behind the gap."),
    column("detail", Text(), "What was seen.", nullable=False),
    column("acknowledged_at", Time, "When a user acknowledged it."),
    Index("gaps_workflow_id_idx", "workflow_id"),
    schema=OPERATIONS,
    comment="Periods in which runs may have appeared and disappeared without being listed.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    column(
        "id", BigInteger(), "Number of the dead letter.", Identity(always=True), primary_key=True
    ),
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
    column("occurrences", BigInteger(), "In how many loaded steps or runs.", nullable=False),
    now("first_seen_at", "When it was first seen."),
    now("last_seen_at", "When it was last seen."),
    column("last_run_id", Id, "A run that shows it.", nullable=False),
    schema=OPERATIONS,
    comment="Differences between the API's responses and its description.",
)

request_budget = Table(
    "request_budget",
    metadata,
    column("id", SmallInteger(), "Always 1.", primary_key=True, autoincrement=False),
    column("available", Double(), "Requests that may start now.", nullable=False),
    now("refilled_at", "When available was last brought up to date."),
    column(
        "not_before",
        Time,
        "No replica sends a request before this time: the server requested a pause.",
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
    column("state", Text(), "The state it is mapped to by the configuration.", nullable=False),
    schema=OPERATIONS,
    comment="The configured mapping of statuses by which the stored states were written.",
)

redaction_policies = Table(
    "redaction_policies",
    metadata,
    column("version", Text(), "The version, as in redaction_policy of the rows.", primary_key=True),
    column("rules", JSONB, "The rules in force, without any key.", nullable=False),
    now("first_used_at", "When it was first in force."),
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
        "Version of the rules by which columns are read from payloads.",
        primary_key=True,
        autoincrement=False,
    ),
    column(
        "after_step_id",
        Id,
        "Steps up to this id, in the order of ids, are done; null: none yet.",
    ),
    column(
        "steps", BigInteger(), "Steps re-read so far.", nullable=False, server_default=text("0")
    ),
    column(
        "changed",
        BigInteger(),
        "Steps that changed.",
        nullable=False,
        server_default=text("0"),
    ),
    column("started_at", Time, "When it started; null: not yet."),
    column("finished_at", Time, "When all steps were done; null: not yet."),
    schema=OPERATIONS,
    comment="Progress of re-reading stored steps by newer rules (orchestra-etl rebuild).",
)

"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_requests",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Order of arrival.",
        ),
        sa.Column(
            "workflow_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The workflow the run belongs to.",
        ),
        sa.Column(
            "run_id", sa.Text(collation="C"), nullable=False, comment="The run to be tracked."
        ),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the request was made.",
        ),
        sa.CheckConstraint(
            "octet_length(run_id) BETWEEN 1 AND 512", name=op.f("run_requests_run_id_length_check")
        ),
        sa.CheckConstraint(
            "octet_length(workflow_id) BETWEEN 1 AND 512",
            name=op.f("run_requests_workflow_id_length_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("run_requests_pkey")),
        schema="orchestra",
        comment="A queue: insert a run here to have it tracked; the service empties it.",
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(collation="C"), nullable=False, comment="The run's id."),
        sa.Column(
            "workflow_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The workflow this is a run of.",
        ),
        sa.Column(
            "organization_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="The organisation; the API may mask it with asterisks.",
        ),
        sa.Column(
            "user_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="The user who started it; the API may mask it with asterisks.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=True,
            comment="The status as the API gives it; null where the API gives none.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.",
        ),
        sa.Column(
            "status_source",
            sa.Text(),
            nullable=False,
            comment="api: the API gave the status; derived: it follows from the steps.",
        ),
        sa.Column(
            "tracking",
            sa.Text(),
            nullable=False,
            comment="open: still polled; final: will not change; stale: given up as open; gone: the API no longer has it.",
        ),
        sa.Column(
            "start_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it started, by the API.",
        ),
        sa.Column(
            "end_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it ended, by the API; null while it runs.",
        ),
        sa.Column(
            "duration_ms",
            sa.Double(),
            sa.Computed(
                "(extract(epoch FROM (end_time - start_time)) * 1000)::double precision",
                persisted=True,
            ),
            nullable=True,
            comment="end_time minus start_time, in milliseconds.",
        ),
        sa.Column(
            "api_elapsed_seconds",
            sa.Double(),
            nullable=True,
            comment="The API's elapsed_time: whole seconds, truncated. Use duration_ms.",
        ),
        sa.Column(
            "error",
            postgresql.JSONB(),
            nullable=True,
            comment="The run's error as the API gives it.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(),
            nullable=True,
            comment="Fields the API's description does not have, and values of a wrong type, as they came.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this run was first loaded.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the content of this row last changed; an unchanged read does not touch it.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("runs_pkey")),
        schema="orchestra",
        comment="One row a run of a workflow.",
    )
    op.create_index(
        "runs_workflow_id_start_time_idx",
        "runs",
        ["workflow_id", "start_time"],
        unique=False,
        schema="orchestra",
    )
    op.create_table(
        "workflow_versions",
        sa.Column("workflow_id", sa.Text(collation="C"), nullable=False, comment="The workflow."),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When this version was first seen.",
        ),
        sa.Column("version", sa.Text(), nullable=True, comment="The version as the API names it."),
        sa.Column(
            "graph",
            postgresql.JSONB(),
            nullable=True,
            comment="Nodes and edges as the API gives them.",
        ),
        sa.PrimaryKeyConstraint("workflow_id", "observed_at", name=op.f("workflow_versions_pkey")),
        schema="orchestra",
        comment="Versions of workflows in the order they were observed; append-only.",
    )
    op.create_table(
        "workflows",
        sa.Column("id", sa.Text(collation="C"), nullable=False, comment="The workflow's id."),
        sa.Column(
            "name",
            sa.Text(),
            nullable=True,
            comment="Its name: from the configuration, else from the API.",
        ),
        sa.Column(
            "description", sa.Text(), nullable=True, comment="Its description, from the API."
        ),
        sa.Column(
            "labels",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=True,
            comment="Labels from the configuration, such as team and environment.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this workflow was first known here.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this row last changed.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("workflows_pkey")),
        schema="orchestra",
        comment="The workflows whose runs are stored.",
    )
    op.create_table(
        "dead_letters",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Number of the letter.",
        ),
        sa.Column("workflow_id", sa.Text(collation="C"), nullable=False, comment="The workflow."),
        sa.Column(
            "run_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The run; empty where the bad thing is a row of the run list without a usable id.",
        ),
        sa.Column(
            "step_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="The step, where its id is known.",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="A fixed word."),
        sa.Column(
            "detail",
            sa.Text(),
            nullable=False,
            comment="One sentence for the operator, without payload.",
        ),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False, comment="Hash of the body."),
        sa.Column(
            "body", sa.LargeBinary(), nullable=False, comment="The bytes that could not be loaded."
        ),
        sa.Column(
            "occurrences",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="How often it was seen.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first set aside.",
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was last set aside.",
        ),
        sa.Column(
            "resolved_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When a later read did without it, or somebody discarded it.",
        ),
        sa.Column("resolution", sa.Text(), nullable=True, comment="loaded or discarded."),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint(
            "workflow_id",
            "run_id",
            "reason",
            "content_hash",
            name=op.f("dead_letters_workflow_id_run_id_reason_content_hash_key"),
        ),
        schema="orchestra_etl",
        comment="What could not be loaded, with its bytes, to be looked at and tried again.",
    )
    op.create_index(
        "dead_letters_run_id_idx",
        "dead_letters",
        ["run_id"],
        unique=False,
        schema="orchestra_etl",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "described",
        sa.Column(
            "id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Always 1."
        ),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When GET /workflows was last asked.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("described_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("described_pkey")),
        schema="orchestra_etl",
        comment="When the API was last asked what workflows there are.",
    )
    op.create_table(
        "drift",
        sa.Column("workflow_id", sa.Text(collation="C"), nullable=False, comment="The workflow."),
        sa.Column("subject", sa.Text(), nullable=False, comment="step, run or workflow."),
        sa.Column("field", sa.Text(), nullable=False, comment="The field."),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="unknown_field, wrong_type, unknown_status, ...",
        ),
        sa.Column("found", sa.Text(), nullable=False, comment="The type or status found."),
        sa.Column(
            "occurrences",
            sa.BigInteger(),
            nullable=False,
            comment="In how many loaded steps or runs.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first seen.",
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was last seen.",
        ),
        sa.Column(
            "last_run_id", sa.Text(collation="C"), nullable=False, comment="A run that shows it."
        ),
        sa.PrimaryKeyConstraint(
            "workflow_id", "subject", "field", "kind", "found", name=op.f("drift_pkey")
        ),
        schema="orchestra_etl",
        comment="Where the API's answers differ from its description.",
    )
    op.create_table(
        "gaps",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="Number of the gap.",
        ),
        sa.Column("workflow_id", sa.Text(collation="C"), nullable=False, comment="The workflow."),
        sa.Column(
            "detected_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the gap was found.",
        ),
        sa.Column(
            "after_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Start of the newest run known before the gap.",
        ),
        sa.Column(
            "before_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Start of the oldest run listed behind the gap.",
        ),
        sa.Column("detail", sa.Text(), nullable=False, comment="What was seen."),
        sa.Column(
            "acknowledged_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When somebody took note of it.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("gaps_pkey")),
        schema="orchestra_etl",
        comment="Times in which runs may have come and gone without being listed to us.",
    )
    op.create_index(
        "gaps_workflow_id_idx", "gaps", ["workflow_id"], unique=False, schema="orchestra_etl"
    )
    op.create_table(
        "request_budget",
        sa.Column(
            "id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Always 1."
        ),
        sa.Column("available", sa.Double(), nullable=False, comment="Requests that may start now."),
        sa.Column(
            "refilled_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When available was last brought up to date.",
        ),
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="No request by any replica before this time: the server asked for a pause.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("request_budget_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("request_budget_pkey")),
        schema="orchestra_etl",
        comment="The request budget that all replicas share.",
    )
    op.create_table(
        "run_ledger",
        sa.Column("run_id", sa.Text(collation="C"), nullable=False, comment="The run."),
        sa.Column(
            "workflow_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="Its workflow; the run list is authoritative.",
        ),
        sa.Column(
            "source",
            sa.Text(),
            nullable=False,
            comment="How the run was first heard of: list, config, track or request.",
        ),
        sa.Column(
            "tracking",
            sa.Text(),
            server_default=sa.text("'open'"),
            nullable=False,
            comment="open, final, stale or gone.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the run entered the ledger.",
        ),
        sa.Column(
            "opened_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was last opened: ages count from here.",
        ),
        sa.Column(
            "listing",
            sa.LargeBinary(),
            nullable=True,
            comment="The run's row as the list gave it, until a poll has loaded it.",
        ),
        sa.Column(
            "listing_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="Hash of the row last seen, in the list or read alone.",
        ),
        sa.Column(
            "start_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the run started, by the list; null where no list has shown it.",
        ),
        sa.Column(
            "listed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Database time at which the page that gave this listing was requested.",
        ),
        sa.Column(
            "listed_sweep",
            sa.BigInteger(),
            nullable=True,
            comment="The sweep that listed it; a member of the watermark once that is complete.",
        ),
        sa.Column(
            "priority",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="0 live, 1 backfill.",
        ),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=True,
            comment="When to poll it next; null: not again.",
        ),
        sa.Column(
            "fencing_token",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Raised by every claim and by whatever asks for a newer read; a load with an older one is refused.",
        ),
        sa.Column(
            "leased_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="End of the claim in force; null: not claimed, or the claim is consumed.",
        ),
        sa.Column(
            "steps_observed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Database time at which the steps last loaded were requested.",
        ),
        sa.Column(
            "run_observed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Database time at which the run's own row last loaded was requested.",
        ),
        sa.Column(
            "run_state",
            sa.Text(),
            nullable=True,
            comment="The run's state by the API's own row last loaded.",
        ),
        sa.Column(
            "run_end_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The run's end by the API's own row last loaded.",
        ),
        sa.Column(
            "read_digest",
            sa.LargeBinary(),
            nullable=True,
            comment="Digest of step ids, statuses and end times at the last read.",
        ),
        sa.Column(
            "checks",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Reads in a row that found the run finished and nothing new.",
        ),
        sa.Column(
            "attempts",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Reads in a row that failed.",
        ),
        sa.Column(
            "last_error", sa.Text(), nullable=True, comment="Why the last read failed, in one line."
        ),
        sa.Column(
            "not_found_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when the API answers 404 for the steps.",
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_ledger_pkey")),
        schema="orchestra_etl",
        comment="What is known of every run, when it is due, and who holds it.",
    )
    op.create_index(
        "run_ledger_due_idx",
        "run_ledger",
        ["priority", "due_at"],
        unique=False,
        schema="orchestra_etl",
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "run_ledger_workflow_id_tracking_idx",
        "run_ledger",
        ["workflow_id", "tracking"],
        unique=False,
        schema="orchestra_etl",
    )
    op.create_table(
        "state_map",
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="A status, folded: lower case, without spaces, hyphens and underscores.",
        ),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="The state it is mapped to by the configuration.",
        ),
        sa.PrimaryKeyConstraint("status", name=op.f("state_map_pkey")),
        schema="orchestra_etl",
        comment="The configured mapping that the stored states were written by.",
    )
    op.create_table(
        "sweeps",
        sa.Column("workflow_id", sa.Text(collation="C"), nullable=False, comment="The workflow."),
        sa.Column(
            "fencing_token",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Number of the sweep last begun.",
        ),
        sa.Column(
            "leased_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="End of the running sweep's lease; null: none runs.",
        ),
        sa.Column(
            "watermark",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Number of the last complete sweep: runs listed by it or before are known without a hole.",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the last sweep began.",
        ),
        sa.Column(
            "completed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When a sweep was last complete.",
        ),
        sa.Column(
            "reconciled_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the last complete walk of the whole list began.",
        ),
        sa.Column(
            "new_runs",
            sa.Integer(),
            nullable=True,
            comment="Runs that the last complete sweep found new.",
        ),
        sa.Column(
            "listed_runs",
            sa.Integer(),
            nullable=True,
            comment="Rows that the last walk of the whole list saw: the listable window.",
        ),
        sa.Column(
            "last_error",
            sa.Text(),
            nullable=True,
            comment="Why the last sweep failed, in one line; null: it did not.",
        ),
        sa.PrimaryKeyConstraint("workflow_id", name=op.f("sweeps_pkey")),
        schema="orchestra_etl",
        comment="The state of each workflow's walk of the run list.",
    )
    op.create_table(
        "run_payloads",
        sa.Column("run_id", sa.Text(collation="C"), nullable=False, comment="The run."),
        sa.Column(
            "inputs", postgresql.JSONB(), nullable=True, comment="The run's input variables."
        ),
        sa.Column(
            "outputs", postgresql.JSONB(), nullable=True, comment="The output of the End node."
        ),
        sa.Column(
            "inputs_raw",
            sa.LargeBinary(),
            nullable=True,
            comment="The exact bytes of inputs, only where jsonb cannot hold the value.",
        ),
        sa.Column(
            "outputs_raw",
            sa.LargeBinary(),
            nullable=True,
            comment="The exact bytes of outputs, only where jsonb cannot hold the value.",
        ),
        sa.Column(
            "note",
            sa.Text(),
            nullable=True,
            comment="Why a raw column is filled, or why a value is null.",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["orchestra.runs.id"],
            name=op.f("run_payloads_run_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_payloads_pkey")),
        schema="orchestra",
        comment="What a run was given and what it gave.",
    )
    op.create_table(
        "steps",
        sa.Column(
            "id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The step's id: the key of every upsert.",
        ),
        sa.Column(
            "run_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The run this step belongs to.",
        ),
        sa.Column(
            "workflow_id",
            sa.Text(collation="C"),
            nullable=False,
            comment="The workflow, as in runs.",
        ),
        sa.Column(
            "node_id",
            sa.Text(),
            nullable=True,
            comment="The node of the workflow that this step executed.",
        ),
        sa.Column(
            "node_type",
            sa.Text(),
            nullable=True,
            comment="model, integration, code, ...: from the graph, else from the payload's shape, else null.",
        ),
        sa.Column(
            "position", sa.Integer(), nullable=False, comment="Place in the API's answer, from 0."
        ),
        sa.Column(
            "user_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="The user, as given; may be masked.",
        ),
        sa.Column(
            "organization_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="The organisation, as given; may be masked.",
        ),
        sa.Column("status", sa.Text(), nullable=True, comment="The status as the API gives it."),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.",
        ),
        sa.Column(
            "start_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the step started.",
        ),
        sa.Column(
            "end_time",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the step ended; null while it runs.",
        ),
        sa.Column(
            "duration_ms",
            sa.Double(),
            sa.Computed(
                "(extract(epoch FROM (end_time - start_time)) * 1000)::double precision",
                persisted=True,
            ),
            nullable=True,
            comment="end_time minus start_time, in milliseconds.",
        ),
        sa.Column(
            "api_elapsed_seconds",
            sa.Double(),
            nullable=True,
            comment="The API's elapsed_time: whole seconds, truncated. Use duration_ms.",
        ),
        sa.Column(
            "api_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="The API's tokens: documented as 0 today. Use the token columns.",
        ),
        sa.Column(
            "request_model",
            sa.Text(),
            nullable=True,
            comment="The model that was asked for (inputs.model).",
        ),
        sa.Column(
            "response_model",
            sa.Text(),
            nullable=True,
            comment="The model that answered (outputs.model).",
        ),
        sa.Column(
            "input_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="Prompt tokens the model reports.",
        ),
        sa.Column(
            "output_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="Completion tokens the model reports.",
        ),
        sa.Column(
            "total_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="Total tokens the model reports.",
        ),
        sa.Column(
            "cached_input_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="Prompt tokens served from a cache, part of input_tokens.",
        ),
        sa.Column(
            "reasoning_tokens",
            sa.BigInteger(),
            nullable=True,
            comment="Reasoning tokens, part of output_tokens.",
        ),
        sa.Column(
            "finish_reason",
            sa.Text(),
            nullable=True,
            comment="Why the model stopped: stop, length, tool_calls, ...",
        ),
        sa.Column(
            "error",
            postgresql.JSONB(),
            nullable=True,
            comment="The step's error as the API gives it.",
        ),
        sa.Column(
            "reported_error",
            sa.Text(),
            nullable=True,
            comment="What an integration reported as failed although the step's status is a success (a soft failure).",
        ),
        sa.Column(
            "step_metadata",
            postgresql.JSONB(),
            nullable=True,
            comment="step_metadata as the API gives it.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(),
            nullable=True,
            comment="Fields the API's description does not have, and values of a wrong type, as they came.",
        ),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="Hash of the step as it came; equal hashes need no write.",
        ),
        sa.Column(
            "absent_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Since when the API's answer no longer holds this step; null while it does.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this step was first loaded.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the content of this row last changed; an unchanged read does not touch it.",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["orchestra.runs.id"], name=op.f("steps_run_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("steps_pkey")),
        schema="orchestra",
        comment="One row a step of a run.",
    )
    op.create_index("steps_run_id_idx", "steps", ["run_id"], unique=False, schema="orchestra")
    op.create_index(
        "steps_workflow_id_start_time_idx",
        "steps",
        ["workflow_id", "start_time"],
        unique=False,
        schema="orchestra",
    )
    op.create_table(
        "inputs",
        sa.Column("step_id", sa.Text(collation="C"), nullable=False, comment="The step."),
        sa.Column(
            "data",
            postgresql.JSONB(),
            nullable=True,
            comment="The value; see note where it is null.",
        ),
        sa.Column(
            "size_bytes",
            sa.BigInteger(),
            nullable=False,
            comment="Length of the value as the API sent it.",
        ),
        sa.Column(
            "raw",
            sa.LargeBinary(),
            nullable=True,
            comment="The exact bytes, only where jsonb cannot hold the value.",
        ),
        sa.Column(
            "note", sa.Text(), nullable=True, comment="Why raw is filled, or why data is null."
        ),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["orchestra.steps.id"],
            name=op.f("inputs_step_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step_id", name=op.f("inputs_pkey")),
        schema="orchestra",
        comment="What each step was given.",
    )
    op.create_table(
        "outputs",
        sa.Column("step_id", sa.Text(collation="C"), nullable=False, comment="The step."),
        sa.Column(
            "data",
            postgresql.JSONB(),
            nullable=True,
            comment="The value; see note where it is null.",
        ),
        sa.Column(
            "size_bytes",
            sa.BigInteger(),
            nullable=False,
            comment="Length of the value as the API sent it.",
        ),
        sa.Column(
            "raw",
            sa.LargeBinary(),
            nullable=True,
            comment="The exact bytes, only where jsonb cannot hold the value.",
        ),
        sa.Column(
            "note", sa.Text(), nullable=True, comment="Why raw is filled, or why data is null."
        ),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["orchestra.steps.id"],
            name=op.f("outputs_step_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step_id", name=op.f("outputs_pkey")),
        schema="orchestra",
        comment="What each step gave.",
    )


def downgrade() -> None:
    op.drop_table("outputs", schema="orchestra")
    op.drop_table("inputs", schema="orchestra")
    op.drop_index("steps_workflow_id_start_time_idx", table_name="steps", schema="orchestra")
    op.drop_index("steps_run_id_idx", table_name="steps", schema="orchestra")
    op.drop_table("steps", schema="orchestra")
    op.drop_table("run_payloads", schema="orchestra")
    op.drop_table("sweeps", schema="orchestra_etl")
    op.drop_table("state_map", schema="orchestra_etl")
    op.drop_index(
        "run_ledger_workflow_id_tracking_idx", table_name="run_ledger", schema="orchestra_etl"
    )
    op.drop_index(
        "run_ledger_due_idx",
        table_name="run_ledger",
        schema="orchestra_etl",
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.drop_table("run_ledger", schema="orchestra_etl")
    op.drop_table("request_budget", schema="orchestra_etl")
    op.drop_index("gaps_workflow_id_idx", table_name="gaps", schema="orchestra_etl")
    op.drop_table("gaps", schema="orchestra_etl")
    op.drop_table("drift", schema="orchestra_etl")
    op.drop_table("described", schema="orchestra_etl")
    op.drop_index(
        "dead_letters_run_id_idx",
        table_name="dead_letters",
        schema="orchestra_etl",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.drop_table("dead_letters", schema="orchestra_etl")
    op.drop_table("workflows", schema="orchestra")
    op.drop_table("workflow_versions", schema="orchestra")
    op.drop_index("runs_workflow_id_start_time_idx", table_name="runs", schema="orchestra")
    op.drop_table("runs", schema="orchestra")
    op.drop_table("run_requests", schema="orchestra")

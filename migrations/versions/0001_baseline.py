"""The baseline: the whole schema of version 1.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_ID = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)
_DURATION = sa.Computed(
    "(extract(epoch FROM (end_time - start_time)) * 1000)::double precision", persisted=True
)

# By default PostgreSQL vacuums a table once a fifth of it is dead: two of ten million rows.
_VACUUM_EARLY = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_insert_scale_factor": "0.02",
    "autovacuum_analyze_scale_factor": "0.02",
}
_STORAGE = {
    "orchestra.runs": _VACUUM_EARLY,
    "orchestra.steps": _VACUUM_EARLY,
    "orchestra.inputs": _VACUUM_EARLY,
    "orchestra.outputs": _VACUUM_EARLY,
    "orchestra.step_rollup": _VACUUM_EARLY,
    # A claim changes no indexed column. If its page has room, it writes to no index: an unchanged
    # poll then writes 70 bytes per step to the WAL instead of 110.
    "orchestra_etl.run_ledger": {"fillfactor": "70", **_VACUUM_EARLY},
    # All rows of a queue are soon dead.
    "orchestra_etl.changed_groups": {
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "1000",
    },
}

# Functions, triggers and views, each after those it uses.
_SQL_FILES = (
    "outcome",
    "failure_pattern",
    "usage",
    "calls",
    "call_cost",
    "duration",
    "duration_histogram",
    "count_distinct",
    "changed_groups",
    "workflow_hourly",
    "node_hourly",
    "node_daily",
    "model_usage",
    "run_summary",
    "step_timeline",
    "failures",
    "failure_groups",
    "open_runs",
    "removed_runs",
    "cost_differences",
    "coverage",
    "pipeline_health",
)


def upgrade() -> None:
    _history()
    _rollups()
    _prices()
    _operations()
    for table, parameters in _STORAGE.items():
        listed = ", ".join(f"{name} = {value}" for name, value in parameters.items())
        op.execute(f"ALTER TABLE {table} SET ({listed})")
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}_v1.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
    _bookkeeping()


def downgrade() -> None:
    raise NotImplementedError("this is the first revision: drop both schemas instead")


def _column(
    name: str, kind: sa.types.TypeEngine[Any], comment: str, *more: Any, **options: Any
) -> sa.Column[Any]:
    return sa.Column(name, kind, *more, comment=comment, **options)


_AMOUNTS = (
    ("input_per_million", "Price per million: input tokens"),
    ("cached_input_per_million", "Price per million: input tokens read from a cache"),
    ("cache_write_per_million", "Price per million: input tokens written to a cache"),
    (
        "cache_write_1h_per_million",
        "Price per million: input tokens written to a cache that keeps them for an hour",
    ),
    ("input_audio_per_million", "Price per million: input tokens of audio"),
    ("cached_audio_per_million", "Price per million: input tokens of audio read from a cache"),
    ("input_image_per_million", "Price per million: input tokens of images"),
    ("cached_image_per_million", "Price per million: input tokens of images read from a cache"),
    ("input_video_per_million", "Price per million: input tokens of video"),
    ("output_per_million", "Price per million: output tokens"),
    ("reasoning_per_million", "Price per million: output tokens of reasoning"),
    ("output_audio_per_million", "Price per million: output tokens of audio"),
    ("output_image_per_million", "Price per million: output tokens of images"),
    ("output_video_per_million", "Price per million: output tokens of video"),
    ("citation_per_million", "Price per million: output tokens of citations"),
    ("other_per_million", "Price per million: tokens of unknown kind"),
    ("web_searches_per_thousand", "Price per thousand: web searches by the provider"),
    ("file_searches_per_thousand", "Price per thousand: file searches by the provider"),
    (
        "tool_uses_per_thousand",
        "Price per thousand: uses of other tools that the provider charges by use",
    ),
    ("audio_per_hour", "Price per hour: audio charged by duration"),
    ("document_pages_per_thousand", "Price per thousand: document pages read"),
    ("search_units_per_thousand", "Price per thousand: search units of a reranking model"),
    (
        "unread_per_thousand",
        "Price per thousand: reported quantities of usage that could not be read",
    ),
    ("calls_per_thousand", "Price per thousand: calls"),
)


def _steps() -> list[sa.Column[Any]]:
    """Return the columns of both rollups of steps."""
    return [
        _column("organization_id", _ID, "The organisation; null if no step names one."),
        _column("node_id", sa.Text(), "The node."),
        _column("node_type", sa.Text(), "The node's type."),
        _column(
            "model", sa.Text(), "The model that responded, else the requested one; null: no model."
        ),
        _column(
            "service_tier",
            sa.Text(),
            "For calls: the provider's service tier; null if they name none.",
        ),
        _column(
            "context_tier",
            sa.Integer(),
            (
                "For calls: the highest threshold of input tokens that they exceed, of those "
                "above which prices can change; else 0."
            ),
        ),
        _column(
            "usage_kinds",
            sa.Integer(),
            (
                "For calls: bit mask of the kinds of usage charged at a price of their own (see "
                "usage_kinds)."
            ),
        ),
        _column("succeeded", sa.BigInteger(), "Steps that succeeded.", nullable=False),
        _column(
            "soft_failed",
            sa.BigInteger(),
            "Steps with a successful status that carry an error (see outcome).",
            nullable=False,
        ),
        _column("failed", sa.BigInteger(), "Steps that failed.", nullable=False),
        _column("cancelled", sa.BigInteger(), "Steps that were cancelled.", nullable=False),
        _column("skipped", sa.BigInteger(), "Steps that were skipped.", nullable=False),
        _column(
            "unfinished",
            sa.BigInteger(),
            "Steps that are pending or running, or whose status is not known.",
            nullable=False,
        ),
        _column("calls", sa.BigInteger(), "Calls of a model (see is_call).", nullable=False),
        _column(
            "unmetered_calls",
            sa.BigInteger(),
            "Calls that report no usage, so that their cost is unknown.",
            nullable=False,
        ),
        _column(
            "untotalled_calls",
            sa.BigInteger(),
            "Calls missing from total_tokens, because they report no tokens.",
            nullable=False,
        ),
        _column(
            "reported_calls",
            sa.BigInteger(),
            "Calls whose provider reports a cost.",
            nullable=False,
        ),
        _column(
            "input_tokens",
            sa.BigInteger(),
            (
                "Input tokens, including those read from and written to a cache. Summed over "
                "the calls that report it; null if there are calls and none does."
            ),
        ),
        _column(
            "cached_input_tokens",
            sa.BigInteger(),
            (
                "Input tokens read from a cache, part of input_tokens. Summed over the calls "
                "that report it; null if there are calls and none does."
            ),
        ),
        _column(
            "cache_write_tokens",
            sa.BigInteger(),
            (
                "Input tokens written to a cache, part of input_tokens. Summed over the calls "
                "that report it; null if none does."
            ),
        ),
        _column(
            "cache_write_1h_tokens",
            sa.BigInteger(),
            (
                "Input tokens written to a cache that keeps them for an hour, part of "
                "cache_write_tokens. Summed over the calls that report it; null if none does."
            ),
        ),
        _column(
            "input_audio_tokens",
            sa.BigInteger(),
            (
                "Input tokens of audio, part of input_tokens. Summed over the calls that report "
                "it; null if none does."
            ),
        ),
        _column(
            "cached_audio_tokens",
            sa.BigInteger(),
            (
                "Input tokens of audio read from a cache, part of input_audio_tokens and of "
                "cached_input_tokens. Summed over the calls that report it; null if none does."
            ),
        ),
        _column(
            "input_image_tokens",
            sa.BigInteger(),
            (
                "Input tokens of images, part of input_tokens. Summed over the calls that "
                "report it; null if none does."
            ),
        ),
        _column(
            "cached_image_tokens",
            sa.BigInteger(),
            (
                "Input tokens of images read from a cache, part of input_image_tokens and of "
                "cached_input_tokens. Summed over the calls that report it; null if none does."
            ),
        ),
        _column(
            "input_video_tokens",
            sa.BigInteger(),
            (
                "Input tokens of video, part of input_tokens. Summed over the calls that report "
                "it; null if none does."
            ),
        ),
        _column(
            "output_tokens",
            sa.BigInteger(),
            (
                "Output tokens, including reasoning. Summed over the calls that report it; null "
                "if there are calls and none does."
            ),
        ),
        _column(
            "reasoning_tokens",
            sa.BigInteger(),
            (
                "Output tokens of reasoning, part of output_tokens. Summed over the calls that "
                "report it; null if there are calls and none does."
            ),
        ),
        _column(
            "output_audio_tokens",
            sa.BigInteger(),
            (
                "Output tokens of audio, part of output_tokens. Summed over the calls that "
                "report it; null if none does."
            ),
        ),
        _column(
            "output_image_tokens",
            sa.BigInteger(),
            (
                "Output tokens of images, part of output_tokens. Summed over the calls that "
                "report it; null if none does."
            ),
        ),
        _column(
            "output_video_tokens",
            sa.BigInteger(),
            (
                "Output tokens of video, part of output_tokens. Summed over the calls that "
                "report it; null if none does."
            ),
        ),
        _column(
            "citation_tokens",
            sa.BigInteger(),
            (
                "Output tokens of citations, part of output_tokens. Summed over the calls that "
                "report it; null if none does."
            ),
        ),
        _column(
            "other_tokens",
            sa.BigInteger(),
            (
                "Tokens of unknown kind: those in the reported total beyond input and output. "
                "Summed over the calls that report it; null if none does."
            ),
        ),
        _column(
            "web_searches",
            sa.BigInteger(),
            (
                "Web searches by the provider. Summed over the calls that report it; null if "
                "none does."
            ),
        ),
        _column(
            "file_searches",
            sa.BigInteger(),
            (
                "File searches by the provider. Summed over the calls that report it; null if "
                "none does."
            ),
        ),
        _column(
            "tool_uses",
            sa.BigInteger(),
            (
                "Uses of other tools that the provider charges by use. Summed over the calls "
                "that report it; null if none does."
            ),
        ),
        _column(
            "audio_ms",
            sa.BigInteger(),
            (
                "Audio charged by duration, in milliseconds. Summed over the calls that report "
                "it; null if none does."
            ),
        ),
        _column(
            "document_pages",
            sa.BigInteger(),
            "Document pages read. Summed over the calls that report it; null if none does.",
        ),
        _column(
            "search_units",
            sa.BigInteger(),
            (
                "Search units of a reranking model. Summed over the calls that report it; null "
                "if none does."
            ),
        ),
        _column(
            "unread_quantities",
            sa.BigInteger(),
            (
                "Reported quantities of usage that could not be read: their cost is unknown. "
                "Summed over the calls that report it; null if none does."
            ),
        ),
        _column(
            "total_tokens",
            sa.BigInteger(),
            (
                "Total tokens. Summed over the calls that report it; null if there are calls "
                "and none does."
            ),
        ),
        _column(
            "reported_cost",
            sa.Numeric(),
            (
                "Cost in US dollars, as providers report it. Summed over the calls that report "
                "it; null if none does."
            ),
        ),
        _column(
            "buckets",
            postgresql.ARRAY(sa.SmallInteger()),
            (
                "Buckets of the durations of the steps that succeeded (see duration_bucket), "
                "ascending; steps without a valid duration are not counted."
            ),
            nullable=False,
        ),
        _column(
            "counts",
            postgresql.ARRAY(sa.Integer()),
            "Number of durations in each of these buckets.",
            nullable=False,
        ),
        _column(
            "failed_buckets",
            postgresql.ARRAY(sa.SmallInteger()),
            "Like buckets, for steps that failed or soft-failed.",
            nullable=False,
        ),
        _column(
            "failed_counts",
            postgresql.ARRAY(sa.Integer()),
            "Number of durations in each of failed_buckets.",
            nullable=False,
        ),
    ]


def _amounts(null: str) -> list[sa.Column[Any]]:
    """Return the currency and the prices; `null` says what a missing price means."""
    return [
        _column("currency", sa.Text(), "Currency of the prices, such as USD.", nullable=False),
        *(_column(name, sa.Numeric(), f"{comment}; null: {null}.") for name, comment in _AMOUNTS),
    ]


def _history() -> None:
    """Create the history that analysts read."""
    op.create_table(
        "workflows",
        _column("id", _ID, "The workflow's id.", nullable=False),
        _column("name", sa.Text(), "Its name: from the configuration, else from the API."),
        _column("description", sa.Text(), "Its description, from the API."),
        _column(
            "labels",
            postgresql.JSONB(),
            "Labels from the configuration, such as team and environment.",
            server_default=sa.text("'{}'"),
        ),
        _column(
            "first_seen_at",
            _TIME,
            "When this workflow was first stored.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "updated_at",
            _TIME,
            "When this row last changed.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("workflows_pkey")),
        schema="orchestra",
        comment="The workflows whose runs are stored.",
    )
    op.create_table(
        "workflow_versions",
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column("first_seen_at", _TIME, "When this version was first seen.", nullable=False),
        _column("version", sa.Text(), "The version as the API names it."),
        _column("graph", postgresql.JSONB(), "Nodes and edges as the API returns them."),
        _column(
            "api_updated_at",
            _TIME,
            (
                "The API's time of the workflow's last change when this version was first seen: "
                "the version was in force from then at the latest. Null if the API does not say."
            ),
        ),
        sa.PrimaryKeyConstraint(
            "workflow_id", "first_seen_at", name=op.f("workflow_versions_pkey")
        ),
        schema="orchestra",
        comment="Versions of workflows in the order in which they were first seen; append-only.",
    )
    op.create_table(
        "runs",
        _column("id", _ID, "The run's id.", nullable=False),
        _column("workflow_id", _ID, "The workflow this is a run of.", nullable=False),
        _column("organization_id", _ID, "The organisation; the API may mask it with asterisks."),
        _column("user_id", _ID, "The user who started it; the API may mask it with asterisks."),
        _column("status", sa.Text(), "The status as the API returns it; null if it returns none."),
        _column(
            "state",
            sa.Text(),
            (
                "The status normalised: pending, running, succeeded, failed, cancelled, skipped "
                "or unknown."
            ),
            nullable=False,
        ),
        _column(
            "status_source",
            sa.Text(),
            "api: the API returned the status; derived: it follows from the steps.",
            nullable=False,
        ),
        _column(
            "tracking",
            sa.Text(),
            (
                "open: still polled; final: not read again; stale: open for too long, read once a "
                "day; gone: the API no longer has it."
            ),
            nullable=False,
        ),
        _column("start_time", _TIME, "When it started, by the API."),
        _column("end_time", _TIME, "When it ended, by the API; null while it runs."),
        _column(
            "duration_ms", sa.Double(), "end_time minus start_time, in milliseconds.", _DURATION
        ),
        _column(
            "api_elapsed_seconds",
            sa.Double(),
            "The API's elapsed_time: whole seconds, truncated. Use duration_ms.",
        ),
        _column("error", postgresql.JSONB(), "The run's error as the API returns it."),
        _column(
            "extra",
            postgresql.JSONB(),
            "Fields that the API's description lacks, and values of a wrong type, as received.",
        ),
        _column(
            "redaction_policy",
            sa.Text(),
            "Version of the redaction rules this row was written under; null: no rules.",
        ),
        _column(
            "content_hash",
            sa.LargeBinary(),
            "Hash of the run as it was written; equal hashes need no write.",
        ),
        _column(
            "first_seen_at",
            _TIME,
            "When this run was first loaded.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "updated_at",
            _TIME,
            "When the content of this row last changed; an unchanged read does not touch it.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("runs_pkey")),
        schema="orchestra",
        comment="One row per run of a workflow.",
    )
    op.create_index("runs_start_time_idx", "runs", ["start_time"], schema="orchestra")
    op.create_index(
        "runs_unfinished_idx",
        "runs",
        ["workflow_id"],
        schema="orchestra",
        postgresql_where=sa.text("state IN ('pending', 'running', 'unknown')"),
    )
    op.create_index(
        "runs_unstarted_idx",
        "runs",
        ["workflow_id", "first_seen_at"],
        schema="orchestra",
        postgresql_where=sa.text("start_time IS NULL"),
    )
    op.create_index(
        "runs_updated_at_idx",
        "runs",
        ["updated_at"],
        schema="orchestra",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    )
    op.create_index(
        "runs_workflow_id_start_time_idx", "runs", ["workflow_id", "start_time"], schema="orchestra"
    )
    op.create_table(
        "run_payloads",
        _column("run_id", _ID, "The run.", nullable=False),
        _column("inputs", postgresql.JSONB(), "The run's input variables."),
        _column("outputs", postgresql.JSONB(), "The output of the End node."),
        _column(
            "inputs_raw",
            sa.LargeBinary(),
            "The exact bytes of inputs; only set if jsonb cannot hold the value.",
        ),
        _column(
            "outputs_raw",
            sa.LargeBinary(),
            "The exact bytes of outputs; only set if jsonb cannot hold the value.",
        ),
        _column("note", sa.Text(), "Why a raw column is filled, or why a value is null."),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["orchestra.runs.id"],
            name=op.f("run_payloads_run_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_payloads_pkey")),
        schema="orchestra",
        comment="The inputs and outputs of each run.",
    )
    op.create_table(
        "steps",
        _column("id", _ID, "The step's id: the key of every upsert.", nullable=False),
        _column("run_id", _ID, "The run this step belongs to.", nullable=False),
        _column("workflow_id", _ID, "The workflow, as in runs.", nullable=False),
        _column("node_id", sa.Text(), "The node of the workflow that this step executed."),
        _column(
            "node_type",
            sa.Text(),
            (
                "model, integration, code, ...: from the graph, else from the payload's shape, "
                "else null."
            ),
        ),
        _column("position", sa.Integer(), "Index in the API's response, from 0.", nullable=False),
        _column("user_id", _ID, "The user; the API may mask it with asterisks."),
        _column("organization_id", _ID, "The organisation; the API may mask it with asterisks."),
        _column("status", sa.Text(), "The status as the API returns it."),
        _column(
            "state",
            sa.Text(),
            (
                "The status normalised: pending, running, succeeded, failed, cancelled, skipped "
                "or unknown."
            ),
            nullable=False,
        ),
        _column("start_time", _TIME, "When the step started."),
        _column("end_time", _TIME, "When the step ended; null while it runs."),
        _column(
            "duration_ms", sa.Double(), "end_time minus start_time, in milliseconds.", _DURATION
        ),
        _column(
            "api_elapsed_seconds",
            sa.Double(),
            "The API's elapsed_time: whole seconds, truncated. Use duration_ms.",
        ),
        _column(
            "api_tokens",
            sa.BigInteger(),
            "The API's tokens: documented as 0 today. Use the token columns.",
        ),
        _column(
            "request_model",
            sa.Text(),
            "The requested model (inputs.model, or the provider's own field).",
        ),
        _column(
            "response_model",
            sa.Text(),
            "The model that responded (outputs.model, or the provider's own field).",
        ),
        _column(
            "input_tokens",
            sa.BigInteger(),
            "Input tokens, including those read from and written to a cache.",
        ),
        _column(
            "cached_input_tokens",
            sa.BigInteger(),
            "Input tokens read from a cache, part of input_tokens.",
        ),
        _column(
            "cache_write_tokens",
            sa.BigInteger(),
            "Input tokens written to a cache, part of input_tokens.",
        ),
        _column(
            "cache_write_1h_tokens",
            sa.BigInteger(),
            (
                "Input tokens written to a cache that keeps them for an hour, part of "
                "cache_write_tokens."
            ),
        ),
        _column(
            "input_audio_tokens", sa.BigInteger(), "Input tokens of audio, part of input_tokens."
        ),
        _column(
            "cached_audio_tokens",
            sa.BigInteger(),
            (
                "Input tokens of audio read from a cache, part of input_audio_tokens and of "
                "cached_input_tokens."
            ),
        ),
        _column(
            "input_image_tokens", sa.BigInteger(), "Input tokens of images, part of input_tokens."
        ),
        _column(
            "cached_image_tokens",
            sa.BigInteger(),
            (
                "Input tokens of images read from a cache, part of input_image_tokens and of "
                "cached_input_tokens."
            ),
        ),
        _column(
            "input_video_tokens", sa.BigInteger(), "Input tokens of video, part of input_tokens."
        ),
        _column("output_tokens", sa.BigInteger(), "Output tokens, including reasoning."),
        _column(
            "reasoning_tokens",
            sa.BigInteger(),
            "Output tokens of reasoning, part of output_tokens.",
        ),
        _column(
            "output_audio_tokens", sa.BigInteger(), "Output tokens of audio, part of output_tokens."
        ),
        _column(
            "output_image_tokens",
            sa.BigInteger(),
            "Output tokens of images, part of output_tokens.",
        ),
        _column(
            "output_video_tokens", sa.BigInteger(), "Output tokens of video, part of output_tokens."
        ),
        _column(
            "citation_tokens", sa.BigInteger(), "Output tokens of citations, part of output_tokens."
        ),
        _column(
            "other_tokens",
            sa.BigInteger(),
            "Tokens of unknown kind: those in the reported total beyond input and output.",
        ),
        _column("web_searches", sa.BigInteger(), "Web searches by the provider."),
        _column("file_searches", sa.BigInteger(), "File searches by the provider."),
        _column(
            "tool_uses", sa.BigInteger(), "Uses of other tools that the provider charges by use."
        ),
        _column("audio_ms", sa.BigInteger(), "Audio charged by duration, in milliseconds."),
        _column("document_pages", sa.BigInteger(), "Document pages read."),
        _column("search_units", sa.BigInteger(), "Search units of a reranking model."),
        _column(
            "unread_quantities",
            sa.BigInteger(),
            "Reported quantities of usage that could not be read: their cost is unknown.",
        ),
        _column(
            "total_tokens",
            sa.BigInteger(),
            "Total tokens as reported, if at least the sum of input and output; else that sum.",
        ),
        _column(
            "usage_kinds",
            sa.Integer(),
            "Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).",
        ),
        _column(
            "service_tier",
            sa.Text(),
            (
                "The provider's service tier: standard, batch, flex, priority, fast or another; "
                "null if the call names none."
            ),
        ),
        _column(
            "reported_cost", sa.Numeric(), "The cost in US dollars, as the provider reports it."
        ),
        _column(
            "finish_reason",
            sa.Text(),
            (
                "Why the model stopped, in its provider's words: stop, length, max_tokens, ... "
                "(see is_cut_off)."
            ),
        ),
        _column("error", postgresql.JSONB(), "The step's error as the API returns it."),
        _column(
            "reported_error",
            sa.Text(),
            (
                "The error that the step's payload reports; a soft failure if its status is a "
                "success."
            ),
        ),
        _column("step_metadata", postgresql.JSONB(), "step_metadata as the API returns it."),
        _column(
            "extra",
            postgresql.JSONB(),
            "Fields that the API's description lacks, and values of a wrong type, as received.",
        ),
        _column(
            "redaction_policy",
            sa.Text(),
            (
                "Version of the redaction rules this row and its payloads were written under; "
                "null: no rules."
            ),
        ),
        _column(
            "content_hash",
            sa.LargeBinary(),
            "Hash of the step as received; equal hashes need no write.",
            nullable=False,
        ),
        _column(
            "absent_since",
            _TIME,
            "Since when the API's response no longer contains this step; null while it does.",
        ),
        _column(
            "first_seen_at",
            _TIME,
            "When this step was first loaded.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "updated_at",
            _TIME,
            "When the content of this row last changed; an unchanged read does not touch it.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["orchestra.runs.id"], name=op.f("steps_run_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("steps_pkey")),
        schema="orchestra",
        comment="One row per step of a run.",
    )
    op.create_index(
        "steps_error_idx",
        "steps",
        ["run_id"],
        schema="orchestra",
        postgresql_where=sa.text("error IS NOT NULL OR reported_error IS NOT NULL"),
    )
    op.create_index(
        "steps_reported_cost_idx",
        "steps",
        ["start_time"],
        schema="orchestra",
        postgresql_where=sa.text("reported_cost IS NOT NULL"),
    )
    op.create_index("steps_run_id_idx", "steps", ["run_id"], schema="orchestra")
    op.create_index(
        "steps_unstarted_idx",
        "steps",
        ["run_id"],
        schema="orchestra",
        postgresql_where=sa.text("start_time IS NULL"),
    )
    op.create_index(
        "steps_updated_at_idx",
        "steps",
        ["updated_at"],
        schema="orchestra",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    )
    op.create_index(
        "steps_workflow_id_start_time_idx",
        "steps",
        ["workflow_id", "start_time"],
        schema="orchestra",
    )
    op.create_table(
        "inputs",
        _column("step_id", _ID, "The step.", nullable=False),
        _column("data", postgresql.JSONB(), "The value; if it is null, note says why."),
        _column(
            "size_bytes", sa.BigInteger(), "Length of the value as the API sent it.", nullable=False
        ),
        _column(
            "raw", sa.LargeBinary(), "The exact bytes; only set if jsonb cannot hold the value."
        ),
        _column("note", sa.Text(), "Why raw is filled, or why data is null."),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["orchestra.steps.id"],
            name=op.f("inputs_step_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step_id", name=op.f("inputs_pkey")),
        schema="orchestra",
        comment="The inputs of each step.",
    )
    op.create_table(
        "outputs",
        _column("step_id", _ID, "The step.", nullable=False),
        _column("data", postgresql.JSONB(), "The value; if it is null, note says why."),
        _column(
            "size_bytes", sa.BigInteger(), "Length of the value as the API sent it.", nullable=False
        ),
        _column(
            "raw", sa.LargeBinary(), "The exact bytes; only set if jsonb cannot hold the value."
        ),
        _column("note", sa.Text(), "Why raw is filled, or why data is null."),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["orchestra.steps.id"],
            name=op.f("outputs_step_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step_id", name=op.f("outputs_pkey")),
        schema="orchestra",
        comment="The outputs of each step.",
    )
    op.create_table(
        "run_requests",
        _column(
            "id", sa.BigInteger(), "Order of arrival.", sa.Identity(always=True), nullable=False
        ),
        _column("workflow_id", _ID, "The workflow the run belongs to.", nullable=False),
        _column("run_id", _ID, "The run to be tracked.", nullable=False),
        _column(
            "requested_at",
            _TIME,
            "When the request was made.",
            nullable=False,
            server_default=sa.text("now()"),
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
        comment="A queue: insert a run to have it tracked. The service empties it.",
    )


def _rollups() -> None:
    """Create what is computed from runs and steps."""
    op.create_table(
        "step_rollup",
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column(
            "hour",
            _TIME,
            (
                "The hour (UTC) in which the steps started; for steps without a start, the hour "
                "of their run."
            ),
            nullable=False,
        ),
        _column(
            "ordinal",
            sa.Integer(),
            "Number of the row within its workflow and hour; negative: counts of pruned runs.",
            nullable=False,
        ),
        *_steps(),
        sa.PrimaryKeyConstraint("workflow_id", "hour", "ordinal", name=op.f("step_rollup_pkey")),
        schema="orchestra",
        comment=(
            "Steps by hour, workflow, organisation, node and model: outcomes, tokens and "
            "histograms of durations."
        ),
    )
    op.create_index("step_rollup_hour_idx", "step_rollup", ["hour"], schema="orchestra")
    op.create_table(
        "step_rollup_daily",
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column("day", sa.Date(), "The day (UTC) of the hours that are added up.", nullable=False),
        _column(
            "ordinal",
            sa.Integer(),
            "Number of the row within its workflow and day.",
            nullable=False,
        ),
        *_steps(),
        sa.PrimaryKeyConstraint(
            "workflow_id", "day", "ordinal", name=op.f("step_rollup_daily_pkey")
        ),
        schema="orchestra",
        comment="step_rollup by day: the same figures, for queries over weeks and months.",
    )
    op.create_index("step_rollup_daily_day_idx", "step_rollup_daily", ["day"], schema="orchestra")
    op.create_index(
        "step_rollup_daily_model_idx",
        "step_rollup_daily",
        ["model"],
        schema="orchestra",
        postgresql_where=sa.text("length(model) <= 500"),
    )
    op.create_table(
        "run_rollup",
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column(
            "hour",
            _TIME,
            "The hour (UTC) in which the runs started, or were first seen if not started.",
            nullable=False,
        ),
        _column(
            "ordinal",
            sa.Integer(),
            "Number of the row within its workflow and hour; negative: counts of pruned runs.",
            nullable=False,
        ),
        _column("organization_id", _ID, "The organisation; null if the run names none."),
        _column("runs", sa.BigInteger(), "Runs.", nullable=False),
        _column("succeeded", sa.BigInteger(), "Runs that succeeded.", nullable=False),
        _column(
            "soft_failed",
            sa.BigInteger(),
            (
                "Runs with a successful status that carry an error, or have a step that does "
                "(see outcome)."
            ),
            nullable=False,
        ),
        _column("failed", sa.BigInteger(), "Runs that failed.", nullable=False),
        _column("cancelled", sa.BigInteger(), "Runs that were cancelled.", nullable=False),
        _column("skipped", sa.BigInteger(), "Runs that were skipped.", nullable=False),
        _column(
            "unfinished",
            sa.BigInteger(),
            "Runs that are pending or running, or whose status is not known.",
            nullable=False,
        ),
        _column(
            "buckets",
            postgresql.ARRAY(sa.SmallInteger()),
            (
                "Buckets of the durations of the runs that succeeded (see duration_bucket), "
                "ascending; runs without a valid duration are not counted."
            ),
            nullable=False,
        ),
        _column(
            "counts",
            postgresql.ARRAY(sa.Integer()),
            "Number of durations in each of these buckets.",
            nullable=False,
        ),
        _column(
            "failed_buckets",
            postgresql.ARRAY(sa.SmallInteger()),
            "Like buckets, for runs that failed or soft-failed.",
            nullable=False,
        ),
        _column(
            "failed_counts",
            postgresql.ARRAY(sa.Integer()),
            "Number of durations in each of failed_buckets.",
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("workflow_id", "hour", "ordinal", name=op.f("run_rollup_pkey")),
        schema="orchestra",
        comment="Runs by hour, workflow and organisation: outcomes and histograms of durations.",
    )
    op.create_index("run_rollup_hour_idx", "run_rollup", ["hour"], schema="orchestra")
    op.create_table(
        "step_failures",
        _column("step_id", _ID, "The step.", nullable=False),
        _column("run_id", _ID, "Its run.", nullable=False),
        _column("workflow_id", _ID, "Its workflow.", nullable=False),
        _column("node_id", sa.Text(), "Its node."),
        _column("organization_id", _ID, "Its organisation."),
        _column(
            "time",
            _TIME,
            "When the step started; without a start, when its run started or was first seen.",
            nullable=False,
        ),
        _column("outcome", sa.Text(), "failed or soft_failed.", nullable=False),
        _column(
            "fingerprint",
            sa.Text(),
            "Hash of the pattern: the same for failures of one kind.",
            nullable=False,
        ),
        _column(
            "pattern",
            sa.Text(),
            "The message with its numbers, ids and quoted texts replaced.",
            nullable=False,
        ),
        _column("message", sa.Text(), "The first 500 characters of the error.", nullable=False),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["orchestra.steps.id"],
            name=op.f("step_failures_step_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("step_id", name=op.f("step_failures_pkey")),
        schema="orchestra",
        comment="One row per step that failed or soft-failed, with the kind of failure.",
    )
    op.create_index("step_failures_time_idx", "step_failures", ["time"], schema="orchestra")
    op.create_index(
        "step_failures_workflow_id_time_idx",
        "step_failures",
        ["workflow_id", "time"],
        schema="orchestra",
    )
    op.create_table(
        "changed_groups",
        _column(
            "id", sa.BigInteger(), "Order of arrival.", sa.Identity(always=True), nullable=False
        ),
        _column("workflow_id", _ID, "The workflow; null: every group must be computed."),
        _column(
            "hour", _TIME, "The hour of the runs or steps that changed; null: see workflow_id."
        ),
        _column(
            "queued_at",
            _TIME,
            "When it was queued.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "failed_at",
            _TIME,
            "When its computation last failed, to be retried later; null: it has not failed.",
        ),
        _column("cause", sa.Text(), "SQLSTATE of that failure."),
        sa.PrimaryKeyConstraint("id", name=op.f("changed_groups_pkey")),
        schema="orchestra_etl",
        comment=(
            "A queue: the rollup groups whose runs or steps have changed since they were "
            "last computed."
        ),
    )


def _prices() -> None:
    """Create the prices of models."""
    op.create_table(
        "prices",
        _column("model", _ID, "The model, as the rollups name it.", nullable=False),
        _column(
            "service_tier",
            sa.Text(),
            "The service tier.",
            nullable=False,
            server_default=sa.text("'standard'"),
        ),
        _column(
            "above_input_tokens",
            sa.Integer(),
            "For calls with more input tokens than this.",
            autoincrement=False,
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "up_to_input_tokens",
            sa.Integer(),
            "For calls with at most this many input tokens; null: no limit.",
        ),
        _column(
            "valid_from",
            sa.Date(),
            "First day (UTC) of the price; 0001-01-01: no earlier one.",
            nullable=False,
        ),
        _column(
            "valid_until", sa.Date(), "First day on which it no longer applies; null: open-ended."
        ),
        _column("provider", sa.Text(), "The provider; null: unknown."),
        *_amounts("unknown"),
        _column(
            "source",
            sa.Text(),
            (
                "Where the price is from: config, set (orchestra-etl prices set), added (by "
                "this program, from the provider's page) or default (the package genai-prices)."
            ),
            nullable=False,
        ),
        sa.CheckConstraint("length(model) <= 500", name=op.f("prices_model_check")),
        sa.PrimaryKeyConstraint(
            "model", "service_tier", "above_input_tokens", "valid_from", name=op.f("prices_pkey")
        ),
        schema="orchestra",
        comment=(
            "Prices of every model seen, by service tier, length of the input and day. A "
            "model without a row has no known price."
        ),
    )
    op.create_table(
        "price_rules",
        _column(
            "model",
            _ID,
            "The models it is for: a name in which * stands for any characters.",
            nullable=False,
        ),
        _column(
            "service_tier",
            sa.Text(),
            "The service tier.",
            nullable=False,
            server_default=sa.text("'standard'"),
        ),
        _column(
            "above_input_tokens",
            sa.Integer(),
            "For calls with more input tokens than this.",
            autoincrement=False,
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "valid_from",
            sa.Date(),
            "First day (UTC) of the price; 0001-01-01: it has always applied.",
            nullable=False,
        ),
        _column("provider", sa.Text(), "The provider; null: that of the default prices."),
        *_amounts("not set by the rule"),
        _column(
            "set_at", _TIME, "When it was set.", nullable=False, server_default=sa.text("now()")
        ),
        sa.CheckConstraint("length(model) <= 500", name=op.f("price_rules_model_check")),
        sa.PrimaryKeyConstraint(
            "model",
            "service_tier",
            "above_input_tokens",
            "valid_from",
            name=op.f("price_rules_pkey"),
        ),
        schema="orchestra_etl",
        comment="Price rules set by command. Rules of the configuration take precedence.",
    )
    op.create_table(
        "resolved_prices",
        _column("id", sa.SmallInteger(), "Always 1.", autoincrement=False, nullable=False),
        _column(
            "fingerprint",
            sa.LargeBinary(),
            "Hash of the models, the rules and the version of the default prices.",
            nullable=False,
        ),
        _column(
            "resolved_at",
            _TIME,
            "When the prices were last resolved.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.CheckConstraint("id = 1", name=op.f("resolved_prices_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("resolved_prices_pkey")),
        schema="orchestra_etl",
        comment=(
            "The inputs from which orchestra.prices was last resolved. Unchanged inputs need no "
            "work."
        ),
    )


def _operations() -> None:
    """Create what the service needs to do its work."""
    op.create_table(
        "run_ledger",
        _column("run_id", _ID, "The run.", nullable=False),
        _column("workflow_id", _ID, "Its workflow; the run list is authoritative.", nullable=False),
        _column(
            "source",
            sa.Text(),
            "How the run was first found: list, config, track or request.",
            nullable=False,
        ),
        _column(
            "tracking",
            sa.Text(),
            "open, final, stale or gone; erased or pruned: a tombstone, never read again.",
            nullable=False,
            server_default=sa.text("'open'"),
        ),
        _column(
            "first_seen_at",
            _TIME,
            "When the run entered the ledger.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "opened_at",
            _TIME,
            "When it was last opened: ages count from here.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "listing", sa.LargeBinary(), "The run's row of the list, until a poll has loaded it."
        ),
        _column(
            "listing_hash",
            sa.LargeBinary(),
            "Hash of the row last seen, in the list or read alone.",
        ),
        _column(
            "start_time",
            _TIME,
            "When the run started, by the list; null if no list has shown it.",
        ),
        _column(
            "listed_at",
            _TIME,
            "Database time at which the page with this listing was requested.",
        ),
        _column(
            "listed_sweep",
            sa.BigInteger(),
            "The sweep that listed it; a member of the watermark once that is complete.",
        ),
        _column(
            "priority",
            sa.SmallInteger(),
            "0 live, 1 backfill.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "due_at",
            _TIME,
            "When to poll it next; null: not again.",
            server_default=sa.text("now()"),
        ),
        _column(
            "fencing_token",
            sa.BigInteger(),
            (
                "Raised by every claim and by every request for a newer read; a load with an "
                "older token is refused."
            ),
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "leased_until",
            _TIME,
            "End of the claim in force; null: not claimed, or the claim is consumed.",
        ),
        _column(
            "steps_observed_at",
            _TIME,
            "Database time at which the steps last loaded were requested.",
        ),
        _column(
            "run_observed_at",
            _TIME,
            "Database time at which the run's own row last loaded was requested.",
        ),
        _column("run_state", sa.Text(), "The run's state by the API's own row last loaded."),
        _column("run_end_time", _TIME, "The run's end by the API's own row last loaded."),
        _column(
            "read_digest",
            sa.LargeBinary(),
            "Digest of step ids, statuses and end times at the last read.",
        ),
        _column(
            "checks",
            sa.SmallInteger(),
            "Reads in a row that found the run finished and nothing new.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "attempts",
            sa.SmallInteger(),
            "Reads in a row that failed.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column("last_error", sa.Text(), "Why the last read failed, in one line."),
        _column("not_found_since", _TIME, "Since when the API returns 404 for the steps."),
        _column(
            "reopened_by",
            sa.Text(),
            "What last requested a newer read of the known run: list, config, track, reread,"
            " repair or states; null: nothing has.",
        ),
        _column(
            "removed_at",
            _TIME,
            "When the run was erased or pruned; nothing but its ids and times is kept then.",
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("run_ledger_pkey")),
        schema="orchestra_etl",
        comment="One row per known run: what is known about it, when it is due, and its claim.",
    )
    op.create_index(
        "run_ledger_due_idx",
        "run_ledger",
        ["priority", "due_at"],
        schema="orchestra_etl",
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "run_ledger_workflow_id_tracking_idx",
        "run_ledger",
        ["workflow_id", "tracking"],
        schema="orchestra_etl",
    )
    op.create_table(
        "sweeps",
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column(
            "fencing_token",
            sa.BigInteger(),
            "Number of the latest sweep.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column("leased_until", _TIME, "End of the running sweep's lease; null: none runs."),
        _column(
            "watermark",
            sa.BigInteger(),
            (
                "Number of the last complete sweep: every run that it or an earlier one listed "
                "is known."
            ),
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column("started_at", _TIME, "When the last sweep began."),
        _column("swept_at", _TIME, "When a sweep was last complete."),
        _column("reconciled_at", _TIME, "When the last complete walk of the whole list began."),
        _column("new_runs", sa.Integer(), "Runs that the last complete sweep found new."),
        _column(
            "listed_runs", sa.Integer(), "Rows of the run list at the last walk of the whole list."
        ),
        _column(
            "known_runs",
            sa.BigInteger(),
            (
                "Runs of the workflow known at that walk; more than listed_runs if the list has "
                "dropped runs."
            ),
        ),
        _column(
            "repaired_runs",
            sa.Integer(),
            (
                "Runs that the last walk of the whole list found missing from the tables and "
                "queued for a re-read."
            ),
        ),
        _column(
            "last_error", sa.Text(), "Why the last sweep failed, in one line; null: it did not."
        ),
        _column(
            "list_problem",
            sa.Text(),
            (
                "How the run list deviates from the API's description, by the last walk to its "
                "end; null: it does not."
            ),
        ),
        sa.PrimaryKeyConstraint("workflow_id", name=op.f("sweeps_pkey")),
        schema="orchestra_etl",
        comment="The state of each workflow's sweeps of the run list.",
    )
    op.create_table(
        "gaps",
        _column(
            "id", sa.BigInteger(), "Number of the gap.", sa.Identity(always=True), nullable=False
        ),
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column(
            "detected_at",
            _TIME,
            "When the gap was found.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column("after_time", _TIME, "Start of the newest run known before the gap."),
        _column("before_time", _TIME, "Start of the oldest run listed behind the gap."),
        _column("detail", sa.Text(), "What was seen.", nullable=False),
        _column("acknowledged_at", _TIME, "When a user acknowledged it."),
        sa.PrimaryKeyConstraint("id", name=op.f("gaps_pkey")),
        schema="orchestra_etl",
        comment="Periods in which runs may have appeared and disappeared without being listed.",
    )
    op.create_index("gaps_workflow_id_idx", "gaps", ["workflow_id"], schema="orchestra_etl")
    op.create_table(
        "dead_letters",
        _column(
            "id",
            sa.BigInteger(),
            "Number of the dead letter.",
            sa.Identity(always=True),
            nullable=False,
        ),
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column(
            "run_id",
            _ID,
            "The run; empty for a row of the run list without a usable id.",
            nullable=False,
        ),
        _column("step_id", _ID, "The step, if its id is known."),
        _column("reason", sa.Text(), "The reason code.", nullable=False),
        _column(
            "detail", sa.Text(), "One sentence for the operator, without payload.", nullable=False
        ),
        _column(
            "content_hash",
            sa.LargeBinary(),
            "Hash of the body; a keyed hash if the body is not kept.",
            nullable=False,
        ),
        _column(
            "body",
            sa.LargeBinary(),
            (
                "The bytes that could not be loaded; empty if redaction rules do not allow "
                "storing them."
            ),
            nullable=False,
        ),
        _column(
            "occurrences",
            sa.Integer(),
            "How often it was seen.",
            nullable=False,
            server_default=sa.text("1"),
        ),
        _column(
            "first_seen_at",
            _TIME,
            "When it was first set aside.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "last_seen_at",
            _TIME,
            "When it was last set aside.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "resolved_at", _TIME, "When a later read loaded the record, or a user discarded it."
        ),
        _column("resolution", sa.Text(), "loaded or discarded."),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
        sa.UniqueConstraint(
            "workflow_id",
            "run_id",
            "reason",
            "content_hash",
            name=op.f("dead_letters_workflow_id_run_id_reason_content_hash_key"),
        ),
        schema="orchestra_etl",
        comment="Records that could not be loaded, with their bytes.",
    )
    op.create_index(
        "dead_letters_run_id_idx",
        "dead_letters",
        ["run_id"],
        schema="orchestra_etl",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "drift",
        _column("workflow_id", _ID, "The workflow.", nullable=False),
        _column("subject", sa.Text(), "step, run or workflow.", nullable=False),
        _column("field", sa.Text(), "The field.", nullable=False),
        _column(
            "kind", sa.Text(), "unknown_field, wrong_type, unknown_status, ...", nullable=False
        ),
        _column("found", sa.Text(), "The type or status found.", nullable=False),
        _column(
            "occurrences", sa.BigInteger(), "In how many loaded steps or runs.", nullable=False
        ),
        _column(
            "first_seen_at",
            _TIME,
            "When it was first seen.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "last_seen_at",
            _TIME,
            "When it was last seen.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column("last_run_id", _ID, "A run that shows it.", nullable=False),
        sa.PrimaryKeyConstraint(
            "workflow_id", "subject", "field", "kind", "found", name=op.f("drift_pkey")
        ),
        schema="orchestra_etl",
        comment="Differences between the API's responses and its description.",
    )
    op.create_table(
        "request_budget",
        _column("id", sa.SmallInteger(), "Always 1.", autoincrement=False, nullable=False),
        _column("available", sa.Double(), "Requests that may start now.", nullable=False),
        _column(
            "refilled_at",
            _TIME,
            "When available was last brought up to date.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        _column(
            "not_before",
            _TIME,
            "No replica sends a request before this time: the server requested a pause.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("request_budget_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("request_budget_pkey")),
        schema="orchestra_etl",
        comment="The request budget that all replicas share.",
    )
    op.create_table(
        "workflow_refresh",
        _column("id", sa.SmallInteger(), "Always 1.", autoincrement=False, nullable=False),
        _column("refreshed_at", _TIME, "When GET /workflows was last read.", nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("workflow_refresh_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("workflow_refresh_pkey")),
        schema="orchestra_etl",
        comment="When the list of workflows was last read from the API.",
    )
    op.create_table(
        "state_map",
        _column(
            "status",
            sa.Text(),
            "A status in lower case, without spaces, hyphens and underscores.",
            nullable=False,
        ),
        _column(
            "state", sa.Text(), "The state it is mapped to by the configuration.", nullable=False
        ),
        sa.PrimaryKeyConstraint("status", name=op.f("state_map_pkey")),
        schema="orchestra_etl",
        comment="The configured mapping of statuses by which the stored states were written.",
    )
    op.create_table(
        "redaction_policies",
        _column(
            "version", sa.Text(), "The version, as in redaction_policy of the rows.", nullable=False
        ),
        _column(
            "rules", postgresql.JSONB(), "The rules in force, without any key.", nullable=False
        ),
        _column(
            "first_used_at",
            _TIME,
            "When it was first in force.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.PrimaryKeyConstraint("version", name=op.f("redaction_policies_pkey")),
        schema="orchestra_etl",
        comment="The redaction rules that stored rows were written under.",
    )
    op.create_table(
        "locks",
        _column("name", sa.Text(), "What is locked.", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("locks_pkey")),
        schema="orchestra_etl",
        comment=(
            "Rows that processes lock for work that only one process may do at a time. Only the "
            "loader may lock them."
        ),
    )
    op.create_table(
        "retention",
        _column("id", sa.SmallInteger(), "Always 1.", autoincrement=False, nullable=False),
        _column(
            "payload_horizon",
            _TIME,
            "Payloads of runs that ended before this time are pruned, and not stored again.",
        ),
        _column(
            "run_horizon", _TIME, "Runs that ended before this time are pruned, and not read again."
        ),
        _column(
            "updated_at",
            _TIME,
            "When a horizon last moved.",
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.CheckConstraint("id = 1", name=op.f("retention_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("retention_pkey")),
        schema="orchestra_etl",
        comment="How far back data is kept. Both horizons only move forward.",
    )
    op.create_table(
        "rebuilds",
        _column(
            "transform_version",
            sa.SmallInteger(),
            "Version of the rules by which columns are read from payloads.",
            autoincrement=False,
            nullable=False,
        ),
        _column(
            "after_step_id",
            _ID,
            "Steps up to this id, in the order of ids, are done; null: none yet.",
        ),
        _column(
            "steps",
            sa.BigInteger(),
            "Steps re-read so far.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column(
            "changed",
            sa.BigInteger(),
            "Steps that changed.",
            nullable=False,
            server_default=sa.text("0"),
        ),
        _column("started_at", _TIME, "When it started; null: not yet."),
        _column("finished_at", _TIME, "When all steps were done; null: not yet."),
        sa.PrimaryKeyConstraint("transform_version", name=op.f("rebuilds_pkey")),
        schema="orchestra_etl",
        comment="Progress of re-reading stored steps by newer rules (orchestra-etl rebuild).",
    )


def _bookkeeping() -> None:
    """Insert the rows of a new database."""
    # The column is in the revision's table, so that the same users may read both. Alembic inserts
    # the row after this function.
    op.add_column(
        "alembic_version",
        sa.Column(
            "oldest_program",
            _ID,
            nullable=False,
            server_default="0001",
            comment="Head revision of the oldest program that may use this schema.",
        ),
        schema="orchestra_etl",
    )
    op.execute("COMMENT ON TABLE orchestra_etl.alembic_version IS 'The revision of the schema.'")
    op.execute("COMMENT ON COLUMN orchestra_etl.alembic_version.version_num IS 'The revision.'")
    op.execute("INSERT INTO orchestra_etl.locks (name) VALUES ('rollups')")
    # The database is empty: no step needs a re-read.
    op.execute(
        "INSERT INTO orchestra_etl.rebuilds (transform_version, finished_at) VALUES (1, now())"
    )

"""One definition of an outcome; histograms of successes and of failures; tokens that are unknown are null; groups that cannot be
computed are set aside; what pruned runs count is kept beside what stored runs do; rollups are
written under the lock of a row that only the loader may lock; views count runs whose id another
workflow has; a run list's odd behaviour is kept.

Programs of before would count by the old definitions, so this revision leaves them behind: they are
not started any more, and what runs of them goes on loading and cannot write rollups.

What comes first commits statement by statement and may be repeated; the index is built
concurrently. All groups are computed anew afterwards, but for those that retention has frozen by
now: their runs are gone in part.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_TIME = sa.DateTime(timezone=True)

_ERROR_INDEX = "steps_error_idx ON orchestra.steps (run_id) WHERE error IS NOT NULL OR reported_error IS NOT NULL"
_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "total_tokens",
)
_ROLLUPS = ("step_rollup", "step_rollup_daily", "run_rollup")
_SOFT = {
    "step": "Steps whose status is a success and that carry an error (see outcome).",
    "run": "Runs whose status is a success and that carry an error themselves, or have a step that does (see outcome).",
}
_PLACE = "Number of the row within its workflow and hour; below 0: what runs count that are pruned."
_COMMENTS = {
    "orchestra.step_rollup.place": _PLACE,
    "orchestra.run_rollup.place": _PLACE,
    **{
        f"orchestra.{table}.{name}": f"{what} of the calls that tell them; null where there are calls and none does."
        for table in ("step_rollup", "step_rollup_daily")
        for name, what in (
            ("input_tokens", "Prompt tokens"),
            ("output_tokens", "Completion tokens"),
            ("cached_input_tokens", "Prompt tokens served from a cache, part of input_tokens,"),
            ("reasoning_tokens", "Reasoning tokens, part of output_tokens,"),
            ("total_tokens", "Total tokens"),
        )
    },
    **{f"orchestra.{table}.soft_failed": _SOFT[table.partition("_")[0]] for table in _ROLLUPS},
    "orchestra.steps.reported_error": "What the step's payload reports as an error;"
    " where its status is a success, it is a soft failure.",
    "orchestra.steps.total_tokens": "Total tokens the model reports; the sum of input and output where it does not.",
}
_TABLES = {
    "step_rollup": "Steps by hour, workflow, organisation, node and model: outcomes, tokens and histograms of durations.",
    "run_rollup": "Runs by hour, workflow and organisation: outcomes and histograms of durations.",
}
_UNTOTALLED = "Calls that total_tokens does not hold: they do not say how many tokens they took."
_SINCE = "When it was queued."
_FAILED_AT = "When its computation last failed: it is tried again a while later; null: it has not been tried."
_CAUSE = "SQLSTATE of that failure."
_FROZEN = "Hours before are not computed anew: their runs were pruned when what they count was not yet kept by itself."
_PROBLEM = "How the run list behaves otherwise than the API says, as the last walk to its end found; null: as it says."
_LOCKS = "Rows to be locked, each for one kind of work that only one process may do at a time; only the loader may lock them."
# In the order in which they build on each other.
_FUNCTIONS_AND_VIEWS = (
    "outcome_v3",
    "failure_pattern_v1",
    "call_cost_v3",
    "duration_v2",
    "duration_histogram_v2",
    "workflow_hourly_v3",
    "node_hourly_v3",
    "node_daily_v3",
    "model_usage_v3",
    "run_summary_v4",
    "step_timeline_v3",
    "open_runs_v3",
)


def _run(name: str) -> None:
    # Not by Alembic's own execute, which takes a colon for a parameter; the driver, a percent sign.
    op.get_bind().exec_driver_sql((_SQL / f"{name}.sql").read_text().replace("%", "%%"))


def _histograms(table: str) -> None:
    one = "runs" if table == "run_rollup" else "steps"
    for name, kind, comment in (
        (
            "failed_buckets",
            sa.SmallInteger(),
            f"As buckets, of the {one} that failed or failed softly.",
        ),
        (
            "failed_counts",
            sa.Integer(),
            "How many of these durations each of failed_buckets holds.",
        ),
    ):
        op.add_column(
            table,
            sa.Column(
                name, postgresql.ARRAY(kind), nullable=False, server_default="{}", comment=comment
            ),
            schema="orchestra",
            if_not_exists=True,
        )
        # The rows of before have none. Who does not name it must not write rows.
        op.execute(f"ALTER TABLE orchestra.{table} ALTER COLUMN {name} DROP DEFAULT")
    durations = "without those whose times do not tell a duration"
    op.execute(
        f"COMMENT ON COLUMN orchestra.{table}.buckets IS"
        f" 'Buckets of the durations of the {one} that succeeded (see duration_bucket), rising; {durations}.'"
    )
    op.execute(
        f"COMMENT ON COLUMN orchestra.{table}.counts IS 'How many of these durations each of these buckets holds.'"
    )


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A concurrent build waits for every transaction that is older, and holds nobody up while it
        # does.
        op.execute("SET lock_timeout = '10min'")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS orchestra.steps_error_idx")
        op.execute(f"CREATE INDEX CONCURRENTLY {_ERROR_INDEX}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS orchestra.steps_reported_error_idx")
        op.execute("SET lock_timeout = '2s'")
        for table in _ROLLUPS:
            _histograms(table)
        for table in ("step_rollup", "step_rollup_daily"):
            op.add_column(
                table,
                sa.Column(
                    "untotalled_calls",
                    sa.BigInteger(),
                    nullable=False,
                    server_default="0",
                    comment=_UNTOTALLED,
                ),
                schema="orchestra",
                if_not_exists=True,
            )
            for name in _TOKENS:
                op.execute(f"ALTER TABLE orchestra.{table} ALTER COLUMN {name} DROP NOT NULL")
        for name, kind, comment, default in (
            ("since", _TIME, _SINCE, sa.text("now()")),
            ("failed_at", _TIME, _FAILED_AT, None),
            ("cause", sa.Text(), _CAUSE, None),
        ):
            op.add_column(
                "changed_groups",
                sa.Column(
                    name, kind, nullable=default is None, server_default=default, comment=comment
                ),
                schema="orchestra_etl",
                if_not_exists=True,
            )
        op.add_column(
            "retention",
            sa.Column("frozen_until", _TIME, comment=_FROZEN),
            schema="orchestra_etl",
            if_not_exists=True,
        )
        for column, comment in _COMMENTS.items():
            quoted = comment.replace("'", "''")
            op.execute(f"COMMENT ON COLUMN {column} IS '{quoted}'")
        for table, comment in _TABLES.items():
            op.execute(f"COMMENT ON TABLE orchestra.{table} IS '{comment}'")
        for file in _FUNCTIONS_AND_VIEWS:
            _run(file)
    # What the triggers need, in the order in which a load takes its own: else the two deadlock.
    op.execute("LOCK TABLE orchestra.runs, orchestra.steps IN SHARE ROW EXCLUSIVE MODE")
    _run("changed_groups_v2")
    op.execute("DROP FUNCTION IF EXISTS orchestra.outcome(text, text)")
    op.add_column(
        "sweeps", sa.Column("list_problem", sa.Text(), comment=_PROBLEM), schema="orchestra_etl"
    )
    op.create_table(
        "locks",
        sa.Column("name", sa.Text(), nullable=False, comment="What is locked."),
        sa.PrimaryKeyConstraint("name", name=op.f("locks_pkey")),
        schema="orchestra_etl",
        comment=_LOCKS,
    )
    op.execute("INSERT INTO orchestra_etl.locks (name) VALUES ('rollups')")
    for name in ("coverage_v3", "pipeline_health_v3"):
        _run(name)
    op.execute(
        "UPDATE orchestra_etl.retention SET frozen_until = run_horizon WHERE frozen_until IS NULL"
    )
    op.execute("UPDATE orchestra_etl.alembic_version SET oldest_program = '0010'")
    op.execute("INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES (NULL, NULL)")


def downgrade() -> None:
    raise NotImplementedError(
        "restore a backup: what is counted since is not what programs of before count"
    )

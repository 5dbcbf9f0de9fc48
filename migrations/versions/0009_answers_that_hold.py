"""Steps without a start count where their run does; failures keep the words that tell them apart; calls of which nobody knows
what they cost are told; several percentiles share the merging; what was removed or has changed can
be asked for.

Programs of before go on, but compute no rollups any more: they would enter such steps under the
hour in which they were loaded, and undo what newer programs do. Their queue stays, and stays empty;
the triggers fill another one.

What comes first commits statement by statement and may be repeated, so that nobody waits for one
lock behind another; the indexes are built concurrently. In the transaction at the end, writers of
`runs` and `steps` wait only for as long as the triggers take to be made. All groups are computed
anew afterwards.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_ID = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)

_CHANGED = "USING brin (updated_at) WITH (pages_per_range = 32, autosummarize = on)"
_INDEXES = {
    "steps_not_started_idx": "steps (run_id) WHERE start_time IS NULL",
    # For whoever copies what has changed: a few pages for millions of rows, and, since PostgreSQL
    # 16, rows are still updated in their place.
    "steps_updated_at_idx": f"steps {_CHANGED}",
    "runs_updated_at_idx": f"runs {_CHANGED}",
}
_QUEUE = "A queue: the groups of the rollups whose runs or steps have changed since they were last computed."
_OLD_QUEUE = "Always empty: for programs of before 0009, which count steps without a start elsewhere and should compute nothing."
_GROUP_HOUR = "The hour of the runs or steps that changed; null: as workflow_id."
_UNMETERED = (
    "Calls that did not say how many tokens they took, so that no price tells what they cost."
)
_KNOWN = "Runs that were known of the workflow by then: more than that, where the list lets go."
_CALLS = "Calls of a model (see is_call)."
_COMMENTS = {
    "orchestra.step_rollup.hour": "The hour (UTC) in which the steps started; of those not started, the hour of their run.",
    "orchestra.step_rollup.calls": _CALLS,
    "orchestra.step_rollup_daily.calls": _CALLS,
    "orchestra.step_failures.time": "When it started; when its run did, or was first seen, if it has no start.",
    "orchestra_etl.dirty_groups.hour": _GROUP_HOUR,
}
# In the order in which they build on each other.
_FUNCTIONS_AND_VIEWS = (
    "outcome_v2",
    "call_cost_v2",
    "duration_histogram_v1",
    "count_distinct_v1",
    "workflow_hourly_v2",
    "node_hourly_v2",
    "node_daily_v2",
    "model_usage_v2",
    "run_summary_v3",
    "step_timeline_v2",
    "failures_v2",
    "open_runs_v2",
    "pipeline_health_v2",
    "coverage_v2",
    "removed_runs_v1",
)


def _run(name: str) -> None:
    # Not by Alembic's own execute, which takes a colon for a parameter; the driver, a percent sign.
    op.get_bind().exec_driver_sql((_SQL / f"{name}.sql").read_text().replace("%", "%%"))


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # A concurrent build waits for every transaction that is older, and holds nobody up while it
        # does.
        op.execute("SET lock_timeout = '10min'")
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS orchestra.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON orchestra.{definition}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS orchestra.steps_unstarted_idx")
        op.execute("SET lock_timeout = '2s'")
        op.create_table(
            "changed_groups",
            sa.Column(
                "id",
                sa.BigInteger(),
                sa.Identity(always=True),
                nullable=False,
                comment="Order of arrival.",
            ),
            sa.Column(
                "workflow_id",
                _ID,
                comment="The workflow; null: every group there is must be computed.",
            ),
            sa.Column("hour", _TIME, comment=_GROUP_HOUR),
            sa.PrimaryKeyConstraint("id", name=op.f("changed_groups_pkey")),
            schema="orchestra_etl",
            comment=_QUEUE,
            if_not_exists=True,
        )
        # All of it is dead before long.
        op.execute("""
            ALTER TABLE orchestra_etl.changed_groups
            SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
        """)
        for table in ("step_rollup", "step_rollup_daily"):
            op.add_column(
                table,
                sa.Column(
                    "unmetered_calls",
                    sa.BigInteger(),
                    nullable=False,
                    server_default="0",
                    comment=_UNMETERED,
                ),
                schema="orchestra",
                if_not_exists=True,
            )
        op.add_column(
            "sweeps",
            sa.Column("known_runs", sa.BigInteger(), comment=_KNOWN),
            schema="orchestra_etl",
            if_not_exists=True,
        )
        for column, comment in _COMMENTS.items():
            op.execute(f"COMMENT ON COLUMN {column} IS '{comment}'")
        op.execute(f"COMMENT ON TABLE orchestra_etl.dirty_groups IS '{_OLD_QUEUE}'")
        for file in _FUNCTIONS_AND_VIEWS:
            _run(file)
    # What the triggers need, in the order in which a load takes its own: else the two deadlock.
    op.execute("LOCK TABLE orchestra.runs, orchestra.steps IN SHARE ROW EXCLUSIVE MODE")
    _run("changed_groups_v1")
    _run("dirty_groups_v2")
    # Whoever wrote a group there has committed, or waits for the lock, and will meet the new
    # triggers.
    op.execute("DELETE FROM orchestra_etl.dirty_groups")
    op.execute("INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES (NULL, NULL)")


def downgrade() -> None:
    raise NotImplementedError(
        "restore a backup: what is counted since is not what programs of before count"
    )

"""The views that dashboards and analysts ask, and the indexes that keep their answers below a second.

The indexes are built concurrently: writers of `runs` and `steps` go on. Everything else is instant.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_INDEXES = {
    "runs_start_time_idx": "runs (start_time)",
    "runs_unfinished_idx": "runs (workflow_id) WHERE state IN ('pending', 'running', 'unknown')",
    "steps_reported_error_idx": "steps (run_id) WHERE reported_error IS NOT NULL",
}
# In the order in which they build on each other.
_VIEWS = (
    "workflow_hourly",
    "node_hourly",
    "node_daily",
    "model_usage",
    "run_summary",
    "step_timeline",
    "failures",
    "failure_groups",
    "open_runs",
    "pipeline_health",
)


def _run(name: str) -> None:
    # Not by Alembic's own execute, which takes a colon for a parameter; the driver, a percent sign.
    op.get_bind().exec_driver_sql((_SQL / f"{name}.sql").read_text().replace("%", "%%"))


def upgrade() -> None:
    # First of all, since it commits on its way: an upgrade cut off here is begun again, with what
    # it left behind dropped.
    with op.get_context().autocommit_block():
        # A concurrent build waits for every transaction that is older, and holds nobody up while it
        # does.
        op.execute("SET lock_timeout = '10min'")
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS orchestra.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON orchestra.{definition}")
        op.execute("SET lock_timeout = '2s'")
    _run("call_cost_v1")
    for view in _VIEWS:
        _run(f"{view}_v1")


def downgrade() -> None:
    for view in reversed(_VIEWS):
        op.execute(f"DROP VIEW orchestra.{view}")
    op.execute("DROP FUNCTION orchestra.call_cost")
    for name in reversed(_INDEXES):
        op.execute(f"DROP INDEX orchestra.{name}")

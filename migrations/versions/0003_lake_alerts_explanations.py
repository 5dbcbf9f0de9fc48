"""The time at which a run was last read, in the views of runs.

Also the export to a lake, alerts on runs, and the explanation of differences.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"

# Each after those it uses.
_SQL_FILES = (
    "open_runs_v2",
    "run_summary_v2",
    "step_timeline_v2",
    "content_shapes_v2",
    "model_call_text_v2",
    "search_v2",
    "explained_periods_v1",
    "explain_cost_v1",
    "explain_duration_v1",
    "explain_failures_v1",
)


def upgrade() -> None:
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
    _newer_rules()


def _newer_rules() -> None:
    """Make a rebuild due: the usage of streams that are kept as a text is read."""
    op.execute(
        "INSERT INTO orchestra_etl.rebuilds (transform_version, finished_at)"
        " SELECT 2, CASE WHEN NOT EXISTS (SELECT FROM orchestra.steps) THEN now() END"
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")

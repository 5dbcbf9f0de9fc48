"""The search for a phrase in payloads and errors. Its indexes are built by `db index-search`."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_INDEXED = ("inputs", "outputs", "run_payloads", "steps", "runs")


def upgrade() -> None:
    # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
    statements = (_SQL / "search_v1.sql").read_text()
    op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    for table in _INDEXED:
        op.execute(f"DROP INDEX IF EXISTS orchestra.{table}_search_idx")
    op.execute(
        "DROP FUNCTION orchestra.search, orchestra.search_is_indexed, orchestra.search_pattern,"
        " orchestra.search_snippet, orchestra.search_error, orchestra.search_prompt,"
        " orchestra.search_output, orchestra.search_text, orchestra.search_key,"
        " orchestra.search_fold"
    )

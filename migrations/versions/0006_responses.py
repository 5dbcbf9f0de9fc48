"""The rollups count responses, and those that were cut off; costs that are computed faster."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"

# Each is committed by itself, and can be repeated. The index is built beside the refreshes and the
# readers of the table: all rows are in it at first. A build that was interrupted leaves an invalid
# index. Nothing is queued: a refresh by a program of this revision finds the rows by the index.
_STATEMENTS = (
    """
    ALTER TABLE orchestra.step_rollup ADD COLUMN IF NOT EXISTS responses bigint,
        ADD COLUMN IF NOT EXISTS cut_off_responses bigint
    """,
    "SET lock_timeout = '10min'",
    "DROP INDEX CONCURRENTLY IF EXISTS orchestra.step_rollup_uncounted_idx",
    """
    CREATE INDEX CONCURRENTLY step_rollup_uncounted_idx ON orchestra.step_rollup (hour, workflow_id)
        WHERE calls > 0 AND responses IS NULL AND ordinal > 0
    """,
    "SET lock_timeout = '2s'",
)
_COMMENTS = {
    "COLUMN orchestra.step_rollup.responses": (
        "Calls that say why the model stopped (see finish_reason); null: there are no calls, or "
        "it is not known of all of them: this row was computed before revision 0006, or by an "
        "earlier program."
    ),
    "COLUMN orchestra.step_rollup.cut_off_responses": (
        "Responses that ended because the model ran out of tokens (see is_cut_off); null like "
        "responses."
    ),
    "TABLE orchestra.step_rollup_daily": (
        "step_rollup by day: the same figures except the responses, for queries over weeks and "
        "months."
    ),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for statement in _STATEMENTS:
            op.execute(statement)
    for name, comment in _COMMENTS.items():
        op.execute(f"COMMENT ON {name} IS '{comment}'")
    # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
    statements = (_SQL / "call_cost_v3.sql").read_text()
    op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")

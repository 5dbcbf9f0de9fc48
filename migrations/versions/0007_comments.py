"""Comments on tables, views and functions that read more easily."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
    statements = (_SQL / "comments_v1.sql").read_text()
    op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")

"""Exact windows of alerts, and loads that cost PostgreSQL less."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"

# Each after those it uses.
_SQL_FILES: tuple[str, ...] = ("search_v3",)


def upgrade() -> None:
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")

"""Rollups are written under the lock of a row that only the loader may lock; views count runs whose id another workflow has.

Programs of before go on with their advisory lock. A refresh of theirs beside one of a newer program cannot compute the same group
twice, because both take it from the queue; at worst one of them fails on a day that both add up, and is repeated.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_LOCKS = "Rows to be locked, each for one kind of work that only one process may do at a time; only the loader may lock them."


def upgrade() -> None:
    op.create_table(
        "locks",
        sa.Column("name", sa.Text(), nullable=False, comment="What is locked."),
        sa.PrimaryKeyConstraint("name", name=op.f("locks_pkey")),
        schema="orchestra_etl",
        comment=_LOCKS,
    )
    op.execute("INSERT INTO orchestra_etl.locks (name) VALUES ('rollups')")
    for name in ("coverage_v3", "pipeline_health_v3"):
        # Not by Alembic's own execute, which takes a colon for a parameter; the driver, a percent sign.
        op.get_bind().exec_driver_sql((_SQL / f"{name}.sql").read_text().replace("%", "%%"))


def downgrade() -> None:
    # A view cannot lose a column while others may depend on it.
    for name in ("coverage", "pipeline_health"):
        op.execute(f"DROP VIEW orchestra.{name}")
        op.get_bind().exec_driver_sql((_SQL / f"{name}_v2.sql").read_text().replace("%", "%%"))
    op.drop_table("locks", schema="orchestra_etl")

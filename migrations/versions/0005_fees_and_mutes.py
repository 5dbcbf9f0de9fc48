"""A fee for each call that used anything, mutes after a clock that was set back, finish reasons."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"


def upgrade() -> None:
    _mutes()
    # Costs are computed when they are read, so none is stored. `op.execute` would read a colon as a
    # parameter. The driver reads a percent sign as one.
    for name in ("call_cost_v2", "calls_v2"):
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))


def _mutes() -> None:
    """Record when a rule was muted. Rules that are muted already count as muted now."""
    op.add_column(
        "alert_mutes",
        sa.Column(
            "muted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the rule was muted, or the mute was last repaired.",
        ),
        schema="orchestra_etl",
    )


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")

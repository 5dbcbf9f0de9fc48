"""How a run list behaves otherwise than the API says is kept with the state of its sweeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_PROBLEM = "How the run list behaves otherwise than the API says, as the last walk to its end found; null: as it says."


def upgrade() -> None:
    op.add_column("sweeps", sa.Column("list_problem", sa.Text(), comment=_PROBLEM), schema="orchestra_etl")


def downgrade() -> None:
    op.drop_column("sweeps", "list_problem", schema="orchestra_etl")

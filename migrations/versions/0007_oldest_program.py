"""The schema says which programs may use it, so that two versions can be at work while one takes over from the other.

Instant. Programs of before ask for their own revision and nothing else: what stands here is read
from 0007 on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # In the table that tells the revision: both are read at once, and whoever may read one may read
    # the other.
    op.add_column(
        "alembic_version",
        sa.Column(
            "oldest_program",
            sa.Text(collation="C"),
            comment="Newest revision that the oldest program which may use this schema brings.",
        ),
        schema="orchestra_etl",
    )
    op.execute("UPDATE orchestra_etl.alembic_version SET oldest_program = '0007'")


def downgrade() -> None:
    op.drop_column("alembic_version", "oldest_program", schema="orchestra_etl")

"""A hash of each run's content, so that an unchanged run is not even sent; instant.

It stays null until a run is read again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            comment="Hash of the run as it was written; equal hashes need no write.",
        ),
        schema="orchestra",
    )


def downgrade() -> None:
    op.drop_column("runs", "content_hash", schema="orchestra")

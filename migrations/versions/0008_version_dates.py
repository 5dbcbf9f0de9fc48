"""Since when a workflow has been in the version in which it is first seen: by the API's own date of its last change.

Everything is instant. An older program goes on: it adds versions without a date, which the next
look of a newer one gives them.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_APPEND_ONLY = "Versions of workflows in the order they were observed; append-only."
_DATED = "Versions of workflows in the order they were observed; append-only, but for an updated_at that becomes known later."


def _run(text: str) -> None:
    # Not by Alembic's own execute, which takes a colon for a parameter; the driver, a percent sign.
    op.get_bind().exec_driver_sql(text.replace("%", "%%"))


def upgrade() -> None:
    # In a transaction of its own: who reads the view locks the view first and then the table, and
    # would meet an upgrade that holds the table and waits for the view. An upgrade cut off in
    # between is begun again.
    with op.get_context().autocommit_block():
        op.add_column(
            "workflow_versions",
            sa.Column(
                "updated_at",
                sa.DateTime(timezone=True),
                comment="When the workflow had last been changed as this version was first seen, by the API: the version has "
                "been in force since then at the latest. Null where the API does not say.",
            ),
            schema="orchestra",
            if_not_exists=True,
        )
        op.create_table_comment(
            "workflow_versions", _DATED, existing_comment=_APPEND_ONLY, schema="orchestra"
        )
    _run((_SQL / "run_summary_v2.sql").read_text())


def downgrade() -> None:
    # Replaced, not dropped: whoever may read the view still may.
    first = (_SQL / "run_summary_v1.sql").read_text()
    _run(first.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
    op.create_table_comment(
        "workflow_versions", _APPEND_ONLY, existing_comment=_DATED, schema="orchestra"
    )
    op.drop_column("workflow_versions", "updated_at", schema="orchestra")

"""Redaction policies, retention, tombstones, and the view `coverage`.

Every statement is instant: columns are added without a default. Locks are taken in the order in
which the service takes them (sweeps, ledger, runs, steps, dead letters), so that an upgrade beside
it does not deadlock.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"
_LETTERS = {
    "body": (
        "The bytes that could not be loaded.",
        "The bytes that could not be loaded; empty where redaction rules forbid to keep them.",
    ),
    "content_hash": (
        "Hash of the body.",
        "Hash of the body; a keyed one where the body is not kept.",
    ),
}
_TRACKING = (
    "open, final, stale or gone.",
    "open, final, stale or gone; erased or pruned: a tombstone, never read again.",
)


def upgrade() -> None:
    op.add_column(
        "sweeps",
        sa.Column(
            "repaired_runs",
            sa.Integer(),
            comment="Runs that the last walk of the whole list found read but missing from the tables, and had read again.",
        ),
        schema="orchestra_etl",
    )
    op.add_column(
        "run_ledger",
        sa.Column(
            "removed_at",
            sa.DateTime(timezone=True),
            comment="When the run was erased or pruned; nothing but its ids and times is kept then.",
        ),
        schema="orchestra_etl",
    )
    _comment("run_ledger", "tracking", sa.Text(), *_TRACKING)
    op.add_column(
        "runs",
        sa.Column(
            "redaction_policy",
            sa.Text(),
            comment="Version of the redaction rules this row was written under; null: there were none.",
        ),
        schema="orchestra",
    )
    op.add_column(
        "steps",
        sa.Column(
            "redaction_policy",
            sa.Text(),
            comment="Version of the redaction rules this row and its payloads were written under; null: there were none.",
        ),
        schema="orchestra",
    )
    for column, comments in _LETTERS.items():
        _comment("dead_letters", column, sa.LargeBinary(), *comments)
    op.create_table(
        "redaction_policies",
        sa.Column("version", sa.Text(), nullable=False, comment="The version, as rows carry it."),
        sa.Column(
            "rules",
            postgresql.JSONB(),
            nullable=False,
            comment="The rules in force, without any key.",
        ),
        sa.Column(
            "first_used_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was first in force.",
        ),
        sa.PrimaryKeyConstraint("version", name=op.f("redaction_policies_pkey")),
        schema="orchestra_etl",
        comment="The redaction rules that stored rows were written under.",
    )
    op.create_table(
        "retention",
        sa.Column(
            "id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Always 1."
        ),
        sa.Column(
            "payload_horizon",
            sa.DateTime(timezone=True),
            comment="Payloads of runs that ended before are pruned, and not stored again.",
        ),
        sa.Column(
            "run_horizon",
            sa.DateTime(timezone=True),
            comment="Runs that ended before are pruned, and not read again.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When a horizon last moved.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("retention_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("retention_pkey")),
        schema="orchestra_etl",
        comment="How far back is kept; both horizons only move forward.",
    )
    op.execute((_SQL / "coverage_v1.sql").read_text())


def downgrade() -> None:
    op.execute("DROP VIEW orchestra.coverage")
    op.drop_table("retention", schema="orchestra_etl")
    op.drop_table("redaction_policies", schema="orchestra_etl")
    for column, (before, after) in _LETTERS.items():
        _comment("dead_letters", column, sa.LargeBinary(), after, before)
    op.drop_column("steps", "redaction_policy", schema="orchestra")
    op.drop_column("runs", "redaction_policy", schema="orchestra")
    _comment("run_ledger", "tracking", sa.Text(), *reversed(_TRACKING))
    op.drop_column("run_ledger", "removed_at", schema="orchestra_etl")
    op.drop_column("sweeps", "repaired_runs", schema="orchestra_etl")


def _comment(
    table: str,
    column: str,
    kind: sa.types.TypeEngine[str] | sa.types.TypeEngine[bytes],
    was: str,
    is_now: str,
) -> None:
    op.alter_column(
        table,
        column,
        existing_type=kind,
        existing_nullable=False,
        existing_comment=was,
        comment=is_now,
        schema="orchestra_etl",
    )

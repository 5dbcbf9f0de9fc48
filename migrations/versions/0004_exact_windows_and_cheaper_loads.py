"""Exact windows of alerts, and loads that cost PostgreSQL less."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "sql"

# Each after those it uses.
_SQL_FILES: tuple[str, ...] = (
    "complete_sweeps_v1",
    "coverage_v2",
    "changed_days_v2",
    "explained_periods_v2",
    "explain_cost_v2",
    "search_v3",
)


def upgrade() -> None:
    _complete_sweeps()
    for name in _SQL_FILES:
        # `op.execute` would read a colon as a parameter. The driver reads a percent sign as one.
        statements = (_SQL / f"{name}.sql").read_text()
        op.get_bind().exec_driver_sql(statements.replace("%", "%%"))
    _lake_queue()
    _lake_garbage()
    _alert_definitions()
    _compress_faster()


def _lake_queue() -> None:
    """Record when a day was queued. The days that wait already count from now on."""
    op.add_column(
        "changed_days",
        sa.Column(
            "queued_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the transaction began.",
        ),
        schema="orchestra_etl",
    )


def _lake_garbage() -> None:
    op.add_column(
        "export_state",
        sa.Column(
            "collected_at",
            sa.DateTime(timezone=True),
            comment="When files that the lake no longer needs were last searched for; null: never.",
        ),
        schema="orchestra_etl",
    )


def _alert_definitions() -> None:
    """Record which definitions of the rules were evaluated, for replicas with other settings."""
    op.add_column(
        "alert_evaluation",
        sa.Column(
            "definitions",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="The hash of each definition of a rule that was evaluated in the last 15 "
            "minutes, by rule, and when, in seconds since 1970; up to five minutes too early.",
        ),
        schema="orchestra_etl",
    )


def _complete_sweeps() -> None:
    op.add_column(
        "sweeps",
        sa.Column(
            "complete_until",
            sa.DateTime(timezone=True),
            comment="When the last complete sweep began; null: none has completed since this "
            "column exists.",
        ),
        schema="orchestra_etl",
    )


# pglz takes a seventh of PostgreSQL's CPU time in a load of payloads of 2 KB, and four tenths with
# 55 KB. A server with lz4 uses it for the payloads written from now on; stored ones stay as they
# are. The order is that of the writers' locks.
_PAYLOADS = {
    "run_payloads": ("inputs", "outputs", "inputs_raw", "outputs_raw"),
    "inputs": ("data", "raw"),
    "outputs": ("data", "raw"),
}


def _compress_faster() -> None:
    known = (
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    )
    if not op.get_bind().exec_driver_sql(known).scalar():
        return
    for table, columns in _PAYLOADS.items():
        changes = ", ".join(f"ALTER COLUMN {name} SET COMPRESSION lz4" for name in columns)
        op.execute(f"ALTER TABLE orchestra.{table} {changes}")


def downgrade() -> None:
    raise NotImplementedError("restore a backup from before the upgrade instead")

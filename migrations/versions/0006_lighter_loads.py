"""What makes loads and refreshes lighter: a hash of each run's content, room in the ledger's pages, vacuums before a table has
swollen, and an index of what has not started.

The indexes are built concurrently: writers go on. Everything else is instant: the hash stays null
until a run is read again, and room is left in pages that are written from now on.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A large table would otherwise wait until a fifth of it is dead, or new: that is two million steps
# of ten.
_EARLY = {
    "autovacuum_vacuum_scale_factor": "0.02",
    "autovacuum_vacuum_insert_scale_factor": "0.02",
    "autovacuum_analyze_scale_factor": "0.02",
}
_STORAGE: Mapping[str, Mapping[str, str]] = {
    "orchestra.runs": _EARLY,
    "orchestra.steps": _EARLY,
    "orchestra.inputs": _EARLY,
    "orchestra.outputs": _EARLY,
    "orchestra.step_rollup": _EARLY,
    # A claim changes no indexed column: with room in its page it touches no index. An unchanged
    # poll then writes 70 bytes a step to the log in place of 110.
    "orchestra_etl.run_ledger": {"fillfactor": "70", **_EARLY},
    # A queue: all of it is dead before long.
    "orchestra_etl.dirty_groups": {
        "autovacuum_vacuum_scale_factor": "0",
        "autovacuum_vacuum_threshold": "1000",
    },
}

# What has no start counts in the hour in which it was first seen: skipped steps, mostly. Without an
# index of their own, each hour's refresh goes through all of them.
_INDEXES = {
    "runs_unstarted_idx": "runs (workflow_id, first_seen_at) WHERE start_time IS NULL",
    "steps_unstarted_idx": "steps (workflow_id, first_seen_at) WHERE start_time IS NULL",
}


def upgrade() -> None:
    # First of all, since it commits on its way: an upgrade cut off here is begun again, with what
    # it left behind dropped.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '10min'")
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS orchestra.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON orchestra.{definition}")
        op.execute("SET lock_timeout = '2s'")
    op.add_column(
        "runs",
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            comment="Hash of the run as it was written; equal hashes need no write.",
        ),
        schema="orchestra",
    )
    for table, parameters in _STORAGE.items():
        listed = ", ".join(f"{name} = {value}" for name, value in parameters.items())
        op.execute(f"ALTER TABLE {table} SET ({listed})")


def downgrade() -> None:
    for table, parameters in _STORAGE.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(parameters)})")
    op.drop_column("runs", "content_hash", schema="orchestra")
    for name in _INDEXES:
        op.execute(f"DROP INDEX orchestra.{name}")

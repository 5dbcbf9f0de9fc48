"""How far the lake is behind the history."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, text


class LakeProgress(msgspec.Struct, frozen=True):
    """What waits for an export to the lake."""

    namespace: str
    exported_at: datetime | None
    """When the last complete export ended; None: none has."""
    waiting: int
    """The days that wait."""
    waiting_since: datetime | None
    """When the first of them was queued; None: none waits, or the schema does not record it yet."""


_EXISTS = text("SELECT to_regclass('orchestra_etl.changed_days') IS NOT NULL")

# Revision 0003 has no column `queued_at`.
_READ = text("""
    SELECT s.namespace, s.exported_at, count(DISTINCT q.day) AS waiting,
           min(CAST(to_jsonb(q) ->> 'queued_at' AS timestamptz)) AS waiting_since
    FROM orchestra_etl.export_state AS s LEFT JOIN orchestra_etl.changed_days AS q ON true
    GROUP BY s.namespace, s.exported_at
""")


def read_lake(connection: Connection) -> LakeProgress | None:
    """Return how far the lake is behind; None if the history is not exported."""
    if not connection.execute(_EXISTS).scalar_one():
        return None
    row = connection.execute(_READ).one_or_none()
    return None if row is None else LakeProgress(**row._mapping)

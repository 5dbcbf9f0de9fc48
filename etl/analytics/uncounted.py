"""The groups whose responses are not counted yet.

Revision 0006 gives `step_rollup` two columns: `responses` and `cut_off_responses`. They are null in
every row that was written before it. An earlier program that still runs beside it leaves them null
in the rows that it writes, because it recomputes groups as a whole and does not know the columns.

The rows themselves are the queue: a refresh computes these groups after those that have changed. If
they were queued by the revision, an earlier program could take them from the queue, and they would
stay null.

The counts of pruned runs (rows with an `ordinal` below 0) stay null if they were kept before, or by
an earlier program: their steps no longer exist.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from etl.analytics.changed_groups import Group
from etl.tables.rollups import UNCOUNTED

# Before revision 0006, this program counts no responses.
_EXIST = text("""
    SELECT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('orchestra.step_rollup') AND attname = 'cut_off_responses')
""")

# Groups in the queue are left to it: it knows which cannot be computed.
_GROUPS = f"""
    SELECT DISTINCT hour, workflow_id
    FROM orchestra.step_rollup AS r
    WHERE {UNCOUNTED} AND NOT EXISTS (
        SELECT FROM orchestra_etl.changed_groups AS q
        WHERE q.workflow_id = r.workflow_id AND q.hour = r.hour)
"""
_TAKE = text(f"{_GROUPS} ORDER BY hour DESC, workflow_id DESC LIMIT :limit")
_COUNT = text(f"SELECT count(*) FROM ({_GROUPS}) AS g")


def exist(connection: Connection) -> bool:
    """Return whether the schema has the columns of responses."""
    return bool(connection.execute(_EXIST).scalar_one())


def take(connection: Connection, limit: int) -> list[Group]:
    """Return up to `limit` groups whose responses are not counted, the newest.

    The caller holds the lock on the rollups, and computes them next.
    """
    if limit <= 0 or not exist(connection):
        return []
    rows = connection.execute(_TAKE, {"limit": limit})
    return [Group(row.workflow_id, row.hour) for row in rows]


def waiting(connection: Connection) -> int:
    """Return the number of groups whose responses are not counted."""
    return int(connection.execute(_COUNT).scalar_one()) if exist(connection) else 0

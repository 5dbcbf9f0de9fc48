"""Runs that enter the ledger by name: from the configuration, by `track`, by the queue `orchestra.run_requests`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from etl.database import allow_long

_KNOWN = text("""
    INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source)
    SELECT r.run_id, :workflow_id, 'config'
    FROM unnest(CAST(:ids AS text[])) AS r (run_id)
    ORDER BY r.run_id COLLATE "C"
    ON CONFLICT (run_id) DO NOTHING
""")

# Asking for a run that is known asks for a newer read: the token is raised, the lease cleared. A tombstone stays one.
_TRACK = """
    INSERT INTO orchestra_etl.run_ledger AS l (run_id, workflow_id, source)
    SELECT r.run_id, r.workflow_id, '{source}'
    FROM ({wanted}) AS r (run_id, workflow_id)
    ORDER BY r.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET fencing_token = l.fencing_token + 1,
        leased_until = NULL,
        due_at = now(),
        priority = 0,
        checks = 0,
        opened_at = CASE WHEN l.tracking = 'open' THEN l.opened_at ELSE now() END,
        tracking = 'open',
        not_found_since = NULL,
        workflow_id = CASE WHEN l.listed_at IS NULL THEN excluded.workflow_id ELSE l.workflow_id END
    WHERE l.removed_at IS NULL
    RETURNING l.run_id, xmax = 0 AS inserted
"""

_TRACK_NAMED = text(
    _TRACK.format(
        source="track",
        wanted="SELECT DISTINCT u.run_id, CAST(:workflow_id AS text) FROM unnest(CAST(:ids AS text[])) AS u (run_id)",
    )
)

_TRACK_QUEUED = text(
    """
    WITH taken AS (DELETE FROM orchestra.run_requests RETURNING id, run_id, workflow_id)
    """
    + _TRACK.format(
        source="request", wanted="SELECT DISTINCT ON (run_id) run_id, workflow_id FROM taken ORDER BY run_id, id DESC"
    )
)


class Tracked(msgspec.Struct, frozen=True):
    """What became of the runs that were asked for."""

    new: int
    known: int
    """Known before, and read again."""
    removed: int
    """Erased or pruned: they stay so."""


def register(connection: Connection, workflow_id: str, run_ids: Sequence[str]) -> int:
    """Enter runs that the configuration names, once; how many are new."""
    return connection.execute(_KNOWN, {"workflow_id": workflow_id, "ids": list(run_ids)}).rowcount


def track(connection: Connection, workflow_id: str, run_ids: Sequence[str]) -> Tracked:
    """Have runs read now, again where they are known."""
    rows = connection.execute(_TRACK_NAMED, {"workflow_id": workflow_id, "ids": list(run_ids)}).all()
    new = sum(row.inserted for row in rows)
    return Tracked(new, len(rows) - new, len(set(run_ids)) - len(rows))


def take_queue(connection: Connection) -> int:
    """Empty `orchestra.run_requests` into the ledger; how many runs will be read. Erased and pruned ones stay so."""
    return len(connection.execute(_TRACK_QUEUED).all())


_REREAD = text("""
    WITH wanted AS (
        SELECT l.run_id
        FROM orchestra_etl.run_ledger AS l
        WHERE l.workflow_id = ANY (CAST(:workflow_ids AS text[]))
          AND l.tracking = 'final'
          AND (CAST(:since AS timestamptz) IS NULL OR l.start_time >= CAST(:since AS timestamptz))
          AND (CAST(:until AS timestamptz) IS NULL OR l.start_time < CAST(:until AS timestamptz))
        ORDER BY l.run_id
        FOR UPDATE OF l
    )
    UPDATE orchestra_etl.run_ledger AS l
    SET fencing_token = l.fencing_token + 1, leased_until = NULL, due_at = now(), priority = 1, tracking = 'open',
        opened_at = now()
    FROM wanted WHERE l.run_id = wanted.run_id
""")


def reread(
    connection: Connection, workflow_ids: Sequence[str], *, since: datetime | None, until: datetime | None
) -> int:
    """Have final runs of these workflows read again at low priority; how many."""
    wanted = {"workflow_ids": list(workflow_ids), "since": since, "until": until}
    # 10 µs a run: longer than statement_timeout from some millions on.
    allow_long(connection)
    return connection.execute(_REREAD, wanted).rowcount

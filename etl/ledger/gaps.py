"""Times in which runs may have come and gone without being listed to us."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

_SELECT = text("""
    SELECT g.id, g.workflow_id, w.name AS workflow_name, g.detected_at, g.after_time, g.before_time, g.detail,
           g.acknowledged_at
    FROM orchestra_etl.gaps AS g
    LEFT JOIN orchestra.workflows AS w ON w.id = g.workflow_id
    WHERE (CAST(:workflows AS text[]) IS NULL OR g.workflow_id = ANY (CAST(:workflows AS text[])))
    ORDER BY g.id
""")

_KNOWN = text("SELECT id FROM orchestra_etl.gaps WHERE id = ANY (CAST(:ids AS bigint[]))")

_ACKNOWLEDGE = text("""
    UPDATE orchestra_etl.gaps
    SET acknowledged_at = now()
    WHERE acknowledged_at IS NULL AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY (CAST(:ids AS bigint[])))
""")

# An empty list behind an open gap with the same begin adds nothing to it.
_RECORD = text("""
    INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail)
    SELECT :workflow_id, known.after_time, CAST(:before_time AS timestamptz), :detail
    FROM (SELECT max(r.start_time) AS after_time
          FROM orchestra.runs AS r
          JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
          WHERE l.workflow_id = :workflow_id AND l.listed_sweep <= :watermark) AS known
    WHERE NOT (:is_empty AND EXISTS (
        SELECT FROM orchestra_etl.gaps AS g
        WHERE g.workflow_id = :workflow_id AND g.before_time IS NULL AND g.detail = :detail
          AND g.after_time IS NOT DISTINCT FROM known.after_time))
""")


class Gap(msgspec.Struct, frozen=True):
    """One such time."""

    id: int
    workflow_id: str
    workflow_name: str | None
    detected_at: datetime
    after_time: datetime | None
    """Start of the newest run known before the gap."""
    before_time: datetime | None
    """Start of the oldest run listed behind the gap."""
    detail: str
    acknowledged_at: datetime | None


def record(
    connection: Connection,
    workflow_id: str,
    *,
    watermark: int,
    before_time: datetime | None,
    detail: str,
    is_empty: bool = False,
) -> bool:
    """Record a gap behind the newest run that complete sweeps have listed; whether it is a new one.

    Args:
        connection: in a transaction.
        workflow_id: whose list it is.
        watermark: the last sweep that was complete.
        before_time: start of the oldest run listed behind the gap; None: it is not known, or there is none yet.
        detail: one sentence.
        is_empty: the list shows no run at all. As long as it stays so, that is one gap.
    """
    values = {
        "watermark": watermark,
        "before_time": before_time,
        "detail": detail,
        "is_empty": is_empty,
    }
    return connection.execute(_RECORD, {"workflow_id": workflow_id, **values}).rowcount > 0


def find(connection: Connection, *, workflows: Sequence[str] | None = None) -> list[Gap]:
    """The gaps of these workflows (None: of all), oldest first, also those somebody took note of."""
    rows = connection.execute(
        _SELECT, {"workflows": None if workflows is None else list(workflows)}
    )
    return [Gap(**row._mapping) for row in rows]


def unknown(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Which of these numbers no gap has."""
    known = set(connection.execute(_KNOWN, {"ids": list(ids)}).scalars())
    return [number for number in ids if number not in known]


def acknowledge(connection: Connection, ids: Sequence[int] | None) -> int:
    """Take note of these gaps (None: of all); how many nobody had taken note of before."""
    return connection.execute(_ACKNOWLEDGE, {"ids": None if ids is None else list(ids)}).rowcount

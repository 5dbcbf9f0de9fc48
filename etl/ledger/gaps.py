"""Gaps: times in which runs may have appeared and disappeared without being listed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

_SELECT = text("""
    SELECT g.id, g.workflow_id, w.name AS workflow_name, g.detected_at, g.after_time, g.before_time,
           g.detail, g.acknowledged_at
    FROM orchestra_etl.gaps AS g
    LEFT JOIN orchestra.workflows AS w ON w.id = g.workflow_id
    WHERE (CAST(:workflows AS text[]) IS NULL OR g.workflow_id = ANY (CAST(:workflows AS text[])))
    ORDER BY g.id
""")

_KNOWN = text("SELECT id FROM orchestra_etl.gaps WHERE id = ANY (CAST(:ids AS bigint[]))")

_ACKNOWLEDGE = text("""
    UPDATE orchestra_etl.gaps
    SET acknowledged_at = now()
    WHERE acknowledged_at IS NULL
      AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY (CAST(:ids AS bigint[])))
""")

# While a list stays empty, it adds no second gap after the same run.
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
    """A time in which runs may have been missed."""

    id: int
    workflow_id: str
    workflow_name: str | None
    detected_at: datetime
    after_time: datetime | None
    """Start of the newest run known before the gap."""
    before_time: datetime | None
    """Start of the oldest run listed after the gap."""
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
    """Record a gap after the newest run of the watermark; return whether it is new.

    Args:
        connection: in a transaction.
        workflow_id: the workflow of the list.
        watermark: number of the last complete sweep.
        before_time: start of the oldest run listed after the gap; None: unknown, or no run yet.
        detail: one sentence.
        is_empty: whether the list shows no run. While it stays empty, there is only one gap.
    """
    values = {
        "watermark": watermark,
        "before_time": before_time,
        "detail": detail,
        "is_empty": is_empty,
    }
    return connection.execute(_RECORD, {"workflow_id": workflow_id, **values}).rowcount > 0


def find(connection: Connection, *, workflows: Sequence[str] | None = None) -> list[Gap]:
    """Return the gaps of these workflows (None: of all), oldest first, acknowledged ones too."""
    rows = connection.execute(
        _SELECT, {"workflows": None if workflows is None else list(workflows)}
    )
    return [Gap(**row._mapping) for row in rows]


def unknown(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Return those of these numbers that belong to no gap."""
    known = set(connection.execute(_KNOWN, {"ids": list(ids)}).scalars())
    return [number for number in ids if number not in known]


def acknowledge(connection: Connection, ids: Sequence[int] | None) -> int:
    """Acknowledge these gaps (None: all); return how many were not yet acknowledged."""
    return connection.execute(_ACKNOWLEDGE, {"ids": None if ids is None else list(ids)}).rowcount

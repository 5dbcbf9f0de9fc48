"""Sweeps: who may walk a workflow's run list, and the watermark.

The watermark is the set of runs that *complete* sweeps have listed. Two numbers represent it: each
ledger row stores the number of the sweep that listed it, and `sweeps.watermark` is the number of
the last complete sweep. An interrupted sweep leaves rows with its own number above the watermark.
They are in the ledger and are polled, but no later walk takes them as proof that the list below
them is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, text

from etl.ledger.clock_set_back import AHEAD


class Sweep(msgspec.Struct, frozen=True):
    """The right to walk one workflow's list until the lease ends or another sweep begins."""

    workflow_id: str
    token: int
    begun_at: datetime
    """Database time."""
    watermark_size: int
    """Number of runs in the watermark, counted up to `count_to`."""
    last_complete: datetime | None
    """When the last complete sweep ended; None: no sweep has completed."""
    reconciled_at: datetime | None
    """When the last full walk began; None: there was none."""


class ListState(NamedTuple):
    """What a sweep that holds the lease must know of its list."""

    watermark: int
    """The number of the last complete sweep."""
    list_problem: str | None
    run_horizon: datetime | None


class SweepSuperseded(Exception):
    """Another sweep of this workflow has begun: this sweep must stop and write nothing."""


# A lease that ends later than any lease can shows that the clock was set back.
_BEGIN = text(f"""
    INSERT INTO orchestra_etl.sweeps AS s (workflow_id, fencing_token, leased_until, started_at)
    VALUES (:workflow_id, 1, now() + make_interval(secs => :lease), now())
    ON CONFLICT (workflow_id) DO UPDATE
    SET fencing_token = s.fencing_token + 1,
        leased_until = excluded.leased_until,
        started_at = excluded.started_at
    WHERE s.leased_until IS NULL OR s.leased_until < now()
       OR s.leased_until > {AHEAD} + make_interval(secs => :lease)
    RETURNING fencing_token, watermark, now() AS begun_at, swept_at, reconciled_at
""")

_WATERMARK_SIZE = text("""
    SELECT count(*) FROM (
        SELECT FROM orchestra_etl.run_ledger
        WHERE workflow_id = :workflow_id AND listed_sweep <= :watermark
        LIMIT :count_to
    ) AS members
""")

# A horizon later than now shows that the clock was set back.
_HOLD = text("""
    UPDATE orchestra_etl.sweeps
    SET leased_until = now() + make_interval(secs => :lease)
    WHERE workflow_id = :workflow_id AND fencing_token = :token AND leased_until IS NOT NULL
    RETURNING watermark, list_problem,
              (SELECT run_horizon FROM orchestra_etl.retention
               WHERE run_horizon <= now()) AS run_horizon
""")

_MEMBERS = text("""
    SELECT l.run_id
    FROM orchestra_etl.run_ledger AS l
    JOIN orchestra_etl.sweeps AS s ON s.workflow_id = l.workflow_id
    WHERE l.run_id = ANY (CAST(:ids AS text[]))
      AND l.workflow_id = :workflow_id
      AND l.listed_sweep <= s.watermark
    UNION ALL
    -- A conflicting run that was recorded before the last complete sweep ended is known as well.
    SELECT d.run_id
    FROM orchestra_etl.dead_letters AS d
    JOIN orchestra_etl.sweeps AS s ON s.workflow_id = d.workflow_id
    WHERE d.run_id = ANY (CAST(:ids AS text[]))
      AND d.workflow_id = :workflow_id
      AND d.reason = 'id_conflict' AND d.step_id IS NULL AND d.first_seen_at <= s.swept_at
""")

_ABANDON = text("""
    UPDATE orchestra_etl.sweeps
    SET leased_until = NULL, last_error = COALESCE(:error, last_error)
    WHERE workflow_id = :workflow_id AND fencing_token = :token
""")

_COUNT_OTHERS = text("""
    SELECT count(*) FROM orchestra_etl.sweeps
    WHERE swept_at IS NOT NULL AND workflow_id <> ALL (CAST(:workflows AS text[]))
""")

_NEXT_EXPIRY = text("""
    SELECT EXTRACT(epoch FROM leased_until - now())
    FROM orchestra_etl.sweeps
    WHERE workflow_id = :workflow_id AND leased_until >= now()
""")


def begin(connection: Connection, workflow_id: str, *, lease: float, count_to: int) -> Sweep | None:
    """Begin a sweep, and return it; return None while another sweep holds the lease.

    Args:
        connection: in a transaction.
        workflow_id: the workflow of the list.
        lease: seconds.
        count_to: number up to which the runs of the watermark are counted.
    """
    row = connection.execute(_BEGIN, {"workflow_id": workflow_id, "lease": lease}).one_or_none()
    if row is None:
        return None
    size = connection.execute(
        _WATERMARK_SIZE,
        {"workflow_id": workflow_id, "watermark": row.watermark, "count_to": count_to},
    ).scalar_one()
    return Sweep(
        workflow_id=workflow_id,
        token=row.fencing_token,
        begun_at=row.begun_at,
        watermark_size=size,
        last_complete=row.swept_at,
        reconciled_at=row.reconciled_at,
    )


def lease_ends_in(connection: Connection, workflow_id: str) -> float | None:
    """Return the seconds until the lease of a running sweep ends; None if no sweep runs."""
    seconds = connection.execute(_NEXT_EXPIRY, {"workflow_id": workflow_id}).scalar_one_or_none()
    return None if seconds is None else float(seconds)


def count_others(connection: Connection, workflow_ids: Sequence[str]) -> int:
    """Return how many other workflows have ever had a complete sweep."""
    return int(connection.execute(_COUNT_OTHERS, {"workflows": list(workflow_ids)}).scalar_one())


def members(connection: Connection, sweep: Sweep, run_ids: Sequence[str]) -> set[str]:
    """Return those of these runs that belong to the watermark.

    The result can change only when this sweep completes.
    """
    rows = connection.execute(_MEMBERS, {"workflow_id": sweep.workflow_id, "ids": list(run_ids)})
    return {row.run_id for row in rows}


def hold(connection: Connection, sweep: Sweep, *, lease: float) -> ListState | None:
    """Extend the lease; return None if a later sweep has begun."""
    row = connection.execute(
        _HOLD, {"workflow_id": sweep.workflow_id, "token": sweep.token, "lease": lease}
    ).one_or_none()
    return None if row is None else ListState(*row)


def abandon(connection: Connection, sweep: Sweep, *, error: str | None = None) -> None:
    """Release the lease without moving the watermark."""
    connection.execute(
        _ABANDON, {"workflow_id": sweep.workflow_id, "token": sweep.token, "error": error}
    )

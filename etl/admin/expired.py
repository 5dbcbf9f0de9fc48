"""The data that retention removes: payloads, runs and dead letters before a horizon.

A run's age counts from its end. If it has no end, or one before its start, its age counts from its
start; if it has no start, from when it was first seen. A whole run is removed if that time is
before the run horizon and none of its steps began or ended later. Open runs are never removed.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, Table, text

from etl.admin.removal import RUN_PAYLOADS, holds_payload
from etl.database import allow_long
from etl.tables import runs

_NOW_MINUS = text("""
    SELECT now() - make_interval(secs => :payloads) AS payloads,
           date_trunc('hour', now() - make_interval(secs => :runs), 'UTC') AS runs
""")

_AGED = """
    SELECT l.run_id,
           COALESCE(GREATEST(COALESCE(r.start_time, r.first_seen_at), r.end_time),
                    l.start_time, l.first_seen_at) AS over_since,
           l.listing
    FROM orchestra_etl.run_ledger AS l
    LEFT JOIN orchestra.runs AS r ON r.id = l.run_id
    WHERE l.tracking <> 'open' AND l.removed_at IS NULL"""


def _has_payload(table: Table) -> str:
    """Return the condition that a run `a` still has a payload in this table."""
    if table is runs or "run_id" in table.c:
        key = "id" if table is runs else "run_id"
        return (
            f"EXISTS (SELECT FROM {table.fullname}"
            f" WHERE {key} = a.run_id AND {holds_payload(table)})"
        )
    return (
        f"EXISTS (SELECT FROM orchestra.steps AS s JOIN {table.fullname} AS p ON p.step_id = s.id"
        f" WHERE s.run_id = a.run_id AND {holds_payload(table)})"
    )


_PAYLOADS_LEFT = (
    "(a.listing IS NOT NULL OR " + " OR ".join(_has_payload(table) for table in RUN_PAYLOADS) + ")"
)

# OFFSET 0 makes PostgreSQL check this condition only for runs whose own times are old enough.
_STEPS_OVER = """NOT EXISTS (
    SELECT FROM orchestra.steps AS s
    WHERE s.run_id = a.run_id
      AND GREATEST(s.start_time, s.end_time) >= CAST(:horizon AS timestamptz) OFFSET 0)"""

# The runs are found in order of age; the next search starts after the last one found.
_FIND = """
    SELECT a.run_id, a.over_since
    FROM ({aged}) AS a
    WHERE a.over_since < CAST(:horizon AS timestamptz)
      AND (CAST(:after AS timestamptz) IS NULL
           OR (a.over_since, a.run_id) > (CAST(:after AS timestamptz), :after_id))
      AND {condition}
    ORDER BY a.over_since, a.run_id
    LIMIT :limit
"""
FIND_RUNS = text(_FIND.format(aged=_AGED, condition=_STEPS_OVER))
FIND_PAYLOADS = text(_FIND.format(aged=_AGED, condition=_PAYLOADS_LEFT))

# The runs are checked again under the lock: some may have been reopened or removed since the
# search.
STILL_AGED = text(f"""
    SELECT a.run_id
    FROM ({_AGED} AND l.run_id = ANY (CAST(:ids AS text[]))) AS a
    WHERE a.over_since < CAST(:horizon AS timestamptz)
""")

_COUNT = """
    SELECT count(*) AS runs, min(a.over_since) AS oldest, max(a.over_since) AS newest,
           CAST(COALESCE(sum((SELECT count(*) FROM orchestra.steps AS s
                              WHERE s.run_id = a.run_id)), 0) AS bigint) AS steps
    FROM ({aged}) AS a
    WHERE a.over_since < CAST(:horizon AS timestamptz)
      AND (CAST(:since AS timestamptz) IS NULL OR a.over_since >= CAST(:since AS timestamptz))
      AND {condition}
"""
_COUNT_RUNS = text(_COUNT.format(aged=_AGED, condition=_STEPS_OVER))
_COUNT_PAYLOADS = text(_COUNT.format(aged=_AGED, condition=_PAYLOADS_LEFT))

# All dead letters of old runs; old dead letters of the run list; and old resolved dead letters of
# any run.
OLD_LETTERS = f"""
    FROM orchestra_etl.dead_letters AS d
    WHERE octet_length(d.body) > 0
      AND ((d.last_seen_at < CAST(:horizon AS timestamptz)
            AND (d.resolved_at IS NOT NULL OR d.run_id = ''))
           OR EXISTS (SELECT FROM ({_AGED} AND l.run_id = d.run_id) AS a
                      WHERE a.over_since < CAST(:horizon AS timestamptz)))
"""

_COUNT_LETTERS = text(f"SELECT count(*) {OLD_LETTERS}")


class Horizons(msgspec.Struct, frozen=True):
    """The times before which data is removed; None: no data is removed."""

    payloads: datetime | None
    runs: datetime | None


class ExpiredRuns(msgspec.Struct, frozen=True):
    """The runs before a horizon."""

    runs: int
    oldest: datetime | None
    """When the oldest of them ended."""
    newest: datetime | None
    """When the newest of them ended."""
    steps: int
    """Number of their steps."""


class PrunePreview(msgspec.Struct, frozen=True):
    """The data that `prune` would remove."""

    horizons: Horizons
    runs: ExpiredRuns | None
    """Runs that would be removed completely; None: there is no run horizon."""
    payloads: ExpiredRuns | None
    """Runs that would stay but lose their payloads; None: there is no payload horizon."""
    dead_letters: int
    """Dead letters that would lose their bytes, in addition to those of removed runs."""


def horizons(connection: Connection, *, payloads: float | None, runs: float | None) -> Horizons:
    """Return the horizons at these ages in seconds, on the database's clock; None: no horizon."""
    row = connection.execute(_NOW_MINUS, {"payloads": payloads, "runs": runs}).one()
    return Horizons(row.payloads, row.runs)


def preview(connection: Connection, wanted: Horizons) -> PrunePreview:
    """Count what `prune` would remove, and change nothing."""
    whole = payloads = None
    letters = 0
    allow_long(connection)
    if wanted.runs is not None:
        row = connection.execute(_COUNT_RUNS, {"horizon": wanted.runs, "since": None}).one()
        whole = ExpiredRuns(**row._mapping)
    if wanted.payloads is not None:
        row = connection.execute(
            _COUNT_PAYLOADS, {"horizon": wanted.payloads, "since": wanted.runs}
        ).one()
        payloads = ExpiredRuns(**row._mapping)
        letters = connection.execute(_COUNT_LETTERS, {"horizon": wanted.payloads}).scalar_one()
    return PrunePreview(wanted, whole, payloads, letters)

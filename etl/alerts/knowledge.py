"""What is known about each workflow, and up to when.

Everything before a certain minute is known: the minute in which the last complete sweep began, or
in which the oldest unread run of the last five minutes started. Windows end there. This module also
reports the exceptions: gaps, runs that cannot be read, dead letters, and rollups that wait.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, text

from etl.analytics import changed_groups

# Seconds after its due time at which a sweep or a read counts as late.
PATIENCE = 300.0
# With more hours of a workflow in the queue of the rollups, its figures count as unknown. Fewer are
# counted from the runs and steps.
MOST_QUEUED = 48

# `complete_until` exists since revision 0004, and is null until the first sweep after it. Before,
# only the end of the last complete sweep is known while a later one runs; it began up to a minute
# earlier, because only a walk of the whole list takes so long.
_WORKFLOWS = text("""
    SELECT w.id, w.name, w.labels,
           CASE WHEN s.watermark > 0
               THEN COALESCE(s.began_at, CASE WHEN s.started_at <= s.swept_at THEN s.started_at
                                              ELSE s.swept_at - interval '60 seconds' END)
           END AS known_until,
           CASE WHEN s.watermark > 0
               THEN COALESCE(s.began_at, LEAST(s.started_at, s.swept_at)) END AS complete_until,
           oldest.start_time AS known_since,
           (SELECT min(l.due_at) FROM orchestra_etl.run_ledger AS l
            WHERE l.workflow_id = w.id AND l.tracking IN ('open', 'stale') AND l.priority = 0
              AND l.due_at < :at) AS oldest_due
    FROM orchestra.workflows AS w
    LEFT JOIN (
        SELECT *, CAST(to_jsonb(t) ->> 'complete_until' AS timestamptz) AS began_at
        FROM orchestra_etl.sweeps AS t
    ) AS s ON s.workflow_id = w.id
    LEFT JOIN LATERAL (
        SELECT r.start_time
        FROM orchestra.runs AS r
        JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
        WHERE r.workflow_id = w.id AND r.start_time IS NOT NULL AND l.listed_sweep <= s.watermark
        ORDER BY r.start_time
        LIMIT 1
    ) AS oldest ON true
    ORDER BY w.id
""")

# `late`: the outcome may have been different for a while. By design, an old open run is read every
# ten minutes; that is not late.
_WAITING = text("""
    SELECT workflow_id, date_trunc('minute', COALESCE(start_time, first_seen_at), 'UTC') AS minute,
           count(*) FILTER (WHERE steps_observed_at IS NULL) AS unread,
           count(*) FILTER (WHERE steps_observed_at IS NOT NULL) AS late
    FROM orchestra_etl.run_ledger
    WHERE workflow_id = ANY (CAST(:workflows AS text[]))
      AND (steps_observed_at IS NULL AND tracking IN ('open', 'stale', 'gone')
           OR tracking IN ('open', 'stale')
              AND (attempts > 0 OR due_at < :at - make_interval(secs => :patience))
              AND COALESCE(run_state, '') NOT IN ('succeeded', 'failed', 'cancelled', 'skipped'))
    GROUP BY 1, 2
""")

# The run or step of a dead letter started before it was first seen.
_LETTERS = text("""
    SELECT workflow_id, date_trunc('minute', first_seen_at, 'UTC') AS minute,
           count(*) FILTER (WHERE step_id IS NULL) AS runs,
           count(*) FILTER (WHERE step_id IS NOT NULL) AS steps
    FROM orchestra_etl.dead_letters AS d
    WHERE workflow_id = ANY (CAST(:workflows AS text[])) AND resolution IS DISTINCT FROM 'loaded'
      AND (step_id IS NOT NULL OR NOT EXISTS (
          SELECT FROM orchestra_etl.run_ledger AS l
          WHERE l.run_id = d.run_id AND l.workflow_id = d.workflow_id))
    GROUP BY 1, 2
""")

# While the list stays empty, a gap has no end. It ends with the first run that is known after it.
_GAPS = text("""
    SELECT g.workflow_id, g.after_time,
           COALESCE(g.before_time, (
               SELECT min(r.start_time) FROM orchestra.runs AS r
               WHERE r.workflow_id = g.workflow_id
                 AND r.start_time > COALESCE(g.after_time, '-infinity'))) AS before_time
    FROM orchestra_etl.gaps AS g
    WHERE g.workflow_id = ANY (CAST(:workflows AS text[]))
""")

_QUEUED = text(f"""
    SELECT workflow_id, count(DISTINCT hour) AS hours
    FROM orchestra_etl.changed_groups
    WHERE workflow_id IS NULL OR {changed_groups.COUNTABLE}
    GROUP BY workflow_id
""")

_STUCK = text(f"""
    SELECT DISTINCT workflow_id, hour FROM orchestra_etl.changed_groups
    WHERE failed_at IS NOT NULL AND {changed_groups.COUNTABLE}
""")

_NOW = text("SELECT clock_timestamp()")
_HORIZON = text("SELECT run_horizon FROM orchestra_etl.retention WHERE run_horizon <= :at")


class Pauses(msgspec.Struct, frozen=True):
    """The longest time between two sweeps of each workflow, in seconds."""

    configured: Mapping[str, float | None]
    """By workflow; None: its run list is not swept."""
    others: float | None = None
    """For workflows that are not configured; None: they are not swept, and have no alerts."""

    def covers(self, workflow_id: str) -> bool:
        """Return whether the workflow has alerts."""
        return workflow_id in self.configured or self.others is not None

    def of(self, workflow_id: str) -> float | None:
        """Return the workflow's pause; None: its run list is not swept."""
        return self.configured.get(workflow_id, self.others)


class Counted(msgspec.Struct, frozen=True):
    """Cumulative counts of runs or steps by minute."""

    minutes: tuple[datetime, ...] = ()
    sums: tuple[int, ...] = ()

    def before(self, time: datetime) -> int:
        """Return the number of those with an earlier minute."""
        found = bisect_left(self.minutes, time)
        return self.sums[found - 1] if found else 0

    def within(self, begun: datetime, ended: datetime) -> int:
        """Return the number of those from `begun` to before `ended`; both are whole minutes."""
        return self.before(ended) - self.before(begun)

    @property
    def total(self) -> int:
        """The number of all."""
        return self.sums[-1] if self.sums else 0


class Known(msgspec.Struct, frozen=True):
    """What is known about a workflow."""

    id: str
    name: str | None
    labels: Mapping[str, str]
    since: datetime | None
    """Start of the oldest known run; None: no run is known."""
    complete_until: datetime | None
    """As `orchestra.coverage` says; None: no sweep has completed."""
    until: datetime | None
    """The whole minute up to which all runs are known and read; None: no sweep has completed."""
    oldest_due: datetime | None
    """When the longest waiting read of a live run was due; None: none waits."""
    problem: str | None
    """Why the present state of the workflow is not known; None: it is known."""
    is_recomputed: bool
    """Whether so many hours of the rollups wait that their figures are old."""
    unread: Counted
    """Runs that were never read, by their start."""
    late: Counted
    """Open runs whose read failed or is late, by their start."""
    lost_runs: Counted
    """Runs that became dead letters, by when they were first seen."""
    lost_steps: Counted
    gaps: tuple[tuple[datetime | None, datetime | None], ...]
    stuck: tuple[datetime, ...]
    """Hours whose rollups cannot be computed."""
    horizon: datetime | None
    """Runs that ended before this time can have been removed."""

    def is_pruned(self, begun: datetime) -> bool:
        """Return whether runs that started at this time or later can have been removed."""
        return self.horizon is not None and begun < self.horizon

    def has_gap(self, begun: datetime, ended: datetime) -> bool:
        """Return whether runs that started in this time may have been missed."""
        return any(
            (after is None or after < ended) and (before is None or before > begun)
            for after, before in self.gaps
        )

    def is_stuck(self, begun: datetime, ended: datetime) -> bool:
        """Return whether the rollups of this time cannot be computed."""
        hour = timedelta(hours=1)
        return any(begun < stuck + hour and stuck < ended for stuck in self.stuck)


def now(connection: Connection) -> datetime:
    """Return the database time."""
    found: datetime = connection.execute(_NOW).scalar_one()
    return found


def read(connection: Connection, at: datetime, pauses: Pauses) -> list[Known]:
    """Return what is known about these workflows, in the order of their ids.

    Args:
        connection: in a transaction.
        at: database time now.
        pauses: the workflows, and how often they are swept.
    """
    workflows = [row for row in connection.execute(_WORKFLOWS, {"at": at}) if pauses.covers(row.id)]
    parameters = {"workflows": [row.id for row in workflows]}
    waiting = connection.execute(_WAITING, {**parameters, "at": at, "patience": PATIENCE}).all()
    letters = connection.execute(_LETTERS, parameters).all()
    unread, late = _cumulative(waiting, "unread"), _cumulative(waiting, "late")
    runs, steps = _cumulative(letters, "runs"), _cumulative(letters, "steps")
    gaps: dict[str, list[tuple[datetime | None, datetime | None]]] = {}
    for row in connection.execute(_GAPS, parameters):
        gaps.setdefault(row.workflow_id, []).append((row.after_time, row.before_time))
    queued = {row.workflow_id: row.hours for row in connection.execute(_QUEUED)}
    stuck: dict[str, list[datetime]] = {}
    for row in connection.execute(_STUCK):
        stuck.setdefault(row.workflow_id, []).append(row.hour)
    horizon = connection.execute(_HORIZON, {"at": at}).scalar_one_or_none()
    nothing = Counted()
    found = []
    for row in workflows:
        own = unread.get(row.id, nothing)
        until = _until(row.known_until, own, at)
        is_recomputed = None in queued or queued.get(row.id, 0) > MOST_QUEUED
        found.append(
            Known(
                id=row.id,
                name=row.name,
                labels=row.labels or {},
                since=row.known_since,
                complete_until=row.complete_until,
                until=until,
                oldest_due=row.oldest_due,
                problem=_problem(
                    row.known_until,
                    at,
                    pauses.of(row.id),
                    is_recomputed=is_recomputed,
                ),
                is_recomputed=is_recomputed,
                unread=own,
                late=late.get(row.id, nothing),
                lost_runs=runs.get(row.id, nothing),
                lost_steps=steps.get(row.id, nothing),
                gaps=tuple(gaps.get(row.id, ())),
                stuck=tuple(stuck.get(row.id, ())),
                horizon=horizon,
            )
        )
    return found


def _cumulative(rows: Sequence[Row[Any]], name: str) -> dict[str, Counted]:
    by_workflow: dict[str, list[tuple[datetime, int]]] = {}
    for row in rows:
        if number := getattr(row, name):
            by_workflow.setdefault(row.workflow_id, []).append((row.minute, number))
    found = {}
    for workflow_id, counts in by_workflow.items():
        counts.sort()
        found[workflow_id] = Counted(
            tuple(minute for minute, _ in counts),
            tuple(accumulate(number for _, number in counts)),
        )
    return found


def _until(swept: datetime | None, unread: Counted, at: datetime) -> datetime | None:
    """Return the end of the windows: before unread runs that started within `PATIENCE`."""
    if swept is None:
        return None
    recent = bisect_left(unread.minutes, at - timedelta(seconds=PATIENCE))
    ends = [swept, *unread.minutes[recent : recent + 1]]
    return min(ends).replace(second=0, microsecond=0)


def _problem(
    swept: datetime | None, at: datetime, pause: float | None, *, is_recomputed: bool
) -> str | None:
    if pause is None:
        return "its run list is not swept (discover = false)"
    if swept is None:
        return "no sweep has completed yet"
    if swept < at - timedelta(seconds=2 * pause + PATIENCE):
        return f"no complete sweep since {swept:%Y-%m-%d %H:%MZ}"
    if is_recomputed:
        return "its rollups are being recomputed"
    return None

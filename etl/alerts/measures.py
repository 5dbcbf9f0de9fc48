"""The figures of windows: exact sums of whole hours from the rollups, and of the rest by minute.

An hour that lies only partly in a window, or that waits in the queue of the rollups, is counted
from its runs and steps, by the queries that compute the rollups. Each statement reads the rollups,
their queue and the rows in one snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, TextClause, text

from etl.alerts.rules import Part
from etl.analytics import changed_groups, rollup_queries
from etl.usage import KINDS

_HOUR = timedelta(hours=1)

# `pieces`: the parts of hours to count from the rows, at most one for each hour. A queued hour is
# one piece. `of_pieces`: the windows that each piece is for. OFFSET 0 makes the planner go from
# each window to its hours by the key of the rollup.
_WITH = f"""
    WITH windows AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:numbers AS int[]), CAST(:workflow_ids AS text[]),
            CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[])
        ) AS w (number, workflow_id, begun, ended)
    ), pieces AS MATERIALIZED (
        SELECT workflow_id, hour, min(begun) AS begun, max(ended) AS ended,
               bool_or(is_queued) AS is_queued
        FROM (
            SELECT workflow_id, hour, begun, ended, false AS is_queued
            FROM unnest(
                CAST(:piece_workflow_ids AS text[]), CAST(:piece_hours AS timestamptz[]),
                CAST(:piece_begins AS timestamptz[]), CAST(:piece_ends AS timestamptz[])
            ) AS p (workflow_id, hour, begun, ended)
            UNION ALL
            SELECT q.workflow_id, q.hour, q.hour, q.hour + interval '1 hour', true
            FROM orchestra_etl.changed_groups AS q
            WHERE {changed_groups.COUNTABLE} AND q.workflow_id = ANY (CAST(:workflow_ids AS text[]))
              AND EXISTS (
                  SELECT FROM windows AS w
                  WHERE w.workflow_id = q.workflow_id
                    AND q.hour > w.begun - interval '1 hour' AND q.hour < w.ended)
        ) AS p
        GROUP BY workflow_id, hour
    ), of_pieces AS MATERIALIZED (
        SELECT w.number, w.begun, w.ended, g.workflow_id, g.hour
        FROM pieces AS g
        JOIN windows AS w
          ON w.workflow_id = g.workflow_id
         AND g.hour > w.begun - interval '1 hour' AND g.hour < w.ended
         AND (g.is_queued OR g.hour < w.begun OR g.hour > w.ended - interval '1 hour')
    ), minutes AS MATERIALIZED (
        SELECT counted.*, date_trunc('hour', hour, 'UTC') AS of_hour FROM ({{counted}}) AS counted
    ), parts AS MATERIALIZED (
        SELECT g.number, m.*
        FROM minutes AS m
        JOIN of_pieces AS g
          ON g.workflow_id = m.workflow_id AND g.hour = m.of_hour
         AND m.hour >= g.begun AND m.hour < g.ended
    ), hours AS NOT MATERIALIZED (
        SELECT w.number, r.*
        FROM windows AS w
        CROSS JOIN LATERAL (
            SELECT * FROM orchestra.{{rollup}}
            WHERE workflow_id = w.workflow_id
              AND hour >= w.begun AND hour <= w.ended - interval '1 hour'
            OFFSET 0
        ) AS r
        -- Counts of pruned runs (ordinal < 0) are not in the rows.
        WHERE r.ordinal < 0 OR NOT EXISTS (
            SELECT FROM pieces AS g
            WHERE g.workflow_id = r.workflow_id AND g.hour = r.hour AND g.is_queued)
    )
"""
_GROUPS = "pieces AS g"
_TIME = ("g.begun", "g.ended")


_TIMED = "number = ANY (CAST(:with_durations AS int[]))"
_OUTCOMES = ("succeeded", "soft_failed", "failed", "unfinished")
_OTHERS = ("cancelled", "skipped")


def _with(rollup: str, counted: str) -> str:
    return _WITH.format(counted=counted, rollup=rollup)


def _counts(names: Iterable[str]) -> str:
    return ", ".join(f"CAST(sum(c.{name}) AS bigint) AS {name}" for name in names)


def _by(name: str, flag: str) -> str:
    """Return SQL for a name that distinguishes rows only if a rule needs that."""
    return f"CASE WHEN :{flag}_{name} THEN {name} END AS {name}"


def _durations(names: Sequence[str]) -> str:
    """Return the query of the durations of successes by bucket, in windows that need them."""
    shown = ", ".join(_by(name, "timed") for name in names)
    listed = ", ".join(names)
    return f"""(
        SELECT number, {listed}, bucket, CAST(sum(durations) AS bigint) AS durations
        FROM (
            SELECT h.number, {listed}, CAST(b.bucket AS int) AS bucket, b.durations
            FROM (SELECT number, {shown}, buckets, counts FROM hours WHERE {_TIMED}) AS h
            CROSS JOIN LATERAL unnest(h.buckets, h.counts) AS b (bucket, durations)
            UNION ALL
            SELECT number, {shown}, bucket, durations FROM parts
            WHERE {_TIMED} AND bucket IS NOT NULL AND NOT failures
        ) AS d
        GROUP BY number, {listed}, bucket
    ) AS d"""


_BY_RUN = _by("organization_id", "by")
# Each query returns rows with figures, and rows with the number of durations in a bucket.
_RUNS = text(f"""
    {
    _with(
        "run_rollup",
        rollup_queries.counted_runs(rollup_queries.runs_of(_GROUPS, _TIME), "minute"),
    )
}
    SELECT c.number, c.organization_id, CAST(NULL AS text) AS node_id, CAST(NULL AS text) AS model,
           CAST(NULL AS int) AS bucket, CAST(sum(c.runs) AS bigint) AS total, {_counts(_OUTCOMES)}
    FROM (SELECT number, {_BY_RUN}, runs, {", ".join(_OUTCOMES)} FROM hours
          UNION ALL
          SELECT number, {_BY_RUN}, runs, {", ".join(_OUTCOMES)} FROM parts) AS c
    GROUP BY c.number, c.organization_id
    UNION ALL
    SELECT number, organization_id, NULL, NULL, bucket, durations, NULL, NULL, NULL, NULL
    FROM {_durations(("organization_id",))}
""")

# The costs are those of the view `model_usage`: the price of a day applies to its hours.
_USED = tuple(kind.name for kind in KINDS)
_OF_CALLS = ("calls", "unmetered_calls", "untotalled_calls")
_PRICED_BY = ("hour", "service_tier", "context_tier")
_SUMMED = ", ".join((*_PRICED_BY, *_OUTCOMES, *_OTHERS, *_OF_CALLS))
_NODE = ("organization_id", "node_id", "model")
_BY_NODE = ", ".join(_by(name, "by") for name in _NODE)
_STEPS = text(f"""
    {
    _with(
        "step_rollup",
        rollup_queries.counted_steps(rollup_queries.steps_of(_GROUPS, _TIME), "minute"),
    )
}
    SELECT c.number, c.organization_id, c.node_id, c.model, CAST(NULL AS int) AS bucket,
           CAST(sum({" + ".join("c." + name for name in (*_OUTCOMES, *_OTHERS))}) AS bigint)
               AS total,
           {_counts(_OUTCOMES)}, k.currency, sum(k.cost) AS cost,
           CAST(sum(CASE WHEN k.cost IS NULL THEN c.calls ELSE c.unmetered_calls END) AS bigint)
               AS unpriced,
           CAST(COALESCE(sum(c.total_tokens), 0) AS bigint) AS tokens,
           CAST(sum(c.untotalled_calls) AS bigint) AS untotalled
    FROM (
        SELECT number, {_BY_NODE}, model AS priced_model, {_SUMMED},
               {", ".join((*_USED, "total_tokens"))}
        FROM hours
        UNION ALL
        SELECT number, {_BY_NODE}, model, {_SUMMED},
               {", ".join(f"CAST({name} AS bigint)" for name in (*_USED, "total_tokens"))}
        FROM parts
    ) AS c
    LEFT JOIN LATERAL (
        SELECT p.currency,
               orchestra.call_cost(
                   CAST(ROW({", ".join("c." + name for name in _USED)}) AS orchestra.usage),
                   c.calls - c.unmetered_calls, p) AS cost
        FROM orchestra.prices AS p
        WHERE p.model = c.priced_model AND c.calls > c.unmetered_calls
          AND orchestra.price_applies(p, c.service_tier, c.context_tier, c.hour)
        OFFSET 0
    ) AS k ON k.cost IS NOT NULL
    GROUP BY c.number, c.organization_id, c.node_id, c.model, k.currency
    UNION ALL
    SELECT number, {
    ", ".join(_NODE)
}, bucket, durations, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM {_durations(_NODE)}
""")

_BUCKETS = text("""
    SELECT bucket, orchestra.bucket_duration(bucket) / 1000 AS seconds
    FROM unnest(CAST(:buckets AS int[])) AS b (bucket)
""")

# The runs that `orchestra.open_runs` calls overdue, with the same percentile, by one scan of the
# rollup for all workflows.
_OVERDUE = text("""
    WITH open AS MATERIALIZED (
        SELECT r.workflow_id, r.organization_id, l.attempts > 0
                   OR l.due_at < :at - make_interval(secs => :patience) AS late,
               CAST(extract(epoch FROM
                   COALESCE(GREATEST(l.run_observed_at, l.steps_observed_at), r.first_seen_at)
                       - COALESCE(r.start_time, r.first_seen_at)) * 1000
                   AS double precision) AS age_ms
        FROM orchestra.runs AS r
        LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
        WHERE r.state IN ('pending', 'running', 'unknown') AND r.tracking NOT IN ('final', 'gone')
          AND r.workflow_id = ANY (CAST(:workflow_ids AS text[]))
    ), ended AS (
        SELECT h.workflow_id, b.failures, b.bucket, sum(b.durations) AS durations
        FROM orchestra.run_rollup AS h
        CROSS JOIN LATERAL (
            SELECT bucket, false AS failures, durations
            FROM unnest(h.buckets, h.counts) AS s (bucket, durations)
            UNION ALL
            SELECT bucket, true, durations
            FROM unnest(h.failed_buckets, h.failed_counts) AS f (bucket, durations)
        ) AS b
        WHERE h.workflow_id IN (SELECT workflow_id FROM open)
          AND h.hour >= :at - interval '720 hours'
        GROUP BY 1, 2, 3
    ), ranked AS (
        SELECT workflow_id, failures, bucket,
               sum(durations) OVER (PARTITION BY workflow_id, failures ORDER BY bucket) AS up_to,
               sum(durations) OVER (PARTITION BY workflow_id, failures) AS total
        FROM ended
    ), usual AS MATERIALIZED (
        -- Without a success, the failures count.
        SELECT DISTINCT ON (workflow_id) workflow_id,
               orchestra.bucket_duration(min(bucket)) AS p95_ms
        FROM ranked
        WHERE CAST(up_to AS double precision)
              >= CAST(0.95 AS double precision) * CAST(total AS double precision)
        GROUP BY workflow_id, failures
        ORDER BY workflow_id, failures
    )
    SELECT o.workflow_id, o.organization_id AS organisation,
           count(*) FILTER (WHERE o.age_ms > u.p95_ms AND o.late IS NOT TRUE) AS overdue,
           count(*) FILTER (WHERE o.age_ms > u.p95_ms AND o.late) AS late
    FROM open AS o
    LEFT JOIN usual AS u ON u.workflow_id = o.workflow_id
    GROUP BY 1, 2
""")


class Window(msgspec.Struct, frozen=True, eq=False):
    """A time of a workflow, from `begun` to before `ended`: whole minutes in UTC."""

    workflow_id: str
    begun: datetime
    ended: datetime


class Figures(msgspec.Struct):
    """Sums over the runs or steps of a part of a workflow in a window."""

    total: int = 0
    """Runs or steps."""
    succeeded: int = 0
    soft_failed: int = 0
    failed: int = 0
    unfinished: int = 0
    cost: Decimal = Decimal(0)
    currencies: set[str] = msgspec.field(default_factory=set)
    tokens: int = 0
    unpriced: int = 0
    """Calls missing from `cost`."""
    untotalled: int = 0
    """Calls missing from `tokens`."""
    durations: dict[int, int] = msgspec.field(default_factory=dict)
    """The number of durations of successes in each bucket, if they were read."""

    @property
    def ended(self) -> int:
        """The number of those that succeeded or failed."""
        return self.succeeded + self.soft_failed + self.failed


class WantedWindows(msgspec.Struct):
    """The windows to read, in order, and the parts that rules need of any of them."""

    windows: dict[Window, None] = msgspec.field(default_factory=dict)
    parts: set[Part] = msgspec.field(default_factory=set)
    timed_windows: dict[Window, None] = msgspec.field(default_factory=dict)
    """The windows whose durations are needed."""
    timed_parts: set[Part] = msgspec.field(default_factory=set)


class Measures:
    """The figures of windows, by parts of the workflow."""

    def __init__(self) -> None:
        """Create measures without any window."""
        self._rows: dict[tuple[bool, Window], list[Row[Any]]] = {}
        self._sums: dict[tuple[bool, Window, Part], Figures] = {}
        self.seconds: dict[int, float] = {}
        """The duration that each bucket stands for."""

    def read(
        self,
        connection: Connection,
        wanted: WantedWindows,
        *,
        of_steps: bool,
    ) -> None:
        """Read the figures of the runs, or the steps, of these windows.

        Args:
            connection: in a READ COMMITTED transaction.
            wanted: the windows, and their parts.
            of_steps: whether to read steps.
        """
        windows = list(wanted.windows)
        if not windows:
            return
        numbers = {window: number for number, window in enumerate(windows)}
        parameters = {
            "numbers": list(range(len(windows))),
            "workflow_ids": [window.workflow_id for window in windows],
            "begins": [window.begun for window in windows],
            "ends": [window.ended for window in windows],
            "with_durations": [numbers[window] for window in wanted.timed_windows],
            **_pieces(windows),
            **_flags("by", wanted.parts),
            **_flags("timed", wanted.timed_parts),
        }
        query: TextClause = _STEPS if of_steps else _RUNS
        buckets = set()
        for row in connection.execute(query, parameters).all():
            self._rows.setdefault((of_steps, windows[row[0]]), []).append(row)
            buckets.add(row[4])
        buckets -= {None, *self.seconds}
        if buckets:
            found = connection.execute(_BUCKETS, {"buckets": sorted(buckets)})
            self.seconds.update((row.bucket, row.seconds) for row in found)

    def figures(self, window: Window, part: Part, *, of_steps: bool) -> Figures:
        """Return the sums over a part of a window."""
        key = (of_steps, window, part)
        if (found := self._sums.get(key)) is None:
            rows = self._rows.get((of_steps, window), ())
            found = self._sums[key] = _sum(rows, part, of_steps=of_steps)
        return found


def overdue(
    connection: Connection, workflows: Sequence[str], at: datetime, patience: float
) -> Mapping[str, list[tuple[str | None, int, int]]]:
    """Return the open runs that take longer than usual, by workflow and organisation.

    For each organisation: their number, and the number of those whose read is `patience` seconds
    late, so that they may have ended.
    """
    found: dict[str, list[tuple[str | None, int, int]]] = {}
    parameters = {"workflow_ids": list(workflows), "at": at, "patience": patience}
    for row in connection.execute(_OVERDUE, parameters):
        found.setdefault(row.workflow_id, []).append((row.organisation, row.overdue, row.late))
    return found


def _pieces(windows: Iterable[Window]) -> dict[str, list[Any]]:
    """Return the parts of hours that lie only partly in a window, one for each hour."""
    found: dict[tuple[str, datetime], tuple[datetime, datetime]] = {}
    for window in windows:
        for hour in {window.begun.replace(minute=0), window.ended.replace(minute=0)}:
            begun, ended = max(window.begun, hour), min(window.ended, hour + _HOUR)
            if begun >= ended or ended - begun == _HOUR:
                continue
            key = (window.workflow_id, hour)
            other = found.get(key, (begun, ended))
            found[key] = (min(begun, other[0]), max(ended, other[1]))
    ordered = sorted(found.items())
    return {
        "piece_workflow_ids": [workflow_id for (workflow_id, _), _ in ordered],
        "piece_hours": [hour for (_, hour), _ in ordered],
        "piece_begins": [begun for _, (begun, _) in ordered],
        "piece_ends": [ended for _, (_, ended) in ordered],
    }


def _flags(prefix: str, parts: Iterable[Part]) -> dict[str, bool]:
    """Return which names distinguish rows, for `_by`."""
    names = {"organisation": "organization_id", "node": "node_id", "model": "model"}
    listed = list(parts)
    return {
        f"{prefix}_{column}": any(getattr(part, name) is not None for part in listed)
        for name, column in names.items()
    }


def _sum(rows: Iterable[Any], part: Part, *, of_steps: bool) -> Figures:
    found = Figures()
    durations = found.durations
    for row in rows:
        if (
            (part.organisation is not None and part.organisation != row[1])
            or (part.node is not None and part.node != row[2])
            or (part.model is not None and part.model != row[3])
        ):
            continue
        if (bucket := row[4]) is not None:
            durations[bucket] = durations.get(bucket, 0) + row[5]
            continue
        found.total += row[5]
        found.succeeded += row[6]
        found.soft_failed += row[7]
        found.failed += row[8]
        found.unfinished += row[9]
        if of_steps:
            if row.currency is not None:
                found.currencies.add(row.currency)
                found.cost += row.cost
            found.unpriced += row.unpriced
            found.tokens += row.tokens
            found.untotalled += row.untotalled
    return found

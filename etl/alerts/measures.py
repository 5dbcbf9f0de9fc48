"""The figures of windows: exact sums of whole hours from the rollups, and of the rest by minute.

An hour that lies only partly in a window, or that waits in the queue of the rollups, is counted
from its runs and steps, by the queries that compute the rollups. Each statement reads the rollups,
their queue and the rows in one snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, TextClause, text

from etl.alerts.rules import Slice
from etl.analytics import changed_groups, rollup_queries
from etl.usage import KINDS

# The hours to count from the rows: those at the edges of windows, and those that changed. OFFSET 0
# makes the planner go from each window to its hours by the key of the rollup.
_WITH = f"""
    WITH windows AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:numbers AS int[]), CAST(:workflow_ids AS text[]),
            CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[])
        ) AS w (number, workflow_id, begun, ended)
    ), counted_hours AS MATERIALIZED (
        SELECT workflow_id, hour
        FROM unnest(CAST(:edge_workflow_ids AS text[]), CAST(:edge_hours AS timestamptz[])
            ) AS e (workflow_id, hour)
        UNION
        SELECT q.workflow_id, q.hour
        FROM orchestra_etl.changed_groups AS q
        WHERE {changed_groups.COUNTABLE} AND q.workflow_id = ANY (CAST(:workflow_ids AS text[]))
          AND EXISTS (
              SELECT FROM windows AS w
              WHERE w.workflow_id = q.workflow_id
                AND q.hour > w.begun - interval '1 hour' AND q.hour < w.ended)
    ), minutes AS MATERIALIZED ({{counted}}), cells AS (
        SELECT w.number, r.*
        FROM windows AS w
        CROSS JOIN LATERAL (
            SELECT {{columns}} FROM orchestra.{{rollup}}
            WHERE workflow_id = w.workflow_id
              AND hour >= w.begun AND hour <= w.ended - interval '1 hour'
            OFFSET 0
        ) AS r
        -- Counts of pruned runs (ordinal < 0) are not in the rows.
        WHERE r.ordinal < 0 OR NOT EXISTS (
            SELECT FROM counted_hours AS g
            WHERE g.workflow_id = r.workflow_id AND g.hour = r.hour)
        UNION ALL
        SELECT w.number, m.*
        FROM windows AS w
        JOIN (SELECT {{columns}} FROM minutes) AS m
          ON m.workflow_id = w.workflow_id AND m.hour >= w.begun AND m.hour < w.ended
    )
"""
_GROUPS = "counted_hours AS g"
_KEY = ("workflow_id", "hour", "ordinal")

_RUNS = _WITH.format(
    counted=rollup_queries.run_rollup(rollup_queries.runs_of(_GROUPS), "minute"),
    rollup="run_rollup",
    columns=", ".join((*_KEY, "organization_id", *rollup_queries.RUN_COUNTS, "buckets", "counts")),
)
_STEPS = _WITH.format(
    counted=rollup_queries.step_rollup(rollup_queries.steps_of(_GROUPS), "minute"),
    rollup="step_rollup",
    columns=", ".join(
        (
            *_KEY,
            *rollup_queries.NODE,
            *rollup_queries.STEP_COUNTS,
            *rollup_queries.USAGE_SUMS,
            "buckets",
            "counts",
        )
    ),
)
_ENDED = "sum(succeeded) AS succeeded, sum(soft_failed) AS soft_failed, sum(failed) AS failed"

_RUN_COUNTS = text(f"""
    {_RUNS}
    SELECT number, organization_id AS organisation, sum(runs) AS total, {_ENDED},
           sum(unfinished) AS unfinished
    FROM cells
    GROUP BY 1, 2
""")

_ALL_STEPS = "succeeded + soft_failed + failed + cancelled + skipped + unfinished"
_STEP_COUNTS = text(f"""
    {_STEPS}
    SELECT number, organization_id AS organisation, node_id AS node, model,
           sum({_ALL_STEPS}) AS total, {_ENDED}, sum(unfinished) AS unfinished
    FROM cells
    GROUP BY 1, 2, 3, 4
""")

# The costs are those of the view `model_usage`: the price of a day applies to its hours.
_USED = ", ".join(f"s.{kind.name}" for kind in KINDS)
_CALLS = text(f"""
    {_STEPS}
    SELECT s.number, s.organization_id AS organisation, s.node_id AS node, s.model,
           CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
           sum(k.cost) AS cost,
           sum(CASE WHEN k.cost IS NULL THEN s.calls ELSE s.unmetered_calls END) AS unpriced,
           sum(s.total_tokens) AS tokens, sum(s.untotalled_calls) AS untotalled
    FROM cells AS s
    LEFT JOIN orchestra.prices AS p
      ON p.model = s.model AND s.calls > s.unmetered_calls
     AND orchestra.price_applies(p, s.service_tier, s.context_tier, s.hour)
    CROSS JOIN LATERAL (
        SELECT orchestra.call_cost(CAST(ROW({_USED}) AS orchestra.usage),
                                   s.calls - s.unmetered_calls, p) AS cost
        OFFSET 0
    ) AS k
    WHERE s.calls > 0
    GROUP BY 1, 2, 3, 4, 5
""")

_DURATIONS = """
    SELECT number, {names}, bucket, orchestra.bucket_duration(bucket) / 1000 AS seconds,
           sum(durations) AS durations
    FROM cells CROSS JOIN LATERAL unnest(buckets, counts) AS b (bucket, durations)
    GROUP BY {groups}
"""
_RUN_DURATIONS = text(
    _RUNS + _DURATIONS.format(names="organization_id AS organisation", groups="1, 2, 3")
)
_STEP_DURATIONS = text(
    _STEPS
    + _DURATIONS.format(
        names="organization_id AS organisation, node_id AS node, model", groups="1, 2, 3, 4, 5"
    )
)

# The runs that `orchestra.open_runs` calls overdue, with the same percentile, by one scan of the
# rollup for all workflows.
_OVERDUE = text("""
    WITH open AS MATERIALIZED (
        SELECT r.workflow_id, r.organization_id, l.attempts > 0
                   OR l.due_at < :at - make_interval(secs => :patience) AS late,
               CAST(extract(epoch FROM :at - COALESCE(r.start_time, r.first_seen_at)) * 1000
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


class Window(msgspec.Struct, frozen=True):
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
    durations: Counter[int] = msgspec.field(default_factory=Counter)
    """The number of durations of successes in each bucket."""

    @property
    def ended(self) -> int:
        """The number of those that succeeded or failed."""
        return self.succeeded + self.soft_failed + self.failed


class Cell(msgspec.Struct, frozen=True):
    """A row of figures, with the names that distinguish it within its window."""

    part: Slice
    figures: Figures


class Measures:
    """The figures of windows, by parts of the workflow."""

    def __init__(self, connection: Connection) -> None:
        """Read figures in this transaction, at READ COMMITTED."""
        self._connection = connection
        self._cells: dict[tuple[str, Window], list[Cell]] = {}
        self._sums: dict[tuple[str, Window, Slice], Figures] = {}
        self.seconds: dict[int, float] = {}
        """The duration that each bucket stands for."""

    def count(self, runs: Sequence[Window], steps: Sequence[Window]) -> None:
        """Read the counts of runs and steps in these windows."""
        for source, windows, query in (("runs", runs, _RUN_COUNTS), ("steps", steps, _STEP_COUNTS)):
            for window, row in self._rows(query, windows):
                figures = Figures(
                    total=int(row.total),
                    succeeded=int(row.succeeded),
                    soft_failed=int(row.soft_failed),
                    failed=int(row.failed),
                    unfinished=int(row.unfinished),
                )
                self._add(source, window, row, figures)

    def add_calls(self, windows: Sequence[Window]) -> None:
        """Read the usage and the costs of the calls in these windows."""
        for window, row in self._rows(_CALLS, windows):
            figures = Figures(
                cost=row.cost or Decimal(0),
                currencies=set() if row.currency is None else {row.currency},
                tokens=int(row.tokens or 0),
                unpriced=int(row.unpriced),
                untotalled=int(row.untotalled),
            )
            self._add("calls", window, row, figures)

    def add_durations(self, runs: Sequence[Window], steps: Sequence[Window]) -> None:
        """Read the durations of successes in these windows."""
        for source, windows, query in (
            ("run durations", runs, _RUN_DURATIONS),
            ("step durations", steps, _STEP_DURATIONS),
        ):
            for window, row in self._rows(query, windows):
                self.seconds[row.bucket] = row.seconds
                figures = Figures(durations=Counter({row.bucket: int(row.durations)}))
                self._add(source, window, row, figures)

    def figures(self, source: str, window: Window, part: Slice) -> Figures:
        """Return the sums over a part of a window: of `runs`, `steps`, `calls` or durations."""
        key = (source, window, part)
        if (found := self._sums.get(key)) is None:
            cells = self._cells.get((source, window), ())
            found = self._sums[key] = _sum(
                cell.figures for cell in cells if _is_part(cell.part, part)
            )
        return found

    def _add(self, source: str, window: Window, row: Row[Any], figures: Figures) -> None:
        part = Slice(row.organisation, getattr(row, "node", None), getattr(row, "model", None))
        self._cells.setdefault((source, window), []).append(Cell(part, figures))

    def _rows(
        self, query: TextClause, windows: Sequence[Window]
    ) -> Iterable[tuple[Window, Row[Any]]]:
        if not windows:
            return
        edges = sorted(
            {
                (window.workflow_id, hour)
                for window in windows
                for time in (window.begun, window.ended)
                if (hour := time.replace(minute=0)) != time
            }
        )
        parameters = {
            "numbers": list(range(len(windows))),
            "workflow_ids": [window.workflow_id for window in windows],
            "begins": [window.begun for window in windows],
            "ends": [window.ended for window in windows],
            "edge_workflow_ids": [workflow_id for workflow_id, _ in edges],
            "edge_hours": [hour for _, hour in edges],
        }
        for row in self._connection.execute(query, parameters):
            yield windows[row.number], row


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


def _is_part(cell: Slice, part: Slice) -> bool:
    return (
        (part.organisation is None or part.organisation == cell.organisation)
        and (part.node is None or part.node == cell.node)
        and (part.model is None or part.model == cell.model)
    )


def _sum(figures: Iterable[Figures]) -> Figures:
    total = Figures()
    for one in figures:
        total.total += one.total
        total.succeeded += one.succeeded
        total.soft_failed += one.soft_failed
        total.failed += one.failed
        total.unfinished += one.unfinished
        total.cost += one.cost
        total.currencies |= one.currencies
        total.tokens += one.tokens
        total.unpriced += one.unpriced
        total.untotalled += one.untotalled
        total.durations.update(one.durations)
    return total

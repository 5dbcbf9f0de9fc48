"""How the service is doing, from what the ledger knows: per workflow, with a verdict for monitors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from sqlalchemy import Connection, Row, text

Verdict = Literal["ok", "warning", "failing"]
_GRAVITY: tuple[Verdict, ...] = ("ok", "warning", "failing")


class Watched(msgspec.Struct, frozen=True):
    """What is expected of a workflow."""

    id: str
    name: str | None = None
    discover: bool = True
    """Whether its run list is swept."""
    max_age: float = 7200.0
    """Seconds for which it may go without a complete sweep, and a live run without being read, before that is a failure."""


class Reason(msgspec.Struct, frozen=True):
    """Why a verdict is not `ok`."""

    level: Literal["warning", "failing"]
    text: str


class Freshness(msgspec.Struct, frozen=True):
    """How new the newest data is."""

    newest_run: datetime | None
    """Start of the newest run that is stored."""
    newest_run_age: float | None
    """Seconds since then."""
    last_complete_sweep: datetime | None
    last_complete_sweep_age: float | None
    """Seconds since then."""


class Lag(msgspec.Struct, frozen=True):
    """What waits to be read."""

    due: int
    """Runs due now, those being read included."""
    oldest_due: datetime | None
    oldest_live_due: datetime | None
    """The same without backfill, which waits for its turn by design."""
    unread: int
    """Runs that are known and were never read so far."""


class Gap(msgspec.Struct, frozen=True):
    """A time in which runs may have been missed."""

    id: int
    after: datetime | None
    before: datetime | None
    acknowledged: bool


class Coverage(msgspec.Struct, frozen=True):
    """Every run that started from `since` to `until` is known, except in the gaps."""

    since: datetime | None
    """Start of the oldest run that a complete sweep listed and that is stored."""
    until: datetime | None
    """When the last complete sweep began; None: there was none."""
    gaps: int
    unacknowledged_gaps: int
    newest_gaps: tuple[Gap, ...]


class Headroom(msgspec.Struct, frozen=True):
    """How much of the listable window the last sweep found new: beyond all of it, runs are missed."""

    new_runs: int | None
    listable: int | None
    """Rows that the last walk of the whole list saw."""
    window_full: bool
    """Whether more runs are known than the list shows, so that new runs push old ones out of it."""


class Runs(msgspec.Struct, frozen=True):
    """Runs in the ledger by how they are tracked."""

    open: int
    final: int
    stale: int
    gone: int
    gone_unread: int
    """Those of `gone` that the API forgot before they were ever read."""


class Failing(msgspec.Struct, frozen=True):
    """Runs whose last read failed and will be tried again."""

    runs: int
    example_run: str | None
    """The one that has failed most often in a row."""
    example_error: str | None


class DriftExample(msgspec.Struct, frozen=True):
    """One difference between the API's answers and its description."""

    subject: str
    field: str
    kind: str
    found: str
    occurrences: int


class WorkflowStatus(msgspec.Struct, frozen=True):
    """How one workflow is doing."""

    id: str
    name: str | None
    configured: bool
    verdict: Verdict
    reasons: tuple[Reason, ...]
    freshness: Freshness
    lag: Lag
    coverage: Coverage
    headroom: Headroom
    runs: Runs
    failing: Failing
    dead_letters: int
    """Open ones."""
    drift: int
    drift_examples: tuple[DriftExample, ...]
    last_sweep_error: str | None
    discover: bool


class Unconfigured(msgspec.Struct, frozen=True):
    """A workflow that the API showed and that the configuration does not name."""

    id: str
    name: str | None


class Status(msgspec.Struct, frozen=True):
    """How everything is doing."""

    at: datetime
    """Database time."""
    verdict: Verdict
    workflows: tuple[WorkflowStatus, ...]
    unconfigured: tuple[Unconfigured, ...]


# Everything is read in one statement each, by workflow: the ledger may hold millions of runs, nearly all of them final.
# `counted` is an index-only scan; the LATERAL parts touch only what is not final, or one end of an index.
_WORKFLOWS = text("""
    WITH counted AS MATERIALIZED (
        SELECT workflow_id,
               count(*) FILTER (WHERE tracking = 'open') AS open,
               count(*) FILTER (WHERE tracking = 'final') AS final,
               count(*) FILTER (WHERE tracking = 'stale') AS stale,
               count(*) FILTER (WHERE tracking = 'gone') AS gone,
               count(*) AS known
        FROM orchestra_etl.run_ledger
        GROUP BY workflow_id
    ), due AS (
        SELECT workflow_id, count(*) AS due, min(due_at) AS oldest_due,
               min(due_at) FILTER (WHERE priority = 0) AS oldest_live_due
        FROM orchestra_etl.run_ledger
        WHERE due_at <= now()
        GROUP BY workflow_id
    ), relevant AS (
        SELECT id FROM unnest(CAST(:configured AS text[])) AS c (id)
        UNION SELECT workflow_id FROM counted
        UNION SELECT workflow_id FROM orchestra_etl.sweeps
    )
    SELECT relevant.id, w.name, now() AS at,
           COALESCE(counted.open, 0) AS open, COALESCE(counted.final, 0) AS final, COALESCE(counted.stale, 0) AS stale,
           COALESCE(counted.gone, 0) AS gone, COALESCE(counted.known, 0) AS known,
           COALESCE(due.due, 0) AS due, due.oldest_due, due.oldest_live_due,
           s.started_at, s.completed_at, s.new_runs, s.listed_runs, s.last_error, s.leased_until > now() AS sweeping,
           -- A sweep vouches for what had started before it began. The last one begun is the last complete one exactly
           -- where it began before that was complete; otherwise only the end of the complete one is still known.
           CASE WHEN s.watermark > 0 THEN LEAST(s.started_at, s.completed_at) END AS complete_until,
           (SELECT max(r.start_time) FROM orchestra.runs AS r WHERE r.workflow_id = relevant.id) AS newest_run,
           oldest.start_time AS complete_since,
           unsettled.unread, unsettled.gone_unread, unsettled.failing,
           worst.run_id AS failing_run, worst.last_error AS failing_error,
           (SELECT count(*) FROM orchestra_etl.dead_letters AS d
            WHERE d.workflow_id = relevant.id AND d.resolved_at IS NULL) AS dead_letters,
           (SELECT count(*) FROM orchestra_etl.drift AS d WHERE d.workflow_id = relevant.id) AS drift,
           gaps.all AS gaps, gaps.unacknowledged AS unacknowledged_gaps
    FROM relevant
    LEFT JOIN orchestra.workflows AS w ON w.id = relevant.id
    LEFT JOIN counted ON counted.workflow_id = relevant.id
    LEFT JOIN due ON due.workflow_id = relevant.id
    LEFT JOIN orchestra_etl.sweeps AS s ON s.workflow_id = relevant.id
    LEFT JOIN LATERAL (
        SELECT r.start_time
        FROM orchestra.runs AS r
        JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
        WHERE r.workflow_id = relevant.id AND r.start_time IS NOT NULL AND l.listed_sweep <= s.watermark
        ORDER BY r.start_time
        LIMIT 1
    ) AS oldest ON true
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE steps_observed_at IS NULL AND tracking <> 'gone') AS unread,
               count(*) FILTER (WHERE steps_observed_at IS NULL AND tracking = 'gone') AS gone_unread,
               count(*) FILTER (WHERE attempts > 0 AND tracking <> 'gone') AS failing
        FROM orchestra_etl.run_ledger AS l
        WHERE l.workflow_id = relevant.id AND l.tracking IN ('open', 'stale', 'gone')
    ) AS unsettled
    LEFT JOIN LATERAL (
        SELECT l.run_id, l.last_error
        FROM orchestra_etl.run_ledger AS l
        WHERE l.workflow_id = relevant.id AND l.tracking IN ('open', 'stale') AND l.attempts > 0
        ORDER BY l.attempts DESC, l.run_id
        LIMIT 1
    ) AS worst ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS all, count(*) FILTER (WHERE acknowledged_at IS NULL) AS unacknowledged
        FROM orchestra_etl.gaps AS g
        WHERE g.workflow_id = relevant.id
    ) AS gaps
    ORDER BY w.name, relevant.id
""")

_NEWEST_GAPS = text("""
    SELECT workflow_id, id, after_time, before_time, acknowledged_at IS NOT NULL AS acknowledged
    FROM (SELECT *, row_number() OVER (PARTITION BY workflow_id ORDER BY id DESC) AS place FROM orchestra_etl.gaps) AS g
    WHERE place <= 5
    ORDER BY id
""")

_DRIFT = text("""
    SELECT workflow_id, subject, field, kind, found, occurrences
    FROM (SELECT *, row_number() OVER (PARTITION BY workflow_id ORDER BY last_seen_at DESC, field) AS place
          FROM orchestra_etl.drift) AS d
    WHERE place <= 5
    ORDER BY subject, field, kind, found
""")

_UNCONFIGURED = text("""
    SELECT id, name FROM orchestra.workflows WHERE NOT id = ANY (CAST(:configured AS text[])) ORDER BY name, id
""")


def read(
    connection: Connection, watched: Sequence[Watched], *, all_workflows: bool = False, max_age: float = 7200.0
) -> Status:
    """Read how everything is doing.

    Args:
        connection: in a transaction.
        watched: the configured workflows.
        all_workflows: whether workflows that are not configured are swept, too.
        max_age: as in `Watched`, for workflows that are known and not configured.
    """
    by_id = {one.id: one for one in watched}
    parameters = {"configured": list(by_id)}
    gaps: dict[str, list[Gap]] = {}
    for row in connection.execute(_NEWEST_GAPS):
        gaps.setdefault(row.workflow_id, []).append(Gap(row.id, row.after_time, row.before_time, row.acknowledged))
    drift: dict[str, list[DriftExample]] = {}
    for row in connection.execute(_DRIFT):
        example = DriftExample(row.subject, row.field, row.kind, row.found, row.occurrences)
        drift.setdefault(row.workflow_id, []).append(example)
    workflows = tuple(
        _workflow(
            row,
            by_id.get(row.id, Watched(row.id, discover=all_workflows, max_age=max_age)),
            configured=row.id in by_id,
            newest_gaps=gaps.get(row.id, ()),
            drift_examples=drift.get(row.id, ()),
        )
        for row in connection.execute(_WORKFLOWS, parameters)
    )
    unconfigured = () if all_workflows else connection.execute(_UNCONFIGURED, parameters).all()
    return Status(
        at=connection.execute(text("SELECT now()")).scalar_one(),
        verdict=_worst([workflow.verdict for workflow in workflows]) if workflows else "warning",
        workflows=workflows,
        unconfigured=tuple(Unconfigured(row.id, row.name) for row in unconfigured),
    )


def _workflow(
    row: Row[tuple[object, ...]],
    watched: Watched,
    *,
    configured: bool,
    newest_gaps: Sequence[Gap],
    drift_examples: Sequence[DriftExample],
) -> WorkflowStatus:
    reasons = _reasons(row, watched)
    return WorkflowStatus(
        id=row.id,
        name=watched.name or row.name,
        configured=configured,
        verdict=_worst([reason.level for reason in reasons]),
        reasons=reasons,
        freshness=Freshness(
            row.newest_run,
            _seconds_between(row.newest_run, row.at),
            row.completed_at,
            _seconds_between(row.completed_at, row.at),
        ),
        lag=Lag(row.due, row.oldest_due, row.oldest_live_due, row.unread),
        coverage=Coverage(
            row.complete_since, row.complete_until, row.gaps, row.unacknowledged_gaps, tuple(newest_gaps)
        ),
        headroom=Headroom(row.new_runs, row.listed_runs, _window_full(row)),
        runs=Runs(row.open, row.final, row.stale, row.gone, row.gone_unread),
        failing=Failing(row.failing, row.failing_run, row.failing_error),
        dead_letters=row.dead_letters,
        drift=row.drift,
        drift_examples=tuple(drift_examples),
        last_sweep_error=row.last_error,
        discover=watched.discover,
    )


def _reasons(row: Row[tuple[object, ...]], watched: Watched) -> tuple[Reason, ...]:
    """Failing: data does not arrive. Warning: somebody should look."""
    reasons: list[Reason] = []
    overdue = row.at - timedelta(seconds=watched.max_age)
    if watched.discover:
        if row.completed_at is None:
            if row.last_error is not None:
                reasons.append(Reason("failing", f"no sweep has been complete yet; the last one: {row.last_error}"))
            elif not row.sweeping:
                reasons.append(
                    Reason("warning", "not swept yet: start `orchestra-etl serve`, or run `orchestra-etl sync`")
                )
        elif row.completed_at < overdue:
            why = row.last_error or "check that the service runs"
            reasons.append(Reason("failing", f"no complete sweep since {_instant(row.completed_at)}: {why}"))
        elif row.last_error is not None:
            reasons.append(Reason("warning", f"the last sweep failed: {row.last_error}"))
    if row.oldest_live_due is not None and row.oldest_live_due < overdue:
        reasons.append(
            Reason(
                "failing",
                f"runs have waited to be read since {_instant(row.oldest_live_due)}: check that the service runs",
            )
        )
    if row.failing:
        reasons.append(
            Reason("warning", f"reading fails for runs: {row.failing:,} (`orchestra-etl runs show` tells why)")
        )
    if row.unacknowledged_gaps:
        reasons.append(
            Reason("warning", f"gaps not acknowledged: {row.unacknowledged_gaps:,} (`orchestra-etl gaps list`)")
        )
    if row.dead_letters:
        reasons.append(Reason("warning", f"dead letters: {row.dead_letters:,} (`orchestra-etl dead-letters list`)"))
    if _window_full(row) and row.new_runs is not None and 2 * row.new_runs > row.listed_runs:
        reasons.append(
            Reason(
                "warning",
                f"the last sweep found {row.new_runs:,} new runs where the list shows {row.listed_runs:,}: sweep more often",
            )
        )
    return tuple(reasons)


def _window_full(row: Row[tuple[object, ...]]) -> bool:
    return row.listed_runs is not None and row.known > row.listed_runs


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    return max(verdicts, key=_GRAVITY.index, default="ok")


def _seconds_between(earlier: datetime | None, later: datetime) -> float | None:
    return None if earlier is None else (later - earlier).total_seconds()


def _instant(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"

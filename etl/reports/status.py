"""The status of every workflow, derived from the ledger, with a verdict for monitors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Row, text

from etl.identifiers import is_path_segment
from etl.ledger import rebuilds
from etl.reports.alerts import AlertsStatus, read_alerts
from etl.reports.lake import LakeProgress, read_lake
from etl.reports.verdict import Reason, Verdict, WatchedWorkflow, reasons_of, worst


class Freshness(msgspec.Struct, frozen=True):
    """The age of the newest data."""

    newest_run_start: datetime | None
    """Start of the newest stored run."""
    newest_run_age: float | None
    """Seconds since `newest_run_start`."""
    swept_at: datetime | None
    swept_age: float | None
    """Seconds since `swept_at`."""


class Lag(msgspec.Struct, frozen=True):
    """The runs that wait for a read."""

    due: int
    """Runs due now, including those being read."""
    oldest_due: datetime | None
    oldest_live_due: datetime | None
    """The oldest due time of live runs: backfill waits for them by design."""
    unread: int
    """Runs that are known but were never read."""


class CoverageGap(msgspec.Struct, frozen=True):
    """A time in which runs may have been missed."""

    id: int
    after: datetime | None
    before: datetime | None
    acknowledged: bool


class Coverage(msgspec.Struct, frozen=True):
    """Every run from `complete_since` to `complete_until` is known, except in the gaps."""

    complete_since: datetime | None
    """Start of the oldest run that a complete sweep listed and that is stored."""
    complete_until: datetime | None
    """When the last complete sweep began; None: no sweep has completed."""
    gaps: int
    unacknowledged_gaps: int
    newest_gaps: tuple[CoverageGap, ...]
    reconciled_at: datetime | None
    """When the last full walk began, which compares the list with the ledger and the tables."""
    repaired_runs: int
    """Runs that the last full walk found missing from the tables; they are read again."""
    conflicting_runs: int
    """Runs that are not stored because another workflow has a run with the same id."""


class Headroom(msgspec.Struct, frozen=True):
    """New runs at the last sweep, and listed runs: if all listed runs are new, runs are missed."""

    new_runs: int | None
    listed_runs: int | None
    """Rows of the list at the last full walk."""
    window_full: bool
    """Whether more runs are known than listed, so that new runs push old ones off the list."""


class RunCounts(msgspec.Struct, frozen=True):
    """Numbers of runs in the ledger, by tracking."""

    open: int
    final: int
    stale: int
    gone: int
    lost: int
    """The runs among `gone` that the API forgot before they were ever read."""
    removed: int
    """Runs that were erased or pruned."""


class FailingRuns(msgspec.Struct, frozen=True):
    """Runs whose last read failed and that will be retried."""

    runs: int
    example_run: str | None
    """The run with the most failures in a row."""
    example_error: str | None


class DriftExample(msgspec.Struct, frozen=True):
    """A difference between the API's responses and its description."""

    subject: str
    field: str
    kind: str
    found: str
    occurrences: int


class WorkflowStatus(msgspec.Struct, frozen=True):
    """The status of one workflow."""

    id: str
    name: str | None
    configured: bool
    verdict: Verdict
    reasons: tuple[Reason, ...]
    freshness: Freshness
    lag: Lag
    coverage: Coverage
    headroom: Headroom
    runs: RunCounts
    failing: FailingRuns
    dead_letters: int
    """Number of open dead letters."""
    drift: int
    """Number of different kinds of drift, not of their occurrences."""
    drift_examples: tuple[DriftExample, ...]
    last_sweep_error: str | None
    list_problem: str | None
    """How the run list deviates from the API's description."""
    discover: bool
    """Whether the run list is swept."""


class Unconfigured(msgspec.Struct, frozen=True):
    """A workflow that the API showed but the configuration does not name."""

    id: str
    name: str | None


class Status(msgspec.Struct, frozen=True):
    """The status of all workflows."""

    at: datetime
    """Database time."""
    verdict: Verdict
    workflows: tuple[WorkflowStatus, ...]
    unconfigured: tuple[Unconfigured, ...]
    unusable_workflows: int = 0
    """Open dead letters for workflows that the API lists with an unusable id."""
    rebuild: rebuilds.PendingRebuild | None = None
    """Stored steps that the newest rules have not read yet; None: there are none."""
    alerts: AlertsStatus = AlertsStatus()
    """The alerts on runs. They do not change the verdict, which is about the pipeline."""
    lake: LakeProgress | None = None
    """What waits for an export, which does not change the verdict; None: there is no lake."""


# One statement reads each figure for all workflows: the ledger may hold millions of runs, nearly
# all of them final. `orchestra.coverage` counts them with an index-only scan. The LATERAL parts
# touch only runs that are not final, or one end of an index.
_WORKFLOWS = text("""
    WITH covered AS MATERIALIZED (
        SELECT * FROM orchestra.coverage
    ), due AS (
        SELECT workflow_id, count(*) AS due, min(due_at) AS oldest_due,
               min(due_at) FILTER (WHERE priority = 0) AS oldest_live_due
        FROM orchestra_etl.run_ledger
        WHERE due_at <= now()
        GROUP BY workflow_id
    ), relevant AS (
        SELECT id FROM unnest(CAST(:configured AS text[])) AS c (id)
        UNION SELECT workflow_id FROM covered
        UNION SELECT workflow_id FROM orchestra_etl.dead_letters
              WHERE resolved_at IS NULL AND workflow_id <> ''
    )
    SELECT relevant.id, w.name, now() AS at,
           COALESCE(c.open_runs, 0) AS open, COALESCE(c.final_runs, 0) AS final,
           COALESCE(c.stale_runs, 0) AS stale, COALESCE(c.gone_runs, 0) AS gone,
           COALESCE(c.removed_runs, 0) AS removed,
           COALESCE(c.unread_runs, 0) AS unread, COALESCE(c.lost_runs, 0) AS lost,
           COALESCE(due.due, 0) AS due, due.oldest_due, due.oldest_live_due,
           c.swept_at, c.reconciled_at, c.repaired_runs, c.new_runs, c.listed_runs,
           COALESCE(c.window_full, false) AS window_full, c.complete_since, c.complete_until,
           COALESCE(c.conflicting_runs, 0) AS conflicting_runs,
           COALESCE(c.gaps, 0) AS gaps, COALESCE(c.unacknowledged_gaps, 0) AS unacknowledged_gaps,
           s.last_error, s.list_problem, s.leased_until > now() AS sweeping,
           (SELECT max(r.start_time) FROM orchestra.runs AS r
            WHERE r.workflow_id = relevant.id) AS newest_run_start,
           (SELECT count(*) FROM orchestra_etl.run_ledger AS l
            WHERE l.workflow_id = relevant.id AND l.tracking IN ('open', 'stale') AND l.attempts > 0
              AND l.due_at IS NOT NULL) AS failing,
           worst.run_id AS failing_run, worst.last_error AS failing_error,
           (SELECT count(*) FROM orchestra_etl.dead_letters AS d
            WHERE d.workflow_id = relevant.id AND d.resolved_at IS NULL) AS dead_letters,
           (SELECT count(*) FROM orchestra_etl.drift AS d
            WHERE d.workflow_id = relevant.id) AS drift,
           (SELECT count(DISTINCT q.hour) FROM orchestra_etl.changed_groups AS q
            WHERE q.workflow_id = relevant.id AND q.failed_at IS NOT NULL) AS stuck_hours
    FROM relevant
    LEFT JOIN orchestra.workflows AS w ON w.id = relevant.id
    LEFT JOIN covered AS c ON c.workflow_id = relevant.id
    LEFT JOIN due ON due.workflow_id = relevant.id
    LEFT JOIN orchestra_etl.sweeps AS s ON s.workflow_id = relevant.id
    LEFT JOIN LATERAL (
        SELECT l.run_id, l.last_error
        FROM orchestra_etl.run_ledger AS l
        WHERE l.workflow_id = relevant.id AND l.tracking IN ('open', 'stale') AND l.attempts > 0
          AND l.due_at IS NOT NULL
        ORDER BY l.attempts DESC, l.run_id
        LIMIT 1
    ) AS worst ON true
    ORDER BY w.name, relevant.id
""")

_NEWEST_GAPS = text("""
    SELECT workflow_id, id, after_time, before_time, acknowledged_at IS NOT NULL AS acknowledged
    FROM (SELECT *, row_number() OVER (PARTITION BY workflow_id ORDER BY id DESC) AS ordinal
          FROM orchestra_etl.gaps) AS g
    WHERE ordinal <= 5
    ORDER BY id
""")

_DRIFT = text("""
    SELECT workflow_id, subject, field, kind, found, occurrences
    FROM (SELECT *, row_number() OVER (
              PARTITION BY workflow_id ORDER BY last_seen_at DESC, field) AS ordinal
          FROM orchestra_etl.drift) AS d
    WHERE ordinal <= 5
    ORDER BY subject, field, kind, found
""")

_UNCONFIGURED = text("""
    SELECT id, name FROM orchestra.workflows
    WHERE NOT id = ANY (CAST(:configured AS text[]))
    ORDER BY name, id
""")


_UNUSABLE = text(
    "SELECT count(*) FROM orchestra_etl.dead_letters WHERE workflow_id = '' AND resolved_at IS NULL"
)


def read(
    connection: Connection,
    watched: Sequence[WatchedWorkflow],
    *,
    all_workflows: bool,
    max_age: float,
    rules: Sequence[str] = (),
    channels: Sequence[str] = (),
) -> Status:
    """Read the status of all workflows.

    Args:
        connection: in a transaction.
        watched: the configured workflows.
        all_workflows: whether workflows that are not configured are swept too.
        max_age: `WatchedWorkflow.max_age`, in seconds, for workflows that are not configured.
        rules: the names of the configured rules of alerts.
        channels: the names of the configured channels.
    """
    by_id = {one.id: one for one in watched}
    parameters = {"configured": list(by_id)}
    gaps: dict[str, list[CoverageGap]] = {}
    for row in connection.execute(_NEWEST_GAPS):
        gaps.setdefault(row.workflow_id, []).append(
            CoverageGap(row.id, row.after_time, row.before_time, row.acknowledged)
        )
    drift: dict[str, list[DriftExample]] = {}
    for row in connection.execute(_DRIFT):
        example = DriftExample(
            subject=row.subject,
            field=row.field,
            kind=row.kind,
            found=row.found,
            occurrences=row.occurrences,
        )
        drift.setdefault(row.workflow_id, []).append(example)
    workflows = tuple(
        _workflow(
            row,
            by_id.get(
                row.id,
                WatchedWorkflow(
                    row.id, max_age, discover=all_workflows and is_path_segment(row.id)
                ),
            ),
            configured=row.id in by_id,
            newest_gaps=gaps.get(row.id, ()),
            drift_examples=drift.get(row.id, ()),
        )
        for row in connection.execute(_WORKFLOWS, parameters)
    )
    unconfigured = () if all_workflows else connection.execute(_UNCONFIGURED, parameters).all()
    unusable = connection.execute(_UNUSABLE).scalar_one()
    rebuild = rebuilds.due(connection)
    verdicts: list[Verdict] = [workflow.verdict for workflow in workflows]
    return Status(
        at=connection.execute(text("SELECT now()")).scalar_one(),
        verdict=worst([*verdicts, "warning"] if unusable or rebuild or not verdicts else verdicts),
        workflows=workflows,
        unconfigured=tuple(Unconfigured(row.id, row.name) for row in unconfigured),
        unusable_workflows=unusable,
        rebuild=rebuild,
        alerts=read_alerts(connection, rules, channels),
        lake=read_lake(connection),
    )


def _workflow(
    row: Row[tuple[object, ...]],
    watched: WatchedWorkflow,
    *,
    configured: bool,
    newest_gaps: Sequence[CoverageGap],
    drift_examples: Sequence[DriftExample],
) -> WorkflowStatus:
    reasons = reasons_of(row, watched)
    return WorkflowStatus(
        id=row.id,
        name=watched.name or row.name,
        configured=configured,
        verdict=worst([reason.level for reason in reasons]),
        reasons=reasons,
        freshness=Freshness(
            row.newest_run_start,
            _seconds_between(row.newest_run_start, row.at),
            row.swept_at,
            _seconds_between(row.swept_at, row.at),
        ),
        lag=Lag(row.due, row.oldest_due, row.oldest_live_due, row.unread),
        coverage=Coverage(
            complete_since=row.complete_since,
            complete_until=row.complete_until,
            gaps=row.gaps,
            unacknowledged_gaps=row.unacknowledged_gaps,
            newest_gaps=tuple(newest_gaps),
            reconciled_at=row.reconciled_at,
            repaired_runs=row.repaired_runs or 0,
            conflicting_runs=row.conflicting_runs,
        ),
        headroom=Headroom(row.new_runs, row.listed_runs, row.window_full),
        runs=RunCounts(
            open=row.open,
            final=row.final,
            stale=row.stale,
            gone=row.gone,
            lost=row.lost,
            removed=row.removed,
        ),
        failing=FailingRuns(row.failing, row.failing_run, row.failing_error),
        dead_letters=row.dead_letters,
        drift=row.drift,
        drift_examples=tuple(drift_examples),
        last_sweep_error=row.last_error,
        list_problem=row.list_problem,
        discover=watched.discover,
    )


def _seconds_between(earlier: datetime | None, later: datetime) -> float | None:
    return None if earlier is None else (later - earlier).total_seconds()

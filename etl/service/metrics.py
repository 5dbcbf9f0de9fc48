"""The service's metrics for Prometheus.

Counters and histograms belong to this process and start at zero with it. Gauges that are read from
the database are the same in every replica. They are cleared while the database does not respond,
and `orchestra_etl_status_timestamp_seconds` shows how old they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from etl.pipeline.loading import LoadReport
from etl.pipeline.sweep import SweepReport
from etl.reports.lake import LakeProgress
from etl.reports.status import Status, WorkflowStatus
from etl.terminal import plain

# Seconds. A response takes from milliseconds to the deadline of a minute, a load from a fraction of
# a second to the statement timeout.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A batch is about 2,000 steps unless there is less to load.
_STEPS = (1, 10, 100, 500, 1000, 2000, 5000, 20_000)
_VERDICTS = {"ok": 0, "warning": 1, "failing": 2}


class _Figure(NamedTuple):
    """A gauge of the workflows' status."""

    name: str
    help: str


_STATUS = (
    _Figure("open_runs", "Runs that are polled until they are final"),
    _Figure("stale_runs", "Runs open for longer than polling.give_up_after"),
    _Figure("due_runs", "Runs due to be read now, including those being read"),
    _Figure(
        "lag_seconds",
        "Seconds that the oldest due live run has waited to be read; 0 if none is due",
    ),
    _Figure("unread_runs", "Known runs that have never been read"),
    _Figure("failing_runs", "Runs whose last read failed and that will be read again"),
    _Figure("dead_letters", "Open dead letters"),
    _Figure(
        "conflicting_runs", "Runs not stored because another workflow has a run with the same id"
    ),
    _Figure("gaps", "Gaps that are not acknowledged"),
    _Figure("drift", "Kinds of difference between the API's responses and its description"),
    _Figure("listed_runs", "Runs in the list at the last walk of the whole list"),
    _Figure(
        "list_headroom_ratio",
        "Share of the run list that was not new at the last sweep; 1 while the list is not full",
    ),
    _Figure(
        "swept_timestamp_seconds",
        "Unix time at which the last complete sweep of the run list ended",
    ),
    _Figure(
        "newest_run_start_timestamp_seconds", "Unix time at which the newest stored run started"
    ),
    _Figure("verdict", "What `orchestra-etl status` says: 0 ok, 1 warning, 2 failing"),
)


class Metrics:
    """The metrics of one service process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Info(
            "orchestra_etl_build", "The version of the running service", registry=self.registry
        ).info({"version": version("orchestra-etl")})
        self._requests = self._counter(
            "requests",
            "Requests to the API, retries included, by endpoint and by HTTP status, "
            "or `timeout`, `broken` or `cancelled` without a complete response",
            "endpoint",
            "status",
        )
        self._request_seconds = self._histogram(
            "request_duration_seconds",
            "Seconds from the start of a request, or of a retry, to the end of its response",
            _SECONDS,
            "endpoint",
        )
        self._runs = self._counter("runs_read", "Reads of runs that were loaded, changed or not")
        self._steps = self._counter(
            "steps",
            "Steps of the loaded reads by what the load changed: `unchanged` includes those that "
            "the database refused, `absent` are stored steps missing from the response",
            "change",
        )
        self._failed = self._counter(
            "reads_failed", "Reads of runs without a usable response, status 404 included"
        )
        self._superseded = self._counter(
            "readings_superseded",
            "Responses discarded because their claim no longer held when they were loaded",
        )
        self._dead_letters = self._counter("dead_letters_recorded", "New dead letters")
        self._batch = self._histogram("load_batch_steps", "Steps in a batch", _STEPS)
        self._load_seconds = self._histogram(
            "load_duration_seconds",
            "Seconds to load a batch, including its parts if the database refused it as a whole",
            _SECONDS,
        )
        self._sweeps = self._counter(
            "sweeps",
            "Sweeps of run lists by whether they were complete; those that failed are not counted",
            "workflow",
            "complete",
        )
        self._new = self._counter("runs_found", "Runs found new by sweeps", "workflow")
        self._gaps = self._counter(
            "gaps_found", "New gaps found by sweeps: runs may have been missed", "workflow"
        )
        self._notifications = self._counter(
            "alert_notifications",
            "Attempts to deliver a message about an alert, by channel and by result: `delivered` "
            "or `failed`",
            "channel",
            "result",
        )
        self._alerts_firing = self._gauge(
            "alert_firing",
            "Workflows, or other subjects of the rule, for which the alert on runs fires now",
            "name",
        )
        self._undelivered = self._gauge(
            "alert_notifications_undelivered",
            "Messages about alerts that wait for another attempt to deliver them",
            "channel",
        )
        self._lake = {
            name: self._gauge(name, help, "namespace")
            for name, help in (
                ("lake_days_waiting", "Days that wait for an export to the lake"),
                (
                    "lake_oldest_wait_seconds",
                    "Seconds that the first waiting day has waited for an export; 0 if none waits",
                ),
                (
                    "lake_exported_timestamp_seconds",
                    "Unix time at which the last complete export to the lake ended",
                ),
            )
        }
        self._waiting = self._gauge(
            "rollup_groups_waiting",
            "Queued changes that the rollups do not count yet, and groups that cannot be computed",
        )
        self._ready = self._gauge(
            "ready", "1 while the service can work, otherwise 0; the same as /readyz"
        )
        self._connections = self._gauge(
            "database_connections", "Connections of the pool by use", "use"
        )
        self._status_at = self._gauge(
            "status_timestamp_seconds",
            "Unix time at which the figures by workflow were last read from the database",
        )
        self._status = {one.name: self._gauge(one.name, one.help, "workflow") for one in _STATUS}

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"orchestra_etl_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"orchestra_etl_{name}", help, labels, registry=self.registry)

    def _histogram(
        self, name: str, help: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"orchestra_etl_{name}", help, labels, buckets=buckets, registry=self.registry
        )

    def count_request(self, endpoint: str, status: str, seconds: float) -> None:
        """Count a request by endpoint and status, and its duration.

        The arguments are those of `OrchestraClient`'s `on_request`.
        """
        self._requests.labels(endpoint, status).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def count_load(self, report: LoadReport, seconds: float) -> None:
        """Count a loaded batch and its duration."""
        self._runs.inc(report.runs)
        unchanged = report.steps - report.steps_inserted - report.steps_updated
        for change, count in (
            ("inserted", report.steps_inserted),
            ("updated", report.steps_updated),
            ("absent", report.steps_absent),
            # `steps` includes steps that became dead letters, which were not written.
            ("unchanged", max(unchanged, 0)),
        ):
            self._steps.labels(change).inc(count)
        self._failed.inc(report.failed)
        self._superseded.inc(report.superseded)
        self._batch.observe(report.steps)
        self._load_seconds.observe(seconds)

    def count_sweep(self, report: SweepReport) -> None:
        """Count a sweep."""
        self._sweeps.labels(plain(report.workflow_id), str(report.complete).lower()).inc()
        self._new.labels(plain(report.workflow_id)).inc(report.new)
        self._gaps.labels(plain(report.workflow_id)).inc(report.gap is not None)

    def count_dead_letters(self, letters: int) -> None:
        """Count new dead letters from any source."""
        self._dead_letters.inc(letters)

    def count_notification(self, channel: str, *, delivered: bool) -> None:
        """Count an attempt to deliver a message about an alert."""
        self._notifications.labels(channel, "delivered" if delivered else "failed").inc()

    def set_waiting(self, groups: int) -> None:
        """Set the number of changes that the rollups do not count yet."""
        self._waiting.set(groups)

    def watch_connections(self, connections: Callable[[], Mapping[str, int]]) -> None:
        """Show the pool's connections by use; each scrape calls `connections`."""
        for use in connections():
            self._connections.labels(use).set_function(partial(_one_of, connections, use))

    def set_status(self, found: Status | None) -> None:
        """Show the status read from the database; None, if it could not be read, clears it."""
        for gauge in (
            *self._status.values(),
            *self._lake.values(),
            self._alerts_firing,
            self._undelivered,
        ):
            gauge.clear()
        if found is None:
            return
        self._status_at.set(found.at.timestamp())
        for rule in found.alerts.rules:
            self._alerts_firing.labels(plain(rule.name)).set(rule.firing)
        for channel in found.alerts.channels:
            self._undelivered.labels(plain(channel.name)).set(channel.undelivered)
        if found.lake is not None:
            for name, value in _of_lake(found.at, found.lake).items():
                if value is not None:
                    self._lake[name].labels(found.lake.namespace).set(value)
        for workflow in found.workflows:
            for name, value in _values(found, workflow).items():
                if value is not None:
                    self._status[name].labels(plain(workflow.id)).set(value)

    def exposition(self, *, ready: bool) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        self._ready.set(ready)
        return generate_latest(self.registry)


def _one_of(counts: Callable[[], Mapping[str, int]], name: str) -> float:
    return counts()[name]


def _of_lake(at: datetime, lake: LakeProgress) -> dict[str, float | None]:
    since = at if lake.waiting == 0 else lake.waiting_since
    return {
        "lake_days_waiting": lake.waiting,
        "lake_oldest_wait_seconds": None if since is None else (at - since).total_seconds(),
        "lake_exported_timestamp_seconds": (
            None if lake.exported_at is None else lake.exported_at.timestamp()
        ),
    }


def _values(found: Status, one: WorkflowStatus) -> dict[str, float | None]:
    waiting_since = one.lag.oldest_live_due
    swept, newest = one.freshness.swept_at, one.freshness.newest_run_start
    room = one.headroom
    headroom = None
    if room.listed_runs and room.new_runs is not None:
        headroom = max(0.0, 1 - room.new_runs / room.listed_runs) if room.window_full else 1.0
    return {
        "open_runs": one.runs.open,
        "stale_runs": one.runs.stale,
        "due_runs": one.lag.due,
        "lag_seconds": (found.at - waiting_since).total_seconds()
        if waiting_since is not None
        else 0.0,
        "unread_runs": one.lag.unread,
        "failing_runs": one.failing.runs,
        "dead_letters": one.dead_letters,
        "conflicting_runs": one.coverage.conflicting_runs,
        "gaps": one.coverage.unacknowledged_gaps,
        "drift": one.drift,
        "listed_runs": room.listed_runs,
        "list_headroom_ratio": headroom,
        "swept_timestamp_seconds": swept.timestamp() if swept is not None else None,
        "newest_run_start_timestamp_seconds": newest.timestamp() if newest is not None else None,
        "verdict": _VERDICTS[one.verdict],
    }

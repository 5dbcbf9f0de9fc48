"""The service's jobs: scheduled sweeps, the poll, run requests, rollups and status.

The schedule is kept in memory. The durable state is in the database, and replicas coordinate
through its leases, so a missed or doubled tick costs only a query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from etl import cron
from etl.analytics.rollups import RefreshReport
from etl.errors import EtlError
from etl.pipeline.loading import LoadReport
from etl.pipeline.sync import Syncer
from etl.reports.status import Status
from etl.service.health import Health
from etl.service.job_runner import JobRunner
from etl.signals import Stop

if TYPE_CHECKING:
    from etl.alerts.delivery import Courier
    from etl.export.exporter import ExportReport

log = structlog.get_logger(__name__)

# Seconds of `job_runner.END_PATIENCE` for which an unavailable database is retried: a thread that
# keeps retrying would keep the process from ending.
DATABASE_END_PATIENCE = 4.0


class Schedule(msgspec.Struct, frozen=True):
    """When a workflow is swept: every `interval` seconds, or by the cron line `cron` in UTC."""

    workflow_id: str
    interval: float
    cron: str | None = None


class Pace(msgspec.Struct, frozen=True):
    """The intervals of the service's jobs, in seconds."""

    tick: float = 1.0
    """Between two checks for due runs and requests; an idle check costs one indexed query."""
    prepare: float = 60.0
    """Between two checks of the workflows' names and graphs, which request the API only if due."""
    refresh: float = 5.0
    """Between two refreshes of the rollups; one that finds nothing costs five short queries."""
    evaluate: float = 60.0
    """Between two evaluations of the alerts by this process."""
    notify: float = 2.0
    """Between two checks for messages about alerts; an idle check costs two index scans a
    channel."""
    observe: float = 15.0
    """Between two reads of the workflows' status, which cost as much as `orchestra-etl status`.

    It is the usual scrape interval of Prometheus; a scrape itself costs no query.
    """
    key_pause: float = 15.0
    """Between a refused key and the next request, for which the key file is read again."""
    clock_check: float = 5.0
    """Between two checks of this machine's clock."""


PACE = Pace()


class Daemon:
    """Runs the service's jobs until it is stopped."""

    def __init__(
        self,
        syncer: Syncer,
        health: Health,
        schedules: Sequence[Schedule],
        *,
        default_interval: float,
        refresh: Callable[[Callable[[], bool]], Awaitable[RefreshReport]] | None = None,
        evaluate: Callable[[], Awaitable[object]] | None = None,
        status: Callable[[], Status] | None = None,
        courier: Courier | None = None,
        export: Callable[[Callable[[], bool]], Awaitable[ExportReport]] | None = None,
        export_every: float = 3600.0,
        pace: Pace | None = None,
    ) -> None:
        """Prepare the service; `run` creates its jobs and starts them.

        Args:
            syncer: knows the workflows, sweeps and polls.
            health: receives problems and metrics.
            schedules: when each configured workflow is swept.
            default_interval: seconds between sweeps of a workflow that is not configured.
            refresh: brings the rollups up to date, and ends early once its argument, a function,
                returns True. None: this service does not refresh rollups.
            evaluate: evaluates the alerts. None: this service does not.
            status: reads the workflows' status for metrics and readiness, in a thread. None: the
                service does not read it.
            courier: delivers messages about alerts. None: the service delivers none.
            export: brings the lake up to date, and ends early once its argument, a function,
                returns True. None: this service does not export.
            export_every: seconds between two exports.
            pace: the intervals of the jobs; None: `PACE`.
        """
        self._syncer = syncer
        self._health = health
        self._schedules = {schedule.workflow_id: schedule for schedule in schedules}
        self._default_interval = default_interval
        self._refresh = refresh
        self._evaluate = evaluate
        self._status = status
        self._courier = courier
        self._export = export
        self._export_every = export_every
        self._pace = pace or PACE
        self._prepared = False
        self._stop = Stop()
        self._jobs = JobRunner(
            health, key_pause=self._pace.key_pause, clock_check=self._pace.clock_check
        )

    async def run(self, stop: Stop) -> None:
        """Run the jobs until `stop` is set, then finish those that are running."""
        self._stop = stop
        pace, add = self._pace, self._jobs.add
        # While the API refuses the key, rollups, alerts and messages still go on.
        add_without_api = partial(add, uses_api=False)
        add("prepare", self._prepare, IntervalTrigger(seconds=pace.prepare), now=True)
        # A poll is not cancelled: it loads what it has read.
        add("poll", self._poll, IntervalTrigger(seconds=pace.tick), now=True, is_cancelled=False)
        add("requests", self._requests, IntervalTrigger(seconds=pace.tick), now=True)
        if self._refresh is not None:
            refresh = partial(self._refresh_rollups, self._refresh)
            add_without_api("rollups", refresh, IntervalTrigger(seconds=pace.refresh), now=True)
        if self._evaluate is not None:
            every = IntervalTrigger(seconds=pace.evaluate)
            add_without_api("alerts", self._evaluate, every, now=False)
        if self._status is not None:
            observe = partial(self._observe, self._status)
            add_without_api("observe", observe, IntervalTrigger(seconds=pace.observe), now=True)
        if self._courier is not None:
            # A job for each channel, so that a slow one delays only its own messages.
            for channel in self._courier.channels:
                add_without_api(
                    f"notify {channel}",
                    partial(self._notify, self._courier, channel),
                    IntervalTrigger(seconds=pace.notify),
                    now=True,
                    # A delivery ends by itself, and releases its claim.
                    is_cancelled=False,
                )
        if self._export is not None:
            add_without_api(
                "export",
                partial(self._export_changes, self._export),
                IntervalTrigger(seconds=self._export_every, jitter=self._export_every / 10),
                now=True,
            )
        self._schedule_sweeps()
        self._jobs.start(stop, beat=pace.tick)
        log.info("service_started", workflows=len(self._schedules))
        await self._jobs.watch_clock()
        log.info("service_stop_requested")
        self._syncer.poller.end_within(DATABASE_END_PATIENCE)
        # A cancelled sweep leaves its watermark unchanged.
        await self._jobs.end()
        log.info("service_stopped")

    def _schedule_sweeps(self) -> None:
        for workflow_id in self._syncer.workflows.plans:
            name = f"sweep {workflow_id}"
            if self._jobs.has(name):
                continue
            schedule = self._schedules.get(workflow_id) or Schedule(
                workflow_id, self._default_interval
            )
            trigger: BaseTrigger
            if schedule.cron is not None:
                trigger = cron.parse(schedule.cron).trigger()
            else:
                # A tenth of jitter keeps replicas and workflows from sending requests all at once.
                trigger = IntervalTrigger(seconds=schedule.interval, jitter=schedule.interval / 10)
            self._jobs.add(
                name,
                partial(self._sweep, workflow_id),
                trigger,
                now=schedule.cron is None,
                workflow_id=workflow_id,
            )
        self._health.watch(self._syncer.workflows.plans)

    async def _prepare(self) -> None:
        try:
            prepared = await self._syncer.workflows.prepare()
            self._schedule_sweeps()
        finally:
            self._prepared = True
        self._count_dead_letters(prepared.dead_letters)
        if prepared.problem is not None:
            raise prepared.problem

    async def _requests(self) -> None:
        self._count_dead_letters(await self._syncer.take_requests(self._stop))

    async def _refresh_rollups(
        self, refresh: Callable[[Callable[[], bool]], Awaitable[RefreshReport]]
    ) -> None:
        done = await refresh(self._stop.is_set)
        self._health.metrics.set_waiting(done.waiting + done.stuck)
        if done.groups:
            log.debug("rollups_refreshed", groups=done.groups, waiting=done.waiting)

    async def _notify(self, courier: Courier, channel: str) -> None:
        for one in await courier.deliver(channel, self._stop):
            self._health.metrics.count_notification(one.channel, delivered=one.failure is None)

    async def _export_changes(
        self, export: Callable[[Callable[[], bool]], Awaitable[ExportReport]]
    ) -> None:
        done = await export(self._stop.is_set)
        if done.days:
            log.info("export_finished", days=done.days, rows=sum(done.rows.values()))

    async def _observe(self, status: Callable[[], Status]) -> None:
        try:
            found = await asyncio.to_thread(status)
        except EtlError:
            self._health.metrics.set_status(None)
            raise
        self._health.metrics.set_status(found)
        self._health.recover("schema")
        for workflow in found.workflows:
            failing = [reason.text for reason in workflow.reasons if reason.level == "failing"]
            part = f"workflow {workflow.id}"
            if not failing:
                self._health.recover(part)
            elif self._health.fail(part, "; ".join(failing), workflow_id=workflow.id):
                log.error("workflow_failing", workflow=workflow.id, problem="; ".join(failing))

    async def _sweep(self, workflow_id: str) -> None:
        report = await self._syncer.sweep(workflow_id)
        if report is None:
            return
        self._health.recover("api key")
        self._health.responded(workflow_id)
        self._health.metrics.count_sweep(report)
        self._count_dead_letters(report.dead_letters)
        if report.gap:
            log.error("gap_found", workflow=workflow_id, detail=report.gap)
        if report.new or report.changed:
            log.info(
                "sweep_finished",
                workflow=workflow_id,
                new=report.new,
                changed=report.changed,
                listed=report.listed,
            )

    async def _poll(self) -> None:
        if not self._prepared:
            # The first `prepare` is still requesting the graphs, which contain the node types of
            # steps.
            return
        await self._syncer.poller.drain(stop=self._stop, on_load=self._loaded)

    def _loaded(self, load: LoadReport, seconds: float) -> None:
        """Report each batch as it is loaded, because a drain may go on without end."""
        self._health.metrics.count_load(load, seconds)
        if load.runs:
            self._health.recover("poll")
            self._health.recover("api key")
            log.info(
                "batch_loaded",
                runs=load.runs,
                new=load.steps_inserted,
                changed=load.steps_updated,
                failed=load.failed,
            )
        self._count_dead_letters(load.dead_letters)

    def _count_dead_letters(self, letters: int) -> None:
        if letters:
            self._health.metrics.count_dead_letters(letters)
            log.warning("dead_letters_recorded", count=letters)

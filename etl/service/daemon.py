"""The service's jobs: scheduled sweeps, the poll, run requests, rollups and status.

The schedule is kept in memory. The durable state is in the database, and replicas coordinate
through its leases, so a missed or doubled tick costs only a query.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from etl import cron
from etl.analytics.rollups import RefreshReport
from etl.errors import ApiUnavailable, DatabaseError, EtlError, KeyRefused, SchemaMismatch
from etl.pipeline.loading import LoadReport
from etl.pipeline.sync import Syncer
from etl.reports.status import Status
from etl.service.health import Health
from etl.signals import Stop

if TYPE_CHECKING:
    from etl.alerts.delivery import Courier
    from etl.export.exporter import ExportReport

log = structlog.get_logger(__name__)

# Seconds. After a larger jump of this machine's clock, all jobs start at once.
CLOCK_STEP = 2.0
# Seconds that running jobs get at the end, of the ten within which the service promises to end.
END_PATIENCE = 8.0
# Seconds of `END_PATIENCE` for which an unavailable database is retried: a thread that keeps
# retrying would keep the process from ending.
DATABASE_END_PATIENCE = 4.0


# The scheduler would warn about each skipped tick. A busy poll skips ticks by design, because it
# looks for due runs by itself.
logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)


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
    clock_look: float = 5.0
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
            syncer: prepares, sweeps and polls.
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
        self._active: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0
        self._prepared = False
        self._stop = Stop()
        self._scheduler = AsyncIOScheduler(
            timezone="UTC",
            # Without a limit on lateness: a nightly sweep that was missed during a long suspension
            # must not wait for the next night.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    async def run(self, stop: Stop) -> None:
        """Run the jobs until `stop` is set, then finish those that are running."""
        self._stop = stop
        self._add("prepare", self._prepare, IntervalTrigger(seconds=self._pace.prepare), now=True)
        self._add("poll", self._poll, IntervalTrigger(seconds=self._pace.tick), now=True)
        self._add("requests", self._requests, IntervalTrigger(seconds=self._pace.tick), now=True)
        if self._refresh is not None:
            self._add(
                "rollups",
                partial(self._refresh_rollups, self._refresh),
                IntervalTrigger(seconds=self._pace.refresh),
                now=True,
                uses_api=False,
            )
        if self._evaluate is not None:
            self._add(
                "alerts",
                partial(self._evaluate_alerts, self._evaluate),
                IntervalTrigger(seconds=self._pace.evaluate),
                now=False,
                uses_api=False,
            )
        if self._status is not None:
            self._add(
                "observe",
                partial(self._observe, self._status),
                IntervalTrigger(seconds=self._pace.observe),
                now=True,
                uses_api=False,
            )
        if self._courier is not None:
            # A job for each channel, so that a slow one delays only its own messages.
            for channel in self._courier.channels:
                self._add(
                    f"notify {channel}",
                    partial(self._notify, self._courier, channel),
                    IntervalTrigger(seconds=self._pace.notify),
                    now=True,
                    uses_api=False,
                )
        if self._export is not None:
            self._add(
                "export",
                partial(self._export_changes, self._export),
                IntervalTrigger(seconds=self._export_every, jitter=self._export_every / 10),
                now=True,
                uses_api=False,
            )
        # `beat` is not guarded, because it must also run while the API refuses the key.
        self._scheduler.add_job(
            self._health.beat, IntervalTrigger(seconds=self._pace.tick), id="beat"
        )
        self._schedule_sweeps()
        self._scheduler.start()
        log.info("service_started", workflows=len(self._schedules))
        await self._watch_clock(stop)
        log.info("service_stop_requested")
        self._scheduler.pause()
        self._syncer.poller.end_within(DATABASE_END_PATIENCE)
        for task in self._active:
            if not task.get_name().startswith(("poll", "notify")):
                # A cancelled sweep leaves its watermark unchanged. A poll is not cancelled: it
                # loads what it has read. A delivery ends by itself, and releases its claim.
                task.cancel()
        if self._active:
            await asyncio.wait(self._active, timeout=END_PATIENCE)
        self._scheduler.shutdown(wait=False)
        log.info("service_stopped")

    async def _watch_clock(self, stop: Stop) -> None:
        """Wait for the stop; if the machine's clock is set in the meantime, start all jobs now.

        The scheduler uses that clock: if it were set back by a day, no job would start for a day.
        """
        ahead = time.time() - time.monotonic()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._pace.clock_look)
            before, ahead = ahead, time.time() - time.monotonic()
            if abs(ahead - before) > CLOCK_STEP and not stop.is_set():
                log.warning("clock_changed", seconds=round(ahead - before, 1))
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))

    def _schedule_sweeps(self) -> None:
        for workflow_id in self._syncer.workflow_ids:
            name = f"sweep {workflow_id}"
            if self._scheduler.get_job(name) is not None:
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
            self._add(
                name,
                partial(self._sweep, workflow_id),
                trigger,
                now=schedule.cron is None,
                workflow_id=workflow_id,
            )
        self._health.watch(self._syncer.workflow_ids)

    def _add(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        trigger: BaseTrigger,
        *,
        now: bool,
        workflow_id: str | None = None,
        uses_api: bool = True,
    ) -> None:
        async def guarded() -> None:
            task = asyncio.current_task()
            if task is None or self._stop.is_set():
                return
            # While the API refuses the key, rollups, alerts and messages still go on.
            if uses_api and time.monotonic() < self._paused_until:
                return
            task.set_name(name)
            self._active.add(task)
            try:
                await self._guard(name, work, workflow_id)
            finally:
                self._active.discard(task)

        first: dict[str, Any] = {"next_run_time": datetime.now(UTC)} if now else {}
        self._scheduler.add_job(guarded, trigger, id=name, name=name, **first)

    async def _guard(
        self, name: str, work: Callable[[], Awaitable[None]], workflow_id: str | None
    ) -> None:
        """Run a job, and report its failure in the log and in /readyz.

        The job is retried at its next tick. /readyz shows the problem until the job succeeds.
        """
        try:
            await work()
        except asyncio.CancelledError:
            pass
        except KeyRefused as error:
            self._paused_until = time.monotonic() + self._pace.key_pause
            if self._health.fail("api key", str(error)):
                log.error("key_refused", problem=str(error), pause_seconds=self._pace.key_pause)
        except EtlError as error:
            if isinstance(error, DatabaseError) and "database" in self._health.problems:
                # Health and the log report the database's problem once for all jobs.
                return
            part = "schema" if isinstance(error, SchemaMismatch) else name
            own = None if isinstance(error, DatabaseError) else workflow_id
            if self._health.fail(
                part, str(error), workflow_id=own, no_response=isinstance(error, ApiUnavailable)
            ):
                log.error("job_failed", job=name, problem=str(error))
        except Exception as error:
            if self._health.fail(
                name, f"unexpected {type(error).__name__}", workflow_id=workflow_id
            ):
                log.error("job_failed", job=name, problem=type(error).__name__, exc_info=error)
        else:
            self._health.recover(name)

    async def _prepare(self) -> None:
        try:
            prepared = await self._syncer.prepare()
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

    async def _evaluate_alerts(self, evaluate: Callable[[], Awaitable[object]]) -> None:
        await evaluate()

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

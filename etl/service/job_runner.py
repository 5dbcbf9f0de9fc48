"""Periodic jobs of a process, which report their failures and end together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from etl.errors import ApiUnavailable, DatabaseError, EtlError, KeyRefused, SchemaMismatch
from etl.service.health import Health
from etl.signals import Stop

log = structlog.get_logger(__name__)

# Seconds. After a larger jump of this machine's clock, all jobs start at once.
CLOCK_STEP = 2.0
# Seconds for which running jobs may finish after a stop; the service promises to end within ten.
END_PATIENCE = 8.0


# The scheduler would warn about each skipped tick. A busy poll skips ticks by design, because it
# looks for due runs by itself.
logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)


class JobRunner:
    """Starts jobs by their triggers; a job that fails is retried at its next tick."""

    def __init__(self, health: Health, *, key_pause: float, clock_check: float) -> None:
        """Create a runner without jobs.

        Args:
            health: receives problems.
            key_pause: seconds between a refused key and the next job that uses the API.
            clock_check: seconds between two checks of this machine's clock.
        """
        self._health = health
        self._key_pause = key_pause
        self._clock_check = clock_check
        self._paused_until = 0.0
        self._running: dict[asyncio.Task[None], bool] = {}
        """Each running job, and whether `end` cancels it."""
        self._stop = Stop()
        self._scheduler = AsyncIOScheduler(
            timezone="UTC",
            # Without a limit on lateness: a nightly sweep that was missed during a long suspension
            # must not wait for the next night.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def has(self, name: str) -> bool:
        """Return whether there is a job with this name."""
        return self._scheduler.get_job(name) is not None

    def add(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        trigger: BaseTrigger,
        *,
        now: bool,
        workflow_id: str | None = None,
        uses_api: bool = True,
        is_cancelled: bool = True,
    ) -> None:
        """Add a job.

        Args:
            name: also the part of health that the job's failure is reported for.
            work: what the job does.
            trigger: when it starts.
            now: whether it also starts at once.
            workflow_id: the workflow that it works for; None: all.
            uses_api: whether it pauses while the API refuses the key.
            is_cancelled: whether `end` cancels it; if not, it ends by itself.
        """

        async def guarded() -> None:
            task = asyncio.current_task()
            if task is None or self._stop.is_set():
                return
            if uses_api and time.monotonic() < self._paused_until:
                return
            self._running[task] = is_cancelled
            try:
                await self._guard(name, work, workflow_id)
            finally:
                del self._running[task]

        first: dict[str, Any] = {"next_run_time": datetime.now(UTC)} if now else {}
        self._scheduler.add_job(guarded, trigger, id=name, name=name, **first)

    async def _guard(
        self, name: str, work: Callable[[], Awaitable[object]], workflow_id: str | None
    ) -> None:
        """Run a job, and report its failure in the log and in /readyz.

        /readyz shows the problem until the job succeeds.
        """
        try:
            await work()
        except asyncio.CancelledError:
            pass
        except KeyRefused as error:
            self._paused_until = time.monotonic() + self._key_pause
            if self._health.fail("api key", str(error)):
                log.error("key_refused", problem=str(error), pause_seconds=self._key_pause)
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

    def start(self, stop: Stop, *, beat: float) -> None:
        """Start the jobs; once `stop` is set, no job starts.

        Args:
            stop: ends the runner.
            beat: seconds between two beats of health, which show that jobs are started.
        """
        self._stop = stop
        # Not guarded, because it must also run while the API refuses the key.
        self._scheduler.add_job(self._health.beat, IntervalTrigger(seconds=beat), id="beat")
        self._scheduler.start()

    async def watch_clock(self) -> None:
        """Wait for the stop; if the machine's clock is set in the meantime, start all jobs now.

        The scheduler uses that clock: if it were set back by a day, no job would start for a day.
        """
        ahead = time.time() - time.monotonic()
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._clock_check)
            before, ahead = ahead, time.time() - time.monotonic()
            if abs(ahead - before) > CLOCK_STEP and not self._stop.is_set():
                log.warning("clock_changed", seconds=round(ahead - before, 1))
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))

    async def end(self) -> None:
        """Cancel the running jobs that do not end by themselves, and wait for all of them."""
        self._scheduler.pause()
        for task, is_cancelled in self._running.items():
            if is_cancelled:
                task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=END_PATIENCE)
        self._scheduler.shutdown(wait=False)

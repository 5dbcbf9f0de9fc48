"""The sync: sweeps the workflows and polls due runs at the same time; also the backfill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection

from etl.database import Database
from etl.errors import (
    ApiError,
    ApiUnavailable,
    ConfigurationError,
    EtlError,
    KeyRefused,
    NotFound,
    RequestRefused,
)
from etl.exit_status import ExitStatus
from etl.ledger import claims, clock, conflicts, requests
from etl.ledger.clock import DatabaseClock
from etl.pipeline.due_runs import Listing
from etl.pipeline.known_workflows import KnownWorkflows
from etl.pipeline.loading import LoadReport
from etl.pipeline.poll import Poller
from etl.pipeline.sweep import Sweeper, SweepReport

# Maximum number of lists that are walked concurrently; each walk has one request in flight.
SWEEPS_AT_ONCE = 4


class SyncReport(msgspec.Struct):
    """The results and errors of a sync."""

    sweeps: list[SweepReport]
    load: LoadReport
    requests: int = 0
    """Number of requests to the API."""
    seconds: float = 0.0
    """Duration of the sync."""
    interrupted: int | None = None
    """The number of the signal that ended the sync early; None: no signal did."""
    dead_letters: int = 0
    """New dead letters of runs requested by id, and of workflows that cannot be requested."""
    errors: list[EtlError] = []
    """Errors that did not end the sync; the most severe one decides the exit status."""
    refused: list[ApiError] = []
    """Refusals of single workflows while the API responded for others."""

    @property
    def exit_status(self) -> int:
        """The exit status that follows from the errors and findings of the sync.

        - 4, 3, 5 or 1 if an error with this status occurred, the most severe first.
        - 6 if there are new dead letters, gaps or failing runs, if a sweep was not complete or
          found a new problem with its list, or if a workflow was refused.
        - 128 plus the signal's number if a signal ended the sync early, as a shell reports it. So
          cron sees that the sync is not finished.
        - 0 otherwise.
        """
        statuses = {error.exit_status for error in self.errors}
        for status in (
            ExitStatus.DATABASE,
            ExitStatus.KEY_REFUSED,
            ExitStatus.API,
            ExitStatus.UNEXPECTED,
        ):
            if status in statuses:
                return status
        missed = any(
            sweep.gap or sweep.dead_letters or sweep.problem_is_new or not sweep.complete
            for sweep in self.sweeps
        )
        missed = missed or bool(
            self.dead_letters or self.load.dead_letters or self.load.newly_failing or self.refused
        )
        if missed or statuses:
            return ExitStatus.INCOMPLETE
        return 128 + self.interrupted if self.interrupted else 0


class Syncer:
    """Runs syncs for `sync`, `backfill` and the service."""

    def __init__(
        self,
        database: Database,
        sweeper: Sweeper,
        poller: Poller,
        clock: DatabaseClock,
        workflows: KnownWorkflows,
    ) -> None:
        """Create a syncer.

        Args:
            database: holds the ledger.
            sweeper: sweeps the run lists.
            poller: reads and loads due runs.
            clock: the database's clock.
            workflows: the workflows to sync.
        """
        self._run = database.in_thread
        self._sweeper = sweeper
        self.poller = poller
        self._clock = clock
        self.workflows = workflows

    async def sync(
        self,
        only: Sequence[str] | None,
        *,
        stop: asyncio.Event,
        on_load: Callable[[LoadReport, float], None] = lambda report, seconds: None,
    ) -> SyncReport:
        """Sweep and poll concurrently, until all runs due at the end of the sweeps have been read.

        Args:
            only: ids of the workflows to sync; None: all, and every due run in the ledger.
            stop: when set, the sync ends early: finished reads are loaded, and all other claims
                released.
            on_load: called after every load with its report and its duration in seconds.

        Raises:
            ConfigurationError: a workflow in `only` is neither configured nor listed.
            KeyRefused: the API refuses the key.
            ApiError: the API responded to no request, or no workflow is known.
            DatabaseError: the database cannot be used.
        """
        report = await self._begin(only)
        report.dead_letters += await self.take_requests(stop)
        begun_at = await self._now()
        swept = asyncio.create_task(self._swept(report, only, stop))
        try:
            await self._drain(
                report, cutoff=Listing(begun_at, swept), only=only, stop=stop, on_load=on_load
            )
        except asyncio.CancelledError:
            swept.cancel()
            raise
        finally:
            # The walks finish even if the reads fail.
            await asyncio.wait({swept})
            # The exception is retrieved here: otherwise asyncio would print it if the drain raises,
            # too.
            _ = swept.cancelled() or swept.exception()
        # This raises an exception of the sweeps that came after the drain was stopped.
        swept.result()
        return report

    async def backfill(
        self,
        only: Sequence[str] | None,
        *,
        stop: asyncio.Event,
        since: datetime | None = None,
        until: datetime | None = None,
        reread: bool = False,
        on_listed: Callable[[int], None] = lambda due: None,
        on_load: Callable[[LoadReport, float], None] = lambda report, seconds: None,
    ) -> SyncReport:
        """Walk the whole lists, enqueue their runs at low priority, and poll.

        Args:
            only: ids of the workflows; None: all.
            stop: when set, the backfill ends early as `sync` does; enqueued runs stay enqueued.
            since: read only runs that started at this time or later, according to the run list; the
                others stay enqueued for the next sync.
            until: read only runs that started before this time.
            reread: also re-read final runs.
            on_listed: called with the number of due runs when the lists have been walked.
            on_load: as for `sync`.

        Raises:
            ConfigurationError, ApiError, DatabaseError: as `sync`.
        """
        report = await self._begin(only)
        await self._sweep_all(report, only, stop, whole_list=True, backfill=True)
        wanted = list(self.workflows.plans if only is None else only)
        if reread and not stop.is_set():
            await self._run(lambda c: requests.reread(c, wanted, since=since, until=until))
        due = claims.DueFilter(workflows=tuple(wanted), since=since, until=until)
        pending = await self._run(lambda c: claims.pending(c, due))
        on_listed(pending.due)
        await self._drain(
            report,
            cutoff=await self._now(),
            only=wanted,
            stop=stop,
            on_load=on_load,
            since=since,
            until=until,
        )
        return report

    async def sweep(self, workflow_id: str) -> SweepReport | None:
        """Sweep one workflow; return None if another process sweeps it, or `discover` is False."""
        plan = self.workflows.plans.get(workflow_id)
        if plan is not None and not plan.discover:
            return None
        return await self._sweeper.sweep(workflow_id, wait=False)

    async def take_requests(self, stop: asyncio.Event) -> int:
        """Enter the runs that users requested in `orchestra.run_requests`, until `stop` is set.

        Returns the number of new dead letters.
        """

        def take(connection: Connection) -> tuple[bool, int]:
            taken = requests.take_queue(connection)
            return taken.requests == requests.BATCH, conflicts.record_requests(connection, taken)

        new_letters, more = 0, True
        while more and not stop.is_set():
            more, new = await self._run(take)
            new_letters += new
        return new_letters

    async def _begin(self, only: Sequence[str] | None) -> SyncReport:
        """Prepare a sync, and return its report."""
        prepared = await self.workflows.prepare()
        problem = prepared.problem
        unknown = [
            workflow_id for workflow_id in only or () if workflow_id not in self.workflows.plans
        ]
        if problem is not None and (unknown or not self.workflows.plans):
            raise problem
        if unknown:
            # Otherwise a misspelt id would look like success.
            raise ConfigurationError(
                f"workflow {unknown[0]} is not configured, and the API does not list it: "
                "see `orchestra-etl workflows`"
            )
        report = SyncReport([], LoadReport(), dead_letters=prepared.dead_letters)
        if problem is not None and only is None:
            report.errors.append(problem)
        return report

    async def _sweep_all(
        self,
        report: SyncReport,
        only: Sequence[str] | None,
        stop: asyncio.Event,
        *,
        whole_list: bool,
        backfill: bool,
    ) -> None:
        chosen = [
            plan
            for plan in self.workflows.plans.values()
            if plan.discover and (only is None or plan.id in only)
        ]
        slots = asyncio.Semaphore(SWEEPS_AT_ONCE)

        async def one(workflow_id: str) -> SweepReport | None:
            async with slots:
                if stop.is_set():
                    return None
                return await self._sweeper.sweep(
                    workflow_id, whole_list=whole_list, backfill=backfill
                )

        tasks = [asyncio.create_task(one(plan.id)) for plan in chosen]
        stopping = asyncio.create_task(stop.wait())
        try:
            while pending := [task for task in tasks if not task.done()]:
                await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    break
                for task in tasks:
                    if task.done() and isinstance(task.exception(), KeyRefused):
                        raise KeyRefused(str(task.exception()))
        finally:
            stopping.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        without_response: list[ApiUnavailable] = []
        responded = any(isinstance(result, SweepReport) for result in results)
        for result in results:
            if isinstance(result, SweepReport):
                report.sweeps.append(result)
            elif isinstance(result, KeyRefused):
                raise result
            elif responded and isinstance(result, NotFound | RequestRefused):
                report.refused.append(result)
            elif isinstance(result, ApiError):
                if isinstance(result, ApiUnavailable):
                    without_response.append(result)
                report.errors.append(result)
            elif isinstance(result, BaseException) and not isinstance(
                result, asyncio.CancelledError
            ):
                raise result
        if without_response and len(without_response) == len(chosen):
            raise without_response[0]

    async def _swept(
        self, report: SyncReport, only: Sequence[str] | None, stop: asyncio.Event
    ) -> datetime:
        """Sweep all chosen workflows; return the cutoff for the poll."""
        await self._sweep_all(report, only, stop, whole_list=False, backfill=False)
        return await self._now()

    async def _now(self) -> datetime:
        """Return a database time after everything that has committed so far."""
        now = await self._run(clock.database_time)
        self._clock.anchor(now)
        # A row that the last transaction wrote may have the same microsecond as this statement.
        return now + timedelta(microseconds=1)

    async def _drain(
        self,
        report: SyncReport,
        cutoff: datetime | Listing,
        only: Sequence[str] | None,
        stop: asyncio.Event,
        on_load: Callable[[LoadReport, float], None],
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        polled = await self.poller.drain(
            stop=stop,
            cutoff=cutoff,
            workflows=only,
            since=since,
            until=until,
            wait_for_others=True,
            on_load=on_load,
        )
        report.load.add(polled.load)
        report.errors += polled.refused

"""The poll: claims due runs, reads them concurrently, and loads them during further reads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog

from etl.database import Database
from etl.errors import ApiUnavailable, DatabaseError, EtlError, WorkflowRefused
from etl.ledger.claims import Claim, DueFilter
from etl.ledger.clock import DatabaseClock
from etl.pipeline.batches import BATCH_WAIT, Lane, is_loaded_alone
from etl.pipeline.concurrent_reads import ConcurrentReads
from etl.pipeline.due_runs import DueRuns, Listing
from etl.pipeline.heartbeat import heartbeat
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reader, Reading

log = structlog.get_logger(__name__)

# Reads pause while this many bytes wait to be loaded: memory stays bounded if the database is
# slower than the API. Readings that are loaded alone have a larger limit, so that the others need
# not wait for them.
WAITING_BYTES = 64 << 20
WAITING_ALONE_BYTES = 256 << 20
# This many consecutive reads without a response mean that the API is down, not that single runs
# fail.
GIVE_UP_AFTER = 5


class PollReport(msgspec.Struct):
    """The result of a drain."""

    load: LoadReport
    refused: list[WorkflowRefused] = []
    """One error for each workflow that the key may not read."""


class Poller:
    """Polls due runs until none is left."""

    def __init__(
        self,
        database: Database,
        reader: Reader,
        loader: Loader,
        clock: DatabaseClock,
        *,
        concurrency: int,
        lease: float,
    ) -> None:
        """Poll with at most `concurrency` concurrent reads, and with leases of `lease` seconds."""
        self._database = database
        self._reader = reader
        self._loader = loader
        self._clock = clock
        self._concurrency = concurrency
        self._lease = lease

    def end_within(self, seconds: float) -> None:
        """Limit the waits for the database, because the process ends in this many seconds."""
        self._database.end_within(seconds)

    async def drain(
        self,
        *,
        stop: asyncio.Event,
        cutoff: datetime | Listing | None = None,
        workflows: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        wait_for_others: bool = False,
        on_load: Callable[[LoadReport, float], None] = lambda report, seconds: None,
    ) -> PollReport:
        """Poll due runs, live ones before backfill, until none is due and none is being read.

        Args:
            stop: when set, no further read begins. Finished reads are loaded, and all other claims
                released.
            cutoff: read only runs due at or before this database time, or before the time that
                walks in progress will provide. None: also read runs that become due in the
                meantime; the drain ends when no run is due and none is being read.
            workflows: poll only the runs of these workflows; None: of all.
            since: only runs that started at this time or later, according to the run list.
            until: only runs that started before this time, according to the run list.
            wait_for_others: also wait for due runs that another process holds, and take them over
                when their lease ends.
            on_load: called after every load with its report and its duration in seconds.

        Raises:
            KeyRefused, ApiUnavailable: the API cannot be used. Finished reads are loaded, all other
                claims are released.
            DatabaseError: the database cannot be used.
            EtlError: none of many runs can be stored (see `Loader.load`).
        """
        chosen = DueFilter(
            workflows=None if workflows is None else tuple(workflows), since=since, until=until
        )
        due_runs = DueRuns(
            self._database,
            self._clock,
            chosen=chosen,
            cutoff=cutoff,
            concurrency=self._concurrency,
            lease=self._lease,
        )
        drain = _Drain(
            due_runs,
            self._reader,
            self._loader,
            self._clock,
            concurrency=self._concurrency,
            stop=stop,
            on_load=on_load,
        )
        async with heartbeat(drain.renew, lease=self._lease), drain.settling():
            while True:
                await drain.work()
                if stop.is_set() or not wait_for_others or not await due_runs.others(stop):
                    break
        return PollReport(drain.report, list(drain.refused.values()))


class _Drain:
    """The state of one drain."""

    def __init__(
        self,
        due_runs: DueRuns,
        reader: Reader,
        loader: Loader,
        clock: DatabaseClock,
        *,
        concurrency: int,
        stop: asyncio.Event,
        on_load: Callable[[LoadReport, float], None],
    ) -> None:
        self._due_runs = due_runs
        self._clock = clock
        self._stop = stop
        self._on_load = on_load
        self.report = LoadReport()
        self.refused: dict[str, WorkflowRefused] = {}
        self._reads = ConcurrentReads(
            reader, concurrency=concurrency, may_begin=self._may_read, wake=self._wake
        )
        self._woken = asyncio.Event()
        self._batches = Lane(loader, self._wake, alone=False)
        self._alone = Lane(loader, self._wake, alone=True)
        self._lanes = (self._batches, self._alone)

    async def work(self) -> None:
        """Claim, read and load until nothing claimable is left."""
        stopping = asyncio.create_task(self._stop.wait())
        waited_for: list[asyncio.Future[Any]] = [stopping]
        if self._due_runs.walks is not None:
            waited_for.append(self._due_runs.walks)
        for one in waited_for:
            one.add_done_callback(self._wake)
        try:
            await self._work()
        finally:
            for one in waited_for:
                one.remove_done_callback(self._wake)
            stopping.cancel()

    async def _work(self) -> None:
        claim_at = 0.0
        listing = self._due_runs.is_listing
        while True:
            if listing and not self._due_runs.is_listing:
                # The runs on the last pages of the walks have not been claimed yet.
                listing, claim_at = False, 0.0
            claim_every = self._due_runs.claim_every
            exhausted = time.monotonic() < claim_at
            if not exhausted and not self._stop.is_set() and self._reads.needs_claims:
                taken = await self._due_runs.claim()
                self._reads.add(*taken)
                exhausted = not taken
                if exhausted:
                    claim_at = time.monotonic() + claim_every
            self._reads.begin()
            loads = self._start_loads(idle=not self._reads.is_reading)
            if not self._reads.is_reading and not loads:
                done = exhausted and not self._reads.has_queued and not listing
                if done or self._stop.is_set():
                    return
                if not exhausted:
                    continue
            # Ended tasks wake this loop. To check every read each time would cost as much as the
            # reads themselves.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BATCH_WAIT if self._batches.is_filling else claim_every):
                    await self._woken.wait()
            self._woken.clear()
            if self._stop.is_set():
                await self._reads.decode()
            # Finished reads are collected before claims are released, so that they are loaded.
            self._collect()
            if self._stop.is_set():
                await self._release()

    async def renew(self) -> None:
        """Renew the leases of all claims that are not loaded yet."""
        held = [*self._reads.claims(), *self._batches.claims(), *self._alone.claims()]
        if held:
            await self._due_runs.renew(held)

    @contextlib.asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """Load finished reads and release all other claims, however the block ends."""
        try:
            yield
        finally:
            await asyncio.shield(self._settle())

    async def _settle(self) -> None:
        try:
            await self._reads.decode()
            self._collect_reads()
            try:
                await self._release()
            finally:
                # A load must not outlive the drain, even if the claims cannot be released.
                await self._finish_loads()
            while self._start_loads(idle=True):
                await self._finish_loads()
        except DatabaseError as error:
            # Nothing is lost: when the leases end, the runs can be claimed again.
            log.warning("claims_not_released", problem=str(error))

    async def _finish_loads(self) -> None:
        if loads := {lane.load for lane in self._lanes if lane.load is not None}:
            await asyncio.wait(loads)
            self._collect_loads()

    def _may_read(self) -> bool:
        return (
            not self._stop.is_set()
            and self._batches.waiting_bytes < WAITING_BYTES
            and self._alone.waiting_bytes < WAITING_ALONE_BYTES
        )

    def _wake(self, ended: asyncio.Future[Any] | None = None) -> None:
        self._woken.set()

    def _start_loads(self, *, idle: bool) -> bool:
        """Begin the loads that can begin now; return whether any load is running."""
        for lane in self._lanes:
            lane.start(idle=idle)
        return any(lane.load is not None for lane in self._lanes)

    def _collect(self) -> None:
        """Take all ended reads and loads, then raise the first error.

        An error of one read must not prevent the load of other finished reads.
        """
        failure = self._collect_reads()
        self._collect_loads()
        if failure is not None:
            raise failure

    def _collect_reads(self) -> EtlError | None:
        """Take all ended reads; return the first error whose cause is not a run."""
        failure: EtlError | None = None
        for claim, task in self._reads.collect():
            try:
                reading = task.result()
                self._reads.failures = 0
            except WorkflowRefused as error:
                if self._due_runs.refuse(claim.workflow_id):
                    log.error("workflow_refused", workflow=claim.workflow_id, problem=str(error))
                self.refused[claim.workflow_id] = error
                reading = self._failed(claim, str(error))
            except ApiUnavailable as error:
                log.warning("run_read_failed", run=claim.run_id, problem=str(error))
                self._reads.failures += 1
                if self._reads.failures >= GIVE_UP_AFTER:
                    self._reads.add(claim)
                    failure = failure or error
                    continue
                reading = self._failed(claim, str(error))
            except EtlError as error:
                self._reads.add(claim)
                failure = failure or error
                continue
            except Exception as error:
                # A defect of this program that one run triggers must not prevent the reads of the
                # others.
                log.error(
                    "run_read_failed",
                    run=claim.run_id,
                    problem=type(error).__name__,
                    exc_info=error,
                )
                reading = self._failed(claim, f"unexpected {type(error).__name__} while reading it")
            (self._alone if is_loaded_alone(reading) else self._batches).add(reading)
        return failure

    def _failed(self, claim: Claim, problem: str) -> Reading:
        return Reading(claim, self._clock.now(), problem=problem)

    def _collect_loads(self) -> None:
        """Add the reports of all ended loads, then raise the first error."""
        failure: Exception | None = None
        for lane in self._lanes:
            try:
                done = lane.collect()
            except Exception as error:
                failure = failure or error
                continue
            if done is not None:
                report, seconds = done
                self.report.add(report)
                self._on_load(report, seconds)
        if failure is not None:
            raise failure

    async def _release(self) -> None:
        if unread := await self._reads.cancel():
            await self._due_runs.release(unread)

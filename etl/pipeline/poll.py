"""The poll: claims due runs, reads them concurrently, and loads them during further reads."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog
from msgspec.structs import replace

from etl.database import Database
from etl.errors import ApiUnavailable, DatabaseError, EtlError, WorkflowRefused
from etl.ledger import claims
from etl.ledger.claims import Claim, DueFilter
from etl.ledger.clock import DatabaseClock
from etl.pipeline.batches import BATCH_WAIT, Lane, is_loaded_alone
from etl.pipeline.concurrent_reads import ConcurrentReads
from etl.pipeline.heartbeat import heartbeat
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reader, Reading

log = structlog.get_logger(__name__)

# Reads pause while this many bytes wait to be loaded: memory stays bounded if the database is
# slower than the API. Readings that are loaded alone have a larger limit, so that the others need
# not wait for them.
WAITING_BYTES = 64 << 20
WAITING_ALONE_BYTES = 256 << 20
# Seconds after which newly due runs are claimed while reads go on, so that one slow read does not
# delay all other runs.
CLAIM_EVERY = 1.0
# The same while run lists are walked: each of their pages may bring more due runs.
CLAIM_EVERY_WHILE_LISTING = 0.05
# One claim takes as many runs as were last read in CLAIM_SECONDS: at least CLAIM_LEAST and at most
# CLAIM_MOST times the number of concurrent reads. Larger claims cost less, but other replicas
# cannot read what this one has claimed: at the end of a backfill, they would all wait for one
# replica.
CLAIM_SECONDS = 0.2
CLAIM_LEAST, CLAIM_MOST = 2, 16
# This many consecutive reads without a response mean that the API is down, not that single runs
# fail.
GIVE_UP_AFTER = 5


def claim_size(claimed: int, seconds: float, concurrency: int) -> int:
    """Return how many runs to claim.

    Args:
        claimed: how many runs the last claim took.
        seconds: how long their reads took.
        concurrency: the number of concurrent reads.
    """
    read_meanwhile = round(CLAIM_SECONDS * claimed / max(seconds, 0.001))
    return max(CLAIM_LEAST * concurrency, min(read_meanwhile, CLAIM_MOST * concurrency))


class PollReport(msgspec.Struct):
    """The result of a drain."""

    load: LoadReport
    refused: list[WorkflowRefused] = []
    """One error for each workflow that the key may not read."""


class Listing(NamedTuple):
    """Walks of run lists that go on during a drain."""

    begun_at: datetime
    """Database time at which the walks began.

    While they go on, the drain reads only runs that they have listed. They may still correct what
    the ledger says about other runs, such as the workflow that a run belongs to.
    """
    cutoff: asyncio.Future[datetime]
    """The database time up to which due runs are read; known when the walks have ended.

    If the future holds an exception, the drain raises it.
    """


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
        drain = _Drain(poller=self, stop=stop, on_load=on_load, cutoff=cutoff, chosen=chosen)
        async with heartbeat(drain.renew, lease=self._lease), drain.settling():
            while True:
                await drain.work()
                if stop.is_set() or not wait_for_others or not await drain.others():
                    break
        return PollReport(drain.report, list(drain.refused.values()))


class _Drain:
    """The state of one drain."""

    def __init__(
        self,
        poller: Poller,
        stop: asyncio.Event,
        on_load: Callable[[LoadReport, float], None],
        cutoff: datetime | Listing | None,
        chosen: DueFilter,
    ) -> None:
        self._p = poller
        self._run = poller._database.in_thread
        self._stop = stop
        self._on_load = on_load
        self._cutoff = cutoff
        self._chosen = chosen
        self.report = LoadReport()
        self.refused: dict[str, WorkflowRefused] = {}
        self._skipped_workflows: set[str] = set()
        """Refused workflows, whose runs are not claimed.

        Without a cutoff, the drain retries these workflows when it finds nothing else due.
        """
        self._claimed, self._claimed_at = 0, time.monotonic()
        self._reads = ConcurrentReads(
            poller._reader,
            concurrency=poller._concurrency,
            may_begin=self._may_read,
            wake=self._wake,
        )
        self._woken = asyncio.Event()
        self._batches = Lane(poller._loader, self._wake, alone=False)
        self._alone = Lane(poller._loader, self._wake, alone=True)
        self._lanes = (self._batches, self._alone)

    @property
    def _is_listing(self) -> bool:
        """Whether the walks that provide the cutoff still go on."""
        return isinstance(self._cutoff, Listing) and not self._cutoff.cutoff.done()

    def _due(self, *, except_workflows: Iterable[str]) -> DueFilter:
        """Return a filter for the runs to claim now; raise the exception of failed walks."""
        chosen = replace(self._chosen, except_workflows=tuple(sorted(except_workflows)))
        if not isinstance(self._cutoff, Listing):
            return replace(chosen, cutoff=self._cutoff)
        if self._is_listing:
            return replace(chosen, listed_since=self._cutoff.begun_at)
        return replace(chosen, cutoff=self._cutoff.cutoff.result())

    async def work(self) -> None:
        """Claim, read and load until nothing claimable is left."""
        stopping = asyncio.create_task(self._stop.wait())
        waited_for: list[asyncio.Future[Any]] = [stopping]
        if isinstance(self._cutoff, Listing):
            waited_for.append(self._cutoff.cutoff)
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
        listing = self._is_listing
        while True:
            if listing and not self._is_listing:
                # The runs on the last pages of the walks have not been claimed yet.
                listing, claim_at = False, 0.0
            # With a fixed cutoff, no further run becomes due.
            claim_every = (
                CLAIM_EVERY_WHILE_LISTING
                if listing
                else CLAIM_EVERY
                if self._cutoff is None
                else math.inf
            )
            exhausted = time.monotonic() < claim_at
            if not exhausted and not self._stop.is_set() and self._reads.needs_claims:
                exhausted = not await self._claim()
                if exhausted:
                    claim_at = time.monotonic() + claim_every
                    if self._cutoff is None:
                        self._skipped_workflows.clear()
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

    async def others(self) -> bool:
        """Wait up to 1 s for due runs that could not be claimed; return False if there are none."""
        due = self._due(except_workflows=self.refused)
        pending = await self._run(lambda c: claims.pending(c, due))
        if not pending.due:
            return False
        # If a due run has no lease but was not claimed, a transaction has locked it, and usually
        # ends soon.
        pause = (
            min(max(pending.next_expiry or 0.0, 0.05), 1.0)
            if pending.leased == pending.due
            else 0.05
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)
        return True

    async def renew(self) -> None:
        """Renew the leases of all claims that are not loaded yet."""
        held = [*self._reads.claims(), *self._batches.claims(), *self._alone.claims()]
        if held:
            await self._run(lambda c: claims.renew(c, held, lease=self._p._lease))

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
            log.warning("claims_not_released", cause=str(error))

    async def _finish_loads(self) -> None:
        if loads := {lane.load for lane in self._lanes if lane.load is not None}:
            await asyncio.wait(loads)
            self._collect_loads()

    async def _claim(self) -> bool:
        due = self._due(except_workflows=self._skipped_workflows)
        now = time.monotonic()
        limit = claim_size(self._claimed, now - self._claimed_at, self._p._concurrency)
        taken = await self._run(
            lambda c: claims.claim(c, limit=limit, lease=self._p._lease, among=due)
        )
        self._claimed, self._claimed_at = len(taken), now
        if taken:
            self._p._clock.anchor(taken[0].claimed_at)
        self._reads.add(*taken)
        return bool(taken)

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
                if claim.workflow_id not in self._skipped_workflows:
                    log.error("workflow_refused", workflow=claim.workflow_id, problem=str(error))
                self._skipped_workflows.add(claim.workflow_id)
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
        return Reading(claim, self._p._clock.now(), problem=problem)

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
            await self._run(lambda c: claims.release(c, unread))

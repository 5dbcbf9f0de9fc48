"""The sweep: walks a workflow's run list and enters every listed run into the ledger only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from etl.database import Database
from etl.errors import (
    ApiError,
    ApiUnavailable,
    DatabaseError,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
)
from etl.extract.client import OrchestraClient
from etl.extract.run_list import RunListWalker
from etl.ledger import dead_letters, listed_pages, sweeps
from etl.ledger.clock import DatabaseClock
from etl.pipeline.decoding import decoded
from etl.pipeline.heartbeat import heartbeat
from etl.records import DecodedPage, ListedRun, Rejected
from etl.terminal import counted
from etl.transform.redact import Redaction
from etl.transform.runs import decode_page

log = structlog.get_logger(__name__)

# Consecutive members of the watermark that end a walk (see `etl.extract.run_list`).
WATERMARK_RUN = 25
# Pages. A walk without progress ends in any case; this limit ends the walk of a list that always
# shows new runs (100 million rows, at 100 rows a page).
UNBOUNDED = 1_000_000
# Statuses that servers return for a page past the list's end. A redirect is not among them: a
# redirect to a login page, for example, says nothing about the list.
PAST_THE_END = (400, 404, 410, 416, 422)
# The text of a gap whose cause is an empty list.
EMPTIED = (
    "the run list is empty, though it listed runs before: runs may have appeared and disappeared "
    "since"
)
# If this share of the pairs of neighbouring rows has the older run first, the list counts as sorted
# oldest first.
OLDEST_FIRST = 0.75


class SweepReport(msgspec.Struct):
    """The result of a sweep."""

    workflow_id: str
    pages: int = 0
    listed: int = 0
    new: int = 0
    changed: int = 0
    dead_letters: int = 0
    """New dead letters."""
    repaired: int = 0
    """Runs that were read before but are missing from the tables; they are read again."""
    gap: str | None = None
    """How runs may have been missed; None if there is no new gap."""
    warning: str | None = None
    """Set if more than half of a full list was new, so that the next sweep may find a gap."""
    problem: str | None = None
    """How the list deviates from the API's description; usually why a sweep is not complete."""
    problem_is_new: bool = False
    """Whether a complete sweep found this problem for the first time."""
    complete: bool = False
    """Whether the sweep is complete, so that the watermark has moved."""
    whole_list: bool = False


class Sweeper:
    """Sweeps workflows, with one walk per workflow at a time.

    The leases in the table `sweeps` ensure this across replicas.
    """

    def __init__(
        self,
        database: Database,
        client: OrchestraClient,
        clock: DatabaseClock,
        redaction: Redaction,
        *,
        lease: float,
        page_size: int,
        reconcile_pages: int,
        reconcile_every: float,
    ) -> None:
        """Create a sweeper.

        Args:
            database: holds the ledger.
            client: requests the pages.
            clock: the database's clock.
            redaction: the rules for listed rows.
            lease: seconds.
            page_size: rows to request with each page.
            reconcile_pages: maximum number of pages in the routine full walk.
            reconcile_every: seconds between two full walks.
        """
        self._run = database.in_thread
        self._client = client
        self._clock = clock
        self._redaction = redaction
        self._lease = lease
        self._page_size = page_size
        self._reconcile_pages = reconcile_pages
        self._reconcile_every = reconcile_every

    async def sweep(
        self,
        workflow_id: str,
        *,
        whole_list: bool = False,
        backfill: bool = False,
        wait: bool = True,
    ) -> SweepReport | None:
        """Walk the list to the watermark, or to the list's end.

        Args:
            workflow_id: the workflow.
            whole_list: walk to the list's end, past the watermark, even if no full walk is due.
            backfill: give the listed runs backfill priority, so that they are read after live runs.
            wait: whether to wait while another process sweeps the same workflow, and sweep then.

        Returns:
            The report; None if another process sweeps the workflow and `wait` is False.

        Raises:
            ApiError: the list cannot be read. The runs listed so far stay in the ledger, and the
                watermark does not move.
        """
        while (begun := await self._begun(workflow_id)) is None:
            if not wait:
                return None
            ends_in = await self._run(lambda c: sweeps.lease_ends_in(c, workflow_id))
            await asyncio.sleep(min(max(ends_in or 0.0, 0.05), 1.0))
        self._clock.anchor(begun.begun_at)
        # A clock that was set back must not put the full walk off.
        due = begun.reconciled_at is None or not (
            0 <= (begun.begun_at - begun.reconciled_at).total_seconds() < self._reconcile_every
        )
        report = SweepReport(workflow_id, whole_list=whole_list or due)
        # Only the routine full walk is bounded, not a first sweep or a requested full walk.
        max_pages = (
            self._reconcile_pages if due and not whole_list and begun.watermark_size else UNBOUNDED
        )
        try:
            with bound_contextvars(workflow=workflow_id, sweep=begun.token):
                async with heartbeat(lambda: self._hold(begun), lease=self._lease):
                    await self._walk(begun, report, max_pages=max_pages, backfill=backfill)
        except sweeps.SweepSuperseded:
            log.warning("sweep_superseded", workflow=workflow_id)
        except ApiError as error:
            problem = str(error)
            await self._run(lambda c: sweeps.abandon(c, begun, error=problem))
            raise
        except BaseException:
            await asyncio.shield(self._run(lambda c: sweeps.abandon(c, begun)))
            raise
        else:
            if not report.complete:
                problem = report.problem or f"cut off after {counted(report.pages, 'page')}"
                log.warning(
                    "sweep_cut_off",
                    workflow=workflow_id,
                    pages=report.pages,
                    listed=report.listed,
                    problem=problem,
                )
                await self._run(lambda c: sweeps.abandon(c, begun, error=problem))
        return report

    async def _begun(self, workflow_id: str) -> sweeps.Sweep | None:
        """Begin a sweep, unless another one holds the lease; a cancellation releases the lease."""
        begin = asyncio.create_task(
            self._run(
                lambda c: sweeps.begin(c, workflow_id, lease=self._lease, count_to=WATERMARK_RUN)
            )
        )
        try:
            return await asyncio.shield(begin)
        except asyncio.CancelledError:
            # The transaction goes on in its thread.
            with suppress(DatabaseError):
                if (begun := await begin) is not None:
                    await self._run(lambda c: sweeps.abandon(c, begun))
            raise

    async def _hold(self, begun: sweeps.Sweep) -> None:
        await self._run(lambda c: sweeps.hold(c, begun, lease=self._lease))

    async def _walk(
        self, begun: sweeps.Sweep, report: SweepReport, *, max_pages: int, backfill: bool
    ) -> None:
        walker = RunListWalker(
            page_size=self._page_size,
            whole_list=report.whole_list,
            watermark_run=WATERMARK_RUN,
            watermark_size=begun.watermark_size,
            max_pages=max_pages,
        )
        oldest: datetime | None = None
        while (request := walker.next_page()) is not None:
            page, requested_at = DecodedPage(()), self._clock.now()
            try:
                response = await self._client.run_page(
                    begun.workflow_id, offset=request.offset, limit=request.limit
                )
            except ResponseTooLarge:
                walker.too_large()
            except (NotFound, RequestRefused) as error:
                # Only a page behind the head can be past the list's end. If the server now refuses
                # the head, too, the walk notices this when it requests the head again.
                if request.offset and error.status in PAST_THE_END:
                    walker.end_of_list()
                elif report.pages:
                    raise
                else:
                    raise await self._advised(error) from None
            else:
                requested_at = self._clock.at(response.requested_at, after=begun.begun_at)
                policy = self._redaction.policy(begun.workflow_id)
                decode = partial(decode_page, response.body, policy=policy, now=requested_at)
                page = await decoded(len(response.body), decode)
                if request.offset and not response.body.strip():
                    page = DecodedPage(())
                report.dead_letters += await self._record_dead_letters(
                    begun.workflow_id, page.rejected, requested_at
                )
                if not page.readable:
                    raise ApiUnavailable(
                        f"workflow {begun.workflow_id}: the run list is not a JSON array; "
                        "the response is kept as a dead letter"
                    )
                if not request.offset and _is_oldest_first(page.runs):
                    walker.walk_whole_list(
                        "the list shows the oldest runs first: each sweep has to walk it whole",
                        max_pages=UNBOUNDED,
                    )
                    report.whole_list = True
                ids = [run.id for run in page.runs]
                # Only complete sweeps make members.
                members = (
                    await self._run(partial(sweeps.members, sweep=begun, run_ids=ids))
                    if begun.last_complete is not None
                    else set[str]()
                )
                walker.receive(page.rows, members)
                if not walker.last_is_listed:
                    page = DecodedPage(())
            report.pages += 1
            report.listed, report.problem = walker.listed, walker.problem
            oldest = min([run.start_time for run in page.runs if run.start_time], default=oldest)
            await self._enter(
                begun,
                page=page,
                requested_at=requested_at,
                walker=walker,
                report=report,
                oldest=oldest,
                backfill=backfill,
            )

    async def _enter(
        self,
        begun: sweeps.Sweep,
        page: DecodedPage,
        requested_at: datetime,
        walker: RunListWalker,
        report: SweepReport,
        oldest: datetime | None,
        *,
        backfill: bool,
    ) -> None:
        completion = None
        if walker.outcome is not None and walker.skipped_offsets:
            skipped = Rejected(
                "too_large", "a row of the run list is larger than api.max_response_bytes", b""
            )
            report.dead_letters += await self._record_dead_letters(
                begun.workflow_id, [skipped], requested_at
            )
        # A bounded full walk that has passed the watermark is a complete sweep.
        if walker.outcome is not None and (walker.outcome != "cut_off" or walker.watermark_met):
            gap = None
            if walker.outcome == "missed" and walker.emptied:
                gap = EMPTIED
            elif walker.outcome == "missed":
                gap = (
                    f"the run list ended after {counted(report.listed, 'row')} without reaching a "
                    "known run: between two sweeps, more runs were added than it lists"
                )
            completion = listed_pages.SweepResult(
                # An empty list shows neither how many runs the list can hold, nor whether the known
                # runs have changed.
                whole_list=(report.whole_list or walker.outcome != "met") and gap is not EMPTIED,
                to_the_end=walker.outcome in ("ended", "missed") and gap is not EMPTIED,
                listed=report.listed,
                new_runs=report.new,
                gap=gap,
                problem=report.problem,
                oldest_start=oldest,
                repaired=report.repaired,
            )
        # In a first sweep, the runs on the first page are live, and all other runs are backfill.
        priority = 1 if backfill or (begun.last_complete is None and report.pages > 1) else 0
        written = await self._run(
            lambda c: listed_pages.write_page(
                c,
                begun,
                page.runs,
                requested_at=requested_at,
                lease=self._lease,
                priority=priority,
                reconcile=report.whole_list,
                completion=completion,
            )
        )
        if written.missed and completion is not None:
            report.gap = completion.gap
        report.new += written.new
        report.changed += written.changed
        report.repaired += written.repaired
        report.dead_letters += written.dead_letters
        if written.overrun is not None:
            new, listed = written.overrun
            report.warning = (
                f"{counted(new, 'run was', 'runs were')} new,"
                f" and the list shows only {listed:,}: sweep more often, or runs will be missed"
            )
            log.warning("list_nearly_overrun", workflow=begun.workflow_id, new=new, listed=listed)
        if written.problem_is_new:
            report.problem_is_new = True
            log.warning("list_problem_found", workflow=begun.workflow_id, problem=report.problem)
        if written.repaired:
            log.warning("missing_runs_found", workflow=begun.workflow_id, runs=written.repaired)
        report.complete = completion is not None

    async def _advised(self, error: NotFound | RequestRefused) -> NotFound | RequestRefused:
        """Return the error, with advice if the server apparently does not offer a run list.

        Status 404 or 405 has this meaning only if the base URL is right, that is, if another
        request has succeeded.
        """
        if error.status not in (404, 405) or not await self._has_response():
            return error
        return error.reworded(
            f"{error}; if the server offers no run list, set discover = false and name the runs"
        )

    async def _has_response(self) -> bool:
        """Return whether any request below the base URL has returned a 2xx status."""
        if not self._client.has_responded:
            with suppress(ApiError):
                await self._client.workflows()
        return self._client.has_responded

    async def _record_dead_letters(
        self, workflow_id: str, rejected: Sequence[Rejected], requested_at: datetime
    ) -> int:
        if not rejected:
            return 0
        letters = [dead_letters.DeadLetter(workflow_id, "", one) for one in rejected]
        return await self._run(lambda c: dead_letters.record(c, letters, since=requested_at))


def _is_oldest_first(runs: Sequence[ListedRun]) -> bool:
    """Return whether most start times ascend; runs without a start time are ignored."""
    starts = [run.start_time for run in runs if run.start_time is not None]
    pairs = [(one, other) for one, other in pairwise(starts) if one != other]
    # A few rows prove nothing; in that case, this page holds the whole list.
    return len(pairs) >= WATERMARK_RUN // 2 and sum(
        one < other for one, other in pairs
    ) >= OLDEST_FIRST * len(pairs)

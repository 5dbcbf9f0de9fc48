"""The sweep: walks a workflow's run list and enters every listed run into the ledger. It writes nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise

import msgspec
import structlog
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from etl.database import Database
from etl.errors import ApiError, ApiUnavailable, NotFound, RequestRefused, ResponseTooLarge
from etl.extract.client import OrchestraClient
from etl.extract.run_list import RunListWalker
from etl.ledger import dead_letters, sweeps
from etl.ledger.clock import DatabaseClock
from etl.pipeline.decoding import decoded
from etl.pipeline.heartbeat import heartbeat
from etl.records import DecodedPage, ListedRun, Rejected
from etl.transform.redact import Redaction
from etl.transform.runs import decode_page

log = structlog.get_logger(__name__)

# Members of the watermark in a row that end a walk (see `etl.extract.run_list`).
WATERMARK_RUN = 25
# Pages. A walk ends where the list makes no progress; this one ends a list that never runs out of
# new runs (100 million rows).
UNBOUNDED = 1_000_000
# What servers answer to a page past the list's end. A redirect, say to a login, says nothing about
# the list.
NO_SUCH_PAGE = (400, 404, 410, 416, 422)
# What a gap says where the list is empty.
EMPTIED = "the run list is empty, though it listed runs before: runs may have come and gone since"
# The share of neighbours on a page, older before newer, from which on a list is taken to be oldest
# first.
OLDEST_FIRST = 0.75


class SweepReport(msgspec.Struct):
    """What a sweep did."""

    workflow_id: str
    pages: int = 0
    listed: int = 0
    new: int = 0
    changed: int = 0
    dead_letters: int = 0
    """New dead letters."""
    repaired: int = 0
    """Runs that the ledger had as read and the tables did not have; they are read again."""
    gap: str | None = None
    warning: str | None = None
    """Where a gap is near: the list shows too little for so many new runs between two sweeps."""
    problem: str | None = None
    """How the list behaves otherwise than the API says; where the sweep is not complete, mostly why."""
    problem_is_new: bool = False
    """Whether a complete sweep found this for the first time."""
    complete: bool = False
    whole_list: bool = False


class Sweeper:
    """Sweeps workflows, one walk at a time each; replicas agree through the lease in `sweeps`."""

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
        """`lease` and `reconcile_every` are in seconds; `reconcile_pages` bounds the routine walk of the whole list."""
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
        """Walk the list until it is known, or to its end.

        Args:
            workflow_id: the workflow.
            whole_list: walk to the list's end even where the watermark is met. Done anyway when it is due.
            backfill: poll the runs found after everything that is live.
            wait: wait for a sweep of the same workflow that another process has begun, then sweep; False: return None.

        Raises:
            ApiError: the list cannot be read; what was listed so far stays in the ledger, the watermark stays where it was.
        """
        while (begun := await self._run(self._begin(workflow_id))) is None:
            if not wait:
                return None
            ends_in = await self._run(lambda c: sweeps.lease_ends_in(c, workflow_id))
            await asyncio.sleep(min(max(ends_in or 0.0, 0.05), 1.0))
        self._clock.anchor(begun.begun_at)
        due = begun.reconciled_at is None or (
            (begun.begun_at - begun.reconciled_at).total_seconds() >= self._reconcile_every
        )
        report = SweepReport(workflow_id, whole_list=whole_list or due)
        # Only the routine walk of the whole list is bounded: what it does not reach, a later one
        # may.
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
                problem = report.problem or f"cut off after {report.pages} pages"
                log.warning(
                    "sweep_cut_off",
                    workflow=workflow_id,
                    pages=report.pages,
                    listed=report.listed,
                    problem=problem,
                )
                await self._run(lambda c: sweeps.abandon(c, begun, error=problem))
        return report

    def _begin(self, workflow_id: str) -> Callable[[Connection], sweeps.Sweep | None]:
        return lambda c: sweeps.begin(c, workflow_id, lease=self._lease, count_to=WATERMARK_RUN)

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
                answer = await self._client.run_page(
                    begun.workflow_id, offset=request.offset, limit=request.limit
                )
            except ResponseTooLarge:
                walker.too_large()
            except (NotFound, RequestRefused) as error:
                # The head of a list is no page past its end; where it, too, is refused by now, the
                # walk comes upon that.
                if request.offset and error.status in NO_SUCH_PAGE:
                    walker.end_of_list()
                elif report.pages:
                    raise
                else:
                    raise await self._advised(error) from None
            else:
                requested_at = self._clock.at(answer.requested_at)
                policy = self._redaction.policy(begun.workflow_id)
                decode = partial(decode_page, answer.body, policy=policy, now=requested_at)
                page = await decoded(len(answer.body), decode)
                if request.offset and not answer.body.strip():
                    page = DecodedPage(())
                report.dead_letters += await self._set_aside(
                    begun.workflow_id, page.rejected, requested_at
                )
                if not page.readable:
                    raise ApiUnavailable(
                        f"workflow {begun.workflow_id}: the run list is no JSON array; the answer is kept as a dead letter"
                    )
                if not request.offset and _is_oldest_first(page.runs):
                    walker.walk_whole_list(
                        "the list shows the oldest runs first: each sweep has to walk it whole",
                        max_pages=UNBOUNDED,
                    )
                    report.whole_list = True
                ids = [run.id for run in page.runs]
                members = await self._run(partial(sweeps.members, sweep=begun, run_ids=ids))
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
            report.dead_letters += await self._set_aside(begun.workflow_id, [skipped], requested_at)
        # A bounded walk of the whole list that came past the watermark has done what a sweep must
        # do.
        if walker.outcome is not None and (walker.outcome != "cut_off" or walker.watermark_met):
            gap = None
            if walker.outcome == "missed" and walker.emptied:
                gap = EMPTIED
            elif walker.outcome == "missed":
                gap = (
                    f"the run list ended after {report.listed} rows without reaching a run known before: "
                    "more runs came than it lists between two sweeps"
                )
            completion = sweeps.SweepResult(
                # An empty list says nothing about the known runs: not how many can be listed, not
                # whether they have changed.
                whole_list=(report.whole_list or walker.outcome != "met") and gap is not EMPTIED,
                to_the_end=walker.outcome in ("ended", "missed") and gap is not EMPTIED,
                listed=report.listed,
                new_runs=report.new,
                gap=gap,
                problem=report.problem,
                oldest_start=oldest,
                repaired=report.repaired,
            )
        # The first page of a first sweep is what happens now; what lies behind it is history.
        priority = 1 if backfill or (begun.last_complete is None and report.pages > 1) else 0
        written = await self._run(
            lambda c: sweeps.write_page(
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
            report.warning = f"{new:,} runs were new where the list shows {listed:,}: sweep more often, or runs will be missed"
            log.warning("list_nearly_overrun", workflow=begun.workflow_id, new=new, listed=listed)
        if written.problem_is_new:
            report.problem_is_new = True
            log.warning("list_problem_found", workflow=begun.workflow_id, problem=report.problem)
        if written.repaired:
            log.warning("missing_runs_found", workflow=begun.workflow_id, runs=written.repaired)
        report.complete = completion is not None

    async def _advised(self, error: NotFound | RequestRefused) -> NotFound | RequestRefused:
        """The error with what else may be done about it.

        Only where the server is known to be the right one does a path that it does not have mean
        that it offers no run list.
        """
        if error.status not in (404, 405) or not await self._answers():
            return error
        return error.reworded(
            f"{error}; where the server offers no run list, set discover = false and name the runs"
        )

    async def _answers(self) -> bool:
        """Whether anything below the base URL is answered."""
        if not self._client.has_answered:
            with suppress(ApiError):
                await self._client.workflows()
        return self._client.has_answered

    async def _set_aside(
        self, workflow_id: str, rejected: Sequence[Rejected], requested_at: datetime
    ) -> int:
        if not rejected:
            return 0
        letters = [dead_letters.DeadLetter(workflow_id, "", one) for one in rejected]
        return await self._run(lambda c: dead_letters.record(c, letters, since=requested_at))


def _is_oldest_first(runs: Sequence[ListedRun]) -> bool:
    """Whether the rows' starts say so; runs that have not started say nothing."""
    starts = [run.start_time for run in runs if run.start_time is not None]
    pairs = [(one, other) for one, other in pairwise(starts) if one != other]
    # Few rows tell nothing, and are all on this page.
    return len(pairs) >= WATERMARK_RUN // 2 and sum(
        one < other for one, other in pairs
    ) >= OLDEST_FIRST * len(pairs)

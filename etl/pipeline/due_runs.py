"""Claims of the runs that are due during a drain."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from etl.database import Database
from etl.ledger import claims
from etl.ledger.claims import Claim, DueFilter
from etl.ledger.clock import DatabaseClock

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


def claim_size(claimed: int, seconds: float, concurrency: int) -> int:
    """Return how many runs to claim.

    Args:
        claimed: how many runs the last claim took.
        seconds: how long their reads took.
        concurrency: the number of concurrent reads.
    """
    read_meanwhile = round(CLAIM_SECONDS * claimed / max(seconds, 0.001))
    return max(CLAIM_LEAST * concurrency, min(read_meanwhile, CLAIM_MOST * concurrency))


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


class DueRuns:
    """The due runs that a drain may claim, and its claims."""

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        *,
        chosen: DueFilter,
        cutoff: datetime | Listing | None,
        concurrency: int,
        lease: float,
    ) -> None:
        """Claim nothing yet.

        Args:
            database: holds the ledger.
            clock: the database's clock; each claim anchors it.
            chosen: the runs that may be claimed at all.
            cutoff: as for `Poller.drain`.
            concurrency: number of concurrent reads.
            lease: seconds.
        """
        self._run = database.in_thread
        self._clock = clock
        self._chosen = chosen
        self._cutoff = cutoff
        self._concurrency = concurrency
        self._lease = lease
        self._refused: set[str] = set()
        self._skipped: set[str] = set()
        """Refused workflows, whose runs are not claimed.

        Without a cutoff, these workflows are tried again when nothing else is due.
        """
        self._claimed, self._claimed_at = 0, time.monotonic()

    @property
    def walks(self) -> asyncio.Future[datetime] | None:
        """The walks that provide the cutoff; None if there are none."""
        return self._cutoff.cutoff if isinstance(self._cutoff, Listing) else None

    @property
    def is_listing(self) -> bool:
        """Whether these walks still go on."""
        return self.walks is not None and not self.walks.done()

    @property
    def claim_every(self) -> float:
        """Seconds after which more runs may be due; with a fixed cutoff, none becomes due."""
        if self.is_listing:
            return CLAIM_EVERY_WHILE_LISTING
        return CLAIM_EVERY if self._cutoff is None else math.inf

    def _due(self, *, except_workflows: Collection[str]) -> DueFilter:
        """Return a filter for the runs to claim now; raise the exception of failed walks."""
        chosen = replace(self._chosen, except_workflows=tuple(sorted(except_workflows)))
        if not isinstance(self._cutoff, Listing):
            return replace(chosen, cutoff=self._cutoff)
        if self.is_listing:
            return replace(chosen, listed_since=self._cutoff.begun_at)
        return replace(chosen, cutoff=self._cutoff.cutoff.result())

    def refuse(self, workflow_id: str) -> bool:
        """Skip the runs of a workflow that the API refuses; return whether they were not yet."""
        is_new = workflow_id not in self._skipped
        self._skipped.add(workflow_id)
        self._refused.add(workflow_id)
        return is_new

    async def claim(self) -> Sequence[Claim]:
        """Claim due runs; return none if no run can be claimed now."""
        due = self._due(except_workflows=self._skipped)
        now = time.monotonic()
        limit = claim_size(self._claimed, now - self._claimed_at, self._concurrency)
        taken = await self._run(
            lambda c: claims.claim(c, limit=limit, lease=self._lease, among=due)
        )
        self._claimed, self._claimed_at = len(taken), now
        if taken:
            self._clock.anchor(taken[0].claimed_at)
        elif self._cutoff is None:
            self._skipped.clear()
        return taken

    async def renew(self, held: Sequence[Claim]) -> None:
        """Renew the leases of these claims."""
        await self._run(lambda c: claims.renew(c, held, lease=self._lease))

    async def release(self, held: Sequence[Claim]) -> None:
        """Give up these claims."""
        await self._run(lambda c: claims.release(c, held))

    async def others(self, stop: asyncio.Event) -> bool:
        """Wait up to 1 s for due runs that could not be claimed; return False if there are none."""
        due = self._due(except_workflows=self._refused)
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
            await asyncio.wait_for(stop.wait(), pause)
        return True

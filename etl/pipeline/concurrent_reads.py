"""The reads of a drain that go on at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from etl.ledger.claims import Claim
from etl.pipeline.decoding import DecodingGroup
from etl.pipeline.reading import Reader, Reading


class ConcurrentReads:
    """Claimed runs that have not been read yet, and the reads in progress.

    While the response of a read waits to be decoded, the next read begins. So more responses gather
    than there are concurrent requests.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        concurrency: int,
        may_begin: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        """Start without claims.

        Args:
            reader: reads one run.
            concurrency: maximum number of reads that wait for a response.
            may_begin: whether another read may begin now.
            wake: called when a read has ended, when claims are needed, and when no read waits for a
                response any more.
        """
        self._reader = reader
        self._concurrency = concurrency
        self._may_begin = may_begin
        self._wake = wake
        self._queue: deque[Claim] = deque()
        self._reading: dict[asyncio.Task[Reading], Claim] = {}
        self._ended: deque[asyncio.Task[Reading]] = deque()
        self._group = DecodingGroup(self._responded)
        self.failures = 0
        """The number of failed reads since the last response, counted by the drain."""

    @property
    def needs_claims(self) -> bool:
        """Whether fewer claims are queued than reads can begin at once."""
        return len(self._queue) < self._concurrency

    @property
    def has_queued(self) -> bool:
        """Whether any claim is queued."""
        return bool(self._queue)

    @property
    def is_reading(self) -> bool:
        """Whether any read is in progress, or has ended and was not collected yet."""
        return bool(self._reading)

    @property
    def _requesting(self) -> int:
        return len(self._reading) - self._group.waiting

    def add(self, *claimed: Claim) -> None:
        """Queue claims."""
        self._queue.extend(claimed)

    def claims(self) -> Iterator[Claim]:
        """Yield the claims of all runs whose reads have not been collected."""
        yield from (*self._queue, *self._reading.values())

    def begin(self) -> None:
        """Begin the reads that may begin; decode what waits if no further response can arrive."""
        self._begin()
        if not self._requesting:
            self._group.open()

    def _begin(self) -> None:
        while self._queue and self._requesting < self._concurrency and self._may_begin():
            claim = self._queue.popleft()
            task = asyncio.create_task(self._reader.read(claim, self._group))
            self._reading[task] = claim
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Reading]) -> None:
        if task in self._reading:
            self._ended.append(task)
            self._wake()

    def _responded(self) -> None:
        self.failures = 0
        self._begin()
        if self.needs_claims or not self._requesting:
            self._wake()

    def collect(self) -> Iterator[tuple[Claim, asyncio.Task[Reading]]]:
        """Remove and yield the reads that have ended."""
        while self._ended:
            task = self._ended.popleft()
            yield self._reading.pop(task), task

    async def decode(self) -> None:
        """Decode all responses that wait; their reads end, unless they need another response."""
        self._group.open()
        await asyncio.sleep(0)  # Each read decodes its response.
        await asyncio.sleep(0)  # `_end` is called for each.

    async def cancel(self) -> list[Claim]:
        """Cancel all reads, empty the queue, and return the claims of both."""
        unread, tasks = list(self.claims()), list(self._reading)
        self._queue.clear()
        self._reading.clear()
        self._ended.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return unread

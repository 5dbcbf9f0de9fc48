"""Queues of readings to be loaded: in batches, or alone if the load may take long."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

from etl.ledger.claims import Claim
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reading

# A batch is loaded when it has this many steps or bytes, when its first reading has waited for
# BATCH_WAIT seconds, or when there is nothing to wait for. Larger batches load no faster, and hold
# their locks longer. Each batch costs about 20 statements: with an API that responds in 50 ms, four
# services took a tenth less time with a wait of 1.0 s than with 0.2 s. A longer wait delays when
# rows become visible; 0.5 s is the compromise.
BATCH_STEPS = 2000
BATCH_BYTES = 16 << 20
BATCH_WAIT = 0.5


def is_loaded_alone(reading: Reading) -> bool:
    """Return whether the reading is larger than a batch, or the last attempt on its run failed.

    A run whose last read or load failed may fail again, and would delay its batch.
    """
    if reading.steps is None:
        return False
    return (
        len(reading.steps.steps) > BATCH_STEPS
        or reading.size > BATCH_BYTES
        or reading.claim.known.attempts > 0
    )


class Lane:
    """A queue of readings with one load at a time; different lanes load concurrently."""

    def __init__(
        self, loader: Loader, woken: Callable[[asyncio.Future[LoadReport]], None], *, alone: bool
    ) -> None:
        """Start with an empty queue.

        Args:
            loader: loads the batches, in a thread.
            woken: called with the load's task when it has ended.
            alone: load each reading as a batch of its own, at once.
        """
        self._loader = loader
        self._woken = woken
        self._alone = alone
        self._waiting: deque[Reading] = deque()
        self._waiting_since = 0.0
        self._loading: list[Reading] = []
        self._loading_since = 0.0
        self._waiting_steps = 0
        self.waiting_bytes = 0
        self.load: asyncio.Task[LoadReport] | None = None

    @property
    def is_filling(self) -> bool:
        """Whether readings wait for their batch to become full."""
        return bool(self._waiting) and self.load is None

    def claims(self) -> Iterator[Claim]:
        """Yield the claims of all readings that are not loaded yet."""
        for reading in (*self._waiting, *self._loading):
            yield reading.claim

    def add(self, reading: Reading) -> None:
        """Queue a reading for its load."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append(reading)
        self._waiting_steps += _steps(reading)
        self.waiting_bytes += reading.size

    def start(self, *, idle: bool) -> None:
        """Begin the next load if none is running and a batch is full or has waited long enough.

        `idle` means that nothing else is running: then a batch of any size is loaded.
        """
        if self.load is not None or not self._waiting:
            return
        is_full = (
            self._waiting_steps >= BATCH_STEPS
            or self.waiting_bytes >= BATCH_BYTES
            or time.monotonic() - self._waiting_since >= BATCH_WAIT
        )
        if self._alone or idle or is_full:
            self._loading = self._take_batch()
            self._loading_since = time.monotonic()
            self.load = asyncio.create_task(asyncio.to_thread(self._loader.load, self._loading))
            self.load.add_done_callback(self._woken)

    def _take_batch(self) -> list[Reading]:
        """Take the oldest readings, up to the bounds of a batch; the last one may exceed them."""
        batch: list[Reading] = []
        steps = size = 0
        while (
            self._waiting
            and steps < BATCH_STEPS
            and size < BATCH_BYTES
            and not (self._alone and batch)
        ):
            reading = self._waiting.popleft()
            steps += _steps(reading)
            size += reading.size
            batch.append(reading)
        self._waiting_steps -= steps
        self.waiting_bytes -= size
        return batch

    def collect(self) -> tuple[LoadReport, float] | None:
        """Return the report of an ended load and the seconds that it took; None if none has ended.

        Raises the exception of a failed load.
        """
        if self.load is None or not self.load.done():
            return None
        task, self.load, self._loading = self.load, None, []
        return task.result(), time.monotonic() - self._loading_since


def _steps(reading: Reading) -> int:
    return len(reading.steps.steps) if reading.steps is not None else 0

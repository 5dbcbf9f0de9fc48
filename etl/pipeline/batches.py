"""Readings on their way into the database: in batches, and those that take long beside them, each in a batch of its own."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

from etl.ledger.claims import Claim
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reading

# A batch is loaded when it holds so many steps or bytes, when its first reading has waited so long
# (seconds), or when there is nothing to wait for. Larger batches load no faster; they only hold
# their locks longer. Each costs some 20 statements: four services beside an API of 50 ms took a
# tenth less with 1.0 s than with 0.2 s; between them lies what is shown how soon.
BATCH_STEPS = 2000
BATCH_BYTES = 16 << 20
BATCH_WAIT = 0.5


def is_loaded_alone(reading: Reading) -> bool:
    """Whether the reading is larger than a batch, or the run could not be loaded, or read, the last time: it may be the cause."""
    if reading.steps is None:
        return False
    return (
        len(reading.steps.steps) > BATCH_STEPS
        or reading.size > BATCH_BYTES
        or reading.claim.known.attempts > 0
    )


class Lane:
    """Readings that wait for their load, one load at a time; lanes load beside one another."""

    def __init__(
        self, loader: Loader, woken: Callable[[asyncio.Future[LoadReport]], None], *, alone: bool
    ) -> None:
        """`woken` is called when a load has ended. `alone`: every reading is a batch of its own, and waits for no other."""
        self._loader = loader
        self._woken = woken
        self._alone = alone
        self._waiting: deque[Reading] = deque()
        self._waiting_since = 0.0
        self._loading: list[Reading] = []
        self._loading_since = 0.0
        self.waiting_bytes = 0
        self.load: asyncio.Task[LoadReport] | None = None

    @property
    def is_filling(self) -> bool:
        """Whether readings wait for others to be loaded with."""
        return bool(self._waiting) and self.load is None

    def claims(self) -> Iterator[Claim]:
        """The claims of all that is not loaded yet."""
        for reading in (*self._waiting, *self._loading):
            yield reading.claim

    def add(self, reading: Reading) -> None:
        """Have it loaded."""
        if not self._waiting:
            self._waiting_since = time.monotonic()
        self._waiting.append(reading)
        self.waiting_bytes += reading.size

    def start(self, *, idle: bool) -> None:
        """Begin the next load, where none goes on and a batch is full, or has waited; `idle`: where there is one at all."""
        if self.load is not None or not self._waiting:
            return
        steps = sum(
            len(reading.steps.steps) for reading in self._waiting if reading.steps is not None
        )
        waited = time.monotonic() - self._waiting_since
        is_full = steps >= BATCH_STEPS or self.waiting_bytes >= BATCH_BYTES or waited >= BATCH_WAIT
        if self._alone or idle or is_full:
            self._loading = self._take_batch()
            self._loading_since = time.monotonic()
            self.load = asyncio.create_task(asyncio.to_thread(self._loader.load, self._loading))
            self.load.add_done_callback(self._woken)

    def _take_batch(self) -> list[Reading]:
        """The oldest readings, up to the bounds of one transaction; a single one may exceed them."""
        batch: list[Reading] = []
        steps = size = 0
        while (
            self._waiting
            and steps < BATCH_STEPS
            and size < BATCH_BYTES
            and not (self._alone and batch)
        ):
            reading = self._waiting.popleft()
            steps += len(reading.steps.steps) if reading.steps is not None else 0
            size += reading.size
            batch.append(reading)
        self.waiting_bytes -= size
        return batch

    def collect(self) -> tuple[LoadReport, float] | None:
        """The report of a load that has ended, and the seconds it took; None while there is none. Raises as the load did."""
        if self.load is None or not self.load.done():
            return None
        task, self.load, self._loading = self.load, None, []
        return task.result(), time.monotonic() - self._loading_since

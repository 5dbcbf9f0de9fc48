"""The shared request budget, as one process draws on it."""

from __future__ import annotations

import asyncio
import time

from etl.database import Database
from etl.ledger import budget

# Seconds between two checks whether another replica has set a pause: if requests are not rationed,
# or while a block of grants is not used up. Each draw of a block checks this anyway.
_CHECK_EVERY = 1.0
# A longer wait is divided into sleeps of at most this many seconds; after each of them, the
# database is queried again.
_MAX_SLEEP = 5.0


class RequestBudget:
    """Delays requests so that all replicas together stay within the rate.

    A replica draws grants from the database in blocks for a tenth of a second. So it queries the
    database at most about ten times a second, and does not keep grants from the other replicas.
    """

    def __init__(self, database: Database, *, rate: float) -> None:
        """Start without grants.

        Args:
            database: holds the shared budget.
            rate: requests a second, for all replicas together. 0: requests are not rationed, but
                pauses that the server requests still apply.
        """
        self._database = database
        self._rate = rate
        self._granted = 0
        self._checked_at = -_CHECK_EVERY
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait until one more request may start."""
        async with self._turn:
            while not await self._take():
                pass

    async def hold_off(self, seconds: float) -> None:
        """Let no replica start a request in the next `seconds`, because the server requested it."""
        self._granted = 0
        self._checked_at = -_CHECK_EVERY
        await self._database.in_thread(lambda c: budget.hold_off(c, seconds))

    async def _take(self) -> bool:
        if self._rate <= 0:
            if time.monotonic() - self._checked_at < _CHECK_EVERY:
                return True
            wait = await self._database.in_thread(budget.pause)
            self._checked_at = time.monotonic()
            if wait <= 0:
                return True
            self._checked_at = -_CHECK_EVERY
        else:
            if self._granted > 0 and time.monotonic() - self._checked_at < _CHECK_EVERY:
                self._granted -= 1
                return True
            # The rest of an older block is dropped, because a pause may have been set since.
            wanted = max(1, round(self._rate / 10))
            grant = await self._database.in_thread(
                lambda c: budget.draw(c, rate=self._rate, wanted=wanted)
            )
            self._granted = grant.requests
            self._checked_at = time.monotonic()
            if grant.requests:
                return False
            wait = grant.wait
        await asyncio.sleep(min(wait, _MAX_SLEEP))
        return False

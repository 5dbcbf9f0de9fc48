"""The shared request budget, as one process draws on it."""

from __future__ import annotations

import asyncio
import time

from etl.database import Database
from etl.ledger import budget

# Seconds between two looks at whether another replica has set a pause. It applies if requests are
# not rationed, and while a block of grants is not used up.
_LOOK_EVERY = 1.0
# A pause is slept in naps of at most this many seconds, so that a shorter pause that is set in the
# meantime takes effect.
_NAP = 5.0


class RequestBudget:
    """Delays requests so that all replicas together stay within the rate.

    A replica draws grants from the database in blocks that last a tenth of a second. So it queries
    the database about ten times a second, and does not hoard grants.
    """

    def __init__(self, database: Database, *, rate: float) -> None:
        """Start without grants.

        `rate` is in requests a second. 0 does not ration requests, but pauses that the server
        requests still apply.
        """
        self._database = database
        self._rate = rate
        self._granted = 0
        self._looked_at = -_LOOK_EVERY
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait until one more request may start."""
        async with self._turn:
            while not await self._take():
                pass

    async def hold_off(self, seconds: float) -> None:
        """Let no replica start a request for this many seconds, because the server requested it."""
        self._granted = 0
        self._looked_at = -_LOOK_EVERY
        await self._database.in_thread(lambda c: budget.hold_off(c, seconds))

    async def _take(self) -> bool:
        if self._rate <= 0:
            if time.monotonic() - self._looked_at < _LOOK_EVERY:
                return True
            wait = await self._database.in_thread(budget.pause)
            self._looked_at = time.monotonic()
            if wait <= 0:
                return True
            self._looked_at = -_LOOK_EVERY
        else:
            if self._granted > 0 and time.monotonic() - self._looked_at < _LOOK_EVERY:
                self._granted -= 1
                return True
            # The rest of an older block is dropped: there may have been a pause since.
            wanted = max(1, round(self._rate / 10))
            grant = await self._database.in_thread(
                lambda c: budget.draw(c, rate=self._rate, wanted=wanted)
            )
            self._granted = grant.requests
            self._looked_at = time.monotonic()
            if grant.requests:
                return False
            wait = grant.wait
        await asyncio.sleep(min(wait, _NAP))
        return False

"""The shared request budget, as the client waits for it."""

from __future__ import annotations

import asyncio
import time

from etl.database import Database
from etl.ledger import budget

# Seconds between two looks at a pause that another replica may have asked for: where requests are
# not rationed, and where some of a block are still unused.
_LOOK_EVERY = 1.0
# A pause is waited out in naps of at most so many seconds, so that a shorter one set meanwhile
# takes effect.
_NAP = 5.0


class RequestBudget:
    """Lets requests start no faster than all replicas together may.

    Grants are drawn from the database in blocks of a tenth of a second's worth, so that the
    database is asked about ten times a second and no replica hoards.
    """

    def __init__(self, database: Database, *, rate: float) -> None:
        """`rate` is in requests a second; 0 rations nothing, but pauses that the server asks for still hold."""
        self._database = database
        self._rate = rate
        self._granted = 0
        self._looked_at = -_LOOK_EVERY
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Return when one more request may start."""
        async with self._turn:
            while not await self._take():
                pass

    async def hold_off(self, seconds: float) -> None:
        """Let no replica start a request for so many seconds: the server asked for it."""
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
            # What is left of an older block is forgone: there may have been a pause since.
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

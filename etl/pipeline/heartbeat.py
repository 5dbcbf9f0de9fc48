"""The heartbeat that renews a lease while work goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from etl.errors import DatabaseError

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def heartbeat(renew: Callable[[], Awaitable[None]], *, lease: float) -> AsyncIterator[None]:
    """Call `renew` three times per `lease` (seconds) until the block ends.

    A failed renewal is only logged: the fencing token, not the lease, protects the data.
    """

    async def beat() -> None:
        while True:
            await asyncio.sleep(lease / 3)
            try:
                await renew()
            except DatabaseError as error:
                log.warning("lease_not_renewed", problem=str(error))

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

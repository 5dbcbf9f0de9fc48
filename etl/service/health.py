"""Health over HTTP: `/livez`, `/readyz`, and `/metrics` beside them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from etl.errors import ConfigurationError
from etl.service.metrics import Metrics
from etl.terminal import LONGEST_LINE, plain

# Seconds without a beat of the scheduler, which beats every second, after which the process is no longer alive: longer than
# the service's end may take, and than a machine is suspended for a snapshot.
BEAT_LIMIT = 30.0


class Health:
    """Whether the service can do its work."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._troubles: dict[str, str] = {}
        self._beaten_at = time.monotonic()

    def trouble(self, part: str, problem: str) -> bool:
        """Note that a part cannot work; whether that is news."""
        news = self._troubles.get(part) != problem
        self._troubles[part] = problem
        return news

    def well(self, part: str) -> None:
        """Note that a part works."""
        self._troubles.pop(part, None)

    async def beat(self) -> None:
        """Note that jobs are still begun."""
        self._beaten_at = time.monotonic()

    @asynccontextmanager
    async def served(self, host: str, port: int) -> AsyncIterator[None]:
        """Serve until the block ends; port 0 serves nothing.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        if port == 0:
            yield
            return
        application = web.Application()
        application.add_routes(
            [web.get("/livez", self._live), web.get("/readyz", self._ready), web.get("/metrics", self._metrics)]
        )
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on {host}:{port} ({error.strerror}): set service.port to a free port, or to 0 for none"
                ) from None
            yield
        finally:
            await runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        """A loop that is stuck does not answer at all; one whose scheduler is dead does, and says so."""
        silent = time.monotonic() - self._beaten_at
        if silent > BEAT_LIMIT:
            return web.Response(text=f"no job has been begun for {silent:.0f} s: restart the service\n", status=503)
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        lines = [f"{plain(part)}: {plain(problem, LONGEST_LINE)}\n" for part, problem in sorted(self._troubles.items())]
        return web.Response(text="".join(lines) or "ok\n", status=503 if lines else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        body = self.metrics.exposition(ready=not self._troubles)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

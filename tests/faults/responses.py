"""Hooks on the simulator's responses before they are sent: record, change or hold back."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from etl.simulator.server import Simulator
from tests.support import query

Change = Callable[[web.Request, Any, web.Response], web.Response]
"""A function that returns the response to send.

It gets the request, its target (`endpoint`, `workflow_id`, `run_id`) and the unchanged response.
"""


@contextmanager
def changed(simulator: Simulator, change: Change) -> Iterator[None]:
    """Pass every response through `change` while the block runs."""
    honest = simulator._respond

    async def respond(request: web.Request, call: Any, wrong: Any) -> web.Response:
        return change(request, call, await honest(request, call, wrong))

    simulator._respond = respond  # type: ignore[method-assign]
    try:
        yield
    finally:
        simulator._respond = honest  # type: ignore[method-assign]


class Held:
    """Responses that have been built and are not sent yet."""

    def __init__(self) -> None:
        self.built = threading.Semaphore(0)
        self.sent = threading.Event()

    def wait(self, count: int = 1) -> None:
        """Wait until this many responses have been built, each from the state at that moment."""
        for _ in range(count):
            assert self.built.acquire(timeout=30), "too few requests have arrived"

    def send(self) -> None:
        """Send the responses."""
        self.sent.set()


@contextmanager
def held(simulator: Simulator, endpoint: str, limit: int = 1) -> Iterator[Held]:
    """Hold back the first responses of this endpoint, at most `limit`; later ones pass."""
    barrier = Held()
    honest = simulator._respond
    numbers = itertools.count(1)

    async def respond(request: web.Request, call: Any, wrong: Any) -> web.Response:
        response = await honest(request, call, wrong)
        if call.endpoint == endpoint and next(numbers) <= limit:
            barrier.built.release()
            await asyncio.to_thread(barrier.sent.wait)
        return response

    simulator._respond = respond  # type: ignore[method-assign]
    try:
        yield barrier
    finally:
        barrier.send()
        simulator._respond = honest  # type: ignore[method-assign]


def emptied(url: str) -> None:
    """Empty every table but the schema version, so that a negative control starts like the test."""
    tables = query(
        url,
        "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname IN ('orchestra', 'orchestra_etl') AND tablename <> %s",
        "alembic_version",
    )
    query(url, f"TRUNCATE {', '.join(row['name'] for row in tables)} CASCADE")

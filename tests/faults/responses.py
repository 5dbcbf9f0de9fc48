"""Hooks on the simulator's responses before they are sent: record, change or hold back."""

from __future__ import annotations

import asyncio
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
    """A response that has been built and is not sent yet."""

    def __init__(self) -> None:
        self.requested = threading.Lock()
        self.made = threading.Event()
        self.sent = threading.Event()

    def wait(self) -> None:
        """Wait until the response has been built from the state at that moment."""
        assert self.made.wait(30), "no request has arrived"

    def send(self) -> None:
        """Send the response."""
        self.sent.set()


@contextmanager
def held(simulator: Simulator, endpoint: str) -> Iterator[Held]:
    """Hold back the first response of this endpoint; later ones pass."""
    barrier = Held()
    honest = simulator._respond

    async def respond(request: web.Request, call: Any, wrong: Any) -> web.Response:
        response = await honest(request, call, wrong)
        if call.endpoint == endpoint and barrier.requested.acquire(blocking=False):
            barrier.made.set()
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

"""What tests do to the simulator's answers between their making and their sending: note them, change them, hold one back."""

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
"""Given the request, what it asks for (`endpoint`, `workflow_id`, `run_id`) and the honest answer, the answer to send."""


@contextmanager
def changed(simulator: Simulator, change: Change) -> Iterator[None]:
    """Every answer goes through `change` while the block runs."""
    honest = simulator._respond

    async def respond(request: web.Request, call: Any, wrong: Any) -> web.Response:
        return change(request, call, await honest(request, call, wrong))

    simulator._respond = respond  # type: ignore[method-assign]
    try:
        yield
    finally:
        simulator._respond = honest  # type: ignore[method-assign]


class Held:
    """An answer that has been made and is not sent yet."""

    def __init__(self) -> None:
        self.asked = threading.Lock()
        self.made = threading.Event()
        self.sent = threading.Event()

    def wait(self) -> None:
        """Return once the answer has been made: it will say what was true then."""
        assert self.made.wait(30), "nobody has asked for it"

    def send(self) -> None:
        """Let it go."""
        self.sent.set()


@contextmanager
def held(simulator: Simulator, endpoint: str) -> Iterator[Held]:
    """Hold back the first answer of this endpoint; those after it pass."""
    barrier = Held()
    honest = simulator._respond

    async def respond(request: web.Request, call: Any, wrong: Any) -> web.Response:
        answer = await honest(request, call, wrong)
        if call.endpoint == endpoint and barrier.asked.acquire(blocking=False):
            barrier.made.set()
            await asyncio.to_thread(barrier.sent.wait)
        return answer

    simulator._respond = respond  # type: ignore[method-assign]
    try:
        yield barrier
    finally:
        barrier.send()
        simulator._respond = honest  # type: ignore[method-assign]


def emptied(url: str) -> None:
    """Empty every table but the schema's version: a negative control begins where the real thing did."""
    tables = query(
        url,
        "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname IN ('orchestra', 'orchestra_etl') AND tablename <> %s",
        "alembic_version",
    )
    query(url, f"TRUNCATE {', '.join(row['name'] for row in tables)} CASCADE")

"""Requests per second on one core: this project's client, its bare transport, and plain httpx.

Run it as `python -m tests.benchmarks.fetch [--requests N]`. There are 16 concurrent requests. The
server is another process on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from aiohttp import web

from etl.extract.client import OrchestraClient
from etl.extract.transport import Transport

CONCURRENCY = 16
BODY = (Path(__file__).parents[1] / "samples" / "steps.json").read_bytes()


def serve(port: Connection) -> None:
    """Respond to every request with the sample until the process ends."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=BODY, content_type="application/json")

    async def main() -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


async def rate(send: Callable[[int], Awaitable[object]], requests: int) -> float:
    """Return the requests per second, measured after some requests have opened the connections."""

    async def work(numbers: list[int]) -> None:
        for number in numbers:
            await send(number)

    for count in (10 * CONCURRENCY, requests):
        started = time.perf_counter()
        await asyncio.gather(
            *[work(list(range(first, count, CONCURRENCY))) for first in range(CONCURRENCY)]
        )
    return requests / (time.perf_counter() - started)


async def compare(base_url: str, requests: int) -> None:
    """Print the three rates."""
    async with OrchestraClient(base_url, api_key=lambda: "key", concurrency=CONCURRENCY) as client:
        print(
            "our client       "
            f"{await rate(lambda number: client.steps('w', str(number)), requests):8.0f}"
        )

    async with Transport(base_url, trust_env=False) as transport:

        async def send_request(number: int) -> None:
            request = httpx.Request("GET", f"{base_url}/workflows/w/runs/{number}/steps")
            await (await transport.handle_async_request(request)).aread()

        print(f"transport alone  {await rate(send_request, requests):8.0f}")

    async with httpx.AsyncClient() as plain:
        plain_rate = rate(
            lambda number: plain.get(f"{base_url}/workflows/w/runs/{number}/steps"), requests // 5
        )
        print(f"plain httpx      {await plain_rate:8.0f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.fetch",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=5000, help="requests of each client")
    given = parser.parse_args()
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        asyncio.run(compare(f"http://127.0.0.1:{ours.recv()}", given.requests))
    finally:
        server.terminate()


if __name__ == "__main__":
    main()

"""The limit of a first load on one machine: bare fetching, and COPY of ready-made rows.

Every response is fetched with bare aiohttp, and at the same time one connection sends the rows into
the same tables. Run it as `python limit.py BASE_URL WORKFLOW_ID DATABASE_URL FILE`. It decodes no
step and decides nothing.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

import aiohttp
import msgspec
import psycopg

CONCURRENCY = 16
PAGE = 100


class _Row(msgspec.Struct):
    id: str


_PAGE = msgspec.json.Decoder(list[_Row])


def send(database_url: str, file: Path) -> None:
    """Send every batch in its own transaction."""
    batches: list[dict[str, bytes]] = pickle.loads(file.read_bytes())
    with psycopg.connect(database_url, autocommit=True) as connection:
        for batch in batches:
            with connection.transaction():
                for statement, data in batch.items():
                    with connection.cursor().copy(statement.encode()) as sink:
                        sink.write(data)


async def fetch(base_url: str, workflow_id: str) -> None:
    """Request the whole list and every run's steps."""
    path = f"{base_url}/workflows/{workflow_id}/runs"
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Authorization": "Bearer simulated-key"}
    ) as session:

        async def get(url: str) -> bytes:
            async with session.get(url) as answer:
                return await answer.read()

        offset = 0
        while page := _PAGE.decode(await get(f"{path}?limit={PAGE}&offset={offset}")):
            await asyncio.gather(*[get(f"{path}/{row.id}/steps") for row in page])
            offset += len(page)


async def main(base_url: str, workflow_id: str, database_url: str, file: str) -> None:
    """Fetch and send at the same time."""
    await asyncio.gather(
        fetch(base_url, workflow_id), asyncio.to_thread(send, database_url, Path(file))
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A good engineer's script of an afternoon: httpx, and SQLAlchemy Core upserts of many rows.

Run it as `python hand_written.py BASE_URL WORKFLOW_ID DATABASE_URL`. It has no ledger, retries,
limits or exact values, and does not know what it has read: it reads everything each time.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

Row = dict[str, Any]

CONCURRENCY = 16
PAGE = 100

metadata = MetaData(schema="hand_written")
runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("workflow_id", "status")),
    *(Column(name, DateTime(timezone=True)) for name in ("start_time", "end_time")),
    *(Column(name, JSONB(none_as_null=True)) for name in ("error", "inputs", "outputs")),
)
steps = Table(
    "steps",
    metadata,
    Column("id", Text, primary_key=True),
    *(
        Column(name, Text)
        for name in ("run_id", "workflow_id", "node_id", "user_id", "organization_id", "status")
    ),
    *(Column(name, DateTime(timezone=True)) for name in ("start_time", "end_time")),
    Column("elapsed_time", Float),
    Column("tokens", Integer),
    *(Column(name, JSONB(none_as_null=True)) for name in ("error", "step_metadata")),
)
inputs = Table("inputs", metadata, Column("step_id", Text, primary_key=True), Column("data", JSONB))
outputs = Table(
    "outputs", metadata, Column("step_id", Text, primary_key=True), Column("data", JSONB)
)


def upsert(connection: Connection, table: Table, rows: list[Row]) -> None:
    """Insert or update rows."""
    if not rows:
        return
    statement = insert(table)
    [key] = table.primary_key.columns
    content = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column is not key
    }
    names = [column.name for column in table.columns]
    rows = [{name: row[name] if row.get(name) != "" else None for name in names} for row in rows]
    connection.execute(statement.on_conflict_do_update(index_elements=[key], set_=content), rows)


async def main(base_url: str, workflow_id: str, database_url: str) -> None:
    """Read every run and its steps, and store them page by page."""
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS hand_written")
        metadata.create_all(connection)
    limit = asyncio.Semaphore(CONCURRENCY)
    path = f"{base_url}/workflows/{workflow_id}/runs"
    async with httpx.AsyncClient(headers={"Authorization": "Bearer simulated-key"}) as client:

        async def steps_of(run: Row) -> list[Row]:
            async with limit:
                answer = await client.get(f"{path}/{run['id']}/steps")
                answer.raise_for_status()
            found: list[Row] = answer.json()
            return [{**step, "run_id": run["id"], "workflow_id": workflow_id} for step in found]

        offset = 0
        while page := (await client.get(path, params={"limit": PAGE, "offset": offset})).json():
            found = [step for one in await asyncio.gather(*map(steps_of, page)) for step in one]
            with engine.begin() as connection:
                upsert(connection, runs, [{**run, "workflow_id": workflow_id} for run in page])
                upsert(connection, steps, found)
                for table in (inputs, outputs):
                    payloads = [{"step_id": step["id"], "data": step[table.name]} for step in found]
                    upsert(connection, table, payloads)
            offset += len(page)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

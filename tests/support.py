"""What several tests share: settings for a test's own server and database, one sync, questions to the database."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from etl import app, settings
from etl.pipeline.sync import SyncReport
from etl.settings import Settings

LOADED = ("runs", "run_payloads", "steps", "inputs", "outputs")
"""The tables that an unchanged answer must not write to."""


def configuration(
    *workflow_ids: str, discover: bool = True, runs: tuple[str, ...] = (), more: str = ""
) -> str:
    """The TOML that names these workflows, and `more` before them."""
    lines = [more]
    for workflow_id in workflow_ids:
        listed = ", ".join(f'"{run}"' for run in runs)
        lines += [
            "[[workflows]]",
            f'id = "{workflow_id}"',
            f"discover = {str(discover).lower()}",
            f"runs = [{listed}]",
        ]
    return "\n".join(lines)


def environment(
    database_url: str, base_url: str, key: str = "simulated-key", **more: str
) -> dict[str, str]:
    """The environment that points the program at them, without a limit on the request rate."""
    return {
        "DATABASE_URL": database_url,
        "ORCHESTRA_BASE_URL": base_url,
        "ORCHESTRA_API_KEY": key,
        "ORCHESTRA_ETL_API__REQUESTS_PER_SECOND": "0",
        **more,
    }


def load(folder: Path, toml: str, variables: Mapping[str, str]) -> Settings:
    """Settings from a file with this text, and these variables."""
    path = folder / "etl.toml"
    path.write_text(toml)
    return settings.load(path, variables)


async def sync(loaded: Settings, only: Sequence[str] | None = None) -> SyncReport:
    """One sync, as `sync` runs it, over all workflows or only these."""
    with app.open_database(loaded) as database:
        async with app.open_jobs(loaded, database) as jobs:
            report = await jobs.syncer.sync(only, stop=asyncio.Event())
            report.requests = jobs.client.requests_sent
            return report


def query(url: str, sql: str, *parameters: object) -> list[dict[str, Any]]:
    """The rows of a statement, in a session in UTC."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        cursor = connection.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


def writes(url: str) -> dict[str, tuple[int, int, int]]:
    """PostgreSQL's own counters of the loaded tables: rows inserted, updated and deleted so far.

    A session reports its counts when it ends, so all sessions that wrote must be closed.
    """
    rows = query(
        url,
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
        " WHERE schemaname = 'orchestra' AND relname = ANY (%s)",
        list(LOADED),
    )
    return {row["relname"]: (row["n_tup_ins"], row["n_tup_upd"], row["n_tup_del"]) for row in rows}


def slow(*values: Any) -> list[Any]:
    """Parameters of variants that `make test` leaves out: more of what the others show."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on just now."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def wait_until(condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Wait for something to become true; fail where it does not. The time is long enough for a machine that is busy."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)

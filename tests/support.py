"""Helpers of several tests: settings for a test's server and database, one sync, and queries."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from etl import app, settings
from etl.pipeline.sync import SyncReport
from etl.settings import Settings

LOADED = ("runs", "run_payloads", "steps", "inputs", "outputs")
"""The tables that an unchanged response must not write to."""


def configuration(
    *workflow_ids: str, discover: bool = True, runs: tuple[str, ...] = (), more: str = ""
) -> str:
    """Return TOML with these workflows, and `more` before them."""
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
    """Return the environment for this server and database, without a request rate limit."""
    return {
        "DATABASE_URL": database_url,
        "ORCHESTRA_BASE_URL": base_url,
        "ORCHESTRA_API_KEY": key,
        "ORCHESTRA_ETL_API__REQUESTS_PER_SECOND": "0",
        **more,
    }


def load(folder: Path, toml: str, variables: Mapping[str, str]) -> Settings:
    """Load settings from a file with this text, and these variables."""
    path = folder / "etl.toml"
    path.write_text(toml)
    return settings.load(path, variables)


async def sync(loaded: Settings, only: Sequence[str] | None = None) -> SyncReport:
    """Run one sync like the command `sync`, over all workflows or only these."""
    with app.open_database(loaded) as database:
        async with app.open_jobs(loaded, database) as jobs:
            report = await jobs.syncer.sync(only, stop=asyncio.Event())
            report.requests = jobs.client.requests_sent
            return report


_Session = psycopg.Connection[dict[str, Any]]
_idle_sessions: dict[str, list[_Session]] = {}


@contextmanager
def kept_sessions(url: str) -> Iterator[None]:
    """Let `query` reuse its sessions with this database until the block ends.

    The start of a session takes a hundred times as long as a short query.
    """
    _idle_sessions[url] = []
    try:
        yield
    finally:
        for session in _idle_sessions.pop(url):
            session.close()


def query(url: str, sql: str, *parameters: object) -> list[dict[str, Any]]:
    """Return the rows of a statement, in a session in UTC.

    The session may be older than settings of its database or role, and then does not have them.
    """
    session = _session(url)
    try:
        # RESET ALL leaves the role and the user.
        session.execute("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SET TimeZone = 'UTC'")
        cursor = session.execute(sql, parameters or None)
        rows = [] if cursor.description is None else cursor.fetchall()
    except BaseException:
        session.close()
        raise
    if url in _idle_sessions and session.info.transaction_status is TransactionStatus.IDLE:
        _idle_sessions[url].append(session)
    else:
        session.close()
    return rows


def _session(url: str) -> _Session:
    """Return an idle session that is still open, or a new one."""
    with suppress(KeyError, IndexError):
        while session := _idle_sessions[url].pop():
            # The server writes to an idle session only when it ends it.
            if not select.select([session], [], [], 0)[0]:
                return session
            session.close()
    return psycopg.connect(url, autocommit=True, row_factory=dict_row, prepare_threshold=None)


_SESSIONS_OF_THE_PROGRAM = (
    "SELECT FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'orchestra-etl%'"
)


def writes(url: str) -> dict[str, tuple[int, int, int]]:
    """Return PostgreSQL's counters of the loaded tables: rows inserted, updated and deleted.

    A session reports its counts when it ends, which the server does some time after the client has
    closed it. So the program must have closed its sessions, and this waits until they have ended.
    """
    wait_until(lambda: not query(url, _SESSIONS_OF_THE_PROGRAM))
    query(url, "SELECT pg_stat_force_next_flush()")
    rows = query(
        url,
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"
        " WHERE schemaname = 'orchestra' AND relname = ANY (%s)",
        list(LOADED),
    )
    return {row["relname"]: (row["n_tup_ins"], row["n_tup_upd"], row["n_tup_del"]) for row in rows}


def slow(*values: Any) -> list[Any]:
    """Return parameters that `make test` leaves out: more variants of the same test."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def wait_until(condition: Callable[[], bool], *, seconds: float = 120.0) -> None:
    """Wait until the condition is true, or fail.

    The time limit is long enough for a busy machine.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.05)


async def wait_in_loop(
    condition: Callable[[], bool], *, seconds: float = 120.0, pause: float = 0.02
) -> None:
    """Wait like `wait_until`, while the event loop runs other tasks.

    Args:
        condition: what to wait for.
        seconds: the time limit.
        pause: seconds between two checks; 0: check in each turn of the loop.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        await asyncio.sleep(pause)

"""Fixtures for all tests: one PostgreSQL server per process, a database per test, a real response.

The server is the product's own embedded one. Only its flushes to the disk are switched off.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from etl.embedded.postgres import EmbeddedPostgres
from tests.postgres_fixture import memory, new_home
from tests.support import kept_sessions

ROOT = Path(__file__).resolve().parent.parent
FAST_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}
_numbers = itertools.count(1)
_administration: dict[Path, psycopg.Connection[tuple[object, ...]]] = {}
"""A session with each server, by its folder: a new session takes a fifth as long as a database."""

# A command that opens the default database by mistake fails, instead of using this user's own data.
os.environ["ORCHESTRA_ETL_HOME"] = f"{os.devnull}/home"

# On import, `jsonschema` would parse a grammar for IRIs, which takes two seconds. No schema of the
# tests needs it.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# `tmp_path` is in memory, like the servers' folders.
if (_memory := memory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_memory))

# The duration of an example depends on the machine's other users.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("busy"), max_examples=25)
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """Draw fewer examples where the slow variants are left out; CI draws all of them."""
    if config.getoption("markexpr") == "not slow":
        settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Exempt what exists before the first test from garbage collection, a tenth of all work."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """Start the session's server."""
    home = new_home()
    try:
        with (
            EmbeddedPostgres(home, settings=FAST_SETTINGS) as server,
            psycopg.connect(server.url_for("postgres"), autocommit=True) as connection,
        ):
            _administration[server.home] = connection
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(postgres_server: EmbeddedPostgres) -> str:
    """Create a database with the current schema and no rows to clone, and return its name."""
    name = "template_orchestra"
    connection = _administration[postgres_server.home]
    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    if (ROOT / "migrations" / "env.py").exists():
        from etl.schema import upgrade

        upgrade(postgres_server.url_for(name))
        with psycopg.connect(postgres_server.url_for(name)) as connection:
            # The suite makes copies for as long as it runs, so the queued groups must not become
            # overdue.
            connection.execute("UPDATE orchestra_etl.changed_groups SET queued_at = '2100-01-01'")
    return name


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, template_database: str) -> Iterator[str]:
    """Provide the URL of a new database with the current schema."""
    with fresh_database(postgres_server, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def read_only_database_url(
    postgres_server: EmbeddedPostgres, template_database: str
) -> Iterator[str]:
    """Provide the URL of a database with the current schema for all tests that write nothing."""
    with fresh_database(postgres_server, template_database, read_only=True) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """Provide the URL of a new database without a schema."""
    with fresh_database(postgres_server, "template1") as url:
        yield url


@pytest.fixture(scope="session")
def sample_steps() -> bytes:
    """Return a real response of the steps endpoint."""
    return (ROOT / "tests" / "samples" / "steps.json").read_bytes()


@contextmanager
def fresh_database(
    server: EmbeddedPostgres, template: str, *, read_only: bool = False
) -> Iterator[str]:
    """Provide the URL of a new copy of the database `template`, which nothing may be using."""
    name = f"test_{next(_numbers)}"
    identifier = sql.Identifier(name)
    connection = _administration[server.home]
    # Without a flush to the disk, copying files is as fast as WAL_LOG or faster, and dropping
    # the copy is faster.
    connection.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            identifier, sql.Identifier(template)
        )
    )
    if read_only:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(identifier)
        )
    with kept_sessions(server.url_for(name)):
        yield server.url_for(name)
    # A connection that was just closed may take a millisecond to end. DROP DATABASE would check
    # only every 100 ms.
    deadline = time.monotonic() + 0.05
    while time.monotonic() < deadline and _is_in_use(connection, name):
        time.sleep(0.001)
    connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def _is_in_use(connection: psycopg.Connection[tuple[object, ...]], database: str) -> bool:
    return (
        connection.execute("SELECT FROM pg_stat_activity WHERE datname = %s", [database]).fetchone()
        is not None
    )

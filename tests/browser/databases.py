"""Temporary use of another database of the same server in Superset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from tests.browser.dashboards import Superset, client_of

CACHE_DISABLED = -1
"""Superset's value of `cache_timeout` for "never"."""


def create(server: EmbeddedPostgres, name: str, *, template: str | None = None) -> str:
    """Create a database, or a copy of `template`, and return its URL."""
    with psycopg.connect(server.url_for("postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template or "template1")
            )
        )
    return server.url_for(name)


def grant(url: str) -> None:
    """Let the dashboards' login read the database; its roles exist on the server."""
    database = Database(url, pool_size=1)
    try:
        roles.apply(database)
    finally:
        database.close()


@contextmanager
def showing(superset: Superset, name: str) -> Iterator[None]:
    """Make the dashboards show this database, without a cache with rows of the other one."""
    with client_of(superset) as client:
        [database] = client.get("/api/v1/database/").json()["result"]
        address = f"/api/v1/database/{database['id']}"
        before = client.get(f"{address}/connection").json()["result"]
        head, _, options = before["sqlalchemy_uri"].partition("?")
        there = f"{head.rpartition('/')[0]}/{name}?{options}"
        changed = client.put(
            address, json={"sqlalchemy_uri": there, "cache_timeout": CACHE_DISABLED}
        )
        assert changed.status_code == 200, changed.text
        try:
            yield
        finally:
            restored = client.put(
                address,
                json={
                    "sqlalchemy_uri": before["sqlalchemy_uri"],
                    "cache_timeout": before["cache_timeout"],
                },
            )
            assert restored.status_code == 200, restored.text

"""The database that the dashboards show: the one that DATABASE_URL names, else the demo's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from config.superset.progress import say, step
from etl import app, schema, settings
from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres, default_home
from etl.errors import DatabaseError
from etl.privileges import ANALYST, PAYLOAD_ANALYST

NO_CONFIG = Path(os.devnull)
"""The configuration file of the commands called here: the user's own is not for the demo."""


def is_demo() -> bool:
    """Return whether the dashboards show the demo's database."""
    return not (os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"))


@contextmanager
def opened() -> Iterator[str]:
    """Yield the database's URL; the demo's server runs as long as the block does.

    Raises:
        ConfigurationError, DatabaseError: the database cannot be used.
    """
    if not is_demo():
        # The configuration file does not matter: it may need keys that are not here.
        named = {name: os.environ.get(name, "") for name in ("DATABASE_URL", "DATABASE_URL_FILE")}
        with app.database_url(settings.load(NO_CONFIG, named)) as url:
            _check(url)
            say("the dashboards show the database that DATABASE_URL names")
            yield url
        return
    with EmbeddedPostgres(default_home() / "demo") as server:
        if not _has_recent_runs(server.url):
            with step("loading the demo's history (about 10 s)"):
                _etl("demo", "--exit")
        else:
            # An earlier demo may have ended before it computed its rollups, and may be older.
            schema.upgrade(server.url)
            _etl("rollups", "refresh", DATABASE_URL=server.url)
        database = Database(server.url, pool_size=1)
        try:
            roles.apply(database)
        finally:
            database.close()
        say("the dashboards show the demo's database")
        yield server.url


def _has_schema(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT to_regclass('orchestra.run_summary') IS NOT NULL"
        ).fetchone()
        return row is not None and bool(row[0])


def _has_recent_runs(url: str) -> bool:
    """Return whether the demo has runs of the last three days.

    The dashboards show the last seven days by default.
    """
    if not _has_schema(url):
        return False
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT max(start_time) > now() - interval '3 days' FROM orchestra.runs"
        ).fetchone()
        return row is not None and row[0] is True


def _etl(*arguments: str, **variables: str) -> None:
    command = [sys.executable, "-m", "etl", "--config", str(NO_CONFIG), *arguments]
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "ORCHESTRA_ETL_HOME" or not name.startswith(("ORCHESTRA_", "DATABASE_"))
    }
    done = subprocess.run(
        command, env={**kept, **variables}, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise DatabaseError(
            f"the demo's database cannot be used: `orchestra-etl {' '.join(arguments)}` failed"
        )


def _check(url: str) -> None:
    """Check that the schema and the roles exist.

    This does not create the roles: that changes the owner of the schema, which is for the
    database's owner to decide.
    """
    try:
        if not _has_schema(url):
            raise DatabaseError(
                "the database has no suitable schema: run `orchestra-etl db upgrade` first"
            )
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT FROM pg_roles WHERE rolname = %s", [ANALYST]
            ).fetchone()
    except psycopg.Error as error:
        raise DatabaseError(
            f"the database that DATABASE_URL names cannot be read (SQLSTATE {error.sqlstate})"
        ) from None
    if found is None:
        raise DatabaseError(
            "the database has no roles for analysts yet: run `orchestra-etl db roles` first"
        )


def check_model_calls(url: str) -> None:
    """Check that payload analysts may read the model calls.

    Raises:
        DatabaseError: they may not, or the view is missing.
    """
    with psycopg.connect(url) as connection:
        [readable] = connection.execute(
            "SELECT has_table_privilege(%s, to_regclass('orchestra.model_calls'), 'SELECT')",
            [PAYLOAD_ANALYST],
        ).fetchone() or [None]
    if readable is None:
        raise DatabaseError(
            "the database has no view orchestra.model_calls: run `orchestra-etl db upgrade`, or "
            "leave out --payloads"
        )
    if not readable:
        raise DatabaseError(
            f"{PAYLOAD_ANALYST} may not read orchestra.model_calls: run `orchestra-etl db "
            "roles` first"
        )

"""Functions that switch off one guard against database failures in a worker, for the controls."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import psycopg
from alembic import command
from sqlalchemy import Connection, text

from etl import database, database_errors, schema
from etl.database import Database
from etl.ledger import claims, listed_pages, requests

T = TypeVar("T")


def replaced(module: ModuleType, name: str, old: str, new: str) -> None:
    """Replace a part of a module's SQL statement; the part must exist."""
    statement = str(getattr(module, name))
    assert old in statement, f"{module.__name__}.{name} has changed: {old!r} is not in it"
    setattr(module, name, text(statement.replace(old, new)))


def no_repetition() -> None:
    """Try each unit of work only once."""
    transaction = Database.transaction

    def once(self: Database, work: Callable[[Connection], T]) -> T:
        self._patience = self._outage_patience = 0.0
        return transaction(self, work)

    Database.transaction = once  # type: ignore[method-assign]


def every_error_is_permanent() -> None:
    """Treat no SQLSTATE as worth a retry."""
    database_errors._TRANSIENT_CLASSES = ()  # type: ignore[assignment]
    database_errors._TRANSIENT_CODES = frozenset()


def claims_not_consumed() -> None:
    """Leave the claims of a load unconsumed."""
    replaced(claims, "_SETTLE", "leased_until = NULL,", "")


def completion_not_fenced() -> None:
    """Let the last page of a sweep be written again."""
    replaced(listed_pages, "_COMPLETE", "leased_until = NULL,", "")


def no_key_order() -> None:
    """Track runs in the order in which they are named."""
    replaced(
        requests,
        "_TRACK",
        'ORDER BY r.run_id COLLATE "C"',
        "ORDER BY md5(r.run_id || pg_backend_pid())",
    )


def prepared_statements() -> None:
    """Make the driver prepare every statement on the server."""
    _connecting(prepare_threshold=0)


def no_keepalives() -> None:
    """Switch off the kernel's timers and the program's own limit for a silent connection."""
    _connecting(keepalives=0, tcp_user_timeout=0)
    no_limit_to_silence()


def no_limit_to_silence() -> None:
    """Set no limit to the time until the database responds."""
    database.SILENCE = 1e6


MIGRATIONS = "LATER_MIGRATIONS"
"""The environment variable with the folder of a later release's revisions."""


def later_release() -> None:
    """Upgrade the worker to the newest revision in `MIGRATIONS`; this is not a guard."""
    folder = Path(os.environ[MIGRATIONS])
    schema._migrations = lambda: folder


def no_upgrade_lock() -> None:
    """Let concurrent upgrades run without waiting for each other."""
    execute = Connection.execute

    def granted(self: Connection, statement: Any, *arguments: Any, **more: Any) -> Any:
        if "LOCK TABLE orchestra_etl.upgrade_lock" in str(statement):
            return execute(self, text("SELECT 1"))
        return execute(self, statement, *arguments, **more)

    Connection.execute = granted  # type: ignore[method-assign]


def upgrade_that_locks_for_long() -> None:
    """Make a revision hold a lock that every writer needs for three seconds."""
    _before_upgrade(
        "LOCK TABLE orchestra_etl.run_ledger IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3)"
    )


def upgrade_that_loses_rows() -> None:
    """Make a revision delete rows that it should have converted."""
    _before_upgrade("DELETE FROM orchestra.outputs WHERE size_bytes > 200")


def _before_upgrade(statements: str) -> None:
    upgrade = command.upgrade

    def worse(config: Any, revision: str, sql: bool = False, tag: str | None = None) -> None:
        with psycopg.connect(config.attributes["url"]) as connection:
            connection.execute(statements.encode())
        upgrade(config, revision)

    command.upgrade = worse


def _connecting(**settings: int) -> None:
    connect: Any = vars(psycopg.Connection)["connect"].__func__

    def otherwise(kind: Any, /, url: str = "", **given: Any) -> Any:
        return connect(kind, url, **{**given, **settings})

    psycopg.Connection.connect = classmethod(otherwise)  # type: ignore[assignment, method-assign]
    psycopg.connect = psycopg.Connection.connect

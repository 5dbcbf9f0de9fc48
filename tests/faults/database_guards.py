"""What the product has against a database that fails, switched off one by one, in a worker, for the negative controls."""

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
from etl.ledger import claims, requests, sweeps

T = TypeVar("T")


def replaced(module: ModuleType, name: str, old: str, new: str) -> None:
    """Exchange a part of a module's statement, which must be there."""
    statement = str(getattr(module, name))
    assert old in statement, f"{module.__name__}.{name} has changed: {old!r} is not in it"
    setattr(module, name, text(statement.replace(old, new)))


def no_repetition() -> None:
    """A unit of work is tried once."""
    transaction = Database.transaction

    def once(self: Database, work: Callable[[Connection], T]) -> T:
        self._patience = self._outage_patience = 0.0
        return transaction(self, work)

    Database.transaction = once  # type: ignore[method-assign]


def every_error_is_permanent() -> None:
    """No SQLSTATE is worth a repetition."""
    database_errors._TRANSIENT_CLASSES = ()  # type: ignore[assignment]
    database_errors._TRANSIENT_CODES = frozenset()


def claims_not_consumed() -> None:
    """A load leaves its claims as they are."""
    replaced(claims, "_SETTLE", "leased_until = NULL,", "")


def completion_not_fenced() -> None:
    """The last page of a sweep leaves the right to write it again."""
    replaced(sweeps, "_COMPLETE", "leased_until = NULL,", "")


def no_key_order() -> None:
    """Runs are tracked in the order in which they are named."""
    replaced(
        requests,
        "_TRACK",
        'ORDER BY r.run_id COLLATE "C"',
        "ORDER BY md5(r.run_id || pg_backend_pid())",
    )


def prepared_statements() -> None:
    """The driver prepares every statement on the server."""
    _connecting(prepare_threshold=0)


def no_keepalives() -> None:
    """The kernel is content with a connection that says nothing; so is the program."""
    _connecting(keepalives=0, tcp_user_timeout=0)
    no_limit_to_silence()


def no_limit_to_silence() -> None:
    """An answer may take for ever."""
    if hasattr(database, "SILENCE"):
        vars(database)["SILENCE"] = 1e6


MIGRATIONS = "LATER_MIGRATIONS"
"""The variable that names the folder of a later release's revisions."""


def later_release() -> None:
    """Have the worker upgrade to the newest revision of the folder that `MIGRATIONS` names; no guard."""
    folder = Path(os.environ[MIGRATIONS])
    schema._migrations = lambda: folder


def no_upgrade_lock() -> None:
    """Upgrades side by side do not wait for each other."""
    execute = Connection.execute

    def granted(self: Connection, statement: Any, *arguments: Any, **more: Any) -> Any:
        if "LOCK TABLE orchestra_etl.upgrade_lock" in str(statement):
            return execute(self, text("SELECT 1"))
        return execute(self, statement, *arguments, **more)

    Connection.execute = granted  # type: ignore[method-assign]


def upgrade_that_locks_for_long() -> None:
    """A revision holds a lock for three seconds that every writer needs."""
    _before_upgrade(
        "LOCK TABLE orchestra_etl.run_ledger IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3)"
    )


def upgrade_that_loses_rows() -> None:
    """A revision drops what it should have converted."""
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

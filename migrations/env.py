"""Runs the revisions: one process at a time, in one transaction each, with a bounded wait for locks."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, TextClause, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from etl import session
from etl.refusals import sqlstate
from etl.tables import ANALYTICS, OPERATIONS, metadata

# What an upgrade holds while it goes on, in a transaction of its own. Not an advisory lock, which any login may hold: this table
# is its owner's alone. It is here and not in a revision, as the first revision needs it, too.
LOCK = "upgrade_lock"
PATIENCE_SECONDS = 300.0
# Of two processes that make the same object at once, the second is told one of these.
MADE_MEANWHILE = ("23505", "42P06", "42P07")
# A statement of a process that was killed ends, too, and not only its hold on the lock. From PostgreSQL 14 on, where it can.
ENDED_WITH_US = b"""
    SELECT set_config('client_connection_check_interval', '1000', false)
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL AND version() ~* 'linux'
"""
# Since PostgreSQL 16 a member may be one without the right to SET ROLE.
OWNER = """
    SELECT pg_get_userbyid(nspowner)
    FROM pg_namespace
    WHERE nspname = :schema AND pg_get_userbyid(nspowner) <> current_user
      AND pg_has_role(nspowner, CASE WHEN current_setting('server_version_num')::integer >= 160000
                                     THEN 'SET' ELSE 'MEMBER' END)
"""


def settings(*, local: bool) -> TextClause:
    """No limit to a statement, whatever the role or database have: a revision takes as long as its tables are large. No table is
    visible without its schema: Alembic would take it for one without any."""
    return session.settings(statement_timeout=0, lock_timeout=10, idle_timeout=0, local=local)


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session that is set for what runs outside a transaction, too: an index that is built concurrently."""
    connection = psycopg.connect(
        url, application_name="orchestra-etl db", prepare_threshold=None, client_encoding="UTF8", connect_timeout=10
    )
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.execute(str(settings(local=False)).encode())
    connection.execute(ENDED_WITH_US)
    connection.commit()
    return connection


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave other people's schemas alone."""
    if kind == "schema":
        return name in (ANALYTICS, OPERATIONS)
    return not (kind == "table" and name in ("alembic_version", LOCK))


def become_owner(connection: Connection) -> None:
    """Act as the schema's owner, where the user is a member of it: what a revision makes is the owner's, whoever upgrades."""
    owner = connection.scalar(text(OWNER), {"schema": ANALYTICS})
    if owner is not None:
        connection.execute(text("SELECT set_config('role', :owner, false)"), {"owner": owner})


def make(connection: Connection) -> None:
    """Make what upgrades need before the first revision, where it is missing."""
    try:
        for schema in (ANALYTICS, OPERATIONS):
            # Not `IF NOT EXISTS` alone: that asks for CREATE on the database even where the schema exists.
            if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": schema}):
                connection.execute(text(f"CREATE SCHEMA {schema}"))
        become_owner(connection)
        if not connection.scalar(text(f"SELECT to_regclass('{OPERATIONS}.{LOCK}') IS NOT NULL")):
            connection.execute(text(f"CREATE TABLE {OPERATIONS}.{LOCK} ()"))
            connection.execute(
                text(f"COMMENT ON TABLE {OPERATIONS}.{LOCK} IS 'Empty; locked by the upgrade that goes on.'")
            )
        connection.commit()
    except DBAPIError as error:
        if sqlstate(error) not in MADE_MEANWHILE:
            raise
        connection.rollback()
        make(connection)


def lock(connection: Connection) -> None:
    """Take the lock by polling, and hold it until the transaction ends: a session that waited for it would hold a snapshot, on
    which another's CREATE INDEX CONCURRENTLY would wait for ever."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            connection.execute(text(f"LOCK TABLE {OPERATIONS}.{LOCK} IN EXCLUSIVE MODE NOWAIT"))
            return
        except DBAPIError as error:
            if sqlstate(error) != "55P03":
                raise
        connection.rollback()
        if time.monotonic() > give_up:
            raise CommandError("another process has been upgrading this schema for five minutes: try again later")
        time.sleep(0.2)


def work(connection: Connection) -> None:
    """Run what the command asks for."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=include_name,
        version_table_schema=OPERATIONS,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def run() -> None:
    """Upgrade, check or stamp over connections of our own."""
    url = context.config.attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise CommandError("name the database in DATABASE_URL")
    url = url.replace("postgresql+psycopg://", "postgresql://", 1)
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(url))
    begin = settings(local=True)
    # Behind PgBouncer in transaction mode the session's own settings are anybody's.
    event.listen(engine, "begin", lambda connection: connection.execute(begin))
    try:
        with engine.connect() as connection:
            if context.config.attributes.get("reads_only"):
                work(connection)
                return
            make(connection)
            with engine.connect() as gate:
                become_owner(gate)
                gate.commit()
                lock(gate)
                work(connection)
    finally:
        engine.dispose()


run()

"""Run the revisions: one process at a time, one transaction each, with short waits for locks.

A session that waits for a lock blocks all sessions that request it later, even if these would not
block each other: a revision that waits for a long query also blocks the loaders. So it gives up
after `LOCK_SECONDS`, and starts again after a pause.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, TextClause, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from etl import session
from etl.database import LONG_PATIENCE
from etl.database_errors import LOCK_NOT_AVAILABLE, sqlstate
from etl.errors import DatabaseUnavailable
from etl.tables import ANALYTICS, OPERATIONS, metadata
from etl.watchdog import LOG_EVERY, LockHolder, Session, Watchdog, holders_text

log = structlog.get_logger(__name__)

# The table that an upgrade locks while it runs, in a transaction of its own. It is not an advisory
# lock, because any login can hold one; only the owner can lock this table. It is created here and
# not in a revision, because the first revision needs it, too.
LOCK = "upgrade_lock"
HOLDERS = f"""
    SELECT a.pid, a.usename, a.application_name, a.xact_start, NULL
    FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.relation = '{OPERATIONS}.{LOCK}'::regclass AND l.granted
      AND a.datname = current_database()
"""
# Seconds for which a statement waits for a lock, and for which the revision then lets others run.
LOCK_SECONDS = 2.0
PAUSE_SECONDS = 2.0
# Seconds after which the wait for another upgrade is logged.
QUIET_SECONDS = 2.0
# If two processes create the same object at once, the second gets one of these SQLSTATEs.
MADE_MEANWHILE = ("23505", "42P06", "42P07")
# From PostgreSQL 16 on, a member may lack the right to SET ROLE.
OWNER = """
    SELECT pg_get_userbyid(nspowner)
    FROM pg_namespace
    WHERE nspname = :schema AND pg_get_userbyid(nspowner) <> current_user
      AND pg_has_role(nspowner, CASE WHEN current_setting('server_version_num')::integer >= 160000
                                     THEN 'SET' ELSE 'MEMBER' END)
"""


# The revisions that this process has applied.
applied: list[str] = []


def settings(*, local: bool) -> TextClause:
    """Return the statement that sets up a session.

    Statements have no time limit, even if the role or database sets one, because a revision takes
    long on large tables. The search path contains only pg_catalog: otherwise Alembic would see
    tables without a schema.
    """
    return session.settings(
        statement_timeout=0, lock_timeout=LOCK_SECONDS, idle_timeout=0, local=local
    )


def patience() -> float:
    """Return the seconds for which an upgrade tries to get a lock."""
    return float(context.config.attributes.get("patience", 300.0))


def connect(url: str) -> Session:
    """Return a session with these settings.

    They also hold outside a transaction, for an index that is built concurrently.
    """
    connection = Session.connect(
        url,
        application_name="orchestra-etl db",
        prepare_threshold=None,
        client_encoding="UTF8",
        connect_timeout=10,
    )
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.execute(str(settings(local=False)).encode())
    connection.execute(session.END_WITH_CLIENT)
    connection.commit()
    connection.watchdog, connection.patience = (
        context.config.attributes.get("watchdog"),
        LONG_PATIENCE,
    )
    return connection


def set_up(connection: Connection) -> None:
    """Set up each transaction.

    Behind PgBouncer in transaction mode, clients share sessions and their settings, and each
    transaction can run in another server process.
    """
    begun = connection.execute(settings(local=True)).one()
    driver = connection.connection.driver_connection
    if isinstance(driver, Session):
        driver.pid = begun.pid


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Return whether Alembic may compare the object.

    It may not compare those of other schemas, and indexes of the search, which exist on demand.
    """
    if kind == "schema":
        return name in (ANALYTICS, OPERATIONS)
    if kind == "index":
        return not (name or "").endswith("_search_idx")
    return not (kind == "table" and name in ("alembic_version", LOCK))


def become_owner(connection: Connection) -> None:
    """Act as the schema's owner, if the user is a member of it.

    The owner then owns every object of a revision, whichever user upgrades.
    """
    owner = connection.scalar(text(OWNER), {"schema": ANALYTICS})
    if owner is not None:
        connection.execute(text("SELECT set_config('role', :owner, false)"), {"owner": owner})


def make(connection: Connection) -> None:
    """Create what upgrades need before the first revision, if it is missing."""
    try:
        for schema in (ANALYTICS, OPERATIONS):
            # `IF NOT EXISTS` alone would require CREATE on the database even if the schema exists.
            if not connection.scalar(
                text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": schema}
            ):
                connection.execute(text(f"CREATE SCHEMA {schema}"))
        become_owner(connection)
        if not connection.scalar(text(f"SELECT to_regclass('{OPERATIONS}.{LOCK}') IS NOT NULL")):
            connection.execute(text(f"CREATE TABLE {OPERATIONS}.{LOCK} ()"))
            connection.execute(
                text(
                    f"COMMENT ON TABLE {OPERATIONS}.{LOCK} IS"
                    " 'Empty; the running upgrade holds a lock on it.'"
                )
            )
        connection.commit()
    except DBAPIError as error:
        if sqlstate(error) not in MADE_MEANWHILE:
            raise
        connection.rollback()
        make(connection)


def lock(connection: Connection) -> None:
    """Take the lock by polling, and hold it until the transaction ends.

    A session that waited for the lock would hold a snapshot, and another session's CREATE INDEX
    CONCURRENTLY would wait for that snapshot for ever.
    """
    give_up = time.monotonic() + patience()
    say = time.monotonic() + QUIET_SECONDS
    while True:
        try:
            connection.execute(text(f"LOCK TABLE {OPERATIONS}.{LOCK} IN EXCLUSIVE MODE NOWAIT"))
            return
        except DBAPIError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
        connection.rollback()
        now = time.monotonic()
        if now > min(say, give_up):
            found = [LockHolder(*row) for row in connection.execute(text(HOLDERS))]
            connection.rollback()
            other = (
                f"another process upgrades this schema ({holders_text(found)})"
                if found
                else "another process upgrades"
            )
            if now > give_up:
                raise DatabaseUnavailable(
                    f"{other}, and has not ended in {patience():.0f} s: try again later"
                )
            log.warning("waiting_for_upgrade", problem=other)
            say = now + LOG_EVERY
        time.sleep(0.2)


def repeated(step: Callable[[Connection], None], connection: Connection) -> None:
    """Run a step, and retry it whenever it does not get a lock.

    Raises:
        DatabaseUnavailable: the same revision did not get its locks for too long.
    """
    watchdog: Watchdog | None = context.config.attributes.get("watchdog")
    refused_since, done = math.inf, len(applied)
    while True:
        try:
            step(connection)
            return
        except DBAPIError as error:
            given_up = watchdog is not None and watchdog.has_given_up
            if sqlstate(error) != LOCK_NOT_AVAILABLE and not given_up:
                raise
        connection.rollback()
        now = time.monotonic()
        if len(applied) > done:
            refused_since, done = math.inf, len(applied)
        refused_since = min(refused_since, now)
        if given_up or now - refused_since + PAUSE_SECONDS > patience():
            holders = (
                f" {holders_text(watchdog.holders)}"
                if watchdog is not None and watchdog.holders
                else ""
            )
            raise DatabaseUnavailable(
                f"the upgrade has waited for {patience():.0f} s, and its revision was rolled back: "
                f"it needs a lock{holders}: end that session, or try again later "
                f"(SQLSTATE {LOCK_NOT_AVAILABLE})"
            )
        time.sleep(PAUSE_SECONDS)
        # A revision may have set a longer lock timeout, which would remain in force.
        connection.execute(settings(local=False))
        connection.commit()


def work(connection: Connection) -> None:
    """Run the migrations that the command selects."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=include_name,
        version_table_schema=OPERATIONS,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
        on_version_apply=lambda **step: applied.append(str(step["step"].up_revision_id)),
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


def run() -> None:
    """Upgrade, check or stamp, over connections with these settings."""
    url = context.config.attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise CommandError("name the database in DATABASE_URL")
    url = url.replace("postgresql+psycopg://", "postgresql://", 1)
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(url))
    event.listen(engine, "begin", set_up)
    try:
        with engine.connect() as connection:
            if context.config.attributes.get("reads_only"):
                repeated(work, connection)
                return
            repeated(make, connection)
            with engine.connect() as gate:
                become_owner(gate)
                gate.commit()
                lock(gate)
                repeated(work, connection)
    finally:
        engine.dispose()


run()

"""Runs the revisions: one process at a time, in one transaction each, with a bounded wait for locks."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, text

from etl.tables import ANALYTICS, OPERATIONS, metadata

# Any fixed number: the key of the advisory lock that upgrades of this schema take.
LOCK = 7_305_808_869_229_538_660
PATIENCE_SECONDS = 300.0
# Since PostgreSQL 16 a member may be one without the right to SET ROLE.
OWNER = """
    SELECT quote_ident(pg_get_userbyid(nspowner))
    FROM pg_namespace
    WHERE nspname = :schema AND pg_get_userbyid(nspowner) <> current_user
      AND pg_has_role(nspowner, CASE WHEN current_setting('server_version_num')::integer >= 160000
                                     THEN 'SET' ELSE 'MEMBER' END)
"""


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A session in which no table is visible without its schema: Alembic would take it for one without any."""
    connection = psycopg.connect(
        url, application_name="orchestra-etl db", prepare_threshold=None, client_encoding="UTF8"
    )
    connection.execute("SET search_path = pg_catalog")
    connection.commit()
    return connection


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave other people's schemas alone."""
    if kind == "schema":
        return name in (ANALYTICS, OPERATIONS)
    return not (kind == "table" and name == "alembic_version")


def lock(connection: Connection) -> None:
    """Take the lock by polling: a session that blocks in pg_advisory_lock holds a snapshot, on which another's
    CREATE INDEX CONCURRENTLY would wait for ever."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
        connection.commit()
        if time.monotonic() > give_up:
            raise CommandError("another process has been upgrading this schema for five minutes: try again later")
        time.sleep(0.2)
    connection.commit()


def become_owner(connection: Connection) -> None:
    """Act as the schema's owner, where the user is a member of it: what a revision makes is the owner's, whoever upgrades."""
    owner = connection.scalar(text(OWNER), {"schema": ANALYTICS})
    if owner is not None:
        connection.execute(text(f"SET ROLE {owner}"))


def run() -> None:
    """Upgrade, check or stamp over one connection of our own."""
    url = context.config.attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise CommandError("name the database in DATABASE_URL")
    url = url.replace("postgresql+psycopg://", "postgresql://", 1)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url),
    )
    try:
        with engine.connect() as connection:
            lock(connection)
            try:
                connection.execute(text("SET lock_timeout = '10s'"))
                connection.execute(text("SET TimeZone = 'UTC'"))
                for schema in (ANALYTICS, OPERATIONS):
                    # Not `IF NOT EXISTS` alone: that asks for CREATE on the database even where the schema exists.
                    if not connection.scalar(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": schema}):
                        connection.execute(text(f"CREATE SCHEMA {schema}"))
                become_owner(connection)
                connection.commit()
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
            finally:
                if not connection.closed and not connection.invalidated:
                    connection.rollback()
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK})
                    connection.commit()
    finally:
        engine.dispose()


run()

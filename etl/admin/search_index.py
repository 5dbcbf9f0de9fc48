"""The indexes of the search, which `db index-search` builds while the service runs.

They are not part of the schema: `db check` ignores them, and without them a search reads its
window.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import psycopg
from psycopg.sql import Identifier
from sqlalchemy import Connection, text

from etl import session
from etl.database import Database
from etl.database_errors import sqlstate
from etl.errors import DatabaseError
from etl.schema import translated

KEYS = {
    "runs": ("search_error(error, NULL)",),
    "steps": ("search_error(error, reported_error)",),
    "run_payloads": ("search_text(inputs)", "search_text(outputs)"),
    "inputs": ("search_text(data)",),
    "outputs": ("search_output(data)",),
}
"""The indexed texts of each table; `orchestra.search` looks for exactly these."""
_ROWS = {
    "runs": "error IS NOT NULL",
    "steps": "error IS NOT NULL OR reported_error IS NOT NULL",
}
# Bytes of index for a byte of text, and bytes of text a second, by `make bench-search`.
INDEX_BYTES = 1.2
BYTES_PER_SECOND = 2_000_000
# Rows of each table that the estimate reads.
SAMPLE = 1000
# Seconds between two checks of the progress.
EVERY = 0.5
# Seconds that dropping an unfinished index waits for the session that may still be building it.
LOCK_SECONDS = 5.0

_STATE = text("""
    SELECT t.name AS table, i.indisvalid AS is_valid, pg_relation_size(i.indexrelid) AS bytes
    FROM unnest(CAST(:tables AS text[])) WITH ORDINALITY AS t (name, ordinal)
    JOIN pg_index AS i ON i.indexrelid = to_regclass('orchestra.' || t.name || '_search_idx')
    ORDER BY t.ordinal
""")

# reltuples is -1 before the table's first ANALYZE.
_ROW_COUNT = """
    SELECT CASE WHEN reltuples >= 1000 THEN CAST(reltuples AS bigint)
                ELSE (SELECT count(*) FROM orchestra.{table}) END
    FROM pg_class WHERE oid = 'orchestra.{table}'::regclass
"""

_MEAN_BYTES = """
    SELECT COALESCE(avg(CASE WHEN {rows} THEN octet_length(concat({keys})) ELSE 0 END), 0)
    FROM (SELECT * FROM orchestra.{table} TABLESAMPLE SYSTEM ({percent}) LIMIT :sample) AS sampled
"""

_EXTENSION = text("""
    SELECT (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
            WHERE e.extname = 'pg_trgm') AS schema,
           EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') AS is_available
""")

_PROGRESS = text("""
    SELECT phase, blocks_done, blocks_total FROM pg_stat_progress_create_index WHERE pid = :pid
""")

# An ANALYZE between the build and `SET STATISTICS 0` leaves content in the statistics, which only
# DROP INDEX removes.
_SAMPLED = b"""
    SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = 'orchestra' AND tablename = %s)
"""


class Index(msgspec.Struct, frozen=True):
    """An index of the search that exists."""

    table: str
    is_valid: bool
    """False: a build was interrupted; no search uses the index."""
    bytes: int


class Estimate(msgspec.Struct, frozen=True):
    """The estimated cost of building the missing indexes."""

    rows: int
    bytes: int
    seconds: float


class BuildProgress(msgspec.Struct, frozen=True):
    """The state of a build."""

    table: str
    phase: str
    """What PostgreSQL does now."""
    share: float
    """How much of the phase is done, from 0 to 1."""


def name(table: str) -> str:
    """Return the name of a table's index."""
    return f"{table}_search_idx"


def existing(connection: Connection) -> list[Index]:
    """Return the indexes that exist."""
    rows = connection.execute(_STATE, {"tables": list(KEYS)})
    return [Index(**row._mapping) for row in rows]


def estimate(connection: Connection) -> Estimate:
    """Estimate the cost of the missing indexes, from a sample of each table."""
    done = {one.table for one in existing(connection) if one.is_valid}
    rows = size = 0
    for table, keys in KEYS.items():
        if table in done:
            continue
        count = connection.execute(text(_ROW_COUNT.format(table=table))).scalar_one()
        texts = ", ".join(f"orchestra.search_key(orchestra.{key})" for key in keys)
        statement = _MEAN_BYTES.format(
            table=table,
            rows=_ROWS.get(table, "true"),
            keys=texts,
            percent=min(100.0, 100 * 4 * SAMPLE / max(count, 1)),
        )
        mean = connection.execute(text(statement), {"sample": SAMPLE}).scalar_one()
        rows += count
        size += round(count * float(mean))
    return Estimate(rows=rows, bytes=round(size * INDEX_BYTES), seconds=size / BYTES_PER_SECOND)


def check_extension(connection: Connection) -> None:
    """Check that the server has the extension.

    Raises:
        DatabaseError: the server does not have the extension.
    """
    found = connection.execute(_EXTENSION).one()
    if found.schema is None and not found.is_available:
        raise DatabaseError(
            "the server has no pg_trgm: install PostgreSQL's contrib modules"
            " (Debian: postgresql-contrib), then repeat this"
        )


def build(database: Database, url: str, report: Callable[[BuildProgress], None]) -> list[str]:
    """Build the missing indexes, each while the table is read and written.

    An interrupted build is dropped; finished indexes stay, and a repetition continues with the
    next.

    Args:
        database: to read the progress of a build.
        url: a libpq URI of the same database, as the owner of the tables.
        report: called every half second with the progress.

    Returns:
        The tables whose indexes were built.

    Raises:
        DatabaseError: the extension cannot be created, or an index cannot be built.
        KeyboardInterrupt: the user interrupted the build.
    """
    database.transaction(check_extension)
    with translated(database, "the index could not be built"), _connected(url) as own:
        schema = _extension_schema(own)
        built = []
        for table in KEYS:
            found = {one.table: one for one in database.transaction(existing)}.get(table)
            if found is not None and found.is_valid and not _is_sampled(own, table):
                continue
            while True:
                _drop(own, table)
                _create(database, own, table, schema=schema, report=report)
                if not _is_sampled(own, table):
                    break
            built.append(table)
        return built


def drop(database: Database, url: str) -> list[str]:
    """Drop the indexes while the tables are read and written; return their tables.

    The extension stays, because others may use it.

    Raises:
        DatabaseError: an index cannot be dropped.
    """
    found = [one.table for one in database.transaction(existing)]
    with translated(database, "the index could not be dropped"), _connected(url) as own:
        for table in found:
            _drop(own, table)
    return found


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(
        url, autocommit=True, application_name="orchestra-etl db", prepare_threshold=None,
        client_encoding="UTF8", connect_timeout=10,
    ) as own:  # fmt: skip
        # A concurrent build waits for every older transaction; nobody waits for the build.
        settings = session.settings(
            statement_timeout=0, lock_timeout=0, idle_timeout=0, local=False
        )
        own.execute(str(settings).encode())
        own.execute(session.END_WITH_CLIENT)
        yield own


def _extension_schema(own: psycopg.Connection[Any]) -> str:
    """Return the schema of the extension, quoted; create the extension if it is missing."""
    find = str(_EXTENSION).encode()
    row = own.execute(find).fetchone()
    if row is not None and row[0] is None:
        try:
            own.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public")
        except psycopg.Error as error:
            if sqlstate(error) not in ("42501", "3F000"):
                raise
            raise DatabaseError(
                "this database user may not create the extension pg_trgm: let an administrator run"
                " CREATE EXTENSION pg_trgm in this database, then repeat this"
            ) from None
        row = own.execute(find).fetchone()
    if row is None or row[0] is None:
        raise DatabaseError("the extension pg_trgm was removed a moment ago: repeat this")
    return Identifier(row[0]).as_string()


def _create(
    database: Database,
    own: psycopg.Connection[Any],
    table: str,
    *,
    schema: str,
    report: Callable[[BuildProgress], None],
) -> None:
    keys = ", ".join(
        f"orchestra.search_key(orchestra.{key}) {schema}.gin_trgm_ops" for key in KEYS[table]
    )
    rows = f" WHERE {_ROWS[table]}" if table in _ROWS else ""
    statement = (
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name(table)} ON orchestra.{table}"
        f" USING gin ({keys}){rows}"
    )
    failures: list[psycopg.Error] = []
    # After Ctrl-C during Thread.join, Python 3.11 wrongly regards the thread as ended.
    ended = threading.Event()

    def work() -> None:
        try:
            own.execute(statement.encode())
        except psycopg.Error as error:
            failures.append(error)
        finally:
            ended.set()

    building = threading.Thread(target=work, name="index")
    try:
        building.start()
        while not ended.wait(EVERY):
            row = database.transaction(
                lambda c: c.execute(_PROGRESS, {"pid": own.info.backend_pid}).one_or_none()
            )
            if row is not None and row.blocks_total:
                report(BuildProgress(table, row.phase, row.blocks_done / row.blocks_total))
            elif row is not None:
                report(BuildProgress(table, row.phase, 0.0))
    except BaseException:
        while building.ident is not None and not ended.wait(EVERY):
            with suppress(psycopg.Error):
                own.cancel_safe(timeout=LOCK_SECONDS)
        with suppress(psycopg.Error):
            _drop(own, table)
        raise
    if failures:
        with suppress(psycopg.Error):
            _drop(own, table)
        raise failures[0]
    # Statistics of the keys would hold content.
    for column in range(1, 1 + len(KEYS[table])):
        own.execute(
            f"ALTER INDEX orchestra.{name(table)} ALTER COLUMN {column} SET STATISTICS 0".encode()
        )


def _drop(own: psycopg.Connection[Any], table: str) -> None:
    own.execute(f"SET lock_timeout = '{round(LOCK_SECONDS * 1000)}'".encode())
    own.execute(f"DROP INDEX CONCURRENTLY IF EXISTS orchestra.{name(table)}".encode())
    own.execute(b"SET lock_timeout = 0")


def _is_sampled(own: psycopg.Connection[Any], table: str) -> bool:
    row = own.execute(_SAMPLED, [name(table)]).fetchone()
    return row is not None and bool(row[0])

"""Fast transfer of rows into the database: COPY, into a table or a temporary one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import psycopg
from msgspec import Raw
from psycopg import adapters
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_COLLATION = ' COLLATE "C"'


class _Json(Dumper):
    """The dumper that sends the bytes of a JSON value unchanged."""

    format = Format.BINARY
    oid = adapters.types["jsonb"].oid

    def dump(self, obj: Raw | str) -> Buffer:
        """Return the bytes of `obj` behind the number of the binary format's version."""
        return b"\1" + (obj.encode() if isinstance(obj, str) else memoryview(obj))


def column_types(table: Table, names: Iterable[str]) -> dict[str, str]:
    """Return the SQL types of these columns of a table, by name."""
    return {name: table.c[name].type.compile(dialect=_DIALECT) for name in names}


class Staging:
    """A temporary table from which statements write rows into other tables.

    The table stays in the session and is empty between transactions. Creating it in each
    transaction would cost more than filling it, and would bloat the system catalog.

    Each use creates the table if it is missing: behind PgBouncer in transaction mode, the next
    transaction may use another session. Another release may have used that session, so the table's
    name contains a checksum of its columns.
    """

    def __init__(self, name: str, columns: Mapping[str, str]) -> None:
        """Define the table; `columns` maps names to SQL types."""
        definition = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self.columns = columns
        self.name = f"pg_temp.{name}_{zlib.crc32(definition.encode()):08x}"
        """The name for SQL statements."""
        self._make = f"CREATE TABLE IF NOT EXISTS {self.name} ({definition}) ON COMMIT DELETE ROWS"

    def fill(self, connection: Connection, rows: Iterable[Sequence[object]]) -> None:
        """Replace the content of the table by these rows, until the transaction ends.

        Args:
            connection: in a transaction.
            rows: one sequence for each row, in the order of the columns; JSON as text or `Raw`.

        Raises:
            psycopg.Error: PostgreSQL refuses a value.
        """
        connection.exec_driver_sql(self._make)
        connection.exec_driver_sql(f"DELETE FROM {self.name}")
        copy(connection, self.name, self.columns, rows)


def copy(
    connection: Connection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Add `rows` to a table.

    The binary format spares both sides the escaping and the reading of lines and numbers.

    Args:
        connection: in a transaction.
        table: the table's name for SQL statements.
        columns: SQL types by name.
        rows: one sequence for each row, in the order of the columns; JSON as text or `Raw`.

    Raises:
        psycopg.Error: PostgreSQL refuses a value, or a key exists already.
        TypeError: the connection is not psycopg's.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("the engine must use psycopg")
    with driver.cursor() as cursor:
        cursor.adapters.register_dumper(Raw, _Json)
        with cursor.copy(f"COPY {table} ({listed(columns)}) FROM STDIN (FORMAT BINARY)") as sink:
            sink.set_types([kind.removesuffix(_COLLATION).lower() for kind in columns.values()])
            for row in rows:
                sink.write_row(row)


def copy_new(
    connection: Connection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[object]],
) -> bool:
    """Add `rows` to a table that has none of their keys; the arguments are those of `copy`.

    Returns False, and adds nothing, if the table has one of the keys after all.

    Raises:
        psycopg.Error: PostgreSQL refuses a value.
    """
    try:
        with connection.begin_nested():
            copy(connection, table, columns, rows)
    except psycopg.errors.UniqueViolation:
        return False
    return True


def listed(columns: Iterable[str], prefix: str = "") -> str:
    """Return the list of columns for a statement, each with the prefix."""
    return ", ".join(prefix + column for column in columns)


def assign(columns: Sequence[str]) -> str:
    """Return the assignments of an upsert that replaces these columns."""
    return ", ".join(f"{column} = excluded.{column}" for column in columns)

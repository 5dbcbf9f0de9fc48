"""Gets rows into the database fast: COPY, mostly into a temporary table."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import psycopg
from msgspec import Raw
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class _JsonText(Dumper):
    """Sends JSON as the bytes that it is."""

    def dump(self, obj: Raw) -> Buffer:
        return memoryview(obj)


def column_types(table: Table, names: Iterable[str]) -> dict[str, str]:
    """The SQL types of some of a table's columns, by name."""
    return {name: table.c[name].type.compile(dialect=_DIALECT) for name in names}


class Staging:
    """A temporary table through which rows go into others.

    It stays with the session, empty between transactions: to make it anew for each one costs more
    than to fill it, and swells PostgreSQL's catalogue. Each use makes it where it is missing,
    because behind PgBouncer in transaction mode the next transaction may have another session, or
    one that another release has used: its name tells its columns.
    """

    def __init__(self, name: str, columns: Mapping[str, str]) -> None:
        """`columns`: SQL types by name."""
        definition = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self.columns = tuple(columns)
        self.name = f"pg_temp.{name}_{zlib.crc32(definition.encode()):08x}"
        """As it stands in statements."""
        self._make = f"CREATE TABLE IF NOT EXISTS {self.name} ({definition}) ON COMMIT DELETE ROWS"

    def fill(self, connection: Connection, rows: Iterable[Sequence[object]]) -> None:
        """Hold these rows, and no others, until the transaction ends.

        Args:
            connection: in a transaction.
            rows: one sequence a row, in the order of the columns; JSON as text, or as `Raw`.

        Raises:
            psycopg.Error: PostgreSQL refuses a value.
        """
        connection.exec_driver_sql(self._make)
        connection.exec_driver_sql(f"DELETE FROM {self.name}")
        copy(connection, self.name, self.columns, rows)


def copy(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Add `rows` to a table; JSON as text, or as `Raw`.

    Raises:
        psycopg.Error: PostgreSQL refuses a value, or a key is there already.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("the engine must use psycopg")
    with driver.cursor() as cursor:
        cursor.adapters.register_dumper(Raw, _JsonText)
        with cursor.copy(f"COPY {table} ({listed(columns)}) FROM STDIN") as sink:
            for row in rows:
                sink.write_row(row)


def listed(columns: Sequence[str], prefix: str = "") -> str:
    """The columns, each behind the prefix, for a statement."""
    return ", ".join(prefix + column for column in columns)


def assign(columns: Sequence[str]) -> str:
    """The assignments of an upsert that replaces these columns."""
    return ", ".join(f"{column} = excluded.{column}" for column in columns)

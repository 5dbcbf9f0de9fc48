"""Gets rows into the database fast: COPY, mostly into a temporary table that lives as long as the transaction."""

from __future__ import annotations

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


def stage(connection: Connection, name: str, columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
    """Fill the temporary table `name` with `rows`, replacing an earlier call's in the same transaction.

    The table is dropped at the end of the transaction: behind PgBouncer in transaction mode the next one may have
    another session.

    Args:
        connection: in a transaction.
        name: name of the temporary table.
        columns: column name to SQL type.
        rows: one sequence a row, in the order of `columns`; JSON as text, or as `Raw`.

    Raises:
        psycopg.Error: PostgreSQL refuses a value.
    """
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS pg_temp.{name}")
    definitions = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {name} ({definitions}) ON COMMIT DROP")
    copy(connection, f"pg_temp.{name}", tuple(columns), rows)


def copy(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
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

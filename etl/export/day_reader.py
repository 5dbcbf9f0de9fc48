"""Reads rows of PostgreSQL as Arrow tables, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.generators import copy_from
from pyarrow import csv
from sqlalchemy import Connection, text

from etl.export.lake_tables import LakeTable

# Bytes of CSV that are converted at once, unless a single row has more.
CHUNK = 8 << 20

# From the runs of the day to their steps by the index: other plans read every step of every day.
_PLAN = text("""
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)
""")

_PARSE = csv.ParseOptions(newlines_in_values=True)


def prepare(connection: Connection) -> None:
    """Choose the plans for reading days until the transaction ends."""
    connection.execute(_PLAN)


def read(
    connection: Connection, table: LakeTable, schema: pa.Schema, day: date | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a day, or of a whole table, in the table's order.

    Args:
        connection: in a transaction whose snapshot is read.
        table: the table of the lake.
        schema: its Arrow schema.
        day: the day; None for a whole table.
    """
    options = csv.ConvertOptions(
        # Bytes arrive as hexadecimal digits.
        column_types={
            one.name: pa.string() if _is_binary(one.type) else one.type for one in schema
        },
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        true_values=["t"],
        false_values=["f"],
        timestamp_parsers=[csv.ISO8601],
    )
    binary = [one.name for one in schema if _is_binary(one.type)]
    for chunk in _chunks(connection, table.query, {} if day is None else {"day": day}):
        found = csv.read_csv(
            pa.py_buffer(chunk),
            read_options=csv.ReadOptions(
                column_names=schema.names, use_threads=False, block_size=len(chunk) + 1
            ),
            parse_options=_PARSE,
            convert_options=options,
        )
        for name in binary:
            found = found.set_column(
                schema.get_field_index(name), name, _from_hexadecimal(found[name])
            )
        yield found.cast(schema)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _from_hexadecimal(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(
        (None if one is None else bytes.fromhex(one) for one in column.to_pylist()),
        pa.large_binary(),
    )


def _chunks(connection: Connection, query: str, values: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the result as CSV, in pieces of whole rows."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)", values):
        more = True
        while more:
            rows: list[memoryview] = []
            more = driver.wait(_rows(driver.pgconn, rows))
            if rows:
                yield b"".join(rows)


def _rows(connection: pq.abc.PGconn, rows: list[memoryview]) -> PQGen[bool]:
    """Add about `CHUNK` bytes of rows; return whether there are more.

    One wait for each row, as psycopg does it, would take longer than all other work here.
    """
    size = 0
    while size < CHUNK:
        row = yield from copy_from(connection)
        if not isinstance(row, memoryview):
            return False
        rows.append(row)
        size += len(row)
    return True

"""Reads rows of PostgreSQL as Arrow tables, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many
from psycopg.waiting import Wait
from pyarrow import compute, csv
from sqlalchemy import Connection, text

from etl.export.day_digest import DayDigest
from etl.export.lake_tables import LakeTable

# Bytes of CSV that are converted at once, unless a single row has more.
CHUNK = 8 << 20

# These settings make PostgreSQL find the steps of a day's runs by an index. Other plans read the
# steps of all days.
_PLAN = text("""
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)
""")

_PARSE = csv.ParseOptions(newlines_in_values=True)


def prepare(connection: Connection) -> None:
    """Choose the plans for reading days until the transaction ends."""
    connection.execute(_PLAN)


def read(
    connection: Connection,
    table: LakeTable,
    schema: pa.Schema,
    day: date | None = None,
    *,
    digest: DayDigest | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of a day, or of a whole table, in the table's order.

    Args:
        connection: in a transaction whose snapshot is read.
        table: the table of the lake.
        schema: its Arrow schema.
        day: the day; None for a whole table.
        digest: receives the rows as they are read.
    """
    query, names = table.query, schema.names
    versions = "version" if digest is not None and table.version is not None else None
    if versions:
        query, names = table.query_with_version, [*names, versions]
    options = csv.ConvertOptions(
        # PostgreSQL stores only valid UTF-8.
        check_utf8=False,
        # Bytes arrive as hexadecimal digits.
        column_types={
            one.name: pa.string() if _is_binary(one.type) else one.type
            for one in (*schema, pa.field("version", pa.int64()))
        },
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        true_values=["t"],
        false_values=["f"],
        timestamp_parsers=[csv.ISO8601],
    )
    binary = [one.name for one in schema if _is_binary(one.type)]
    for chunk in _chunks(connection, query, {} if day is None else {"day": day}):
        found = csv.read_csv(
            pa.py_buffer(chunk),
            read_options=csv.ReadOptions(
                column_names=names, use_threads=False, block_size=len(chunk) + 1
            ),
            parse_options=_PARSE,
            convert_options=options,
        )
        del chunk
        if digest is not None and versions:
            # The sum of unsigned numbers is exact, modulo 2 to the power of 64.
            hashes = found[versions].cast(pa.uint64(), safe=False)
            digest.add(table, found.num_rows, compute.sum(hashes).as_py())
            found = found.drop_columns(versions)
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


def _chunks(connection: Connection, query: str, values: Mapping[str, Any]) -> Iterator[memoryview]:
    """Yield the result as CSV, in pieces of whole rows."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)", values):
        more = True
        while more:
            rows = io.BytesIO()
            more = driver.wait(_read_rows(driver.pgconn, rows))
            # Only the caller keeps the piece, which is as large as the largest row.
            piece = [rows.getbuffer()]
            del rows
            if piece[0]:
                yield piece.pop()


def _read_rows(connection: pq.abc.PGconn, rows: io.BytesIO) -> PQGen[bool]:
    """Add about `CHUNK` bytes of rows; return whether there are more.

    psycopg waits and makes an object for each row. That would take longer than all other work here.
    """
    size = 0
    while size < CHUNK:
        length, row = connection.get_copy_data(1)
        if length > 0:
            size += rows.write(row)
        elif length == 0:
            while not (yield Wait.R):
                continue
            connection.consume_input()
        else:
            result, *_ = yield from fetch_many(connection)
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise error_from_result(result)
            return False
    return True

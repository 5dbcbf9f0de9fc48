"""The rows that are committed in the lake."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, EqualTo

from etl.export.lake import OpenTable
from etl.export.lake_tables import RUNS, LakeTable


def run_key(table: LakeTable) -> str:
    """Return the column with the run's id."""
    return "id" if table is RUNS else "run_id"


def row_key(table: LakeTable) -> str:
    """Return the column that identifies a row of a table with days."""
    return next(one for one in ("id", "step_id", "run_id") if one in table.column_names)


def rows_of(opened: OpenTable, day: date | None, *columns: str) -> Iterator[pa.Table]:
    """Yield rows that are committed in the lake.

    Args:
        opened: the table.
        day: the day; None: all rows.
        columns: the columns; none: all.
    """
    wanted_day = (
        AlwaysTrue() if day is None else EqualTo("run_day", day)  # type: ignore[call-arg, arg-type]
    )
    scan = opened.table.scan(row_filter=wanted_day, selected_fields=columns or ("*",))
    schema = opened.schema
    wanted = pa.schema([schema.field(one) for one in columns]) if columns else schema
    for batch in scan.to_arrow_batch_reader():
        yield pa.Table.from_batches([batch]).select(wanted.names).cast(wanted)

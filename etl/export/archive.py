"""What the lake keeps although retention removed it from PostgreSQL.

A pruned run stays in the lake, marked with `archived_at`, and so do payloads that were pruned. When
a day is exported again, the rows that PostgreSQL lacks are taken from the lake's own files. The
ledger decides: its tombstone says `pruned`; an erased run is not kept, nor is one that was deleted
by hand. A payload that redaction rules may have reached after it was pruned is not kept either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime

import msgspec
import pyarrow as pa
from pyarrow import compute
from pyiceberg.expressions import AlwaysTrue, EqualTo
from sqlalchemy import Connection, text

from etl.export.lake import Lake, OpenTable
from etl.export.lake_tables import RUNS, STEPS, LakeTable

_HORIZONS = text("SELECT payload_horizon, run_horizon FROM orchestra_etl.retention")

_PRUNED = text("""
    SELECT l.run_id, l.removed_at
    FROM orchestra_etl.run_ledger AS l
    WHERE l.run_id = ANY (CAST(:ids AS text[])) AND l.tracking = 'pruned'
      AND NOT EXISTS (SELECT FROM orchestra.runs AS r WHERE r.id = l.run_id)
""")

# The runs whose payloads `prune` has removed, with the policies of their rows. As for `prune`, the
# later of start and end decides.
_AGED = f"""
    SELECT r.id AS key, r.redaction_policy FROM {RUNS.source}
    WHERE r.tracking <> 'open'
      AND GREATEST(COALESCE(r.start_time, r.first_seen_at), r.end_time) < %(horizon)s
"""
_POLICIES = {
    "run_id": _AGED,
    "step_id": f"""
        SELECT s.id AS key, s.redaction_policy FROM ({_AGED}) AS a
        JOIN orchestra.steps AS s ON s.run_id = a.key
    """,
}
_WRITTEN = {"run_id": RUNS, "step_id": STEPS}

_CONTENT = ("inputs", "outputs", "raw", "data", "extra", "step_metadata")


class Kept(msgspec.Struct, frozen=True):
    """What the lake keeps of a day."""

    day: date
    runs: Mapping[str, datetime]
    """The runs that only the lake has, with the time at which they were pruned."""
    payload_horizon: datetime | None
    """Payloads of runs that ended before this time are pruned; None: none are."""

    def merged(
        self, connection: Connection, lake: Lake, table: LakeTable, rows: Iterable[pa.Table]
    ) -> Iterator[pa.Table]:
        """Yield PostgreSQL's rows of a table, completed by what the lake keeps.

        Args:
            connection: in the transaction of the export.
            lake: the lake, before the day is replaced.
            table: the table.
            rows: the day's rows in PostgreSQL.
        """
        if table.has_content and self.payload_horizon is not None:
            yield from self._with_payloads(connection, lake, table, rows)
        else:
            yield from rows
        if self.runs:
            yield from self._archived(lake.table(table), table)

    def _archived(self, opened: OpenTable, table: LakeTable) -> Iterator[pa.Table]:
        key = run_key(table)
        ids = pa.array(sorted(self.runs), pa.string())
        for found in rows_of(opened, self.day):
            kept = found.filter(compute.is_in(found[key], ids))
            if table is RUNS:
                times = pa.array([self.runs[one] for one in kept[key].to_pylist()])
                place = kept.schema.get_field_index("archived_at")
                field = kept.schema.field(place)
                kept = kept.set_column(place, field, times.cast(field.type))
            if kept.num_rows:
                yield kept

    def _with_payloads(
        self, connection: Connection, lake: Lake, table: LakeTable, rows: Iterable[pa.Table]
    ) -> Iterator[pa.Table]:
        key = "step_id" if "step_id" in table.column_names else "run_id"
        may_keep = self._unredacted(connection, lake, key)
        content = [one for one in table.column_names if one.endswith(_CONTENT)]
        empty: list[pa.Table] = []
        for found in rows:
            is_empty = compute.is_in(found[key], may_keep)
            for name in content:
                is_empty = compute.and_(is_empty, compute.is_null(found[name]))
            yield found.filter(compute.invert(is_empty))
            empty.append(found.filter(is_empty))
        wanted = _keys(empty, key)
        kept: list[pa.Table] = []
        if len(wanted):
            for found in rows_of(lake.table(table), self.day):
                has_content = compute.is_valid(found[content[0]])
                for name in content[1:]:
                    has_content = compute.or_(has_content, compute.is_valid(found[name]))
                whole = found.filter(compute.and_(compute.is_in(found[key], wanted), has_content))
                kept.append(whole.select([key]))
                yield whole
        matched = _keys(kept, key)
        for found in empty:
            yield found.filter(compute.invert(compute.is_in(found[key], matched)))

    def _unredacted(self, connection: Connection, lake: Lake, key: str) -> pa.Array:
        """Return the keys of aged rows that no redaction has rewritten since their export."""
        here = {
            row.key: row.redaction_policy
            for row in connection.exec_driver_sql(
                _POLICIES[key], {"day": self.day, "horizon": self.payload_horizon}
            )
        }
        same: list[str] = []
        for found in rows_of(lake.table(_WRITTEN[key]), self.day, "id", "redaction_policy"):
            for one, policy in zip(
                found["id"].to_pylist(), found["redaction_policy"].to_pylist(), strict=True
            ):
                if one in here and here[one] == policy:
                    same.append(one)
        return pa.array(same, pa.string())


def of_day(connection: Connection, lake: Lake, day: date) -> Kept:
    """Return what the lake keeps of a day; its tables must not have been replaced yet."""
    horizons = connection.execute(_HORIZONS).one_or_none()
    if horizons is None:
        return Kept(day, {}, None)
    runs: dict[str, datetime] = {}
    if horizons.run_horizon is not None:
        for found in rows_of(lake.table(RUNS), day, "id"):
            ids = found["id"].to_pylist()
            runs.update(
                (row.run_id, row.removed_at)
                for row in connection.execute(_PRUNED, {"ids": ids}).all()
            )
    return Kept(day, runs, horizons.payload_horizon)


def _keys(tables: Iterable[pa.Table], key: str) -> pa.Array:
    return pa.array((value for one in tables for value in one[key].to_pylist()), pa.string())


def run_key(table: LakeTable) -> str:
    """Return the column with the run's id."""
    return "id" if table is RUNS else "run_id"


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

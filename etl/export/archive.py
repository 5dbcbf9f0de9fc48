"""What the lake keeps although retention removed it from PostgreSQL.

A pruned run stays in the lake, marked with `archived_at`, and so do payloads that were pruned. When
a day is exported again, the rows that PostgreSQL lacks are taken from the lake's own files. The
ledger decides: its tombstone says `pruned`; an erased run is not kept, nor is one that was deleted
by hand. What was written under other redaction rules than those in force is redacted first. If the
rules in force are not known here, a pruned payload of a run that was redacted since is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
from pyarrow import compute
from sqlalchemy import Connection, text

from etl.export.lake import Lake
from etl.export.lake_rows import row_key, rows_of, run_key
from etl.export.lake_tables import RUNS, LakeTable

if TYPE_CHECKING:
    from etl.export.redaction import LakeRedaction

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
            for kept in self._archived(connection, lake, table):
                yield self._marked(kept) if table is RUNS else kept

    def _archived(self, connection: Connection, lake: Lake, table: LakeTable) -> Iterator[pa.Table]:
        key = run_key(table)
        ids = pa.array(sorted(self.runs), pa.string())
        redaction = self._redaction(connection, lake)
        others: list[str] = []
        for found in rows_of(lake.table(table), self.day):
            kept = found.filter(compute.is_in(found[key], ids))
            if redaction is not None:
                under_others = redaction.under_other_rules(table, kept)
                others += under_others.to_pylist()
                is_other = compute.is_in(kept[row_key(table)], under_others)
                kept = kept.filter(compute.invert(is_other))
            if kept.num_rows:
                yield kept
        if redaction is not None and others:
            yield from redaction.rows(table, pa.array(others, pa.string()))

    def _marked(self, kept: pa.Table) -> pa.Table:
        times = pa.array([self.runs[one] for one in kept["id"].to_pylist()])
        index = kept.schema.get_field_index("archived_at")
        field = kept.schema.field(index)
        return kept.set_column(index, field, times.cast(field.type))

    def _redaction(self, connection: Connection, lake: Lake) -> LakeRedaction | None:
        if lake.rules is None:
            return None
        # Imported here: an export without rules saves a tenth of the time of all imports.
        from etl.export.redaction import LakeRedaction

        return LakeRedaction(connection, lake, self.day, lake.rules)

    def _with_payloads(
        self, connection: Connection, lake: Lake, table: LakeTable, rows: Iterable[pa.Table]
    ) -> Iterator[pa.Table]:
        key = row_key(table)
        redaction = self._redaction(connection, lake)
        unchanged, others = self._aged(connection, lake, table)
        may_keep = pa.array((*unchanged, *others), pa.string())
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
        to_redact: list[str] = []
        for found in rows_of(lake.table(table), self.day) if len(wanted) else ():
            whole = _with_content(found.filter(compute.is_in(found[key], wanted)), content)
            is_other = compute.is_in(whole[key], pa.array(others, pa.string()))
            to_redact += whole.filter(is_other)[key].to_pylist()
            whole = whole.filter(compute.invert(is_other))
            kept.append(whole.select([key]))
            yield whole
        if redaction is not None and to_redact:
            for found in redaction.rows(table, pa.array(to_redact, pa.string())):
                whole = _with_content(found, content)
                kept.append(whole.select([key]))
                yield whole
        matched = _keys(kept, key)
        for found in empty:
            yield found.filter(compute.invert(compute.is_in(found[key], matched)))

    def _aged(
        self, connection: Connection, lake: Lake, table: LakeTable
    ) -> tuple[list[str], list[str]]:
        """Return the aged rows that the lake may keep, by their keys.

        Returns:
            Rows that no redaction has rewritten since their export. Then, rows that PostgreSQL
            has already rewritten under the rules in force, which must be applied here, too.
        """
        key = row_key(table)
        here = {
            row.key: row.redaction_policy
            for row in connection.exec_driver_sql(
                _POLICIES[key], {"day": self.day, "horizon": self.payload_horizon}
            )
        }
        unchanged: list[str] = []
        others: list[str] = []
        columns = (key, "workflow_id", "redaction_policy")
        for found in rows_of(lake.table(table), self.day, *columns):
            for one, workflow_id, written in zip(
                *(found[name].to_pylist() for name in columns), strict=True
            ):
                if one not in here:
                    continue
                policy = None if lake.rules is None else lake.rules.policy(workflow_id)
                if here[one] == written:
                    unchanged.append(one)
                elif policy is not None and here[one] == policy.version:
                    others.append(one)
        return unchanged, others


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


def _with_content(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    has_content = compute.is_valid(rows[columns[0]])
    for name in columns[1:]:
        has_content = compute.or_(has_content, compute.is_valid(rows[name]))
    return rows.filter(has_content)


def _keys(tables: Iterable[pa.Table], key: str) -> pa.Array:
    return pa.array((value for one in tables for value in one[key].to_pylist()), pa.string())

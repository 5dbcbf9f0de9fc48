"""The verification of the lake: PostgreSQL, the recorded state, and the content of the files.

Three things must agree for each day: the rows that PostgreSQL holds now, by their digest; the
state that the last export recorded; and the rows that the files of the lake hold, counted by
reading the files themselves. Days that wait for an export are expected to differ, so they are left
out. `deep` also compares every value.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import parquet
from pyiceberg.table import Table
from sqlalchemy import Connection, Row, text

from etl.database import allow_long
from etl.export import archive, changes, day_digest, day_reader, state, whole_tables
from etl.export.destination import Destination
from etl.export.lake import Lake
from etl.export.lake_rows import rows_of
from etl.export.lake_tables import WHOLE_TABLES, LakeTable, day_tables, definition
from etl.export.store import reported
from etl.terminal import counted

# Maximum number of differences that are reported: more of them usually have the same cause.
MOST_REPORTED = 100

_EXPORTED = text("SELECT * FROM orchestra_etl.export_days ORDER BY day")

_STORED = text("""
    SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) AS day FROM orchestra.runs
""")

_NAMED = text("""
    SELECT table_name FROM orchestra_etl.iceberg_tables WHERE table_namespace = :namespace
""")

_EPOCH = date(1970, 1, 1)


class LakeDifference(msgspec.Struct, frozen=True):
    """Something that does not agree."""

    day: date | None
    """None: the difference is in a table without days, or in the whole lake."""
    table: str | None
    what: str


class VerifyReport(msgspec.Struct):
    """The result of a verification."""

    days: int = 0
    """The days that were compared."""
    waiting: int = 0
    """The days that wait for an export, and were not compared."""
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    """By table, the rows in the files of the compared days."""
    deep: bool = False
    """Whether every value was compared."""
    differences: list[LakeDifference] = msgspec.field(default_factory=list)
    """At most `MOST_REPORTED`."""
    complete: bool = True
    """False if the verification was stopped early."""

    @property
    def ok(self) -> bool:
        """Whether everything that was compared agrees."""
        return not self.differences

    def add(self, day: date | None, table: str | None, what: str) -> None:
        """Add a difference."""
        if len(self.differences) < MOST_REPORTED:
            self.differences.append(LakeDifference(day, table, what))


def verify(
    connection: Connection,
    destination: Destination,
    *,
    deep: bool = False,
    days: Iterable[date] | None = None,
    on_days: Callable[[int, int, int], None] = lambda done, waiting, rows: None,
    stopped: Callable[[], bool] = lambda: False,
) -> VerifyReport:
    """Compare the lake with its recorded state and with PostgreSQL; change nothing.

    Args:
        connection: in a transaction with one snapshot.
        destination: the configured lake.
        deep: compare every value, not only digests and numbers of rows.
        days: compare only these days; None: all, and the tables without days.
        on_days: called after each day with the days done, the days left and the rows counted.
        stopped: called after each day; True ends the verification.

    Raises:
        LakeError: the lake cannot be read.
    """
    allow_long(connection)
    report = VerifyReport(deep=deep)
    recorded = state.read(connection)
    if recorded is None:
        report.add(None, None, "nothing has been exported yet: run `orchestra-etl export run`")
        return report
    if recorded.definition != definition(payloads=recorded.payloads) or (
        (recorded.location, recorded.namespace, recorded.payloads)
        != (destination.location, destination.namespace, destination.payloads)
    ):
        report.add(
            None, None, "the lake or its tables were configured differently at the last export:"
            " run `orchestra-etl export run`",
        )  # fmt: skip
        return report
    tables = day_tables(payloads=recorded.payloads)
    named = set(connection.execute(_NAMED, {"namespace": recorded.namespace}).scalars())
    if missing := [one.name for one in (*tables, *WHOLE_TABLES) if one.name not in named]:
        for name in missing:
            report.add(None, name, "the catalog does not have the table")
        return report
    with reported(destination.location):
        # The lake is compared as it was written, before the next export redacts it.
        lake = Lake(connection, msgspec.structs.replace(destination, redaction=None))
        day_reader.prepare(connection)
        _Verification(connection, lake, tables, report).run(days, on_days, stopped)
        if days is None:
            # Whole tables have no queue: a table that has changed waits for an export.
            changed = whole_tables.changed(connection, recorded.whole_tables)
            report.waiting += len(changed)
            for table in WHOLE_TABLES:
                if table not in changed:
                    _compare_whole(connection, lake, table, report)
    return report


class _Verification:
    """The comparison of the tables with days."""

    def __init__(
        self,
        connection: Connection,
        lake: Lake,
        tables: tuple[LakeTable, ...],
        report: VerifyReport,
    ) -> None:
        self._connection, self._lake, self._tables = connection, lake, tables
        self._report = report
        self._exported: dict[date, Row[Any]] = {
            row.day: row for row in connection.execute(_EXPORTED)
        }
        self._files = {one.name: _files_by_day(lake.table(one).table) for one in tables}

    def run(
        self,
        only: Iterable[date] | None,
        on_days: Callable[[int, int, int], None],
        stopped: Callable[[], bool],
    ) -> None:
        """Compare the days."""
        queued = set(changes.changed_days(self._connection))
        days = {
            *self._exported,
            *self._connection.execute(_STORED).scalars(),
            *(day for files in self._files.values() for day in files),
        }
        if only is not None:
            days &= set(only)
        self._report.waiting = len(days & queued)
        compared = sorted(days - queued)
        for number, day in enumerate(compared, 1):
            if stopped():
                self._report.complete = False
                return
            self._compare(day)
            self._report.days = number
            on_days(number, len(compared) - number, sum(self._report.rows.values()))

    def _compare(self, day: date) -> None:
        row = self._exported.get(day)
        if row is None:
            self._report.add(day, None, "the day is not exported, and does not wait for an export")
            return
        if day_digest.describe(self._connection, self._tables, day) != row.digest:
            self._report.add(
                day, None, "the rows in PostgreSQL differ from those exported, and the day does not"
                " wait for an export",
            )  # fmt: skip
        kept = archive.of_day(self._connection, self._lake, day)
        if len(kept.runs) != row.archived_runs:
            self._report.add(
                day, "runs", f"pruned runs in the lake: {len(kept.runs):,}; recorded:"
                f" {row.archived_runs:,}",
            )  # fmt: skip
        for table in self._tables:
            recorded = getattr(row, table.name)
            found = self._counted(day, table)
            if found is not None and found != recorded:
                self._report.add(
                    day, table.name, f"rows in the files: {found:,}; recorded: {recorded:,}"
                )
            elif found is not None and self._report.deep:
                self._compare_values(day, table, kept)

    def _counted(self, day: date, table: LakeTable) -> int | None:
        """Return the rows in the files of a day, read from the files; None if one is missing."""
        opened = self._lake.table(table)
        found = 0
        for path in self._files[table.name].get(day, ()):
            try:
                with opened.table.io.new_input(path).open() as file:
                    found += parquet.ParquetFile(file).metadata.num_rows
            except FileNotFoundError:
                self._report.add(day, table.name, f"the lake lacks the file {_name(path)}")
                return None
            except (OSError, pa.ArrowException):
                # Arrow raises the same for a store that fails; that fails again here.
                self._read_bytes(day, table)
                self._report.add(day, table.name, f"the file {_name(path)} is damaged")
                return None
        self._report.rows[table.name] = self._report.rows.get(table.name, 0) + found
        return found

    def _compare_values(self, day: date, table: LakeTable, kept: archive.Kept) -> None:
        opened = self._lake.table(table)
        rows = day_reader.read(self._connection, table, opened.schema, day)
        try:
            expected = _hashes(kept.merged(self._connection, self._lake, table, rows))
            expected.subtract(_hashes(rows_of(opened, day)))
        except (OSError, pa.ArrowException):
            self._read_bytes(day, table)
            self._report.add(day, table.name, "a file of the day is damaged")
            return
        missing = sum(number for number in expected.values() if number > 0)
        surplus = -sum(number for number in expected.values() if number < 0)
        if missing or surplus:
            self._report.add(
                day,
                table.name,
                f"{counted(max(missing, surplus), 'row has', 'rows have')} other values than"
                " PostgreSQL",
            )

    def _read_bytes(self, day: date, table: LakeTable) -> None:
        for path in self._files[table.name].get(day, ()):
            with self._lake.table(table).table.io.new_input(path).open() as file:
                while file.read(8 << 20):
                    pass


def _compare_whole(
    connection: Connection, lake: Lake, table: LakeTable, report: VerifyReport
) -> None:
    opened = lake.table(table)
    expected = _hashes(day_reader.read(connection, table, opened.schema))
    expected.subtract(_hashes(rows_of(opened, None)))
    if any(expected.values()):
        report.add(None, table.name, "the rows differ from PostgreSQL's")


def _files_by_day(table: Table) -> dict[date, list[str]]:
    found: dict[date, list[str]] = {}
    for task in table.scan().plan_files():
        day = task.file.partition[0]
        if isinstance(day, int):
            day = _EPOCH + timedelta(days=day)
        found.setdefault(day, []).append(task.file.file_path)
    return found


def _hashes(rows: Iterable[pa.Table]) -> Counter[bytes]:
    """Return how often each row occurs, by the hash of its values."""
    return Counter(
        hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=16).digest()
        for part in rows
        for values in _values(part)
    )


def _values(part: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in part.to_batches(max_chunksize=1000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _name(path: str) -> str:
    return path.rpartition("/")[2]

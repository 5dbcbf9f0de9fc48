"""The lake's tables, as one transaction of the database sees and changes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import cached_property

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update.snapshot import ExpireSnapshots
from sqlalchemy import Connection

from etl.export import replacement
from etl.export.catalog import TransactionCatalog, open_table
from etl.export.destination import Destination
from etl.export.lake_tables import WHOLE_TABLES, LakeTable, day_tables
from etl.export.parquet_files import write
from etl.export.replacement import Replacement
from etl.export.state import allow_idle
from etl.export.store import Store, reported


class Lake:
    """The lake's tables in one transaction; nothing changes before `commit`."""

    def __init__(self, connection: Connection, destination: Destination) -> None:
        allow_idle(connection)
        self._catalog = TransactionCatalog(connection)
        self._destination = destination
        self._open: dict[str, OpenTable] = {}
        self.store = Store(destination.folder)
        """The files of all tables."""
        self.rules = destination.redaction
        """The redaction rules in force; None: there are none."""

    def table(self, wanted: LakeTable) -> OpenTable:
        """Return a table, which is created if it does not exist."""
        if wanted.name not in self._open:
            found = open_table(
                self._catalog, self._destination.namespace, self._destination.folder, wanted
            )
            self._open[wanted.name] = OpenTable(found, wanted, self._destination.file_bytes)
        return self._open[wanted.name]

    def tables(self) -> list[Table]:
        """Return every table that the catalog has in the namespace."""
        namespace = self._destination.namespace
        if not self._catalog.namespace_exists(namespace):
            return []
        return [self._catalog.load_table(one) for one in self._catalog.list_tables(namespace)]

    def open_all(self) -> None:
        """Open every table of the export that exists."""
        present = {one.name()[-1] for one in self.tables()}
        for wanted in (*day_tables(payloads=True), *WHOLE_TABLES):
            if wanted.name in present:
                self.table(wanted)

    def day_tables(self) -> list[LakeTable]:
        """Return the tables of days that exist."""
        names = {one.name()[-1] for one in self.tables()}
        return [one for one in day_tables(payloads=True) if one.name in names]

    def commit(self, properties: Mapping[str, str], *, expire_before: datetime) -> dict[str, int]:
        """Change the opened tables in the catalog, each by one snapshot.

        Args:
            properties: what the snapshots say about themselves.
            expire_before: older snapshots are forgotten, so that their files can be deleted.

        Returns:
            The new snapshot of each table that changes.
        """
        found = {
            name: one.commit(properties, expire_before=expire_before)
            for name, one in self._open.items()
        }
        return {name: snapshot for name, snapshot in found.items() if snapshot is not None}

    @property
    def metadata(self) -> set[str]:
        """The files that describe the opened tables."""
        return {one.table.metadata_location for one in self._open.values()}

    def publish(self) -> None:
        """Write the version hints, by which readers without the catalog find the opened tables.

        What they name must be committed.

        Raises:
            LakeError: the store cannot be written; the next export writes them.
        """
        with reported(self._destination.location):
            for one in self._open.values():
                one.publish()


class OpenTable:
    """One table of the lake, and the files that replace others at the commit."""

    def __init__(self, table: Table, definition: LakeTable, file_bytes: int) -> None:
        self.table = table
        self._definition = definition
        self._file_bytes = file_bytes
        self._days: list[date | None] = []
        self._added: list[DataFile] = []

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of the rows to write; its fields have the numbers that Iceberg knows.

        The table can have other columns, of earlier and later versions of the program.
        """
        every = schema_to_pyarrow(self.table.schema())
        return pa.schema([every.field(one.name) for one in self._definition.columns])

    def replace(self, rows: Iterable[pa.Table], day: date | None = None) -> int:
        """Write the rows that replace a day, or the whole table; return their number."""
        folder = "data" if day is None else f"data/run_day={day.isoformat()}"
        added = list(write(self.table, folder, self.schema, rows, file_bytes=self._file_bytes))
        self._days.append(day)
        self._added += added
        return sum(one.record_count for one in added)

    def commit(self, properties: Mapping[str, str], *, expire_before: datetime) -> int | None:
        """Change the table in the catalog; return the new snapshot, or None if there is none."""
        transaction = _Transaction(self.table)
        replaced = replacement.find(self.table, self._days)
        # Some engines do not read a table without any snapshot.
        is_changed = bool(replaced.removed or self._added) or self.table.current_snapshot() is None
        if is_changed:
            Replacement(transaction, replaced, self._added, properties).commit()
        current = transaction.table_metadata.current_snapshot_id
        old = expire_before.timestamp() * 1000
        if any(
            one.timestamp_ms < old and one.snapshot_id != current for one in self.table.snapshots()
        ):
            ExpireSnapshots(transaction).older_than(expire_before).commit()
        transaction.commit_transaction()
        return current if is_changed else None

    def publish(self) -> None:
        """Write the version hint."""
        name = self.table.metadata_location.rpartition("/")[2].removesuffix(".metadata.json")
        path = version_hint_of(self.table.location())
        with self.table.io.new_output(path).create(overwrite=True) as file:
            file.write(name.encode())


class _Transaction(Transaction):
    """A transaction that derives the table's metadata once after each change.

    pyiceberg does it at each use: twenty deep copies for a snapshot, most of a commit's time.
    """

    _derived: tuple[object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with the changes so far."""
        if not self._updates:
            return self._table.metadata
        if self._derived is None or self._derived[0] is not self._updates:
            self._derived = (self._updates, super().table_metadata)
        return self._derived[1]


def version_hint_of(location: str) -> str:
    """Return the place of the version hint of the table at a location."""
    return f"{location}/metadata/version-hint.text"

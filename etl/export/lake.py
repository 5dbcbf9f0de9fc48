"""The lake's tables, as one transaction of the database sees and changes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cached_property

import pyarrow as pa
from pyarrow import parquet
from pyiceberg.expressions import AlwaysTrue, In
from pyiceberg.io.pyarrow import parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from sqlalchemy import Connection

from etl.export.catalog import TransactionCatalog, open_table
from etl.export.destination import Destination
from etl.export.lake_tables import LakeTable

# Bytes of Arrow data in a row group, the unit that a reader decodes at once.
ROW_GROUP = 48 << 20


class Lake:
    """The lake's tables in one transaction; nothing changes before `commit`."""

    def __init__(self, connection: Connection, destination: Destination) -> None:
        self._catalog = TransactionCatalog(connection)
        self._destination = destination
        self._open: dict[str, OpenTable] = {}

    def table(self, wanted: LakeTable) -> OpenTable:
        """Return a table, which is created if it does not exist."""
        if wanted.name not in self._open:
            found = open_table(
                self._catalog, self._destination.namespace, self._destination.folder, wanted
            )
            self._open[wanted.name] = OpenTable(found, self._destination.file_bytes)
        return self._open[wanted.name]

    def commit(self, properties: Mapping[str, str]) -> dict[str, int]:
        """Change the tables in the catalog, each by one snapshot with these properties.

        Returns the new snapshot of each table that changes.
        """
        return {
            name: snapshot
            for name, one in self._open.items()
            if (snapshot := one.commit(properties)) is not None
        }

    def publish(self) -> None:
        """Write the version hints, by which readers without the catalog find the tables.

        They must name only what is committed.
        """
        for one in self._open.values():
            one.publish()


class OpenTable:
    """One table of the lake, and the files that replace others at the commit."""

    def __init__(self, table: Table, file_bytes: int) -> None:
        self.table = table
        self._file_bytes = file_bytes
        self._days: list[date | None] = []
        self._added: list[DataFile] = []

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of the rows to write; its fields have the numbers that Iceberg knows."""
        return schema_to_pyarrow(self.table.schema())

    def replace(self, rows: Iterable[pa.Table], day: date | None = None) -> int:
        """Write the rows that replace a day, or the whole table; return their number."""
        added = list(self._write(rows, "data" if day is None else f"data/run_day={day}"))
        self._days.append(day)
        self._added += added
        return sum(one.record_count for one in added)

    def _write(self, rows: Iterable[pa.Table], folder: str) -> Iterable[DataFile]:
        writer: _Writer | None = None
        for group in _row_groups(rows):
            if writer is None:
                path = f"{self.table.location()}/{folder}/{uuid.uuid4()}.parquet"
                writer = _Writer(self.table, path, self.schema)
            writer.write(group)
            if writer.size >= self._file_bytes:
                yield writer.close()
                writer = None
        if writer is not None:
            yield writer.close()

    def commit(self, properties: Mapping[str, str]) -> int | None:
        """Change the table in the catalog; return the new snapshot, or None if there is none."""
        replaced = list(self._replaced())
        if not replaced and not self._added:
            return None
        transaction = self.table.transaction()
        with transaction.update_snapshot(
            snapshot_properties=dict(properties)
        ).overwrite() as update:
            for file in replaced:
                update.delete_data_file(file)
            for file in self._added:
                update.append_data_file(file)
        transaction.commit_transaction()
        snapshot = self.table.current_snapshot()
        assert snapshot is not None
        return snapshot.snapshot_id

    def _replaced(self) -> Iterator[DataFile]:
        """Yield the files that hold the replaced days, or the whole table."""
        if self._days:
            rows = (
                AlwaysTrue() if None in self._days else In("run_day", self._days)  # type: ignore[call-arg, arg-type]
            )
            for task in self.table.scan(row_filter=rows).plan_files():
                yield task.file

    def publish(self) -> None:
        """Write the version hint."""
        name = self.table.metadata_location.rpartition("/")[2].removesuffix(".metadata.json")
        path = f"{self.table.location()}/metadata/version-hint.text"
        with self.table.io.new_output(path).create(overwrite=True) as file:
            file.write(name.encode())


class _Writer:
    """Writes a Parquet file."""

    def __init__(self, table: Table, path: str, schema: pa.Schema) -> None:
        self._table, self._path = table, path
        self._stream = table.io.new_output(path).create()
        self._writer = parquet.ParquetWriter(self._stream, schema, compression="zstd")

    @property
    def size(self) -> int:
        """Bytes written."""
        return int(self._stream.tell())

    def write(self, group: pa.Table) -> None:
        """Write a row group."""
        self._writer.write_table(group, row_group_size=group.num_rows)

    def close(self) -> DataFile:
        """Complete the file."""
        self._writer.close()
        self._stream.close()
        return parquet_file_to_data_file(self._table.io, self._table.metadata, self._path)


def _row_groups(rows: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """Collect tables until they are as large as a row group."""
    waiting: list[pa.Table] = []
    size = 0
    for one in rows:
        waiting.append(one)
        size += one.nbytes
        if size >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)

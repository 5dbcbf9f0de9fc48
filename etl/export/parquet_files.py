"""Writes rows as Parquet files, in bounded memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyarrow import parquet
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table

# Bytes of Arrow data in a row group, the unit that a reader decodes at once. An export of one day
# with a million steps peaks at 284 MB; with groups of 48 MB, at 350 MB.
ROW_GROUP = 24 << 20


def write(
    table: Table, folder: str, schema: pa.Schema, rows: Iterable[pa.Table], *, file_bytes: int
) -> Iterator[DataFile]:
    """Write rows into files of a table, and yield each file; without rows there is none.

    Args:
        table: the table.
        folder: where in the table's location.
        schema: of the rows.
        rows: the rows, in their order.
        file_bytes: about the largest size of a file.
    """
    file: _File | None = None
    for group in _row_groups(rows):
        if file is None:
            file = _File(table, folder, schema)
        file.write(group)
        if file.size >= file_bytes:
            yield file.close()
            file = None
    if file is not None:
        yield file.close()


class _File:
    """A file that is being written."""

    def __init__(self, table: Table, folder: str, schema: pa.Schema) -> None:
        self._table = table
        self._path = f"{table.location()}/{folder}/{uuid.uuid4()}.parquet"
        self._stream = table.io.new_output(self._path).create()
        self._written: list[parquet.FileMetaData] = []
        self._writer = parquet.ParquetWriter(
            self._stream, schema, compression="zstd", metadata_collector=self._written
        )

    @property
    def size(self) -> int:
        """Bytes written."""
        return int(self._stream.tell())

    def write(self, group: pa.Table) -> None:
        """Write a row group."""
        self._writer.write_table(group, row_group_size=group.num_rows)

    def close(self) -> DataFile:
        """Complete the file.

        pyiceberg's own function would read the file's metadata from the store.
        """
        self._writer.close()
        size = self.size
        self._stream.close()
        table, schema = self._table.metadata, self._table.schema()
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=self._written[0],
            stats_columns=compute_statistics_plan(schema, table.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(schema),
        )
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self._path,
            file_format=FileFormat.PARQUET,
            partition=statistics.partition(table.spec(), schema),
            file_size_in_bytes=size,
            sort_order_id=None,
            spec_id=table.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            # The sizes of 55 columns are most of a manifest, and no reader needs them.
            **{**statistics.to_serialized_dict(), "column_sizes": None},
        )


def _row_groups(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Collect tables until they are as large as a row group."""
    waiting: list[pa.Table] = []
    size = 0
    for one in rows:
        if not one.num_rows:
            continue
        waiting.append(one)
        size += one.nbytes
        if size >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)

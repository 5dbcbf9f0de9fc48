"""Iceberg's catalog, kept in the database that is exported.

It is the SQL catalog of pyiceberg, which Spark and Trino call the JDBC catalog. It works on the
export's own connection: the lake's tables change in the export's transaction, or not at all.
"""

from __future__ import annotations

import msgspec
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Identifier
from pyiceberg.types import NestedField
from sqlalchemy import Connection

from etl.export import store
from etl.export.lake_tables import Column, LakeTable
from etl.tables import OPERATIONS

NAME = "orchestra_etl"
"""The name under which Spark and Trino find the tables in the catalog."""

# Iceberg's names of types are the names of its JSON form.
_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # The smallest and largest values of columns would stay in manifests after an erasure.
    "write.metadata.metrics.default": "none",
    "write.metadata.metrics.column.run_day": "full",
    "write.metadata.metrics.column.start_time": "full",
    "write.metadata.metrics.column.updated_at": "full",
    # Otherwise files are deleted before the transaction commits.
    "write.metadata.delete-after-commit.enabled": "false",
    "write.metadata.previous-versions-max": "2",
    # A conflict fails at the database, which retries the whole transaction.
    "commit.retry.num-retries": "0",
}


class TransactionCatalog(SqlCatalog):
    """The SQL catalog on an open connection, whose transaction it takes part in."""

    def __init__(self, connection: Connection) -> None:
        """Use the tables that the schema's revision has created."""
        MetastoreCatalog.__init__(self, NAME, **store.properties())
        self.engine = connection.execution_options(  # type: ignore[assignment]
            schema_translate_map={None: OPERATIONS}
        )
        self._schema_version = "v1"
        self._loaded: dict[Identifier, Table] = {}

    def load_table(self, identifier: str | Identifier) -> Table:
        """Return a table; its metadata is read once, and the commit reuses it.

        If another process changes the table in the meantime, the commit fails.
        """
        key = self.identifier_to_tuple(identifier)
        if key not in self._loaded:
            self._loaded[key] = super().load_table(identifier)
        return self._loaded[key]


def open_table(
    catalog: TransactionCatalog, namespace: str, location: str, wanted: LakeTable
) -> Table:
    """Return a table of the lake; create it, or add the columns that it lacks.

    Args:
        catalog: the catalog.
        namespace: the namespace of the lake's tables.
        location: the folder of the namespace, without a slash at its end.
        wanted: the table's definition.
    """
    identifier = (namespace, wanted.name)
    try:
        found = catalog.load_table(identifier)
    except NoSuchTableError:
        catalog.create_namespace_if_not_exists(namespace)
        return catalog.create_table(
            identifier,
            schema=_schema(wanted.columns),
            location=f"{location}/{wanted.name}",
            partition_spec=_PARTITION if wanted.is_by_day else UNPARTITIONED_PARTITION_SPEC,
            properties={**_PROPERTIES, "comment": wanted.comment},
        )
    missing = [one for one in wanted.columns if one.name not in found.schema().column_names]
    if missing:
        with found.update_schema() as update:
            for one in missing:
                update.add_column(one.name, _field(0, one).field_type, one.comment)
    return found


# The first column is `run_day`.
_PARTITION = PartitionSpec(
    PartitionField(source_id=1, field_id=1000, transform=IdentityTransform(), name="run_day")
)


def _schema(columns: tuple[Column, ...]) -> Schema:
    return Schema(*(_field(number, one) for number, one in enumerate(columns, 1)))


def _field(number: int, column: Column) -> NestedField:
    return NestedField.model_validate_json(
        msgspec.json.encode(
            {
                "id": number,
                "name": column.name,
                "type": column.type,
                "required": False,
                "doc": column.comment,
            }
        )
    )

"""Finds the lake that is already at a place, by the version hints of its tables.

After the database was restored, its catalog names the lake as it was at the backup. The lake itself
has newer commits, and its old files are deleted. Only its newest state has the runs that were
pruned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from pyiceberg.table import StaticTable
from sqlalchemy import Connection, text

from etl.errors import LakeError
from etl.export.catalog import TransactionCatalog
from etl.export.destination import Destination
from etl.export.lake import version_hint_of
from etl.export.lake_tables import RUNS, WHOLE_TABLES, day_tables
from etl.export.store import Store, properties, reported

_COMMIT = re.compile(r"[\w-]+", re.ASCII)

_FORGET = text("DELETE FROM orchestra_etl.iceberg_tables")

_LOCATION = text(f"""
    SELECT metadata_location FROM orchestra_etl.iceberg_tables
    WHERE table_namespace = :namespace AND table_name = '{RUNS.name}'
""")


def attach(connection: Connection, destination: Destination) -> list[date]:
    """Enter the tables at this place into the catalog as they are; return the days they hold.

    Raises:
        LakeError: the lake cannot be read.
    """
    connection.execute(_FORGET)
    catalog = TransactionCatalog(connection)
    days: list[date] = []
    with reported(destination.location):
        for name in _present(destination):
            found = StaticTable.from_metadata(f"{destination.folder}/{name}", properties())
            catalog.create_namespace_if_not_exists(destination.namespace)
            catalog.register_table((destination.namespace, name), found.metadata_location)
            if name == RUNS.name:
                partitions = found.inspect.partitions()["partition"].to_pylist()
                days = [one["run_day"] for one in partitions]
    return days


def is_ahead(connection: Connection, destination: Destination) -> bool:
    """Return whether the lake has another commit than the catalog, though its hints are written.

    Then the database was restored: from a copy of its files, or from a dump in its own place.

    Raises:
        LakeError: the lake cannot be read.
    """
    values = {"namespace": destination.namespace}
    location: str | None = connection.execute(_LOCATION, values).scalar_one_or_none()
    if location is None:
        return False
    folder, _, current = location.rpartition("/")
    with reported(destination.location):
        io = Store(destination.folder).io
        hint = io.new_input(version_hint_of(f"{destination.folder}/{RUNS.name}"))
        if not hint.exists():
            return False
        with hint.open() as file:
            name = file.read().decode(errors="replace").strip()
        # A hint that names no commit was damaged; the next commit writes it again.
        return (
            name != current.removesuffix(".metadata.json")
            and _COMMIT.fullmatch(name) is not None
            and io.new_input(f"{folder}/{name}.metadata.json").exists()
        )


def check_new(destination: Destination) -> None:
    """Check that the place can be used for a new lake, and that it holds none.

    Raises:
        LakeError: it holds a lake, or it cannot be read or written.
    """
    with reported(destination.location):
        Store(destination.folder).check_writable()
        is_free = next(_present(destination), None) is None
    if not is_free:
        raise LakeError(
            f"there is already a lake in {destination.folder}, which does not belong to this"
            " database: set export.location or export.namespace to another place, or delete that"
            " folder"
        )


def _present(destination: Destination) -> Iterator[str]:
    """Yield the tables that have a version hint."""
    io = Store(destination.folder).io
    for table in (*day_tables(payloads=destination.payloads), *WHOLE_TABLES):
        if io.new_input(version_hint_of(f"{destination.folder}/{table.name}")).exists():
            yield table.name

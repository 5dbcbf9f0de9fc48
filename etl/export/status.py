"""What the lake holds, for people to read."""

from __future__ import annotations

from datetime import datetime

import msgspec
from pyiceberg.table import Table
from sqlalchemy import Connection, text

from etl.export import changes, state
from etl.export.destination import Destination
from etl.export.lake import Lake
from etl.export.store import reported

_DAYS = text("SELECT count(*) FROM orchestra_etl.export_days")


class TableStatus(msgspec.Struct, frozen=True):
    """A table of the lake."""

    name: str
    rows: int
    files: int
    bytes: int
    """The size of the files that its current rows are in."""
    snapshots: int
    metadata: str
    """The file that describes the table now."""


class LakeStatus(msgspec.Struct, frozen=True):
    """The lake, as the catalog has it."""

    location: str
    namespace: str
    payloads: bool
    exported_at: datetime | None
    """When the last complete export ended; None: none has."""
    days: int
    """The days that the lake holds."""
    waiting: int
    """The days that are queued, because they have changed or were never exported."""
    archived_runs: int
    """The runs that only the lake has."""
    published: bool
    """False: readers by path do not see the last commit yet; the next export corrects that."""
    tables: tuple[TableStatus, ...]


def read(connection: Connection) -> LakeStatus | None:
    """Return the status of the lake; None before the first export.

    Raises:
        LakeError: the lake cannot be read.
    """
    found = state.read(connection)
    if found is None:
        return None
    with reported(found.location):
        lake = Lake(connection, Destination(found.location, found.namespace))
        tables = tuple(map(_status, lake.tables()))
    return LakeStatus(
        location=found.location,
        namespace=found.namespace,
        payloads=found.payloads,
        exported_at=found.exported_at,
        days=connection.execute(_DAYS).scalar_one(),
        waiting=len(changes.changed_days(connection)),
        archived_runs=found.archived_runs,
        published=found.published,
        tables=tables,
    )


def _status(table: Table) -> TableStatus:
    snapshot = table.current_snapshot()
    summary = snapshot.summary if snapshot is not None else None
    totals = summary.additional_properties if summary is not None else {}
    return TableStatus(
        name=table.name()[-1],
        rows=int(totals.get("total-records", 0)),
        files=int(totals.get("total-data-files", 0)),
        bytes=int(totals.get("total-files-size", 0)),
        snapshots=len(table.snapshots()),
        metadata=table.metadata_location,
    )

"""The files that no table of the lake needs any more.

Iceberg's own expiry of snapshots only forgets files, and an export that is killed leaves files that
no table ever names. Both kinds are in the store, but not in the tables. The export's lock keeps
other exports from writing files during the search.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from sqlalchemy import Connection

from etl.database import Database
from etl.export import publication, state
from etl.export.destination import Destination
from etl.export.lake import Lake, version_hint_of
from etl.export.lake_tables import WHOLE_TABLES, day_tables
from etl.export.state import ExportState
from etl.export.store import reported

# Seconds for which replaced files stay, for queries that are reading them.
KEEP = 3600.0
# Seconds after which an export searches again: a search reads every manifest.
PAUSE = 3600.0

_TABLES = "|".join(one.name for one in (*day_tables(payloads=True), *WHOLE_TABLES))
# Only what the export itself may have written; the folder can contain other files.
_OWN = re.compile(
    rf"/({_TABLES})/(data/(run_day=[^/]+/)?[^/]+\.parquet|metadata/[^/]+\.(avro|json|text))$"
)


class Garbage(msgspec.Struct):
    """The files that were deleted."""

    files: int
    bytes: int


def run(database: Database, destination: Destination, *, keep: float = KEEP) -> Garbage | None:
    """Forget old snapshots, and delete what no table needs.

    Args:
        database: with the export's state.
        destination: where the lake is.
        keep: seconds for which replaced files stay, for queries that are reading them.

    Returns:
        What was deleted, nothing before the first export; None if another process is exporting.

    Raises:
        DatabaseError: the database cannot be used.
        LakeError: the lake cannot be read or written.
    """
    if database.transaction(state.read) is None:
        return Garbage(0, 0)
    lake = database.in_one_snapshot(partial(_expire, destination=destination, keep=keep))
    if lake is None:
        return None
    publication.publish(database, lake)
    return database.in_one_snapshot(partial(_collect, destination=destination))


def _expire(connection: Connection, *, destination: Destination, keep: float) -> Lake | None:
    if state.hold(connection) is None:
        return None
    with reported(destination.location):
        lake = Lake(connection, destination)
        lake.open_all()
        lake.commit({}, expire_before=datetime.now(UTC) - timedelta(seconds=keep))
    state.record_unpublished(connection)
    return lake


def _collect(connection: Connection, *, destination: Destination) -> Garbage | None:
    held = state.hold(connection)
    if held is None:
        return None
    with reported(destination.location):
        lake = Lake(connection, destination)
        if not held.published:
            lake.open_all()
            lake.publish()
            state.record_published(connection)
        return collect(connection, lake, held)


def is_due(held: ExportState) -> bool:
    """Return whether an export has to search."""
    last = held.collected_at or None
    # A clock that was set back must not put the search off.
    return last is None or not 0 <= (datetime.now(UTC) - last).total_seconds() < PAUSE


def collect(connection: Connection, lake: Lake, held: ExportState) -> Garbage:
    """Delete the files that no snapshot of the lake's tables needs.

    Args:
        connection: in a transaction that holds the export's lock.
        lake: as it is committed.
        held: the state of the export.
    """
    used = {lake.store.path(one) for table in lake.tables() for one in _used(table)}
    found = [one for one in lake.store.files() if _OWN.search(one.path) and one.path not in used]
    lake.store.delete(found)
    state.record_collected(connection, held, datetime.now(UTC))
    return Garbage(len(found), sum(one.size for one in found))


def _used(table: Table) -> Iterator[str]:
    """Yield every file that a snapshot of the table needs."""
    yield version_hint_of(table.location())
    yield table.metadata_location
    for entry in table.metadata.metadata_log:
        yield entry.metadata_file
    manifests: dict[str, ManifestFile] = {}
    for snapshot in table.snapshots():
        yield snapshot.manifest_list
        manifests |= {one.manifest_path: one for one in snapshot.manifests(table.io)}
    for path, manifest in manifests.items():
        yield path
        for file in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            yield file.data_file.file_path

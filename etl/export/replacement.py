"""The replacement of files of a table: each manifest that lists one of them is read once.

pyiceberg's own overwrite reads such a manifest three times, and writes one manifest for the files
that are added and another for those that are removed. That was half of what the export of a changed
day costs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date

import msgspec
from pyiceberg.manifest import (
    DataFile,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
)
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles

# Manifests are merged when there are this many. Measured with exports of two of 365 days: without
# merging, a table has 156 manifests after 100 exports, and a commit takes 0.46 s; with 20, it takes
# 0.05 s after 500. Merging at each export takes 0.19 s, and 100 manifests make reading slower.
MOST = 20
# Bytes of a merged manifest.
TARGET = 8 << 20

_EPOCH = date(1970, 1, 1).toordinal()


class Replaced(msgspec.Struct, frozen=True):
    """The manifests of a table, without the files that are replaced."""

    kept: Sequence[ManifestFile]
    """The manifests that list none of these files."""
    left: Sequence[Sequence[ManifestEntry]]
    """By manifest that lists some of them: its other files."""
    removed: Sequence[ManifestEntry]
    """The replaced files."""


def find(table: Table, days: Collection[date | None]) -> Replaced:
    """Return the manifests of a table without the files of these days.

    Args:
        table: as it is committed.
        days: the days that are replaced; if one of them is None, the whole table is.
    """
    if not days:
        return Replaced((), (), ())
    kept: list[ManifestFile] = []
    left: list[list[ManifestEntry]] = []
    removed: list[ManifestEntry] = []
    # Iceberg counts days from 1970 on.
    numbers = None if None in days else {one.toordinal() - _EPOCH for one in days if one}
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot is not None else ():
        if not _may_list(manifest, numbers):
            kept.append(manifest)
            continue
        found: list[ManifestEntry] = []
        others: list[ManifestEntry] = []
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            is_replaced = numbers is None or entry.data_file.partition[0] in numbers
            (found if is_replaced else others).append(entry)
        if found:
            left.append(others)
            removed += found
        else:
            kept.append(manifest)
    return Replaced(kept, left, removed)


def _may_list(manifest: ManifestFile, days: Collection[int] | None) -> bool:
    """Return whether a manifest can list files of these days, by its first and last day."""
    if manifest.content is not ManifestContent.DATA:
        return False
    if days is None or not manifest.partitions:
        return True
    bounds = (manifest.partitions[0].lower_bound, manifest.partitions[0].upper_bound)
    if bounds[0] is None or bounds[1] is None:
        return True
    first, last = (int.from_bytes(one, "little", signed=True) for one in bounds if one)
    return any(first <= day <= last for day in days)


class Replacement(_OverwriteFiles):
    """An overwrite that merges manifests, which pyiceberg does only for appends."""

    def __init__(
        self,
        transaction: Transaction,
        replaced: Replaced,
        added: Iterable[DataFile],
        properties: Mapping[str, str],
    ) -> None:
        """Begin a replacement of files.

        Args:
            transaction: of the table.
            replaced: what the table's manifests say about the days that are replaced.
            added: the new files.
            properties: what the snapshot says about itself.
        """
        is_first = transaction.table_metadata.current_snapshot_id is None
        super().__init__(
            operation=Operation.APPEND if is_first else Operation.OVERWRITE,
            transaction=transaction,
            io=transaction._table.io,
            snapshot_properties=dict(properties),
        )
        self._replaced = replaced
        self._added_data_files = list(added)
        # pyiceberg counts these in the snapshot's summary.
        self._deleted_data_files = {one.data_file for one in replaced.removed}

    def _manifests(self) -> list[ManifestFile]:
        changes = [
            *(self._added(one) for one in self._added_data_files),
            *(self._entry(ManifestEntryStatus.DELETED, one) for one in self._replaced.removed),
        ]
        rewritten = [
            [self._entry(ManifestEntryStatus.EXISTING, one) for one in others]
            for others in self._replaced.left
        ]
        # The merge expects the new files in the first manifest.
        written = [self._write(entries) for entries in (changes, *rewritten) if entries]
        # Manifests that list only removed files are left out.
        living = [
            one for one in self._replaced.kept if one.has_added_files() or one.has_existing_files()
        ]
        merging = _ManifestMergeManager(
            target_size_bytes=TARGET,
            min_count_to_merge=MOST,
            merge_enabled=True,
            snapshot_producer=self,
        )
        return merging.merge_manifests([*written, *living])

    def _added(self, file: DataFile) -> ManifestEntry:
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED,
            snapshot_id=self._snapshot_id,
            sequence_number=None,
            file_sequence_number=None,
            data_file=file,
        )

    def _entry(self, status: ManifestEntryStatus, file: ManifestEntry) -> ManifestEntry:
        is_removed = status is ManifestEntryStatus.DELETED
        return ManifestEntry.from_args(
            status=status,
            snapshot_id=self._snapshot_id if is_removed else file.snapshot_id,
            sequence_number=file.sequence_number,
            file_sequence_number=file.file_sequence_number,
            data_file=file.data_file,
        )

    def _write(self, entries: Iterable[ManifestEntry]) -> ManifestFile:
        spec = self._transaction.table_metadata.spec()
        with self.new_manifest_writer(spec) as writer:
            for one in entries:
                writer.add_entry(one)
        return writer.to_manifest_file()

"""The replacement of files of a table, which keeps the number of its manifests small."""

from __future__ import annotations

from collections.abc import Mapping

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles

# Manifests from which on they are merged. After 1,000 exports of two of 365 days, a commit takes as
# long as the first one, and a reader opens at most 20 manifests; unmerged, they would be 2,000.
MOST = 20
# Bytes of a merged manifest.
TARGET = 8 << 20


class Replacement(_OverwriteFiles):
    """An overwrite that merges manifests: pyiceberg merges them for appends alone."""

    def __init__(self, transaction: Transaction, properties: Mapping[str, str]) -> None:
        """Replace no file yet.

        Args:
            transaction: of the table.
            properties: what the snapshot says about itself.
        """
        is_first = transaction.table_metadata.current_snapshot_id is None
        super().__init__(
            operation=Operation.APPEND if is_first else Operation.OVERWRITE,
            transaction=transaction,
            io=transaction._table.io,
            snapshot_properties=dict(properties),
        )

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        # What former snapshots removed is of no use to this one.
        living = [
            one
            for one in manifests
            if one.has_added_files()
            or one.has_existing_files()
            or one.added_snapshot_id == self._snapshot_id
        ]
        merging = _ManifestMergeManager(
            target_size_bytes=TARGET,
            min_count_to_merge=MOST,
            merge_enabled=True,
            snapshot_producer=self,
        )
        return merging.merge_manifests(living)

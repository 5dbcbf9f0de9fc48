"""The publication of a commit: readers without the catalog find it by the version hints.

The hints are written after the commit, under the export's lock. Otherwise a slow process could
write them after the next commit's: readers would see the former lake, and the next export would
take the database for a restored one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from etl.database import Database
from etl.export import state

if TYPE_CHECKING:
    from etl.export.lake import Lake


_CURRENT = text("SELECT metadata_location FROM orchestra_etl.iceberg_tables")


def publish(database: Database, lake: Lake) -> None:
    """Write the version hints of a commit, unless another process does it or has done it.

    Args:
        database: with the export's state.
        lake: what was committed.

    Raises:
        DatabaseError: the database cannot be used; the next export writes the hints.
        LakeError: the store cannot be written; the next export writes the hints.
    """
    database.transaction(partial(_publish, lake=lake))


def _publish(connection: Connection, *, lake: Lake) -> None:
    held = state.hold(connection)
    # Another process that holds the lock, or has committed since, has published this commit first.
    if held is None or held.published:
        return
    if lake.metadata <= set(connection.execute(_CURRENT).scalars()):
        lake.publish()
        state.record_published(connection)

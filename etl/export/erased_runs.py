"""The runs that were erased in PostgreSQL and that the lake still has.

The rows of an erased run leave PostgreSQL, which queues its day. But a run that retention had
removed before has no rows there, so only a search of the lake finds its day.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

from etl.database import allow_long
from etl.export import changes
from etl.export.destination import Destination
from etl.export.lake_tables import RUNS
from etl.export.state import ExportState

_ERASED = text("""
    SELECT run_id FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[])) AND tracking = 'erased'
""")
_COUNT = text("SELECT count(*) FROM orchestra_etl.run_ledger WHERE tracking = 'erased'")
_SEARCHED = text("UPDATE orchestra_etl.export_state SET erased_runs = :erased WHERE id = 1")


def queue(connection: Connection, destination: Destination, held: ExportState) -> None:
    """Queue the days of erased runs in the lake, if any run was erased since the last search.

    Args:
        connection: in a transaction with one snapshot that holds the export's lock.
        destination: where the lake is.
        held: the state of the export.

    Raises:
        LakeError: the lake cannot be read.
    """
    erased = connection.execute(_COUNT).scalar_one()
    if erased != held.erased_runs:
        changes.queue(connection, remaining(connection, destination))
        connection.execute(_SEARCHED, {"erased": erased})


def remaining(connection: Connection, destination: Destination) -> dict[date, list[str]]:
    """Return the erased runs that the lake has, by day.

    Args:
        connection: in a transaction with one snapshot.
        destination: where the lake is.

    Raises:
        LakeError: the lake cannot be read.
    """
    # Imported here: the import takes a second, longer than an export without changes.
    from etl.export.lake import Lake
    from etl.export.lake_rows import rows_of
    from etl.export.store import reported

    allow_long(connection)
    found: dict[date, list[str]] = {}
    with reported(destination.location):
        lake = Lake(connection, destination)
        if RUNS in lake.day_tables():
            for rows in rows_of(lake.table(RUNS), None, "id", "run_day"):
                days = dict(zip(rows["id"].to_pylist(), rows["run_day"].to_pylist(), strict=True))
                for run_id in connection.execute(_ERASED, {"ids": list(days)}).scalars():
                    found.setdefault(days[run_id], []).append(run_id)
    return found

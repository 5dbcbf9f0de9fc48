"""Repairs: new reads of runs that were read before but are missing from the tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from etl.ledger.reopening import reopen
from etl.records import ListedRun

# Runs can be missing because they were deleted by hand, or because one schema was restored from an
# older copy.
_LOST = text("""
    SELECT l.run_id
    FROM orchestra_etl.run_ledger AS l
    WHERE l.run_id = ANY (CAST(:ids AS text[]))
      AND l.workflow_id = :workflow_id AND l.steps_observed_at IS NOT NULL AND l.removed_at IS NULL
      AND NOT EXISTS (SELECT FROM orchestra.runs AS r WHERE r.id = l.run_id)
    ORDER BY l.run_id
    FOR UPDATE OF l
""")

_REPAIR = text(f"""
    UPDATE orchestra_etl.run_ledger AS l
    SET {reopen("repair")}, listing = p.listing, listing_hash = p.listing_hash,
        listed_at = CAST(:requested_at AS timestamptz), steps_observed_at = NULL,
        run_observed_at = NULL, read_digest = NULL, run_state = NULL, run_end_time = NULL
    FROM unnest(CAST(:ids AS text[]), CAST(:listings AS bytea[]), CAST(:hashes AS bytea[]))
         AS p (run_id, listing, listing_hash)
    WHERE l.run_id = p.run_id COLLATE "C"
""")


def request_reread(
    connection: Connection, workflow_id: str, page: Mapping[str, ListedRun], requested_at: datetime
) -> int:
    """Request a new read of the page's runs that are missing from the tables; return how many.

    Args:
        connection: in a transaction.
        workflow_id: the workflow of the list.
        page: its rows, by run id.
        requested_at: database time at which the page was requested.
    """
    lost = (
        connection.execute(_LOST, {"workflow_id": workflow_id, "ids": list(page)}).scalars().all()
    )
    if lost:
        connection.execute(
            _REPAIR,
            {
                "requested_at": requested_at,
                "ids": lost,
                "listings": [page[run_id].listing for run_id in lost],
                "hashes": [page[run_id].listing_hash for run_id in lost],
            },
        )
    return len(lost)

"""The lock on the ledger's rows of runs, in key order: two who take it cannot deadlock."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

_LOCK = text("""
    SELECT FROM orchestra_etl.run_ledger WHERE run_id = ANY (CAST(:ids AS text[])) ORDER BY run_id FOR UPDATE
""")


def lock_runs(connection: Connection, run_ids: Sequence[str]) -> None:
    """Lock these runs until the transaction ends: nobody else writes their steps meanwhile.

    What was read before may be out of date by then.
    """
    connection.execute(_LOCK, {"ids": list(run_ids)})

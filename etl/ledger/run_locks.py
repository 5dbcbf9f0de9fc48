"""The lock on runs' ledger rows, taken in key order: two processes that take it cannot deadlock."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

_LOCK = text("""
    SELECT FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[]))
    ORDER BY run_id
    FOR UPDATE
""")


def lock_runs(connection: Connection, run_ids: Sequence[str]) -> None:
    """Lock these runs until the transaction ends: no other process can write their steps meanwhile.

    Data read before the lock may be out of date once the lock is held.
    """
    connection.execute(_LOCK, {"ids": list(run_ids)})

"""The set-based, idempotent write of runs and steps."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from etl.load import retention
from etl.load.batch import Isolation, RunWrite, WriteReport
from etl.load.runs import write_runs
from etl.load.steps import write_steps


def write(
    connection: Connection, batch: Sequence[RunWrite], *, isolate: bool = False
) -> WriteReport:
    """Store what a poll read; unchanged rows are not written.

    Args:
        connection: in a transaction that holds the ledger's locks on these runs.
        batch: the runs, each at most once.
        isolate: find the rows that PostgreSQL refuses by bisection, make them dead letters, and
            store the rest. If False, the error is raised.

    Raises:
        psycopg.Error, sqlalchemy.exc.DBAPIError: the database refuses a write; the caller must roll
            the transaction back.
    """
    written = WriteReport()
    batch = retention.within(connection, batch)
    guard = Isolation(connection) if isolate else None
    write_runs(connection, batch, written, guard)
    write_steps(connection, batch, written, guard)
    return written

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
    """Store what a poll found; rows that are stored already and unchanged are not written.

    Args:
        connection: in a transaction that holds the ledger's locks on these runs.
        batch: the runs, each at most once.
        isolate: find single rows that PostgreSQL refuses by bisection and set them aside, so that the rest lands.
            Without it the error is raised.

    Raises:
        psycopg.Error, sqlalchemy.exc.DBAPIError: the database refuses; nothing of this call may be kept.
    """
    written = WriteReport()
    batch = retention.within(connection, batch)
    guard = Isolation(connection) if isolate else None
    write_runs(connection, batch, written, guard)
    write_steps(connection, batch, written, guard)
    return written

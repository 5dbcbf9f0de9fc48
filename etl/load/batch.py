"""A batch of runs that a poll stores, and the report of what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import Connection

from etl.database_errors import is_database_error, is_transient, sqlstate
from etl.records import Rejected, Run, Step

T = TypeVar("T")


class RunWrite(msgspec.Struct, frozen=True):
    """One run as a poll read it, ready to be stored."""

    id: str
    workflow_id: str
    tracking: str
    """The run's `tracking` in the ledger after this read, such as `open` or `final`."""
    observed: Run | None
    """The API's own row of the run, if it is newer than the stored row; else None."""
    stored: bool
    """Whether the stored row keeps its content if no `observed` row replaces it.

    True if the stored row came from the API's own row or from more steps than this read has, or if
    this read got no steps.
    """
    derived_state: str
    """The state derived from the steps, for a run without a row of the API's own."""
    start_time: datetime | None
    end_time: datetime | None
    user_id: str | None
    organization_id: str | None
    steps: tuple[Step, ...]
    complete: bool
    """Whether `steps` contains all steps of the run: other stored steps are then marked absent."""


class WriteReport(msgspec.Struct):
    """What a write changed."""

    runs_inserted: int = 0
    runs_updated: int = 0
    steps_inserted: int = 0
    steps_updated: int = 0
    steps_absent: int = 0
    rejected: list[tuple[str, str, Rejected]] = []
    """Workflow id, run id and the dead letter."""


# Maximum refused rows that a load isolates: finding a row among 100,000 takes 35 savepoints.
MAX_ISOLATED = 1_000


class Isolation:
    """A write of rows in savepoints that isolates the rows that the database refuses, by bisection.

    Once `MAX_ISOLATED` rows are found, a refused group is refused as a whole: with so many refused
    rows, the cause is systemic.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._refused = 0

    def __call__(
        self,
        rows: Sequence[T],
        work: Callable[[Sequence[T]], None],
        refuse: Callable[[T, str], None],
    ) -> None:
        """Call `work` with all rows that the database accepts, and `refuse` with each other row.

        Raises:
            psycopg.Error, sqlalchemy.exc.DBAPIError: the error is transient.
        """
        try:
            with self._connection.begin_nested():
                work(rows)
        except Exception as error:
            if not is_database_error(error) or is_transient(error):
                raise
            if len(rows) == 1 or self._refused >= MAX_ISOLATED:
                self._refused += 1
                which = "it" if len(rows) == 1 else f"it or another of {len(rows):,} rows"
                for row in rows:
                    refuse(
                        row,
                        f"PostgreSQL refuses {which} with SQLSTATE "
                        f"{sqlstate(error) or type(error).__name__}",
                    )
                return
            middle = len(rows) // 2
            self(rows[:middle], work, refuse)
            self(rows[middle:], work, refuse)

"""A batch of runs as a poll hands it over to be stored, and what storing it changed."""

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
    """One run as a poll found it, ready to be stored."""

    id: str
    workflow_id: str
    tracking: str
    observed: Run | None
    """The API's own row of the run, where there is one that is newer than what is stored."""
    stored: bool
    """Whether a row is stored that knows more than this read, such as one made from the API's own; it keeps its content."""
    derived_state: str
    """What follows from the steps, for a run of which the API gives no row."""
    start_time: datetime | None
    end_time: datetime | None
    user_id: str | None
    organization_id: str | None
    steps: tuple[Step, ...]
    complete: bool
    """Whether `steps` is all that the run has: stored steps that are not among them are then marked absent."""


class WriteReport(msgspec.Struct):
    """What a write changed."""

    runs_inserted: int = 0
    runs_updated: int = 0
    steps_inserted: int = 0
    steps_updated: int = 0
    steps_absent: int = 0
    rejected: list[tuple[str, str, Rejected]] = []
    """Workflow id, run id and what was set aside."""


# So many rows of one load are found out one by one: to find one among a hundred thousand takes 35
# savepoints.
MAX_ISOLATED = 1_000


class Isolation:
    """Runs a write of rows inside savepoints, halving the rows until the refused ones stand alone.

    When `MAX_ISOLATED` have been found, what is refused together is refused: the cause is no single
    row.
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
        """Do the work for all rows but those that are refused, each with the reason."""
        try:
            with self._connection.begin_nested():
                work(rows)
        except Exception as error:
            if not is_database_error(error) or is_transient(error):
                raise
            if len(rows) == 1 or self._refused >= MAX_ISOLATED:
                self._refused += 1
                which = "it" if len(rows) == 1 else f"it or one of {len(rows) - 1:,} rows beside it"
                for row in rows:
                    refuse(
                        row,
                        f"PostgreSQL refuses {which} with SQLSTATE {sqlstate(error) or type(error).__name__}",
                    )
                return
            middle = len(rows) // 2
            self(rows[:middle], work, refuse)
            self(rows[middle:], work, refuse)

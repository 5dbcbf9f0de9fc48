"""The log of a database outage: one for the whole process, however many threads notice it."""

from __future__ import annotations

import threading
import time
from collections import deque

import structlog

log = structlog.get_logger(__name__)

# Seconds between two log lines while the outage lasts.
EVERY = 60.0
# Maximum number of new outages that are logged within `EVERY` seconds, so that a flapping database
# does not fill the log.
MOST = 3


class Outage:
    """The reason why the process cannot use its database now.

    Logs one line when an outage begins, one a minute while it lasts, and one when it ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._read_only = False
        self._began = 0.0
        self._logged_at: float | None = None
        self._beginnings: deque[float] = deque(maxlen=MOST)

    @property
    def problem(self) -> str | None:
        """The reason in one line; None if there is no outage."""
        return self._problem

    @property
    def is_unavailable(self) -> bool:
        """Whether not even reading works."""
        return self._problem is not None and not self._read_only

    def fail(self, problem: str, *, read_only: bool = False) -> None:
        """Note that a unit of work failed for this reason.

        Args:
            problem: one line.
            read_only: whether reading still works.
        """
        with self._lock:
            now = time.monotonic()
            if self._problem is None:
                self._began, self._logged_at = now, None
                often = len(self._beginnings) == MOST and now - self._beginnings[0] < EVERY
                if not often:
                    self._beginnings.append(now)
                    self._logged_at = now
                    log.warning("database_lost", problem=problem)
            elif now - (self._began if self._logged_at is None else self._logged_at) >= EVERY:
                self._logged_at = now
                log.warning(
                    "database_unavailable", problem=problem, seconds=round(now - self._began)
                )
            self._problem, self._read_only = problem, read_only

    def recover(self, *, read_only: bool = False) -> None:
        """Note that a transaction began.

        Args:
            read_only: whether the transaction may only read. It does not end a read-only outage.
        """
        if self._problem is None:
            return
        with self._lock:
            if self._problem is None or (self._read_only and read_only):
                return
            self._problem = None
            if self._logged_at is not None:
                log.warning("database_recovered", seconds=round(time.monotonic() - self._began, 1))

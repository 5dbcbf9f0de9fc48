"""Checks of long waits: whether the server responds at all, and which session holds the lock.

A statement may legitimately take long. Only a second connection shows whether the server is working
on it, waits for another session, or is frozen.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import msgspec
import psycopg
import structlog
from psycopg.abc import PQGen

from etl.database_errors import is_from_server
from etl.terminal import plain

RV = TypeVar("RV")
log = structlog.get_logger(__name__)

# Seconds that a wait lasts before its first check, and seconds between two checks.
EVERY = 1.0
# Seconds within which the server must respond to a check, connecting included. libpq's shortest
# timeout for connecting is as long.
CHECK_TIMEOUT = 2.0
# Consecutive checks without a response after which a server counts as silent. A busy server may
# miss two.
MISSED_CHECKS = 3
# Seconds between two log lines about waiting for locks.
LOG_EVERY = 60.0
# Maximum number of sessions that a log line or an error names.
_MOST_NAMED = 3
_LONGEST_NAME = 63

# A wait for a row or a transaction does not name the table. The waiting session's own lock of type
# `tuple` does; for a concurrent build of an index, which waits for transactions, its progress does.
_HOLDERS = b"""
    SELECT w.pid, blocking.pid, a.usename, a.application_name, a.xact_start,
           n.nspname || '.' || c.relname
    FROM pg_locks AS w
    CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS blocking (pid)
    LEFT JOIN pg_stat_activity AS a ON a.pid = blocking.pid
    LEFT JOIN pg_locks AS own ON own.pid = w.pid AND own.granted AND own.locktype = 'tuple'
    LEFT JOIN pg_stat_progress_create_index AS build ON build.pid = w.pid
    LEFT JOIN pg_class AS c ON c.oid = coalesce(w.relation, own.relation, build.relid)
    LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE NOT w.granted AND w.pid = ANY (%s)
    ORDER BY a.xact_start NULLS LAST, blocking.pid
    LIMIT 50
"""


class LockHolder(msgspec.Struct, frozen=True):
    """A session that holds a lock for which others wait."""

    pid: int
    """The server process; 0: a prepared transaction."""
    user: str | None
    application: str | None
    since: datetime | None
    """When its transaction began; None if this user may not see that."""
    table: str | None
    """The locked table; None: another kind of lock."""

    def __str__(self) -> str:
        """Describe the session, but not its statement, which may contain secrets."""
        parts = [f"pid {self.pid}" if self.pid else "a prepared transaction"]
        if self.user:
            parts.append(f"user {plain(self.user, _LONGEST_NAME)}")
        if self.application:
            parts.append(f"application {plain(self.application, _LONGEST_NAME)}")
        if self.since is not None:
            parts.append(
                f"in a transaction since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            )
        return ", ".join(parts)


def holders_text(holders: Iterable[LockHolder]) -> str:
    """Describe the lock and its holders.

    For example: `on orchestra.steps, held by pid 4711, user jane, application psql, in a
    transaction since …`.
    """
    found = list(holders)
    tables = sorted({one.table for one in found if one.table})
    named = "; ".join(map(str, found[:_MOST_NAMED])) + (
        "; and others" if len(found) > _MOST_NAMED else ""
    )
    return (
        f"on {', '.join(plain(table, 2 * _LONGEST_NAME) for table in tables)}, " if tables else ""
    ) + f"held by {named}"


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait forever for a silent server.

    The server enforces statement_timeout. A frozen server process, or a proxy that acknowledges
    packets without forwarding them, does not.
    """

    limit: float | None = None
    """Seconds that the response to one statement may take; None: no limit."""
    patience = math.inf
    """Seconds to wait for a server that does not respond to the watchdog either."""
    watchdog: Watchdog | None = None
    """The watchdog that checks long waits; None: no checks."""
    pid = 0
    """The server process of the current transaction. Behind a pooler, it is not the process that
    the connection was opened to."""
    is_cut = False
    """Whether `cut` was called."""

    @classmethod
    def open(cls, url: str, application_name: str, connect_seconds: float) -> Self:
        """Connect; `connect_seconds` is the limit for each of the URL's addresses, at least 2 s."""
        made = cls.connect(
            url,
            application_name=application_name,
            connect_timeout=max(2, int(connect_seconds)),
            # A server that vanishes silently is noticed after 10 + 3 * 5 seconds on an idle
            # connection, and after 25 seconds by a write.
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=25_000,
            # Server-side prepared statements break behind PgBouncer in transaction mode.
            prepare_threshold=None,
            # Overrides PGCLIENTENCODING and the database's own setting.
            client_encoding="UTF8",
        )
        # Overrides default_transaction_isolation: a statement that waited for a lock must see what
        # the lock's previous holder wrote.
        made.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return made

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server. psycopg calls this for every wait.

        Args:
            gen: psycopg's generator of the operation.
            interval: seconds between two checks for signals.
            timeout: seconds; None: the session's `limit`.

        Raises:
            psycopg.errors.ConnectionTimeout: `cut` was called.
            psycopg.OperationalError: the connection broke, or there was no response in time.
        """
        limit = self.limit if timeout is None else timeout
        try:
            if self.watchdog is None:
                return super().wait(gen, interval, limit)
            with self.watchdog.waiting(self):
                return super().wait(gen, interval, limit)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                # A late response must not be taken for the response to the next statement.
                self.close()
            if self.is_cut:
                raise psycopg.errors.ConnectionTimeout("timeout expired") from None
            raise

    def cut(self) -> None:
        """Break the connection; called from a thread other than the one that waits."""
        self.is_cut = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """A thread that checks the long waits of one process's sessions."""

    def __init__(
        self,
        connect: Callable[[], Session],
        *,
        lock_patience: float | None,
        silent: Callable[[psycopg.Error], None],
        responded: Callable[[], None],
    ) -> None:
        """Open no connection yet; the thread starts with the first wait.

        Args:
            connect: opens a connection, within `CHECK_TIMEOUT` seconds.
            lock_patience: seconds after which the watchdog cancels a statement that waits for a
                lock; None: it leaves that to the server's lock_timeout.
            silent: called after each failed check while the server is silent.
            responded: called when the server responds again.
        """
        self._connect = connect
        self._lock_patience = lock_patience
        self._locked_since: dict[int, float] = {}
        self._silent = silent
        self._responded = responded
        self._waits: dict[int, tuple[float, Session | None]] = {}
        self._connection: Session | None = None
        self._missed = 0
        self._missed_since = math.inf
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._ended = threading.Event()
        self._logged_at = -LOG_EVERY
        self.holders: list[LockHolder] = []
        """The sessions that blocked these sessions, at the last check that found any."""
        self.has_given_up = False
        """Whether the watchdog cancelled a statement that waited for a lock."""

    @property
    def is_silent(self) -> bool:
        """Whether the server did not respond to the latest checks."""
        return self._missed >= MISSED_CHECKS

    @contextmanager
    def waiting(self, session: Session | None) -> Iterator[None]:
        """Monitor this thread while the block waits for the server.

        Args:
            session: the session that waits; None: the thread is connecting.
        """
        if self._thread is None:
            self._start()
        thread = threading.get_ident()
        self._waits[thread] = time.monotonic(), session
        try:
            yield
        finally:
            self._waits.pop(thread, None)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop checking."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(0.0 if 0 < self._missed < MISSED_CHECKS else EVERY):
            now = time.monotonic()
            long = [
                session for since, session in list(self._waits.values()) if now - since >= EVERY
            ]
            if long:
                self._check([session for session in long if session is not None and session.pid])
            else:
                self._disconnect()
        self._disconnect()

    def _disconnect(self) -> None:
        """Close the watchdog's own connection while no session waits long."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read_holders(self, sessions: list[Session]) -> list[tuple[Any, ...]]:
        began = time.monotonic()
        if self._connection is None:
            self._connection = self._connect()
            # A transaction that stays open would block others.
            self._connection.autocommit = True
        self._connection.limit = max(0.1, CHECK_TIMEOUT - (time.monotonic() - began))
        return self._connection.execute(
            _HOLDERS, [[session.pid for session in sessions]]
        ).fetchall()

    def _check(self, sessions: list[Session]) -> None:
        began = time.monotonic()
        try:
            rows = self._read_holders(sessions)
        except psycopg.Error as error:
            self._disconnect()
            if is_from_server(error):
                self._note_response()
            elif not self._ended.is_set():
                self._missed += 1
                self._missed_since = min(self._missed_since, began)
                if self.is_silent:
                    self._silent(error)
                    self._cut()
            return
        except Exception as error:
            # For example, the file with the URL cannot be read now. That says nothing about the
            # server.
            log.debug("watchdog_failed", problem=type(error).__name__)
            return
        self._note_response()
        self._note_locks(sessions, rows)

    def _note_locks(self, sessions: list[Session], rows: list[tuple[Any, ...]]) -> None:
        now = time.monotonic()
        locked = {
            session.pid: session
            for session in sessions
            if any(row[0] == session.pid for row in rows)
        }
        self._locked_since = {pid: self._locked_since.get(pid, now) for pid in locked}
        if not rows:
            return
        found = dict.fromkeys(LockHolder(*row[1:]) for row in rows)
        self.holders = list(found)
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            log.warning(
                "lock_wait_detected", problem=f"waiting for a lock {holders_text(self.holders)}"
            )
        for pid, since in self._locked_since.items():
            if self._lock_patience is not None and now - since >= self._lock_patience:
                self.has_given_up = True
                with suppress(psycopg.Error):
                    locked[pid].cancel_safe(timeout=CHECK_TIMEOUT)

    def _note_response(self) -> None:
        was_silent = self.is_silent
        self._missed, self._missed_since = 0, math.inf
        if was_silent:
            self._responded()

    def _cut(self) -> None:
        now = time.monotonic()
        for since, session in list(self._waits.values()):
            # The wait before the first missed check counts too.
            if (
                session is not None
                and now - max(since, self._missed_since - EVERY) >= session.patience
            ):
                session.cut()

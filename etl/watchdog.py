"""A second look at a long wait: does the server answer at all, and who holds the lock that is waited for?

A statement may take its time. Whether the server works on it, waits for another session or is
frozen shows on a second connection only.
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
from typing import Any, TypeVar

import msgspec
import psycopg
import structlog
from psycopg.abc import PQGen

from etl.database_errors import is_from_server
from etl.terminal import plain

RV = TypeVar("RV")
log = structlog.get_logger(__name__)

# Seconds of a wait before the first look, and from one look to the next.
EVERY = 1.0
# Seconds in which the server must answer a look, connecting included: no less than libpq allows for
# connecting.
ANSWER = 2.0
# Looks in a row without an answer after which a server is called silent: a busy one may miss two.
MISSED = 3
# Seconds between two lines about waiting for locks.
SAID_EVERY = 60.0
# Sessions that a line names at most.
_MOST_NAMED = 3
_LONGEST_NAME = 63

# Of a lock on a row or a transaction the table stands in another lock of the session that waits; a
# concurrent build of an index waits for transactions.
_HOLDERS = b"""
    SELECT w.pid, blocking.pid, a.usename, a.application_name, a.xact_start, n.nspname || '.' || c.relname
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
    """A session that others wait for."""

    pid: int
    """0: a prepared transaction."""
    user: str | None
    application: str | None
    since: datetime | None
    """When its transaction began; None where the user may not see that."""
    table: str | None
    """On which the lock is; None: another kind of lock."""

    def __str__(self) -> str:
        """Without the statement, which may hold anything."""
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
    """`on orchestra.steps, held by pid 4711, user jane, application psql, in a transaction since …`."""
    found = list(holders)
    tables = sorted({one.table for one in found if one.table})
    named = "; ".join(map(str, found[:_MOST_NAMED])) + (
        "; and others" if len(found) > _MOST_NAMED else ""
    )
    return (
        f"on {', '.join(plain(table, 2 * _LONGEST_NAME) for table in tables)}, " if tables else ""
    ) + f"held by {named}"


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that does not wait for ever for a server that says nothing.

    statement_timeout is the server's: a frozen backend, or a proxy that acknowledges and forwards
    nothing, lets it pass.
    """

    limit: float | None = None
    """Seconds that the answer to one statement may take; None: no limit."""
    patience = math.inf
    """Seconds for which a server is waited for that does not even answer others."""
    watchdog: Watchdog | None = None
    """Who looks into long waits; None: nobody."""
    pid = 0
    """The server's process that the transaction in hand runs in: behind a pooler it is not the one that was connected to."""
    is_cut = False

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Every wait for the server; what has no limit of its own gets the session's."""
        limit = self.limit if timeout is None else timeout
        try:
            if self.watchdog is None:
                return super().wait(gen, interval, limit)
            with self.watchdog.waiting(self):
                return super().wait(gen, interval, limit)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                # An answer that still comes must not be taken for the next statement's.
                self.close()
            if self.is_cut:
                raise psycopg.errors.ConnectionTimeout("timeout expired") from None
            raise

    def cut(self) -> None:
        """Wait for the server no longer: for other threads than the one that waits."""
        self.is_cut = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Looks after the waits of one process's sessions, in a thread of its own."""

    def __init__(
        self,
        connect: Callable[[], Session],
        *,
        lock_patience: float | None,
        silent: Callable[[psycopg.Error], None],
        answered: Callable[[], None],
    ) -> None:
        """Nothing is connected here; the thread begins with the first wait.

        Args:
            connect: opens a connection, within `ANSWER` seconds.
            lock_patience: seconds after which a statement is cancelled that waits for a lock; None: that is the server's to do.
            silent: is called after each look that the server does not answer.
            answered: is called when it answers again.
        """
        self._connect = connect
        self._lock_patience = lock_patience
        self._locked_since: dict[int, float] = {}
        self._silent = silent
        self._answered = answered
        self._waits: dict[int, tuple[float, Session | None]] = {}
        self._connection: Session | None = None
        self._missed = 0
        self._missed_since = math.inf
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._ended = threading.Event()
        self._said = -SAID_EVERY
        self.holders: list[LockHolder] = []
        """Who held, at the last look that found any, a lock that one of these sessions waited for."""
        self.has_given_up = False
        """Whether a statement was cancelled that waited for a lock."""

    @property
    def is_silent(self) -> bool:
        """Whether the server answers nothing, by the latest looks."""
        return self._missed >= MISSED

    @contextmanager
    def waiting(self, session: Session | None) -> Iterator[None]:
        """Look after this thread while it waits for the server; `session`: None while it connects."""
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
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(0.0 if 0 < self._missed < MISSED else EVERY):
            now = time.monotonic()
            long = [
                session for since, session in list(self._waits.values()) if now - since >= EVERY
            ]
            if long:
                self._look([session for session in long if session is not None and session.pid])
            else:
                self._leave()
        self._leave()

    def _leave(self) -> None:
        """Keep no connection while nobody waits."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, sessions: list[Session]) -> list[tuple[Any, ...]]:
        began = time.monotonic()
        if self._connection is None:
            self._connection = self._connect()
            # A transaction that stays open would hold up others.
            self._connection.autocommit = True
        self._connection.limit = max(0.1, ANSWER - (time.monotonic() - began))
        return self._connection.execute(
            _HOLDERS, [[session.pid for session in sessions]]
        ).fetchall()

    def _look(self, sessions: list[Session]) -> None:
        began = time.monotonic()
        try:
            rows = self._ask(sessions)
        except psycopg.Error as error:
            self._leave()
            if is_from_server(error):
                self._note_answer()
            elif not self._ended.is_set():
                self._missed += 1
                self._missed_since = min(self._missed_since, began)
                if self.is_silent:
                    self._silent(error)
                    self._cut()
            return
        except Exception as error:
            # Such as a file with the URL that cannot be read now: that says nothing of the server.
            log.debug("watchdog_failed", problem=type(error).__name__)
            return
        self._note_answer()
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
        if now - self._said >= SAID_EVERY:
            self._said = now
            log.warning(
                "lock_wait_detected", problem=f"waiting for a lock {holders_text(self.holders)}"
            )
        for pid, since in self._locked_since.items():
            if self._lock_patience is not None and now - since >= self._lock_patience:
                self.has_given_up = True
                with suppress(psycopg.Error):
                    locked[pid].cancel_safe(timeout=ANSWER)

    def _note_answer(self) -> None:
        was_silent = self.is_silent
        self._missed, self._missed_since = 0, math.inf
        if was_silent:
            self._answered()

    def _cut(self) -> None:
        now = time.monotonic()
        for since, session in list(self._waits.values()):
            # What was waited before the first look counts.
            if (
                session is not None
                and now - max(since, self._missed_since - EVERY) >= session.patience
            ):
                session.cut()

"""Connections to the database, and transactions that are retried as a whole.

Errors are classified by SQLSTATE (`database_errors`).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec
import psycopg
import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from etl import conninfo, privileges, session
from etl.database_diagnosis import READ_ONLY, SILENT, Diagnosis, diagnose
from etl.database_errors import LOCK_NOT_AVAILABLE, is_transient, message, sqlstate
from etl.errors import ConfigurationError, ConnectionRefused, DatabaseError, DatabaseUnavailable
from etl.outage import Outage
from etl.watchdog import CHECK_TIMEOUT, Session, Watchdog, holders_text

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Seconds that `close` waits for transactions in other threads.
CLOSE_PATIENCE = 2.0
# Seconds after statement_timeout within which the server must report that it ended the statement.
SILENCE = 10.0
# Seconds that a statement over the whole history may take.
LONG = 3600.0

# Seconds that such a statement waits for an unresponsive server. It is longer than usual, because
# giving up loses the work done so far.
LONG_PATIENCE = 60.0

# Seconds for which an interactive command retries an unavailable database.
INTERACTIVE = 5.0
# Seconds between two log lines about retries for the same reason.
REPEAT_LOGGED_EVERY = 60.0

# Seconds that a transaction may be idle. No transaction waits for a person.
IDLE_IN_TRANSACTION = 60.0

# Missing privileges, tables or columns: no row can be written until a person changes the database.
_UNFIT_CLASSES = ("3F", "42")
_DENIED = "42501"
_READ_ONLY = text("SELECT current_setting('transaction_read_only') = 'on'")
_NOT_ALLOWED = (
    "the database refuses a statement for lack of a privilege (SQLSTATE 42501): let an "
    f"administrator make this user a member of {privileges.LOADER}, or of {privileges.MIGRATOR} "
    "for upgrades, `prune` and `erase`"
)


class Database:
    """One PostgreSQL database.

    A unit of work is a function that takes a connection. `transaction` runs it in one READ
    COMMITTED transaction, and retries it as a whole after a transient error. It must therefore have
    no effect outside the transaction.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        statement_timeout: float = 40.0,
        lock_timeout: float = 30.0,
        patience: float = 120.0,
        outage_patience: float | None = None,
        pool_size: int = 5,
    ) -> None:
        """Prepare the connection pool; open no connection yet.

        Args:
            url: a libpq URI (`postgresql://…`), or a function that returns one. The function is
                called for every new connection, so that a renewed password takes effect.
            statement_timeout: seconds a statement may take; 0 is no limit. If the server has not
                responded `SILENCE` seconds after that, the connection is closed.
            lock_timeout: seconds a statement may wait for a lock.
            patience: seconds after its first failure for which a unit of work is retried before
                `DatabaseUnavailable` is raised.
            outage_patience: the same while the whole database is unavailable or read-only; None:
                as `patience`.
            pool_size: maximum number of open connections.
        """
        self._url: Callable[[], str] = (lambda: url) if isinstance(url, str) else url
        self._limit = statement_timeout + SILENCE if statement_timeout else None
        self._patience = patience
        self._outage_patience = (
            patience if outage_patience is None else min(patience, outage_patience)
        )
        self._outage = Outage()
        self._watchdog = self.watchdog()
        self._repeats_logged_at: dict[str, float] = {}
        self._users = 0
        self._idle = threading.Condition()
        self._ending = threading.Event()
        self._closed = threading.Event()
        self._end = math.inf
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: self._connect(),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            # Replaces an idle connection that a server restart or a firewall's timeout has broken.
            pool_pre_ping=True,
            # The temporary tables of an endless session would keep PostgreSQL from freezing old
            # transaction ids.
            pool_recycle=3600,
            hide_parameters=True,
            # No column is an hstore; each process would search for that type at its start.
            use_native_hstore=False,
        )
        # Set in each transaction, not per session: behind PgBouncer in transaction mode, clients
        # share a session.
        self._settings = session.settings(
            statement_timeout=statement_timeout,
            lock_timeout=lock_timeout,
            idle_timeout=IDLE_IN_TRANSACTION,
        )
        event.listen(self._engine, "begin", self._begin)

    def _begin(self, connection: Connection) -> None:
        own = _session(connection)
        own.limit, own.patience = self._limit, self._outage_patience
        begun = connection.execute(self._settings).one()
        own.pid = begun.pid
        self._outage.recover(read_only=begun.read_only)

    @property
    def is_unavailable(self) -> bool:
        """Whether this process currently cannot even read from the database."""
        return self._outage.is_unavailable

    @property
    def problem(self) -> str | None:
        """Why this process currently cannot use the database, in one line; None if it can."""
        return self._outage.problem

    def _connect(self) -> Session:
        try:
            url = self._url()
        except ConfigurationError as error:
            # The file with the URL was readable at the start. The error is therefore a database
            # problem, after which a service retries, and not a configuration error.
            raise self._unusable(str(error)) from None
        with self._watchdog.waiting(None):
            made = Session.open(url, "orchestra-etl", self._connect_seconds(url))
        encoding = made.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", None):  # None: a pooler that does not report the encoding
            made.close()
            raise self._unusable(
                f"the database's encoding is {encoding}, which cannot hold every value: check "
                "DATABASE_URL, or create a database with ENCODING 'UTF8' TEMPLATE template0"
            )
        made.limit, made.patience, made.watchdog = (
            self._limit,
            self._outage_patience,
            self._watchdog,
        )
        self._sessions.add(made)
        return made

    def _connect_seconds(self, url: str) -> float:
        """Return the connect timeout per address, in seconds; all addresses fit in the patience."""
        if self._watchdog.is_silent or self._ending.is_set():
            return CHECK_TIMEOUT
        return min(10.0, self._outage_patience / conninfo.attempts(url))

    def _connect_watchdog(self) -> Session:
        return Session.open(self._url(), "orchestra-etl watchdog", CHECK_TIMEOUT)

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return its result.

        Raises:
            DatabaseUnavailable: transient errors lasted longer than `patience`.
            DatabaseError: the server refuses the connection (password, unknown database), the file
                with the URL cannot be read, or the schema or the user's privileges do not fit.
            psycopg.Error, sqlalchemy.exc.DBAPIError: a permanent error of the work itself; nothing
                was written.
        """
        return self._repeated(self._engine, work)

    def in_one_snapshot(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a REPEATABLE READ transaction: all its statements see the same rows.

        Errors are those of `transaction`.
        """
        return self._repeated(
            self._engine.execution_options(isolation_level="REPEATABLE READ"), work
        )

    def _repeated(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        pause = 0.05
        # If the machine was suspended while a unit was at work, the unit still has its whole
        # patience. The time of an attempt that never got a connection counts.
        failing_since: float | None = None
        away_since: float | None = None
        while True:
            tried = time.monotonic()
            connected = False
            try:
                with self._in_use(), engine.begin() as connection:
                    connected = True
                    return work(connection)
            except (psycopg.Error, SQLAlchemyError) as error:
                code = sqlstate(error)
                if code == _DENIED:
                    raise DatabaseError(self.denied(error)) from None
                if code is not None and code.startswith(_UNFIT_CLASSES):
                    raise DatabaseError(
                        f"the database refuses a statement (SQLSTATE {code}): "
                        "check the schema with `orchestra-etl db check`"
                    ) from None
                found = self.diagnose(error)
                if not found.permanent and not is_transient(error):
                    raise
                problem = self._note(found)
                if found.permanent:
                    raise ConnectionRefused(problem) from None
                failed = time.monotonic()
                since = failed if connected else tried
                failing_since = failing_since or since
                away_since = (away_since or since) if found.unavailable else None
                give_up = (
                    failing_since + self._patience
                    if away_since is None
                    else away_since + self._outage_patience
                )
                # Without a response, the next attempt takes as long as this one did.
                next_end = failed + pause
                next_end += failed - tried if found.problem == SILENT.problem else 0.0
                if next_end > min(give_up, self._end):
                    raise DatabaseUnavailable(problem) from None
            if self._ending.is_set():
                time.sleep(pause)
            else:
                self._ending.wait(pause)
            pause = min(pause * 2, 5.0)

    async def in_thread(self, work: Callable[[Connection], T]) -> T:
        """Run `transaction(work)` in a thread, so that the event loop stays free."""
        return await asyncio.to_thread(self.transaction, work)

    @property
    def is_ending(self) -> bool:
        """Whether the process is ending, so that running statements may be cancelled."""
        return self._ending.is_set()

    def _note(self, found: Diagnosis) -> str:
        """Log why a unit of work failed, unless that was just logged; return the error's text."""
        problem = self._line(found)
        if found.unavailable:
            self._outage.fail(problem, read_only=found.problem.startswith(READ_ONLY.problem))
            return problem
        now = time.monotonic()
        if now - self._repeats_logged_at.get(found.problem, -math.inf) >= REPEAT_LOGGED_EVERY:
            self._repeats_logged_at[found.problem] = now
            log.warning("transaction_retried", problem=problem)
        return problem

    def watchdog(self, lock_patience: float | None = None) -> Watchdog:
        """Return a watchdog for sessions with this database.

        Args:
            lock_patience: seconds after which the watchdog cancels a statement that waits for a
                lock; None: it cancels none.
        """
        return Watchdog(
            self._connect_watchdog,
            lock_patience=lock_patience,
            silent=lambda error: self._outage.fail(self._line(self.diagnose(error))),
            responded=lambda: self._outage.recover(read_only=True),
        )

    def _line(self, found: Diagnosis) -> str:
        return f"{conninfo.address(self._known_url())}: {found.problem}: {found.advice}"

    def _unusable(self, problem: str) -> DatabaseError:
        self._outage.fail(problem)
        return DatabaseError(problem)

    def denied(self, error: BaseException, *, changes_schema: bool = False) -> str:
        """Return the error text for a statement that this user may not run (SQLSTATE 42501).

        Args:
            error: the error of the refused statement.
            changes_schema: whether the statement was part of an upgrade.
        """
        try:
            with self._in_use(), self._engine.begin() as connection:
                return privileges.explain(connection, message(error), changes_schema=changes_schema)
        except (psycopg.Error, SQLAlchemyError, DatabaseError):
            return _NOT_ALLOWED

    def diagnose(self, error: BaseException) -> Diagnosis:
        """Return what a failed connection or statement means.

        Each libpq setting in the texts is replaced by its source (`conninfo.Sources`).
        """
        url = self._known_url()
        found = diagnose(error, conninfo.names(url))
        sources = conninfo.Sources(url)
        problem, advice = found.problem.format_map(sources), found.advice.format_map(sources)
        if sqlstate(error) == LOCK_NOT_AVAILABLE and self._watchdog.holders:
            advice = f"{holders_text(self._watchdog.holders)}: end that session, or try again later"
        return msgspec.structs.replace(found, problem=problem, advice=advice)

    def _known_url(self) -> str:
        """Return the URL; empty if its file cannot be read now."""
        try:
            return self._url()
        except ConfigurationError:
            return ""

    def check_writable(self) -> None:
        """Check that the database accepts writes.

        Raises:
            DatabaseUnavailable: the database does not respond, or is read-only.
            DatabaseError: the database refuses the connection.
        """
        if self.transaction(lambda connection: connection.execute(_READ_ONLY).scalar_one()):
            raise DatabaseUnavailable(self._note(READ_ONLY))

    def end_within(self, seconds: float) -> None:
        """Limit all retries to this many seconds from now, because the process is ending.

        The limit overrides `patience`. Statements that still run after it are cancelled.
        """
        self._end = time.monotonic() + seconds
        self._ending.set()
        threading.Thread(
            target=self._break_off, args=(seconds,), name="break-off", daemon=True
        ).start()

    def _break_off(self, seconds: float) -> None:
        """Cancel running statements after this many seconds, then every 0.2 s, until `close`.

        A statement that waits for a lock would otherwise keep its thread, and so the process, alive
        until `lock_timeout`.
        """
        while not self._closed.wait(seconds):
            for open_session in list(self._sessions):
                if open_session.info.transaction_status is not psycopg.pq.TransactionStatus.ACTIVE:
                    continue
                try:
                    if not self._watchdog.is_silent:
                        open_session.cancel_safe(timeout=1.0)
                        continue
                except psycopg.Error:
                    pass
                # The server does not even accept the cancel request: stop waiting for a response.
                open_session.cut()
            seconds = 0.2

    def connections(self) -> dict[str, int]:
        """Return the number of open connections that are in use and that are idle."""
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        return {"in_use": pool.checkedout(), "idle": pool.checkedin()}

    def close(self) -> None:
        """Wait up to `CLOSE_PATIENCE` for other threads' transactions, then close the connections.

        A thread cannot be cancelled: it may still be working after its task has ended.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._users == 0, timeout=CLOSE_PATIENCE)
        self._closed.set()
        self._watchdog.close()
        self._engine.dispose()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._idle:
            self._users += 1
        try:
            yield
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()


def allow_long(connection: Connection) -> None:
    """Allow an hour for each statement of a transaction that works on the whole history."""
    own = _session(connection)
    own.limit, own.patience = LONG + SILENCE, max(own.patience, LONG_PATIENCE)
    connection.execute(text(f"SET LOCAL statement_timeout = {round(LONG * 1000)}"))


def _session(connection: Connection) -> Session:
    driver = connection.connection.driver_connection
    if not isinstance(driver, Session):
        raise TypeError("the connection must be a Database's")
    return driver

"""The database: connections, transactions that are repeated as a whole, errors judged by SQLSTATE."""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
import structlog
from psycopg.abc import PQGen
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from etl.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

T = TypeVar("T")
RV = TypeVar("RV")
log = structlog.get_logger(__name__)

# Seconds that `close` waits for transactions in other threads.
CLOSE_PATIENCE = 2.0
# Seconds after statement_timeout that a server gets to say that it has ended the statement.
SILENCE = 10.0
# Seconds that a statement over all that is stored may take.
LONG = 3600.0

# Classes and codes of SQLSTATE after which the same unit of work may succeed when it is repeated as a whole.
_TRANSIENT_CLASSES = ("08", "40", "53", "55", "57")
# Read-only (a replica during failover), idle and transaction time-outs, I/O errors, and `55P03` of lock_timeout by its class.
_TRANSIENT_CODES = frozenset({"25006", "25P03", "25P04", "58030"})
# A statement that ran into statement_timeout (57014) may do so again, but a batch that is repeated on a calmer
# server usually does not; the number of attempts bounds it.
_REFUSED_CLASSES = ("28", "3D")
# psycopg gives no SQLSTATE for a refused connection: the server's own words are all there is. Names in them are anybody's, so
# what says that one is missing goes first.
_REFUSALS = (
    (r'database ".*" does not exist', "the server has no such database: create it, or check DATABASE_URL"),
    (r'role ".*" does not exist', "the database does not know this user: check DATABASE_URL"),
    (r'role ".*" is not permitted to log in', "the database does not let this user log in: give it LOGIN, or check DATABASE_URL"),
    (r'permission denied for database ".*"', "this user may not connect to the database: grant CONNECT, or check DATABASE_URL"),
    (r"pg_hba\.conf", "the server's pg_hba.conf does not admit this connection: add a line to it, or check DATABASE_URL"),
    (r"authentication failed for user|no password supplied", "the database refuses the user or password: check DATABASE_URL"),
)  # fmt: skip
# Missing privileges, tables or columns: whatever the rows are, nothing can be written until somebody changes the database.
_UNFIT_CLASSES = ("3F", "42")


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of a psycopg error or of SQLAlchemy's wrapper round one; None where the server did not give one."""
    if isinstance(error, DBAPIError):
        error = error.orig if error.orig is not None else error
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def is_database_error(error: BaseException) -> bool:
    """Whether the error comes from the database or its driver."""
    return isinstance(error, psycopg.Error | SQLAlchemyError)


def is_transient(error: BaseException) -> bool:
    """Whether repeating the whole unit of work may help.

    An operational error without a SQLSTATE is a connection that broke or could not be made.
    """
    if isinstance(error, PoolTimeout):
        return True
    code = sqlstate(error)
    if code is None:
        cause = error.orig if isinstance(error, DBAPIError) else error
        return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
    return code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES


class _Session(psycopg.Connection[tuple[object, ...]]):
    """A connection that does not wait for ever for a server that says nothing.

    statement_timeout is the server's: a frozen backend, or a proxy that acknowledges and forwards nothing, lets it pass.
    """

    limit: float | None = None
    """Seconds that the answer to one statement may take; None: no limit."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Every wait for the server; what has no limit of its own gets the session's."""
        try:
            return super().wait(gen, interval, self.limit if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                # An answer that still comes must not be taken for the next statement's.
                self.close()
            raise


class Database:
    """One PostgreSQL database.

    Every unit of work is a function of a connection, run in one READ COMMITTED transaction by `transaction`
    and repeated as a whole after a transient error. It must therefore have no effect outside the transaction.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        statement_timeout: float = 40.0,
        lock_timeout: float = 30.0,
        patience: float = 120.0,
        pool_size: int = 5,
    ) -> None:
        """Nothing is connected here.

        Args:
            url: a libpq URI (`postgresql://…`), or what gives one; it is asked for every new connection, so that a renewed
                password takes effect.
            statement_timeout: seconds a statement may take; 0 is no limit. A connection on which no answer has come
                for `SILENCE` seconds longer is given up.
            lock_timeout: seconds a statement may wait for a lock.
            patience: seconds for which a unit of work is repeated before `DatabaseUnavailable` is raised.
            pool_size: connections kept open at most.
        """
        self._url = url
        self._limit = statement_timeout + SILENCE if statement_timeout else None
        self._patience = patience
        self._users = 0
        self._idle = threading.Condition()
        self._ending = threading.Event()
        self._closed = threading.Event()
        self._end = math.inf
        self._sessions: weakref.WeakSet[_Session] = weakref.WeakSet()
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: self._connect(),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            # A connection that idled through a restart or a firewall's time-out is replaced before it is used.
            pool_pre_ping=True,
            # The temporary tables of a session that lives for ever would keep PostgreSQL from freezing old transaction ids.
            pool_recycle=3600,
            hide_parameters=True,
        )
        milliseconds = {"statement_timeout": statement_timeout, "lock_timeout": lock_timeout}
        # Set in each transaction, not per session: behind PgBouncer in transaction mode a session is nobody's own.
        self._settings = text(
            "SELECT set_config('TimeZone', 'UTC', true), "
            "set_config('idle_in_transaction_session_timeout', '60000', true), "
            + ", ".join(f"set_config('{name}', '{round(value * 1000)}', true)" for name, value in milliseconds.items())
            # A server at its defaults logs the row that it refuses. Only a superuser may ask for less; for any other role a
            # superuser can: ALTER ROLE ... SET log_error_verbosity = terse.
            + ", CASE WHEN current_setting('is_superuser') = 'on' THEN set_config('log_error_verbosity', 'terse', true) END"
        )
        event.listen(self._engine, "begin", self._begin)

    def _begin(self, connection: Connection) -> None:
        _session(connection).limit = self._limit
        connection.execute(self._settings)

    def _connect(self) -> _Session:
        try:
            url = self._url if isinstance(self._url, str) else self._url()
        except ConfigurationError as error:
            # It was readable when the work began: trouble with the database, after which a service tries again.
            raise DatabaseError(str(error)) from None
        session = _Session.connect(
            url,
            application_name="orchestra-etl",
            connect_timeout=10,
            # A server that vanished without a word is noticed after 10 + 3 * 5 seconds, and a write to it after 25.
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=25_000,
            # Server-side prepared statements break behind PgBouncer in transaction mode.
            prepare_threshold=None,
            # Whatever PGCLIENTENCODING or the database's own setting say.
            client_encoding="UTF8",
        )
        encoding = session.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", None):  # None: a pooler that does not tell
            session.close()
            raise DatabaseError(
                f"the database's encoding is {encoding}, which cannot hold every value: check DATABASE_URL, or make "
                "a database with ENCODING 'UTF8' TEMPLATE template0"
            )
        session.limit = self._limit
        self._sessions.add(session)
        return session

    def transaction(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return its result.

        Raises:
            DatabaseUnavailable: transient errors lasted longer than `patience`.
            DatabaseError: the server refuses the connection (password, unknown database), the file with the URL cannot be
                read, or the schema or the user's privileges do not fit.
            psycopg.Error, sqlalchemy.exc.DBAPIError: a permanent error of the work itself; nothing was written.
        """
        give_up = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                with self._in_use(), self._engine.begin() as connection:
                    return work(connection)
            except (psycopg.Error, SQLAlchemyError) as error:
                code = sqlstate(error)
                if (refusal := _refusal(error, code)) is not None:
                    raise DatabaseError(refusal) from None
                if code is not None and code.startswith(_UNFIT_CLASSES):
                    raise DatabaseError(
                        f"the database refuses a statement (SQLSTATE {code}): check the user's privileges, "
                        "and the schema with `orchestra-etl db check`"
                    ) from None
                if not is_transient(error):
                    raise
                if time.monotonic() + pause > min(give_up, self._end):
                    raise DatabaseUnavailable(
                        f"the database does not answer ({_cause(error, code)}): "
                        "check DATABASE_URL and that PostgreSQL runs, then try again"
                    ) from None
                log.warning("database_retry", cause=_cause(error, code), pause_seconds=round(pause, 2))
            if self._ending.is_set():
                time.sleep(pause)
            else:
                self._ending.wait(pause)
            pause = min(pause * 2, 5.0)

    @property
    def is_ending(self) -> bool:
        """Whether the process ends: what the server is still at may be broken off."""
        return self._ending.is_set()

    def end_within(self, seconds: float) -> None:
        """Repeat no unit of work for longer than so many seconds from now, whatever `patience` says: the process ends.

        What the server is still at when they are over is broken off.
        """
        self._end = time.monotonic() + seconds
        self._ending.set()
        threading.Thread(target=self._break_off, args=(seconds,), name="break-off", daemon=True).start()

    def _break_off(self, seconds: float) -> None:
        """Cancel what waits for a lock, say: a thread in it would keep the process from ending until `lock_timeout`."""
        while not self._closed.wait(seconds):
            for session in list(self._sessions):
                if session.info.transaction_status is not psycopg.pq.TransactionStatus.ACTIVE:
                    continue
                try:
                    session.cancel_safe(timeout=1.0)
                except psycopg.Error:
                    # The server does not take even this: its answer is waited for no longer.
                    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(session.fileno())) as line:
                        line.shutdown(socket.SHUT_RDWR)
            seconds = 0.2

    def connections(self) -> dict[str, int]:
        """The connections that are open, by use."""
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)
        return {"in_use": pool.checkedout(), "idle": pool.checkedin()}

    def close(self) -> None:
        """Close the connections, once the transactions that other threads are in have ended (for some seconds at most).

        A thread cannot be cancelled: its task may be over while it is still at work.
        """
        with self._idle:
            self._idle.wait_for(lambda: self._users == 0, timeout=CLOSE_PATIENCE)
        self._closed.set()
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
    """Let the statements of the transaction in hand take up to an hour, for those that go over all that is stored."""
    _session(connection).limit = LONG + SILENCE
    connection.execute(text(f"SET LOCAL statement_timeout = {round(LONG * 1000)}"))


def _session(connection: Connection) -> _Session:
    driver = connection.connection.driver_connection
    if not isinstance(driver, _Session):
        raise TypeError("the connection must be a Database's")
    return driver


def _refusal(error: BaseException, code: str | None) -> str | None:
    """What to tell of a connection that the server refuses for good; None of any other error."""
    if code is not None:
        refused = code.startswith(_REFUSED_CLASSES)
        return f"the database refuses the connection (SQLSTATE {code}): check DATABASE_URL" if refused else None
    words = str(error)
    return next((told for sign, told in _REFUSALS if re.search(sign, words)), None)


def _cause(error: BaseException, code: str | None) -> str:
    """A word for the log; never the error's own text, which may quote a connection string or a row."""
    if code is not None:
        return f"SQLSTATE {code}"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return type(cause).__name__

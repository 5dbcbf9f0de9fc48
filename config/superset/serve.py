"""Serve the dashboards on this machine, in Apache Superset, from the files in this folder.

They show the database that DATABASE_URL names. Without it, they show the demo's database, whose
server runs as long as Superset does. Superset's own database, its keys and its log are in the
folder `dashboards` of the data folder. A second call updates the dashboards; if the first call
still serves them, it ends then.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from etl import app, settings
from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres, default_home
from etl.errors import ConfigurationError, DatabaseError, EtlError

FOLDER = Path(__file__).resolve().parent
PROGRAMS = FOLDER.parents[1] / ".superset" / "venv" / "bin"
LOGIN = "orchestra_dashboards"
"""Superset's database user: a member of the analysts, who cannot read payloads."""
ANY = "0.0.0.0"  # noqa: S104 - only compared
START_SECONDS = 180.0
STEP = "step: "
"""The text that `provision.py` prints before the name of each step."""
STATEMENT_SECONDS = 55
"""Less than Superset's own timeout, so that the server also ends a slow query."""


def main() -> int:
    """Update the dashboards, and serve them until Ctrl-C; with --exit, until Superset responds."""
    parser = argparse.ArgumentParser(
        prog="make dashboards", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve at (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=8088, help="the port (%(default)s); 0: any free one"
    )
    parser.add_argument(
        "--exit", action="store_true", help="end as soon as the dashboards are served"
    )
    parser.add_argument(
        "--only",
        choices=["import", "serve"],
        help="bring the dashboards up to date and end; or serve what was imported before",
    )
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        home = _home()
        with _database() as url, _lock(home) as alone:
            if arguments.only != "serve":
                password, _ = _secret(home / "database-password")
                _make_login(url, password)
                _provision(home, _sqlalchemy_uri(url, password))
            if arguments.only == "import":
                return 0
            if not (home / "admin-password").exists():
                raise ConfigurationError(
                    f"no dashboards have been imported into {home}: "
                    "call it with --only import first"
                )
            if not alone:
                address = (home / "address").read_text()
                _say(f"the dashboards are up to date; they are served at {address}")
                return 0
            _serve(home, arguments.host, arguments.port, end=arguments.exit)
    except EtlError as error:
        print(f"dashboards: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 0
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Print a step and, if it succeeds, its duration; on a terminal, count the seconds."""
    begun = time.monotonic()
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1):
            print(f"\r{what} ... {time.monotonic() - begun:.0f} s", end="", flush=True)

    print(f"{what} ...", end="", flush=True)
    ticking = threading.Thread(target=tick, daemon=True)
    if sys.stdout.isatty():
        ticking.start()
    ended = ""
    try:
        yield
        ended = f" {time.monotonic() - begun:.0f} s"
    finally:
        done.set()
        if ticking.is_alive():
            ticking.join()
        again = f"\r{what} ..." if sys.stdout.isatty() else ""
        print(f"{again}{ended}", flush=True)


def _home() -> Path:
    home = default_home() / "dashboards"
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"the dashboards cannot use {home}: {error.strerror}; "
            "name another folder in ORCHESTRA_ETL_HOME"
        ) from None
    return home


@contextmanager
def _lock(home: Path) -> Iterator[bool]:
    """Yield whether no other process serves this folder.

    The kernel releases a flock however its holder dies.
    """
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


# The database that the dashboards show


@contextmanager
def _database() -> Iterator[str]:
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
        with app.database_url(settings.load()) as url:
            _check(url)
            _say("the dashboards show the database that DATABASE_URL names")
            yield url
        return
    with EmbeddedPostgres(default_home() / "demo") as server:
        if not _has_recent_runs(server.url):
            with _step("loading the demo's history (about 10 s)"):
                _etl("demo", "--exit")
        else:
            # An earlier demo may have ended before it computed its rollups.
            _etl("rollups", "refresh", DATABASE_URL=server.url)
        database = Database(server.url, pool_size=1)
        try:
            roles.apply(database)
        finally:
            database.close()
        _say("the dashboards show the demo's database")
        yield server.url


def _has_schema(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT to_regclass('orchestra.run_summary') IS NOT NULL"
        ).fetchone()
        return row is not None and bool(row[0])


def _has_recent_runs(url: str) -> bool:
    """Return whether the demo has runs of the last three days.

    The dashboards show the last seven days by default.
    """
    if not _has_schema(url):
        return False
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT max(start_time) > now() - interval '3 days' FROM orchestra.runs"
        ).fetchone()
        return row is not None and row[0] is True


def _etl(*arguments: str, **variables: str) -> None:
    command = [sys.executable, "-m", "etl", *arguments]
    done = subprocess.run(
        command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise DatabaseError(
            f"the demo's database cannot be used: `orchestra-etl {' '.join(arguments)}` failed"
        )


def _check(url: str) -> None:
    """Check that the schema and the roles exist.

    This does not create the roles: that changes the owner of the schema, which is for the
    database's owner to decide.
    """
    try:
        if not _has_schema(url):
            raise DatabaseError(
                "the database has no schema that fits: run `orchestra-etl db upgrade` first"
            )
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT FROM pg_roles WHERE rolname = %s", [roles.ANALYST]
            ).fetchone()
    except psycopg.Error as error:
        raise DatabaseError(
            f"the database that DATABASE_URL names cannot be read (SQLSTATE {error.sqlstate})"
        ) from None
    if found is None:
        raise DatabaseError(
            "the database has no roles for analysts yet: run `orchestra-etl db roles` first"
        )


def _make_login(url: str, password: str) -> None:
    """Create or update the login that Superset uses.

    Raises:
        DatabaseError: the database user may not do that.
    """
    login = sql.Identifier(LOGIN)
    try:
        with psycopg.connect(url) as connection:
            # Only a hash goes to the server, whose log can contain the statement.
            digest = connection.pgconn.encrypt_password(
                password.encode(), LOGIN.encode(), b"scram-sha-256"
            ).decode()
            if (
                connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [LOGIN]).fetchone()
                is None
            ):
                connection.execute(sql.SQL("CREATE ROLE {}").format(login))
            for statement in (
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(login, sql.Literal(digest)),
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(roles.ANALYST), login),
                sql.SQL("ALTER ROLE {} SET search_path = orchestra").format(login),
                sql.SQL("ALTER ROLE {} SET timezone = 'UTC'").format(login),
                sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(login),
                sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(
                    login, sql.Literal(f"{STATEMENT_SECONDS}s")
                ),
                sql.SQL("ALTER ROLE {} SET idle_in_transaction_session_timeout = {}").format(
                    login, sql.Literal(f"{STATEMENT_SECONDS}s")
                ),
                sql.SQL(
                    "COMMENT ON ROLE {} IS 'orchestra-etl: the login of the dashboards'"
                ).format(login),
            ):
                connection.execute(statement)
    except psycopg.Error as error:
        raise DatabaseError(
            f"this user of the database cannot make the login {LOGIN} "
            f"(SQLSTATE {error.sqlstate}): it needs CREATEROLE, and the right to grant "
            f"{roles.ANALYST}"
        ) from None


def _sqlalchemy_uri(url: str, password: str) -> str:
    parameters = conninfo_to_dict(url)
    database = quote(str(parameters.pop("dbname", "")), safe="")
    names = ("host", "hostaddr", "port", "sslmode", "sslrootcert")
    query = urlencode([(name, str(parameters[name])) for name in names if name in parameters])
    return f"postgresql+psycopg2://{LOGIN}:{quote(password, safe='')}@/{database}?{query}"


# Superset


def _secret(path: Path) -> tuple[str, bool]:
    """Return the secret in the file, and whether it is new."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip(), False
    secret = secrets.token_urlsafe(24)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    return secret, True


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of Superset, without variables such as the API key."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "ORCHESTRA_DASHBOARDS_HOME": str(home),
        "SUPERSET_CONFIG_PATH": str(FOLDER / "superset_config.py"),
        # superset_config.py imports modules of this folder.
        "PYTHONPATH": str(FOLDER),
        "FLASK_APP": "superset.app:create_app()",
        "SCARF_ANALYTICS": "false",
        # Relative times, such as the last seven days, are in the time zone of the database.
        "TZ": "UTC",
    }


def _program(name: str) -> str:
    program = PROGRAMS / name
    if not program.exists():
        raise ConfigurationError("Superset is not installed: run `make dashboards`, which does it")
    return str(program)


def _provision(home: Path, sqlalchemy_uri: str) -> None:
    _secret(home / "secret-key")
    password, is_new = _secret(home / "admin-password")
    viewer_password, _ = _secret(home / "viewer-password")
    wanted = {
        "sqlalchemy_uri": sqlalchemy_uri,
        "password": password,
        "viewer_password": viewer_password,
    }
    log = home / "provision.log"
    with (
        # Superset's standard error goes into the same file: lines must be written in order.
        log.open("w", buffering=1) as output,
        subprocess.Popen(
            [_program("python"), str(FOLDER / "provision.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=_environment(home),
            text=True,
        ) as provision,
        ExitStack() as step,
    ):
        assert provision.stdin is not None
        assert provision.stdout is not None
        step.enter_context(_step("loading Superset"))
        try:
            with suppress(BrokenPipeError), provision.stdin as stdin:
                json.dump(wanted, stdin)
            for line in provision.stdout:
                if line.startswith(STEP):
                    step.close()
                    step.enter_context(_step(line.removeprefix(STEP).strip()))
                else:
                    output.write(line)
        except KeyboardInterrupt:
            provision.kill()
            raise
    if provision.returncode != 0:
        lines = log.read_text().splitlines() or ["it gave no reason"]
        raise ConfigurationError(
            f"Superset cannot take over the dashboards: {lines[-1]} (see {log})"
        )
    shown = f"password {password}, kept in" if is_new else "password in"
    _say(f"sign in as admin, {shown} {home / 'admin-password'}")
    _say(f"or as viewer, who changes nothing, password in {home / 'viewer-password'}")


def _serve(home: Path, host: str, port: int, *, end: bool) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            port = probe.getsockname()[1]
        except OSError:
            raise ConfigurationError(
                f"port {port} is taken: name another with make dashboards ARGS='--port {port + 1}'"
            ) from None
    server_name = "127.0.0.1" if host == ANY else host
    address = f"http://{server_name}:{port}/superset/dashboard/orchestra-overview/"
    with (home / "superset.log").open("w") as log:
        server = _start(home, host, port, log)
        try:
            with _step("starting the server"):
                _wait_until_ready(server, port, home)
            (home / "address").write_text(address)
            _say(f"the dashboards are served at {address}")
            if not end:
                _say("Ctrl-C ends it")
                if server.wait() != 0:
                    raise ConfigurationError(
                        f"Superset has ended by itself: see {home / 'superset.log'}"
                    )
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()


def _start(home: Path, host: str, port: int, log: IO[str]) -> subprocess.Popen[bytes]:
    # One process is enough, because Superset mostly waits for PostgreSQL; another takes 350 MB.
    workers = ["--workers", "1", "--worker-class", "gthread", "--threads", "16", "--timeout", "120"]
    return subprocess.Popen(
        [_program("gunicorn"), *workers, "--bind", f"{host}:{port}", "superset.app:create_app()"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_environment(home),
        cwd=home,
    )


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with (
            suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health"),
        ):
            return
        time.sleep(0.1)
    raise ConfigurationError(f"Superset does not start: see {home / 'superset.log'}")


if __name__ == "__main__":
    sys.exit(main())

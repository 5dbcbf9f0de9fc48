"""Serve the dashboards on this machine, in Apache Superset, from the files in this folder.

They show the database that DATABASE_URL names. Without it, they show the demo's database, whose
server runs as long as Superset does. Superset's own database, its keys and its log are in the
folder `dashboards` of the data folder, or of the demo's data folder. A second call updates the
dashboards; if the first call still serves them, it ends then.
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
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from config.superset import logins, shown_database
from config.superset.progress import say, step
from etl.embedded.postgres import default_home
from etl.errors import ConfigurationError, EtlError

FOLDER = Path(__file__).resolve().parent
PROGRAMS = FOLDER.parents[1] / ".superset" / "venv" / "bin"
ANY = "0.0.0.0"  # noqa: S104 - only compared
START_SECONDS = 180.0
USERS = {
    "viewer": "who changes nothing",
    "payload-viewer": "who also reads prompts and answers",
}
STEP = "step: "
"""The text that `provision.py` prints before the name of each step."""


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
        "--exit", action="store_true", help="exit as soon as the dashboards are served"
    )
    parser.add_argument(
        "--only",
        choices=["import", "serve"],
        help="update the dashboards and exit, or serve those that were imported before",
    )
    parser.add_argument(
        "--payloads",
        action="store_true",
        help="show prompts and answers to users with the role Payload viewer; the next call without"
        " this option removes them",
    )
    arguments = parser.parse_args()
    if arguments.payloads and arguments.only == "serve":
        parser.error("--payloads is an option of the import: leave it out with --only serve")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with shown_database.opened() as url, _lock(home := _home()) as alone:
            if arguments.only != "serve":
                _import(home, url, payloads=arguments.payloads)
            if arguments.only == "import":
                return 0
            if not (home / "admin-password").exists():
                raise ConfigurationError(
                    f"no dashboards have been imported into {home}: "
                    "call it with --only import first"
                )
            if not alone:
                address = (home / "address").read_text()
                say(f"the dashboards are up to date; they are served at\n  {address}")
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


def _home() -> Path:
    """Return the folder of Superset's passwords, keys and own database.

    The demo's is in the demo's data folder, which is the data folder of a terminal with the demo's
    settings: both ways to the demo use one password of the login.
    """
    home = default_home() / ("demo/dashboards" if shown_database.is_demo() else "dashboards")
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


def _import(home: Path, url: str, *, payloads: bool) -> None:
    """Bring the logins and the dashboards up to date, with or without prompts and answers."""
    password, _ = _secret(home / "database-password")
    uris = {"sqlalchemy_uri": logins.sqlalchemy_uri(url, logins.ANALYST, password)}
    if payloads:
        shown_database.check_model_calls(url)
        password_of_payloads, _ = _secret(home / "payload-database-password")
        logins.make(url, logins.PAYLOAD_ANALYST, password_of_payloads)
        uris["payloads_uri"] = logins.sqlalchemy_uri(
            url, logins.PAYLOAD_ANALYST, password_of_payloads
        )
    logins.make(url, logins.ANALYST, password)
    _provision(home, uris)
    if not payloads:
        logins.drop(url, logins.PAYLOAD_ANALYST)


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


def _provision(home: Path, uris: dict[str, str]) -> None:
    _secret(home / "secret-key")
    password, is_new = _secret(home / "admin-password")
    users = ["admin", "viewer", *(["payload-viewer"] if "payloads_uri" in uris else [])]
    wanted = {**uris, "passwords": {one: _secret(home / f"{one}-password")[0] for one in users}}
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
        ExitStack() as current,
    ):
        assert provision.stdin is not None
        assert provision.stdout is not None
        current.enter_context(step("loading Superset"))
        try:
            with suppress(BrokenPipeError), provision.stdin as stdin:
                json.dump(wanted, stdin)
            for line in provision.stdout:
                if line.startswith(STEP):
                    current.close()
                    current.enter_context(step(line.removeprefix(STEP).strip()))
                else:
                    output.write(line)
        except KeyboardInterrupt:
            provision.kill()
            raise
    if provision.returncode != 0:
        lines = log.read_text().splitlines() or ["it printed no reason"]
        raise ConfigurationError(f"Superset cannot import the dashboards: {lines[-1]} (see {log})")
    say(f"sign in as admin, {f'password {password}, kept in' if is_new else 'password in'}")
    say(f"  {home / 'admin-password'}")
    for user in users[1:]:
        say(f"or as {user}, {USERS[user]}, password in")
        say(f"  {home / f'{user}-password'}")


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
            with step("starting the server"):
                _wait_until_ready(server, port, home)
            (home / "address").write_text(address)
            say(f"the dashboards are served at\n  {address}")
            if not end:
                say("Ctrl-C ends it")
                if server.wait() != 0:
                    raise ConfigurationError(
                        f"Superset has stopped unexpectedly: see {home / 'superset.log'}"
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

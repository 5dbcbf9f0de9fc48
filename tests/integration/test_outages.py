"""An unavailable database: the reason at once, patience by command, one log line a minute."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from etl import database_diagnosis, outage
from etl.database import Database
from etl.errors import DatabaseError, DatabaseUnavailable
from tests.command_line import Command, command_line
from tests.listener import listener
from tests.support import configuration, environment, free_port, query, slow, wait_until

Make = Callable[..., Command]
SHORT = {"ORCHESTRA_ETL_DATABASE__PATIENCE": "500ms"}
SECONDS = 30.0
"""The limit for an error, for a busy machine; the usual patience is 120 seconds."""
"""Settings for a test that checks only the message."""


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Make:
    """Provide a function that returns the command line for a database URL, with one workflow."""

    def made(url: str, **more: str) -> Command:
        toml = configuration("11111111-2222-3333-4444-555555555555")
        variables = environment(url, f"http://127.0.0.1:{free_port()}", **more)
        return command_line(tmp_path, monkeypatch, capsys, toml, **variables)

    return made


def _first_line(command: Command, *arguments: str) -> tuple[str, float]:
    """Return the error line of a command that ends with status 4, and its duration in seconds."""
    began = time.monotonic()
    printed = command(*arguments)
    assert printed.status == 4
    lines = [line for line in printed.err.splitlines() if line.startswith("orchestra-etl: ")]
    assert len(lines) == 1
    assert "secret" not in printed.err
    return lines[0], time.monotonic() - began


COMMANDS = (
    ("status",),
    ("db", "upgrade"),
    *slow(("runs", "list"), ("gaps", "list"), ("dead-letters", "list"), ("db", "current")),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_an_interactive_command_gives_up_in_seconds(make: Make, arguments: tuple[str, ...]) -> None:
    """A refused connection ends the command in seconds, with host, port and reason."""
    line, seconds = _first_line(make("postgresql://u:secret@127.0.0.1:1/d"), *arguments)
    assert "127.0.0.1:1: the connection is refused" in line
    assert seconds < SECONDS


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "postgresql://u:secret@no-such-host.invalid/d",
            "no-such-host.invalid:5432: the host's name cannot be resolved",
        ),
        ("postgresql://u:secret@/d?host=/no/such/folder", "the socket does not exist"),
        (
            "postgresql://u:secret@127.0.0.1:1,127.0.0.2:2/d",
            "127.0.0.1:1, 127.0.0.2:2: the connection is refused",
        ),
    ],
)
def test_why_a_connection_fails(make: Make, url: str, words: str) -> None:
    """An unresolved host, a missing socket and two refusing hosts have different errors."""
    line, seconds = _first_line(make(url, **SHORT), "status")
    assert words in line
    assert seconds < SECONDS


def test_a_silent_server(make: Make) -> None:
    """A host that accepts the connection and stays silent is given up within seconds."""
    with listener(None) as port:
        line, seconds = _first_line(make(f"postgresql://u:secret@127.0.0.1:{port}/d"), "status")
    assert "does not respond in time" in line
    assert seconds < SECONDS


def test_a_server_other_than_postgresql(make: Make) -> None:
    """A web server at the port is reported at once as not being PostgreSQL."""
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        line, seconds = _first_line(make(f"postgresql://u:secret@127.0.0.1:{port}/d"), "sync")
    assert "is not PostgreSQL" in line
    assert seconds < SECONDS


def test_a_server_without_tls(make: Make) -> None:
    """If sslmode requires TLS and the server has none, each command says so at once."""
    with listener(b"N") as port:
        command = make(f"postgresql://u:secret@127.0.0.1:{port}/d?sslmode=require")
        for arguments in (("status",), ("sync",), ("db", "upgrade")):
            line, seconds = _first_line(command, *arguments)
            assert "offers no TLS, which sslmode requires" in line
            assert seconds < SECONDS


def _finding(command: Command) -> str:
    (found,) = [
        one for one in command("config", "check", "--json").json if one["subject"] == "database"
    ]
    assert not found["ok"]
    assert found["exit_status"] == 4
    return str(found["text"])


def test_a_role_without_free_connections(make: Make, database_url: str) -> None:
    """A role at its CONNECTION LIMIT is reported by `status` and `config check` within seconds."""
    query(database_url, "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    try:
        command = make(database_url.replace("postgres@", "crowded@"), **SHORT)
        line, seconds = _first_line(command, "status")
        assert "has no connection left" in line
        assert "CONNECTION LIMIT" in line
        assert seconds < SECONDS
        assert "has no connection left" in _finding(command)
    finally:
        query(database_url, "DROP ROLE crowded")


def _read_only(url: str, value: str) -> None:
    with psycopg.connect(
        url, autocommit=True, options="-c default_transaction_read_only=off"
    ) as connection:
        name = connection.info.dbname
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_read_only = {value}".encode()
        )


def test_a_database_that_is_read_only(make: Make, database_url: str) -> None:
    """In a read-only database, `config check` and writing commands fail, and `status` works."""
    _read_only(database_url, "on")
    command = make(database_url, **SHORT, ORCHESTRA_ETL_WORKFLOWS='[{"id": "w"}]')
    assert "the database is read-only" in _finding(command)
    assert "the database is read-only" in _first_line(command, "track", "w", "r")[0]
    assert command("status").status == 0
    _read_only(database_url, "off")
    assert command("track", "w", "r").status == 0


def test_a_patient_unit_waits_and_logs_the_reason(database_url: str, tmp_path: Path) -> None:
    """A patient unit waits until the database is back, and logs the reason when the wait begins."""
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    admin = re.sub(r"/test_\w+", "/postgres", database_url)
    query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    back = threading.Timer(2.0, query, (admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    back.start()
    opened, impatient = Database(database_url), Database(database_url, outage_patience=0.5)
    with capture_logs() as lines:
        with pytest.raises(DatabaseUnavailable, match="does not accept connections"):
            impatient.transaction(lambda c: None)
        assert opened.transaction(lambda c: c.execute(text("SELECT 1")).scalar_one()) == 1
    back.join()
    opened.close()
    impatient.close()
    events = [line["event"] for line in lines]
    assert events == ["database_lost", "database_lost", "database_recovered"]


# One process with many threads.


def test_an_outage_is_logged_once_for_all_threads(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight failing threads together log the outage's start, one line a minute, and its end."""
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    admin = re.sub(r"/test_\w+", "/postgres", database_url)
    late, real = [0.0], time.monotonic
    monkeypatch.setattr(outage.time, "monotonic", lambda: real() + late[0])  # type: ignore[attr-defined]
    opened = Database(database_url, patience=1e6, pool_size=8)
    query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    threads = [
        threading.Thread(target=opened.transaction, args=(lambda c: None,)) for _ in range(8)
    ]
    with capture_logs() as lines:
        for thread in threads:
            thread.start()
        wait_until(lambda: opened.problem is not None)
        time.sleep(1)
        assert [line["event"] for line in lines] == ["database_lost"]
        for minute in range(1, 4):
            late[0] = minute * 61.0
            wait_until(lambda minute=minute: len(lines) == 1 + minute)  # type: ignore[misc]
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        for thread in threads:
            thread.join()
    opened.close()
    assert opened.problem is None
    assert [line["event"] for line in lines] == [
        "database_lost",
        *["database_unavailable"] * 3,
        "database_recovered",
    ]
    assert all("does not accept connections" in line["problem"] for line in lines[:-1])


def test_a_read_does_not_end_a_read_only_problem(database_url: str) -> None:
    """While the database is read-only, reads succeed, and the problem stays until a write works."""
    _read_only(database_url, "on")
    opened = Database(database_url, outage_patience=0.2)

    def write(connection: Connection) -> None:
        connection.execute(text("DELETE FROM orchestra_etl.state_map"))

    with pytest.raises(DatabaseUnavailable, match="read-only"):
        opened.transaction(write)
    opened.transaction(lambda c: c.execute(text("SELECT 1")))
    assert "read-only" in str(opened.problem)
    _read_only(database_url, "off")
    query(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'orchestra-etl'",
    )
    opened.transaction(write)
    assert opened.problem is None
    opened.close()


def test_an_intermittent_database_does_not_fill_the_log() -> None:
    """Of twenty short outages within a minute, three are logged, each with its end."""
    with capture_logs() as lines:
        found = outage.Outage()
        for _ in range(20):
            found.fail("x")
            found.recover()
    assert len(lines) == 2 * outage.MOST


# Messages of libpq.

BEFORE = 'connection failed: connection to server at "h", port 5432 failed: '


@pytest.mark.parametrize(
    ("message", "problem", "permanent"),
    [
        (
            f'{BEFORE}FATAL:  database "role "x" does not exist" does not exist',
            "the database does not exist", True,
        ),
        (
            f'{BEFORE}FATAL:  password authentication failed for user "too many connections"',
            "user or password", True,
        ),
        (f'{BEFORE}FATAL:  PAM authentication failed for user "x"', "user or password", True),
        (f"{BEFORE}fe_sendauth: no password supplied", "user or password", True),
        (f"{BEFORE}FATAL:  sorry, too many clients already", "no connection left", False),
        (
            f'{BEFORE}FATAL:  too many connections for role'
            ' "password authentication failed for user"',
            "no connection", False,
        ),
        (
            f"{BEFORE}FATAL:  remaining connection slots are reserved for roles with SUPERUSER",
            "no connection", False,
        ),
        (
            f"{BEFORE}FATAL:  no more connections allowed (max_client_conn)",
            "no connection left", False,
        ),
        (f"{BEFORE}FATAL:  the database system is starting up", "starting up", False),
        (
            f"{BEFORE}FATAL:  the database system is not yet accepting connections\nDETAIL:  x",
            "starting up", False,
        ),
        (f"{BEFORE}FATAL:  the database system is shutting down", "shutting down", False),
        (f"{BEFORE}server does not support SSL, but SSL was required", "no TLS", True),
        (
            f"{BEFORE}SSL error: certificate verify failed",
            "certificate cannot be verified", True,
        ),
        (
            f'{BEFORE}server certificate for "a" does not match host name "b"',
            "certificate cannot be verified", True,
        ),
        (
            f'{BEFORE}root certificate file "/r" does not exist',
            "root certificate's file cannot be read", True,
        ),
        (
            f'{BEFORE}could not open certificate file "/c": No such file',
            "certificate or key of this user", True,
        ),
        (
            f'{BEFORE}FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d",'
            " no encryption",
            "without TLS", True,
        ),
        (
            f'{BEFORE}FATAL:  no pg_hba.conf entry for host "::1", user "u", database "d",'
            " SSL encryption",
            "does not admit", True,
        ),
        (f"{BEFORE}session is read-only", "read-only", False),
        (f"{BEFORE}received invalid response to SSL negotiation: H", "not PostgreSQL", True),
        (f"{BEFORE}FATAL:  unsupported startup parameter: options", "refuses a parameter", True),
        (f"{BEFORE}No route to host\n\tIs the server running", "cannot be reached", False),
        (f"{BEFORE}timeout expired", "in time", False),
        ("connection timeout expired", "in time", False),
        (
            "failed to resolve host 'x': [Errno -3] Temporary failure in name resolution",
            "cannot be resolved", False,
        ),
        (
            "consuming input failed: server closed the connection unexpectedly",
            "connection to the database was lost", False,
        ),
        (
            f"{BEFORE}FATAL:  Passwort-Authentifizierung für Benutzer »x« fehlgeschlagen",
            "refuses the connection", False,
        ),
        ("connection is bad: some new complaint of libpq's", "refuses a setting", True),
        (
            "connection is bad: connection to server on socket \"/s\" failed: Unheard of",
            "was lost", False,
        ),
        # One of two servers is down and the other one refuses: the first one may become available.
        (
            f'{BEFORE}FATAL:  database "x" does not exist\n{BEFORE}Connection refused',
            "connection is refused", False,
        ),
        # One attempt with TLS and one without: the first reason counts.
        (
            f'{BEFORE}FATAL:  password authentication failed for user "u"\n'
            f'{BEFORE}FATAL:  no pg_hba.conf entry for host "h", user "u", database "d",'
            " no encryption",
            "user or password", True,
        ),
    ],
)  # fmt: skip
def test_a_connection_error_is_diagnosed(message: str, problem: str, permanent: bool) -> None:
    """The reason and its permanence are found, even if a quoted name reads like another reason."""
    found = database_diagnosis.diagnose(psycopg.OperationalError(message))
    assert problem in found.problem
    assert (found.permanent, found.unavailable) == (permanent, True)


def test_a_parameter_that_the_server_refuses_is_named(database_url: str) -> None:
    """A URL with an option that the server does not know is refused at once."""
    opened = Database(f"{database_url}&options=-c%20no_such_parameter%3D1")
    with pytest.raises(DatabaseError, match="refuses a parameter") as refused:
        opened.transaction(lambda c: None)
    assert not isinstance(refused.value, DatabaseUnavailable)
    opened.close()

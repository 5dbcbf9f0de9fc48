"""Wrong libpq settings: the error names at once the setting and the place where it is set."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from etl import conninfo, database_diagnosis
from etl.database import Database
from etl.errors import ConnectionRefused
from tests.command_line import command_line
from tests.listener import listener
from tests.support import configuration, environment, free_port


@pytest.fixture
def database_url(read_only_database_url: str) -> str:
    """Provide one database for all tests here: none of them writes."""
    return read_only_database_url


def _refused(url: str) -> str:
    """Return the error of a connection that is refused for good, without a retry."""
    opened = Database(url, patience=60)
    with pytest.raises(ConnectionRefused) as refused:
        opened.transaction(lambda c: None)
    opened.close()
    return str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGSSLMODE", "no-such"), ("PGSERVICE", "nowhere"),
        ("PGHOSTADDR", "no-such"), ("PGHOSTADDR", "127.0.0.1,127.0.0.2"),
        ("PGCHANNELBINDING", "no-such"), ("PGTARGETSESSIONATTRS", "no-such"),
        ("PGGSSENCMODE", "no-such"),
        ("PGREQUIREAUTH", "no-such"), ("PGREQUIREAUTH", "md5,md5"),
        ("PGREQUIREAUTH", "md5,!scram-sha-256"),
        ("PGSSLCERTMODE", "no-such"), ("PGSSLNEGOTIATION", "no-such"),
        ("PGSSLNEGOTIATION", "direct"),
        ("PGSSLMINPROTOCOLVERSION", "no-such"), ("PGSSLMAXPROTOCOLVERSION", "no-such"),
        ("PGLOADBALANCEHOSTS", "no-such"),
        ("PGMINPROTOCOLVERSION", "no-such"), ("PGMAXPROTOCOLVERSION", "no-such"),
        ("PGPORT", "abc"), ("PGPORT", "99999"), ("PGPORT", "1,2"),
        ("PGTZ", "nowhere"), ("PGDATESTYLE", "no-such"), ("PGGEQO", "no-such"),
        ("PGOPTIONS", "-c no_such_parameter=1"),
    ],
)  # fmt: skip
def test_a_variable_that_libpq_refuses_is_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """An error names the variable that libpq or the server rejects, without its value."""
    monkeypatch.setenv(variable, value)
    line = _refused(database_url.replace("&port=5432", ""))
    assert f"{variable} in the environment" in line
    assert value not in line.partition(variable)[2]


def test_a_variable_without_effect_prevents_no_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that the program overrides, or that libpq does not check, prevent no connection."""
    for variable in (
        "PGCONNECT_TIMEOUT",
        "PGCLIENTENCODING",
        "PGAPPNAME",
        "PGPASSFILE",
        "PGSSLROOTCERT",
        "PGKRBSRVNAME",
    ):
        monkeypatch.setenv(variable, "wrong")
    opened = Database(database_url)
    opened.transaction(lambda c: None)
    opened.close()


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("sslmode=wrong", "sslmode in DATABASE_URL is wrong"),
        ("service=nowhere", "service in DATABASE_URL is wrong"),
        ("hostaddr=wrong", "hostaddr in DATABASE_URL is wrong"),
        ("scram_client_key=secret", "scram_client_key in DATABASE_URL is wrong"),
        ("options=-c%20no_such_parameter%3D1", "check options in DATABASE_URL"),
    ],
)
def test_a_parameter_of_the_url_that_libpq_refuses_is_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch, parameter: str, words: str
) -> None:
    """An error names the URL's parameter, which overrides the environment's variable."""
    for variable in ("PGSSLMODE", "PGSERVICE", "PGHOSTADDR", "PGOPTIONS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PGSSLMODE", "prefer")
    line = _refused(f"{database_url}&{parameter}")
    assert words in line
    assert "secret" not in line


def test_a_setting_of_a_service_file_is_named(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An error about a wrong setting from a service file names that file."""
    (tmp_path / "services").write_text("[mine]\nsslmode=wrong\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "mine")
    assert "sslmode in the service file is wrong" in _refused(database_url)


def test_a_root_certificate_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error names the variable with the missing root certificate file."""
    monkeypatch.setenv("PGSSLROOTCERT", "/no/such/root.crt")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    with listener(b"S") as port:  # The server agrees to TLS.
        line = _refused(f"postgresql://u@127.0.0.1:{port}/d")
    assert (
        "the root certificate's file cannot be read: correct PGSSLROOTCERT in the environment"
        in line
    )


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "x\nconnection to server at y failed: FATAL:  password authentication failed for user z",
        "\n" + "long " * 30,
    ],
)
def test_a_name_with_a_line_break_is_reported_as_unknown(database_url: str, name: str) -> None:
    """A name with a line break and an error text is reported as an unknown database or user."""
    path = database_url.partition("@/")[2].partition("?")[0]
    line = _refused(database_url.replace(f"/{path}?", f"/{quote(name, safe='')}?"))
    assert "the database does not exist" in line
    assert "\n" not in line
    assert "does not know this user" in _refused(
        database_url.replace("postgres@", f"{quote(name, safe='')}@")
    )


def test_an_unknown_error_of_libpq_is_not_retried() -> None:
    """An unknown libpq error is permanent, unless it comes from an attempt to connect."""
    found = database_diagnosis.diagnose(psycopg.OperationalError("connection is bad: unheard of"))
    assert (found.permanent, "refuses a setting" in found.problem) == (True, True)
    assert not database_diagnosis.diagnose(
        psycopg.OperationalError("connection failed: unheard of")
    ).permanent


@pytest.mark.parametrize(
    "arguments", [("status",), ("sync",), ("db", "upgrade"), ("db", "check"), ("config", "check")]
)
def test_a_command_says_once_which_variable_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
    arguments: tuple[str, ...],
) -> None:
    """Every command exits at once with one line that names the wrong variable exactly once."""
    variables = environment(
        database_url, f"http://127.0.0.1:{free_port()}", PGSSLMODE="wrong", PGAPPNAME="x"
    )
    command = command_line(
        tmp_path, monkeypatch, capsys, configuration("w"), COLUMNS="1000", **variables
    )
    printed = command(*arguments)
    assert printed.status in (4, 5)
    line = next(
        one
        for one in (printed.err + printed.out).splitlines()
        if one.count("PGSSLMODE") and "database_lost" not in one
    )
    assert line.count("PGSSLMODE") == 1
    assert "libpq also reads" not in line
    assert "database: the database" not in line


def test_where_a_database_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address has the URL's host and port, else the environment's, and no control character."""
    monkeypatch.setenv("PGHOST", "from-env")
    monkeypatch.setenv("PGPORT", "6543")
    assert (
        conninfo.address("postgresql://u@db.example.com/d") == "PostgreSQL at db.example.com:6543"
    )
    assert conninfo.address("postgresql:///d") == "PostgreSQL at from-env:6543"
    assert conninfo.address("postgresql://u@/d?host=a%0Ab,c&port=1,2") == "PostgreSQL at a?b:1, c:2"

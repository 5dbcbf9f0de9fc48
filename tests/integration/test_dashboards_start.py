"""The start of the dashboards: its progress lines, and when it loads the demo again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from config.superset import logins, serve, shown_database
from config.superset.progress import step
from etl import privileges
from etl.admin import roles
from etl.database import Database
from etl.errors import DatabaseError
from tests.support import query

LAST_START = """
    INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
    VALUES ('r', 'w', 'succeeded', 'api', 'final', now() - CAST(%s AS interval))
"""


def test_a_step_says_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    """A step prints its name when it begins, and its duration in seconds only if it succeeds."""
    with step("loading"):
        assert capsys.readouterr().out == "loading ..."
    assert re.fullmatch(r" \d+ s\n", capsys.readouterr().out)
    with pytest.raises(ValueError, match="broken"), step("loading"):
        raise ValueError("broken")
    assert capsys.readouterr().out == "loading ...\n"


@pytest.mark.parametrize(("age", "recent"), [("2 days", True), ("4 days", False)])
def test_an_old_demo_is_loaded_again(database_url: str, age: str, recent: bool) -> None:
    """The demo is loaded again if its newest run started more than three days ago."""
    query(database_url, "INSERT INTO orchestra.workflows (id) VALUES ('w')")
    query(database_url, LAST_START, age)
    assert shown_database._has_recent_runs(database_url) is recent


def test_a_demo_without_runs_is_loaded(database_url: str, empty_database_url: str) -> None:
    """An empty database and a schema without runs both need the demo."""
    assert not shown_database._has_recent_runs(empty_database_url)
    assert not shown_database._has_recent_runs(database_url)


PROBE = logins.Login("orchestra_dashboards_probe", privileges.ANALYST, "a test")


@pytest.fixture
def url_with_roles(database_url: str) -> str:
    """Provide the URL of a database with the roles."""
    database = Database(database_url, pool_size=1)
    try:
        roles.apply(database)
    finally:
        database.close()
    return database_url


def test_prompts_need_the_view_and_its_grant(url_with_roles: str) -> None:
    """Without the view, or without its grant to payload analysts, one line names the command."""
    shown_database.check_model_calls(url_with_roles)
    query(
        url_with_roles,
        "REVOKE SELECT ON orchestra.model_calls FROM orchestra_payload_analyst",
    )
    with pytest.raises(DatabaseError, match="run `orchestra-etl db roles` first"):
        shown_database.check_model_calls(url_with_roles)
    query(url_with_roles, "DROP VIEW orchestra.model_calls CASCADE")
    with pytest.raises(DatabaseError, match=r"no view orchestra\.model_calls: run .*db upgrade"):
        shown_database.check_model_calls(url_with_roles)


def test_a_login_is_made_changed_and_dropped(url_with_roles: str) -> None:
    """A login gets the last password and a time limit; dropping it twice is no error."""
    try:
        for password in ("first", "second"):
            logins.make(url_with_roles, PROBE, password)
        [login] = query(
            url_with_roles,
            "SELECT rolcanlogin, rolsuper, rolconfig FROM pg_roles WHERE rolname = %s",
            PROBE.name,
        )
        assert (login["rolcanlogin"], login["rolsuper"]) == (True, False)
        assert {"default_transaction_read_only=on", "statement_timeout=55s"} <= set(
            login["rolconfig"]
        )
    finally:
        logins.drop(url_with_roles, PROBE)
    logins.drop(url_with_roles, PROBE)
    assert query(url_with_roles, "SELECT 1 FROM pg_roles WHERE rolname = %s", PROBE.name) == []


BROKEN = """
[redaction]
rules = [{ workflow = "*", node = "*", path = "inputs", action = "hash" }]
"""


def test_the_users_configuration_does_not_matter(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is found without the configuration file, which may need keys that are absent."""
    config = tmp_path / "etl.toml"
    config.write_text(BROKEN)
    for name in [one for one in os.environ if one.startswith(("ORCHESTRA_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ORCHESTRA_ETL_CONFIG", str(config))
    monkeypatch.setenv("ORCHESTRA_ETL_REDACTION__RULES", "neither JSON")
    shown_database._etl("rollups", "refresh", DATABASE_URL=database_url)

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(shown_database, "_check", lambda _: None)
    with shown_database.opened() as url:
        assert url == database_url


def test_the_demo_has_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the demo's own settings, its dashboards have the same folder."""
    for name in ("DATABASE_URL", "DATABASE_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCHESTRA_ETL_HOME", str(tmp_path))
    plain = serve._home()
    # What the file that the demo writes sets.
    monkeypatch.setenv("ORCHESTRA_ETL_HOME", str(tmp_path / "demo"))
    monkeypatch.setenv("DATABASE_URL", "embedded")
    assert serve._home() == plain == tmp_path / "demo" / "dashboards"

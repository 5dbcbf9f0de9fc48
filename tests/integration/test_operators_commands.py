"""`db`, `config` and `workflows`: the commands that set the program up and diagnose it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from etl.cli.commands import run
from etl.cli.db import _without_secrets
from etl.schema import head
from etl.settings import sources
from tests.command_line import Command
from tests.integration.conftest import Simulated
from tests.support import configuration, query


def test_db_upgrade_creates_the_schema_once(make: Command, empty_database_url: str) -> None:
    """`db upgrade` names both revisions, and changes nothing a second time; `db current` agrees."""
    url = empty_database_url
    assert make("db", "current", "--json", DATABASE_URL=url).json == {
        "revision": None,
        "head": head(),
        "oldest_program": None,
        "up_to_date": False,
    }
    assert (
        make("db", "upgrade", DATABASE_URL=url).out == f"the schema is upgraded: none → {head()}\n"
    )
    assert make("db", "upgrade", "--json", DATABASE_URL=url).json == {
        "from": head(),
        "to": head(),
        "rebuild": None,
    }
    assert make("db", "upgrade", DATABASE_URL=url).out == f"the schema is up to date: {head()}\n"
    assert make("db", "current", DATABASE_URL=url).out == f"{head()} (up to date)\n"


def test_db_check_finds_a_manual_change(make: Command, database_url: str) -> None:
    """`db check` passes on the program's schema, and names a column that was dropped by hand."""
    assert make("db", "check", DATABASE_URL=database_url).status == 0
    query(database_url, "ALTER TABLE orchestra.runs DROP COLUMN extra")
    printed = make("db", "check", DATABASE_URL=database_url)
    assert printed.status == 4
    assert "add_column orchestra.runs.extra" in printed.err
    assert len(printed.err.splitlines()) == 1


def test_db_check_without_a_schema(make: Command, empty_database_url: str) -> None:
    """Without a schema `db check` ends with status 4 and names `db upgrade`."""
    printed = make("db", "check", DATABASE_URL=empty_database_url)
    assert printed.status == 4
    assert "orchestra-etl db upgrade" in printed.err


def _psql(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "etl.toml").write_text("")
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "etl",
            "--config",
            str(folder / "etl.toml"),
            "db",
            "psql",
            *arguments,
        ],
        env={"DATABASE_URL": url, "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_db_psql_passes_arguments_and_status_through(tmp_path: Path, database_url: str) -> None:
    """`db psql` passes its arguments to psql on the configured database, and returns its status."""
    good = _psql(database_url, tmp_path, "-X", "-At", "-c", "SELECT count(*) FROM orchestra.runs")
    assert good.communicate(timeout=240) == ("0\n", "")
    assert good.returncode == 0
    bad = _psql(database_url, tmp_path, "-X", "-v", "ON_ERROR_STOP=1", "-c", "SELECT nonsense")
    assert "nonsense" in bad.communicate(timeout=240)[1]
    assert bad.returncode == 1


def test_db_psql_hides_the_password_from_the_process_list(
    tmp_path: Path, database_url: str
) -> None:
    """While psql runs, no process's command line contains the password."""
    url = database_url.replace("postgresql://postgres@", "postgresql://postgres:pass-word-77@")
    process = _psql(url, tmp_path, "-X", "-c", "SELECT pg_sleep(30)")
    try:
        deadline = time.monotonic() + 240
        while not query(
            database_url, "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'"
        ):
            assert time.monotonic() < deadline, "psql did not start"
            time.sleep(0.02)
        commands = subprocess.run(
            ["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True
        ).stdout
        assert "SELECT pg_sleep(30)" in commands
        assert "pass-word-77" not in commands
    finally:
        # The program that runs psql waits for it: so the statement is ended, not the program.
        query(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query = 'SELECT pg_sleep(30)'",
        )
        process.communicate(timeout=240)


def test_secrets_are_removed_from_the_connection_string() -> None:
    """The URL's password moves to PGPASSWORD, a key's pass phrase is dropped, the rest stays."""
    url = "postgresql://me:p%40ss@db.example:6432/name?sslmode=require&sslpassword=phrase"
    conninfo, environment = _without_secrets(url)
    assert environment == {"PGPASSWORD": "p@ss"}
    assert "p@ss" not in conninfo
    assert "phrase" not in conninfo
    for part in ("user=me", "host=db.example", "port=6432", "dbname=name", "sslmode=require"):
        assert part in conninfo
    assert _without_secrets("postgresql://me@h/d?password=x")[1] == {"PGPASSWORD": "x"}


@pytest.mark.parametrize("bad", ["", "..", " a", "a\nb", "é" * 257])
def test_an_id_that_cannot_be_used_is_not_tracked(
    make: Command, database_url: str, bad: str
) -> None:
    """`track` refuses an unusable workflow or run id in one line, and stores nothing."""
    for arguments in ((bad, "a-run"), ("a-workflow", "a-run", bad)):
        printed = make("track", *arguments, DATABASE_URL=database_url)
        assert (printed.status, printed.out, printed.err.count("\n")) == (2, "", 1)
    unknown = make("track", "a-workflow", "a-run", DATABASE_URL=database_url)
    assert (unknown.status, "so the API must know it: no API key" in unknown.err) == (2, True)
    assert query(database_url, "SELECT id FROM orchestra.workflows") == []
    toml = configuration("a-workflow")
    assert make("track", "a-workflow", "é" * 256, toml=toml, DATABASE_URL=database_url).status == 0
    assert query(database_url, "SELECT id FROM orchestra.workflows") == [{"id": "a-workflow"}]


def test_config_check_tests_every_part(
    make: Command, simulated: Simulated, database_url: str
) -> None:
    """If settings, API, workflows and database work, each has an ok line and the status is 0."""
    history, simulator = simulated
    toml = configuration(*history.workflow_ids[:2])
    variables = {
        "ORCHESTRA_BASE_URL": simulator.base_url,
        "ORCHESTRA_API_KEY": "the-key",
        "DATABASE_URL": database_url,
    }
    printed = make("config", "check", toml=toml, **variables)
    assert printed.status == 0
    found = make("config", "check", "--json", toml=toml, **variables).json
    assert [one["ok"] for one in found] == [True] * 5
    assert [one["subject"].split()[0] for one in found] == [
        "settings",
        "API",
        "workflow",
        "workflow",
        "database",
    ]
    assert f"the key can see {len(history.workflow_ids)} workflows" in " ".join(printed.out.split())


@pytest.mark.parametrize(
    ("change", "status", "subject", "words"),
    [
        ({"ORCHESTRA_API_KEY": "wrong-key"}, 3, "API", "401"),
        ({"ORCHESTRA_API_KEY": ""}, 2, "API", "ORCHESTRA_API_KEY"),
        (
            {"DATABASE_URL": "postgresql://nobody-there@127.0.0.1:1/x"},
            4,
            "database",
            "the connection is refused",
        ),
        ({"toml": configuration("no-such-workflow")}, 5, "workflow", "404"),
        ({"toml": ""}, 2, "settings", "no workflow is configured"),
    ],
)
def test_config_check_names_each_problem(
    make: Command,
    simulated: Simulated,
    database_url: str,
    change: dict[str, str],
    status: int,
    subject: str,
    words: str,
) -> None:
    """Each wrong part of the configuration ends with its own status and is named."""
    history, simulator = simulated
    variables = {
        "toml": configuration(history.workflow_ids[0]),
        "ORCHESTRA_BASE_URL": simulator.base_url,
        "ORCHESTRA_API_KEY": "the-key",
        "DATABASE_URL": database_url,
        **change,
    }
    printed = make("config", "check", "--json", **variables)
    assert printed.status == status
    (problem,) = [one for one in printed.json if not one["ok"]]
    assert problem["subject"].split()[0] == subject
    assert words in problem["text"]
    assert "wrong-key" not in printed.out


def test_config_check_requires_the_schema(
    make: Command, simulated: Simulated, empty_database_url: str
) -> None:
    """A missing schema is a problem that names `db upgrade`, and the check does not create it."""
    history, simulator = simulated
    printed = make(
        "config",
        "check",
        toml=configuration(history.workflow_ids[0]),
        ORCHESTRA_BASE_URL=simulator.base_url,
        ORCHESTRA_API_KEY="the-key",
        DATABASE_URL=empty_database_url,
    )
    assert printed.status == 4
    assert "orchestra-etl db upgrade" in " ".join(printed.out.split())
    assert (
        query(empty_database_url, "SELECT 1 FROM pg_namespace WHERE nspname LIKE 'orchestra%'")
        == []
    )


def test_config_init_names_the_file_that_takes_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config init` says when a new file overrides another one, or is overridden itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ORCHESTRA_ETL_CONFIG", raising=False)
    own = sources.user_file()
    assert own is not None

    def init(folder: str, *arguments: str) -> list[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        assert run(["config", "init", *arguments]) == 0
        return capsys.readouterr().out.splitlines()[1:]

    here = str(sources.WORKING_FOLDER)
    assert init("first") == []
    # The folder's own file overrides the user's.
    assert init("first", "--user") == [
        f"Without `--config {own}`, commands in this folder still use {here}."
    ]
    assert sources.config_file(None, {}) == sources.WORKING_FOLDER
    assert init("second") == [f"Commands in this folder now use {here} instead of {own}."]
    own.unlink()
    assert init("third", "--user") == []
    monkeypatch.setenv("ORCHESTRA_ETL_CONFIG", "named.toml")
    assert init("third") == []
    monkeypatch.delenv("ORCHESTRA_ETL_CONFIG")
    (tmp_path / "fourth").mkdir()
    monkeypatch.chdir(tmp_path / "fourth")
    assert run(["--config", "other.toml", "config", "init"]) == 0
    assert (
        f"Without `--config other.toml`, commands in this folder still use {own}."
        in capsys.readouterr().out
    )


def test_config_show_masks_secrets(make: Command) -> None:
    """`config show` prints the effective settings as text and JSON, without secrets."""
    variables = {
        "ORCHESTRA_API_KEY": "the-key",
        "DATABASE_URL": "postgresql://me:pass-word-77@h/d?password=other-99",
    }
    for arguments in (("config", "show"), ("config", "show", "--json")):
        printed = make(*arguments, toml=configuration("w-1"), **variables)
        assert printed.status == 0
        for secret in ("the-key", "pass-word-77", "other-99"):
            assert secret not in printed.out
    assert (
        'polling.give_up_after = "7d"'
        in make("config", "show", toml=configuration("w-1"), **variables).out
    )
    shown = make("config", "show", "--json", toml=configuration("w-1"), **variables).json
    assert shown["workflows"][0]["id"] == "w-1"


def test_workflows_prints_configuration_for_the_missing_ones(
    make: Command, simulated: Simulated
) -> None:
    """`workflows` prints TOML that configures exactly the workflows that are not configured yet."""
    history, simulator = simulated
    toml = configuration(history.workflow_ids[0], "not-visible")
    variables = {"ORCHESTRA_BASE_URL": simulator.base_url, "ORCHESTRA_API_KEY": "the-key"}
    printed = make("workflows", toml=toml, **variables)
    assert printed.status == 0
    added = tomllib.loads(printed.out[printed.out.index("# To store") :])
    names = {one["workflow_id"]: one["name"] for one in history.workflows()}
    assert added == {
        "workflows": [{"id": one, "name": names[one]} for one in history.workflow_ids[1:]]
    }
    found = {one["id"]: one for one in make("workflows", "--json", toml=toml, **variables).json}
    assert {one: (seen["configured"], seen["visible"]) for one, seen in found.items()} == {
        history.workflow_ids[0]: (True, True),
        **dict.fromkeys(history.workflow_ids[1:], (False, True)),
        "not-visible": (True, False),
    }


def test_workflows_with_a_wrong_key(make: Command, simulated: Simulated) -> None:
    """A refused key ends with status 3 and one line, without the key."""
    printed = make(
        "workflows", ORCHESTRA_BASE_URL=simulated[1].base_url, ORCHESTRA_API_KEY="wrong-key"
    )
    assert (printed.status, printed.out) == (3, "")
    assert len(printed.err.splitlines()) == 1
    assert "wrong-key" not in printed.err

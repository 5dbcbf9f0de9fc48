"""`db`, `config` and `workflows`: the commands that set things up and tell what is wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from etl.cli.commands import run
from etl.cli.db import _without_secrets
from etl.schema import head
from etl.settings import sources
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.command_line import Command, Printed, command_line
from tests.support import configuration, query

Simulated = tuple[History, Simulator]


@pytest.fixture
def simulated() -> Iterator[Simulated]:
    """A simulated API with its workflows."""
    history = History(runs_per_workflow=2, live=0, spacing=timedelta(minutes=20))
    with Simulator(history, api_key="the-key").in_thread() as simulator:
        yield history, simulator


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs one command with this configuration and these variables."""

    def run(*arguments: str, toml: str = "", **variables: str) -> Printed:
        return command_line(tmp_path, monkeypatch, capsys, toml, **variables)(*arguments)

    return run


def test_upgrade_makes_the_schema_once(make: Command, empty_database_url: str) -> None:
    """`db upgrade` says from where to where it went, and a second time that nothing was to do; `db current` tells both."""
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


def test_check_finds_what_was_changed_by_hand(make: Command, database_url: str) -> None:
    """`db check` passes on our own schema, and ends with status 4 and the name of what somebody changed behind it."""
    assert make("db", "check", DATABASE_URL=database_url).status == 0
    query(database_url, "ALTER TABLE orchestra.runs DROP COLUMN extra")
    printed = make("db", "check", DATABASE_URL=database_url)
    assert printed.status == 4
    assert "add_column orchestra.runs.extra" in printed.err
    assert len(printed.err.splitlines()) == 1


def test_check_without_a_schema(make: Command, empty_database_url: str) -> None:
    """Without a schema `db check` ends with status 4 and names the command that makes it."""
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


def test_psql_is_psqls_own(tmp_path: Path, database_url: str) -> None:
    """Arguments go to psql as they are, on the configured database, and its exit status comes back."""
    good = _psql(database_url, tmp_path, "-X", "-At", "-c", "SELECT count(*) FROM orchestra.runs")
    assert good.communicate(timeout=240) == ("0\n", "")
    assert good.returncode == 0
    bad = _psql(database_url, tmp_path, "-X", "-v", "ON_ERROR_STOP=1", "-c", "SELECT nonsense")
    assert "nonsense" in bad.communicate(timeout=240)[1]
    assert bad.returncode == 1


def test_psql_keeps_the_password_out_of_the_process_list(tmp_path: Path, database_url: str) -> None:
    """While psql runs, no process's command line holds the password; it is in psql's environment instead."""
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
        process.kill()
        process.communicate()


def test_secrets_leave_the_connection_string() -> None:
    """The password moves to PGPASSWORD wherever it stood in the URL; a key's pass phrase is left out; the rest stays."""
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
    """`track` refuses an unusable id of the workflow or of a run with status 2 and one line, and enters nothing."""
    for arguments in ((bad, "a-run"), ("a-workflow", "a-run", bad)):
        printed = make("track", *arguments, DATABASE_URL=database_url)
        assert (printed.status, printed.out, printed.err.count("\n")) == (2, "", 1)
    unknown = make("track", "a-workflow", "a-run", DATABASE_URL=database_url)
    assert (unknown.status, "so the API must know it: no API key" in unknown.err) == (2, True)
    assert query(database_url, "SELECT id FROM orchestra.workflows") == []
    toml = configuration("a-workflow")
    assert make("track", "a-workflow", "é" * 256, toml=toml, DATABASE_URL=database_url).status == 0
    assert query(database_url, "SELECT id FROM orchestra.workflows") == [{"id": "a-workflow"}]


def test_config_check_tries_everything(
    make: Command, simulated: Simulated, database_url: str
) -> None:
    """With settings, API, workflows and database in order, each gets a line that says ok, and the status is 0."""
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
    """A wrong key, no key, no database, a wrong workflow id and no workflow each end with their own status and say so."""
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


def test_config_check_wants_the_schema(
    make: Command, simulated: Simulated, empty_database_url: str
) -> None:
    """A database without our schema is a problem that names `db upgrade`, and nothing is made there by the check."""
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


def test_config_init_says_which_file_is_used_from_now_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a new file takes the place of another one, or another one goes before it, `config init` says so, and is right."""
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
    # The folder's own goes before the user's.
    assert init("first", "--user") == [
        f"Without `--config {own}`, commands in this folder still use {here}."
    ]
    assert sources.config_file(None, {}) == sources.WORKING_FOLDER
    assert init("second") == [f"Commands in this folder now use {here}, and no longer {own}."]
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
    """`config show` prints what is in force and no secret, for people and for programs."""
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


def test_workflows_prints_what_is_to_be_added(make: Command, simulated: Simulated) -> None:
    """The lines printed for workflows that are not configured are TOML that configures exactly those."""
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
    """Where the API refuses the key the command ends with status 3 and one line, which does not hold the key."""
    printed = make(
        "workflows", ORCHESTRA_BASE_URL=simulated[1].base_url, ORCHESTRA_API_KEY="wrong-key"
    )
    assert (printed.status, printed.out) == (3, "")
    assert len(printed.err.splitlines()) == 1
    assert "wrong-key" not in printed.err

"""A simulated history, and a dbt project over it that is made from the documentation."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT, fresh_database
from tests.processes import run
from tests.support import configuration, environment, load, query, sync

PAGE = (ROOT / "docs" / "how-to" / "dbt.md").read_text()
PYTHON = ROOT / ".dbt" / "venv" / "bin" / "python"
FRESH = "fresh"
"""The target of a second build, whose schema has the same name."""


def blocks(language: str) -> list[str]:
    """Return the page's code blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def named_files() -> dict[str, list[Any]]:
    """Return the YAML files of the page: the parsed blocks, by the file named before each."""
    found: dict[str, list[Any]] = {}
    name = ""
    for part in re.split(r"^(```\w+\n.*?^```)$", PAGE, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```yaml\n"):
            found.setdefault(name, []).append(yaml.safe_load(part[8:-3]))
        elif names := re.findall(r"`(\w+\.yml)`", part):
            name = names[-1]
    return found


@cache
def _server() -> subprocess.Popen[str]:
    """Start the process of `server.py`, which ends with the tests."""
    return subprocess.Popen(
        [PYTHON, Path(__file__).with_name("server.py")],
        env={"PATH": os.environ["PATH"], "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Project:
    """A dbt project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: Mapping[str, Any]) -> None:
        """Write these YAML files."""
        for name, content in files.items():
            (self.folder / name).write_text(yaml.safe_dump(content, sort_keys=False))

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Run dbt, check its exit status, and return what it prints."""
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "HISTORY_PASSWORD": "unused",
            "DBT_PROFILES_DIR": str(self.folder),
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DBT_USE_COLORS": "false",
            "NO_COLOR": "1",
        }
        with tempfile.NamedTemporaryFile("r") as output:
            command = [str(self.folder), variables, output.name, arguments]
            print(json.dumps(command), file=server.stdin, flush=True)
            found = server.stdout.readline()
            printed = output.read()
        assert found == f"{status}\n", printed
        return printed

    def artifact(self, name: str) -> Any:
        """Return a file that dbt wrote to `target`."""
        return json.loads((self.folder / "target" / name).read_text())


class World:
    """A server with two workflows, a database into which syncs load their runs, and a project."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history = folder, url, history
        self.configuration = configuration(*history.workflow_ids)
        self.variables = environment(
            url, simulator.base_url, ORCHESTRA_ETL_CONFIG=str(folder / "etl.toml")
        )
        self.project = Project(folder / "project")

    def sync(self) -> None:
        """Run one sync."""
        asyncio.run(sync(load(self.folder, self.configuration, self.variables)))

    def etl(self, *arguments: str) -> None:
        """Run a command that must succeed."""
        done = run(*arguments, variables=self.variables)
        assert done.returncode == 0, done.stderr

    def query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a statement, run as the superuser."""
        return query(self.url, sql, *parameters)


@pytest.fixture(scope="session")
def world(
    postgres_server: EmbeddedPostgres,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """Provide a loaded history that is older than the look-back, and a project built from it."""
    history = History(
        seed=7,
        workflows=2,
        runs_per_workflow=40,
        live=2,
        arrivals_per_minute=0,
        spacing=timedelta(hours=6),
        epoch=datetime.now(UTC) - timedelta(hours=3),
    )
    history.freeze(datetime.now(UTC) - timedelta(hours=3))
    with (
        fresh_database(postgres_server, template_database) as url,
        Simulator(history).in_thread() as simulator,
    ):
        world = World(tmp_path_factory.mktemp("dbt"), url, history, simulator)
        world.sync()
        world.query(
            "INSERT INTO orchestra.runs (id, workflow_id, tracking, state, status_source)"
            " VALUES ('withdrawn later', %s, 'open', 'unknown', 'derived')",
            history.workflow_ids[0],
        )
        for table in ("runs", "steps"):
            world.query(f"UPDATE orchestra.{table} SET updated_at = updated_at - interval '1 day'")
        world.etl("rollups", "refresh")
        world.etl("prices", "list")
        database = Database(url)
        roles.apply(database)
        database.close()
        for sql in blocks("sql"):
            world.query(sql)
        world.query(f"CREATE SCHEMA {FRESH} AUTHORIZATION dbt")
        _make_project(world)
        world.project("build", "--warn-error")
        yield world


def _make_project(world: World) -> None:
    """Make the page's project, whose package is installed from a repository."""
    repository = world.folder / "repository"
    shutil.copytree(ROOT / "dbt", repository / "dbt")
    files = named_files()
    [by_git, _] = files["packages.yml"]
    [package] = by_git["packages"]
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test"]
    for arguments in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "--message=package"],
        ["tag", package["revision"]],
    ):
        subprocess.run([*git, *arguments], check=True, env={**os.environ, "HOME": str(repository)})
    package["git"] = str(repository)
    [profiles] = files["profiles.yml"]
    [output] = profiles["history"]["outputs"].values()
    output |= {"dbname": urlsplit(world.url).path[1:], "port": 5432}
    [output["host"]] = parse_qs(urlsplit(world.url).query)["host"]
    profiles["history"]["outputs"][FRESH] = {**output, "schema": FRESH}
    world.project.folder.mkdir()
    world.project.write(
        {
            "dbt_project.yml": files["dbt_project.yml"][0],
            "profiles.yml": profiles,
            "packages.yml": by_git,
        }
    )
    world.project("deps")

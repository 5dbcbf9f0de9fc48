"""Two versions of the program on one database, in both orders of deployment.

The later version is a copy of this one with one more revision, which adds a column. It runs as a
separate process.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from etl import schema
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT
from tests.later_revision import LATER, add_revision
from tests.oracle import differences
from tests.processes import environment_of, run, started
from tests.support import configuration, environment, query, wait_until

ADDS_A_COLUMN = "ALTER TABLE orchestra.steps ADD COLUMN added_later text"
CONTRACTS = f"UPDATE orchestra_etl.alembic_version SET oldest_program = '{LATER}'"


Program = Callable[..., subprocess.CompletedProcess[str]]
"""A version of the program, which runs a command to its end."""


@pytest.fixture
def history() -> History:
    """Provide a workflow with 30 finished runs."""
    return History(
        seed=11, workflows=1, runs_per_workflow=30, live=0, arrivals_per_minute=0, pace=0.001
    )


@pytest.fixture
def variables(
    history: History, empty_database_url: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Provide the environment of a program: an empty database, a server, a configuration."""
    config = tmp_path / "etl.toml"
    config.write_text(
        configuration(*history.workflow_ids, more='[logs]\nlevel = "info"') + '\ninterval = "1s"'
    )
    with Simulator(history).in_thread() as simulator:
        more = {"ORCHESTRA_ETL_CONFIG": str(config), "ORCHESTRA_ETL_SERVICE__PORT": "0"}
        yield environment(empty_database_url, simulator.base_url, **more)


@pytest.fixture
def this(variables: dict[str, str]) -> Program:
    """Provide this version."""
    return partial(run, variables=variables)


def later(folder: Path, variables: Mapping[str, str], *more: str) -> Program:
    """Return the next version, whose revision also runs these statements."""
    for part in ("etl", "migrations"):
        shutil.copytree(ROOT / part, folder / part)  # with what is already compiled
    add_revision(folder / "migrations", [ADDS_A_COLUMN, *more])

    def program(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "etl", *arguments],
            cwd=folder, env=environment_of(variables), capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    return program


def _stored(url: str) -> int:
    return int(query(url, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"])


@pytest.mark.slow
def test_upgrading_the_schema_first(
    this: Program, variables: dict[str, str], history: History, tmp_path: Path
) -> None:
    """Services of this version continue while the schema is upgraded, and new ones can start."""
    url, [workflow_id] = variables["DATABASE_URL"], history.workflow_ids
    after = later(tmp_path / "later", variables)
    assert this("db", "upgrade").returncode == 0
    with started("serve", variables=variables) as serving:
        wait_until(lambda: _stored(url) == 30)
        assert after("db", "upgrade").returncode == 0
        history.add_runs(workflow_id, 5)
        wait_until(lambda: _stored(url) == 35)
        assert serving.poll() is None
    history.add_runs(workflow_id, 5)
    again = this("sync")
    assert (again.returncode, again.stderr.count("schema_mismatch_found")) == (0, 1)
    assert f"the schema ({LATER}) is newer than this program ({schema.head()})" in again.stderr
    assert "nothing to do" in this("db", "upgrade").stdout
    assert json.loads(this("db", "current", "--json").stdout)["revision"] == LATER
    assert this("db", "check").returncode == 0
    assert this("config", "check").returncode == 0
    history.add_runs(workflow_id, 5)
    newest = after("sync")
    assert (newest.returncode, "schema_mismatch_found" in newest.stderr) == (0, False)
    assert differences(url, history) == []


@pytest.mark.slow
def test_the_newest_revision_runs_while_a_service_does(
    this: Program, variables: dict[str, str], history: History
) -> None:
    """A service on the schema of 1.0 loads while the newest revision runs, and after it."""
    url, [workflow_id] = variables["DATABASE_URL"], history.workflow_ids
    schema.upgrade(url, revision="0001")
    with started("serve", variables=variables) as serving:
        wait_until(lambda: _stored(url) == 30)
        assert this("db", "upgrade").returncode == 0
        history.add_runs(workflow_id, 5)
        wait_until(lambda: _stored(url) == 35)
        assert serving.poll() is None
    assert differences(url, history) == []
    [row] = query(url, "SELECT count(prompt) AS prompts, count(*) AS n FROM orchestra.model_calls")
    assert row["prompts"] > 0


@pytest.mark.slow
def test_upgrading_the_program_first(
    this: Program, variables: dict[str, str], history: History, tmp_path: Path
) -> None:
    """The later version works with the old schema, reports it, and continues after the upgrade."""
    url, [workflow_id] = variables["DATABASE_URL"], history.workflow_ids
    after = later(tmp_path / "later", variables)
    assert this("db", "upgrade").returncode == 0
    first = after("sync")
    assert (first.returncode, first.stderr.count("run `orchestra-etl db upgrade`")) == (0, 1)
    with started("serve", variables=variables):
        history.add_runs(workflow_id, 5)
        wait_until(lambda: _stored(url) == 35)
        assert after("db", "upgrade").returncode == 0
        history.add_runs(workflow_id, 5)
        assert after("sync").returncode == 0
    assert differences(url, history) == []


@pytest.mark.slow
def test_a_schema_that_excludes_this_program(
    this: Program, variables: dict[str, str], tmp_path: Path
) -> None:
    """A schema that excludes this version ends each command with one line and no change."""
    assert later(tmp_path / "later", variables, CONTRACTS)("db", "upgrade").returncode == 0
    for command in (("sync",), ("serve",), ("status",), ("db", "upgrade"), ("db", "check")):
        done = this(*command)
        assert (done.returncode, done.stdout) == (4, "")
        assert [line.endswith("upgrade orchestra-etl") for line in done.stderr.splitlines()] == [
            True
        ]
    assert query(variables["DATABASE_URL"], "SELECT 1 AS one FROM orchestra_etl.run_ledger") == []


@pytest.mark.slow
def test_the_later_program_needs_its_own_revision(
    this: Program, variables: dict[str, str], history: History, tmp_path: Path
) -> None:
    """A version that needs a newer revision refuses an older schema in one line.

    It works once the schema is upgraded.
    """
    after = later(tmp_path / "later", variables)
    module = tmp_path / "later" / "etl" / "schema.py"
    required = f'REQUIRED_REVISION = "{schema.REQUIRED_REVISION}"'
    assert required in module.read_text()
    module.write_text(module.read_text().replace(required, f'REQUIRED_REVISION = "{LATER}"'))
    assert this("db", "upgrade").returncode == 0
    refused = after("sync")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert refused.stderr.count("run `orchestra-etl db upgrade`") == 1
    assert after("db", "upgrade").returncode == 0
    done = after("sync")
    assert (done.returncode, "schema_mismatch_found" in done.stderr) == (0, False)
    assert differences(variables["DATABASE_URL"], history) == []

"""docker-compose.yml in a real engine, as in docs/how-to/containers.md.

It needs Docker with its Compose plugin, a registry with the base images, port 8088, and Chromium.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.browser.dashboards import Superset, chromium, open_dashboard, sign_in
from tests.conftest import ROOT
from tests.support import wait_until

# The settings of docs/how-to/containers.md for a trial without a real server.
DEMO = {
    "ORCHESTRA_BASE_URL": "http://simulator:8765/api/v1/workflow",
    "ORCHESTRA_ETL_API__ALL_WORKFLOWS": "true",
}
PASSWORD_FILE = "/var/lib/orchestra-etl/dashboards/admin-password"


class Project:
    """One start of the compose file, in a copy of the committed files."""

    def __init__(self, folder: Path) -> None:
        """Copy the files and create the secrets."""
        self.folder = folder
        self._name = f"orchestra-etl-test-{secrets.token_hex(4)}"
        files = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        for file in filter(None, files.split("\0")):
            if (ROOT / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, folder / file)
        kept = folder / "secrets"
        kept.mkdir(mode=0o700)
        password = secrets.token_hex(24)
        for name, text in {
            "database_password": password,
            "database_url": f"postgresql://orchestra:{password}@database/orchestra",
            "api_key": "simulated-key",
        }.items():
            (kept / name).write_text(f"{text}\n")
            (kept / name).chmod(0o644)

    def compose(self, *arguments: str, seconds: float = 600, check: bool = True) -> str:
        """Return the output of `docker compose`.

        Raises:
            AssertionError: with all output, if the command fails.
        """
        done = subprocess.run(
            ["docker", "compose", "--project-name", self._name, "--profile", "demo", "--profile",
             "bi", *arguments],
            cwd=self.folder, env={**os.environ, **DEMO}, timeout=seconds, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def containers(self, service: str) -> Sequence[dict[str, Any]]:
        """Return the state, health and exit status of a service's containers."""
        lines = self.compose("ps", "--all", "--format", "json", service).splitlines()
        return [json.loads(line) for line in lines]

    def value(self, sql: str) -> str:
        """Return one value from the database."""
        words = ["psql", "--username", "orchestra", "--no-align", "--tuples-only", "--command", sql]
        return self.compose("exec", "--no-TTY", "database", *words).strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Start everything but the dashboards with two commands, and load the simulator's backlog."""
    project = Project(tmp_path_factory.mktemp("compose"))
    project.compose("config", "--quiet")
    project.compose("build", seconds=1800)
    try:
        project.compose("up", "--detach", "etl", "simulator")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5", check=False)


def test_the_history_is_loaded_by_an_unprivileged_service(project: Project) -> None:
    """The migration job creates the schema, and the service, healthy and not root, loads runs."""
    assert [(one["State"], one["ExitCode"]) for one in project.containers("migrate")] == [
        ("exited", 0)
    ]
    wait_until(lambda: int(project.value("SELECT count(*) FROM orchestra.runs")) > 100, seconds=60)
    assert project.compose("exec", "--no-TTY", "etl", "id", "--user").strip() == "10001"
    wait_until(
        lambda: [one["Health"] for one in project.containers("etl")] == ["healthy"], seconds=60
    )
    assert "coverage" in project.compose("exec", "--no-TTY", "etl", "orchestra-etl", "status")


def test_replicas_share_the_work(project: Project) -> None:
    """Three replicas connect to the database from three addresses, and all become healthy."""
    project.compose("up", "--detach", "--scale", "etl=3", "etl")
    addresses = (
        "SELECT count(DISTINCT client_addr) FROM pg_stat_activity"
        " WHERE application_name = 'orchestra-etl'"
    )
    wait_until(lambda: project.value(addresses) == "3", seconds=60)
    wait_until(
        lambda: [one["Health"] for one in project.containers("etl")] == ["healthy"] * 3, seconds=90
    )


def test_stopping_ends_the_service_without_a_claim(project: Project) -> None:
    """`docker compose stop` ends each process by itself with status 0 and without a claim."""
    project.compose("stop", "etl")
    assert {(one["State"], one["ExitCode"]) for one in project.containers("etl")} == {("exited", 0)}
    assert (
        project.value("SELECT count(*) FROM orchestra_etl.run_ledger WHERE leased_until > now()")
        == "0"
    )


def test_a_second_start_keeps_the_data(project: Project) -> None:
    """After `down` and `up` the volume still has the runs, and the migration job succeeds again."""
    before = int(project.value("SELECT count(*) FROM orchestra.runs"))
    project.compose("down")
    project.compose("up", "--detach", "etl", "simulator")
    assert int(project.value("SELECT count(*) FROM orchestra.runs")) >= before
    assert [one["ExitCode"] for one in project.containers("migrate")] == [0]


def test_the_dashboards_show_the_database(project: Project, tmp_path: Path) -> None:
    """With the profile `bi` a browser draws the overview with the database's runs."""
    project.compose("up", "--detach", "superset")
    assert [(one["State"], one["ExitCode"]) for one in project.containers("dashboards")] == [
        ("exited", 0)
    ]
    wait_until(
        lambda: [one["Health"] for one in project.containers("superset")] == ["healthy"],
        seconds=180,
    )
    project.compose("stop", "etl")
    project.compose("run", "--rm", "--no-TTY", "etl", "rollups", "refresh")
    (tmp_path / "admin-password").write_text(
        project.compose("exec", "--no-TTY", "superset", "cat", PASSWORD_FILE)
    )
    superset = Superset("http://127.0.0.1:8088", tmp_path, tmp_path, (), {}, "")
    with chromium() as browser:
        shown = open_dashboard(sign_in(browser, superset), superset, "overview")
        # No run is open once the backlog is loaded.
        assert [one for one in shown.errors if "No results were returned" not in one] == []
        assert shown.number("Runs").replace(",", "") == project.value(
            "SELECT count(*) FROM orchestra.runs"
        )

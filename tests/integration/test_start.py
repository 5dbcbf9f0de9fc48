"""The modules that a command imports: they take most of the time of a short command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.processes import environment_of, run
from tests.support import configuration, environment

# `main` ends with an exception, so that the list of modules is printed when the interpreter exits.
_CODE = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sys.modules))
from etl.cli import main
main()
"""


_SLOW = {"asyncio", "email"}
"""Packages of the standard library that take as long to import as a library of others."""


def _imported(
    *arguments: str, variables: dict[str, str], depth: int = 2
) -> tuple[set[str], set[str]]:
    """Return the imported packages of others or `_SLOW`, and the imported parts of this program.

    A part is a module's name up to this depth.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        env=environment_of(variables),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    modules = done.stdout.rpartition("MODULES")[2].split()
    packages = {name.partition(".")[0] for name in modules} - (sys.stdlib_module_names - _SLOW)
    # A site may import more at the start of each interpreter.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True
    )
    packages -= {name.partition(".")[0] for name in bare.stdout.split()}
    parts = {".".join(name.split(".")[:depth]) for name in modules if name.startswith("etl.")}
    return packages, parts


def test_help_imports_only_the_command_line() -> None:
    """`--help` imports neither a library that a command's work needs, nor the code of that work."""
    packages, parts = _imported("--help", variables={})
    assert packages <= {
        "annotated_doc",
        "etl",
        "msgspec",
        "shellingham",
        "typer",
        "typing_extensions",
    }
    assert not parts & {"etl.app", "etl.database", "etl.settings", "etl.logs", "etl.tables"}


def test_a_command_imports_no_other_command() -> None:
    """The help of `sync` imports only the module of `sync` and what all commands share."""
    _, parts = _imported("sync", "--help", variables={}, depth=3)
    assert {part for part in parts if part.startswith("etl.cli.")} == {
        "etl.cli.commands",
        "etl.cli.context",
        "etl.cli.display",
        "etl.cli.ids",
        "etl.cli.jobs",
        "etl.cli.times",
    }


@pytest.mark.slow
def test_a_sync_imports_only_what_it_uses(database_url: str, tmp_path: Path) -> None:
    """A `sync` with nothing new imports no optional parts of libraries, and no other commands."""
    history = History(seed=7, workflows=1, runs_per_workflow=3, live=0, arrivals_per_minute=0)
    config = tmp_path / "etl.toml"
    config.write_text(configuration(*history.workflow_ids))
    with Simulator(history).in_thread() as serving:
        variables = environment(database_url, serving.base_url, ORCHESTRA_ETL_CONFIG=str(config))
        assert run("sync", variables=variables).returncode == 0  # it looks up prices of new models
        packages, parts = _imported("sync", "--json", variables=variables)
    assert set() == packages & {
        "alembic", "apprise", "apscheduler", "click", "genai_prices", "jsonpath_rfc9535", "mako",
        "prometheus_client", "pyarrow", "pygments", "pyiceberg", "rich",
    }  # fmt: skip
    assert set() == parts & {
        "etl.admin", "etl.cron", "etl.demo", "etl.embedded", "etl.reports", "etl.service",
        "etl.simulator",
    }  # fmt: skip


def test_an_export_without_changes_imports_only_what_it_uses(
    database_url: str, tmp_path: Path
) -> None:
    """An `export run` with nothing to do loads neither the lake's libraries nor the HTTP client."""
    config = tmp_path / "etl.toml"
    config.write_text('[export]\nlocation = "lake"\n')
    variables = environment(database_url, "http://127.0.0.1:1", ORCHESTRA_ETL_CONFIG=str(config))
    assert run("export", "run", variables=variables).returncode == 0
    packages, parts = _imported("export", "run", "--json", variables=variables)
    assert not packages & {"aiohttp", "alembic", "httpx", "pyarrow", "pyiceberg"}
    assert not parts & {"etl.extract", "etl.load", "etl.pipeline"}

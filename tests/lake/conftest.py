"""A history and its lake, and engines that read the lake in an environment of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT
from tests.processes import run
from tests.support import environment

PYTHON = ROOT / ".lake" / "venv" / "bin" / "python"
TABLES = ("runs", "steps", "step_failures", "prices", "workflows", "workflow_versions")
"""The tables without payloads."""


class Lake(NamedTuple):
    """A lake, and the environment of the command that exports to it."""

    folder: str
    """The folder of the tables, or its URL."""
    variables: Mapping[str, str]
    s3: Mapping[str, str] | None = None
    """The settings of the object store."""

    def export(self, *arguments: str, status: int = 0) -> str:
        """Run a command of `export`, check its exit status, and return what it prints."""
        done = run("export", *arguments, variables=self.variables)
        assert done.returncode == status, done.stderr
        return done.stdout

    def read(
        self, engine: str, tables: Sequence[str] = TABLES, sql: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Return what an engine finds (see `engines.py`)."""
        given = {"lake": self.folder, "tables": tables, "sql": sql or {}, "s3": self.s3}
        done = subprocess.run(
            [PYTHON, "tests/lake/engines.py", engine],
            cwd=ROOT,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def lake_of(
    url: str,
    location: str,
    folder: Path,
    *,
    more: str = "",
    variables: Mapping[str, str] | None = None,
    s3: Mapping[str, str] | None = None,
) -> Lake:
    """Return a lake for this database that does not exist yet.

    Args:
        url: the database.
        location: the lake's folder or URL.
        folder: for the settings.
        more: settings in the section `export`.
        variables: more variables of the command's environment.
        s3: the settings of the object store.
    """
    settings = folder / "export.toml"
    settings.write_text(f'[export]\nlocation = "{location}"\n{more}\n')
    own = environment(url, "http://127.0.0.1:9", ORCHESTRA_ETL_CONFIG=str(settings))
    return Lake(f"{location}/orchestra", own | dict(variables or {}), s3)

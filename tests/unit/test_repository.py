"""The files for the repository's host are well formed and match the project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import ROOT

GITHUB = ROOT / ".github"
BIN = Path(sys.executable).parent
WORKFLOW: dict[str, Any] = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCHEMAS = {
    "workflows/ci.yml": "vendor.github-workflows",
    "dependabot.yml": "vendor.dependabot",
    "ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    "ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/feature.yml": "vendor.github-issue-forms",
}


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_for_the_host_follow_their_schema(name: str) -> None:
    """The host's published schema knows every field of its files."""
    # The import takes a second, which only the process that runs these tests should spend.
    from check_jsonschema import main

    done = CliRunner().invoke(main, ["--builtin-schema", SCHEMAS[name], str(GITHUB / name)])
    assert done.exit_code == 0, done.output


def test_every_file_for_the_host_is_checked() -> None:
    """Every file for the host has a schema or is checked by zizmor."""
    found = {str(path.relative_to(GITHUB)) for path in GITHUB.rglob("*.yml")}
    assert found == SCHEMAS.keys() | {"zizmor.yml"}


def test_the_workflow_is_safe() -> None:
    """zizmor finds no wide permission, kept credential or template injection; each job ends."""
    _run(BIN / "zizmor", "--offline", "--no-progress", "--quiet", GITHUB)
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in WORKFLOW["jobs"].values())


def test_the_workflow_runs_existing_targets() -> None:
    """`.ci/run` is a program, and make's targets and the caches' files exist."""
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (GITHUB / "workflows" / "ci.yml").read_text()
    commands = [
        line.split()
        for job in WORKFLOW["jobs"].values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
    ]
    assert [".ci/run"] in commands
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert {words[1] for words in commands if words[0] == "make"} <= targets
    for name in re.findall(r"[\w/-]+\.lock", text):
        assert (ROOT / name).is_file()


def test_every_named_python_is_tested() -> None:
    """The classifiers are the versions of the quick tests, from the oldest required one on."""
    prefix = "Programming Language :: Python :: 3."
    named = [
        one.removeprefix("Programming Language :: Python :: ")
        for one in PYPROJECT["project"]["classifiers"]
        if one.startswith(prefix)
    ]
    assert named == WORKFLOW["jobs"]["quick"]["strategy"]["matrix"]["python"]
    assert PYPROJECT["project"]["requires-python"] == f">={named[0]}"

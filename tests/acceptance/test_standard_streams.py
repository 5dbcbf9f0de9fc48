"""Standard streams that are closed, or files on a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def run(*arguments: str, full: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new interpreter, whose end decides the exit status."""
    with FULL.open("w") as stream:
        return subprocess.run(
            [sys.executable, "-m", "etl", *arguments],
            text=True,
            check=False,
            stdout=stream if full == "stdout" else subprocess.PIPE,
            stderr=stream if full == "stderr" else subprocess.PIPE,
        )


def test_an_error_that_cannot_be_printed_keeps_its_exit_status() -> None:
    """A wrong command line ends with status 2 if its message cannot be written."""
    assert run("nonsense", full="stderr").returncode == 2


@pytest.mark.parametrize("arguments", [("--version",), ("config", "schema"), ("--help",)])
def test_output_that_cannot_be_written_is_one_line(arguments: tuple[str, ...]) -> None:
    """A command whose output cannot be written says so, and ends with status 1."""
    done = run(*arguments, full="stdout")
    assert (done.returncode, done.stderr) == (
        1,
        "orchestra-etl: the output cannot be written: No space left on device\n",
    )


def test_json_that_cannot_be_written_is_an_error_in_json(
    read_only_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json, a command whose output cannot be written reports that as JSON."""
    monkeypatch.setenv("DATABASE_URL", read_only_database_url)
    done = run("runs", "list", "--json", full="stdout")
    assert (done.returncode, json.loads(done.stderr)) == (
        1,
        {"error": "the output cannot be written: No space left on device", "exit_status": 1},
    )


def test_completions_that_cannot_be_written_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A completion script that cannot be written ends like any other output."""
    monkeypatch.setenv("_ORCHESTRA_ETL_COMPLETE", "source_bash")
    done = run(full="stdout")
    assert done.stderr.count("\n") == 1
    assert "the output cannot be written: No space left on device" in done.stderr


def test_work_whose_notes_cannot_be_written_is_done() -> None:
    """A command whose notes cannot be written ends as it would otherwise."""
    done = run("--version", full="stderr")
    assert (done.returncode, done.stdout != "") == (0, True)


@pytest.mark.slow
def test_closed_streams_change_no_status(home: Path) -> None:
    """A command whose parent has closed all standard streams can start the embedded server.

    Otherwise the next files that it opens become the standard streams of PostgreSQL's programs.
    """
    closing = (
        "import os, sys; os.closerange(0, 3);"
        " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", closing, "-m", "etl", "runs", "list"]
    variables = {**os.environ, "DATABASE_URL": "embedded", "ORCHESTRA_ETL_HOME": str(home)}
    assert subprocess.run(command, env=variables, check=False).returncode == 0

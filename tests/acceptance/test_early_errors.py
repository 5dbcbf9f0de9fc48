"""Errors before logging is set up: one line, no traceback, and never a secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run

CANARY = "canary-7d1f"
SECRETS = {
    "ORCHESTRA_API_KEY": f"key-{CANARY}",
    "DATABASE_URL": f"postgresql://etl:password-{CANARY}@db.invalid/history",
    # Some locales accept bytes that are not UTF-8.
    "PYTHONIOENCODING": "utf-8",
}
DEEP = "[" * 3000


def _one_line(done: subprocess.CompletedProcess[str], status: int, words: str) -> None:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), (
        done.stdout + done.stderr
    )
    assert words in done.stderr
    assert CANARY not in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ORCHESTRA_ETL_CONFIG", "~nosuchuser/etl.toml",
         "ORCHESTRA_ETL_CONFIG: ~nosuchuser stands for no home"),
        ("ORCHESTRA_REDACTION_KEY_FILE", "~nosuchuser/key",
         "ORCHESTRA_REDACTION_KEY_FILE: ~nosuchuser stands for no home"),
        ("ORCHESTRA_ETL_WORKFLOWS", DEEP, "ORCHESTRA_ETL_WORKFLOWS: must be a JSON list"),
        ("ORCHESTRA_ETL_REDACTION__RULES", DEEP,
         "ORCHESTRA_ETL_REDACTION__RULES: must be a JSON list"),
    ],
)  # fmt: skip
def test_a_bad_variable_is_one_line_without_secrets(variable: str, value: str, words: str) -> None:
    """An unreadable variable exits with 2 and one line with its name, without any secret."""
    _one_line(run("status", variables={**SECRETS, variable: value}), 2, words)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            '[database]\nurl_file = "~nosuchuser/url"',
            "database.url_file: ~nosuchuser stands for no home",
        ),
        (f"deep = {DEEP}", "nested too deeply"),
        (f"long = {'9' * 5000}", "nested too deeply"),
    ],
)
def test_a_bad_file_is_one_line_without_secrets(tmp_path: Path, toml: str, words: str) -> None:
    """An unreadable file exits with 2 and one line with its name, without any secret."""
    config = tmp_path / "etl.toml"
    config.write_text(toml)
    _one_line(run("--config", str(config), "status", variables=SECRETS), 2, words)


def test_an_unknown_home_is_one_line() -> None:
    """An embedded database in the home of an unknown user exits with 2 and names the variable."""
    variables = {**SECRETS, "DATABASE_URL": "embedded", "ORCHESTRA_ETL_HOME": "~nosuchuser/data"}
    _one_line(run("db", "current", variables=variables), 2, "ORCHESTRA_ETL_HOME")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"run_id": ' + DEEP.encode(), "starts like JSON, but is not valid JSON"),
        (b"run-\xff", "not UTF-8"),
        (b"Workflow execution started", "neither an id nor a response"),
    ],
)
def test_bad_input_of_track_is_one_line(line: bytes, words: str) -> None:
    """Deeply nested JSON, invalid UTF-8 and prose end `track w -` with 2 and one line."""
    _one_line(run("track", "w", "-", variables=SECRETS, input=line), 2, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("runs", "search", "--workflow=", "refund"),
            "'--workflow' / '-w': must not be empty",
        ),
        (("sync", "--workflow", " "), "'--workflow' / '-w': must not be empty"),
        (("runs", "show", ""), "'RUN': must not be empty"),
        (("erase", "--run", "a", "--run", ""), "'--run': must not be empty"),
        (("status", "--max-age", "0s"), "--max-age must be longer than zero"),
        (("status", "--max-age", "soon"), "--max-age is not a valid duration: write a number"),
        (("simulate", "--epoch", "yesterday"), "--epoch: 'yesterday' is not a time: write"),
        (("simulate", "--epoch", "1e3"), "--epoch: '1e3' is not a time: write"),
    ],
)
def test_a_bad_argument_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    """An empty id, as from an unset variable, and a bad duration or time exit with 2 and say why.

    Without this, `runs search --workflow "$UNSET"` would search all workflows.
    """
    _one_line(run(*arguments, variables=SECRETS), 2, words)


_DEFECT = """
import sys
from etl.cli import commands
from etl.settings import sources

def defect(environment, *rest):
    secret = dict(environment)
    raise RuntimeError(secret)

sources.config_file = lambda config, environment: defect(environment)
sys.exit(commands.run(["status"]))
"""


def test_a_defect_before_the_settings_are_read_shows_no_secret() -> None:
    """An unexpected error before the settings are read prints its type and no secret.

    The line does not offer a traceback at log level debug.
    """
    variables = {**SECRETS, "ORCHESTRA_ETL_LOGS__LEVEL": "debug"}
    done = subprocess.run(
        [sys.executable, "-c", _DEFECT],
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    _one_line(done, 1, "unexpected RuntimeError before the settings were read")
    assert "LEVEL=debug" not in done.stderr


def test_ctrl_c_during_the_start_is_silent() -> None:
    """An interrupt while the program is imported ends it with status 130, without a traceback."""
    code = """
import sys

class Interrupted:
    def find_spec(self, name, *others):
        if name == "etl.cli.commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from etl.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

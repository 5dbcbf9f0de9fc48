"""The texts of `--help` on a terminal of 80 columns, and the meanings of the exit statuses."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command, get_group

from etl.cli import commands
from etl.cli.commands import app, run
from etl.exit_status import ExitStatus
from tests.conftest import ROOT

# Commands without a result to print as JSON.
WITHOUT_JSON = {"serve", "simulate", "demo", "db psql", "config schema"}


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


COMMANDS = dict(_commands(get_command(app)))
VALUES = [
    (path, parameter)
    for path, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and not parameter.name.endswith("_completion")
]
PARTS = sorted(set(commands._MODULES.values()))
LEAVES = [path for path, command in COMMANDS.items() if not hasattr(command, "commands")]


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Provide a function that returns a command's help on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def shown(*path: str) -> str:
        assert run([*path, "--help"]) == 0
        return capsys.readouterr().out

    return shown


@pytest.mark.parametrize("part", PARTS)
def test_each_module_registers_the_commands_that_import_it(part: str) -> None:
    """A registered command that no name leads to could not be called."""
    registered = typer.Typer()
    importlib.import_module(f"etl.cli.{part}").register(registered)
    assert set(get_group(registered).commands) == {
        name for name, module in commands._MODULES.items() if module == part
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_cuts_nothing_off(path: tuple[str, ...], help_of: Any) -> None:
    """No line is longer, no listed command ends with "...", and no Python type appears."""
    text = help_of(*path)
    assert max(map(len, text.splitlines())) <= 80
    commands = text.partition("\nCommands:\n")[2].partition("\n\n")[0]
    assert not re.search(r"(\.\.\.|…)$", commands, re.MULTILINE)
    assert not re.search(r"<[a-z\[]|\bTEXT\b|INTEGER", text)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_begins_with_one_short_sentence(path: tuple[str, ...], help_of: Any) -> None:
    """The first paragraph is one sentence on one line, so that it fits a list of commands."""
    first = help_of(*path).split("\n\n")[1]
    assert re.fullmatch(r"  [A-Z][^.]*\.", first), first


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_that_reports_has_json(path: tuple[str, ...], help_of: Any) -> None:
    """Only commands without a result have no `--json`."""
    assert ("--json" in help_of(*path)) == (" ".join(path) not in WITHOUT_JSON)


@pytest.mark.parametrize(
    ("path", "parameter"), VALUES, ids=[f"{' '.join(path)} {one.name}" for path, one in VALUES]
)
@pytest.mark.parametrize("value", ["", " "])
def test_no_value_may_be_empty(
    path: tuple[str, ...],
    parameter: Any,
    value: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every option and argument refuses an empty value, as of an unset variable, by its name."""
    if parameter.param_type_name == "option":
        name, words = parameter.opts[0], [f"{parameter.opts[0]}={value}"]
    else:
        arguments = [one for one in COMMANDS[path].params if one.param_type_name == "argument"]
        name, words = parameter.metavar, ["1"] * arguments.index(parameter) + [value]
    command = commands._command()
    for one in path:
        command = command.commands[one]
    monkeypatch.setattr(command, "callback", lambda **given: 0)
    assert run([*path, *words]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert re.search(rf"'{re.escape(name)}'.*: must not be empty \(", printed.err), printed.err


def test_the_examples_are_commands_that_exist() -> None:
    """Each example in a help text names an existing command with existing options."""
    found = 0
    for command in COMMANDS.values():
        for line in re.findall(r"^  orchestra-etl (.+)$", command.epilog or "", re.MULTILINE):
            words = re.sub(r"^--config \S+ ", "", line).split()
            path = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
            options = {name for one in COMMANDS[path].params for name in one.opts}
            if path != ("db", "psql"):
                assert {word for word in words if word.startswith("-")} <= options, line
            found += 1
    assert found >= 20


def test_help_lists_every_exit_status(help_of: Any) -> None:
    """`--help` and the runbook's table list the code's statuses with the same meanings."""
    statuses = {status.value: status.meaning for status in ExitStatus}
    shown = re.findall(r"^ +(\d+)  (\S.*)$", help_of(), re.MULTILINE)
    assert {int(number): meaning for number, meaning in shown} == statuses
    runbook = (ROOT / "docs" / "how-to" / "operations.md").read_text()
    table = re.findall(r"^\| \[(\d+)\]\(#\1\) \| (.+) \|$", runbook, re.MULTILINE)
    assert {int(number): meaning for number, meaning in table} == statuses


def test_an_error_with_json_is_one_object_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With `--json` every error is one object on standard error; standard output stays empty.

    This holds for the command line, the settings and all other errors.
    """
    for words in (
        ("status", "--json", "--no-such-option"),
        ("--config", "/no/such/file\x1b[2J", "status", "--json"),
        ("runs", "list", "--json", "--state", "no such state"),
    ):
        status = run(words)
        printed = capsys.readouterr()
        error = json.loads(printed.err)
        assert (status, printed.out, printed.err.count("\n")) == (2, "", 1)
        assert (error["exit_status"], set(error)) == (2, {"error", "exit_status"})
        assert "\x1b" not in printed.err


def test_a_shell_completes_commands_and_options() -> None:
    """bash completion gives names; fish completion gives names with their help after a tab."""
    program = [sys.executable, "-c", "from etl.cli import main; main()"]

    def completed(**variables: str) -> str:
        environment = {"PATH": os.defpath, **variables}
        return subprocess.run(program, env=environment, capture_output=True, text=True).stdout

    bash = {"_ORCHESTRA_ETL_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    assert completed(**bash, COMP_WORDS="orchestra-etl runs s") == "show\nsearch\n"
    fish = {"_ORCHESTRA_ETL_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    [line] = completed(**fish, _TYPER_COMPLETE_ARGS="orchestra-etl backf").splitlines()
    assert line.startswith("backfill\tWalk the whole run list")

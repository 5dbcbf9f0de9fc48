"""What a person sees on a terminal of 80 columns."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.processes import started_on
from tests.support import configuration, environment, load, query, sync

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LOGGED = re.compile(r"\d{4}-\d\d-\d\dT[^ ]+ \[")
KEY = "0123456789abcdef" * 2
MASKING = '[[redaction.rules]]\npath = "$.user_id"\naction = "mask"\n'


class World:
    """Two workflows with a loaded history, a run that could not be loaded, and a masked user."""

    def __init__(self, folder: Path, url: str, history: History, base_url: str) -> None:
        self.folder, self.url, self.history = folder, url, history
        self.config = folder / "etl.toml"
        self.config.write_text(configuration(*history.workflow_ids, more=MASKING))
        self.variables = environment(
            url, base_url, ORCHESTRA_REDACTION_KEY=KEY, ORCHESTRA_ETL_CONFIG=str(self.config)
        )

    def shown(self, *arguments: str, status: int = 0, **variables: str) -> list[str]:
        """Run the command on a terminal of 80 columns, and return the lines that it shows."""
        return on_a_terminal(*arguments, variables={**self.variables, **variables}, status=status)


def on_a_terminal(*arguments: str, variables: Mapping[str, str], status: int) -> list[str]:
    """Run the command on a terminal of 80 columns, and return the lines that it shows."""
    terminal, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    text = b""
    with started_on(other_end, *arguments, variables={**variables, "TERM": "xterm"}) as process:
        os.close(other_end)
        try:
            while found := os.read(terminal, 65536):
                text += found
        except OSError:
            pass  # Linux reports the end of a terminal as an error.
        finally:
            os.close(terminal)
        lines = ESCAPES.sub("", text.decode()).splitlines()
        assert process.wait(60) == status, lines
    return [line for line in lines if line.strip()]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """Provide the loaded history."""
    history = History(seed=7, workflows=2, runs_per_workflow=4, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        made = World(tmp_path, database_url, history, simulator.base_url)
        asyncio.run(sync(load(tmp_path, made.config.read_text(), made.variables)))
        query(
            database_url,
            "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
            " content_hash, body) SELECT workflow_id, run_id, 'rejected', repeat('why ', 50), '',"
            " '[]' FROM orchestra_etl.run_ledger LIMIT 1",
        )
        yield made


def _badly_broken(lines: list[str]) -> list[str]:
    """Return the lines that are too long and could be shorter, or that break inside a command.

    Lines of the log are left out.
    """
    return [
        line
        for line in lines
        if ((len(line) > 80 and " " in line.strip()) or line.count("`") % 2)
        and not LOGGED.match(line)
    ]


@pytest.mark.slow
def test_every_line_for_people_fits(world: World) -> None:
    """Results and errors are wrapped between words, for every command."""
    [first, second] = world.history.workflow_ids
    run = world.history.run_ids(first)[0]
    commands: list[tuple[int, tuple[str, ...]]] = [
        (0, ("db", "roles")),
        (0, ("db", "current")),
        (0, ("db", "check")),
        (0, ("config", "check")),
        (0, ("workflows",)),
        (0, ("status",)),
        (0, ("runs", "list")),
        (0, ("runs", "show", run)),
        (0, ("runs", "search", "e", "--since", "2000-01-01")),
        (0, ("dead-letters", "list")),
        (0, ("gaps", "list")),
        (0, ("prices", "list")),
        (0, ("rollups", "verify")),
        (0, ("rollups", "refresh")),
        (0, ("rebuild",)),
        (0, ("redact", "preview", run)),
        (0, ("redact", "apply")),
        (0, ("prune", "--runs-older-than", "1h")),
        (2, ("prune",)),
        (2, ("erase",)),
        (9, ("erase", "--user", "somebody")),
        (6, ("track", second, run)),
        (2, ("sync", "--workflow", "no such workflow")),
        (2, ("runs", "list", "--state", "no such state")),
        (2, ("config", "init")),
        (0, ("sync",)),
        (0, ("backfill",)),
    ]
    broken = {}
    for status, words in commands:
        lines = world.shown(*words, status=status)
        assert lines, words
        broken[words] = _badly_broken(lines)
    assert {words: lines for words, lines in broken.items() if lines} == {}
    for name, value, words in (
        ("ORCHESTRA_REDACTION_KEY", "", ("sync",)),
        ("ORCHESTRA_REDACTION_KEY", "short", ("status",)),
        ("DATABASE_URL", "postgresql://127.0.0.1:9/x", ("status",)),
    ):
        lines = on_a_terminal(
            *words, variables={**world.variables, name: value}, status=4 if name[0] == "D" else 2
        )
        assert _badly_broken(lines) == [], words
    new = str(world.folder / "new.toml")
    lines = on_a_terminal("--config", new, "config", "init", variables={}, status=0)
    # The file's name may be too long for a line.
    assert [line for line in lines if len(line) > 80 and " " in line.strip()] == []
    assert any("`orchestra-etl workflows`" in line for line in lines)


def test_a_pass_shows_its_summary_alone(world: World) -> None:
    """On a terminal, no event repeats the summary, unless the settings name the log's format."""
    [workflow, _] = world.history.workflow_ids
    world.history.unlist(world.history.run_ids(workflow)[0])
    world.history.add_runs(workflow, 3)
    summary = world.shown("sync")
    assert any(line.startswith("2 lists with 3 new runs; read 3 runs") for line in summary)
    assert [line for line in summary if LOGGED.match(line)] == []
    for format, event in (("console", "sync_finished "), ("json", '"event": "sync_finished"')):
        lines = world.shown("sync", ORCHESTRA_ETL_LOGS__FORMAT=format)
        assert [line for line in lines if event in line]

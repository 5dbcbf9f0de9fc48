"""`rollups`: its output and exit statuses, and the other commands that update the rollups."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from etl.analytics import changed_groups
from etl.database import Database
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.command_line import Command, Printed, command_line
from tests.rollup_oracle import counted_rows, stored
from tests.support import configuration, environment, query


@pytest.fixture
def command(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Command]:
    """Provide the command with a server of ten runs, one a day, none of them loaded."""
    history = History(
        seed=5, workflows=1, runs_per_workflow=10, live=0, arrivals_per_minute=0, failure_rate=0.9,
        spacing=timedelta(days=1),
    )  # fmt: skip
    with Simulator(history).in_thread() as simulator:
        variables = environment(database_url, simulator.base_url)
        yield command_line(
            tmp_path, monkeypatch, capsys, configuration(*history.workflow_ids), **variables
        )


def test_a_refresh_is_reported(command: Command, database_url: str) -> None:
    """`rollups refresh` reports what it computed; `--all` computes all groups again."""
    command("rollups", "refresh")
    query(
        database_url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking)"
        " VALUES ('r', 'w', 'failed', 'api', 'final')",
    )
    assert command("rollups", "refresh").out == "1 group computed with 1 row and 0 failures\n"
    assert command("rollups", "refresh").out == "0 groups computed with 0 rows and 0 failures\n"
    assert command("rollups", "refresh", "--all", "--json").json == {
        "groups": 1, "rows": 1, "failures": 0, "waiting": 0, "stuck": 0, "busy": False,
    }  # fmt: skip


@pytest.mark.slow
def test_runs_are_counted_during_a_long_sync(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While a `sync` still waits for one run, the hours of the others are counted already."""
    monkeypatch.setattr("etl.cli.jobs.REFRESH", 0.1)
    history = History(
        seed=5,
        workflows=1,
        runs_per_workflow=10,
        live=0,
        arrivals_per_minute=0,
        spacing=timedelta(days=1),
    )
    slow = history.run_ids(history.workflow_ids[0])[0]
    counted: list[int] = []

    def watch() -> None:
        while not counted:
            [row] = query(
                database_url,
                "SELECT (SELECT count(*) FROM orchestra.run_rollup) AS hours,"
                " (SELECT count(*) FROM orchestra.runs WHERE id = %s) AS slow",
                slow,
            )
            if row["hours"]:
                counted.append(row["slow"])

    with Simulator(history).in_thread() as simulator:
        # Long enough for a refresh beside a busy neighbour.
        simulator.misbehave(Misbehaviour(run_id=slow, endpoints=("steps",), delay=6.0))
        variables = environment(database_url, simulator.base_url)
        command = command_line(
            tmp_path, monkeypatch, capsys, configuration(*history.workflow_ids), **variables
        )
        watching = threading.Thread(target=watch)
        watching.start()
        assert command("sync").status == 0
        watching.join(10)
    assert counted == [0]
    assert command("rollups", "verify").status == 0


def test_a_refresh_beside_another_one(command: Command, database_url: str) -> None:
    """While another process refreshes, `rollups refresh` says so and exits with 0."""
    other = Database(database_url)

    def refresh_beside(connection: Connection) -> Printed:
        assert changed_groups.try_lock(connection)
        return command("rollups", "refresh")

    printed = other.transaction(refresh_beside)
    other.close()
    assert (printed.status, "another process is refreshing" in printed.out) == (0, True)


def test_a_difference_is_reported(command: Command, database_url: str) -> None:
    """`rollups verify` exits with 8 if rollups differ, with the groups and the repair command.

    Otherwise it exits with 0.
    """
    assert command("sync").status == 0
    printed = command("rollups", "verify")
    assert (printed.status, printed.out) == (0, "the rollups match the steps\n")
    query(database_url, "UPDATE orchestra.run_rollup SET failed = failed + 1")
    printed = command("rollups", "verify")
    assert printed.status == 8
    assert "orchestra-etl rollups refresh --all" in printed.out
    assert printed.out.count("run_rollup\n") == 10
    found = command("rollups", "verify", "--json")
    assert (found.status, [one["what"] for one in found.json["differences"]]) == (
        8,
        ["run_rollup"] * 10,
    )
    assert command("rollups", "refresh", "--all").status == 0
    nothing = {"differences": [], "stuck": [], "waiting": 0, "overdue": 0, "failure": None}
    assert command("rollups", "verify", "--json").json == nothing


def test_verify_reports_groups_that_it_cannot_compare(command: Command, database_url: str) -> None:
    """`rollups verify` reports waiting groups, and fails once they have waited for ten minutes.

    It reports a group that cannot be computed with its cause at once.
    """
    command("sync")
    queue = (
        "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour, queued_at, failed_at,"
        " cause) VALUES"
    )
    query(database_url, f"{queue} ('w', '2026-03-01 10:00Z', now(), NULL, NULL)")
    printed = command("rollups", "verify")
    assert (printed.status, printed.out) == (
        0,
        "1 change not counted yet, and not compared\n",
    )
    query(
        database_url,
        "UPDATE orchestra_etl.changed_groups SET queued_at = now() - interval '1 hour'",
    )
    printed = command("rollups", "verify")
    assert (printed.status, "more than ten minutes" in printed.out) == (8, True)
    query(database_url, "DELETE FROM orchestra_etl.changed_groups")
    query(database_url, f"{queue} (E'w\u001b[2J', '2026-03-01 10:00Z', now(), now(), '22003')")
    printed = command("rollups", "verify")
    assert (printed.status, "\x1b" in printed.out) == (8, False)
    assert "1 group cannot be computed" in printed.out
    assert "2026-03-01 10:00:00  SQLSTATE 22003\n" in printed.out
    query(
        database_url,
        "UPDATE orchestra_etl.changed_groups SET workflow_id = (SELECT id"
        " FROM orchestra.workflows)",
    )
    [workflow] = command("status", "--json").json["workflows"]
    assert [one["text"] for one in workflow["reasons"]] == [
        "hours that cannot be counted: 1 (`orchestra-etl rollups verify`)"
    ]


def test_other_commands_update_the_rollups(command: Command, database_url: str) -> None:
    """`sync` and `backfill` count what they load; `erase` and `prune` need no further command."""
    command("sync")
    loaded = stored(database_url)
    assert loaded == counted_rows(database_url)
    assert loaded.failures != {}
    query(database_url, "UPDATE orchestra.steps SET content_hash = 'x', state = 'unknown'")
    command("rollups", "refresh")
    assert stored(database_url) != loaded
    assert command("backfill", "--reread").status == 0
    assert stored(database_url) == loaded
    # `prune` counts first, because removed runs can no longer be counted.
    _uncount(database_url)
    assert command("prune", "--yes", "--runs-older-than", "123h").status == 0
    assert query(database_url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": 5}]
    pruned = stored(database_url)
    assert (pruned.hours, pruned.days, pruned.runs) == (loaded.hours, loaded.days, loaded.runs)
    assert 0 < len(pruned.failures) < len(loaded.failures)
    (run_id,) = (
        row["id"]
        for row in query(
            database_url, "SELECT id FROM orchestra.runs ORDER BY start_time DESC LIMIT 1"
        )
    )
    erased = command("erase", "--run", run_id, "--yes")
    assert erased.status == 0, erased.err
    after = stored(database_url)
    assert after.runs.keys() < loaded.runs.keys()
    assert command("rollups", "verify").status == 0


def _uncount(url: str) -> None:
    query(url, "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)"
               " SELECT workflow_id, hour FROM orchestra.step_rollup")  # fmt: skip
    query(url, "DELETE FROM orchestra.step_rollup")


def test_prune_waits_until_all_is_counted(command: Command, database_url: str) -> None:
    """`prune` waits for a refresh of another process, so that all removed runs are counted."""
    command("sync")
    loaded = stored(database_url)
    _uncount(database_url)
    other = Database(database_url)
    locked, ended = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        changed_groups.try_lock(connection)
        locked.set()
        ended.wait(1.0)

    holder = threading.Thread(target=other.transaction, args=(hold,))
    holder.start()
    locked.wait()
    assert command("prune", "--yes", "--runs-older-than", "123h").status == 0
    ended.set()
    holder.join()
    other.close()
    assert query(database_url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": 5}]
    assert stored(database_url).hours == loaded.hours


def test_a_prune_stopped_before_all_is_counted_removes_nothing(
    command: Command, database_url: str
) -> None:
    """A signal during the refresh ends `prune` before the horizon moves."""
    command("sync")
    _uncount(database_url)
    other = Database(database_url)

    def prune(connection: Connection) -> Printed:
        changed_groups.try_lock(connection)
        signaller = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
        signaller.start()
        return command("prune", "--yes", "--runs-older-than", "123h")

    assert other.transaction(prune).status == 143
    other.close()
    assert query(database_url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": 10}]
    assert query(
        database_url,
        "SELECT count(*) AS n FROM orchestra_etl.retention WHERE run_horizon IS NOT NULL",
    ) == [{"n": 0}]

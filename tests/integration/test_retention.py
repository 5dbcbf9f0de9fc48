"""Retention removes old data, keeps young and open runs, and never lets old data return."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.admin import expired, removal, retention
from etl.admin.erase import Selection, erase
from etl.analytics import rollups
from etl.database import Database
from etl.errors import ConfigurationError
from etl.ledger import clock, dead_letters, listed_pages, sweeps
from etl.ledger.dead_letters import DeadLetter
from etl.records import Rejected
from etl.simulator.history import History
from etl.simulator.server import Simulator
from etl.transform.runs import decode_page
from tests.command_line import command_line
from tests.support import configuration, environment, load, query, sync, writes

DAY = 86400.0


class World:
    """A server with ten runs, one a day, a database, syncs and prunes."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.workflow = history.workflow_ids[0]
        self.variables = environment(url, simulator.base_url)
        self.database = Database(url, patience=5)

    def sync(self, **more: str) -> Any:
        """Run one sync."""
        return asyncio.run(
            sync(load(self.folder, configuration(self.workflow), {**self.variables, **more}))
        )

    def prune(
        self, *, payloads: float | None = None, runs: float | None = None, **more: Any
    ) -> retention.PruneReport:
        """Prune by these ages, in days."""
        wanted = self.database.transaction(
            lambda c: expired.horizons(
                c, payloads=payloads and payloads * DAY, runs=runs and runs * DAY
            )
        )
        return retention.prune(self.database, wanted, **more)

    def tracking(self) -> dict[str, int]:
        """Return the number of runs by tracking."""
        rows = query(
            self.url,
            "SELECT tracking, count(*) AS n FROM orchestra_etl.run_ledger GROUP BY tracking",
        )
        return {row["tracking"]: row["n"] for row in rows}

    def with_payloads(self) -> set[str]:
        """Return the runs that have a value in any payload column of any table."""
        found: set[str] = set()
        for table, columns in removal.RUN_PAYLOADS.items():
            key = {"runs": "id", "steps": "run_id", "run_payloads": "run_id"}.get(table.name)
            run = key or "(SELECT run_id FROM orchestra.steps WHERE id = step_id)"
            filled = " OR ".join(f"{column} IS NOT NULL" for column in columns)
            found |= {
                row["run"]
                for row in query(
                    self.url, f"SELECT {run} AS run FROM {table.fullname} WHERE {filled}"
                )
            }
        return found


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide ten finished runs, one a day, none of them loaded."""
    # Number n, counted from the newest at 0, ended n + 0.2 to n + 1 days ago.
    history = History(
        seed=5,
        workflows=1,
        runs_per_workflow=10,
        live=0,
        arrivals_per_minute=0,
        spacing=timedelta(days=1),
    )
    with Simulator(history).in_thread() as simulator:
        made = World(tmp_path, database_url, history, simulator)
        yield made
        made.database.close()


def test_pruning_payloads_keeps_metrics(world: World) -> None:
    """Pruning empties the payload columns of old runs, notes it, and changes nothing else."""
    world.sync()
    young = set(world.history.run_ids(world.workflow)[:5])
    old = set(world.history.run_ids(world.workflow)) - young
    columns = (
        "id, run_id, status, start_time, duration_ms, total_tokens, error, content_hash, updated_at"
    )
    before = query(world.url, f"SELECT {columns} FROM orchestra.steps ORDER BY id")
    assert world.with_payloads() == young | old
    done = world.prune(payloads=5.1, batch=2)
    assert (done.runs, done.runs_without_payloads) == (0, 5)
    assert world.with_payloads() == young
    assert query(world.url, f"SELECT {columns} FROM orchestra.steps ORDER BY id") == before
    notes = query(
        world.url,
        "SELECT DISTINCT note, size_bytes > 0 AS sized FROM orchestra.outputs"
        " JOIN orchestra.steps s ON s.id = step_id WHERE s.run_id = ANY (%s)",
        list(old),
    )
    assert notes == [{"note": "pruned", "sized": True}]
    assert world.prune(payloads=5.1).runs_without_payloads == 0


def test_pruned_payloads_do_not_return(world: World) -> None:
    """Pruned payloads do not return when their run is read again.

    A pruned run is not written again. An old run that is loaded for the first time is stored
    without payloads.
    """
    world.sync()
    world.prune(payloads=5.1)
    world.database.close()
    before = writes(world.url)
    query(world.url, "UPDATE orchestra_etl.run_ledger SET tracking = 'open', due_at = now()")
    assert world.sync().load.runs == 10
    assert writes(world.url) == before
    young = set(world.history.run_ids(world.workflow)[:5])
    query(world.url, "TRUNCATE orchestra.runs CASCADE")
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'open', due_at = now(),"
        " steps_observed_at = NULL, run_observed_at = NULL, listing_hash = NULL",
    )
    world.sync(ORCHESTRA_ETL_POLLING__RECONCILE="1ms")
    assert query(world.url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": 10}]
    assert world.with_payloads() == young
    notes = query(world.url, "SELECT DISTINCT note FROM orchestra.run_payloads")
    assert {row["note"] for row in notes} == {None, "inputs: pruned; outputs: pruned"}
    assert world.prune(payloads=5.1).runs_without_payloads == 0


def test_old_runs_are_removed_and_open_ones_stay(world: World) -> None:
    """Old runs become tombstones, which analysts see beside erased runs.

    An open run stays, however old it is.
    """
    world.sync()
    ids = world.history.run_ids(world.workflow)
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'open' WHERE run_id = %s",
        ids[-1],
    )
    done = world.prune(runs=5.1, batch=2)
    assert (done.runs, world.tracking()) == (4, {"final": 5, "open": 1, "pruned": 4})
    kept = {row["id"] for row in query(world.url, "SELECT id FROM orchestra.runs")}
    assert kept == {*ids[:5], ids[-1]}
    tombs = query(world.url, "SELECT * FROM orchestra_etl.run_ledger WHERE tracking = 'pruned'")
    assert all(
        row["start_time"] and row["removed_at"] and row["listing_hash"] is None for row in tombs
    )
    erase(world.database, Selection(runs=(ids[0],)))
    removed = query(
        world.url,
        "SELECT run_id, workflow_id, tracking, removed_at <= now() AS past"
        " FROM orchestra.removed_runs",
    )
    assert {tuple(row.values()) for row in removed} == {
        (ids[0], world.workflow, "erased", True),
        *((row["run_id"], world.workflow, "pruned", True) for row in tombs),
    }


def test_an_end_before_the_start_prunes_nothing_young(world: World) -> None:
    """A run whose end is a placeholder in the year 1 is as old as its start."""
    world.sync()
    query(world.url, "UPDATE orchestra.runs SET end_time = '0001-01-01Z'")
    assert world.prune(runs=30).runs == 0


def test_runs_before_the_horizon_are_never_read(world: World) -> None:
    """A sweep adds unknown runs before the horizon as tombstones, without reading them."""
    world.prune(runs=5.1)
    report = world.sync()
    assert (report.load.runs, world.simulator.requests["steps"]) == (5, 5)
    assert world.tracking() == {"final": 5, "pruned": 5}
    assert world.sync().sweeps[0].new == 0


@pytest.mark.parametrize(
    ("start", "end", "tracking"),
    [
        ("2020-01-01T00:00:00Z", "2020-01-01T00:01:00Z", "pruned"),
        ("2020-01-01T00:00:00Z", None, "open"),
        ("2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "open"),
        ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "open"),
        (None, "2020-01-01T00:01:00Z", "open"),
    ],
)
def test_runs_that_may_be_young_are_read(
    world: World, start: str | None, end: str | None, tracking: str
) -> None:
    """A run is skipped only if the list shows a start and a later end, both before the horizon."""
    world.prune(runs=5.1)
    row = {"id": "r", "status": "running", "start_time": start, "end_time": end}
    sweep = world.database.transaction(
        lambda c: sweeps.begin(c, world.workflow, lease=60, count_to=25)
    )
    assert sweep is not None
    world.database.transaction(
        lambda c: listed_pages.write_page(
            c,
            sweep,
            decode_page(json.dumps([row]).encode()).runs,
            requested_at=clock.database_time(c),
            lease=60,
            priority=0,
        )
    )
    assert world.tracking() == {tracking: 1}


def test_horizons_only_move_forward(world: World) -> None:
    """A prune with a longer age leaves that horizon unchanged, even if it moves the other one."""

    def horizons() -> tuple[datetime, datetime]:
        (row,) = query(
            world.url, "SELECT payload_horizon, run_horizon FROM orchestra_etl.retention"
        )
        return row["payload_horizon"], row["run_horizon"]

    world.prune(payloads=2, runs=3)
    before = horizons()
    world.prune(payloads=20, runs=30)
    assert horizons() == before
    world.prune(payloads=20, runs=2.5)
    assert (horizons()[0] == before[0], horizons()[1] > before[1]) == (True, True)


def test_dead_letters_are_emptied(world: World) -> None:
    """Dead letters of old runs lose their bytes and keep the rest.

    Dead letters of removed runs are resolved as discarded.
    """
    world.sync()
    newest, *_, older, oldest = world.history.run_ids(world.workflow)
    letters = [
        DeadLetter(world.workflow, run, Rejected("malformed", "It is cut off.", b"["))
        for run in (newest, older, oldest)
    ]
    world.database.transaction(lambda c: dead_letters.record(c, letters))
    assert world.prune(runs=9.1, payloads=8.1).dead_letters == 2
    rows = query(
        world.url, "SELECT run_id, body, detail, resolution FROM orchestra_etl.dead_letters"
    )
    assert {
        row["run_id"]: (bytes(row["body"]), row["detail"], row["resolution"]) for row in rows
    } == {
        newest: (b"[", "It is cut off.", None),
        older: (b"", "It is cut off. Its bytes were pruned.", None),
        oldest: (b"", "It is cut off. Its bytes were pruned.", "discarded"),
    }
    assert world.database.transaction(lambda c: dead_letters.open_bodies(c, [older])) == {}


def test_a_prune_stops_between_batches_and_resumes(world: World) -> None:
    """A prune stopped after two batches has removed exactly those.

    The next prune removes the rest.
    """
    world.sync()

    def stopped() -> bool:
        return world.tracking().get("pruned", 0) >= 4

    first = world.prune(runs=0.1, batch=2, stopped=stopped)
    assert (first.runs, first.complete) == (4, False)
    assert (world.prune(runs=0.1).runs, world.tracking()) == (6, {"pruned": 10})


def test_a_removal_computes_its_groups_once(world: World) -> None:
    """Removed runs leave no group queued, and the rollups keep their counts.

    Otherwise, the refresh at the end of the prune would compute all groups again.
    """
    world.sync()
    rollups.drain(world.database)
    counted = (
        "SELECT workflow_id, hour, runs FROM orchestra.run_rollup ORDER BY workflow_id, hour, runs"
    )
    before = query(world.url, counted)
    assert before
    world.prune(runs=0.1, stopped=lambda: "pruned" in world.tracking())
    assert world.tracking() == {"pruned": 10}
    assert query(world.url, "SELECT hour FROM orchestra_etl.changed_groups") == []
    assert query(world.url, counted) == before


def test_prunes_during_loads(world: World) -> None:
    """Concurrent loads and prunes never deadlock, lose a young run or keep old data."""
    world.sync()
    over = threading.Event()

    def load_again() -> None:
        while not over.is_set():
            query(
                world.url,
                "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open',"
                " fencing_token = fencing_token + 1 WHERE removed_at IS NULL"
                " AND leased_until IS NULL",
            )
            world.sync()

    thread = threading.Thread(target=load_again)
    thread.start()
    try:
        for age in (9.1, 8.1, 7.1, 6.1, 5.1):
            world.prune(payloads=age - 2, runs=age, batch=1)
    finally:
        over.set()
        thread.join()
    world.sync()
    world.prune(payloads=3.1, runs=5.1)
    ids = world.history.run_ids(world.workflow)
    assert {row["id"] for row in query(world.url, "SELECT id FROM orchestra.runs")} == set(ids[:5])
    assert world.with_payloads() == set(ids[:3])
    deadlocks = query(
        world.url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == [{"deadlocks": 0}]


def test_the_command(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`prune` needs a setting or an option, and only counts without `--yes`.

    An option overrides a setting.
    """
    world.sync()

    def command(toml: str, *arguments: str, yes: bool = True) -> Any:
        made = command_line(
            tmp_path,
            monkeypatch,
            capsys,
            toml + configuration(world.workflow),
            DATABASE_URL=world.url,
        )
        return made("prune", *arguments, *(("--yes",) if yes else ()))

    unset = command("")
    assert (unset.status, "[retention]" in unset.err) == (2, True)
    settings = '[retention]\npayloads = "75h"\nruns = "123h"\n'
    dry = command(settings, "--json", yes=False).json
    assert (dry["runs"]["runs"], dry["payloads"]["runs"]) == (5, 2)
    oldest = datetime.fromisoformat(dry["runs"]["oldest"])
    assert 9.1 < (datetime.now(UTC) - oldest) / timedelta(days=1) < 10.5
    preview = command(settings, yes=False).out
    assert "5 runs with " in preview
    assert "add --yes" in preview
    nothing = command("", "--runs-older-than", "99d", yes=False).out
    assert nothing.endswith("there is nothing to remove\n")
    assert query(world.url, "SELECT id FROM orchestra_etl.retention") == []
    for arguments in (
        ("--runs-older-than", "1d"),
        ("--runs-older-than", "2 years"),
        ("--payloads-older-than", "9d"),
    ):
        refused = command(settings, *arguments)
        assert (refused.status, refused.out, len(refused.err.splitlines())) == (2, "", 1)
    assert command(settings, "--runs-older-than", "195h", "--json").json["runs"] == 2
    printed = command(settings)
    assert printed.out.startswith("3 runs with ")
    assert world.tracking() == {"final": 5, "pruned": 5}


def test_payloads_must_not_outlive_runs(tmp_path: Path) -> None:
    """Settings that keep payloads for longer than runs are refused in one line."""
    with pytest.raises(ConfigurationError, match="payloads must not be kept for longer than runs"):
        load(tmp_path, '[retention]\npayloads = "9d"\nruns = "8d"\n', {})

"""The full walk compares the API's list with the ledger and the tables, and predicts gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etl.pipeline.sync import SyncReport
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.oracle import differences
from tests.support import configuration, environment, load, query, sync


class World:
    """One workflow of 60 finished runs; every sync walks its whole list."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.history = History(
            seed=5, workflows=1, runs_per_workflow=60, live=0, arrivals_per_minute=0
        )
        self.workflow = self.history.workflow_ids[0]
        self.simulator = Simulator(self.history)

    def sync(self, **more: str) -> SyncReport:
        """Run one sync."""
        settings = {"ORCHESTRA_ETL_POLLING__RECONCILE": "1ms", **more}
        variables = environment(self.url, self.simulator.base_url, **settings)
        return asyncio.run(sync(load(self.folder, configuration(self.workflow), variables)))

    def coverage(self) -> dict[str, Any]:
        """Return the workflow's row of the view `coverage`."""
        (row,) = query(self.url, "SELECT * FROM orchestra.coverage")
        return row


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide the workflow with its running server."""
    made = World(tmp_path, database_url)
    with made.simulator.in_thread():
        yield made


def test_deleted_runs_are_read_again(world: World) -> None:
    """The full walk finds final runs that the tables lack, reads them again and reports them."""
    world.sync()
    lost = world.history.run_ids(world.workflow, limit=7)
    query(world.url, "DELETE FROM orchestra.runs WHERE id = ANY (%s)", lost)
    assert len(differences(world.url, world.history)) > 7
    report = world.sync()
    assert (report.sweeps[0].repaired, report.load.runs_inserted, report.exit_status) == (7, 7, 0)
    assert differences(world.url, world.history) == []
    assert world.coverage()["repaired_runs"] == 7
    assert world.sync().sweeps[0].repaired == 0


def test_a_walk_to_the_watermark_does_not_compare(world: World) -> None:
    """Only the full walk compares with the tables, so that frequent sweeps stay cheap."""
    world.sync()
    query(world.url, "DELETE FROM orchestra.runs")
    report = world.sync(ORCHESTRA_ETL_POLLING__RECONCILE="1h")
    assert (report.sweeps[0].repaired, report.load.runs) == (0, 0)


def test_the_view_and_the_counts_agree(world: World) -> None:
    """`coverage` shows the period in which all runs are known, and how many of them are read."""
    world.sync()
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET steps_observed_at = NULL, tracking = 'open'"
        " WHERE run_id = %s",
        world.history.run_ids(world.workflow, limit=1)[0],
    )
    row = world.coverage()
    oldest = query(world.url, "SELECT min(start_time) AS t FROM orchestra.runs")[0]["t"]
    assert (row["known_runs"], row["read_runs"], row["unread_runs"], row["open_runs"]) == (
        60,
        59,
        1,
        1,
    )
    assert (row["complete_since"], row["listed_runs"], row["window_full"], row["gaps"]) == (
        oldest,
        60,
        False,
        0,
    )
    assert row["complete_until"] <= row["swept_at"]


@pytest.mark.parametrize(("new", "warned"), [(20, False), (40, True)])
def test_a_gap_is_announced_before_it_happens(world: World, new: int, warned: bool) -> None:
    """A sync warns if more than half of the runs in the list's window are new.

    It does not record a gap yet.
    """
    world.sync()
    world.simulator.misbehave(Misbehaviour(list_cap=60, endpoints=("runs",)))
    world.history.add_runs(world.workflow, 5)
    assert world.sync().sweeps[0].warning is None
    world.history.add_runs(world.workflow, new)
    (sweep,) = world.sync().sweeps
    assert (sweep.warning is not None, sweep.gap) == (warned, None)
    if sweep.warning is not None:
        assert sweep.warning.startswith("40 runs were new, and the list shows only 60")


def test_the_first_sweep_does_not_warn(world: World) -> None:
    """The first sweep does not warn, although every run is new to it."""
    assert world.sync().sweeps[0].warning is None

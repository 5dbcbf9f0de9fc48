"""The lake keeps what retention removes, and loses what is erased."""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from etl.admin import retention
from etl.admin.erase import Selection, erase
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.export import exporter
from etl.export.destination import Destination
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests import lake_reader as lake
from tests.conftest import fresh_database
from tests.support import configuration, environment, load, query, sync

TABLES = ("runs", "steps", "step_failures", "run_payloads", "step_payloads")


class World:
    """Loaded runs, one a day, and a lake that holds them."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.url, self.history = url, history
        [self.workflow] = history.workflow_ids
        loaded = load(folder, configuration(self.workflow), environment(url, simulator.base_url))
        asyncio.run(sync(loaded))
        self.database = Database(url, patience=5)
        self.location = folder / "lake"
        # The newest first; number n ended n + 0.2 to n + 1 days ago.
        self.run_ids = history.run_ids(self.workflow)

    def export(self, *, full: bool = False) -> exporter.ExportReport:
        """Bring the lake up to date."""
        return exporter.run(
            self.database, Destination(str(self.location), payloads=True), full=full
        )

    def prune(self, *, payloads: float | None = None, runs: float | None = None) -> None:
        """Prune what is older than these days."""
        wanted = self.database.transaction(
            lambda c: retention.horizons(
                c, payloads=payloads and payloads * 86400, runs=runs and runs * 86400
            )
        )
        retention.prune(self.database, wanted)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows of the lake by table, without `archived_at`."""
        found = {name: lake.rows(self.location, name) for name in TABLES}
        for row in found["runs"]:
            del row["archived_at"]
        return found

    def archived(self) -> set[str]:
        """Return the runs that the lake marks as archived."""
        return {row["id"] for row in lake.rows(self.location, "runs") if row["archived_at"]}


Copies = Callable[[], AbstractContextManager[World]]
"""Provides a copy of a world: its database, and its lake in the same place."""


@contextmanager
def exported(
    server: EmbeddedPostgres,
    template: str,
    folder: Path,
    *,
    runs: int,
    prepare: Callable[[World], None] = lambda world: None,
) -> Iterator[Copies]:
    """Provide copies of a world with runs, one a day, in PostgreSQL and in the lake.

    The first export costs more than most tests, so it is made once. There is one copy at a time:
    a lake's files name their place.

    Args:
        server: the PostgreSQL server.
        template: the name of the database with the schema.
        folder: for the lake.
        runs: the number of finished runs.
        prepare: changes the rows before the export, in a session that it closes.
    """
    history = History(
        seed=5, workflows=1, runs_per_workflow=runs, live=0, arrivals_per_minute=0,
        spacing=timedelta(days=1),
    )  # fmt: skip
    with fresh_database(server, template) as kept_url:
        with Simulator(history).in_thread() as simulator:
            made = World(folder, kept_url, history, simulator)
        prepare(made)
        assert made.export().complete
        made.database.close()
        kept_lake = made.location.rename(folder / "kept")

        @contextmanager
        def copied() -> Iterator[World]:
            shutil.rmtree(made.location, ignore_errors=True)
            shutil.copytree(kept_lake, made.location)
            with fresh_database(server, str(conninfo_to_dict(kept_url)["dbname"])) as url:
                # The export notices that this is another database.
                query(
                    url,
                    "UPDATE orchestra_etl.export_state SET database_oid ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())",
                )
                own = copy.copy(made)
                own.url, own.database = url, Database(url, patience=5)
                yield own
                own.database.close()

        yield copied


@pytest.fixture(scope="module")
def copies(
    postgres_server: EmbeddedPostgres,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Copies]:
    """Export six finished runs, one a day."""
    folder = tmp_path_factory.mktemp("lake")
    with exported(postgres_server, template_database, folder, runs=6) as copied:
        yield copied


@pytest.fixture
def world(copies: Copies) -> Iterator[World]:
    """Provide six finished runs, one a day, in PostgreSQL and in the lake."""
    with copies() as own:
        yield own


def test_pruned_runs_stay_in_the_lake(world: World) -> None:
    """A pruned run stays in every table with every value, marked, however often it is exported."""
    before = world.rows()
    assert len(before["runs"]) == 6
    world.prune(runs=3.1)
    gone = {row["id"] for row in before["runs"]} - {
        row["id"] for row in query(world.url, "SELECT id FROM orchestra.runs")
    }
    assert len(gone) == 3
    for full in (False, True, True):
        assert world.export(full=full).complete
        assert world.rows() == before
        assert world.archived() == gone
    [row] = query(world.url, "SELECT sum(archived_runs) AS n FROM orchestra_etl.export_days")
    assert row["n"] == 3


def test_pruned_payloads_stay_in_the_lake(world: World) -> None:
    """Payloads that were pruned stay in the lake when other values of their run change."""
    before = world.rows()
    world.prune(payloads=3.1)
    left = query(world.url, "SELECT count(data) AS n FROM orchestra.inputs")[0]["n"]
    assert 0 < left < len(before["step_payloads"])
    for full in (False, True):
        assert world.export(full=full).complete
        assert world.rows() == before
    query(world.url, "UPDATE orchestra.runs SET status = 'other'")
    world.export()
    found = world.rows()
    assert {row["status"] for row in found["runs"]} == {"other"}
    assert found["step_payloads"] == before["step_payloads"]
    assert found["run_payloads"] == before["run_payloads"]


def test_payloads_that_were_pruned_before_the_first_export_are_null(
    tmp_path: Path, world: World
) -> None:
    """A lake that begins after the payloads were pruned has their rows, without values."""
    world.prune(payloads=3.1)
    world.location = tmp_path / "second"
    world.export()
    found = lake.rows(world.location, "step_payloads")
    assert len(found) == query(world.url, "SELECT count(*) AS n FROM orchestra.steps")[0]["n"]
    assert {row["inputs_note"] for row in found} == {None, "pruned"}
    world.export(full=True)
    assert lake.rows(world.location, "step_payloads") == found


def test_erased_runs_leave_the_lake(world: World) -> None:
    """A run that is erased leaves the lake; so does one that was pruned first."""
    world.prune(runs=3.1)
    world.export()
    young, old = world.run_ids[0], world.run_ids[-1]
    erase(world.database, Selection(runs=(young, old)))
    world.export(full=True)
    found = world.rows()
    assert {row["id"] for row in found["runs"]} == set(world.run_ids) - {young, old}
    for name in TABLES[1:]:
        assert not {young, old} & {row["run_id"] for row in found[name]}


def test_a_payload_that_a_rule_may_reach_is_not_kept(world: World) -> None:
    """If a run was redacted after its payloads were pruned, the lake drops them as well."""
    world.prune(payloads=3.1)
    world.export()
    old = world.run_ids[-1]
    query(world.url, "UPDATE orchestra.runs SET redaction_policy = 'p' WHERE id = %s", old)
    query(world.url, "UPDATE orchestra.steps SET redaction_policy = 'p' WHERE run_id = %s", old)
    world.export()
    for row in lake.rows(world.location, "step_payloads"):
        if row["run_id"] == old:
            assert row["inputs_data"] is None
            assert row["outputs_data"] is None
    kept = [row for row in lake.rows(world.location, "run_payloads") if row["inputs"] is not None]
    assert old not in {row["run_id"] for row in kept}
    assert len(kept) == 5


def test_a_run_deleted_by_hand_leaves_the_lake(world: World) -> None:
    """The lake keeps only what retention removed: a run without a tombstone is gone."""
    world.prune(runs=3.1)
    query(world.url, "DELETE FROM orchestra.runs WHERE id = %s", world.run_ids[0])
    world.export()
    assert {row["id"] for row in world.rows()["runs"]} == set(world.run_ids[1:])

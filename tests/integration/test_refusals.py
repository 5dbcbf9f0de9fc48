"""What the API refuses says nothing about the rest: neither that a list is over, nor that a workflow may not be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from etl.local.history import History
from etl.local.misbehaviour import Misbehaviour
from etl.local.simulator import Simulator
from etl.pipeline.passes import PassReport
from tests.faults.answers import changed
from tests.oracle import differences
from tests.support import configuration, environment, load, query, sync


class World:
    """Two workflows of 30 finished runs each, the first of them swept, and a server that gives ten runs a page at most."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.workflow, self.other = history.workflow_ids

    def sync(self, *workflow_ids: str, **more: Any) -> PassReport:
        """One pass over these workflows, every open run being due."""
        query(self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")
        variables = environment(self.url, self.simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")
        return asyncio.run(sync(load(self.folder, configuration(*workflow_ids, **more), variables)))

    def known(self) -> int:
        """How many runs are in the ledger."""
        return int(query(self.url, "SELECT count(*) AS n FROM orchestra_etl.run_ledger")[0]["n"])

    def swept(self) -> dict[str, Any]:
        """What the workflow's sweeps have come to."""
        (row,) = query(
            self.url,
            "SELECT watermark, completed_at IS NOT NULL AS complete, last_error FROM orchestra_etl.sweeps"
            " WHERE workflow_id = %s",
            self.workflow,
        )
        return row


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """That world, its server running."""
    history = History(seed=5, workflows=2, runs_per_workflow=30, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


class Capped:
    """A server that gives ten rows a page at most and, behind the first one, answers every page with this status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.shown = False

    def __call__(self, request: web.Request, call: Any, answer: web.Response) -> web.Response:
        """Show the first page, once."""
        if call.endpoint != "runs":
            return answer
        if self.shown:
            return web.Response(status=self.status, headers={"Location": "/login"})
        self.shown = True
        assert isinstance(answer.body, bytes)
        return web.json_response(json.loads(answer.body)[:10])


@pytest.mark.parametrize("status", [302, 404, 405, 410, 206])
def test_a_refusal_in_the_middle_of_a_list_is_not_its_end(world: World, status: int) -> None:
    """A login, a maintenance page or a lost route behind the first page fails the sweep; the next one lists everything."""
    with changed(world.simulator, Capped(status)):
        report = world.sync(world.workflow)
    assert (report.exit_status, [type(error).__name__ for error in report.errors]) == (
        5,
        ["NotFound" if status == 404 else "RequestRefused"],
    )
    assert "discover" not in str(report.errors[0])
    found = world.swept()
    assert (found["watermark"], found["complete"], str(status) in found["last_error"]) == (0, False, True)
    assert world.known() == 10
    assert world.sync(world.workflow, world.other).exit_status == 0
    assert differences(world.url, world.history) == []
    assert query(world.url, "SELECT * FROM orchestra_etl.gaps") == []


@pytest.mark.parametrize(
    ("status", "ended"), [(400, True), (404, True), (410, True), (416, True), (422, True), (302, False), (405, False)]
)
def test_what_servers_say_of_a_page_past_the_end(world: World, status: int, ended: bool) -> None:
    """Behind the only run of a list, what says that there is no such page means its end; a redirect or a lost route does not."""

    def answer(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint != "runs":
            return honest
        if request.query["offset"] != "0":
            return web.Response(status=status, headers={"Location": "/login"})
        assert isinstance(honest.body, bytes)
        return web.json_response(json.loads(honest.body)[:1])

    with changed(world.simulator, answer):
        report = world.sync(world.workflow)
    assert (report.exit_status, world.swept()["complete"], world.known()) == (0 if ended else 5, ended, 1)


def test_a_server_without_run_lists_is_told_from_one_that_fails(world: World) -> None:
    """Where not even the first page is there, the line names the setting that does without."""
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("runs",)))
    report = world.sync(world.workflow)
    assert [str(error).rpartition("; ")[2] for error in report.errors] == [
        "where the server offers no run list, set discover = false and name the runs"
    ]


def test_a_run_whose_own_row_may_not_be_read_is_loaded_from_its_steps(world: World) -> None:
    """403 for single runs refuses neither them nor their workflow: their steps are stored, and nothing is reported."""
    world.simulator.misbehave(Misbehaviour(status=403, endpoints=("run", "runs", "workflows")))
    named = tuple(world.history.run_ids(world.workflow, 20))
    report = world.sync(world.workflow, discover=False, runs=named)
    assert (report.exit_status, report.errors, report.load.runs, report.load.failed) == (0, [], 20, 0)
    assert world.simulator.requests["run"] > 0
    rows = query(world.url, "SELECT status_source, count(*) AS n FROM orchestra.runs GROUP BY 1")
    assert rows == [{"status_source": "derived", "n": 20}]

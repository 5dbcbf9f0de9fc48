"""A refused request says nothing about other requests.

It means neither that a list has ended nor that all other reads of a workflow are refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from etl import app
from etl.errors import ConfigurationError
from etl.pipeline.sync import SyncReport
from etl.simulator.history import History
from etl.simulator.misbehaviour import Endpoint, Misbehaviour
from etl.simulator.server import Simulator
from tests.faults.responses import changed
from tests.oracle import differences
from tests.support import configuration, environment, load, query, slow, sync


class World:
    """Two workflows of 30 finished runs each, and a server.

    The tests look at the sweeps of the first workflow.
    """

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.workflow, self.other = history.workflow_ids

    def sync(self, *workflow_ids: str, **more: Any) -> SyncReport:
        """Run one sync over these workflows, with every open run due."""
        query(
            self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL"
        )
        variables = environment(self.url, self.simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")
        return asyncio.run(sync(load(self.folder, configuration(*workflow_ids, **more), variables)))

    def known(self) -> int:
        """Return the number of runs in the ledger."""
        return int(query(self.url, "SELECT count(*) AS n FROM orchestra_etl.run_ledger")[0]["n"])

    def swept(self) -> dict[str, Any]:
        """Return the state of the workflow's sweeps."""
        (row,) = query(
            self.url,
            "SELECT watermark, swept_at IS NOT NULL AS complete, last_error"
            " FROM orchestra_etl.sweeps WHERE workflow_id = %s",
            self.workflow,
        )
        return row


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide the workflows with their running server."""
    history = History(seed=5, workflows=2, runs_per_workflow=30, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


class Capped:
    """A server that lists ten rows on its first page and refuses every other page."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.shown = False

    def __call__(self, request: web.Request, call: Any, honest: web.Response) -> web.Response:
        """Return the first page once, and then the status."""
        if call.endpoint != "runs":
            return honest
        if self.shown:
            return web.Response(status=self.status, headers={"Location": "/login"})
        self.shown = True
        assert isinstance(honest.body, bytes)
        return web.json_response(json.loads(honest.body)[:10])


@pytest.mark.parametrize("status", [404, 206, *slow(302, 405, 410)])
def test_a_refusal_in_the_middle_of_a_list_is_not_its_end(world: World, status: int) -> None:
    """A refused second page fails the sweep, and the next sweep lists everything.

    The statuses are those of a login page, a maintenance page or a missing route.
    """
    with changed(world.simulator, Capped(status)):
        report = world.sync(world.workflow)
    assert (report.exit_status, [type(error).__name__ for error in report.errors]) == (
        5,
        ["NotFound" if status == 404 else "RequestRefused"],
    )
    assert "discover" not in str(report.errors[0])
    found = world.swept()
    assert (found["watermark"], found["complete"], str(status) in found["last_error"]) == (
        0,
        False,
        True,
    )
    assert world.known() == 10
    assert world.sync(world.workflow, world.other).exit_status == 0
    assert differences(world.url, world.history) == []
    assert query(world.url, "SELECT * FROM orchestra_etl.gaps") == []


@pytest.mark.parametrize(
    ("status", "ended"),
    [(400, True), (404, True), (410, True), (416, True), (422, True), (302, False), (405, False)],
)
def test_statuses_after_the_end_of_a_list(world: World, status: int, ended: bool) -> None:
    """A 400, 404, 410, 416 or 422 after the last run ends the list; a 302 or 405 is an error."""

    def respond(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint != "runs":
            return honest
        if request.query["offset"] != "0":
            return web.Response(status=status, headers={"Location": "/login"})
        assert isinstance(honest.body, bytes)
        return web.json_response(json.loads(honest.body)[:1])

    with changed(world.simulator, respond):
        report = world.sync(world.workflow)
    assert (report.exit_status, world.swept()["complete"], world.known()) == (
        0 if ended else 5,
        ended,
        1,
    )


def test_a_server_without_run_lists(world: World) -> None:
    """If the first page fails, the error names the setting for servers without run lists."""
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("runs",)))
    report = world.sync(world.workflow)
    assert [str(error).rpartition("; ")[2] for error in report.errors] == [
        "if the server offers no run list, set discover = false and name the runs"
    ]


@pytest.mark.parametrize(
    ("status", "endpoints", "advised"),
    [
        (404, ("runs",), True),
        (405, ("runs",), True),
        (404, ("runs", "workflows"), False),
        (302, ("runs",), False),
        (400, ("runs",), False),
        (403, ("runs",), False),
        (422, ("runs", "workflows"), False),
    ],
)
def test_the_advice_fits_what_was_refused(
    world: World, status: int, endpoints: tuple[Endpoint, ...], advised: bool
) -> None:
    """The error advises to disable discovery only if the server lacks the list and nothing else."""
    world.simulator.misbehave(
        Misbehaviour(status=status, endpoints=endpoints, headers={"Location": "/login"})
    )
    (error,) = world.sync(world.workflow).errors
    assert str(status) in str(error)
    assert ("discover" in str(error)) is advised
    assert status != 404 or "api.base_url" in str(error)


def test_a_wrong_base_path_is_not_taken_for_a_server_without_lists(world: World) -> None:
    """If no path below the base URL exists, the error names that setting and no other."""
    variables = environment(
        world.url, f"{world.simulator.base_url}/v9", ORCHESTRA_ETL_API__ATTEMPTS="1"
    )
    report = asyncio.run(sync(load(world.folder, configuration(world.workflow), variables)))
    assert report.exit_status == 5
    assert "check the id and `api.base_url`" in str(report.errors[0])
    assert "discover" not in str(report.errors[0])


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [
        (404, 6),
        (403, 3),
        (500, 5),
        pytest.param(400, 6, marks=pytest.mark.slow),
        pytest.param(302, 6, marks=pytest.mark.slow),
    ],
)
def test_one_refused_workflow_does_not_stop_the_others(
    world: World, status: int, exit_status: int
) -> None:
    """If the API refuses one of two workflows, the other one is read completely.

    Only a 500 counts as an unavailable API (exit status 5). `status` names the refused workflow.
    """
    world.simulator.misbehave(
        Misbehaviour(
            status=status,
            endpoints=("runs",),
            workflow_id=world.other,
            headers={"Location": "/login"},
        )
    )
    for _ in range(2):
        report = world.sync(world.workflow, world.other)
        assert report.exit_status == exit_status
        assert [str(status) in str(error) for error in (*report.errors, *report.refused)] == [True]
    assert world.known() == 30
    assert world.swept()["complete"]
    loaded = load(
        world.folder, configuration(world.workflow, world.other), environment(world.url, "http://x")
    )
    with app.open_database(loaded) as database:
        found = {one.id: one for one in app.read_status(loaded, database).workflows}
    assert found[world.workflow].verdict == "ok"
    assert (found[world.other].verdict, str(status) in found[world.other].reasons[0].text) == (
        "failing",
        True,
    )


ODD_IDS: tuple[object, ...] = (
    "..",
    ".",
    "a/../b",
    "a\x07b",
    "",
    "x" * 600,
    7,
    None,
    {"id": 1},
    ["x"],
    True,
    "\ud800",
)


def test_workflows_with_unusable_ids_are_dead_letters(world: World) -> None:
    """Unusable workflow ids become dead letters once, and the other workflows are swept.

    With `all_workflows`, an id can have a wrong type or characters that no path can hold. `status`
    reports them, and the second sync ends with 0.
    """
    listed = [{"workflow_id": one} for one in (*ODD_IDS, world.workflow, world.other, world.other)]
    body = json.dumps([*listed, {"name": "no id"}, 5]).encode()
    world.simulator.misbehave(Misbehaviour(body=body, endpoints=("workflows",)))
    toml = "[api]\nall_workflows = true"
    loaded = load(world.folder, toml, environment(world.url, world.simulator.base_url))
    first, second = asyncio.run(sync(loaded)), asyncio.run(sync(loaded))
    assert (first.exit_status, first.errors, first.dead_letters) == (6, [], len(ODD_IDS) + 1)
    assert (second.exit_status, second.errors, second.dead_letters) == (0, [], 0)
    assert differences(world.url, world.history) == []
    with app.open_database(loaded) as database:
        found = app.read_status(loaded, database)
    assert {one.id: one.verdict for one in found.workflows} == {
        world.workflow: "ok",
        world.other: "ok",
    }
    assert (found.verdict, found.unusable_workflows) == ("warning", len(ODD_IDS) + 1)
    assert {
        row["reason"] for row in query(world.url, "SELECT reason FROM orchestra_etl.dead_letters")
    } == {"unusable_id"}


@pytest.mark.parametrize("id", ["..", "a/../b", "a\\\\..", "\\u0007"])
def test_ids_that_no_path_can_hold_are_refused_in_the_configuration(world: World, id: str) -> None:
    """An id that no path can hold is a configuration error, before any request."""
    for toml in (configuration(id), configuration("w", runs=(id,))):
        with pytest.raises(ConfigurationError, match="cannot be part of a request's path"):
            load(world.folder, toml, environment(world.url, "http://x"))


def test_runs_with_unusable_ids_are_dead_letters(world: World) -> None:
    """Listed runs with unusable ids become dead letters once, and their neighbours are read.

    Such an id has a wrong type, or characters that no path can hold.
    """

    def respond(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint != "runs" or request.query["offset"] != "0":
            return honest
        assert isinstance(honest.body, bytes)
        odd = [{"id": id, "status": "completed"} for id in ODD_IDS]
        return web.json_response([*odd, *json.loads(honest.body)])

    with changed(world.simulator, respond):
        first, second = world.sync(world.workflow), world.sync(world.workflow)
    assert (first.exit_status, first.errors) == (6, [])
    assert (second.exit_status, second.errors) == (0, [])
    assert query(
        world.url, "SELECT count(*) AS n FROM orchestra.runs WHERE tracking = 'final'"
    ) == [{"n": 30}]


def test_a_run_whose_row_is_refused_is_loaded_from_its_steps(world: World) -> None:
    """If single runs are refused with 403, their steps are stored and nothing is reported."""
    world.simulator.misbehave(Misbehaviour(status=403, endpoints=("run", "runs", "workflows")))
    named = tuple(world.history.run_ids(world.workflow, 20))
    report = world.sync(world.workflow, discover=False, runs=named)
    assert (report.exit_status, report.errors, report.load.runs, report.load.failed) == (
        0,
        [],
        20,
        0,
    )
    assert world.simulator.requests["run"] > 0
    rows = query(world.url, "SELECT status_source, count(*) AS n FROM orchestra.runs GROUP BY 1")
    assert rows == [{"status_source": "derived", "n": 20}]

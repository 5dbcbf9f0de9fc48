"""Run lists that deviate from the API: a walk ends soon, keeps each shown run, and reports why."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web

from etl.pipeline.sync import SyncReport
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.faults.responses import changed
from tests.oracle import differences
from tests.support import configuration, environment, load, query, slow, sync

Row = dict[str, Any]
Page = list[Row] | int | bytes
Show = Callable[[list[Row], int, int], Page]
"""A server's response from its rows (newest first), offset and limit: rows, a status or a body."""


class Odd(NamedTuple):
    """How a list behaves, and what the sweep reports about it."""

    show: Show
    problem: str | None = None
    """A part of the reported problem; None if no problem is reported."""
    complete: bool = True
    requests: int = 12
    """The maximum number of pages that a sync requests."""
    shown: int | None = None
    """The number of runs that the list shows; None for all of them."""


RANDOM = random.Random(5)


def _shuffled(rows: list[Row], offset: int, limit: int) -> Page:
    return RANDOM.sample(rows, len(rows))[offset : offset + limit]


def _twice(rows: list[Row], offset: int, limit: int) -> Page:
    return [row for row in rows for _ in "ab"][offset : offset + limit]


def _newest_forty(behind: Page, *, within: bool) -> Show:
    """Return a server's behaviour: it lists only the newest forty runs.

    Args:
        behind: the response at an offset after the list's end.
        within: whether every offset except 0 has this response.
    """

    def show(rows: list[Row], offset: int, limit: int) -> Page:
        return behind if offset >= (1 if within else 40) else rows[:40][offset : offset + limit]

    return show


OFFSET = "the list returns the same rows at offset"
REPEATS = "the list repeats at offset"
ODD: dict[str, Odd] = {
    "offset ignored": Odd(lambda rows, offset, limit: rows[:limit], OFFSET, shown=25),
    "offset and limit ignored": Odd(lambda rows, offset, limit: rows, OFFSET),
    "limit ignored": Odd(lambda rows, offset, limit: rows[offset:]),
    "fixed page of 10": Odd(lambda rows, offset, limit: rows[offset : offset + 10], requests=16),
    "fixed page of 10, offset ignored": Odd(
        lambda rows, offset, limit: rows[:10], OFFSET, shown=10
    ),
    "page number from 0": Odd(
        lambda rows, offset, limit: rows[offset * limit : (offset + 1) * limit],
        "does the server take `offset` as the number of a page?",
        complete=False, requests=12, shown=50,
    ),
    "page number from 1": Odd(
        lambda rows, offset, limit: rows[max(offset - 1, 0) * limit : max(offset, 1) * limit],
        OFFSET, shown=25,
    ),
    "last rows repeated": Odd(
        lambda rows, offset, limit: rows[min(offset, len(rows) - 5) :][:limit]
    ),
    "last whole page repeated": Odd(
        lambda rows, offset, limit: rows[min(offset, len(rows) - limit) :][:limit], REPEATS
    ),
    "cyclic": Odd(
        lambda rows, offset, limit: [rows[n % len(rows)] for n in range(offset, offset + limit)],
        REPEATS,
    ),
    "oldest first": Odd(
        lambda rows, offset, limit: rows[::-1][offset : offset + limit],
        "shows the oldest runs first",
    ),
    "duplicate rows in a page": Odd(_twice),
    **{
        f"newest forty, then {behind!r}{' for any offset' if within else ''}": Odd(
            _newest_forty(behind, within=within), shown=25 if within else 40
        )
        for within, responses in (
            (True, (400, 404, 410, 416, 422, 204, b"null", b"", b"[]")), (False, (422, b"null"))
        )
        for behind in responses
    },
}  # fmt: skip
VARIANTS = [
    "offset and limit ignored", "limit ignored", "last whole page repeated",
    "fixed page of 10, offset ignored", "page number from 1",
    "last rows repeated", *[name for name in ODD if name.startswith("newest forty")][2:],
]  # fmt: skip
"""Cases that differ little from another one; they are slow."""


class World:
    """One workflow of 70 finished runs; each test defines how the server lists them."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        (self.workflow,) = history.workflow_ids

    def sync(self, show: Show) -> SyncReport:
        """Run one sync that walks the whole list, with this behaviour of the server."""
        query(self.url, "UPDATE orchestra_etl.sweeps SET reconciled_at = NULL")

        def respond(request: web.Request, call: Any, honest: web.Response) -> web.Response:
            if call.endpoint != "runs":
                return honest
            rows = self.history.runs(self.workflow, 10_000, 0)
            page = show(rows, int(request.query["offset"]), int(request.query["limit"]))
            if isinstance(page, int):
                return web.Response(status=page)
            return web.Response(body=page if isinstance(page, bytes) else msgspec.json.encode(page))

        variables = environment(
            self.url,
            self.simulator.base_url,
            ORCHESTRA_ETL_API__ATTEMPTS="1",
            ORCHESTRA_ETL_API__PAGE_SIZE="25",
        )
        self.simulator.reset_counts()
        with changed(self.simulator, respond):
            return asyncio.run(sync(load(self.folder, configuration(self.workflow), variables)))

    def stored(self) -> int:
        """Return the number of runs that are stored and final."""
        return int(
            query(self.url, "SELECT count(*) AS n FROM orchestra.runs WHERE tracking = 'final'")[0][
                "n"
            ]
        )

    def state(self) -> dict[str, Any]:
        """Return the workflow's row of `sweeps`."""
        return query(self.url, "SELECT * FROM orchestra_etl.sweeps")[0]


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide the workflow and its running server."""
    history = History(
        seed=5, workflows=1, runs_per_workflow=70, live=0, arrivals_per_minute=0, steps_per_run=1
    )
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(odd, id=name, marks=[pytest.mark.slow] if name in VARIANTS else [])
        for name, odd in ODD.items()
    ],
)
def test_an_odd_list_is_walked_to_its_end(world: World, odd: Odd) -> None:
    """A walk of an odd list stores every run that the list shows, in a bounded number of requests.

    A complete walk reports a deviation once by its exit status, and keeps it in the sweep's row.
    After new runs, a second sync ends like the first one and finds them.
    """
    first = world.sync(odd.show)
    (swept,) = first.sweeps
    assert swept.complete is odd.complete
    assert world.simulator.requests["runs"] <= odd.requests
    assert world.stored() == (odd.shown or 70)
    text = world.state()["list_problem" if odd.complete else "last_error"]
    assert (swept.problem or "") == (text or "")
    assert (odd.problem or "") in (text or "")
    assert (text is None) is (odd.problem is None)
    assert first.exit_status == (0 if odd.problem is None else 6)
    if odd.complete:
        assert swept.listed == world.state()["listed_runs"]
        assert swept.listed in (odd.shown or 70, 140)
    world.history.add_runs(world.workflow, 3)
    world.history.freeze(world.history.now() + timedelta(hours=1))
    second = world.sync(odd.show)
    assert (second.sweeps[0].new >= 3, second.sweeps[0].gap) == (True, None)
    assert world.simulator.requests["runs"] <= odd.requests
    assert second.exit_status == (0 if odd.complete else 6)
    assert query(world.url, "SELECT * FROM orchestra_etl.gaps") == []


@pytest.mark.slow
def test_a_list_that_changes_its_order_is_stored_after_some_walks(world: World) -> None:
    """A list that is shuffled for each response is reported, and twelve walks store all runs."""
    problems = []
    for _ in range(12):
        problems.append(world.sync(_shuffled).sweeps[0].problem)
        assert world.simulator.requests["runs"] <= 120
    assert any("changes its order" in (problem or "") for problem in problems)
    assert differences(world.url, world.history) == []


def test_a_normal_list_clears_its_problem(world: World) -> None:
    """The next walk to the list's end without the deviation clears the recorded problem."""
    world.sync(ODD["offset ignored"].show)
    assert OFFSET in world.state()["list_problem"]
    report = world.sync(lambda rows, offset, limit: rows[offset : offset + limit])
    assert (report.sweeps[0].problem, world.state()["list_problem"], world.stored()) == (
        None,
        None,
        70,
    )


EMPTY: list[Page] = [b"null", b"[]", 204]
EMPTY_LATER = [b"[]", *slow(b"null", 204)]


@pytest.mark.parametrize("empty", EMPTY, ids=str)
def test_a_list_without_a_run_is_complete(world: World, empty: Page) -> None:
    """If no run is known, an empty response is a complete list: one request and no warning."""
    report = world.sync(lambda rows, offset, limit: empty)
    (swept,) = report.sweeps
    assert (swept.complete, swept.gap, swept.problem, report.exit_status) == (True, None, None, 0)
    assert world.simulator.requests["runs"] == 1
    assert world.state()["swept_at"] is not None


@pytest.mark.parametrize("empty", EMPTY_LATER, ids=str)
def test_a_list_that_is_empty_once_is_read(world: World, empty: Page) -> None:
    """If runs are known, an empty first page is requested again, so the sweep finds new runs."""
    world.sync(lambda rows, offset, limit: rows[offset : offset + limit])
    world.history.add_runs(world.workflow, 3)
    responses = iter((empty,))
    report = world.sync(lambda rows, offset, limit: next(responses, rows[offset : offset + limit]))
    (swept,) = report.sweeps
    assert (swept.complete, swept.new, swept.gap, report.exit_status) == (True, 3, None, 0)


@pytest.mark.parametrize("empty", EMPTY_LATER, ids=str)
def test_a_list_that_stays_empty_is_one_open_gap(world: World, empty: Page) -> None:
    """If runs are known, an empty list is one open gap after the newest run, reported only once.

    The list's known size and the pending walk of the whole list stay as they were. When runs
    appear again, the next sweep is a normal one.
    """
    world.sync(lambda rows, offset, limit: rows[offset : offset + limit])
    before = world.state()
    statuses = [world.sync(lambda rows, offset, limit: empty).exit_status for _ in range(3)]
    assert statuses == [6, 0, 0]
    (gap,) = query(world.url, "SELECT * FROM orchestra_etl.gaps")
    newest = query(world.url, "SELECT max(start_time) AS at FROM orchestra.runs")[0]["at"]
    assert (gap["after_time"], gap["before_time"], gap["acknowledged_at"]) == (newest, None, None)
    assert "the run list is empty" in gap["detail"]
    after = world.state()
    assert (after["listed_runs"], after["list_problem"], after["reconciled_at"]) == (
        before["listed_runs"],
        None,
        None,
    )
    assert query(world.url, "SELECT gaps FROM orchestra.coverage") == [{"gaps": 1}]
    world.history.add_runs(world.workflow, 3)
    report = world.sync(lambda rows, offset, limit: rows[offset : offset + limit])
    assert (report.sweeps[0].new, report.sweeps[0].gap, report.sweeps[0].warning) == (3, None, None)
    assert query(world.url, "SELECT count(*) AS n FROM orchestra_etl.gaps") == [{"n": 1}]
    world.history.add_runs(world.workflow, 1)
    world.history.freeze(world.history.now() + timedelta(hours=1))
    world.sync(lambda rows, offset, limit: rows[offset : offset + limit])
    assert world.sync(lambda rows, offset, limit: empty).exit_status == 6


@pytest.mark.parametrize("growth", [20, *slow(1, 13)])
def test_a_list_of_the_newest_runs_that_grows_during_the_walk_is_complete(
    world: World, growth: int
) -> None:
    """A growing list that ignores `offset` is swept in fewer than 12 requests, time after time."""

    def show(rows: list[Row], offset: int, limit: int) -> Page:
        world.history.add_runs(world.workflow, growth)
        return world.history.runs(world.workflow, limit, 0)

    for _ in range(2):
        (swept,) = world.sync(show).sweeps
        assert (swept.complete, swept.gap, OFFSET in (swept.problem or "")) == (True, None, True)
        assert swept.listed == 25
        assert world.simulator.requests["runs"] < 12

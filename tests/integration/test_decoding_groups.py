"""Reads whose responses wait to be decoded in groups."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etl import app
from etl.errors import ApiUnavailable, KeyRefused
from etl.pipeline import decoding, reading
from etl.pipeline.decoding import DecodingGroup
from etl.pipeline.sync import Syncer
from etl.settings import Settings
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from etl.transform.decode import decode_steps
from tests.oracle import differences
from tests.support import configuration, environment, load, query, sync, wait_in_loop

NEVER = 600.0
"""A wait that no test can survive."""
SOON = 20.0
CONCURRENCY = 3


class World:
    """A server with forty finished runs of one workflow, a database, and their settings."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        [self.workflow_id] = history.workflow_ids
        self.run_ids = history.run_ids(self.workflow_id)

    def settings(self, toml: str = "", *, concurrency: int = CONCURRENCY) -> Settings:
        """Return settings that never retry a request."""
        variables = environment(
            self.url,
            self.simulator.base_url,
            ORCHESTRA_ETL_API__ATTEMPTS="1",
            ORCHESTRA_ETL_API__CONCURRENCY=str(concurrency),
        )
        return load(self.folder, toml or configuration(self.workflow_id), variables)

    def swept(self, work: Callable[[Syncer], Awaitable[None]], settings: Settings) -> None:
        """Enter all runs into the ledger, then do the work."""

        async def prepared() -> None:
            with app.open_database(settings) as database:
                async with app.open_jobs(settings, database) as jobs:
                    await jobs.syncer.sweep(self.workflow_id)
                    await work(jobs.syncer)

        asyncio.run(prepared())

    def count(self, condition: str) -> int:
        """Return the number of runs in the ledger that fulfil a condition."""
        rows = query(self.url, f"SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE {condition}")
        return len(rows)


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide the workflow, with its server running in a thread."""
    history = History(seed=5, workflows=1, runs_per_workflow=40, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Provide a list of the number of responses of each group that was decoded."""
    sizes: list[int] = []
    honest = DecodingGroup.open

    def counted(group: DecodingGroup) -> None:
        if group.waiting:
            sizes.append(group.waiting)
        honest(group)

    monkeypatch.setattr(DecodingGroup, "open", counted)
    return sizes


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no group be decoded because of the time for which it has waited."""
    monkeypatch.setattr(decoding, "GROUP_WAIT", NEVER)


@pytest.mark.usefixtures("patient")
def test_responses_gather_during_further_requests(world: World, groups: list[int]) -> None:
    """A group has more responses than there are concurrent requests, and every run is stored."""
    asyncio.run(sync(world.settings()))
    assert max(groups) > 3 * CONCURRENCY
    assert sum(groups) == len(world.run_ids)
    assert differences(world.url, world.history) == []


@pytest.mark.usefixtures("patient")
def test_a_run_is_not_finished_before_its_own_row_is_read(world: World, groups: list[int]) -> None:
    """Runs without a row from a list wait for two groups: one for the steps, one for the row."""
    toml = configuration(world.workflow_id, discover=False, runs=tuple(world.run_ids))
    asyncio.run(sync(world.settings(toml)))
    assert sum(groups) == 2 * len(world.run_ids)
    assert set(world.simulator.steps_requests.values()) == {1}
    assert world.count("tracking = 'final' AND run_observed_at IS NOT NULL") == len(world.run_ids)
    assert differences(world.url, world.history) == []


@pytest.mark.usefixtures("patient")
def test_a_single_run_does_not_wait(world: World) -> None:
    """A run is decoded at once if no other response can arrive, its own row included."""
    run = world.run_ids[0]
    toml = configuration(world.workflow_id, discover=False, runs=(run,))

    async def work() -> None:
        async with asyncio.timeout(SOON):
            await sync(world.settings(toml))

    asyncio.run(work())
    assert world.count("tracking = 'final'") == 1


def test_runs_do_not_wait_for_a_slow_read(world: World) -> None:
    """A group is decoded and loaded while another read still waits for its response."""
    slow = world.run_ids[0]
    world.simulator.misbehave(Misbehaviour(delay=NEVER, endpoints=("steps",), run_id=slow))

    async def work(syncer: Syncer) -> None:
        stop = asyncio.Event()
        draining = asyncio.create_task(syncer.poller.drain(stop=stop))
        read = "tracking = 'final' OR checks > 0"
        await wait_in_loop(lambda: world.count(read) == len(world.run_ids) - 1, seconds=SOON)
        stop.set()
        await draining

    world.swept(work, world.settings())


@pytest.mark.usefixtures("patient")
def test_a_defect_of_the_decoder_fails_only_its_run(
    world: World, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the runs of one group, only the run that triggers a defect is not stored."""
    broken = world.run_ids[7]

    def defective(body: bytes, **more: Any) -> Any:
        if more["run_id"] == broken:
            raise ZeroDivisionError
        return decode_steps(body, **more)

    monkeypatch.setattr(reading, "decode_steps", defective)
    asyncio.run(sync(world.settings()))
    assert max(groups) > CONCURRENCY
    failed = query(
        world.url, "SELECT run_id FROM orchestra_etl.run_ledger WHERE last_error IS NOT NULL"
    )
    assert failed == [{"run_id": broken}]
    stored = query(world.url, "SELECT count(*) AS n FROM orchestra.runs")
    assert stored == [{"n": len(world.run_ids) - 1}]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("bound", "most"), [("GROUP_RESPONSES", 5), ("GROUP_BYTES", 1)])
def test_a_full_group_is_decoded(
    world: World, groups: list[int], monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """No group grows beyond its number of responses or bytes."""
    monkeypatch.setattr(decoding, bound, most)
    asyncio.run(sync(world.settings()))
    assert max(groups) == most
    assert sum(groups) == len(world.run_ids)


@pytest.mark.usefixtures("patient")
def test_requests_pause_until_a_full_group_is_decoded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if decoding is slow, only one full group and the concurrent reads are in memory."""
    most = 0
    begun = ended = 0
    monkeypatch.setattr(decoding, "GROUP_RESPONSES", 5)
    honest = reading.Reader.read

    async def counted(self: Any, claim: Any, group: Any) -> Any:
        nonlocal begun, ended, most
        begun += 1
        most = max(most, begun - ended)
        try:
            return await honest(self, claim, group)
        finally:
            ended += 1

    def slow(body: bytes, **more: Any) -> Any:
        time.sleep(0.02)
        return decode_steps(body, **more)

    monkeypatch.setattr(reading.Reader, "read", counted)
    monkeypatch.setattr(reading, "decode_steps", slow)
    asyncio.run(sync(world.settings()))
    assert begun == ended == len(world.run_ids)
    assert CONCURRENCY < most <= 5 + CONCURRENCY


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("end", ["stop", "cancel", "refusal"])
def test_responses_that_wait_at_the_end_of_a_poll_are_loaded(world: World, end: str) -> None:
    """However a poll ends, it decodes and loads the responses that it has received."""
    last = world.run_ids[20]
    slow = Misbehaviour(delay=NEVER, endpoints=("steps",), run_id=last)
    world.simulator.misbehave(slow)

    async def work(syncer: Syncer) -> None:
        stop = asyncio.Event()
        draining = asyncio.create_task(syncer.poller.drain(stop=stop))
        requests = world.simulator.steps_requests
        await wait_in_loop(lambda: len(requests) == len(world.run_ids), seconds=SOON)
        if end == "stop":
            stop.set()
        elif end == "cancel":
            draining.cancel()
        await asyncio.wait({draining})
        if end == "refusal":
            with pytest.raises(KeyRefused):
                draining.result()

    if end == "refusal":
        refused = Misbehaviour(status=401, delay=1.0, endpoints=("steps",), run_id=last)
        world.simulator.misbehave(refused)
    world.swept(work, world.settings())
    assert world.count("leased_until IS NOT NULL") == 0
    [stored] = query(world.url, "SELECT count(*) AS n FROM orchestra.runs")
    # The last requests may have no response yet.
    assert len(world.run_ids) - CONCURRENCY <= stored["n"] < len(world.run_ids)
    world.simulator.misbehave()
    asyncio.run(sync(world.settings()))
    assert differences(world.url, world.history) == []


@pytest.mark.usefixtures("patient")
def test_leases_of_responses_that_wait_are_renewed(world: World) -> None:
    """While responses wait to be decoded, the leases of all their runs are renewed."""
    slow = world.run_ids[20]
    world.simulator.misbehave(Misbehaviour(delay=NEVER, endpoints=("steps",), run_id=slow))
    settings = world.settings('[polling]\nlease = "1500ms"\n' + configuration(world.workflow_id))
    ends = (
        "SELECT min(leased_until) AS first, max(leased_until) AS last, count(leased_until) AS n"
        " FROM orchestra_etl.run_ledger"
    )

    async def work(syncer: Syncer) -> None:
        stop = asyncio.Event()
        draining = asyncio.create_task(syncer.poller.drain(stop=stop))
        requests = world.simulator.steps_requests
        await wait_in_loop(lambda: len(requests) == len(world.run_ids), seconds=SOON)
        [before] = query(world.url, ends)
        await wait_in_loop(
            lambda: query(world.url, ends)[0]["first"] > before["last"], seconds=SOON
        )
        assert query(world.url, ends)[0]["n"] == len(world.run_ids)
        # No lease has ended, so no run was claimed and read again.
        assert set(requests.values()) == {1}
        stop.set()
        await draining

    world.swept(work, settings)


@pytest.mark.usefixtures("patient")
def test_failures_between_responses_that_wait_do_not_end_a_poll(world: World) -> None:
    """The API counts as down only after failures without any response between them."""
    broken = world.run_ids[::2]
    failing = [Misbehaviour(status=500, endpoints=("steps",), run_id=one) for one in broken]
    world.simulator.misbehave(*failing)
    asyncio.run(sync(world.settings(concurrency=1)))
    assert world.count("last_error IS NOT NULL") == len(broken)
    failing = [Misbehaviour(status=500, endpoints=("steps",))]
    world.simulator.misbehave(*failing)
    query(world.url, "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'")

    async def work(syncer: Syncer) -> None:
        with pytest.raises(ApiUnavailable):
            await syncer.poller.drain(stop=asyncio.Event())

    world.swept(work, world.settings(concurrency=1))

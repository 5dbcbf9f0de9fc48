"""Syncs with the simulator: which runs they find, when runs become final, and what errors do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from etl import app
from etl.errors import ApiError, ApiUnavailable, ConfigurationError, KeyRefused
from etl.pipeline import batches, loading
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reading
from etl.pipeline.sync import SyncReport
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.faults.responses import changed
from tests.oracle import differences
from tests.support import configuration, environment, load, query, slow, sync, wait_until, writes

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class World:
    """A server, a database, and syncs from one to the other."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.toml = configuration(*history.workflow_ids)
        self.variables = environment(url, simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")

    def sync(self, *only: str, **more: str) -> SyncReport:
        """Run one sync, with every open run due."""
        query(
            self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL"
        )
        return asyncio.run(
            sync(load(self.folder, self.toml, {**self.variables, **more}), only or None)
        )

    def backfill(self, *only: str) -> SyncReport:
        """Run one backfill."""

        async def work() -> SyncReport:
            loaded = load(self.folder, self.toml, self.variables)
            with app.open_database(loaded) as database:
                async with app.open_jobs(loaded, database) as jobs:
                    return await jobs.syncer.backfill(only or None, stop=asyncio.Event())

        return asyncio.run(work())

    def tracking(self) -> dict[str, int]:
        """Return the number of runs by tracking."""
        rows = query(
            self.url,
            "SELECT tracking, count(*) AS n FROM orchestra_etl.run_ledger GROUP BY tracking",
        )
        return {row["tracking"]: row["n"] for row in rows}

    def differences(self) -> list[str]:
        """Return the differences from the history."""
        return differences(self.url, self.history)


def _world(folder: Path, url: str, **options: Any) -> Iterator[World]:
    history = History(
        seed=3,
        **{"workflows": 2, "runs_per_workflow": 12, "live": 0, "arrivals_per_minute": 0, **options},
    )
    with Simulator(history).in_thread() as simulator:
        yield World(folder, url, history, simulator)


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide two workflows with twelve finished runs each, served now."""
    yield from _world(tmp_path, database_url)


@pytest.fixture
def moving(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide two workflows with live runs, whose clock the test moves."""
    yield from _world(
        tmp_path, database_url, live=4, runs_per_workflow=8, epoch=START, now=lambda: START
    )


@pytest.mark.parametrize("syncs", [10, *slow(40)])
def test_live_runs_are_followed_to_their_end(moving: World, syncs: int) -> None:
    """Each sync leaves the database equal to what the API shows, as runs start, run and end."""
    for _ in range(syncs):
        moving.history.freeze(moving.history.now())
        assert moving.sync().exit_status == 0
        assert moving.differences() == []
        moving.history.advance(timedelta(seconds=7))
    moving.history.advance(timedelta(hours=1))
    moving.sync()
    assert moving.differences() == []
    assert moving.tracking() == {"final": 16}


def test_a_final_run_is_requested_once(world: World) -> None:
    """A finished run needs one request for its steps and none for its own row."""
    report = world.sync()
    assert (report.load.runs, report.load.runs_inserted) == (24, 24)
    assert (world.simulator.requests["steps"], world.simulator.requests["run"]) == (24, 0)
    assert world.tracking() == {"final": 24}
    assert world.differences() == []


@pytest.mark.parametrize("body", [b"[]", *slow(b"null")])
def test_a_run_that_never_had_a_step_is_final_in_the_end(world: World, body: bytes) -> None:
    """A run that ended without a step is final after a day; late steps are stored with it."""
    never, late = world.history.run_ids(world.history.workflow_ids[0])[:2]
    for run_id in (never, late):
        world.simulator.steps_bodies[run_id] = body
    world.sync()
    assert world.tracking() == {"final": 22, "open": 2}
    del world.simulator.steps_bodies[late]
    world.sync()
    assert world.tracking() == {"final": 23, "open": 1}
    query(
        world.url, "UPDATE orchestra_etl.run_ledger SET opened_at = opened_at - interval '25 hours'"
    )
    world.sync()
    assert world.tracking() == {"final": 24}
    requests = world.simulator.steps_requests[never]
    world.sync()
    assert world.simulator.steps_requests[never] == requests == 3
    assert query(
        world.url, "SELECT state, steps FROM orchestra.run_summary WHERE run_id = %s", never
    ) == [{"state": "succeeded", "steps": 0}]


def test_a_reopened_run_is_read_again(moving: World) -> None:
    """A final run that runs again is open again, and later final with its new end."""
    moving.history.freeze(START + timedelta(hours=1))
    moving.sync()
    run_id = moving.history.run_ids(moving.history.workflow_ids[0])[3]
    moving.history.reopen(run_id)
    moving.sync()
    assert moving.differences() == []
    assert moving.tracking() == {"final": 15, "open": 1}
    moving.history.advance(timedelta(hours=1))
    moving.sync()
    assert moving.differences() == []
    assert moving.tracking() == {"final": 16}


def test_runs_that_start_while_the_list_is_paged_are_found(moving: World) -> None:
    """Two syncs find all runs once, even if five new ones start between any two pages."""
    moving.simulator.misbehave(Misbehaviour(grow_by=5, endpoints=("runs",), count=10))
    moving.sync(ORCHESTRA_ETL_API__PAGE_SIZE="10")
    moving.simulator.misbehave()
    moving.history.advance(timedelta(hours=1))
    moving.sync(ORCHESTRA_ETL_API__PAGE_SIZE="10")
    assert moving.differences() == []
    assert moving.tracking()["final"] > 50


ALL = "[api]\nall_workflows = true"


def test_all_workflows_are_found(world: World) -> None:
    """With `all_workflows`, listed workflows are swept without a name; an unknown id is refused."""
    world.toml = configuration(more=ALL)
    with pytest.raises(ConfigurationError, match="workflow typo is not configured"):
        world.sync("typo")
    with pytest.raises(ConfigurationError, match="workflow typo is not configured"):
        world.backfill("typo")
    assert world.tracking() == {}
    assert world.sync(world.history.workflow_ids[0]).exit_status == 0
    assert world.tracking() == {"final": 12}
    assert world.sync().exit_status == 0
    assert world.differences() == []


@pytest.mark.parametrize("response", [b"[]", *slow(b"null", 204)])
def test_an_empty_list_of_workflows_after_sweeps_is_an_error(
    world: World, response: bytes | int
) -> None:
    """An empty list of workflows is an error if some were swept before, and valid otherwise."""
    world.toml = configuration(more=ALL)

    def answered(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint != "workflows":
            return honest
        return (
            web.Response(status=response)
            if isinstance(response, int)
            else web.Response(body=response)
        )

    with changed(world.simulator, answered):
        assert world.sync().exit_status == 0
    assert world.sync().exit_status == 0
    with (
        changed(world.simulator, answered),
        pytest.raises(ApiError, match="though 2 were swept before") as refused,
    ):
        world.sync()
    assert refused.value.exit_status == 5


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (404, 5),
        (403, 3),
        pytest.param(500, 5, marks=pytest.mark.slow),
        pytest.param(400, 5, marks=pytest.mark.slow),
    ],
)
def test_a_missing_list_of_workflows_is_an_error(world: World, returned: int, status: int) -> None:
    """If the API does not list the workflows, a sync ends with that error.

    Workflows named in the configuration are loaded anyway.
    """
    world.simulator.misbehave(Misbehaviour(status=returned, endpoints=("workflows",)))
    named, other = world.history.workflow_ids
    world.toml = configuration(more=ALL)
    for work in (world.sync, world.backfill):
        with pytest.raises(ApiError, match="/workflows") as refused:
            work()
        assert refused.value.exit_status == status
    world.toml = configuration(named, more=ALL)
    with pytest.raises(ApiError, match="/workflows"):
        world.sync(other)
    report = world.sync()
    assert (report.exit_status, len(report.errors)) == (status, 1)
    assert query(world.url, "SELECT DISTINCT workflow_id FROM orchestra.runs") == [
        {"workflow_id": named}
    ]
    assert world.sync(named).exit_status == 0
    world.simulator.misbehave()
    assert world.sync().exit_status == 0
    assert world.differences() == []


def test_a_server_with_steps_alone_is_enough(world: World) -> None:
    """A server with the steps endpoint alone is enough for runs that a user names.

    The names come from the configuration and from `run_requests`.
    """
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("workflows", "runs", "run")))
    workflow = world.history.workflow_ids[0]
    configured, queued = world.history.run_ids(workflow)[:2]
    world.toml = configuration(workflow, discover=False, runs=(configured,))
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
        workflow,
        queued,
    )
    assert world.sync().exit_status == 0
    rows = query(world.url, "SELECT id, status_source, tracking FROM orchestra.runs")
    assert sorted(row["id"] for row in rows) == sorted([configured, queued])
    # The status is derived from the steps, so only re-reads over a day make the run final.
    assert {(row["status_source"], row["tracking"]) for row in rows} == {("derived", "open")}
    assert query(world.url, "SELECT * FROM orchestra.run_requests") == []
    steps = sum(len(world.history.steps(run)) for run in (configured, queued))
    assert query(world.url, "SELECT count(*) AS n FROM orchestra.steps") == [{"n": steps}]


def test_the_list_corrects_a_wrong_workflow(world: World) -> None:
    """A run tracked under a wrong workflow is loaded once a list shows it under the right one."""
    wrong, right = world.history.workflow_ids
    run_id = world.history.run_ids(right)[0]
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
        wrong,
        run_id,
    )
    world.toml = configuration(wrong)
    assert world.sync().exit_status == 6
    world.toml = configuration(wrong, right)
    assert world.sync().exit_status == 0
    assert world.differences() == []
    assert world.tracking() == {"final": 24}


def test_a_blip_of_404_loses_nothing(world: World) -> None:
    """Runs that return 404 for a while stay open, are reported once, and are loaded later."""
    world.simulator.misbehave(
        Misbehaviour(status=404, endpoints=("steps",), workflow_id=world.history.workflow_ids[0])
    )
    assert world.sync().exit_status == 6
    assert world.tracking() == {"open": 12, "final": 12}
    assert world.sync().exit_status == 0
    world.simulator.misbehave()
    assert world.sync().exit_status == 0
    assert world.differences() == []


def test_a_run_is_gone_only_if_no_list_shows_it(world: World) -> None:
    """A run is gone after an hour of 404 if no list shows it; a listed run is not."""
    world.sync()
    workflow = world.history.workflow_ids[0]
    gone, listed = world.history.run_ids(workflow)[:2]
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'"
        " WHERE run_id = ANY (%s)",
        [gone, listed],
    )
    world.history.delete(gone)
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("steps",), run_id=listed))
    world.sync()
    assert world.tracking() == {"final": 22, "open": 2}
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET not_found_since = now() - interval '2 hours',"
        " listed_at = now() - interval '3 hours' WHERE not_found_since IS NOT NULL",
    )
    world.sync()
    tracking = query(
        world.url, "SELECT run_id, tracking FROM orchestra_etl.run_ledger WHERE tracking <> 'final'"
    )
    assert {row["run_id"]: row["tracking"] for row in tracking} == {gone: "gone", listed: "open"}
    assert query(world.url, "SELECT tracking FROM orchestra.runs WHERE id = %s", gone) == [
        {"tracking": "gone"}
    ]
    assert (
        query(world.url, "SELECT count(*) AS n FROM orchestra.steps WHERE run_id = %s", gone)[0][
            "n"
        ]
        > 0
    )


def test_a_refused_workflow_stops_alone(world: World) -> None:
    """A workflow refused with 403 yields exit status 3 and an error; the other one is loaded."""
    refused, other = world.history.workflow_ids
    world.simulator.misbehave(Misbehaviour(status=403, workflow_id=refused))
    report = world.sync()
    assert report.exit_status == 3
    assert refused in str(report.errors[0])
    assert query(world.url, "SELECT DISTINCT workflow_id FROM orchestra.runs") == [
        {"workflow_id": other}
    ]
    world.simulator.misbehave(Misbehaviour(status=403, workflow_id=refused, endpoints=("steps",)))
    assert world.sync().exit_status == 3
    world.simulator.misbehave()
    assert world.sync().exit_status == 0
    assert world.differences() == []


def test_a_key_refused_in_the_middle_stops_and_loses_nothing(world: World) -> None:
    """A key refused during the polls ends the sync without a claim, and the next one completes."""
    world.simulator.misbehave(
        Misbehaviour(delay=0.02, endpoints=("steps",)),
        Misbehaviour(status=401, run_id=world.history.run_ids(world.history.workflow_ids[0])[7]),
    )
    with pytest.raises(KeyRefused):
        world.sync()
    assert (
        query(
            world.url,
            "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE leased_until IS NOT NULL",
        )
        == []
    )
    world.simulator.misbehave()
    world.sync()
    assert world.differences() == []


def test_an_api_that_is_down_gets_few_requests(world: World) -> None:
    """A sync ends with ApiUnavailable after a few failed reads, and the next one completes."""
    world.simulator.misbehave(Misbehaviour(status=500, endpoints=("steps",)))
    with pytest.raises(ApiUnavailable):
        world.sync()
    assert world.simulator.requests["steps"] < 24
    world.simulator.misbehave()
    world.sync()
    assert world.differences() == []


@pytest.mark.parametrize(
    "name",
    [
        "html",
        "cut-off",
        "disconnecting",
        *slow("server-error", "rate-limited", "truncated", "malformed"),
    ],
)
def test_intermittent_failures_lose_nothing(world: World, name: str) -> None:
    """Syncs load everything exactly, even if a third of the steps requests fail in one way."""
    from msgspec.structs import replace

    from etl.simulator.misbehaviour import MISBEHAVIOURS

    wrong = replace(MISBEHAVIOURS[name], probability=0.3, endpoints=("steps",))
    if wrong.headers:
        wrong = replace(wrong, headers={"Retry-After": "0"})
    world.simulator.misbehave(wrong)
    for _ in range(30):
        world.sync(ORCHESTRA_ETL_API__ATTEMPTS="2")
        if world.tracking() == {"final": 24}:
            break
    assert world.tracking() == {"final": 24}
    assert world.differences() == []


def test_bad_steps_are_the_only_dead_letters(world: World) -> None:
    """Of 101 steps with two bad ones and a duplicate, 98 are stored and three are dead letters."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    steps: list[Any] = [
        {"id": f"s{n}", "node_id": "n", "status": "completed", "start_time": "2026-01-01T00:00:00Z",
         "end_time": "2026-01-01T00:00:01Z", "inputs": {"n": n}, "outputs": {}} for n in range(100)
    ]  # fmt: skip
    del steps[17]["id"]
    steps[50] = "no object"
    steps.append({**steps[3], "outputs": {"changed": True}})
    world.simulator.steps_bodies[run_id] = json.dumps(steps).encode()
    assert world.sync().exit_status == 6
    assert query(
        world.url, "SELECT count(*) AS n FROM orchestra.steps WHERE run_id = %s", run_id
    ) == [{"n": 98}]
    letters = query(
        world.url,
        "SELECT reason, body FROM orchestra_etl.dead_letters WHERE run_id = %s ORDER BY reason",
        run_id,
    )
    assert [(one["reason"], json.loads(one["body"])) for one in letters] == [
        ("duplicate_id", steps[3]),
        ("not_an_object", steps[50]),
        ("unusable_id", steps[17]),
    ]
    assert query(world.url, "SELECT data FROM orchestra.outputs WHERE step_id = 's3'") == [
        {"data": {"changed": True}}
    ]


@pytest.mark.slow
def test_a_payload_of_50_megabytes_is_stored(world: World) -> None:
    """A step with an output of 50 MB is stored with its size."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    big = "x" * 50_000_000
    step = {"id": "big", "status": "completed", "outputs": {"text": big}}
    world.simulator.steps_bodies[run_id] = json.dumps([step]).encode()
    assert world.sync().exit_status == 0
    stored = query(
        world.url,
        "SELECT size_bytes, length(data ->> 'text') AS n FROM orchestra.outputs"
        " WHERE step_id = 'big'",
    )
    assert stored == [{"size_bytes": len(json.dumps(step["outputs"])), "n": 50_000_000}]


def test_what_jsonb_cannot_hold_is_kept_byte_for_byte(world: World) -> None:
    """A value that jsonb cannot hold is stored in an accepted form, with its exact bytes."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    bodies = [rb'{"a": "x\u0000y"}', rb'{"a": "\ud800"}', b'{"a": 1e200000}', b'{"a": 1.10}']
    steps = b",".join(
        b'{"id": "p%d", "status": "completed", "outputs": %s}' % (n, body)
        for n, body in enumerate(bodies)
    )
    world.simulator.steps_bodies[run_id] = b"[" + steps + b"]"
    assert world.sync().exit_status == 0
    rows = query(
        world.url,
        "SELECT data::text, raw, note FROM orchestra.outputs WHERE step_id LIKE 'p_'"
        " ORDER BY step_id",
    )
    assert [row["raw"] for row in rows] == [*bodies[:3], None]
    assert [row["note"] is None for row in rows] == [False, False, False, True]
    assert rows[3]["data"] == '{"a": 1.10}'


def test_a_step_that_vanishes_is_marked_and_comes_back(world: World) -> None:
    """A step missing from a later response is marked and keeps its payloads until it returns."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    steps = world.history.steps(run_id)
    world.sync()
    reopen = (
        "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open' WHERE run_id = %s"
    )
    absent = "SELECT id FROM orchestra.steps WHERE absent_since IS NOT NULL"
    world.simulator.steps_bodies[run_id] = json.dumps(steps[1:]).encode()
    query(world.url, reopen, run_id)
    assert world.sync().load.steps_absent == 1
    assert query(world.url, absent) == [{"id": steps[0]["id"]}]
    world.simulator.steps_bodies.clear()
    query(world.url, reopen, run_id)
    world.sync()
    assert query(world.url, absent) == []
    assert world.differences() == []


def test_a_backfill_walks_the_whole_list(world: World) -> None:
    """A backfill walks the whole list and loads it with the priority of backfilled runs."""
    report = world.backfill()
    assert report.exit_status == 0
    assert world.differences() == []
    priorities = query(world.url, "SELECT DISTINCT priority FROM orchestra_etl.run_ledger")
    assert priorities == [{"priority": 1}]


def test_a_second_sync_writes_nothing(world: World) -> None:
    """A second sync of an unchanged history writes no row and requests four pages of lists."""
    world.sync()
    before = writes(world.url)
    world.simulator.reset_counts()
    report = asyncio.run(sync(load(world.folder, world.toml, world.variables)))
    assert report.load.runs == 0
    assert writes(world.url) == before
    assert dict(world.simulator.requests) == {"runs": 4}


def test_a_new_state_mapping_re_evaluates_stored_rows(world: World) -> None:
    """A new mapping of a status changes the state of stored rows without a change of the list."""
    workflow = world.history.workflow_ids[0]
    run_id = world.history.run_ids(workflow)[0]
    world.history.change_run(run_id, status="Needs Review")
    for step in world.history.steps(run_id):
        world.history.change_step(run_id, step["id"], status="Needs Review")
    world.sync()
    states = (
        "SELECT r.state, array_agg(DISTINCT s.state) AS steps FROM orchestra.runs r"
        " JOIN orchestra.steps s ON s.run_id = r.id WHERE r.id = %s GROUP BY r.state"
    )
    assert query(world.url, states, run_id) == [{"state": "unknown", "steps": ["unknown"]}]
    drift = query(world.url, "SELECT DISTINCT kind, found FROM orchestra_etl.drift")
    assert drift == [{"kind": "unknown_status", "found": "Needs Review"}]
    world.toml += '\n[states]\nneeds_review = "succeeded"\n'
    world.sync()
    assert query(world.url, states, run_id) == [{"state": "succeeded", "steps": ["succeeded"]}]
    assert world.tracking() == {"final": 24}


def test_an_ended_run_without_steps_is_not_final(world: World) -> None:
    """A run that is over but returns no steps stays open until its steps appear."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    world.simulator.steps_bodies[run_id] = b"[]"
    assert world.sync().exit_status == 0
    assert world.tracking() == {"final": 23, "open": 1}
    world.simulator.steps_bodies.clear()
    world.sync()
    assert world.tracking() == {"final": 24}
    assert world.differences() == []


def test_a_refused_step_of_a_lost_run_is_loaded_from_its_dead_letter(
    world: World,
) -> None:
    """A refused step of a lost run is loaded from its dead letter once the cause is gone."""
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    step = world.history.steps(run_id)[0]
    query(
        world.url, f"ALTER TABLE orchestra.steps ADD CONSTRAINT poison CHECK (id <> '{step['id']}')"
    )
    assert world.sync().exit_status == 6
    query(world.url, "ALTER TABLE orchestra.steps DROP CONSTRAINT poison")
    world.history.delete(run_id)
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger"
        " SET due_at = now(), not_found_since = now() - interval '2 hours',"
        " listed_at = now() - interval '3 hours' WHERE run_id = %s",
        run_id,
    )
    world.sync()
    rows = query(
        world.url,
        "SELECT s.node_id, o.data, s.absent_since FROM orchestra.steps s JOIN orchestra.outputs o"
        " ON o.step_id = s.id WHERE s.id = %s",
        step["id"],
    )
    assert rows == [{"node_id": step["node_id"], "data": step["outputs"], "absent_since": None}]
    assert query(world.url, "SELECT resolution FROM orchestra_etl.dead_letters") == [
        {"resolution": "loaded"}
    ]
    assert query(
        world.url, "SELECT count(*) AS n FROM orchestra.steps WHERE absent_since IS NOT NULL"
    ) == [{"n": 0}]
    assert query(world.url, "SELECT tracking FROM orchestra.runs WHERE id = %s", run_id) == [
        {"tracking": "gone"}
    ]


def test_only_dead_letters_of_steps_are_loaded_as_steps(world: World) -> None:
    """Of a lost run's dead letters, only whole steps are loaded as steps.

    A run's own row, a single member and an older version of a step are not.
    """
    world.sync()
    run_id = world.history.run_ids(world.history.workflow_ids[0])[0]
    stored = query(
        world.url,
        "SELECT id, content_hash FROM orchestra.steps WHERE run_id = %s ORDER BY id",
        run_id,
    )
    letters = [
        ("rejected", None, '[{"id": "whole", "status": "completed"}]'),
        ("rejected", None, '{"id": "row"}'),
        ("not_storable", "x", '{"id": "member"}'),
        ("duplicate_id", stored[0]["id"], json.dumps({"id": stored[0]["id"], "status": "running"})),
    ]
    for reason, step_id, body in letters:
        query(
            world.url,
            "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, step_id, reason,"
            " detail, content_hash, body) VALUES ('w', %s, %s, %s, '', convert_to(%s, 'UTF8'),"
            " convert_to(%s, 'UTF8'))",
            run_id, step_id, reason, body, body,
        )  # fmt: skip
    world.history.delete(run_id)
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open',"
        " listed_at = now() - interval '3 hours', not_found_since = now() - interval '2 hours'"
        " WHERE run_id = %s",
        run_id,
    )
    world.sync()
    after = query(
        world.url,
        "SELECT id, content_hash FROM orchestra.steps WHERE run_id = %s ORDER BY id",
        run_id,
    )
    assert [row for row in after if row["id"] != "whole"] == stored
    assert len(after) == len(stored) + 1
    resolved = query(
        world.url, "SELECT body FROM orchestra_etl.dead_letters WHERE resolution = 'loaded'"
    )
    assert [row["body"] for row in resolved] == [b'[{"id": "whole", "status": "completed"}]']


def test_claims_of_a_crashed_process_are_waited_for(world: World) -> None:
    """A sync waits for runs that a crashed process claimed, and reads them when the leases end."""
    world.sync()
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'open', due_at = now(),"
        " leased_until = now() + interval '1.5 seconds'",
    )
    world.simulator.reset_counts()
    report = asyncio.run(sync(load(world.folder, world.toml, world.variables)))
    assert report.load.runs == 24
    assert world.tracking() == {"final": 24}


def test_a_batch_is_bounded_by_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction has fewer steps than the limit, apart from the run that reaches it."""
    monkeypatch.setattr(batches, "BATCH_STEPS", 10)
    loaded = []

    class Recording(Loader):
        def load(self, readings: Sequence[Reading]) -> LoadReport:
            loaded.append([len(reading.steps.steps) for reading in readings if reading.steps])
            return super().load(readings)

    monkeypatch.setattr(loading, "Loader", Recording)
    world.sync()
    assert sum(len(batch) for batch in loaded) == 24
    assert all(sum(batch[:-1]) < 10 for batch in loaded)
    assert world.differences() == []


def test_runs_are_read_while_the_list_is_walked(world: World) -> None:
    """Reads begin with the first page of a list.

    A run that only the ledger knows waits until the lists are over.
    """
    simulator, workflow_id = world.simulator, world.history.workflow_ids[0]
    world.sync()
    world.history.add_runs(workflow_id, 20)
    query(
        world.url,
        "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, 'unlisted')",
        workflow_id,
    )
    simulator.misbehave(Misbehaviour(endpoints=("runs",), delay=0.2))
    simulator.reset_counts()

    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(world.sync, ORCHESTRA_ETL_API__PAGE_SIZE="5")
        wait_until(lambda: simulator.steps_requests.total() > 0)
        pages, unlisted = simulator.requests["runs"], simulator.steps_requests["unlisted"]
        report = syncing.result()

    assert pages < simulator.requests["runs"]
    assert (unlisted, simulator.steps_requests["unlisted"]) == (0, 1)
    assert (report.load.runs >= 20, report.load.failed) == (True, 1)

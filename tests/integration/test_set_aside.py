"""What is set aside: with its own bytes, with all that came beside it, and without harm to what is stored."""

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
from tests.support import configuration, environment, load, query, sync

LETTERS = "SELECT run_id, step_id, reason, body FROM orchestra_etl.dead_letters WHERE resolved_at IS NULL ORDER BY id"


class World:
    """A workflow of two finished runs, its server, and passes."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        (self.workflow,) = history.workflow_ids
        self.run, self.other = history.run_ids(self.workflow)

    def sync(self, **more: Any) -> PassReport:
        """One pass, every open run being due."""
        query(self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")
        variables = environment(self.url, self.simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")
        return asyncio.run(sync(load(self.folder, configuration(self.workflow, **more), variables)))


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """That world, its server running."""
    history = History(seed=5, workflows=1, runs_per_workflow=2, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


@pytest.mark.parametrize("listed", [True, False])
def test_the_letter_of_a_refused_row_is_the_rows_own_bytes(world: World, listed: bool) -> None:
    """A run's row that PostgreSQL refuses is set aside as the API gave it, to the last digit, whichever answer it came in."""
    query(world.url, "ALTER TABLE orchestra.runs ADD CONSTRAINT poison CHECK (status <> 'refused')")
    row = b'{"id":"%s","status":"refused","elapsed_time":4.10,"inputs":{"price": 1.10, "of":[ ]},"surprise":-0.0%s}'
    bare = row % (world.run.encode(), b"")

    def answer(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint not in ("runs", "run") or call.run_id == world.other:
            return honest
        behind = request.query.get("offset", "0") != "0"
        body = b"[]" if behind else b"[" + row % (world.run.encode(), b',"all_outputs":{"node": 2}') + b"]"
        return web.Response(body=body, content_type="application/json")

    with changed(world.simulator, answer):
        report = world.sync(discover=listed, runs=(world.run, world.other))
    assert (report.exit_status, report.load.set_aside) == (6, 1)
    (letter,) = query(world.url, LETTERS)
    assert (letter["run_id"], letter["step_id"], letter["reason"]) == (world.run, None, "rejected")
    assert bytes(letter["body"]) == bare
    (stored,) = query(world.url, "SELECT status_source FROM orchestra.runs WHERE id = %s", world.run)
    assert stored == {"status_source": "derived"}


def test_a_refused_row_that_only_grows_older_is_one_letter(world: World) -> None:
    """A refused row of an open run is set aside once and counted, whatever its elapsed time; other payloads are another one."""
    query(world.url, "ALTER TABLE orchestra.runs ADD CONSTRAINT poison CHECK (status <> 'refused')")
    elapsed = iter((("1.5", 1), ("20", 1), ("3e2", 1), ("3e2", 2)))

    def answer(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint != "run" or call.run_id == world.other:
            return honest
        own, nested = next(elapsed)
        row = f'{{"id":"{world.run}","status":"refused","elapsed_time": {own},"inputs":{{"elapsed_time": {nested}}}}}'
        return web.Response(body=row.encode(), content_type="application/json")

    with changed(world.simulator, answer):
        reports = [world.sync(discover=False, runs=(world.run, world.other)) for _ in range(4)]
    assert [report.load.set_aside for report in reports] == [1, 0, 0, 1]
    letters = query(world.url, "SELECT occurrences FROM orchestra_etl.dead_letters ORDER BY id")
    assert letters == [{"occurrences": 3}, {"occurrences": 1}]


def test_a_run_given_up_whole_keeps_the_other_letters_of_its_answer(world: World) -> None:
    """Where nothing of a run can be stored, what was bad in the same answer is set aside beside it; the other run lands."""
    query(
        world.url,
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one'; END$$;"
        " CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON orchestra.steps DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.id = 'good') EXECUTE FUNCTION poison()",
    )
    world.simulator.steps_bodies[world.run] = b'[{"id": "good", "status": "completed"}, 7, {"id": 8}]'
    report = world.sync()
    assert (report.exit_status, report.load.set_aside) == (6, 3)
    letters = {(row["run_id"], row["reason"], bytes(row["body"])) for row in query(world.url, LETTERS)}
    assert letters == {
        (world.run, "not_an_object", b"7"),
        (world.run, "unusable_id", b'{"id": 8}'),
        (world.run, "rejected", b'[{"id": "good", "status": "completed"}]'),
    }
    assert query(world.url, "SELECT id FROM orchestra.runs") == [{"id": world.other}]


def test_recovered_steps_do_not_overwrite_what_follows_from_all_of_them(world: World) -> None:
    """A run without a row of its own that failed stays so when a letter gives back its good step; only its tracking changes."""
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("workflows", "runs", "run")))
    bad = {
        "id": "a",
        "status": "failed",
        "user_id": "u",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:01:00Z",
    }
    good = {"id": "b", "status": "completed", "start_time": "2026-01-01T00:00:20Z", "end_time": "2026-01-01T00:00:30Z"}
    world.simulator.steps_bodies[world.run] = json.dumps([bad, good]).encode()
    query(world.url, "ALTER TABLE orchestra.steps ADD CONSTRAINT poison CHECK (id <> 'b')")
    named = {"discover": False, "runs": (world.run, world.other)}
    assert world.sync(**named).exit_status == 6
    query(world.url, "ALTER TABLE orchestra.steps DROP CONSTRAINT poison")
    content = (
        "SELECT state, start_time, end_time, user_id, tracking, (SELECT string_agg(s.id, ',' ORDER BY s.id)"
        " FROM orchestra.steps AS s WHERE s.run_id = r.id) AS steps FROM orchestra.runs AS r WHERE id = %s"
    )
    (before,) = query(world.url, content, world.run)
    assert (before["state"], before["user_id"], before["tracking"], before["steps"]) == ("failed", "u", "open", "a")
    # The API forgets the run, and goes on answering for the other one.
    world.simulator.misbehave(
        Misbehaviour(status=404, endpoints=("workflows", "runs", "run")),
        Misbehaviour(status=404, endpoints=("steps",), run_id=world.run),
    )
    forgotten = "UPDATE orchestra_etl.run_ledger SET not_found_since = now() - interval '2 hours' WHERE run_id = %s"
    query(world.url, forgotten, world.run)
    world.sync(**named)
    (after,) = query(world.url, content, world.run)
    assert after == {**before, "tracking": "gone", "steps": "a,b"}
    assert query(world.url, LETTERS) == []

"""Dead letters of a load keep their own bytes, and affect neither neighbours nor stored rows."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import Connection

from etl.errors import DatabaseUnavailable
from etl.load import batch
from etl.pipeline import batches, loading
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reading
from etl.pipeline.sync import SyncReport
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.faults.responses import changed
from tests.support import configuration, environment, load, query, sync

LETTERS = (
    "SELECT run_id, step_id, reason, body FROM orchestra_etl.dead_letters"
    " WHERE resolved_at IS NULL ORDER BY id"
)


class World:
    """A workflow of two finished runs, its server, and syncs."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        (self.workflow,) = history.workflow_ids
        self.run, self.other = history.run_ids(self.workflow)

    def sync(self, **more: Any) -> SyncReport:
        """Run one sync, with every open run due."""
        query(
            self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL"
        )
        variables = environment(self.url, self.simulator.base_url, ORCHESTRA_ETL_API__ATTEMPTS="1")
        return asyncio.run(sync(load(self.folder, configuration(self.workflow, **more), variables)))


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide the workflow with its running server."""
    history = History(seed=5, workflows=1, runs_per_workflow=2, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


@pytest.mark.parametrize("listed", [True, False])
def test_a_refused_row_is_a_dead_letter_with_its_own_bytes(world: World, listed: bool) -> None:
    """A run's row that PostgreSQL refuses is a dead letter with its bytes, from any response."""
    query(world.url, "ALTER TABLE orchestra.runs ADD CONSTRAINT poison CHECK (status <> 'refused')")
    row = (
        b'{"id":"%s","status":"refused","elapsed_time":4.10,"inputs":{"price": 1.10,'
        b' "of":[ ]},"surprise":-0.0%s}'
    )
    bare = row % (world.run.encode(), b"")

    def respond(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint not in ("runs", "run") or call.run_id == world.other:
            return honest
        behind = request.query.get("offset", "0") != "0"
        body = (
            b"[]"
            if behind
            else b"[" + row % (world.run.encode(), b',"all_outputs":{"node": 2}') + b"]"
        )
        return web.Response(body=body, content_type="application/json")

    with changed(world.simulator, respond):
        report = world.sync(discover=listed, runs=(world.run, world.other))
    assert (report.exit_status, report.load.dead_letters) == (6, 1)
    (letter,) = query(world.url, LETTERS)
    assert (letter["run_id"], letter["step_id"], letter["reason"]) == (world.run, None, "rejected")
    assert bytes(letter["body"]) == bare
    (stored,) = query(
        world.url, "SELECT status_source FROM orchestra.runs WHERE id = %s", world.run
    )
    assert stored == {"status_source": "derived"}


def test_a_refused_row_that_only_grows_older_is_one_dead_letter(world: World) -> None:
    """Refused rows that differ only in elapsed time are one dead letter with a count.

    A row with other payloads is another dead letter.
    """
    query(world.url, "ALTER TABLE orchestra.runs ADD CONSTRAINT poison CHECK (status <> 'refused')")
    elapsed = iter((("1.5", 1), ("20", 1), ("3e2", 1), ("3e2", 2)))

    def respond(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint != "run" or call.run_id == world.other:
            return honest
        own, nested = next(elapsed)
        row = (
            f'{{"id":"{world.run}","status":"refused","elapsed_time":'
            f' {own},"inputs":{{"elapsed_time": {nested}}}}}'
        )
        return web.Response(body=row.encode(), content_type="application/json")

    with changed(world.simulator, respond):
        reports = [world.sync(discover=False, runs=(world.run, world.other)) for _ in range(4)]
    assert [report.load.dead_letters for report in reports] == [1, 0, 0, 1]
    letters = query(world.url, "SELECT occurrences FROM orchestra_etl.dead_letters ORDER BY id")
    assert letters == [{"occurrences": 3}, {"occurrences": 1}]


def test_a_rejected_run_keeps_the_other_dead_letters_of_its_response(world: World) -> None:
    """If nothing of a run can be stored, its other bad elements become dead letters, too.

    The other run is loaded.
    """
    query(
        world.url,
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql"
        " AS $$BEGIN RAISE 'not this one'; END$$;"
        " CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON orchestra.steps"
        " DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.id = 'good') EXECUTE FUNCTION poison()",
    )
    world.simulator.steps_bodies[world.run] = (
        b'[{"id": "good", "status": "completed"}, 7, {"id": 8}]'
    )
    report = world.sync()
    assert (report.exit_status, report.load.dead_letters) == (6, 3)
    letters = {
        (row["run_id"], row["reason"], bytes(row["body"])) for row in query(world.url, LETTERS)
    }
    assert letters == {
        (world.run, "not_an_object", b"7"),
        (world.run, "unusable_id", b'{"id": 8}'),
        (world.run, "rejected", b'[{"id": "good", "status": "completed"}]'),
    }
    assert query(world.url, "SELECT id FROM orchestra.runs") == [{"id": world.other}]


def test_recovered_steps_do_not_change_the_state_of_their_run(world: World) -> None:
    """A failed run without its own row stays failed when a dead letter restores a good step.

    Only its tracking changes.
    """
    world.simulator.misbehave(Misbehaviour(status=404, endpoints=("workflows", "runs", "run")))
    bad = {
        "id": "a",
        "status": "failed",
        "user_id": "u",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:01:00Z",
    }
    good = {
        "id": "b",
        "status": "completed",
        "start_time": "2026-01-01T00:00:20Z",
        "end_time": "2026-01-01T00:00:30Z",
    }
    world.simulator.steps_bodies[world.run] = json.dumps([bad, good]).encode()
    query(world.url, "ALTER TABLE orchestra.steps ADD CONSTRAINT poison CHECK (id <> 'b')")
    named = {"discover": False, "runs": (world.run, world.other)}
    assert world.sync(**named).exit_status == 6
    query(world.url, "ALTER TABLE orchestra.steps DROP CONSTRAINT poison")
    content = (
        "SELECT state, start_time, end_time, user_id, tracking, (SELECT string_agg(s.id, ','"
        " ORDER BY s.id) FROM orchestra.steps AS s WHERE s.run_id = r.id) AS steps"
        " FROM orchestra.runs AS r WHERE id = %s"
    )
    (before,) = query(world.url, content, world.run)
    assert (before["state"], before["user_id"], before["tracking"], before["steps"]) == (
        "failed",
        "u",
        "open",
        "a",
    )
    # The API forgets the run, and still returns the other one.
    world.simulator.misbehave(
        Misbehaviour(status=404, endpoints=("workflows", "runs", "run")),
        Misbehaviour(status=404, endpoints=("steps",), run_id=world.run),
    )
    forgotten = (
        "UPDATE orchestra_etl.run_ledger SET not_found_since = now() - interval '2 hours'"
        " WHERE run_id = %s"
    )
    query(world.url, forgotten, world.run)
    world.sync(**named)
    (after,) = query(world.url, content, world.run)
    assert after == {**before, "tracking": "gone", "steps": "a,b"}
    assert query(world.url, LETTERS) == []


def test_a_response_of_very_many_bad_elements(world: World) -> None:
    """A response of 200,000 numbers leaves 101 dead letters and does not affect the other run.

    A second sync adds none.
    """
    numbers = [b"%d" % number for number in range(200_000)]
    good = (
        b'{"id": "good", "status": "completed", "start_time": "2026-01-01T00:00:00Z",'
        b' "end_time": "2026-01-01T00:00:01Z"}'
    )
    world.simulator.steps_bodies[world.run] = b"[" + b",".join((*numbers, good)) + b"]"
    report = world.sync()
    assert (report.exit_status, report.load.runs, report.load.dead_letters) == (6, 2, 101)
    letters = {
        bytes(one["body"]): one["detail"]
        for one in query(world.url, "SELECT * FROM orchestra_etl.dead_letters")
    }
    others = letters.pop(b"[" + b",".join(numbers[100:]) + b"]")
    assert others == "And 199,900 more: An element of the response is not a JSON object."
    assert letters.keys() == set(numbers[:100])
    stored = query(world.url, "SELECT id FROM orchestra.steps WHERE run_id = %s", world.run)
    assert stored == [{"id": "good"}]
    query(world.url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
    assert world.sync().load.dead_letters == 0
    # With only the good step left, the dead letters are resolved.
    world.simulator.steps_bodies[world.run] = b"[" + good + b"]"
    query(world.url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
    world.sync()
    assert query(world.url, LETTERS) == []


def test_the_search_for_refused_rows_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If very many rows are refused, the search for each is bounded.

    The rows between them are kept, and dead letters stay few.
    """
    monkeypatch.setattr(batch, "MAX_ISOLATED", 16)
    query(
        world.url, "ALTER TABLE orchestra.steps ADD CONSTRAINT poison CHECK (node_id <> 'refused')"
    )
    steps = [
        b'{"id": "s%04d", "status": "completed", "node_id": "refused"}' % number
        for number in range(1_000)
    ]
    steps[0] = b'{"id": "s0000", "status": "completed"}'
    world.simulator.steps_bodies[world.run] = b"[" + b",".join(steps) + b"]"
    savepoints: list[int] = []
    begin = Connection.begin_nested

    def counted(self: Connection) -> Any:
        savepoints.append(1)
        return begin(self)

    monkeypatch.setattr(Connection, "begin_nested", counted)
    report = world.sync()
    assert (report.exit_status, report.load.runs, report.load.dead_letters) == (6, 2, 101)
    assert len(savepoints) < 100
    assert query(world.url, "SELECT id FROM orchestra.steps WHERE run_id = %s", world.run) == [
        {"id": "s0000"}
    ]
    (others,) = query(
        world.url, "SELECT reason, body FROM orchestra_etl.dead_letters WHERE detail LIKE 'And %'"
    )
    # The body has a form that can be stored when the API forgets the run.
    assert (others["reason"], len(json.loads(bytes(others["body"])))) == ("rejected", 899)


SLOW = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
    " AS $$BEGIN PERFORM pg_sleep(30); RETURN NEW; END$$;"
    " CREATE TRIGGER slow BEFORE INSERT ON orchestra.steps"
    " FOR EACH ROW WHEN (NEW.node_id = 'slow') EXECUTE FUNCTION slow()"
)
IMPATIENT = {"more": "[database]\nstatement_timeout = '2s'\npatience = '60s'"}


def test_a_run_that_exceeds_the_timeout_is_a_dead_letter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that exceeds statement_timeout is a dead letter and retried; the other is loaded.

    The second time, each run is loaded in its own batch.
    """
    query(world.url, SLOW)
    bad = b'[{"id": "slow", "status": "completed", "node_id": "slow"}]'
    world.simulator.steps_bodies[world.run] = bad
    loaded: list[set[str]] = []

    class Recording(Loader):
        def load(self, readings: Sequence[Reading]) -> LoadReport:
            loaded.append({reading.claim.run_id for reading in readings})
            return super().load(readings)

    monkeypatch.setattr(loading, "Loader", Recording)
    report = world.sync(**IMPATIENT)
    assert (report.exit_status, report.load.runs, report.load.failed, report.load.dead_letters) == (
        6,
        1,
        1,
        1,
    )
    (letter,) = query(world.url, LETTERS)
    assert (letter["run_id"], letter["reason"], bytes(letter["body"])) == (
        world.run,
        "rejected",
        bad,
    )
    waiting = (
        "SELECT run_id, last_error FROM orchestra_etl.run_ledger WHERE attempts = 1"
        " AND due_at > now()"
    )
    assert query(world.url, waiting) == [
        {"run_id": world.run, "last_error": "the run cannot be stored: SQLSTATE 57014"}
    ]
    query(world.url, "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'")
    loaded.clear()
    report = world.sync(**IMPATIENT)
    assert (report.load.runs, report.load.failed, report.load.dead_letters) == (1, 1, 0)
    assert sorted(map(sorted, loaded)) == sorted([[world.run], [world.other]])
    query(world.url, "DROP TRIGGER slow ON orchestra.steps")
    query(world.url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
    assert world.sync(**IMPATIENT).load.runs >= 1
    assert query(world.url, LETTERS) == []


@pytest.mark.slow
def test_a_database_that_is_slow_for_every_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If every run exceeds the timeout, the error names the database and no dead letter is made."""
    monkeypatch.setattr(loading, "SLOW", 2)
    # Both runs are in one batch: the second one is requested before the first one has been read.
    monkeypatch.setattr(batches, "BATCH_WAIT", 600)
    world.simulator.misbehave(Misbehaviour(delay=3.0, endpoints=("steps",)))
    query(world.url, SLOW.replace("WHEN (NEW.node_id = 'slow') ", ""))
    with pytest.raises(DatabaseUnavailable, match="takes too long for any run"):
        world.sync(**IMPATIENT)
    assert query(world.url, LETTERS) == []


def test_a_large_reading_is_loaded_beside_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a reading larger than a batch is loaded, another run is read and loaded."""
    monkeypatch.setattr(batches, "BATCH_BYTES", 500_000)
    world.simulator.steps_bodies[world.run] = b'[{"id": "large", "outputs": "%s"}]' % (
        b"x" * 500_000
    )
    other_loaded = threading.Event()
    waited = []

    class Waiting(Loader):
        def load(self, readings: Sequence[Reading]) -> LoadReport:
            runs = {reading.claim.run_id for reading in readings}
            if world.run in runs:
                waited.append((runs, other_loaded.wait(20)))
            report = super().load(readings)
            if world.other in runs:
                other_loaded.set()
            return report

    monkeypatch.setattr(loading, "Loader", Waiting)
    world.simulator.misbehave(Misbehaviour(delay=1.0, endpoints=("steps",), run_id=world.other))
    assert world.sync().load.runs == 2
    assert waited == [({world.run}, True)]

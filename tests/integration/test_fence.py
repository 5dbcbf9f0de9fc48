"""The fence: an older observation never replaces a newer one, in any order of arrival."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs

from etl.database import Database
from etl.ledger import claims, listed_pages, requests, sweeps
from etl.ledger.claims import Claim
from etl.ledger.lifecycle import PollingPolicy
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reading
from etl.records import ListedRun
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_page, decode_run
from etl.transform.states import StateMap
from tests.support import query, wait_until

STATES = StateMap()
WORKFLOW, RUN = "w", "r"


def _step(status: str, id: str = "s", run: str = RUN) -> dict[str, Any]:
    end = None if status == "running" else "2025-03-13T02:41:17Z"
    return {
        "id": id,
        "node_id": "model",
        "status": status,
        "start_time": "2025-03-13T02:41:15Z",
        "end_time": end,
        "inputs": {"run": run},
        "outputs": {"status": status},
    }


def _row(status: str, run: str = RUN) -> dict[str, Any]:
    end = None if status == "running" else "2025-03-13T02:41:18Z"
    return {
        "id": run,
        "status": status,
        "start_time": "2025-03-13T02:41:14Z",
        "end_time": end,
        "inputs": {},
    }


def _listed(*rows: dict[str, Any]) -> tuple[ListedRun, ...]:
    return decode_page(json.dumps(rows).encode()).runs


def _track(database: Database, *runs: str) -> None:
    database.transaction(lambda c: requests.track(c, WORKFLOW, runs or (RUN,)))


def _claim(database: Database, limit: int = 10) -> list[Claim]:
    return database.transaction(lambda c: claims.claim(c, limit=limit, lease=60))


def _reading(
    claim: Claim, *steps: dict[str, Any], row: dict[str, Any] | None = None, after: float = 0.0
) -> Reading:
    """Return what a poll reads `after` seconds after its claim."""
    requested_at = claim.claimed_at + timedelta(seconds=after)
    decoded = decode_steps(
        json.dumps(steps).encode(), workflow_id=WORKFLOW, run_id=claim.run_id, states=STATES
    )
    listed = decode_run(json.dumps(row).encode(), states=STATES).run if row else None
    return Reading(
        claim,
        requested_at,
        server_time=datetime.now(UTC),
        steps=decoded,
        run=listed,
        run_observed_at=requested_at if row else None,
    )


def _sweep(database: Database) -> sweeps.Sweep:
    begun = database.transaction(lambda c: sweeps.begin(c, WORKFLOW, lease=60, count_to=25))
    assert begun is not None
    return begun


def _write(
    database: Database, sweep: sweeps.Sweep, *rows: dict[str, Any], at: datetime | None = None
) -> None:
    done = listed_pages.SweepResult(whole_list=True, to_the_end=True, listed=len(rows), new_runs=0)

    def work(connection: Connection) -> None:
        listed_pages.write_page(
            connection,
            sweep,
            _listed(*rows),
            requested_at=at or sweep.begun_at,
            lease=60,
            priority=0,
            completion=done,
        )

    database.transaction(work)


def _state(url: str, run: str = RUN) -> tuple[Any, ...]:
    rows = query(
        url,
        "SELECT r.state AS run, s.status AS step, l.tracking, l.due_at IS NOT NULL AS due"
        " FROM orchestra_etl.run_ledger l LEFT JOIN orchestra.runs r ON r.id = l.run_id"
        " LEFT JOIN orchestra.steps s ON s.run_id = r.id WHERE l.run_id = %s",
        run,
    )
    return tuple(rows[0].values())


def test_an_old_response_loaded_late_is_refused(database: Database, database_url: str) -> None:
    """A response that is loaded after a newer one changes nothing: its claim's token has moved."""
    loader = Loader(database, PollingPolicy(), STATES)
    _track(database)
    old = _reading(_claim(database)[0], _step("running"))
    _track(database)  # requests a newer read before the old one is loaded
    new = _reading(_claim(database)[0], _step("completed"), row=_row("completed"))
    assert loader.load([new]).runs == 1
    report = loader.load([old])
    assert (report.superseded, report.runs) == (1, 0)
    assert _state(database_url) == ("succeeded", "completed", "final", False)


@pytest.mark.parametrize("order", [1, -1], ids=["old first", "new first"])
def test_two_responses_of_one_run_in_one_batch(
    database: Database, database_url: str, order: int
) -> None:
    """If a batch has two responses of one run, only the one with the valid claim is loaded."""
    loader = Loader(database, PollingPolicy(), STATES)
    _track(database)
    old = _reading(_claim(database)[0], _step("running"))
    _track(database)
    new = _reading(_claim(database)[0], _step("completed"), row=_row("completed"))
    with capture_logs() as events:
        report = loader.load([old, new][::order])
    assert (report.superseded, report.runs) == (1, 1)
    assert [one["event"] for one in events if one["log_level"] != "debug"] == []
    assert _state(database_url) == ("succeeded", "completed", "final", False)


def test_a_reopen_during_a_load_in_flight_is_not_lost(
    database: Database, database_url: str
) -> None:
    """If a listing changes between a read and its load, the load is refused; the run stays due."""
    loader = Loader(database, PollingPolicy(), STATES)
    _write(database, _sweep(database), _row("completed"))
    in_flight = _reading(_claim(database)[0], _step("completed"), row=_row("completed"))
    _write(database, _sweep(database), _row("running"))
    assert loader.load([in_flight]).superseded == 1
    again = _claim(database)
    assert [claim.run_id for claim in again] == [RUN]
    assert again[0].listing is not None
    assert b"running" in again[0].listing


def test_a_reopen_after_the_end_is_noticed(database: Database, database_url: str) -> None:
    """A final run becomes open and due when its listing changes."""
    loader = Loader(database, PollingPolicy(), STATES)
    _write(database, _sweep(database), _row("completed"))
    loader.load([_reading(_claim(database)[0], _step("completed"), row=_row("completed"))])
    assert _state(database_url)[2:] == ("final", False)
    _write(database, _sweep(database), _row("running"))
    assert _state(database_url)[2:] == ("open", True)


def test_a_page_of_a_superseded_sweep_is_refused(database: Database, database_url: str) -> None:
    """A sweep that lost its lease to another sweep cannot write a page."""
    old = _sweep(database)
    query(
        database_url, "UPDATE orchestra_etl.sweeps SET leased_until = now() - interval '1 second'"
    )
    _write(database, _sweep(database), _row("completed"))
    with pytest.raises(sweeps.SweepSuperseded):
        _write(database, old, _row("running"))
    assert _claim(database)[0].listing == _listed(_row("completed"))[0].listing


def test_a_page_requested_before_the_run_was_read_alone_changes_nothing(
    database: Database, database_url: str
) -> None:
    """A page requested before the run's own row, and written after its load, reopens nothing."""
    loader = Loader(database, PollingPolicy(), STATES)
    _write(database, _sweep(database), _row("pending"))
    late = _sweep(database)
    loader.load([_reading(_claim(database)[0], _step("completed"), row=_row("completed"), after=1)])
    _write(database, late, _row("running"))
    assert _state(database_url) == ("succeeded", "completed", "final", False)


def test_an_old_response_is_refused_while_a_newer_read_is_under_way(
    database: Database, database_url: str
) -> None:
    """A response of an earlier claim is refused while the run has a newer claim."""
    loader = Loader(database, PollingPolicy(), STATES)
    _track(database)
    old = _reading(_claim(database)[0], _step("running"))
    _track(database)
    newer = _claim(database)[0]
    assert loader.load([old]).superseded == 1
    assert loader.load([_reading(newer, _step("completed"), row=_row("completed"))]).runs == 1


def test_a_step_id_taken_between_look_up_and_upsert_stays_with_its_owner(
    database: Database, database_url: str
) -> None:
    """The first of two concurrent loads keeps a step id; the second one records a dead letter."""
    _track(database, "r1", "r2")
    first, second = sorted(_claim(database), key=lambda claim: claim.run_id)
    reports = []

    def load() -> None:
        own = Database(database_url)
        reports.append(
            Loader(own, PollingPolicy(), STATES).load(
                [_reading(second, _step("completed", run="r2"))]
            )
        )
        own.close()

    class Held(Loader):
        def _load(self, connection: Connection, readings: Any, *, isolate: bool) -> Any:
            report = super()._load(connection, readings, isolate=isolate)
            thread.start()
            blocked = (
                "SELECT 1 AS one FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            wait_until(lambda: query(database_url, blocked) != [])
            return report

    thread = threading.Thread(target=load)
    assert (
        Held(database, PollingPolicy(), STATES)
        .load([_reading(first, _step("completed", run="r1"))])
        .steps_inserted
        == 1
    )
    thread.join()
    assert [(report.steps_inserted, report.dead_letters) for report in reports] == [(0, 1)]
    assert query(database_url, "SELECT run_id FROM orchestra.steps") == [{"run_id": "r1"}]
    assert query(database_url, "SELECT data FROM orchestra.inputs") == [{"data": {"run": "r1"}}]


def test_a_replayed_commit_counts_nothing_twice(database: Database, database_url: str) -> None:
    """A batch that is repeated after a lost response to COMMIT writes nothing."""
    loader = Loader(database, PollingPolicy(), STATES)
    _track(database)
    bad = {"id": "x" * 600, "status": "completed"}
    reading = _reading(_claim(database)[0], _step("running"), bad)
    reading = Reading(
        **{**_fields(reading), "rejected": reading.steps.rejected if reading.steps else ()}
    )
    first = loader.load([reading])
    again = loader.load([reading])
    assert (first.runs, first.dead_letters) == (1, 1)
    assert (again.runs, again.superseded, again.dead_letters) == (0, 1, 1)
    assert query(database_url, "SELECT occurrences FROM orchestra_etl.dead_letters") == [
        {"occurrences": 1}
    ]


def _fields(reading: Reading) -> dict[str, Any]:
    return {name: getattr(reading, name) for name in reading.__struct_fields__}


def test_a_step_id_of_another_run_stays_with_its_owner(
    database: Database, database_url: str
) -> None:
    """A step id that a second run repeats becomes a dead letter; the first run's step stays."""
    loader = Loader(database, PollingPolicy(), STATES)
    _track(database, "r1", "r2", "r3")
    first, second, third = sorted(_claim(database), key=lambda claim: claim.run_id)
    report = loader.load(
        [
            _reading(first, _step("completed", run="r1")),
            _reading(second, _step("completed", run="r2"), _step("completed", "t")),
        ]
    )
    late = loader.load([_reading(third, _step("failed", run="r3"))])
    owner = query(database_url, "SELECT run_id FROM orchestra.steps WHERE id = 's'")[0]["run_id"]
    loser = {"r1": "r2", "r2": "r1"}[owner]
    letters = query(
        database_url,
        "SELECT run_id, reason, step_id, body FROM orchestra_etl.dead_letters ORDER BY run_id",
    )
    assert [(one["run_id"], one["reason"], one["step_id"]) for one in letters] == [
        (loser, "id_conflict", "s"),
        ("r3", "id_conflict", "s"),
    ]
    assert json.loads(letters[1]["body"]) == _step("failed", run="r3")
    assert (report.dead_letters, late.dead_letters) == (1, 1)
    stored = query(database_url, "SELECT data FROM orchestra.inputs WHERE step_id = 's'")
    assert stored == [{"data": {"run": owner}}]
    assert query(database_url, "SELECT count(*) AS n FROM orchestra.steps WHERE id = 't'") == [
        {"n": 1}
    ]


def test_a_row_that_postgresql_refuses_is_the_only_dead_letter(
    database: Database, database_url: str
) -> None:
    """One step that the database refuses becomes a dead letter; the other 99 are stored."""
    query(
        database_url,
        "ALTER TABLE orchestra.steps ADD CONSTRAINT poison CHECK (node_id <> 'poison')",
    )
    loader = Loader(database, PollingPolicy(), STATES)
    _track(database, *(f"r{n}" for n in range(10)))
    readings = []
    for claim in _claim(database):
        steps = [_step("completed", f"{claim.run_id}-{n}") for n in range(10)]
        if claim.run_id == "r7":
            steps[4]["node_id"] = "poison"
        readings.append(_reading(claim, *steps))
    report = loader.load(readings)
    assert (report.runs, report.steps_inserted, report.dead_letters) == (10, 99, 1)
    letters = query(database_url, "SELECT run_id, step_id, reason FROM orchestra_etl.dead_letters")
    assert letters == [{"run_id": "r7", "step_id": "r7-4", "reason": "rejected"}]
    assert query(database_url, "SELECT count(*) AS n FROM orchestra.inputs") == [{"n": 99}]


def test_a_batch_is_repeated_whole_after_a_broken_connection(
    database: Database, database_url: str
) -> None:
    """A load whose connection is lost is repeated as a whole and stores everything once."""
    _track(database)
    reading = _reading(_claim(database)[0], _step("running"))
    cuts: list[int] = []

    class Cutting(Loader):
        def _load(self, connection: Connection, readings: Any, *, isolate: bool) -> Any:
            report = super()._load(connection, readings, isolate=isolate)
            if not cuts:
                cuts.append(1)
                driver = connection.connection.driver_connection
                assert isinstance(driver, psycopg.Connection)
                query(database_url, "SELECT pg_terminate_backend(%s)", driver.info.backend_pid)
            return report

    report = Cutting(database, PollingPolicy(), STATES).load([reading])
    assert (report.runs, report.steps_inserted, cuts) == (1, 1, [1])
    assert query(database_url, "SELECT count(*) AS n FROM orchestra.steps") == [{"n": 1}]


def test_eight_writers_with_overlapping_runs_do_not_deadlock(database_url: str) -> None:
    """Eight loaders of the same forty runs cause no deadlock and no error."""
    runs = [f"r{n:02}" for n in range(40)]

    async def writer(number: int) -> int:
        own = Database(database_url, patience=20)
        loader = Loader(own, PollingPolicy(), STATES)
        loaded = 0
        try:
            for turn in range(5):
                await asyncio.to_thread(_track, own, *runs[number % 3 :: 1 + number % 2])
                found = await asyncio.to_thread(_claim, own, 15)
                readings = [
                    _reading(claim, _step("running", f"{claim.run_id}-{turn % 2}"))
                    for claim in reversed(found)
                ]
                loaded += (await asyncio.to_thread(loader.load, readings)).runs if readings else 0
        finally:
            own.close()
        return loaded

    async def all_writers() -> list[int]:
        return await asyncio.gather(*(writer(number) for number in range(8)))

    assert sum(asyncio.run(all_writers())) > 0
    deadlocks = query(
        database_url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == [{"deadlocks": 0}]

"""After a refresh, rollups agree with the runs and steps, after any changes in any order."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import TextClause
from sqlalchemy.dialects import postgresql
from structlog.testing import capture_logs

from etl.admin import erase, expired, retention
from etl.admin.erase import Selection
from etl.analytics import changed_groups, rollups, verification
from etl.analytics.verification import Difference
from etl.database import Database
from etl.ledger import state_map
from etl.schema import upgrade
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT
from tests.later_revision import bring_later_revision
from tests.oracle import differences
from tests.rollup_oracle import counted_history, counted_rows, stored
from tests.support import configuration, environment, load, query, slow, sync, wait_until

START = datetime(2026, 3, 1, 23, 59, 40, tzinfo=UTC)
"""The end of an hour and of a day, so that later times fall into the next ones."""


@pytest.fixture
def database(database: Database) -> Database:
    """Provide a database whose first refresh is done."""
    rollups.drain(database)
    return database


def verified(database: Database) -> list[Difference]:
    """Return the differences that `verify` finds."""
    found = database.transaction(verification.verify)
    assert (found.stuck, found.failure) == ([], None)
    return found.differences


def right(database: Database, url: str) -> bool:
    """Return whether the rollups equal a count in plain Python and `verify` finds no difference."""
    return stored(url) == counted_rows(url) and verified(database) == []


# Against the API's own history.


@pytest.mark.slow
def test_a_history_is_counted(tmp_path: Path, database_url: str, database: Database) -> None:
    """Every refresh equals what Python counts in the history as its runs change.

    They start, fail, stall, end late, go stale and run again.
    """
    history = History(
        seed=8, workflows=3, runs_per_workflow=14, live=8, arrivals_per_minute=0, failure_rate=0.5,
        epoch=START, now=lambda: START,
    )  # fmt: skip
    seen: set[str] = set()
    trackings: set[str] = set()

    def follow(simulator: Simulator, **more: str) -> None:
        query(
            database_url,
            "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL",
        )
        variables = environment(
            database_url, simulator.base_url, ORCHESTRA_ETL_POLLING__RECONCILE="1ms", **more
        )
        asyncio.run(sync(load(tmp_path, configuration(*history.workflow_ids), variables)))
        assert differences(database_url, history) == []
        rollups.drain(database, batch=2)
        found = stored(database_url)
        assert found == counted_history(history, database_url)
        assert verified(database) == []
        seen.update(
            name for group in (*found.hours.values(), *found.runs.values()) for name in group.counts
        )

    with Simulator(history).in_thread() as simulator:
        history.freeze(START)
        for _ in range(6):
            follow(simulator)
            follow(simulator, ORCHESTRA_ETL_POLLING__GIVE_UP_AFTER="1ms")
            trackings |= {
                row["tracking"]
                for row in query(database_url, "SELECT tracking FROM orchestra.runs")
            }
            history.advance(timedelta(seconds=11))
        history.advance(timedelta(hours=1))
        follow(simulator)
        for run_id in history.run_ids(history.workflow_ids[0])[-3:]:
            history.reopen(run_id)
        follow(simulator)
        history.advance(timedelta(hours=1))
        follow(simulator)
    assert trackings == {"open", "final", "stale"}
    assert seen >= {
        "succeeded", "soft_failed", "failed", "cancelled", "skipped", "unfinished", "runs", "calls",
        "total_tokens",
    }  # fmt: skip


def test_a_populated_database_is_counted_after_its_upgrade(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision that queues every group counts nothing itself; the next refresh counts all."""
    query(database_url, (ROOT / "tests" / "faults" / "released" / "0001.sql").read_text())
    queue_all = "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES (NULL, NULL)"
    empty = [
        f"DELETE FROM orchestra.{table}"
        for table in ("step_rollup", "step_rollup_daily", "run_rollup", "step_failures")
    ]
    bring_later_revision(
        monkeypatch, tmp_path, [*empty, "DELETE FROM orchestra_etl.changed_groups", queue_all]
    )
    upgrade(database_url)
    database = Database(database_url)
    try:
        assert stored(database_url).hours == {}
        done = rollups.drain(database, batch=3)
        assert (done.groups > 3, done.waiting) == (True, 0)
        assert stored(database_url).failures != {}
        assert right(database, database_url)
    finally:
        database.close()


# Against any change of the tables.

_RUN = """
    INSERT INTO orchestra.runs (id, workflow_id, organization_id, state, status_source, tracking,
        start_time, end_time)
    VALUES (%s, %s, %s, %s, 'api', 'open', %s, %s)
    ON CONFLICT (id) DO UPDATE SET workflow_id = excluded.workflow_id,
        organization_id = excluded.organization_id,
        state = excluded.state, start_time = excluded.start_time, end_time = excluded.end_time
"""
_STEP = """
    INSERT INTO orchestra.steps (id, run_id, workflow_id, organization_id, position, content_hash,
        node_id, node_type, request_model, response_model, input_tokens, total_tokens,
        state, error, reported_error, start_time, end_time, absent_since, finish_reason)
    VALUES (%s, %s, %s, %s, 0, 'h', %s, %s, %s, %s, %s, %s,
        %s, to_jsonb(CAST(%s AS text)), %s, %s, %s, %s, %s)
    ON CONFLICT (id) DO UPDATE SET run_id = excluded.run_id, workflow_id = excluded.workflow_id,
        organization_id = excluded.organization_id,
        node_id = excluded.node_id, node_type = excluded.node_type,
        request_model = excluded.request_model, response_model = excluded.response_model,
        input_tokens = excluded.input_tokens, total_tokens = excluded.total_tokens,
        state = excluded.state, error = excluded.error, reported_error = excluded.reported_error,
        start_time = excluded.start_time, end_time = excluded.end_time,
        absent_since = excluded.absent_since, finish_reason = excluded.finish_reason
"""
STATES = (
    "succeeded",
    "succeeded",
    "succeeded",
    "failed",
    "cancelled",
    "skipped",
    "running",
    "pending",
    "unknown",
)


class Loads:
    """Random inserts and changes of runs and steps under ids of its own.

    It also deletes some if `deletes` is above 0.
    """

    def __init__(self, url: str, seed: int, size: int, *, deletes: float = 0.1) -> None:
        self._url = url
        self._size = size
        self._deletes = deletes
        self._random = Random(seed)
        self._name = f"{seed}"

    def work(self, times: int) -> None:
        """Commit this number of transactions."""
        with psycopg.connect(self._url) as connection:
            for _ in range(times):
                for number in sorted(self._random.sample(range(self._size), 3)):
                    self._change(connection, f"{self._name}-{number}")
                connection.commit()

    def _change(self, connection: psycopg.Connection[Any], run_id: str) -> None:
        pick, draw = self._random.choice, self._random.random
        if draw() < self._deletes:
            connection.execute("DELETE FROM orchestra.runs WHERE id = %s", [run_id])
            return
        workflow_id, organization_id = pick("vw"), pick((None, "o", "p"))
        connection.execute(
            _RUN, [run_id, workflow_id, organization_id, pick(STATES), *self._times()]
        )
        for step in sorted(self._random.sample(range(5), 3)):
            step_id, start_end = f"{run_id}-{step}", self._times()
            if draw() < self._deletes:
                connection.execute("DELETE FROM orchestra.steps WHERE id = %s", [step_id])
                continue
            connection.execute(
                _STEP,
                [
                    step_id, run_id, workflow_id, organization_id, pick(("a", "A", "ä", None)),
                    pick(("model", None)), pick((None, "m")), pick((None, "m", "M")),
                    pick((None, 0, 7)), pick((None, 9)), pick(STATES),
                    pick((None, "it broke at 17", "None")), pick((None, None, "refused")),
                    *start_end, START if draw() < 0.1 else None,
                    pick((None, None, "stop", "length")),
                ],
            )  # fmt: skip

    def _times(self) -> tuple[datetime | None, datetime | None]:
        if self._random.random() < 0.1:
            return None, None
        start = START + timedelta(seconds=self._random.uniform(-200_000, 200_000))
        seconds = self._random.choice((0, 0.0004, self._random.lognormvariate(0, 3), -5))
        return start, self._random.choice((None, start + timedelta(seconds=seconds)))


@pytest.mark.parametrize("seed", [1, *slow(2, 3)])
def test_random_loads(database: Database, database_url: str, seed: int) -> None:
    """After each refresh of random changes, every group that is not queued is right.

    In the end, all groups are right.
    """
    loads, random = Loads(database_url, seed, 8), Random(seed)
    for _ in range(25):
        loads.work(1)
        assert verified(database) == []
        database.transaction(lambda c: rollups.refresh(c, random.randint(5, 30)))
        assert verified(database) == []
    rollups.drain(database, batch=4)
    assert right(database, database_url)
    assert rollups.drain(database) == rollups.RefreshReport()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE orchestra.steps SET reported_error = NULL WHERE id = 's'",
        "UPDATE orchestra.steps SET reported_error = 'refused' WHERE id = 't'",
        "UPDATE orchestra.steps SET error = '\"refused\"' WHERE id = 't'",
        "UPDATE orchestra.steps SET absent_since = now() WHERE id = 's'",
        "UPDATE orchestra.steps SET run_id = 'q' WHERE id = 's'",
        "DELETE FROM orchestra.steps WHERE id = 's'",
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash,"
        " reported_error) VALUES ('u', 'q', 'w', 0, 'succeeded', 'h', 'refused')",
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash,"
        " start_time, error) VALUES ('u', 'q', 'w', 0, 'succeeded', 'h', '2026-03-01 11:00Z',"
        " '{\"code\": 5}')",
    ],
)
def test_a_step_alone_changes_its_run(database: Database, database_url: str, change: str) -> None:
    """A step that becomes or ceases to be a soft failure changes its run's count.

    That holds even if the run started in another hour.
    """
    query(
        database_url,
        """
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
            VALUES ('r', 'w', 'succeeded', 'api', 'final', '2026-03-01 10:59Z'),
                   ('q', 'w', 'succeeded', 'api', 'final', '2026-03-01 08:00Z');
        INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash,
            start_time, reported_error)
            VALUES ('s', 'r', 'w', 0, 'succeeded', 'h', '2026-03-01 11:00Z', 'refused'),
                   ('t', 'q', 'w', 0, 'succeeded', 'h', '2026-03-01 11:00Z', NULL);
        """,
    )
    rollups.drain(database)
    before = stored(database_url).runs
    query(database_url, change)
    rollups.drain(database)
    assert stored(database_url).runs != before
    assert right(database, database_url)


def test_loads_and_refreshers_at_once(database: Database, database_url: str) -> None:
    """Two loads and two refreshers run at the same time without an error or a deadlock."""
    problems: list[BaseException] = []
    loaded = threading.Event()

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    def refresh() -> None:
        while not loaded.is_set():
            rollups.drain(database, batch=2)

    loads = [Loads(database_url, seed, 6, deletes=0) for seed in (4, 5)]
    loaders = [
        threading.Thread(target=guarded, args=(lambda one=one: one.work(15),)) for one in loads
    ]
    refreshers = [threading.Thread(target=guarded, args=(refresh,)) for _ in range(2)]
    for thread in (*loaders, *refreshers):
        thread.start()
    for thread in loaders:
        thread.join()
    loaded.set()
    for thread in refreshers:
        thread.join()
    assert problems == []
    rollups.drain(database)
    assert right(database, database_url)
    deadlocks = query(
        database_url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == [{"deadlocks": 0}]


def test_a_deletion_during_a_refresh(database: Database, database_url: str) -> None:
    """A refresh waits for the deletion of a failed step and leaves the step out."""
    Loads(database_url, 13, 4).work(6)
    with psycopg.connect(database_url) as deleting:
        deleting.execute("DELETE FROM orchestra.steps WHERE state = 'failed'")
        done: list[rollups.RefreshReport] = []
        refresher = threading.Thread(target=lambda: done.append(rollups.drain(database)))
        refresher.start()
        wait_until(lambda: bool(query(database_url, "SELECT pid FROM pg_locks WHERE NOT granted")))
        deleting.commit()
        refresher.join()
    assert done[0].groups > 0
    rollups.drain(database)
    assert right(database, database_url)


def test_a_load_that_commits_during_a_refresh(database: Database, database_url: str) -> None:
    """Only one refresh runs at a time; what commits after its query is queued for the next one."""
    Loads(database_url, 6, 4).work(4)
    with psycopg.connect(database_url) as late:
        late.execute("UPDATE orchestra.steps SET state = 'failed', error = '\"late\"'")

        def refresh_beside(connection: Any) -> None:
            rollups.refresh(connection)
            assert database.transaction(rollups.refresh) == rollups.RefreshReport(busy=True)
            late.commit()

        database.transaction(refresh_beside)
    assert not right(database, database_url)
    assert verified(database) == []
    assert rollups.drain(database).groups > 0
    assert right(database, database_url)


def test_a_refresh_stops_between_two_batches(database: Database, database_url: str) -> None:
    """A refresh that is stopped keeps what it has committed, and reports what is left."""
    Loads(database_url, 7, 8).work(6)
    stops = iter((False, True))
    done = rollups.drain(database, batch=1, stopped=lambda: next(stops))
    assert (done.groups, done.waiting > 0) == (1, True)
    rollups.drain(database)
    assert right(database, database_url)


# Changes by hand, by an operator or by a setting.


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE orchestra.step_rollup SET total_tokens = total_tokens + 1",
         "step_rollup, step_rollup_daily"),
        ("UPDATE orchestra.step_rollup_daily SET counts = counts || 1,"
         " buckets = buckets || 999::smallint",
         "step_rollup_daily"),
        pytest.param(
            "UPDATE orchestra.step_rollup_daily SET day = day + 40", "step_rollup_daily",
            marks=pytest.mark.slow,
        ),
        ("DELETE FROM orchestra.run_rollup", "run_rollup"),
        pytest.param(
            "UPDATE orchestra.run_rollup SET hour = hour + interval '90 days'", "run_rollup",
            marks=pytest.mark.slow,
        ),
        ("UPDATE orchestra.step_failures SET pattern = 'x'", "step_failures"),
        pytest.param(
            "DELETE FROM orchestra.step_failures", "step_failures", marks=pytest.mark.slow
        ),
        ("INSERT INTO orchestra.step_failures"
         " SELECT id, run_id, 'w', NULL, NULL, '2001-01-01Z', 'failed', '', '', ''"
         " FROM orchestra.steps WHERE state = 'skipped'", "step_failures"),
    ],
)  # fmt: skip
def test_a_difference_is_found_and_repaired(
    database: Database, database_url: str, change: str, what: str
) -> None:
    """A manual change of a rollup is found with workflow and hour.

    A refresh of all groups repairs it.
    """
    Loads(database_url, 9, 8).work(12)
    rollups.drain(database)
    assert verified(database) == []
    assert stored(database_url).failures != {}
    query(database_url, change)
    found = verified(database)
    assert set(what.split(", ")) == {name for one in found for name in one.what.split(", ")}
    assert {one.workflow_id for one in found} <= {"v", "w"}
    assert all((one.at.minute, one.at.second) == (0, 0) for one in found)
    rollups.drain(database)
    assert verified(database) == found
    database.transaction(changed_groups.queue_all)
    assert verified(database) == []
    rollups.drain(database, batch=5)
    assert right(database, database_url)


def test_erased_runs_are_not_counted(database: Database, database_url: str) -> None:
    """An erasure deletes failures and adjusts the counts; no refresh is left to do."""
    Loads(database_url, 10, 6).work(12)
    rollups.drain(database)
    (run_id,) = {row[0] for row in list(stored(database_url).failures.values())[:1]}
    query(database_url, "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source)"
                        " SELECT id, workflow_id, 'list' FROM orchestra.runs")  # fmt: skip
    before = stored(database_url)
    erase.erase(database, Selection(runs=(run_id,)))
    assert run_id not in {row[0] for row in stored(database_url).failures.values()}
    assert stored(database_url).hours != before.hours
    assert rollups.drain(database) == rollups.RefreshReport()
    assert right(database, database_url)


def test_pruned_runs_stay_counted(tmp_path: Path, database_url: str, database: Database) -> None:
    """Pruning deletes the rows of failures and no count, even if the hours are recomputed."""
    history = History(
        seed=5, workflows=1, runs_per_workflow=10, live=0, arrivals_per_minute=0, failure_rate=0.9,
        spacing=timedelta(days=6),
    )  # fmt: skip
    with Simulator(history).in_thread() as simulator:
        variables = environment(database_url, simulator.base_url)
        asyncio.run(sync(load(tmp_path, configuration(*history.workflow_ids), variables)))
    rollups.drain(database)
    before = stored(database_url)
    wanted = database.transaction(
        lambda c: expired.horizons(c, payloads=None, runs=5.1 * 6 * 86400)
    )
    assert retention.prune(database, wanted).runs == 5
    young = set(history.run_ids(history.workflow_ids[0])[:5])
    kept = before._replace(
        failures={one: row for one, row in before.failures.items() if row[0] in young}
    )
    assert stored(database_url) == kept != before
    database.transaction(changed_groups.queue_all)
    done = rollups.drain(database, batch=2)
    assert done.groups >= 10
    assert stored(database_url) == kept
    assert verified(database) == []
    query(database_url, "UPDATE orchestra.step_rollup_daily SET failed = failed + 1")
    [days] = query(
        database_url,
        "SELECT count(DISTINCT (workflow_id, day)) AS n FROM orchestra.step_rollup_daily",
    )
    assert len(verified(database)) == days["n"] >= 9
    database.transaction(changed_groups.queue_all)
    rollups.drain(database)
    assert stored(database_url) == kept


def test_a_changed_state_map_is_counted(database: Database, database_url: str) -> None:
    """If the configuration maps a status to another state, the next refresh counts by it."""
    Loads(database_url, 11, 6).work(12)
    query(database_url, "UPDATE orchestra.steps SET status = 'done' WHERE state = 'succeeded'")
    query(database_url, "UPDATE orchestra.runs SET status = 'done' WHERE state = 'succeeded'")
    rollups.drain(database)
    before = stored(database_url)
    database.transaction(lambda c: state_map.apply(c, {"done": "failed"}, lambda _: "failed"))
    rollups.drain(database)
    after = stored(database_url)
    assert len(after.failures) > len(before.failures)
    assert not any(
        "succeeded" in group.counts for group in (*after.hours.values(), *after.runs.values())
    )
    assert right(database, database_url)


def test_an_unchanged_history_queues_nothing(database: Database, database_url: str) -> None:
    """A statement that changes no row queues no group."""
    Loads(database_url, 12, 6).work(6)
    rollups.drain(database)
    query(database_url, "UPDATE orchestra.steps SET state = 'failed' WHERE false")
    query(database_url, "DELETE FROM orchestra.runs WHERE false")
    columns = "id, workflow_id, state, status_source, tracking"
    query(
        database_url,
        f"INSERT INTO orchestra.runs ({columns}) SELECT {columns} FROM orchestra.runs ON CONFLICT"
        " DO NOTHING",
    )
    assert rollups.drain(database) == rollups.RefreshReport()


def test_a_long_refresh_logs_its_progress(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long refresh logs how many groups are done and how many wait."""
    monkeypatch.setattr(rollups, "LOG_EVERY", 0.0)
    Loads(database_url, 12, 6).work(6)
    with capture_logs() as lines:
        done = rollups.drain(database, batch=2)
    progress = [
        (line["groups"], line["waiting"])
        for line in lines
        if line["event"] == "rollup_refresh_progressed"
    ]
    assert len(progress) > 1
    assert [groups for groups, _ in progress] == sorted({groups for groups, _ in progress})
    assert progress[-1][0] < done.groups
    assert progress[-1][1] < progress[0][1]


@pytest.mark.parametrize(
    "statement",
    [rollups.STEPS[True].rollup.compute, rollups.RUNS.compute, rollups._COMPUTE_FAILURES],
)
def test_a_refresh_reads_only_its_hours(
    database: Database, database_url: str, statement: TextClause
) -> None:
    """The queries read only runs and steps of the hours in question, with or without a start."""
    query(
        database_url,
        """INSERT INTO orchestra.runs
               (id, workflow_id, state, status_source, tracking, first_seen_at)
           SELECT n, 'w', 'pending', 'api', 'open',
               TIMESTAMPTZ '2026-01-01 00:30Z' + make_interval(hours => n)
           FROM generate_series(1, 3000) AS n""",
    )
    query(
        database_url,
        """INSERT INTO orchestra.steps
               (id, run_id, workflow_id, position, state, content_hash, first_seen_at)
           SELECT id, id, workflow_id, 0, 'skipped', '', first_seen_at FROM orchestra.runs""",
    )
    query(
        database_url,
        """INSERT INTO orchestra.steps
               (id, run_id, workflow_id, position, state, content_hash, start_time)
           SELECT id || ' started', id, workflow_id, 0, 'failed', '', first_seen_at
               FROM orchestra.runs""",
    )
    query(database_url, "ANALYZE orchestra.runs, orchestra.steps")
    hours = [datetime(2026, 1, 2, tzinfo=UTC) + timedelta(hours=n) for n in range(200)]
    group = {"workflow_ids": ["w"] * len(hours), "hours": hours}

    def left_out(node: dict[str, Any]) -> float:
        removed = sum(
            float(count) for name, count in node.items() if name.startswith("Rows Removed by")
        )
        assert node["Node Type"] != "Seq Scan", node
        return removed * float(node["Actual Loops"]) + sum(map(left_out, node.get("Plans", ())))

    with psycopg.connect(database_url) as connection:
        dialect = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
        compiled = str(statement.compile(dialect=dialect))
        [[[explained]]] = connection.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}", group
        ).fetchall()
    # Only the skipped steps of these hours, which are no failures, may be filtered out.
    assert left_out(explained["Plan"]) <= len(hours)

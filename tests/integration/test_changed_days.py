"""The queue of changed days: no committed change is lost, for any transactions beside it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection

from etl.database import Database
from etl.export import changes, completeness, day_digest, day_reader, origin, state
from etl.export.destination import Destination
from etl.export.lake_tables import day_tables
from tests.support import query

FIRST, SECOND = date(2026, 11, 1), date(2026, 11, 2)
_RUN = """
    INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
    VALUES (%s, 'w', 'succeeded', 'api', 'final', %s)
"""
_STEP = """
    INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)
    VALUES (%s, %s, 'w', 0, 'succeeded', 'h')
"""


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database in which an export has been set up, with a run on the first day."""
    _run(database_url, "first", FIRST)
    database.transaction(lambda c: state.activate(c, Destination("/lake", payloads=True)))
    return database


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def _run(url: str, run_id: str, day: date) -> None:
    query(url, _RUN, run_id, _noon(day))


def _take(database: Database) -> list[date]:
    """Take the queued days, as an export does."""

    def work(connection: Connection) -> list[date]:
        found = changes.changed_days(connection)
        changes.dequeue(connection, found)
        return found

    return database.in_one_snapshot(work)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES ('new', 'w', 'failed', 'api', 'final', '2026-11-01T23:59:59.999999Z')",
        "UPDATE orchestra.runs SET tracking = 'gone' WHERE id = 'first'",
        "UPDATE orchestra.steps SET absent_since = now() WHERE run_id = 'first'",
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)"
        " VALUES ('new', 'first', 'w', 1, 'failed', 'h')",
        "DELETE FROM orchestra.steps WHERE run_id = 'first'",
        "DELETE FROM orchestra.runs WHERE id = 'first'",
        "UPDATE orchestra.inputs SET data = NULL, note = 'pruned'",
        "DELETE FROM orchestra.outputs",
        "UPDATE orchestra.run_payloads SET inputs = NULL, note = 'inputs: pruned'",
        "DELETE FROM orchestra.run_payloads",
        "TRUNCATE orchestra.inputs",
    ],
)
def test_every_write_queues_its_day(database: Database, database_url: str, statement: str) -> None:
    """Each kind of write to the history queues the day of its run, and no other day."""
    query(database_url, _STEP, "step", "first")
    for table in ("inputs", "outputs"):
        query(
            database_url,
            f"INSERT INTO orchestra.{table} (step_id, data, size_bytes) VALUES ('step', '1', 1)",
        )
    query(database_url, "INSERT INTO orchestra.run_payloads (run_id, inputs) VALUES ('first', '1')")
    _run(database_url, "second", SECOND)
    query(
        database_url,
        "INSERT INTO orchestra_etl.export_days (day, digest) VALUES (%s, 'd')", FIRST,
    )  # fmt: skip
    _take(database)
    query(database_url, statement)
    assert _take(database) == [FIRST]
    assert _take(database) == []


def test_nothing_is_queued_without_an_export(database_url: str) -> None:
    """Where no export is set up, no write adds to the queue."""
    _run(database_url, "first", FIRST)
    query(database_url, _STEP, "step", "first")
    query(database_url, "DELETE FROM orchestra.runs")
    assert query(database_url, "SELECT * FROM orchestra_etl.changed_days") == []


def test_without_payloads_a_changed_payload_queues_nothing(
    database: Database, database_url: str
) -> None:
    """An export without payloads is not started by a payload that is pruned."""
    query(database_url, "INSERT INTO orchestra.run_payloads (run_id, inputs) VALUES ('first', '1')")
    query(database_url, "UPDATE orchestra_etl.export_state SET payloads = false")
    _take(database)
    query(database_url, "UPDATE orchestra.run_payloads SET inputs = NULL")
    assert _take(database) == []


def test_a_run_that_moves_changes_both_days(database: Database, database_url: str) -> None:
    """When a run's start moves to another day, both days are queued, the newest first."""
    _take(database)
    query(database_url, "UPDATE orchestra.runs SET start_time = %s", _noon(SECOND))
    assert _take(database) == [SECOND, FIRST]


def test_a_transaction_that_commits_late_is_not_lost(database: Database, database_url: str) -> None:
    """A change that commits after an export, but was made before it, is in the next export.

    The control: a watermark of `updated_at` loses it.
    """
    _take(database)
    with psycopg.connect(database_url) as late:
        late.execute(_RUN, ["late", _noon(FIRST)])
        _run(database_url, "early", SECOND)
        assert _take(database) == [SECOND]
        [watermark] = query(database_url, "SELECT max(updated_at) AS at FROM orchestra.runs")
    assert _take(database) == [FIRST]
    newer = "SELECT id FROM orchestra.runs WHERE updated_at > %s"
    assert query(database_url, newer, watermark["at"]) == [], "the control found the late run"


def test_a_change_during_an_export_stays_queued(database: Database, database_url: str) -> None:
    """A change of the same day, made while the export runs, is left for the next one."""

    def work(connection: Connection) -> list[date]:
        found = changes.changed_days(connection)
        query(database_url, "UPDATE orchestra.runs SET state = 'failed'")
        changes.dequeue(connection, found)
        return found

    query(database_url, "UPDATE orchestra.runs SET state = 'running'")
    assert database.in_one_snapshot(work) == [FIRST]
    assert _take(database) == [FIRST]


def test_savepoints_and_rollbacks_queue_what_is_committed(
    database: Database, database_url: str
) -> None:
    """A change in a savepoint is queued with its transaction; one that is rolled back is not."""
    _take(database)
    with psycopg.connect(database_url) as writer:
        with writer.transaction():
            writer.execute(_RUN, ["kept", _noon(FIRST)])
            with writer.transaction() as inner:
                writer.execute(_RUN, ["undone", _noon(SECOND)])
                raise psycopg.Rollback(inner)
        with writer.transaction() as outer:
            writer.execute(_RUN, ["undone", _noon(SECOND)])
            raise psycopg.Rollback(outer)
        with writer.transaction():
            with writer.transaction() as inner:
                writer.execute(_RUN, ["undone", _noon(SECOND)])
                raise psycopg.Rollback(inner)
            writer.execute(_RUN, ["again", _noon(SECOND)])
    rows = query(database_url, "SELECT day FROM orchestra_etl.changed_days ORDER BY day")
    assert [row["day"] for row in rows] == [FIRST, SECOND]
    assert _take(database) == [SECOND, FIRST]


def test_a_transaction_queues_a_day_once(database: Database, database_url: str) -> None:
    """However many statements a transaction has, it adds one row a day."""
    _take(database)
    with psycopg.connect(database_url) as writer:
        for number in range(5):
            writer.execute(_RUN, [str(number), _noon(FIRST)])
            writer.execute(_STEP, [str(number), str(number)])
    assert len(query(database_url, "SELECT * FROM orchestra_etl.changed_days")) == 1


def test_steps_queue_the_day_of_a_run_that_another_transaction_wrote(
    database: Database, database_url: str
) -> None:
    """A step queues its day, whether its own transaction, another or a savepoint wrote the run."""
    _take(database)
    with psycopg.connect(database_url) as writer:
        writer.execute(_RUN, ("second", _noon(SECOND)))
        writer.execute(_STEP, ("with-run", "second"))
        writer.execute(_STEP, ("of-another", "first"))
    assert _take(database) == [SECOND, FIRST]
    query(database_url, _STEP, "alone", "second")
    assert _take(database) == [SECOND]
    with psycopg.connect(database_url) as writer:
        writer.execute("SAVEPOINT s")
        writer.execute("UPDATE orchestra.runs SET status = 'x' WHERE id = 'second'")
        writer.execute("ROLLBACK TO SAVEPOINT s")
        writer.execute(_STEP, ("after-rollback", "second"))
    assert _take(database) == [SECOND]


def test_a_step_cannot_be_left_in_the_former_day_of_its_run(
    database: Database, database_url: str
) -> None:
    """While a step's write is not committed, its run cannot move to another day."""
    with psycopg.connect(database_url) as step, psycopg.connect(database_url) as mover:
        step.execute(_STEP, ["step", "first"])
        mover.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            mover.execute("UPDATE orchestra.runs SET start_time = %s", [_noon(SECOND)])


def test_writers_in_flight_are_awaited_when_the_export_begins(database_url: str) -> None:
    """The first export waits for transactions that were writing before changes were queued."""
    impatient = Database(database_url, patience=0, lock_timeout=0.1)
    with psycopg.connect(database_url) as writer:
        writer.execute(_RUN, ["late", _noon(FIRST)])
        with pytest.raises(Exception, match="lock"):
            impatient.transaction(lambda c: state.activate(c, Destination("/lake")))
    impatient.close()


@pytest.mark.parametrize(
    ("start", "first_seen", "day"),
    [
        ("2026-11-01T23:59:59.999999Z", "2026-11-05", "2026-11-01"),
        (None, "2026-11-05T00:00Z", "2026-11-05"),
        ("infinity", "2026-11-05", "2026-11-05"),
        ("0044-03-15 BC", "2026-11-05", "2026-11-05"),
        ("10000-01-01", "2026-11-05", "2026-11-05"),
        ("9999-12-31T23:59:59Z", "2026-11-05", "9999-12-31"),
        ("-infinity", "infinity", "0001-01-01"),
    ],
)
def test_every_run_has_a_day(
    read_only_database_url: str, start: str | None, first_seen: str, day: str
) -> None:
    """A run's day is that of its start, else of its first sight, and always a date of Python."""
    [row] = query(
        read_only_database_url,
        "SELECT orchestra_etl.run_day(%s::timestamptz, %s::timestamptz) AS day", start, first_seen,
    )  # fmt: skip
    assert row["day"] == date.fromisoformat(day)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("system_identifier = '1'", "not the PostgreSQL cluster that was exported"),
        ("timeline = 77", "restored or promoted"),
        ("database_oid = 1", "not the database that was exported"),
        ("snapshot = '9000000000:9000000000:'", "a time before the last export"),
        ("snapshot = pg_current_snapshot()", None),
    ],
)
def test_a_restored_database_is_recognised(
    database: Database, database_url: str, change: str, reason: str | None
) -> None:
    """Another server, timeline or database, or older transaction ids, make the lake unknown."""
    assert database.transaction(origin.why_invalid) is None
    query(database_url, f"UPDATE orchestra_etl.export_state SET {change}")
    found = database.transaction(origin.why_invalid)
    assert found is None if reason is None else reason in str(found)


def test_the_origin_is_what_the_server_says(database: Database, database_url: str) -> None:
    """The origin has the control file's identifier, and the timeline of a new server."""
    [row] = query(database_url, "SELECT system_identifier::text AS id FROM pg_control_system()")
    [found] = query(
        database_url, "SELECT system_identifier, timeline FROM orchestra_etl.export_state"
    )
    assert found == {"system_identifier": row["id"], "timeline": 1}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orchestra.runs SET tracking = tracking",
        "UPDATE orchestra.steps SET position = 1",
        "UPDATE orchestra.inputs SET data = NULL, note = 'pruned'",
        "DELETE FROM orchestra.outputs",
        "UPDATE orchestra.run_payloads SET inputs = NULL",
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)"
        " VALUES ('x', 'first', 'w', 1, 'failed', 'h')",
    ],
)
def test_a_digest_changes_with_every_write(
    database: Database, database_url: str, statement: str
) -> None:
    """The digest of a day changes with any write to it, even with the triggers off."""
    query(database_url, _STEP, "step", "first")
    for table in ("inputs", "outputs"):
        query(
            database_url,
            f"INSERT INTO orchestra.{table} (step_id, data, size_bytes) VALUES ('step', '1', 1)",
        )
    query(database_url, "INSERT INTO orchestra.run_payloads (run_id, inputs) VALUES ('first', '1')")
    _run(database_url, "second", SECOND)

    def describe(day: date) -> str:
        def work(connection: Connection) -> str:
            day_reader.prepare(connection)
            return day_digest.describe(connection, day_tables(payloads=True), day)

        return database.transaction(work)

    before, other = describe(FIRST), describe(SECOND)
    assert describe(FIRST) == before
    with psycopg.connect(database_url) as writer:
        writer.execute("SET session_replication_role = replica")
        writer.execute(statement + (" WHERE id = 'first'" if "tracking" in statement else ""))
    assert describe(FIRST) != before
    assert describe(SECOND) == other


def _completeness(database: Database, day: date) -> completeness.Completeness:
    return database.transaction(lambda c: completeness.describe(c, [day]))[day]


def test_a_day_is_complete_up_to_the_last_sweep_and_the_first_unread_run(
    database: Database, database_url: str
) -> None:
    """A day ends complete at its midnight, the last sweep, or its first run that is not read."""
    assert _completeness(database, FIRST).complete_until is None
    sweep = "INSERT INTO orchestra_etl.sweeps (workflow_id, watermark, started_at, swept_at)"
    query(database_url, f"{sweep} VALUES ('w', 1, %s, %s)", _noon(SECOND), _noon(SECOND))
    assert _completeness(database, FIRST).complete_until == _noon(SECOND) - timedelta(hours=12)
    assert _completeness(database, SECOND).complete_until == _noon(SECOND)
    entry = (
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, start_time, tracking)"
    )
    query(database_url, f"{entry} VALUES ('unread', 'w', 'list', '2026-11-01T03:00Z', 'open')")
    assert _completeness(database, FIRST).complete_until == _noon(FIRST) - timedelta(hours=9)
    assert _completeness(database, SECOND).complete_until == _noon(SECOND)
    query(database_url, "UPDATE orchestra_etl.run_ledger SET steps_observed_at = now()")
    assert _completeness(database, FIRST).complete_until == _noon(SECOND) - timedelta(hours=12)
    query(database_url, f"{sweep} VALUES ('new', 0, %s, NULL)", _noon(SECOND))
    assert _completeness(database, FIRST).complete_until is None


def test_days_are_as_complete_as_the_coverage_says(database: Database, database_url: str) -> None:
    """The days agree with the view coverage, and settled runs of the ledger are not read for it."""
    query(
        database_url,
        "INSERT INTO orchestra_etl.sweeps (workflow_id, watermark, started_at, swept_at,"
        " complete_until) VALUES ('v', 1, %s, %s, NULL), ('w', 1, now(), now(), %s)",
        *(_noon(SECOND), _noon(SECOND), _noon(SECOND) - timedelta(hours=3)),
    )
    query(
        database_url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, start_time, tracking,"
        " steps_observed_at) SELECT 'r' || n, 'w', 'list', now(), 'final', now()"
        " FROM generate_series(1, 3000) AS n",
    )
    [row] = query(database_url, "SELECT min(complete_until) AS until FROM orchestra.coverage")
    assert row["until"] == _completeness(database, SECOND).complete_until
    assert row["until"] == _noon(SECOND) - timedelta(hours=3)
    query(database_url, "ANALYZE orchestra_etl.run_ledger")
    statement = completeness._DAYS.format(days=f"CAST('{{{SECOND}}}' AS date[])")
    [plan] = query(database_url, f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
    assert _rows_read(plan["QUERY PLAN"][0]["Plan"], "run_ledger") < 100
    query(
        database_url,
        "INSERT INTO orchestra_etl.dead_letters (run_id, workflow_id, reason, detail, content_hash,"
        " body) VALUES ('r1', 'v', 'id_conflict', 'd', '', '')",
    )
    assert _completeness(database, SECOND).complete_until is None


def _rows_read(plan: dict[str, Any], table: str) -> int:
    """Return the rows that a plan has read of a table."""
    read = 0
    if plan.get("Relation Name") == table:
        read = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return round(read) + sum(_rows_read(one, table) for one in plan.get("Plans", []))


def test_gaps_and_lost_runs_count_for_the_days_that_they_touch(
    database: Database, database_url: str
) -> None:
    """A gap counts for each day it touches, and a run that the API forgot unread for its own."""
    query(
        database_url,
        "INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail)"
        " VALUES ('w', %s, %s, 'd'), ('w', '2026-10-01Z', '2026-10-02Z', 'd')",
        _noon(FIRST),
        _noon(SECOND),
    )
    query(
        database_url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, start_time, tracking)"
        " VALUES ('lost', 'w', 'list', %s, 'gone')",
        _noon(SECOND),
    )
    third = SECOND + timedelta(days=1)
    found = [_completeness(database, day).gaps for day in (FIRST, SECOND, third)]
    assert found == [1, 2, 0]


def test_a_day_closes_without_a_change(database: Database, database_url: str) -> None:
    """When sweeps pass the end of an exported day, its row says so, and nothing is queued."""
    query(
        database_url,
        "INSERT INTO orchestra_etl.export_days (day, digest) VALUES (%s, 'd')", FIRST,
    )  # fmt: skip
    query(
        database_url,
        "INSERT INTO orchestra_etl.sweeps (workflow_id, watermark, started_at, swept_at)"
        " VALUES ('w', 1, %s, %s)",
        _noon(SECOND),
        _noon(SECOND),
    )
    _take(database)
    assert database.transaction(completeness.refresh) == 1
    assert database.transaction(completeness.refresh) == 0
    [row] = query(database_url, "SELECT complete_until FROM orchestra_etl.export_days")
    assert row["complete_until"] == _noon(SECOND) - timedelta(hours=12)
    assert _take(database) == []

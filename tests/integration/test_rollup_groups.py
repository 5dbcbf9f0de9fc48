"""The hour of runs and steps that have no start, move, or are pruned."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from etl.admin import expired, retention
from etl.analytics import rollups, verification
from etl.database import Database
from tests.rollup_oracle import counted_rows, stored
from tests.support import query, wait_until

NOW = datetime.now(UTC)
MONTHS_AGO = NOW.replace(minute=30, second=0, microsecond=0) - timedelta(days=100)


@pytest.fixture
def database(database: Database) -> Database:
    """Provide a database whose first refresh is done."""
    rollups.drain(database)
    return database


def enter(
    url: str,
    run: str,
    start: datetime | None,
    end: datetime | None = None,
    *,
    state: str = "succeeded",
) -> None:
    """Store a run of workflow w, with a ledger row, as loaded now."""
    tracking = "stale" if end is None else "final"
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time,"
        " end_time) VALUES (%s, 'w', %s, 'api', %s, %s, %s)",
        run, state, tracking, start, end,
    )  # fmt: skip
    query(
        url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking)"
        " VALUES (%s, 'w', 'list', %s)",
        run, tracking,
    )  # fmt: skip


def add(
    url: str,
    run: str,
    step: str,
    start: datetime | str | None,
    *,
    state: str = "succeeded",
    **more: Any,
) -> None:
    """Store a step of the run; `more` are columns."""
    columns = {
        "id": step,
        "run_id": run,
        "workflow_id": "w",
        "position": 0,
        "state": state,
        "start_time": start,
    }
    columns |= {"end_time": start, "content_hash": b"", **more}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    query(url, f"INSERT INTO orchestra.steps ({names}) VALUES ({marks})", *columns.values())


def hours(url: str, *counts: str) -> dict[datetime, int]:
    """Return the number of steps of these outcomes in each hour."""
    rows = query(
        url,
        f"SELECT hour, CAST(sum({' + '.join(counts)}) AS int) AS n FROM orchestra.step_rollup"
        " GROUP BY 1",
    )
    return {row["hour"]: row["n"] for row in rows if row["n"]}


def prune(database: Database, before: datetime) -> int:
    """Remove the runs that had ended at this time, and return their number.

    The horizon is this time, however long the test takes.
    """

    def horizons(connection: Connection) -> expired.Horizons:
        age = text(
            "SELECT CAST(extract(epoch FROM now() - CAST(:before AS timestamptz)) AS double"
            " precision)"
        )
        seconds = connection.execute(age, {"before": before}).scalar_one()
        return expired.horizons(connection, payloads=None, runs=seconds)

    return retention.prune(database, database.transaction(horizons)).runs


def test_steps_without_a_start_count_with_their_run(database: Database, database_url: str) -> None:
    """Steps without a start count in the hour of their run, as do their failures.

    The run is old, but loaded today.
    """
    enter(database_url, "old", MONTHS_AGO, MONTHS_AGO + timedelta(minutes=1))
    add(database_url, "old", "skipped", None, state="skipped")
    add(database_url, "old", "failed", None, state="failed", error='"no"')
    add(database_url, "old", "done", MONTHS_AGO)
    rollups.drain(database)

    then = MONTHS_AGO.replace(minute=0)
    assert hours(database_url, "succeeded", "skipped", "failed") == {then: 3}
    assert query(database_url, "SELECT time FROM orchestra.failures") == [{"time": MONTHS_AGO}]
    assert stored(database_url) == counted_rows(database_url)
    assert database.transaction(verification.verify).ok


def test_steps_without_a_start_move_with_their_run(database: Database, database_url: str) -> None:
    """Steps without a start move with their run when its start changes.

    A step that gets its own start leaves the hour of the run.
    """
    enter(database_url, "run", None)
    add(database_url, "run", "skipped", None, state="skipped")
    rollups.drain(database)
    for start in (MONTHS_AGO, MONTHS_AGO + timedelta(hours=5), None):
        query(database_url, "UPDATE orchestra.runs SET start_time = %s", start)
        rollups.drain(database)
        assert stored(database_url) == counted_rows(database_url)
        assert start is None or set(hours(database_url, "skipped")) == {start.replace(minute=0)}
    query(database_url, "UPDATE orchestra.steps SET start_time = %s", MONTHS_AGO)
    rollups.drain(database)
    assert hours(database_url, "skipped") == {MONTHS_AGO.replace(minute=0): 1}
    query(database_url, "DELETE FROM orchestra.runs")
    rollups.drain(database)
    assert stored(database_url) == counted_rows(database_url)


def test_pruned_runs_stay_counted(database: Database, database_url: str) -> None:
    """Skipped and late steps of pruned runs stay counted.

    A run is kept until all its steps are before the horizon.
    """
    enter(database_url, "skipping", MONTHS_AGO, MONTHS_AGO + timedelta(minutes=1))
    add(database_url, "skipping", "skipped", None, state="skipped")
    enter(database_url, "stale", NOW - timedelta(days=91), state="running")
    add(database_url, "stale", "early", NOW - timedelta(days=91))
    add(database_url, "stale", "late", NOW - timedelta(days=88))
    enter(database_url, "skewed", NOW - timedelta(days=92), NOW - timedelta(days=92))
    add(database_url, "skewed", "after its end", NOW - timedelta(days=89))
    enter(database_url, "never started", None, MONTHS_AGO)
    rollups.drain(database)
    before = stored(database_url)

    assert prune(database, NOW - timedelta(days=90)) == 1
    rollups.drain(database)
    assert stored(database_url)._replace(failures={}) == before._replace(failures={})
    # A run loaded today without a start counts today, and is pruned no sooner.
    assert prune(database, NOW - timedelta(days=80)) == 2
    rollups.drain(database)
    assert stored(database_url)._replace(failures={}) == before._replace(failures={})
    assert query(database_url, "SELECT id FROM orchestra.runs") == [{"id": "never started"}]


def test_late_runs_of_a_partly_pruned_hour_count(database: Database, database_url: str) -> None:
    """A run that is loaded late is counted, even if its hour is pruned in part."""
    runs = "SELECT CAST(sum(runs) AS int) AS n FROM orchestra.workflow_hourly"
    enter(database_url, "old", MONTHS_AGO, MONTHS_AGO)
    add(database_url, "old", "step of old", MONTHS_AGO, node_id="n", input_tokens=7)
    for loaded, minutes in enumerate((5, 35, 55), 2):
        prune(database, MONTHS_AGO.replace(minute=minutes))
        late = f"late {minutes}"
        enter(database_url, late, MONTHS_AGO, MONTHS_AGO)
        add(database_url, late, f"step of {late}", MONTHS_AGO, node_id="n", input_tokens=7)
        rollups.drain(database)
        assert query(database_url, runs) == [{"n": loaded}]
    before = stored(database_url)
    for minutes in (60, 120):
        prune(database, MONTHS_AGO.replace(minute=0) + timedelta(minutes=minutes))
        enter(database_url, f"later {minutes}", MONTHS_AGO, MONTHS_AGO, state="failed")
        rollups.drain(database)
    assert query(database_url, runs) == [{"n": 6}]
    after = stored(database_url)
    assert (after.hours, after.days) == (before.hours, before.days)
    assert prune(database, NOW - timedelta(days=90)) == 1
    rollups.drain(database)
    assert stored(database_url) == after
    assert database.transaction(verification.verify).ok


def test_a_run_that_is_open_while_the_horizon_passes(database: Database, database_url: str) -> None:
    """A run that is open as the horizon passes counts in the hour of its start when it ends.

    The same holds for a run that is first listed then. Runs pruned beside them stay counted.
    """
    enter(database_url, "over", MONTHS_AGO, MONTHS_AGO + timedelta(seconds=1))
    add(database_url, "over", "a", MONTHS_AGO, end_time=MONTHS_AGO + timedelta(seconds=1))
    enter(database_url, "open", MONTHS_AGO, state="running")
    query(
        database_url, "UPDATE orchestra_etl.run_ledger SET tracking = 'open' WHERE run_id = 'open'"
    )
    add(database_url, "open", "b", MONTHS_AGO, state="running", end_time=None)
    rollups.drain(database)
    assert prune(database, NOW - timedelta(days=90)) == 1
    rollups.drain(database)
    for run in ("open", "listed late"):
        if run == "listed late":
            enter(database_url, run, MONTHS_AGO, NOW)
            add(database_url, run, "c", MONTHS_AGO, end_time=NOW)
        query(
            database_url,
            "UPDATE orchestra.runs SET state = 'succeeded', end_time = %s WHERE id = %s",
            NOW,
            run,
        )
        query(
            database_url,
            "UPDATE orchestra.steps SET state = 'succeeded', end_time = %s WHERE run_id = %s",
            NOW,
            run,
        )
        rollups.drain(database)
        assert database.transaction(verification.verify).ok
    counted = (
        "SELECT CAST(sum(succeeded) AS int) AS n, CAST(sum(unfinished) AS int) AS open"
        " FROM orchestra."
    )
    assert query(database_url, counted + "workflow_hourly") == [{"n": 3, "open": 0}]
    for view in ("node_hourly", "node_daily"):
        assert query(database_url, counted + view) == [{"n": 3, "open": 0}]
    quantile = (
        "SELECT orchestra.duration_quantile(buckets, counts, 1.0) > 8e9 AS long"
        " FROM orchestra.workflow_hourly"
    )
    assert [row["long"] for row in query(database_url, quantile)].count(True) == 1
    # A difference before the horizon is reported, too.
    query(database_url, "UPDATE orchestra.run_rollup SET succeeded = 7 WHERE ordinal > 0")
    assert not database.transaction(verification.verify).ok


def test_a_step_beside_a_run_that_moves(database: Database, database_url: str) -> None:
    """A soft failure written while its run moves to another hour counts in the new hour.

    The order of the two commits does not matter.
    """
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO)
    rollups.drain(database)

    def soft_failure() -> None:
        add(database_url, "run", "step", MONTHS_AGO, reported_error="refused")

    with psycopg.connect(database_url) as mover:
        mover.execute(
            "UPDATE orchestra.runs SET start_time = start_time + interval '2 hours',"
            " end_time = NULL"
        )
        writer = threading.Thread(target=soft_failure)
        writer.start()
        waits = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%%orchestra.steps%%'"
        )
        wait_until(lambda: query(database_url, waits)[0]["n"] == 1)
        mover.commit()
        rollups.drain(database)
        writer.join(10)
    rollups.drain(database)

    assert stored(database_url) == counted_rows(database_url)
    assert query(database_url, "SELECT soft_failed FROM orchestra.workflow_hourly") == [
        {"soft_failed": 1}
    ]
    assert database.transaction(verification.verify).ok


def test_a_refresh_can_leave_out_days_that_just_changed(
    database: Database, database_url: str
) -> None:
    """With `settled`, a day of which one hour has just changed stays queued as a whole."""
    first = MONTHS_AGO.replace(hour=1)
    changing, before = first + timedelta(hours=1), first - timedelta(days=1)
    for start in (first, changing, before):
        enter(database_url, f"run {start}", start, start)
        add(database_url, f"run {start}", f"step {start}", start)
    query(
        database_url,
        "UPDATE orchestra_etl.changed_groups SET queued_at = now() - interval '1 hour'"
        " WHERE hour <> %s",
        changing.replace(minute=0),
    )
    assert rollups.drain(database, settled=1800.0).waiting == 0
    assert set(hours(database_url, "succeeded")) == {before.replace(minute=0)}

    rollups.drain(database)
    assert len(hours(database_url, "succeeded")) == 3


@pytest.mark.parametrize("settled", [0.0, 1.0])
def test_a_clock_that_was_set_back_puts_no_refresh_off(
    database: Database, database_url: str, settled: float
) -> None:
    """Groups that were queued at a time that is still to come are refreshed."""
    start = MONTHS_AGO.replace(hour=1)
    enter(database_url, "run", start, start)
    add(database_url, "run", "step", start)
    query(
        database_url,
        "UPDATE orchestra_etl.changed_groups SET queued_at = now() + interval '1 hour'",
    )
    rollups.drain(database, settled=settled)
    assert len(hours(database_url, "succeeded")) == 1

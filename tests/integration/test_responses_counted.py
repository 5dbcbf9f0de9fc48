"""The rollups count responses since revision 0006; what is not counted is null, and never wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from etl.admin import expired, retention
from etl.analytics import changed_groups, rollups, uncounted, verification
from etl.database import Database
from etl.schema import upgrade
from tests.conftest import ROOT
from tests.rollup_oracle import counted_rows, stored
from tests.support import query, slow

OLD = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
YOUNG = datetime.now(UTC).replace(minute=30) - timedelta(hours=2)

_LOAD = (
    """INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, start_time)
       VALUES (%(run)s, 'w', 'list', 'final', %(time)s)""",
    "INSERT INTO orchestra.workflows (id) VALUES ('w') ON CONFLICT DO NOTHING",
    """INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time,
                                   end_time)
       VALUES (%(run)s, 'w', 'succeeded', 'api', 'final', %(time)s, %(time)s)""",
    """INSERT INTO orchestra.steps (id, run_id, workflow_id, position, content_hash, node_id,
                                    node_type, state, start_time, end_time, response_model,
                                    finish_reason)
       SELECT %(run)s || '-' || ordinal, %(run)s, 'w', 0, 'h', 'n', 'model', 'succeeded', %(time)s,
              %(time)s, 'm', reason
       FROM unnest(CAST(%(reasons)s AS text[])) WITH ORDINALITY AS r (reason, ordinal)""",
)


@pytest.fixture
def database(database: Database) -> Database:
    """Provide a database whose first refresh is done."""
    rollups.drain(database)
    return database


def load(url: str, run_id: str, time: datetime, *reasons: str | None) -> None:
    """Store a finished run with a call for each finish reason, of one model."""
    given = {"run": run_id, "time": time, "reasons": list(reasons)}
    with psycopg.connect(url) as connection:
        for statement in _LOAD:
            connection.execute(statement, given)


@contextmanager
def earlier_program(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this program write the rollups as a program before revision 0006 does."""
    with patch.context() as m:
        m.setattr(uncounted, "exist", lambda connection: False)
        yield


def shown(url: str) -> list[tuple[int, int | None, int | None]]:
    """Return the calls and their responses by row, those of pruned runs last."""
    rows = query(
        url,
        "SELECT calls, responses, cut_off_responses FROM orchestra.step_rollup"
        " ORDER BY ordinal < 0, hour",
    )
    return [tuple(row.values()) for row in rows]


def verify(database: Database) -> tuple[list[str], int]:
    """Return what `rollups verify` finds different, and how many groups it leaves out."""
    found = database.transaction(verification.verify)
    return [one.what for one in found.differences], found.waiting


def prune(database: Database) -> int:
    """Prune all but the young runs, and return their number."""
    wanted = database.transaction(lambda c: expired.horizons(c, payloads=None, runs=86400.0))
    return retention.prune(database, wanted).runs


def test_responses_are_counted(database: Database, database_url: str) -> None:
    """A call that does not say why it ended is no response; without calls, nothing is counted."""
    load(database_url, "r", OLD, "stop", "MAX_TOKENS", "length", None)
    load(database_url, "s", OLD + timedelta(hours=1), None)
    load(database_url, "t", OLD + timedelta(hours=2))
    query(database_url, "UPDATE orchestra.steps SET absent_since = now() WHERE id = 'r-3'")
    rollups.drain(database)
    assert shown(database_url) == [(3, 2, 1), (1, 0, 0)]
    assert stored(database_url) == counted_rows(database_url)


def test_hours_that_an_earlier_program_computed_are_computed_again(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside an earlier program, its hours are unknown until the next refresh, and never wrong."""
    load(database_url, "r", OLD, "stop", "length")
    load(database_url, "s", OLD + timedelta(hours=1), "stop")
    rollups.drain(database)
    for number in range(2):
        load(database_url, f"t{number}", OLD, "length")
        with earlier_program(monkeypatch):
            rollups.drain(database)
            assert verify(database) == ([], 0)
        assert shown(database_url) == [(3 + number, None, None), (1, 1, 0)]
        assert verify(database) == ([], 1)
        done = rollups.drain(database)
        assert (done.groups, done.waiting) == (1, 0)
        assert shown(database_url) == [(3 + number, 3 + number, 2 + number), (1, 1, 0)]
        assert verify(database) == ([], 0)
        assert rollups.drain(database) == rollups.RefreshReport()


def test_a_changed_hour_comes_before_those_to_count(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours that wait for their responses do not delay an hour that changed."""
    with earlier_program(monkeypatch):
        load(database_url, "r", YOUNG, "stop")
        rollups.drain(database)
    load(database_url, "s", OLD, "stop")
    done = database.transaction(lambda c: rollups.refresh(c, limit=1))
    assert (done.groups, done.waiting) == (1, 1)
    assert shown(database_url) == [(1, 1, 0), (1, None, None)]


def test_counts_of_runs_that_an_earlier_program_pruned(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such counts stay unknown, as do their sums with runs pruned later; a refresh still ends."""
    load(database_url, "r", OLD, "stop", "length")
    rollups.drain(database)
    assert prune(database) == 1
    assert shown(database_url) == [(2, 2, 1)]
    load(database_url, "s", OLD, "stop")
    assert prune(database) == 1
    assert shown(database_url) == [(3, 3, 1)]
    load(database_url, "t", OLD, "stop")
    with earlier_program(monkeypatch):
        assert prune(database) == 1
    assert shown(database_url) == [(4, None, None)]
    load(database_url, "u", OLD, "length")
    load(database_url, "v", OLD + timedelta(hours=1), "length")
    rollups.drain(database)
    assert shown(database_url) == [(1, 1, 1), (1, 1, 1), (4, None, None)]
    assert prune(database) == 2
    assert shown(database_url) == [(5, None, None), (1, 1, 1)]
    assert rollups.drain(database) == rollups.RefreshReport()
    assert verify(database) == ([], 0)


def test_a_group_to_count_that_cannot_be_computed(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that cannot be counted is retried rarely, and delays no other group."""
    with earlier_program(monkeypatch):
        for number in range(3):
            load(database_url, f"r{number}", OLD + timedelta(hours=number), "stop")
        rollups.drain(database)
    query(
        database_url,
        "ALTER TABLE orchestra.step_rollup ADD CONSTRAINT refused CHECK"
        f" (responses IS NULL OR hour <> '{OLD + timedelta(minutes=30)}') NOT VALID",
    )
    done = rollups.drain(database)
    assert (done.groups, done.waiting, done.stuck) == (2, 0, 1)
    assert shown(database_url) == [(1, 1, 0), (1, None, None), (1, 1, 0)]
    assert rollups.drain(database) == rollups.RefreshReport(stuck=1)


def test_responses_that_differ_are_found(database: Database, database_url: str) -> None:
    """`rollups verify` compares the responses, and a refresh of all groups repairs them."""
    load(database_url, "r", OLD, "stop", "length")
    rollups.drain(database)
    query(database_url, "UPDATE orchestra.step_rollup SET cut_off_responses = 0")
    assert verify(database) == (["step_rollup"], 0)
    database.transaction(changed_groups.queue_all)
    rollups.drain(database)
    assert shown(database_url) == [(2, 2, 1)]


@pytest.mark.parametrize("revision", [*slow("0001"), "0005"])
def test_before_the_revision(empty_database_url: str, revision: str) -> None:
    """This program works with the schema of an earlier revision, and counts all after the upgrade.

    The revision itself changes no row.
    """
    upgrade(empty_database_url, revision=revision)
    database = Database(empty_database_url)
    try:
        dump = ROOT / "tests" / "faults" / "released" / f"{revision}.sql"
        query(empty_database_url, dump.read_text())
        load(empty_database_url, "r", OLD, "stop", "length")
        load(empty_database_url, "s", YOUNG, "stop", "length")
        assert rollups.drain(database).groups > 0
        assert verify(database) == ([], 0)
        assert prune(database) > 0
        before = _rows(empty_database_url)
        upgrade(empty_database_url)
        assert [_without(row) for row in _rows(empty_database_url)] == before
        assert verify(database)[0] == []
        done = rollups.drain(database, batch=2)
        assert (done.groups > 0, done.waiting) == (True, 0)
        assert verify(database) == ([], 0)
        [known] = query(
            empty_database_url,
            "SELECT sum(responses)::int AS responses, sum(cut_off_responses)::int AS cut_off"
            " FROM orchestra.step_rollup WHERE ordinal > 0 AND workflow_id = 'w'",
        )
        assert known == {"responses": 2, "cut_off": 1}
        unknown = "SELECT DISTINCT responses FROM orchestra.step_rollup WHERE ordinal < 0"
        assert query(empty_database_url, unknown) == [{"responses": None}]
    finally:
        database.close()


def _rows(url: str) -> list[dict[str, Any]]:
    return query(url, "SELECT * FROM orchestra.step_rollup ORDER BY workflow_id, hour, ordinal")


def _without(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "responses" not in name}

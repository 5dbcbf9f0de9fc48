"""Waits for locks: an upgrade lets others through, names the holder in seconds, and gives up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from etl import schema, watchdog
from etl.cli import db
from etl.database import Database
from etl.errors import DatabaseUnavailable
from etl.schema import upgrade
from etl.watchdog import LockHolder, holders_text
from tests.command_line import command_line
from tests.later_revision import HEAD, bring_later_revision
from tests.support import query, slow, wait_until

HOSTILE = "psql\n\x1b[31m{sslmode}"
"""An application name that a client can choose."""


@contextmanager
def _analyst(url: str, statement: str = "SELECT count(*) FROM orchestra.steps") -> Iterator[int]:
    """Open a session that leaves its transaction open after a statement, and yield its pid."""
    with psycopg.connect(url, application_name=HOSTILE) as connection:
        connection.execute(statement.encode())
        yield connection.info.backend_pid


def _upgrading(url: str, refused: list[BaseException]) -> threading.Thread:
    def attempt() -> None:
        try:
            upgrade(url)
        except BaseException as error:
            refused.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    return thread


def _revision(url: str) -> str:
    return str(
        query(url, "SELECT version_num FROM orchestra_etl.alembic_version")[0]["version_num"]
    )


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a revision that needs locks on tables which long queries read."""
    committed = [
        f"ALTER TABLE orchestra.{table} ALTER COLUMN workflow_id SET NOT NULL"
        for table in ("step_rollup", "steps")
    ]
    bring_later_revision(monkeypatch, tmp_path, committed=committed)


@pytest.mark.usefixtures("later")
def test_a_waiting_upgrade_names_the_holder_and_lets_writers_through(database_url: str) -> None:
    """An upgrade names an analyst's open transaction once, lets writers through, then completes."""
    url = database_url
    refused: list[BaseException] = []
    waits: list[float] = []
    writer = Database(url, lock_timeout=30)

    def write(connection: Connection) -> None:
        connection.execute(text("DELETE FROM orchestra.step_rollup"))

    with (
        capture_logs() as lines,
        _analyst(url, "SELECT count(*) FROM orchestra.step_rollup") as pid,
    ):
        upgrading = _upgrading(url, refused)
        began = time.monotonic()
        wait_until(lambda: any(one["event"] == "lock_wait_detected" for one in lines))
        while time.monotonic() < began + 8:
            tried = time.monotonic()
            writer.transaction(write)
            waits.append(time.monotonic() - tried)
            time.sleep(0.05)
        assert upgrading.is_alive()
        assert _revision(url) == HEAD
    upgrading.join(240)
    writer.close()
    assert refused == []
    assert _revision(url) == schema.head()
    assert max(waits) < 5
    # At least one write waited for the upgrade; otherwise the limit above proves nothing.
    assert max(waits) > 0.5
    # The writer also logs its waits for the upgrade; those lines are left out.
    logged = [one["problem"] for one in lines if one["event"] == "lock_wait_detected"]
    logged = [line for line in logged if "application orchestra-etl db" not in line]
    assert len(logged) == 1
    assert (
        f"on orchestra.step_rollup, held by pid {pid}, user postgres, application psql" in logged[0]
    )
    assert "in a transaction since 20" in logged[0]
    assert "SELECT" not in logged[0]
    assert logged[0].isprintable()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("table", ["steps", *slow("step_rollup")])
def test_an_upgrade_that_waits_too_long_for_a_lock_gives_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The error names the wait and the holder, nothing changes, and the next upgrade succeeds."""
    url = database_url
    monkeypatch.setattr(schema, "LOCK_PATIENCE", 9.0)
    with (
        _analyst(url, f"SELECT count(*) FROM orchestra.{table}") as pid,
        pytest.raises(DatabaseUnavailable) as given_up,
    ):
        upgrade(url)
    line = str(given_up.value)
    assert "has waited for 9 s" in line
    assert f"pid {pid}, user postgres" in line
    assert "end that session" in line
    assert (given_up.value.exit_status, _revision(url)) == (4, HEAD)
    upgrade(url)
    assert _revision(url) == schema.head()


def test_a_concurrent_index_build_names_what_it_waits_for(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index build names the old transaction that it waits for, even one without table locks."""
    url = database_url
    build = "CREATE INDEX CONCURRENTLY later ON orchestra.steps (status)"
    bring_later_revision(
        monkeypatch,
        tmp_path,
        committed=["SET lock_timeout = '10min'", build, "SET lock_timeout = '2s'"],
    )
    refused: list[BaseException] = []
    with capture_logs() as lines, psycopg.connect(url, application_name="old") as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT 1")
        upgrading = _upgrading(url, refused)
        wait_until(lambda: any(one["event"] == "lock_wait_detected" for one in lines))
    upgrading.join(240)
    assert refused == []
    logged = next(one["problem"] for one in lines if one["event"] == "lock_wait_detected")
    assert f"pid {old.info.backend_pid if not old.closed else ''}".strip() in logged
    assert "application old" in logged


@pytest.mark.usefixtures("later")
def test_another_upgrade_is_named(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade that waits for another one logs it once within seconds, and its error names it."""
    url = database_url
    monkeypatch.setattr(schema, "LOCK_PATIENCE", 4.0)
    with capture_logs() as lines, psycopg.connect(url, application_name="other upgrade") as gate:
        gate.execute("LOCK TABLE orchestra_etl.upgrade_lock IN EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable, match="has not ended in 4 s") as given_up:
            upgrade(url)
    logged = [one["problem"] for one in lines if one["event"] == "waiting_for_upgrade"]
    assert len(logged) == 1
    for line in (logged[0], str(given_up.value)):
        assert "application other upgrade" in line


def test_a_unit_of_work_that_waits_for_a_lock_names_its_holder(database_url: str) -> None:
    """A wait for a row lock is logged with its holder, and the final error names the holder too."""
    opened = Database(database_url, lock_timeout=3, patience=1)
    query(database_url, "INSERT INTO orchestra_etl.state_map VALUES ('done', 'succeeded')")
    with (
        capture_logs() as lines,
        _analyst(database_url, "UPDATE orchestra_etl.state_map SET state = state") as pid,
        pytest.raises(DatabaseUnavailable, match="SQLSTATE 55P03") as given_up,
    ):
        opened.transaction(
            lambda c: c.execute(text("UPDATE orchestra_etl.state_map SET state = 'failed'"))
        )
    opened.close()
    assert f"on orchestra_etl.state_map, held by pid {pid}" in str(given_up.value)
    assert [one["event"] for one in lines].count("lock_wait_detected") == 1


def test_db_roles_waits_briefly_and_names_the_holder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> None:
    """`db roles` needs exclusive locks; it waits as briefly as an upgrade and names the holder."""
    monkeypatch.setattr(db, "PATIENCE_SECONDS", 3.0)
    command = command_line(tmp_path, monkeypatch, capsys, "", DATABASE_URL=database_url)
    with _analyst(database_url) as pid:
        began = time.monotonic()
        printed = command("db", "roles")
        assert time.monotonic() - began < 15
    assert printed.status == 4
    assert f"on orchestra.steps, held by pid {pid}" in printed.err.splitlines()[-1]


def test_a_slow_statement_without_a_lock_wait_logs_nothing(database_url: str) -> None:
    """A slow statement that does not wait for a lock logs nothing."""
    opened = Database(database_url)
    with capture_logs() as lines:
        opened.transaction(lambda c: c.execute(text("SELECT pg_sleep(2.5)")))
    opened.close()
    assert lines == []


def test_the_description_of_a_lock_holder() -> None:
    """A holder's text is one line of limited length; a prepared transaction has no name in it."""
    since = datetime(2026, 3, 1, 12, tzinfo=UTC)
    known = LockHolder(7, "jane\n", "x" * 100, since, "orchestra.steps")
    assert str(known) == (
        f"pid 7, user jane, application {'x' * 62}…, in a transaction since 2026-03-01 12:00:00 UTC"
    )
    assert holders_text([LockHolder(0, None, None, None, None)]) == "held by a prepared transaction"
    assert holders_text([known] * 4).endswith("; and others")


def test_the_line_is_repeated_once_a_minute(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long wait is logged again after `LOG_EVERY` seconds, and not at every check."""
    monkeypatch.setattr(watchdog, "LOG_EVERY", 2.5)
    monkeypatch.setattr(watchdog, "EVERY", 0.2)
    opened = Database(database_url, lock_timeout=0)
    with capture_logs() as lines, psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE orchestra_etl.state_map")
        release = threading.Timer(4.0, holder.rollback)
        release.start()
        opened.transaction(
            lambda c: c.execute(text("SELECT count(*) FROM orchestra_etl.state_map"))
        )
        release.join()
    opened.close()
    assert [one["event"] for one in lines] == ["lock_wait_detected"] * 2

"""The database: retries, settings of every transaction, silent servers, and concurrent upgrades."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from etl import database as database_module
from etl import schema
from etl.database import Database, allow_long
from etl.database_diagnosis import diagnose
from etl.database_errors import is_transient, sqlstate
from etl.embedded.postgres import EmbeddedPostgres
from etl.errors import DatabaseError, DatabaseUnavailable, SchemaMismatch
from etl.schema import check_drift, upgrade
from etl.watchdog import Session
from tests.conftest import FAST_SETTINGS, ROOT
from tests.later_revision import HEAD, LATER, bring_later_revision
from tests.postgres_fixture import new_home
from tests.support import query, wait_until

LOCK = "LOCK TABLE orchestra_etl.upgrade_lock IN EXCLUSIVE MODE"
"""The lock that `migrations/env.py` holds during an upgrade."""
_SESSIONS = "FROM pg_stat_activity WHERE datname = current_database()"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open the test's database as the program does, with a patience of two seconds."""
    opened = Database(database_url, patience=2)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("code", "transient"),
    [
        ("08006", True), ("40001", True), ("40P01", True), ("53300", True), ("53100", True),
        ("55P03", True), ("57014", True), ("57P01", True), ("57P03", True), ("25006", True),
        ("25P03", True), ("58030", True),
        ("21000", False), ("22P02", False), ("22P05", False), ("22003", False), ("22021", False),
        ("23502", False), ("23503", False), ("23505", False), ("23514", False), ("54000", False),
        ("54001", False), ("42P01", False), ("XX000", False), ("P0001", False),
    ],
)  # fmt: skip
def test_errors_are_judged_by_their_sqlstate(code: str, transient: bool) -> None:
    """The SQLSTATE decides whether an error is transient, not the driver's exception class."""
    error = type("Refusal", (psycopg.Error,), {"sqlstate": code})()
    assert (sqlstate(error), is_transient(error)) == (code, transient)


def test_a_broken_connection_is_transient_and_a_refused_value_is_not(database: Database) -> None:
    """Without a SQLSTATE, a lost connection is retried, and text with NUL is not."""
    assert is_transient(psycopg.OperationalError("gone"))
    with pytest.raises(Exception, match="NUL") as refused:
        database.transaction(
            lambda c: c.execute(text("SELECT CAST(:value AS text)"), {"value": "a\0b"})
        )
    assert not is_transient(refused.value)


@pytest.mark.parametrize("code", ["40001", "55P03", "57014", "25006"])
def test_a_transient_error_repeats_the_whole_unit(
    database: Database, database_url: str, code: str
) -> None:
    """After a transient error the whole unit is retried, and the first attempt leaves no row."""
    query(database_url, "CREATE TABLE public.done (attempt int)")
    attempts: list[int] = []

    def work(connection: Connection) -> int:
        attempts.append(len(attempts))
        connection.execute(
            text("INSERT INTO public.done VALUES (:attempt)"), {"attempt": len(attempts)}
        )
        if len(attempts) < 3:
            connection.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$")
            )
        return len(attempts)

    assert database.transaction(work) == 3
    assert query(database_url, "SELECT attempt FROM public.done") == [{"attempt": 3}]


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("idle_session_timeout", "SELECT 1"),
        ("idle_in_transaction_session_timeout", "BEGIN"),
        ("transaction_timeout", "BEGIN"),
    ],
)
def test_a_time_limit_of_the_server_is_named(database_url: str, name: str, begin: str) -> None:
    """If a time limit of the server ends a session, the error names the limit to raise."""
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute(f"SET {name} = '10ms'; {begin}")
        # The server writes to an idle session only when it ends it.
        assert select.select([session], [], [], 60)[0]
        with pytest.raises(psycopg.Error) as ended:
            session.execute("SELECT 1")
    found = diagnose(ended.value)
    assert name in found.problem
    assert found.advice == "raise it"


def test_a_permanent_error_is_raised_at_once(database: Database) -> None:
    """An error in the rows is not retried, and keeps its SQLSTATE."""
    attempts: list[int] = []

    def work(connection: Connection) -> None:
        attempts.append(1)
        connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(Exception, match="division") as refused:
        database.transaction(work)
    assert (sqlstate(refused.value), len(attempts)) == ("22012", 1)


def test_patience_ends(database_url: str) -> None:
    """A lasting transient error ends after `patience`, with the SQLSTATE and no quoted text.

    The pauses are 50, 100, 200 and 400 ms. Only the first three fit in half a second, so that there
    are at most four attempts, and fewer on a busy machine.
    """
    opened = Database(database_url, patience=0.5)
    attempts: list[int] = []

    def work(connection: Connection) -> None:
        attempts.append(1)
        connection.execute(
            text("DO $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '53300'; END $$")
        )

    with pytest.raises(DatabaseUnavailable, match="SQLSTATE 53300") as refused:
        opened.transaction(work)
    opened.close()
    assert 2 <= len(attempts) <= 4
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("code", ["40001", "57P01"])
def test_patience_begins_with_the_first_failure(database_url: str, code: str) -> None:
    """A unit whose first attempt failed after longer than `patience` is still retried.

    A machine that was suspended, or a slow statement, must not take the retries away.
    """
    opened = Database(database_url, patience=0.3)
    attempts: list[int] = []

    def work(connection: Connection) -> int:
        attempts.append(1)
        if len(attempts) == 1:
            time.sleep(0.5)
            connection.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$")
            )
        return len(attempts)

    assert opened.transaction(work) == 2
    opened.close()


def test_a_process_that_ends_has_no_more_patience(database_url: str) -> None:
    """A unit that is being retried gives up after `end_within`, long before its patience ends."""
    opened = Database(database_url.replace("port=5432", "port=1"), patience=3600)
    ended = threading.Event()

    def work() -> None:
        with pytest.raises(DatabaseUnavailable):
            opened.transaction(lambda c: None)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.5)
    opened.end_within(0.5)
    assert ended.wait(60)
    opened.close()


def test_an_unusable_schema_is_one_error(database: Database, database_url: str) -> None:
    """A missing table or privilege is a schema error with its SQLSTATE, without the statement."""
    with pytest.raises(DatabaseError, match="42P01") as refused:
        database.transaction(lambda c: c.execute(text("SELECT * FROM orchestra.missing_secret")))
    assert "missing_secret" not in str(refused.value)
    query(database_url, "CREATE ROLE reader_of_nothing LOGIN")
    try:
        reader = Database(database_url.replace("postgres@", "reader_of_nothing@"))
        with pytest.raises(DatabaseError, match="42501"):
            reader.transaction(lambda c: c.execute(text("SELECT * FROM orchestra.runs")))
        reader.close()
    finally:
        query(database_url, "DROP ROLE reader_of_nothing")


def _refusal(url: str) -> str:
    """Return the error of a connection that is refused for good, without a retry."""
    opened = Database(url)
    with pytest.raises(DatabaseError, match="check DATABASE_URL") as refused:
        schema.read(opened)
    opened.close()
    assert not isinstance(refused.value, DatabaseUnavailable)
    return str(refused.value)


@pytest.mark.parametrize(
    ("part", "instead", "words"),
    [
        ("/test_", "/missing_", "the database does not exist"),
        ("/test_", "/password authentication failed for user_", "the database does not exist"),
        ("postgres@", "missing@", "does not know this user"),
    ],
)
def test_a_refused_connection_is_not_waited_for(
    database_url: str, part: str, instead: str, words: str
) -> None:
    """An unknown database or user is reported at once, even if its name reads like an error."""
    assert part in database_url
    assert words in _refusal(database_url.replace(part, quote(instead, safe="/@")))


def test_a_user_that_may_not_connect_is_not_waited_for(
    postgres_server: EmbeddedPostgres, database_url: str
) -> None:
    """Missing LOGIN, missing CONNECT and a pg_hba.conf rule are reported differently, at once."""
    url = database_url.replace("postgres@", "barred@")
    access = postgres_server.data / "pg_hba.conf"
    before = access.read_text()
    query(database_url, "CREATE ROLE barred NOLOGIN")
    try:
        assert "does not let this user log in" in _refusal(url)
        query(database_url, "ALTER ROLE barred LOGIN")
        query(
            database_url,
            "DO $$ BEGIN EXECUTE 'REVOKE CONNECT ON DATABASE ' || current_database()"
            " || ' FROM PUBLIC'; END $$",
        )
        assert "grant CONNECT" in _refusal(url)
        access.write_text(f"local all barred reject\n{before}")
        query(database_url, "SELECT pg_reload_conf()")
        wait_until(lambda: "pg_hba.conf" in _refusal(url))
    finally:
        access.write_text(before)
        query(database_url, "SELECT pg_reload_conf()")
        query(database_url, "DROP ROLE barred")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_value_is_refused(
    database_url: str, encoding: str
) -> None:
    """A database whose encoding is not UTF8 is refused with a remedy before anything is created."""
    name = f"{encoding.lower()}_{uuid.uuid4().hex}"
    query(
        database_url,
        f"CREATE DATABASE {name} ENCODING '{encoding}'"
        " LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0",
    )
    try:
        words = _refusal(re.sub(r"/test_\w+", f"/{name}", database_url))
        assert f"encoding is {encoding}" in words
        assert "ENCODING 'UTF8'" in words
    finally:
        query(database_url, f"DROP DATABASE {name}")


def test_the_client_s_encoding_is_utf8(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client encoding in the environment does not change what is stored or read."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    database = Database(database_url)
    try:
        assert (
            database.transaction(lambda c: c.execute(text("SELECT U&'\\20AC'")).scalar_one()) == "€"
        )
    finally:
        database.close()


def test_a_session_that_was_cut_while_idle_is_replaced(
    database: Database, database_url: str
) -> None:
    """After the server ends all sessions, the next transaction succeeds without an error."""
    database.transaction(lambda c: None)
    cut = f"SELECT pg_terminate_backend(pid) {_SESSIONS} AND application_name = 'orchestra-etl'"
    query(database_url, cut)
    assert database.transaction(lambda c: c.execute(text("SELECT 1")).scalar_one()) == 1


_SETTINGS = ("TimeZone", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


def _settings(connection: Connection) -> tuple[str, ...]:
    return tuple(str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in _SETTINGS)


def test_settings_hold_in_every_transaction_and_stay_in_none(database_url: str) -> None:
    """Each transaction has the limits and UTC, even if the session's settings were changed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "ALTER ROLE CURRENT_USER IN DATABASE "
            + connection.info.dbname
            + " SET TimeZone = 'Asia/Tokyo'"
        )
    opened = Database(database_url, statement_timeout=77, lock_timeout=7, pool_size=1)
    wanted = ("UTC", "77s", "7s", "1min")
    assert opened.transaction(_settings) == wanted

    def pollute(connection: Connection) -> int:
        connection.execute(text("SET SESSION TimeZone = 'Asia/Tokyo'"))
        connection.execute(text("SET SESSION statement_timeout = 1"))
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    first = opened.transaction(pollute)
    assert opened.transaction(_settings) == wanted
    assert (
        opened.transaction(lambda c: c.execute(text("SELECT pg_backend_pid()")).scalar_one())
        == first
    )
    prepared = opened.transaction(
        lambda c: c.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
    )
    opened.close()
    assert prepared == 0


def test_times_are_read_in_utc(database: Database) -> None:
    """A time that is read has the zone UTC, even if it was written with another one."""
    found = database.transaction(
        lambda c: c.execute(text("SELECT timestamptz '2026-03-01 12:00+09'")).scalar_one()
    )
    assert found.isoformat() == "2026-03-01T03:00:00+00:00"


def test_a_lock_wait_that_takes_too_long_is_retried(database_url: str) -> None:
    """A statement that waits too long for a lock is cancelled, and its unit retried."""
    opened = Database(database_url, lock_timeout=0.2, patience=10)
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE orchestra_etl.state_map")
        release = threading.Timer(0.6, other.rollback)
        release.start()
        count = opened.transaction(
            lambda c: c.execute(text("SELECT count(*) FROM orchestra_etl.state_map")).scalar_one()
        )
        release.join()
    opened.close()
    assert count == 0


# Silent servers.


@contextmanager
def _frozen(pids: list[int]) -> Iterator[Callable[[Connection], None]]:
    """Yield a function that freezes a connection's server process until the end of the block."""

    def freeze(connection: Connection) -> None:
        pids.append(int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        os.kill(pids[-1], signal.SIGSTOP)

    try:
        yield freeze
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _impatient(
    url: str, monkeypatch: pytest.MonkeyPatch, *, statement_timeout: float = 0.5
) -> Database:
    monkeypatch.setattr(database_module, "SILENCE", 0.5)
    return Database(url, statement_timeout=statement_timeout, patience=20, pool_size=1)


@pytest.mark.parametrize("moment", ["in a statement", "in a copy", "at the commit"])
def test_a_session_with_a_silent_server_is_abandoned(
    database_url: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A frozen session is abandoned a second later, and the unit succeeds on another connection."""
    query(database_url, "CREATE TABLE public.done (attempt int)")
    opened = _impatient(database_url, monkeypatch)
    pids: list[int] = []

    def work(connection: Connection) -> None:
        first = not pids
        if first and moment == "in a statement":
            freeze(connection)
        if first and moment == "in a copy":
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            with driver.cursor() as cursor, cursor.copy("COPY public.done FROM STDIN") as copy:
                pids.append(driver.info.backend_pid)
                os.kill(pids[-1], signal.SIGSTOP)
                for _ in range(1_000_000):
                    copy.write_row((0,))
        connection.execute(
            text("INSERT INTO public.done VALUES (:attempt)"), {"attempt": len(pids)}
        )
        if first and moment == "at the commit":
            freeze(connection)

    with _frozen(pids) as freeze:
        began = time.monotonic()
        opened.transaction(work)
        # Without the limit, the unit would end with its patience of 20 seconds.
        assert 0.9 < time.monotonic() - began < 15
        opened.close()
    sessions = f"SELECT 1 AS one {_SESSIONS} AND pid = {pids[0]}"
    wait_until(lambda: query(database_url, sessions) == [])
    rows = query(database_url, "SELECT attempt FROM public.done")
    # A COMMIT without a response may have succeeded. The unit is retried, so that its statements
    # must tolerate a repetition.
    assert rows in (
        [{"attempt": 1}],
        [{"attempt": 0}, {"attempt": 1}] if moment == "at the commit" else [],
    )


def test_idle_sessions_that_froze_are_replaced_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one of two frozen idle sessions times out, the pool drops the other one unused."""
    monkeypatch.setattr(database_module, "SILENCE", 0.5)
    opened = Database(database_url, statement_timeout=1, patience=20)
    pids: list[int] = []
    both = threading.Barrier(2)
    timed_out: list[int] = []
    wait_for_server = Session.wait

    def wait(session: Session, *arguments: Any, **options: Any) -> Any:
        pid = session.info.backend_pid  # unknown once the session is closed
        try:
            return wait_for_server(session, *arguments, **options)
        except psycopg.OperationalError:
            timed_out.append(pid)
            raise

    def work(connection: Connection) -> None:
        pids.append(int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one()))
        both.wait(10)

    threads = [threading.Thread(target=opened.transaction, args=(work,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with _frozen(pids):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr(Session, "wait", wait)
        # The pool would use the other session for the second transaction.
        for _ in pids:
            pid = opened.transaction(lambda c: c.scalar(text("SELECT pg_backend_pid()")))
            assert pid not in pids
        opened.close()
    assert len([pid for pid in timed_out if pid in pids]) == 1


def test_allow_long_holds_for_one_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`allow_long` lifts the limits of one transaction only, on the server and in the client."""
    opened = _impatient(database_url, monkeypatch)
    attempts: list[int] = []

    def long(connection: Connection) -> None:
        attempts.append(1)
        allow_long(connection)
        connection.execute(text("SELECT pg_sleep(1.3)"))

    opened.transaction(long)
    assert attempts == [1]

    pids: list[int] = []

    def silent(connection: Connection) -> None:
        if not pids:
            freeze(connection)
        connection.execute(text("SELECT 1"))

    def slow(connection: Connection) -> None:
        attempts.append(2)
        connection.execute(
            text("SELECT pg_sleep(CASE WHEN :first THEN 1.3 ELSE 0 END)"),
            {"first": attempts == [1, 2]},
        )

    opened.transaction(slow)
    assert attempts == [1, 2, 2]
    with _frozen(pids) as freeze:
        began = time.monotonic()
        opened.transaction(silent)
        # With the limit still lifted, the unit would end with its patience of 20 seconds.
        assert time.monotonic() - began < 15
        opened.close()


def test_without_a_statement_timeout_nothing_is_given_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement timeout of zero means no limit, neither on the server nor in the client."""
    opened = _impatient(database_url, monkeypatch, statement_timeout=0)
    attempts: list[int] = []

    def work(connection: Connection) -> None:
        attempts.append(1)
        connection.execute(text("SELECT pg_sleep(1.2)"))

    opened.transaction(work)
    assert attempts == [1]
    opened.close()


# Schema versions.


@pytest.mark.parametrize(
    ("version", "oldest"), [("9999", "9999"), ("0000", "0000"), ("ffff", "9999")]
)
def test_a_schema_of_an_unknown_revision_is_refused(
    database: Database, database_url: str, version: str, oldest: str
) -> None:
    """An unknown revision counts as newer; neither a check nor an upgrade changes its schema."""
    statement = "UPDATE orchestra_etl.alembic_version SET version_num = %s, oldest_program = %s"
    query(database_url, statement, version, oldest)
    with pytest.raises(SchemaMismatch, match="newer than this program"):
        schema.check(database)
    with pytest.raises(SchemaMismatch, match="newer than this program"):
        upgrade(database_url)
    [now] = query(
        database_url, "SELECT version_num, oldest_program FROM orchestra_etl.alembic_version"
    )
    assert (now["version_num"], now["oldest_program"]) == (version, oldest)


def test_a_later_schema_that_this_program_may_use_is_left_as_it_is(
    database: Database, database_url: str
) -> None:
    """A compatible later schema passes with a warning, needs no upgrade, and fails exact checks."""
    query(database_url, "UPDATE orchestra_etl.alembic_version SET version_num = '9999'")
    with capture_logs() as lines:
        schema.check(database)
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("schema_mismatch_found", "warning")
    ]
    assert not upgrade(database_url)
    assert schema.read(database).revision == "9999"
    with pytest.raises(SchemaMismatch, match="not for this command: upgrade orchestra-etl"):
        schema.check_current(database)


def test_an_upgrade_that_replaces_a_view_does_not_deadlock_with_its_readers(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that replaces a view takes turns with the view's readers, without a deadlock."""
    url = database_url
    *_, newest = sorted((ROOT / "migrations" / "sql").glob("run_summary_v*.sql"))
    view = newest.read_text()
    bring_later_revision(
        monkeypatch,
        tmp_path,
        [view.partition("COMMENT ON")[0].replace("CREATE VIEW", "CREATE OR REPLACE VIEW")],
        # A separate transaction, because a reader of the view locks the view before the table.
        ["ALTER TABLE orchestra.workflow_versions ALTER COLUMN first_seen_at SET NOT NULL"],
    )
    refused: list[Exception] = []

    def attempt(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            refused.append(error)

    def read() -> None:
        query(url, "SELECT * FROM orchestra.run_summary LIMIT 1")

    def waiting() -> int:
        return int(
            query(url, f"SELECT count(*) AS n {_SESSIONS} AND wait_event_type = 'Lock'")[0]["n"]
        )

    works: tuple[Callable[[], object], ...] = (lambda: upgrade(url), read, read)
    threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM orchestra.run_summary LIMIT 1")
        for number, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda number=number: waiting() == number)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert refused == []
    assert query(url, "SELECT version_num FROM orchestra_etl.alembic_version") == [
        {"version_num": LATER}
    ]


def test_revision_files_are_numbered_in_order() -> None:
    """The revisions in the file names are those that Alembic finds, in the same order."""
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    order = [script.revision for script in scripts.walk_revisions()][::-1]
    assert order == sorted(schema._revisions())
    assert scripts.get_current_head() == schema.head()


def test_a_missing_schema_is_named(empty_database_url: str) -> None:
    """Without a schema the error names `db upgrade`; after the upgrade there is no drift."""
    opened = Database(empty_database_url)
    assert schema.read(opened).revision is None
    with pytest.raises(SchemaMismatch, match="db upgrade"):
        schema.check(opened)
    upgrade(empty_database_url)
    schema.check(opened)
    assert schema.read(opened).is_current
    opened.close()
    check_drift(empty_database_url)


def test_an_older_schema_is_named(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error about a known revision that is too old names `db upgrade`."""
    bring_later_revision(monkeypatch, tmp_path)
    opened = Database(database_url)
    with capture_logs() as lines:
        schema.check(opened)
    assert [line["event"] for line in lines] == ["schema_mismatch_found"]
    monkeypatch.setattr(schema, "REQUIRED_REVISION", LATER)
    with pytest.raises(SchemaMismatch, match=r"older .* run `orchestra-etl db upgrade`"):
        schema.check(opened)
    opened.close()


# Concurrent upgrades.

_UPGRADE = """
import sys
from pathlib import Path
from etl import schema
schema._migrations = lambda: Path(sys.argv[2])
schema.upgrade(sys.argv[1])
"""


def _upgrading(url: str, migrations: Path = ROOT / "migrations") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _UPGRADE, url, str(migrations)],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_upgrades_that_create_the_schema_at_once(empty_database_url: str) -> None:
    """An upgrade continues if another process creates the schema at the same moment."""
    with psycopg.connect(empty_database_url) as other:
        other.execute("CREATE SCHEMA orchestra_etl; CREATE TABLE orchestra_etl.upgrade_lock ()")
        process = _upgrading(empty_database_url)
        waiting = f"SELECT count(*) AS n {_SESSIONS} AND wait_event_type = 'Lock'"
        wait_until(lambda: query(empty_database_url, waiting)[0]["n"] == 1)
        other.commit()
        assert process.communicate(timeout=240)[1] == ""
    assert process.returncode == 0
    check_drift(empty_database_url)


@pytest.mark.slow
def test_an_upgrade_that_is_cut_off_is_completed_by_the_next(empty_database_url: str) -> None:
    """An upgrade whose session is terminated leaves no table; the next upgrade succeeds."""
    process = _upgrading(empty_database_url)
    cut = (
        "SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity"
        " WHERE application_name = 'orchestra-etl db'"
        " AND datname = current_database() AND query LIKE '%%CREATE TABLE%%'"
    )
    end = time.monotonic() + 240
    while process.poll() is None and not query(empty_database_url, cut) and time.monotonic() < end:
        pass
    process.communicate(timeout=240)
    assert process.returncode != 0
    tables = (
        "SELECT count(*) AS n FROM pg_tables WHERE schemaname LIKE 'orchestra%%' "
        " AND tablename NOT IN ('alembic_version', 'upgrade_lock')"
    )
    assert query(empty_database_url, tables) == [{"n": 0}]
    upgrade(empty_database_url)
    check_drift(empty_database_url)


def test_a_waiting_upgrade_does_not_block_an_index_built_concurrently(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting upgrade holds no snapshot, which CREATE INDEX CONCURRENTLY would wait for."""
    url = database_url
    migrations = bring_later_revision(monkeypatch, tmp_path)
    with psycopg.connect(url) as gate:
        gate.execute(LOCK)
        process = _upgrading(url, migrations)
        waiting = f"SELECT 1 AS one {_SESSIONS} AND application_name = 'orchestra-etl db'"
        wait_until(lambda: query(url, waiting) != [])
        time.sleep(0.3)
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SET statement_timeout = '3s'")
            other.execute("CREATE INDEX CONCURRENTLY by_status ON orchestra.runs (status)")
        assert process.poll() is None
        gate.rollback()
        assert process.communicate(timeout=240)[1] == ""
        assert process.returncode == 0
    assert query(url, "SELECT version_num FROM orchestra_etl.alembic_version") == [
        {"version_num": schema.head()}
    ]


def test_a_reader_can_hold_nothing_that_an_upgrade_waits_for(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader can take advisory locks but not the upgrade's table lock; the upgrade succeeds."""
    url = database_url
    bring_later_revision(monkeypatch, tmp_path)
    query(url, "CREATE ROLE idle_reader LOGIN; GRANT USAGE ON SCHEMA orchestra_etl TO idle_reader")
    query(url, "GRANT SELECT ON ALL TABLES IN SCHEMA orchestra_etl TO idle_reader")
    try:
        with psycopg.connect(url.replace("postgres@", "idle_reader@")) as reader:
            reader.execute("SELECT pg_advisory_lock(7305808869229538660)")
            for mode in (
                "ROW SHARE",
                "ROW EXCLUSIVE",
                "SHARE UPDATE EXCLUSIVE",
                "SHARE",
                "EXCLUSIVE",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), reader.transaction():
                    reader.execute(f"LOCK TABLE orchestra_etl.upgrade_lock IN {mode} MODE".encode())
            upgrade(url)
    finally:
        query(url, "DROP OWNED BY idle_reader; DROP ROLE idle_reader")


_REFUSE = """
    CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;
    CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION public.refuse()
"""
_RAISE = "RAISE EXCEPTION 'secret' USING ERRCODE = '{}';"


@pytest.mark.parametrize(
    ("problem", "transient", "words"),
    [
        (
            _RAISE.format("55P03"), True,
            r"its revision was rolled back: it needs a lock: .* try again later"
            r" \(SQLSTATE 55P03\)",
        ),
        (
            "PERFORM pg_terminate_backend(pg_backend_pid());", True,
            r"rolled back: the server is shutting down .*57P01",
        ),
        (_RAISE.format("23505"), False, r"rolled back \(SQLSTATE 23505\): .*LEVEL=debug"),
        (_RAISE.format("42501"), False, "may not change the schema"),
    ],
)  # fmt: skip
def test_an_upgrade_that_fails_is_one_error(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
    transient: bool,
    words: str,
) -> None:
    """A failed revision is one database error without the statement's text, and is rolled back."""
    monkeypatch.setattr(schema, "LOCK_PATIENCE", 0.0)
    bring_later_revision(
        monkeypatch, tmp_path, ["CREATE VIEW public.later AS SELECT 1", "DROP VIEW public.later"]
    )
    query(database_url, _REFUSE.format(problem))
    with pytest.raises(DatabaseError, match=words) as failed:
        upgrade(database_url)
    assert (failed.value.exit_status, isinstance(failed.value, DatabaseUnavailable)) == (
        4,
        transient,
    )
    assert "secret" not in str(failed.value)
    assert query(database_url, "SELECT version_num FROM orchestra_etl.alembic_version") == [
        {"version_num": HEAD}
    ]
    query(database_url, "DROP EVENT TRIGGER refuse")
    upgrade(database_url)
    assert query(database_url, "SELECT version_num FROM orchestra_etl.alembic_version") == [
        {"version_num": LATER}
    ]


def test_an_upgrade_gives_up_its_wait_for_another_one(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that waits 300 s for another one ends with its own error instead of Alembic's."""
    bring_later_revision(monkeypatch, tmp_path)
    late, real = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + late[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: late.append(late.pop() + 400))
    with psycopg.connect(database_url) as gate:
        gate.execute(LOCK)
        with pytest.raises(
            DatabaseError, match=r"another process upgrades this schema .* has not ended in 300 s"
        ) as waited:
            upgrade(database_url)
        assert waited.value.exit_status == 4


def test_a_restart_in_the_middle_is_waited_for() -> None:
    """A transaction that meets a stopped server continues on a new connection after the restart."""
    home = new_home()
    try:
        with EmbeddedPostgres(home, settings=FAST_SETTINGS) as server:
            opened = Database(server.url, patience=30)
            assert opened.transaction(lambda c: c.execute(text("SELECT 1")).scalar_one()) == 1
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(
                opened.transaction(lambda c: c.execute(text("SELECT 2")).scalar_one())
            )
        )
        thread.start()
        time.sleep(0.3)
        assert found == []
        with EmbeddedPostgres(home, settings=FAST_SETTINGS):
            thread.join(20)
            opened.close()
        assert found == [2]
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_close_waits_for_a_transaction_in_another_thread(database_url: str) -> None:
    """A close during a transaction in another thread leaves no connection open."""
    opened = Database(database_url)
    begun = threading.Event()

    def work(connection: Connection) -> None:
        begun.set()
        connection.execute(text("SELECT pg_sleep(0.3)"))

    thread = threading.Thread(target=opened.transaction, args=(work,))
    thread.start()
    begun.wait()
    opened.close()
    sessions = (
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    wait_until(lambda: query(database_url, sessions) == [{"n": 0}])
    thread.join()

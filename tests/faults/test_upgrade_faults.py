"""Schema upgrades: concurrent and killed, or while an older release still writes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from etl.database import Database
from etl.schema import check_drift, head, upgrade
from etl.simulator.server import Simulator
from tests.conftest import ROOT
from tests.faults import workers
from tests.faults.canaries import API_KEY, Canaries, with_password
from tests.faults.database_guards import MIGRATIONS
from tests.faults.release import FOLDER, released_history
from tests.faults.servers import OwnServer, own_server
from tests.faults.suite import Fault
from tests.faults.world import World
from tests.later_revision import add_revision
from tests.support import configuration, environment, query, wait_until

GUARDS = "tests.faults.database_guards"
LOCK = "orchestra_etl.upgrade_lock"
"""The table that `migrations/env.py` locks."""
RELEASED = sorted(path.stem for path in FOLDER.glob("*.sql"))
LATER_RELEASE = f"{GUARDS}:later_release"
BUILD = (
    "SET lock_timeout = '10min'",
    "DROP INDEX CONCURRENTLY IF EXISTS orchestra.steps_status_idx",
    "CREATE INDEX CONCURRENTLY steps_status_idx ON orchestra.steps (status)",
    "SET lock_timeout = '2s'",
    "ALTER TABLE orchestra.steps ADD COLUMN IF NOT EXISTS added_later text",
)
"""Statements that a revision commits one by one: an index built beside writers, and a column."""
WORK = (
    "LOCK TABLE orchestra.runs, orchestra.steps IN SHARE ROW EXCLUSIVE MODE",
    (
        "CREATE FUNCTION orchestra_etl.later() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NULL; END $$"
    ),
    (
        "CREATE TRIGGER later AFTER INSERT ON orchestra.runs"
        " FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.later()"
    ),
    (
        "CREATE TRIGGER later AFTER INSERT ON orchestra.steps"
        " FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.later()"
    ),
    "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES (NULL, NULL)",
)
"""Statements of the revision's transaction: new triggers, and every group to recompute."""


@pytest.fixture(scope="module")
def server(canaries: Canaries) -> Iterator[OwnServer]:
    """Start a server for this module, with one user for each of eight upgrades.

    Each upgrade is recognised by its user.
    """
    with own_server(canaries) as found:
        for number in range(8):
            found.execute(f"CREATE ROLE upgrade_{number} SUPERUSER LOGIN")
        yield found


@pytest.fixture
def empty(server: OwnServer) -> Callable[[], str]:
    """Provide a function that creates databases without a schema."""

    def make() -> str:
        make.made += 1  # type: ignore[attr-defined]
        name = f"empty_{id(make)}_{make.made}"  # type: ignore[attr-defined]
        server.execute(f"CREATE DATABASE {name}")
        return server.url_for(name)

    make.made = 0  # type: ignore[attr-defined]
    return make


# Fault 27: eight upgrades at once


def _eight_upgrades(url: str, log: Path, without: tuple[str, ...] = ()) -> list[str]:
    """Start eight upgrades, kill the one at work, and return the problems at the end."""
    urls = [with_password(url.replace("postgres@", f"upgrade_{number}@")) for number in range(8)]
    query(url, f"CREATE SCHEMA orchestra_etl; CREATE TABLE {LOCK} ()")
    with ExitStack() as running, psycopg.connect(url) as gate:
        gate.execute(f"LOCK TABLE {LOCK} IN EXCLUSIVE MODE".encode())
        all_eight = [
            running.enter_context(
                workers.started(
                    "db", "upgrade", variables={"DATABASE_URL": one}, log=log, without=without
                )
            )
            for one in urls
        ]
        waiting = (
            "SELECT count(DISTINCT usename) AS n FROM pg_stat_activity"
            " WHERE application_name = 'orchestra-etl db'"
        )
        wait_until(
            lambda: (
                query(url, waiting)[0]["n"] == 8 or any(one.status is not None for one in all_eight)
            )
        )
        gate.rollback()
        holder = (
            "SELECT usename FROM pg_stat_activity JOIN pg_locks USING (pid)"
            " WHERE mode = 'ExclusiveLock' AND granted"
            f" AND relation = '{LOCK}'::regclass AND pg_stat_activity.datname = current_database()"
        )
        killed = -1
        while killed < 0 and any(one.status is None for one in all_eight):
            for user in (row["usename"] for row in query(url, holder)):
                killed = int(user.removeprefix("upgrade_"))
                all_eight[killed].send(signal.SIGKILL)
        statuses = [one.wait() for one in all_eight]
    problems = [
        f"upgrade {n} ended with {status}"
        for n, status in enumerate(statuses)
        if n != killed and status != 0
    ]
    if not problems:
        check_drift(url)
        version = query(url, "SELECT version_num FROM orchestra_etl.alembic_version")
        problems += [] if version == [{"version_num": head()}] else [f"the schema is {version}"]
        problems += (
            [] if statuses[killed] == -signal.SIGKILL else ["no upgrade was killed during its work"]
        )
    return problems


@pytest.mark.fault(
    27, "eight upgrades at once, one killed during work", "C B", guard="upgrade lock"
)
def test_eight_upgrades(fault: Fault, empty: Callable[[], str], log: Path) -> None:
    """If one of eight upgrades is killed at work, the others finish it and end normally."""
    for _ in range(3):
        assert _eight_upgrades(empty(), log) == []
        fault.injected()
    fault.control(_eight_upgrades(empty(), log, (f"{GUARDS}:no_upgrade_lock",)))


# Fault 31: upgrades from every release, under load

UPGRADE_SECONDS = 20.0
WRITER_SECONDS = 2.0
"""The longest delay of a writer, in seconds."""

# The release's writes in its order of locks: ledger, runs, steps, payloads, ledger.
_ENTER = text("""
    INSERT INTO orchestra_etl.run_ledger AS l (run_id, workflow_id, source)
    VALUES (:run_id, :workflow_id, 'list')
    ON CONFLICT (run_id) DO UPDATE
    SET fencing_token = l.fencing_token + 1, leased_until = NULL, due_at = now()
""")
_CLAIM = text("""
    WITH due AS (SELECT run_id FROM orchestra_etl.run_ledger
                 WHERE run_id = :run_id AND due_at <= now()
                 ORDER BY priority, due_at LIMIT 32 FOR UPDATE SKIP LOCKED)
    UPDATE orchestra_etl.run_ledger AS l
    SET fencing_token = l.fencing_token + 1, leased_until = now() + interval '60 s'
    FROM due WHERE l.run_id = due.run_id
""")
_LOAD = tuple(text(statement) for statement in (
    "SELECT run_id FROM orchestra_etl.run_ledger WHERE run_id = ANY (:all)"
    " ORDER BY run_id FOR UPDATE",
    """INSERT INTO orchestra.runs AS r (id, workflow_id, state, status_source, tracking)
       VALUES (:run_id, :workflow_id, 'running', 'api', 'open')
       ON CONFLICT (id) DO UPDATE SET state = 'running', updated_at = now()""",
    "UPDATE orchestra.runs SET tracking = tracking WHERE id = ANY (:all)",
    """INSERT INTO orchestra.steps AS s (id, run_id, workflow_id, position, state, content_hash)
       VALUES (:run_id || '-s', :run_id, :workflow_id, 0, 'running', '\\x00')
       ON CONFLICT (id) DO UPDATE SET state = 'running', updated_at = now()""",
    """INSERT INTO orchestra.outputs AS p (step_id, data, size_bytes)
       VALUES (:run_id || '-s', '{}', 2)
       ON CONFLICT (step_id) DO UPDATE SET data = excluded.data""",
    "UPDATE orchestra.steps SET position = position WHERE run_id = ANY (:all)",
    "UPDATE orchestra_etl.run_ledger SET leased_until = NULL, due_at = now()"
    " WHERE run_id = :run_id",
))  # fmt: skip
_WRITERS_OWN = "writer-"


class Traffic:
    """The old release at work: two writers, and readers with short transactions."""

    def __init__(self, url: str) -> None:
        self.slowest = 0.0
        self.transactions = 0
        self.problems: list[str] = []
        self._url = url
        self._stop = threading.Event()
        self._known = [
            row["run_id"]
            for row in query(url, "SELECT run_id FROM orchestra_etl.run_ledger ORDER BY 1")
        ]
        work = (self._write, self._write, self._read, self._read)
        self._threads = [
            threading.Thread(target=self._running, args=(one, n)) for n, one in enumerate(work)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _running(self, work: Callable[[Database, int, int], None], number: int) -> None:
        database = Database(self._url)
        try:
            turn = 0
            while not self._stop.is_set():
                began = time.monotonic()
                work(database, number, turn)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.transactions += 1
                turn += 1
        except Exception as error:
            self.problems.append(f"the old release got {type(error).__name__}: {str(error)[:200]}")
        finally:
            database.close()

    def _write(self, database: Database, number: int, turn: int) -> None:
        run_id = f"{_WRITERS_OWN}{number}-{turn % 50}"
        mine = sorted([*self._known, run_id])
        values = {"run_id": run_id, "workflow_id": "writer", "all": mine}

        def load(connection: Connection) -> None:
            for statement in _LOAD:
                connection.execute(statement, values)

        database.transaction(lambda c: c.execute(_ENTER, values))
        database.transaction(lambda c: c.execute(_CLAIM, values))
        database.transaction(load)

    def _read(self, database: Database, number: int, turn: int) -> None:
        def look(connection: Connection) -> None:
            connection.execute(
                text("SELECT count(*) FROM orchestra.runs JOIN orchestra.steps ON run_id = runs.id")
            )
            time.sleep(0.05)

        database.transaction(look)


# The columns that the writers change on purpose.
_MOVING = {"fencing_token", "leased_until", "due_at"}


def _rows(url: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every row except the writers' own, by table and key."""
    tables = query(
        url,
        "SELECT schemaname || '.' || tablename AS name FROM pg_tables"
        " WHERE schemaname IN ('orchestra', 'orchestra_etl')"
        " AND tablename <> 'alembic_version'",
    )
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for table in (row["name"] for row in tables):
        rows = [row["row"] for row in query(url, f"SELECT to_jsonb(t) AS row FROM {table} AS t")]
        found[table] = {
            _key(row): row
            for row in rows
            if not any(str(value).startswith(_WRITERS_OWN) for value in row.values())
        }
    return found


def _key(row: dict[str, Any]) -> str:
    names = (
        *("id", "run_id", "step_id", "workflow_id", "version", "hour", "day", "ordinal"),
        "transform_version",
    )
    named = [str(row[name]) for name in names if name in row]
    return "/".join(named[:1] if "id" in row else named)


def _lost(
    before: dict[str, dict[str, dict[str, Any]]], after: dict[str, dict[str, dict[str, Any]]]
) -> list[str]:
    """Return how the upgrade changed rows that existed before."""
    problems = []
    for table, rows in before.items():
        for key, row in rows.items():
            now = after.get(table, {}).get(key)
            if now is None:
                problems.append(f"{table}: {key} is lost")
            else:
                changed = sorted(
                    name for name in row.keys() - _MOVING if now.get(name) != row[name]
                )
                problems += [f"{table}: {key} has another {', '.join(changed)}"] if changed else []
    return problems


def _upgraded(
    url: str, release: str, folder: Path, log: Path, without: tuple[str, ...] = ()
) -> tuple[Traffic, float, list[str]]:
    """Upgrade a populated database of a release under load, and let the new program continue.

    The upgrade goes one revision further than this program's own: the extra revision does
    everything that revisions may do.
    """
    add_revision(folder / "migrations", WORK, BUILD)
    upgrade(url, revision=release)
    with psycopg.connect(url) as connection:
        connection.execute((FOLDER / f"{release}.sql").read_bytes())
    before = _rows(url)
    with Traffic(url) as traffic:
        wait_until(lambda: traffic.transactions > 20 or traffic.problems != [])
        began = time.monotonic()
        status = workers.run(
            "db",
            "upgrade",
            variables={"DATABASE_URL": with_password(url), MIGRATIONS: str(folder / "migrations")},
            log=log,
            without=(LATER_RELEASE, *without),
        )
        seconds = time.monotonic() - began
        done = traffic.transactions
        wait_until(lambda: traffic.transactions > done + 20 or traffic.problems != [])
    problems = [*traffic.problems, *_lost(before, _rows(url))]
    problems += [] if status == 0 else [f"db upgrade ended with {status}"]
    problems += [] if seconds < UPGRADE_SECONDS else [f"the upgrade took {seconds:.0f} s"]
    if traffic.slowest > WRITER_SECONDS:
        problems.append(f"a writer of the old release was held up for {traffic.slowest:.1f} s")
    deadlocks = query(
        url, "SELECT deadlocks AS n FROM pg_stat_database WHERE datname = current_database()"
    )[0]["n"]
    problems += [f"{deadlocks} deadlocks"] if deadlocks else []
    if problems:
        return traffic, seconds, problems
    query(url, f"DELETE FROM orchestra.runs WHERE id LIKE '{_WRITERS_OWN}%'")
    query(url, f"DELETE FROM orchestra_etl.run_ledger WHERE run_id LIKE '{_WRITERS_OWN}%'")
    history = released_history()
    config = folder / "etl.toml"
    config.write_text(configuration(*history.workflow_ids))
    with Simulator(history, api_key=API_KEY).in_thread() as simulator:
        variables = environment(
            with_password(url), simulator.base_url, key=API_KEY, ORCHESTRA_ETL_CONFIG=str(config)
        )
        found = World(history, simulator, url, variables, log)
        status = found.sync()
        problems += [] if status == 0 else [f"sync ended with {status}"]
        return traffic, seconds, problems + found.complete() + found.witnessed()


@pytest.mark.fault(
    31,
    "upgrade of every release's data under its own traffic",
    "C W B",
    guard="short locks, no row changed",
)
@pytest.mark.parametrize("release", RELEASED)
def test_an_upgrade_under_load(
    fault: Fault, empty: Callable[[], str], tmp_path: Path, log: Path, release: str
) -> None:
    """Upgrading each release's database under load loses no row and delays no writer for long."""
    traffic, seconds, problems = _upgraded(empty(), release, tmp_path, log)
    assert problems == []
    fault.injected(note=f"{seconds:.1f} s, writers at most {traffic.slowest:.2f} s")
    for worse, sign in (
        ("upgrade_that_locks_for_long", "held up"),
        ("upgrade_that_loses_rows", "is lost"),
    ):
        noticed = _upgraded(empty(), release, tmp_path, log, (f"{GUARDS}:{worse}",))[2]
        fault.control([problem for problem in noticed if sign in problem])


def test_every_release_has_its_data() -> None:
    """Every schema version that has a successor has a file with its database (see `release.py`)."""
    versions = {
        script.revision for script in ScriptDirectory(str(ROOT / "migrations")).walk_revisions()
    }
    assert versions - {head()} <= set(RELEASED)

"""What each group role allows a login to do, and what PostgreSQL refuses it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from etl import app, schema
from etl.admin import grants, roles
from etl.admin.grants import LOADED
from etl.analytics import rollups
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.errors import DatabaseError
from etl.privileges import ANALYST, LOADER, MIGRATOR, PAYLOAD_ANALYST
from etl.schema import check_drift, upgrade
from etl.service.daemon import Daemon, Pace, Schedule
from etl.service.health import Health
from etl.signals import Stop
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from etl.tables import ANALYTICS, OPERATIONS, PRIVATE, metadata
from etl.transform.decode import decode_steps
from etl.transform.states import StateMap
from tests.command_line import command_line
from tests.conftest import ROOT
from tests.later_revision import bring_later_revision
from tests.support import configuration, environment, load, query, slow

GROUPS = {
    "test_loader": LOADER,
    "test_analyst": ANALYST,
    "test_payload_analyst": PAYLOAD_ANALYST,
    "test_migrator": MIGRATOR,
}
LOGINS = (*GROUPS, "test_nobody", "test_owner")
DENIED = "42501"


def _drop_roles(server: EmbeddedPostgres) -> None:
    """Drop all roles, which outlive the databases of the tests.

    No object depends on them any more.
    """
    with psycopg.connect(server.url_for("postgres"), autocommit=True) as connection:
        for name in (*roles.PURPOSES, *LOGINS):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@pytest.fixture
def cluster(postgres_server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Provide the session's server without the program's roles.

    A test must request this fixture before its database.
    """
    _drop_roles(postgres_server)
    yield postgres_server
    _drop_roles(postgres_server)


def as_user(url: str, user: str) -> str:
    """Return the URL of the same database for another user."""
    return url.replace("postgres@", f"{user}@")


def apply(url: str) -> roles.RolesReport:
    """Do what `db roles` does."""
    database = Database(url, patience=5)
    try:
        return roles.apply(database)
    finally:
        database.close()


def code(url: str, statement: str) -> str | None:
    """Run a statement in a new session and return the SQLSTATE of its error, or None."""
    with psycopg.connect(url) as connection:
        try:
            cursor = connection.cursor()
            if statement.startswith("COPY"):
                with cursor.copy(statement.encode()) as copy:
                    for _ in copy:
                        pass
            else:
                cursor.execute(statement.encode())
        except psycopg.Error as error:
            return error.sqlstate
        finally:
            connection.rollback()
    return None


@pytest.fixture
def url(cluster: EmbeddedPostgres, database_url: str) -> str:
    """Provide a database with the roles and a step with payloads.

    Each role has a login, and one login has no role.
    """
    apply(database_url)
    for login in ("test_nobody", "test_owner"):
        query(database_url, f"CREATE ROLE {login} LOGIN")
    for login, group in GROUPS.items():
        query(database_url, f"CREATE ROLE {login} LOGIN IN ROLE {group}")
    query(
        database_url,
        """
        INSERT INTO orchestra.workflows (id, name) VALUES ('w', 'one');
        INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version, graph)
            VALUES ('w', now(), '1', '{"nodes": [{"prompt": "secret"}]}');
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, extra)
            VALUES ('r', 'w', 'succeeded', 'api', 'final', '"secret"');
        INSERT INTO orchestra.run_payloads (run_id, inputs) VALUES ('r', '"secret"');
        INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash, extra)
            VALUES ('s', 'r', 'w', 0, 'succeeded', 'h', '"secret"');
        INSERT INTO orchestra.inputs (step_id, data, size_bytes) VALUES ('s', '"secret"', 8);
        INSERT INTO orchestra.outputs (step_id, data, size_bytes) VALUES ('s', '"secret"', 8);
        INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, listing)
            VALUES ('r', 'w', 'list', 'secret');
        INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail, content_hash,
            body)
            VALUES ('w', 'r', 'malformed', 'x', 'h', 'secret');
        ANALYZE orchestra.inputs, orchestra.steps;
        """,
    )
    return database_url


def test_every_table_has_a_rule() -> None:
    """Each table has a rule for the loader, and each private column exists."""
    assert set(metadata.tables.values()) == set(LOADED)
    assert {table.schema for table in metadata.tables.values()} == {ANALYTICS, OPERATIONS}
    assert all(column in table.columns for table, columns in PRIVATE.items() for column in columns)


# The loader.

FAILED = "SELECT count(*) AS n FROM orchestra.runs WHERE status = 'completed' AND state = 'failed'"
REDACTING = """
[[redaction.rules]]
path = "$['inputs', 'outputs', 'organization_id']"
action = "drop"
"""


def test_the_loader_does_all_of_its_work(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that loads works with the loader's privileges alone.

    That includes conflicts, gaps, redaction and a changed state map.
    """
    history = History(seed=5, workflows=2, runs_per_workflow=12, live=0, arrivals_per_minute=0)
    first, second = history.workflow_ids
    broken, owner, thief, late = history.run_ids(first)[:4]
    query(
        url, "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)", first, late
    )
    with Simulator(history).in_thread() as simulator:
        variables = environment(
            as_user(url, "test_loader"), simulator.base_url, ORCHESTRA_ETL_POLLING__RECONCILE="1ms"
        )
        toml = configuration(*history.workflow_ids)
        command = command_line(tmp_path, monkeypatch, capsys, toml, **variables)
        simulator.steps_bodies[broken] = b'{"not": "an array"}'
        simulator.steps_bodies[thief] = json.dumps(history.steps(owner)).encode()
        simulator.misbehave(Misbehaviour(list_cap=12, endpoints=("runs",)))

        def good(*arguments: str, status: int = 0) -> str:
            printed = command(*arguments)
            assert printed.status == status, (arguments, printed.err)
            return printed.out

        good("sync", status=6)
        reasons = query(
            url,
            "SELECT DISTINCT reason FROM orchestra_etl.dead_letters WHERE workflow_id <> 'w'"
            " ORDER BY 1",
        )
        assert [row["reason"] for row in reasons] == ["id_conflict", "not_an_array"]
        history.add_runs(first, 14)
        assert "possible gap" in good("sync", status=6)
        good("gaps", "list")
        good("gaps", "ack", "--all")
        good("backfill", "--reread")
        good("track", second, history.run_ids(second)[0])
        good("dead-letters", "list")
        letters = [one["id"] for one in json.loads(good("dead-letters", "list", "--json"))]
        good("dead-letters", "show", str(letters[-1]))
        simulator.steps_bodies.clear()
        good("dead-letters", "retry", "--all")
        good("sync")
        good("dead-letters", "discard", "--all")
        query(
            url,
            "UPDATE orchestra_etl.rebuilds SET finished_at = NULL; UPDATE orchestra.steps"
            " SET request_model = 'x'",
        )
        assert "recomputed" in good("rebuild")
        monkeypatch.setenv("ORCHESTRA_REDACTION_KEY", "9" * 64)
        (tmp_path / "etl.toml").write_text(f"{toml}\n{REDACTING}")
        good("backfill", "--reread")
        for table in ("inputs", "outputs", "run_payloads"):
            assert query(url, f"SELECT count(*) AS n FROM orchestra.{table}") == [{"n": 0}]
        (tmp_path / "etl.toml").write_text(f'{toml}\n[states]\ncompleted = "failed"\n')
        good("sync")
        assert query(url, FAILED) != [{"n": 0}]
        assert command("status").status in {0, 6}
        good("runs", "list")
        good("runs", "show", owner, "--payloads")
        good("runs", "compare", owner, late)
        good("workflows")
        good("db", "current")
        good("rollups", "refresh", "--all")
        good("rollups", "verify")
        _serve(tmp_path, toml, variables, url)
    assert query(url, FAILED) == [{"n": 0}]


def _serve(folder: Path, toml: str, variables: dict[str, str], url: str) -> None:
    settings = load(folder, toml, variables)
    health, stop = Health(), Stop()

    async def work(database: Database) -> None:
        async with app.open_jobs(settings, database) as jobs:
            schedules = [Schedule(one.id, 0.2) for one in settings.workflows]
            running = asyncio.create_task(
                Daemon(
                    jobs.syncer, health, schedules, default_interval=0.2, pace=Pace(tick=0.1)
                ).run(stop)
            )
            query(
                url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE workflow_id <> 'w'"
            )
            due = (
                "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE due_at <= now()"
                " AND workflow_id <> 'w'"
            )
            end = time.monotonic() + 240
            while query(url, due):
                assert time.monotonic() < end, health.problems
                await asyncio.sleep(0.05)
            stop.set()
            await running

    with app.open_database(settings) as database:
        asyncio.run(work(database))
    assert health.problems == {}


LOADER_MUST_NOT = (
    "DROP TABLE orchestra.steps", "ALTER TABLE orchestra.steps ADD COLUMN x int",
    "TRUNCATE orchestra_etl.state_map",
    "DELETE FROM orchestra.steps", "DELETE FROM orchestra.runs", "DELETE FROM orchestra.workflows",
    "DELETE FROM orchestra_etl.run_ledger", "DELETE FROM orchestra_etl.dead_letters",
    "DELETE FROM orchestra_etl.locks", "INSERT INTO orchestra_etl.locks VALUES ('x')",
    "UPDATE orchestra_etl.retention SET run_horizon = NULL",
    "INSERT INTO orchestra_etl.retention (id) VALUES (1)",
    "UPDATE orchestra_etl.alembic_version SET version_num = 'x'", "CREATE TABLE orchestra.x ()",
    "CREATE TABLE orchestra_etl.x ()",
    "CREATE FUNCTION orchestra.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE INDEX ON orchestra.steps (status)",
    "CREATE OR REPLACE VIEW orchestra.coverage AS SELECT 1 AS x",
    "SET ROLE orchestra_migrator", "SET ROLE orchestra_payload_analyst", "CREATE SCHEMA x",
    "CREATE ROLE x",
    "ALTER TABLE orchestra.runs DISABLE TRIGGER ALL", "COMMENT ON TABLE orchestra.runs IS 'x'",
)  # fmt: skip


def test_the_loader_may_do_nothing_else(url: str) -> None:
    """The loader cannot change definitions, use other roles, remove runs or grant privileges."""
    loader = as_user(url, "test_loader")
    for statement in LOADER_MUST_NOT:
        assert code(loader, statement) == DENIED, statement
    with psycopg.connect(loader, autocommit=True) as connection:
        connection.execute("GRANT SELECT ON orchestra.inputs TO test_nobody, test_analyst")
    assert code(as_user(url, "test_analyst"), "SELECT data FROM orchestra.inputs") == DENIED


# Analysts.

ANALYST_MAY = (
    "SELECT id, state FROM orchestra.steps", "SELECT count(*) FROM orchestra.inputs",
    "SELECT * FROM orchestra.workflows", "SELECT step_id, size_bytes, note FROM orchestra.inputs",
    "SELECT workflow_id, first_seen_at, version, api_updated_at FROM orchestra.workflow_versions",
    "SELECT * FROM orchestra.coverage",
    "SELECT r.id FROM orchestra.runs r JOIN orchestra.steps s ON s.run_id = r.id",
    "COPY orchestra.steps (id) TO STDOUT",
    *(f"SELECT * FROM orchestra.explain_{one}('w', '2026-01-02', now(), '2026-01-01', '2026-01-02')"
      for one in ("cost", "duration", "failures")),
)  # fmt: skip
PAYLOAD_READS = (
    "SELECT * FROM orchestra.steps", "SELECT extra FROM orchestra.runs",
    "SELECT prompt, answer FROM orchestra.model_calls",
    "SELECT count(*) FROM orchestra.model_calls WHERE system LIKE '%s%'",
    "SELECT data FROM orchestra.inputs",
    "SELECT raw FROM orchestra.outputs", "SELECT row_to_json(s.*) FROM orchestra.steps s",
    "SELECT s FROM orchestra.steps s",
    "SELECT to_jsonb(i) FROM orchestra.inputs i", "SELECT CAST(i AS text) FROM orchestra.inputs i",
    "SELECT jsonb_agg(o) FROM orchestra.outputs o", "COPY orchestra.inputs TO STDOUT",
    "COPY (SELECT data FROM orchestra.inputs) TO STDOUT", "TABLE orchestra.run_payloads",
    "SELECT 1 FROM orchestra.inputs WHERE data::text LIKE '%s%'",
    "SELECT step_id FROM orchestra.inputs ORDER BY data",
    "SELECT count(data) FROM orchestra.inputs",
    "SELECT FROM orchestra.inputs GROUP BY step_id HAVING max(data::text) > ''",
    "SELECT jsonb_object_agg(step_id, data) FROM orchestra.inputs",
    "SELECT outputs FROM orchestra.run_payloads",
    "SELECT graph FROM orchestra.workflow_versions", "SELECT v FROM orchestra.workflow_versions v",
    "SELECT step_metadata FROM orchestra.steps", "SELECT inputs_raw FROM orchestra.run_payloads",
    "SELECT content_hash FROM orchestra.steps",
    "SELECT id FROM orchestra.runs WHERE content_hash > ''",
)  # fmt: skip
MUST_NOT = (
    "SELECT body FROM orchestra_etl.dead_letters", "SELECT listing FROM orchestra_etl.run_ledger",
    "SELECT count(*) FROM orchestra_etl.run_ledger",
    "SELECT version_num FROM orchestra_etl.alembic_version",
    "COPY orchestra_etl.dead_letters TO STDOUT",
    "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES ('w', 'x')",
    "INSERT INTO orchestra.workflows (id) VALUES ('x')",
    "UPDATE orchestra.runs SET state = 'failed'",
    "UPDATE orchestra.inputs SET note = 'x'", "DELETE FROM orchestra.runs",
    "TRUNCATE orchestra.runs",
    "CREATE TABLE orchestra.x ()",
    "CREATE FUNCTION orchestra.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE VIEW orchestra.v AS SELECT 1 AS x",
    "CREATE FUNCTION orchestra_etl.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SELECT name FROM orchestra_etl.locks",
    "LOCK TABLE orchestra.prices IN SHARE ROW EXCLUSIVE MODE",
    "SELECT * FROM orchestra.runs FOR UPDATE", "SELECT id FROM orchestra.runs FOR SHARE",
    "LOCK TABLE orchestra.runs",
    "SET ROLE orchestra_migrator", "SET ROLE orchestra_loader",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER VIEW orchestra.coverage OWNER TO CURRENT_USER", "SELECT pg_read_file('postmaster.pid')",
    "COPY orchestra.steps (id) TO PROGRAM 'cat'",
)  # fmt: skip


def test_plain_columns_and_views_are_open_to_all_who_read(url: str) -> None:
    """Analysts of both kinds and the loader read all columns without payloads."""
    for login in ("test_analyst", "test_payload_analyst", "test_loader"):
        for statement in ANALYST_MAY:
            assert code(as_user(url, login), statement) is None, (login, statement)


def test_only_payload_analysts_read_payloads(url: str) -> None:
    """No query lets an analyst read or test a payload; a payload analyst may do both."""
    for statement in PAYLOAD_READS:
        assert code(as_user(url, "test_analyst"), statement) == DENIED, statement
        assert code(as_user(url, "test_payload_analyst"), statement) is None, statement


def test_analysts_neither_write_nor_read_the_ledger(url: str) -> None:
    """Analysts cannot write, define objects, use other roles or read the ledger."""
    for login in ("test_analyst", "test_payload_analyst"):
        for statement in MUST_NOT:
            assert code(as_user(url, login), statement) == DENIED, (login, statement)


def test_commands_that_show_runs_need_the_loader(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that show runs print nothing to an analyst, and one line that names the role."""
    for login in ("test_analyst", "test_payload_analyst"):
        command = command_line(tmp_path, monkeypatch, capsys, "", DATABASE_URL=as_user(url, login))
        for arguments in (("list",), ("show", "r", "--payloads"), ("compare", "r", "r")):
            printed = command("runs", *arguments)
            assert (printed.status, printed.out, printed.err.count("\n")) == (4, "", 1)
            assert f"which the role {LOADER} has" in printed.err
            assert "secret" not in printed.err


def test_a_hash_does_not_reveal_a_short_payload(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An analyst cannot find a short payload by comparing hashes of guesses.

    A reader of the hashes of content can.
    """
    pin, guesses = "4711", [f"{number:04}" for number in range(4700, 4800)]
    history = History(seed=5, workflows=1, runs_per_workflow=1, live=0, arrivals_per_minute=0)
    (workflow,) = history.workflow_ids
    (run,) = history.run_ids(workflow)
    with Simulator(history).in_thread() as simulator:
        step = {"id": "short", "node_id": "n", "status": "completed", "inputs": pin}
        simulator.steps_bodies[run] = json.dumps([step]).encode()
        command = command_line(
            tmp_path,
            monkeypatch,
            capsys,
            configuration(workflow),
            **environment(url, simulator.base_url),
        )
        # The run of the fixture is not on this server.
        assert command("sync").status == 6

    def matching(reader: str) -> list[str]:
        """Return the guesses whose hash is in a column that this user may read."""
        readable = query(
            as_user(url, reader),
            "SELECT c.oid::regclass::text AS relation, array_agg(quote_ident(a.attname)) AS names"
            " FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0"
            " WHERE c.relnamespace IN ('orchestra'::regnamespace)"
            " AND c.relkind IN ('r', 'v', 'm') AND a.atttypid IN ('bytea'::regtype,"
            " 'text'::regtype) AND has_column_privilege(c.oid, a.attnum, 'SELECT')"
            " GROUP BY c.oid",
        )
        seen: set[object] = set()
        for relation in readable:
            rows = query(
                as_user(url, reader),
                f"SELECT {', '.join(relation['names'])} FROM {relation['relation']}",
            )
            seen.update(value for row in rows for value in row.values())
        found = []
        for guess in guesses:
            body = json.dumps([{**step, "inputs": guess}]).encode()
            (decoded,) = decode_steps(
                body, workflow_id=workflow, run_id=run, states=StateMap()
            ).steps
            if decoded.content_hash in seen or decoded.content_hash.hex() in seen:
                found.append(guess)
        return found

    assert matching("test_payload_analyst") == [pin]
    assert matching("test_analyst") == []


def test_locks_of_readers_delay_nothing(url: str) -> None:
    """No lock that a reader can take delays rollups or erasures; a lock of the loader does."""
    service = Database(as_user(url, "test_loader"), patience=5)

    def refreshed() -> bool:
        query(
            url, "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour) VALUES ('w', now())"
        )
        return not rollups.drain(service).busy

    try:
        for reader in ("test_analyst", "test_payload_analyst"):
            with psycopg.connect(as_user(url, reader)) as held:
                held.execute(
                    "SELECT pg_advisory_lock(7305808869229538661), pg_advisory_lock(n)"
                    " FROM generate_series(0, 99) AS n"
                )
                for table in (
                    "runs",
                    "steps",
                    "step_rollup",
                    "step_failures",
                    "prices",
                    "run_requests",
                ):
                    held.execute(f"SELECT count(*) FROM orchestra.{table}".encode())
                assert refreshed()
                with psycopg.connect(url) as eraser:
                    eraser.execute("SET lock_timeout = '1s'")
                    eraser.execute("SELECT FROM orchestra_etl.locks FOR UPDATE")
        with psycopg.connect(as_user(url, "test_loader")) as held:
            held.execute("SELECT FROM orchestra_etl.locks FOR UPDATE")
            assert not refreshed()
    finally:
        service.close()


def test_statistics_do_not_reveal_payloads(url: str) -> None:
    """Statistics of payload columns are hidden from an analyst and visible to a payload analyst."""
    for table, column in (("inputs", "data"), ("steps", "content_hash")):
        question = (
            f"SELECT count(*) AS n FROM pg_stats WHERE tablename = '{table}'"
            f" AND attname = '{column}'"
        )
        assert query(as_user(url, "test_analyst"), question) == [{"n": 0}]
        assert query(as_user(url, "test_payload_analyst"), question) == [{"n": 1}]


def test_a_user_without_a_role_has_no_access(url: str) -> None:
    """A user without a role can read no table, view or version, and create nothing."""
    for statement in (*ANALYST_MAY, *PAYLOAD_READS, *MUST_NOT):
        if not statement.startswith(("SELECT pg_read", "SET SESSION")):
            assert code(as_user(url, "test_nobody"), statement) == DENIED, statement


def test_a_view_that_shows_payloads_is_for_payload_analysts(url: str) -> None:
    """A new view is granted by what it reads, also through other views.

    A new routine is not granted to users without a role.
    """
    migrator = as_user(url, "test_migrator")
    query(
        migrator,
        """
        SET ROLE orchestra_migrator;
        CREATE VIEW orchestra.plain AS SELECT id, state FROM orchestra.steps;
        CREATE VIEW orchestra.prompts AS SELECT step_id, data -> 'x' AS x FROM orchestra.inputs;
        CREATE VIEW orchestra.prompts_again AS SELECT x FROM orchestra.prompts;
        CREATE FUNCTION orchestra.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
        """,
    )
    assert code(as_user(url, "test_analyst"), "SELECT * FROM orchestra.plain") == DENIED
    upgraded = Database(migrator)
    assert grants.refresh(upgraded)
    upgraded.close()
    analyst = as_user(url, "test_analyst")
    assert code(analyst, "SELECT * FROM orchestra.plain") is None
    assert code(analyst, "SELECT orchestra.one()") is None
    assert code(as_user(url, "test_nobody"), "SELECT orchestra.one()") == DENIED
    for view in ("prompts", "prompts_again"):
        assert code(analyst, f"SELECT * FROM orchestra.{view}") == DENIED
        assert code(as_user(url, "test_payload_analyst"), f"SELECT * FROM orchestra.{view}") is None


# Creating the roles, and upgrading with them.


def test_a_second_db_roles_changes_nothing(url: str) -> None:
    """A second `db roles` leaves the same privileges and revokes those granted by hand."""
    rights = """
        SELECT c.oid::regclass::text AS name, c.relacl::text[] AS acl,
            c.relowner::regrole::text AS owner,
            (SELECT array_agg(a.attname || a.attacl::text ORDER BY a.attname) FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL) AS columns
        FROM pg_class c
        WHERE c.relnamespace IN ('orchestra'::regnamespace, 'orchestra_etl'::regnamespace)
        ORDER BY 1
    """
    before = query(url, rights)
    assert {row["owner"] for row in before} == {MIGRATOR}
    query(url, "GRANT SELECT (body) ON orchestra_etl.dead_letters TO orchestra_analyst")
    query(url, "GRANT DELETE ON orchestra.runs TO orchestra_loader")
    query(url, "GRANT USAGE ON SCHEMA orchestra_etl TO PUBLIC")
    applied = apply(url)
    assert applied == roles.RolesReport((), (), ())
    after = query(url, rights)
    for row in (*before, *after):
        row["acl"] = sorted(row["acl"] or ())
    assert after == before
    assert code(as_user(url, "test_nobody"), "SELECT FROM orchestra_etl.sweeps") == DENIED


def test_db_roles_prints_roles_and_statements(
    cluster: EmbeddedPostgres,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`db roles` names the roles and the statements that create users.

    Its error in one line names the command if the schema is not current.
    """
    command = command_line(tmp_path, monkeypatch, capsys, "", DATABASE_URL=database_url)
    first = command("db", "roles")
    assert first.status == 0
    assert first.out.count("created") == 4
    assert "CREATE ROLE jane LOGIN IN ROLE orchestra_analyst;" in first.out
    assert "\\password" in first.out
    second = command("db", "roles", "--json").json
    assert [one["name"] for one in second["roles"]] == [MIGRATOR, LOADER, ANALYST, PAYLOAD_ANALYST]
    assert not any(one["created"] for one in second["roles"])
    for line in second["users"]:
        assert code(database_url, line) is None
    bring_later_revision(monkeypatch, tmp_path)
    assert "orchestra-etl db upgrade" in command("db", "roles").err


def test_creating_roles_needs_createrole(cluster: EmbeddedPostgres, database_url: str) -> None:
    """The schema's owner needs CREATEROLE, but no superuser, to create the roles.

    After that, the owner can still upgrade.
    """
    query(database_url, "CREATE ROLE test_owner LOGIN")
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    query(database_url, f"ALTER DATABASE {name} OWNER TO test_owner")
    # The template's owner is the administrator, so a plain user creates the schemas again.
    query(database_url, "DROP SCHEMA orchestra, orchestra_etl CASCADE")
    mine = as_user(database_url, "test_owner")
    upgrade(mine)
    with pytest.raises(DatabaseError, match="CREATEROLE"):
        apply(mine)
    assert (
        query(database_url, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'orchestra%%'") == []
    )
    query(database_url, "ALTER ROLE test_owner CREATEROLE")
    assert apply(mine) == roles.RolesReport(tuple(roles.PURPOSES), (), ())
    assert apply(mine).created == ()
    upgrade(mine)
    query(mine, "UPDATE orchestra.runs SET state = 'failed'")
    query(mine, "ALTER TABLE orchestra.runs OWNER TO orchestra_migrator")


@pytest.mark.parametrize("attributes", ["", *slow("NOINHERIT")])
def test_a_former_owner_keeps_working(
    cluster: EmbeddedPostgres,
    empty_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attributes: str,
) -> None:
    """A session of the schema's former owner continues after a superuser creates the roles.

    That user can still upgrade.
    """
    query(empty_database_url, f"CREATE ROLE test_owner LOGIN {attributes}")
    name = psycopg.conninfo.conninfo_to_dict(empty_database_url)["dbname"]
    query(empty_database_url, f"GRANT CREATE ON DATABASE {name} TO test_owner")
    mine = as_user(empty_database_url, "test_owner")
    upgrade(mine)
    bring_later_revision(monkeypatch, tmp_path)
    upgrade(mine)
    service = Database(mine)
    service.transaction(
        lambda c: c.exec_driver_sql("UPDATE orchestra_etl.run_ledger SET due_at = now()")
    )
    applied = apply(empty_database_url)
    assert (applied.former_owners, applied.kept) == (("test_owner",), ())
    service.transaction(
        lambda c: c.exec_driver_sql("UPDATE orchestra_etl.run_ledger SET due_at = now()")
    )
    service.close()
    for statement in (
        *MIGRATOR_MAY,
        "SELECT data FROM orchestra.inputs",
        "ALTER TABLE orchestra.runs ADD COLUMN x int",
    ):
        assert code(mine, statement) is None, statement
    assert apply(empty_database_url) == roles.RolesReport((), (), ())
    # This is what the command advises if another user upgrades.
    query(empty_database_url, f"REVOKE {MIGRATOR} FROM test_owner")
    assert code(mine, "UPDATE orchestra.runs SET state = 'x'") is None
    assert code(mine, "DROP TABLE orchestra.runs") == DENIED


def test_members_of_the_owner_and_live_users_keep_working(
    cluster: EmbeddedPostgres, empty_database_url: str
) -> None:
    """A login keeps privileges that it has through the former owner.

    A user with an open session and privileges from PUBLIC becomes a loader.
    """
    url = empty_database_url
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    query(url, f"CREATE ROLE test_owner; GRANT CREATE ON DATABASE {name} TO test_owner")
    query(
        url,
        "CREATE ROLE test_loader LOGIN IN ROLE test_owner; CREATE ROLE test_nobody LOGIN;"
        " CREATE ROLE test_analyst LOGIN",
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET ROLE test_owner")
        connection.execute("CREATE SCHEMA orchestra; CREATE SCHEMA orchestra_etl")
    upgrade(as_user(url, "test_loader"))
    query(url, "GRANT USAGE ON SCHEMA orchestra, orchestra_etl TO PUBLIC")
    query(url, "GRANT ALL ON ALL TABLES IN SCHEMA orchestra, orchestra_etl TO PUBLIC")
    service = Database(as_user(url, "test_nobody"))
    write = "UPDATE orchestra_etl.run_ledger SET due_at = now()"
    service.transaction(lambda c: c.exec_driver_sql(write))
    applied = apply(url)
    assert (applied.former_owners, applied.kept) == (("test_owner",), ("test_nobody",))
    service.transaction(lambda c: c.exec_driver_sql(write))
    service.close()
    assert code(as_user(url, "test_loader"), write) is None
    assert code(as_user(url, "test_analyst"), write) == DENIED


def test_only_the_owner_of_the_schema_creates_roles(
    cluster: EmbeddedPostgres, database_url: str
) -> None:
    """A user with CREATEROLE who does not own the schema learns who does, and creates no role."""
    query(database_url, "CREATE ROLE test_nobody LOGIN CREATEROLE")
    query(database_url, "GRANT USAGE ON SCHEMA orchestra_etl TO test_nobody")
    query(database_url, "GRANT ALL ON ALL TABLES IN SCHEMA orchestra_etl TO test_nobody")
    try:
        with pytest.raises(DatabaseError, match=r"belongs to postgres: run .* as its owner"):
            apply(as_user(database_url, "test_nobody"))
        assert (
            query(database_url, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'orchestra%%'")
            == []
        )
    finally:
        query(database_url, "DROP OWNED BY test_nobody")


def test_names_may_hold_any_character(
    cluster: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roles, upgrades and checks work with any characters in the names of database and owner."""
    odd = """50% :of "it's" %(x)s"""
    names = sql.Identifier(odd), sql.Identifier(f"{odd}!")
    admin = cluster.url_for("postgres")
    where = admin.partition("?")[2]
    url = f"postgresql://{quote(odd + '!', safe='')}@/{quote(odd, safe='')}?{where}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(names[1]))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
    try:
        upgrade(url)
        bring_later_revision(monkeypatch, tmp_path)
        upgrade(url)
        assert apply(url).created == tuple(roles.PURPOSES)
        check_drift(url)
        upgraded = Database(url)
        assert grants.refresh(upgraded)
        with pytest.raises(DatabaseError, match="lacks"):
            upgraded.transaction(lambda c: c.exec_driver_sql("DELETE FROM pg_authid"))
        upgraded.close()
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))
            _drop_roles(cluster)
            connection.execute(sql.SQL("DROP ROLE {}").format(names[1]))


# Refused privileges.


def _denied(url: str, *statements: str) -> str:
    opened = Database(url)
    try:
        with pytest.raises(DatabaseError, match="SQLSTATE 42501") as refused:
            opened.transaction(lambda c: [c.exec_driver_sql(one) for one in statements])
        return str(refused.value)
    finally:
        opened.close()


def test_a_refused_privilege_names_user_object_and_role(url: str) -> None:
    """The error names the user, the object, and the role or GRANT with the privilege."""
    assert (
        "test_analyst lacks USAGE on schema orchestra_etl, which the role orchestra_loader has"
        in _denied(as_user(url, "test_analyst"), "SELECT * FROM orchestra_etl.run_ledger")
    )
    error = _denied(
        as_user(url, "test_analyst"), "INSERT INTO orchestra.workflows (id) VALUES ('secret')"
    )
    assert "test_analyst lacks INSERT, UPDATE on orchestra.workflows" in error
    assert "GRANT orchestra_loader TO test_analyst" in error
    assert "secret" not in error
    error = _denied(as_user(url, "test_loader"), "DELETE FROM orchestra.runs")
    assert (
        "test_loader lacks a privilege on orchestra.runs, which the role orchestra_migrator has"
        in error
    )
    assert "GRANT orchestra_migrator TO test_loader" in error
    query(
        url,
        "REVOKE orchestra_loader FROM test_loader; GRANT orchestra_loader TO test_loader WITH"
        " INHERIT FALSE",
    )
    error = _denied(as_user(url, "test_loader"), "SELECT * FROM orchestra_etl.run_ledger")
    assert (
        "does not inherit: let an administrator run GRANT orchestra_loader TO test_loader WITH"
        " INHERIT TRUE" in error
    )
    query(url, "GRANT orchestra_loader TO test_loader WITH INHERIT TRUE")
    query(url, "REVOKE INSERT ON orchestra.steps FROM orchestra_loader")
    assert "run `orchestra-etl db roles`" in _denied(
        as_user(url, "test_loader"), "INSERT INTO orchestra.steps (id) VALUES ('x')"
    )


def test_every_command_names_what_a_user_lacks(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command names the role that the user lacks.

    The test runs the service's commands as an analyst, and an upgrade as a loader.
    """
    toml = configuration("11111111-2222-3333-4444-555555555555")

    def error_line(user: str, *arguments: str) -> str:
        variables = environment(as_user(url, user), "http://127.0.0.1:1")
        printed = command_line(tmp_path, monkeypatch, capsys, toml, **variables)(*arguments)
        assert printed.status == 4, (arguments, printed.err)
        return printed.err

    for arguments in (
        ("status",),
        ("sync",),
        ("db", "check"),
        ("db", "current"),
        ("gaps", "list"),
        ("db", "upgrade"),
    ):
        line = error_line("test_analyst", *arguments)
        assert (
            "test_analyst lacks USAGE on schema orchestra_etl, which the role orchestra_loader has"
            in line
        )
    query(url, "REVOKE UPDATE ON orchestra.steps FROM orchestra_loader")
    assert "test_loader lacks UPDATE on orchestra.steps" in error_line("test_loader", "db", "check")
    bring_later_revision(
        monkeypatch, tmp_path, ["ALTER TABLE orchestra.runs SET (fillfactor = 90)"]
    )
    line = error_line("test_loader", "db", "upgrade")
    assert "orchestra_migrator" in line
    assert "GRANT orchestra_migrator TO test_loader" in line


MIGRATOR_MAY = (
    "DELETE FROM orchestra.runs", "UPDATE orchestra.inputs SET data = NULL",
    "DELETE FROM orchestra_etl.dead_letters",
    "INSERT INTO orchestra_etl.retention (id) VALUES (1)",
    "CREATE TEMPORARY TABLE doomed ON COMMIT DROP AS SELECT 1 AS x",
)  # fmt: skip


def test_a_migrators_login_upgrades_for_all_roles(
    cluster: EmbeddedPostgres,
    empty_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Objects that a migrator's login creates belong to the group and are granted to all roles.

    Its members can prune and erase.
    """
    upgrade(empty_database_url)
    coverage = (ROOT / "migrations" / "sql" / "coverage_v1.sql").read_text()
    bring_later_revision(monkeypatch, tmp_path, ["DROP VIEW orchestra.coverage", coverage])
    database = Database(empty_database_url)
    query(
        empty_database_url,
        "CREATE ROLE test_migrator LOGIN; CREATE ROLE test_analyst LOGIN;"
        " CREATE ROLE test_loader LOGIN",
    )
    # This is the state that `db roles` of an earlier version left.
    for group, login in (
        (MIGRATOR, "test_migrator"),
        (ANALYST, "test_analyst"),
        (LOADER, "test_loader"),
        (PAYLOAD_ANALYST, None),
    ):
        query(empty_database_url, f"CREATE ROLE {group}")
        if login:
            query(empty_database_url, f"GRANT {group} TO {login}")
    database.transaction(roles._hand_over)
    database.close()
    loader = as_user(empty_database_url, "test_loader")
    query(
        empty_database_url,
        f"GRANT USAGE ON SCHEMA orchestra_etl TO {LOADER}; GRANT SELECT"
        f" ON orchestra_etl.alembic_version TO {LOADER}",
    )
    with pytest.raises(DatabaseError, match="orchestra_migrator"):
        upgrade(loader)
    migrator = as_user(empty_database_url, "test_migrator")
    upgrade(migrator)
    upgraded = Database(migrator)
    schema.check(upgraded)
    assert grants.refresh(upgraded)
    upgraded.close()
    check_drift(migrator)
    owners = query(
        empty_database_url,
        "SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class"
        " WHERE relnamespace IN ('orchestra'::regnamespace, 'orchestra_etl'::regnamespace)",
    )
    assert owners == [{"owner": MIGRATOR}]
    assert (
        code(as_user(empty_database_url, "test_analyst"), "SELECT * FROM orchestra.coverage")
        is None
    )
    assert code(loader, "SELECT * FROM orchestra_etl.retention") is None
    for statement in MIGRATOR_MAY:
        assert code(migrator, statement) is None, statement


def test_an_upgrade_by_the_loader_changes_no_privileges(url: str) -> None:
    """An upgrade by the loader finds nothing to do and leaves the privileges alone."""
    opened = Database(as_user(url, "test_loader"))
    schema.check(opened)
    assert schema.read(opened).is_current
    assert not grants.refresh(opened)
    opened.close()


def test_two_databases_share_the_roles(url: str, empty_database_url: str) -> None:
    """`db roles` in a second database grants the existing roles privileges in it.

    Before that, the roles have none there.
    """
    upgrade(empty_database_url)
    analyst = as_user(empty_database_url, "test_analyst")
    assert code(analyst, "SELECT id FROM orchestra.runs") == DENIED
    assert apply(empty_database_url).created == ()
    assert code(analyst, "SELECT id FROM orchestra.runs") is None

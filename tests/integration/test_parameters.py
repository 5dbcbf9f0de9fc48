"""Settings of a database, a role or the environment never change what the program stores.

They do not limit how long an upgrade may take either.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, text

from etl import app, maintenance, session
from etl.database import Database
from etl.schema import check_drift, upgrade
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.oracle import differences
from tests.support import configuration, environment, load, query, sync

# Each harmful value, with a query that shows its effect and the result in a correct session.
HOSTILE = {
    "DateStyle": ("German", "SELECT timestamptz '2026-03-01 12:00Z' = now()", False),
    "IntervalStyle": ("iso_8601", "SELECT interval '1 day 2 hours'", timedelta(days=1, hours=2)),
    "TimeZone": ("Asia/Tokyo", "SELECT CAST(timestamptz '2026-03-01 12:00Z' AS text)",
                 "2026-03-01 12:00:00+00"),
    "bytea_output": ("escape", "SELECT CAST(CAST('\\x01' AS bytea) AS text)", "\\x01"),
    "extra_float_digits": ("-15", "SELECT CAST(float8 '0.1' + float8 '0.2' AS text)",
                           "0.30000000000000004"),
    "standard_conforming_strings": ("off", "SELECT length('a\\b')", 3),
    "array_nulls": ("off", "SELECT (CAST('{NULL}' AS text[]))[1] IS NULL", True),
    "transform_null_equals": ("on", "SELECT (now() = NULL) IS NULL", True),
    "quote_all_identifiers": ("on", "SELECT quote_ident('a')", "a"),
    "search_path": ("evil, pg_catalog", "SELECT lower('A')", "a"),
    "restrict_nonsystem_relation_kind": ("view", "SELECT count(*) FROM orchestra.coverage", 0),
    "statement_timeout": ("150ms", "SELECT 1 FROM pg_sleep(0.3)", 1),
    "transaction_timeout": ("150ms", "SELECT 1 FROM pg_sleep(0.3)", 1),
    "session_replication_role": ("replica", "SELECT current_setting('session_replication_role')",
                                 "origin"),
    "default_transaction_isolation": ("serializable",
                                      "SELECT current_setting('transaction_isolation')",
                                      "read committed"),
    "gin_fuzzy_search_limit": ("1", "SELECT current_setting('gin_fuzzy_search_limit')", "0"),
    "backslash_quote": ("off", "SELECT current_setting('backslash_quote')", "safe_encoding"),
    "lock_timeout": ("1ms", "SELECT current_setting('lock_timeout')", "30s"),
    "idle_in_transaction_session_timeout": (
        "2s", "SELECT current_setting('idle_in_transaction_session_timeout')", "1min"),
    "exit_on_error": ("on", "SELECT current_setting('exit_on_error')", "off"),
}  # fmt: skip
# These may have any value. They affect plans, costs, memory, the log, waits, the protocol and
# files, but no result.
HARMLESS = re.compile(
    r"""enable_|geqo|jit|cpu_|parallel_|max_parallel_|min_parallel_|seq_page|random_page|effective_
        |from_collapse|join_collapse|cursor_tuple|constraint_exclusion|plan_cache
        |recursive_worktable|default_statistics|compute_query|debug_
        |work_mem|hash_mem|maintenance_|logical_decoding|temp_|max_stack|io_combine
        |backend_flush|synchronize_seqscans
        |log_|trace_|track_|client_min|backtrace|update_process|escape_string|md5_|stats_fetch
        |deadlock|commit_|synchronous_commit|tcp_|client_connection|wal_|vacuum_|gin_pending
        |zero_damaged|ignore_checksum
        |file_copy|default_table|default_toast|check_function|allow_|dynamic_|local_
        |session_preload|extension_|output_plugin
        |event_triggers|row_security|lc_|default_text|icu_|xml|timezone_abbr|lo_compat|password_
        |scram_|createrole_|application_name|client_encoding|idle_session
        |(default_)?transaction_(read_only|deferrable|isolation)""",
    re.VERBOSE,
)


def _set(url: str, name: str, value: str) -> None:
    """Set a parameter for every later session of the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        values = value.split(", ") if name == "search_path" else [value]
        statement = sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(connection.info.dbname),
            sql.Identifier(name),
            sql.SQL(", ").join(map(sql.Literal, values)),
        )
        connection.execute("SET standard_conforming_strings = on")
        connection.execute(statement)


def _evil(url: str) -> None:
    query(
        url,
        "CREATE SCHEMA evil; CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS"
        " 'SELECT ''evil''::text'",
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_settings_do_not_affect_transactions(database_url: str, name: str) -> None:
    """The program's transactions return the correct result despite any setting of the database.

    A session without the program's settings returns a wrong one.
    """
    value, question, correct = HOSTILE[name]
    _evil(database_url)
    _set(database_url, name, value)
    database = Database(database_url, patience=2)

    def read(connection: Connection) -> object:
        connection.execute(text("SELECT now()")).scalar_one()
        return connection.execute(text(question.replace(":", "\\:"))).scalar_one()

    try:
        assert database.transaction(read) == correct
    finally:
        database.close()
    with psycopg.connect(database_url) as control:
        try:
            row = control.execute(question.encode()).fetchone()
            control.execute("SELECT now()").fetchone()
        except (psycopg.Error, NotImplementedError):
            return
        assert row is not None
        assert row[0] != correct


def test_every_settable_parameter_is_handled(database_url: str) -> None:
    """Each parameter that a session can change is set by the program, or affects no result."""
    names = query(
        database_url, "SELECT name FROM pg_settings WHERE context IN ('user', 'superuser')"
    )
    handled = {name.lower() for name in [*session._FIXED, *session._WHERE_KNOWN, *HOSTILE]}
    unknown = [
        row["name"]
        for row in names
        if row["name"].lower() not in handled and not HARMLESS.match(row["name"])
    ]
    assert not unknown, unknown


OTHERS = {
    "row_security": "off", "work_mem": "64kB", "enable_hashjoin": "off",
    "enable_seqscan": "off", "enable_indexscan": "off", "enable_sort": "off",
    "plan_cache_mode": "force_generic_plan", "client_min_messages": "debug1",
    "check_function_bodies": "off", "default_statistics_target": "1",
    "xmlbinary": "hex", "xmloption": "document", "synchronous_commit": "off",
    "max_parallel_workers_per_gather": "8", "default_text_search_config": "german",
    "constraint_exclusion": "on", "from_collapse_limit": "1", "geqo_threshold": "2",
    "default_transaction_deferrable": "on", "idle_session_timeout": "1s",
    "escape_string_warning": "off", "lc_messages": "C", "lc_numeric": "C",
    "timezone_abbreviations": "India",
}  # fmt: skip


@pytest.mark.slow
def test_a_database_with_hostile_settings(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schema, runs and counts are right despite hostile settings and PG* variables."""
    url = empty_database_url
    _evil(url)
    for name, value in OTHERS.items():
        _set(url, name, value)
    for name, (value, _, _) in HOSTILE.items():
        # Timeouts too short for a busy machine have their own test.
        _set(url, name, "20s" if name.endswith("_timeout") else value)
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGOPTIONS", "-c array_nulls=off -c extra_float_digits=-15")
    upgrade(url)
    check_drift(url)
    history = History(seed=5, workflows=2, runs_per_workflow=12, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        settings = load(
            tmp_path, configuration(*history.workflow_ids), environment(url, simulator.base_url)
        )
        report = asyncio.run(sync(settings))
    assert report.exit_status == 0
    with app.open_database(settings) as database:
        asyncio.run(maintenance.refresh_rollups(settings, database))
    for name in ("PGDATESTYLE", "PGTZ", "PGOPTIONS"):
        monkeypatch.delenv(name)
    for name in [*HOSTILE, *OTHERS]:
        with psycopg.connect(url, autocommit=True) as connection:
            reset = sql.SQL("ALTER DATABASE {} RESET {}")
            connection.execute(
                reset.format(sql.Identifier(connection.info.dbname), sql.Identifier(name))
            )
    assert differences(url, history) == []
    [counted] = query(url, "SELECT sum(runs) AS runs FROM orchestra.run_rollup")
    assert counted["runs"] == 24
    assert len(query(url, "SELECT * FROM orchestra.run_summary")) == 24


SLOW = """
    CREATE FUNCTION public.slow() RETURNS event_trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_sleep(1.5); END $$;
    CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE SCHEMA')
        EXECUTE FUNCTION public.slow()
"""


@pytest.mark.parametrize("name", ["statement_timeout", "transaction_timeout"])
def test_upgrades_have_no_statement_timeout(empty_database_url: str, name: str) -> None:
    """A statement of an upgrade may take longer than the role's or the database's timeout."""
    query(empty_database_url, f"CREATE SCHEMA orchestra_etl; {SLOW}")
    _set(empty_database_url, name, "1s")
    upgrade(empty_database_url, revision="0001")
    with psycopg.connect(empty_database_url) as connection, pytest.raises(psycopg.Error):
        connection.execute("CREATE SCHEMA control")

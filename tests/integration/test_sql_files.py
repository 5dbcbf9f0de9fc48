"""An upgraded database agrees with the files of migrations/sql, and released files never change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from etl.admin import roles
from etl.database import Database
from tests.conftest import ROOT
from tests.support import query

SQL = ROOT / "migrations" / "sql"
RELEASED = ROOT / "tests" / "faults" / "released" / "sql.sha256"
"""Lines as `sha256sum` writes them."""

_DEFINITIONS = """
    SELECT 'view ' || c.relname AS name,
           concat(pg_get_viewdef(c.oid),
                  ARRAY(SELECT unnest(c.relacl)::text ORDER BY 1)) AS definition,
           obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class AS c WHERE c.relnamespace = 'orchestra'::regnamespace AND c.relkind = 'v'
    UNION ALL
    SELECT 'column ' || c.relname || '.' || a.attname,
           concat(format_type(a.atttypid, a.atttypmod), a.attacl),
           col_description(c.oid, a.attnum)
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'orchestra'::regnamespace AND c.relkind = 'v'
    UNION ALL
    SELECT 'function ' || p.oid::regprocedure,
           CASE p.prokind
               WHEN 'a' THEN concat_ws(' ', g.aggtransfn, g.aggcombinefn, g.aggfinalfn,
                                       g.agginitval, p.proparallel)
               ELSE pg_get_functiondef(p.oid)
           END || ARRAY(SELECT unnest(p.proacl)::text ORDER BY 1)::text,
           obj_description(p.oid, 'pg_proc')
    FROM pg_proc AS p LEFT JOIN pg_aggregate AS g ON g.aggfnoid = p.oid
    WHERE p.pronamespace IN ('orchestra'::regnamespace, 'orchestra_etl'::regnamespace)
    UNION ALL
    SELECT 'trigger ' || t.tgrelid::regclass || '.' || t.tgname, pg_get_triggerdef(t.oid),
           obj_description(t.oid, 'pg_trigger')
    FROM pg_trigger AS t WHERE NOT t.tgisinternal
"""

_DROPS = """
    SELECT format('DROP VIEW IF EXISTS %I.%I CASCADE', 'orchestra', relname) AS statement,
           0 AS ordinal
    FROM pg_class WHERE relnamespace = 'orchestra'::regnamespace AND relkind = 'v'
    UNION ALL
    SELECT format('DROP TYPE %s CASCADE', reltype::regtype), 3
    FROM pg_class WHERE relnamespace = 'orchestra'::regnamespace AND relkind = 'c'
    UNION ALL
    SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure),
           CASE prokind WHEN 'a' THEN 1 ELSE 2 END
    FROM pg_proc WHERE pronamespace IN ('orchestra'::regnamespace, 'orchestra_etl'::regnamespace)
    ORDER BY 2
"""


def definitions(url: str) -> dict[str, tuple[str, str]]:
    """Return the definition and comment of all views, their columns, functions and triggers."""
    return {row["name"]: (row["definition"], row["comment"]) for row in query(url, _DEFINITIONS)}


def run_files(url: str) -> None:
    """Run the newest version of every file, in the order of their dependencies."""
    newest: dict[str, Path] = {}
    for path in sorted(SQL.glob("*.sql"), key=lambda path: int(path.stem.rpartition("_v")[2])):
        newest[path.stem.rpartition("_v")[0]] = path
    waiting = list(newest.values())
    with psycopg.connect(url, autocommit=True) as connection:
        while waiting:
            left = []
            for path in waiting:
                try:
                    with connection.transaction():
                        connection.execute(path.read_bytes())
                except (
                    psycopg.errors.UndefinedTable,
                    psycopg.errors.UndefinedFunction,
                    psycopg.errors.UndefinedObject,
                ):
                    left.append(path)
            assert len(left) < len(waiting), left
            waiting = left


@pytest.fixture
def granted() -> Iterator[Callable[[str], None]]:
    """Provide a function that applies the roles to a database, and remove the roles afterwards.

    Roles belong to the whole server.
    """
    databases: list[str] = []

    def apply(url: str) -> None:
        databases.append(url)
        database = Database(url, pool_size=1)
        roles.apply(database)
        database.close()

    yield apply
    with psycopg.connect(databases[0], autocommit=True) as connection:
        connection.execute("REASSIGN OWNED BY orchestra_migrator TO postgres")
        for role in roles.PURPOSES:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def test_an_upgraded_database_is_what_the_files_say(
    database_url: str, granted: Callable[[str], None]
) -> None:
    """Views, functions, triggers, comments and grants of a database come from the newest files.

    A change of any of them is noticed.
    """
    granted(database_url)
    upgraded = definitions(database_url)
    assert [name for name, (_, comment) in upgraded.items() if not comment] == []
    for row in query(database_url, _DROPS):
        query(database_url, row["statement"])
    assert definitions(database_url) == {}
    run_files(database_url)
    granted(database_url)
    assert definitions(database_url) == upgraded
    changed = (
        upgraded["view failures"][0].partition(";")[0].replace("f.message", "f.pattern AS message")
    )
    for change in (
        f"CREATE OR REPLACE VIEW orchestra.failures AS {changed}",
        "COMMENT ON COLUMN orchestra.failures.time IS 'Then.'",
        "CREATE OR REPLACE FUNCTION orchestra.bucket_duration(bucket integer) RETURNS double"
        " precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 1.0::double precision'",
        "DROP TRIGGER mark_updated ON orchestra.runs",
        "GRANT SELECT ON orchestra.failures TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION orchestra.outcome FROM orchestra_analyst",
    ):
        before = definitions(database_url)
        query(database_url, change)
        assert definitions(database_url) != before


def test_a_released_file_does_not_change() -> None:
    """A released file never changes, because no database runs it again.

    A change needs a new version of the file and a revision that runs it.
    """
    released = {
        name: digest
        for digest, name in (line.split() for line in RELEASED.read_text().splitlines())
    }
    assert released.keys() >= {"coverage_v1.sql"}
    assert {
        name: hashlib.sha256((SQL / name).read_bytes()).hexdigest() for name in released
    } == released

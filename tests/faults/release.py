"""Dump a populated database of this release, from which tests upgrade to later releases.

Run `python -m tests.faults.release` before a release. It loads a small generated history through
the real command, without two of its runs. It writes `tests/faults/released/<revision>.sql` and, in
`sql.sha256`, the digests of the files of `migrations/sql`, which must not change after the release.
While the revision is not released, delete both files and run it again after each change.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg import sql

from etl import app, logs
from etl.analytics import rollups
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import head, upgrade
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.postgres_fixture import new_home
from tests.support import configuration, environment, load, sync

FOLDER = Path(__file__).parent / "released"
SQL = Path(__file__).parents[2] / "migrations" / "sql"
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
# Revisions create the rows of these tables, so a new schema already has them.
_MADE_BY_REVISIONS = ("alembic_version", "locks", "rebuilds", "alert_evaluation")
# The tables with foreign keys, in the order in which they must be filled.
_FIRST = ("workflows", "runs", "steps")


def released_history() -> History:
    """Return a history of two workflows with seven runs each, all long over."""
    return History(
        seed=31, workflows=2, runs_per_workflow=7, live=0, arrivals_per_minute=0, step_bytes=300,
        epoch=EPOCH, now=lambda: EPOCH + timedelta(days=1),
    )  # fmt: skip


def unlisted_runs(history: History) -> list[str]:
    """Return the runs that the released database does not have: one of each workflow."""
    return [history.run_ids(workflow_id)[2] for workflow_id in history.workflow_ids]


def dump(url: str) -> str:
    """Return every row as an INSERT statement, without generated columns."""
    lines = []
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(
            "SELECT table_schema, table_name,"
            " array_agg(column_name::text ORDER BY ordinal_position)"
            " FROM information_schema.columns"
            " JOIN information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema IN ('orchestra', 'orchestra_etl') AND table_name <> ALL (%s)"
            " AND table_type = 'BASE TABLE' AND is_generated = 'NEVER'"
            " AND is_identity = 'NO' GROUP BY 1, 2",
            [list(_MADE_BY_REVISIONS)],
        ).fetchall()
        order = {name: index for index, name in enumerate(_FIRST)}
        for schema, table, columns in sorted(
            found, key=lambda row: (order.get(row[1], 9), row[0], row[1])
        ):
            table_name, names = (
                sql.Identifier(schema, table),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
            )
            texts = sql.SQL(", ").join(
                sql.SQL("quote_nullable({}::text)").format(sql.Identifier(one)) for one in columns
            )
            start = (
                sql.SQL("INSERT INTO {} ({}) VALUES ")
                .format(table_name, names)
                .as_string(connection)
            )
            statement = sql.SQL("SELECT concat_ws(', ', {}) FROM {} ORDER BY 1").format(
                texts, table_name
            )
            lines += [f"{start}({values});" for (values,) in connection.execute(statement)]
    return "".join(f"{line}\n" for line in lines)


def freeze(folder: Path) -> None:
    """Write the digests of the files of `migrations/sql` that no earlier release had."""
    digests = folder / "sql.sha256"
    frozen = digests.read_text() if digests.exists() else ""
    new = [path for path in sorted(SQL.glob("*.sql")) if path.name not in frozen]
    digests.write_text(
        frozen + "".join(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in new)
    )


def main() -> None:
    """Write the files."""
    logs.configure("warning", "json")
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.release",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--to", type=Path, default=FOLDER, help="another folder for the files")
    released = parser.parse_args().to
    home, folder = new_home(), Path(tempfile.mkdtemp())
    history = released_history()
    for run_id in unlisted_runs(history):
        history.unlist(run_id)
    try:
        with EmbeddedPostgres(home) as server, Simulator(history).in_thread() as simulator:
            upgrade(server.url)
            variables = environment(server.url, simulator.base_url)
            settings = load(folder, configuration(*history.workflow_ids), variables)
            asyncio.run(sync(settings))
            with app.open_database(settings) as database:
                rollups.drain(database)
            released.mkdir(exist_ok=True)
            (released / f"{head()}.sql").write_text(dump(server.url))
        freeze(released)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

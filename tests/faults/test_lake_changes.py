"""Late transactions, restores, retention and erasures beside exports: the lake stays equal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import text

from etl.admin.erase import Selection, erase
from etl.database import Database
from etl.embedded.binaries import psql_path
from etl.embedded.postgres import EmbeddedPostgres
from etl.errors import LakeError
from etl.export import archive, attachment, changes, erasure, exporter, garbage, origin
from etl.export.archive import Kept
from etl.export.destination import Destination
from etl.export.verify import verify
from etl.ledger import state_map
from tests import lake_reader
from tests.exported_world import ExportedWorld
from tests.faults.suite import Fault
from tests.support import query

RUN = """
    INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
    VALUES (%s, 'w', 'succeeded', 'api', 'final', %s)
"""
CANARY = "canary-7d1f"


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[ExportedWorld]:
    """Provide eight runs, one a day, in PostgreSQL and in the lake."""
    made = ExportedWorld(tmp_path, database_url, runs=8)
    assert made.export().complete
    yield made
    made.database.close()


def _differences(world: ExportedWorld) -> list[str]:
    """Return how the lake differs from PostgreSQL after an export, value by value."""
    world.export()
    destination = Destination(str(world.location), payloads=True)
    found = world.database.in_one_snapshot(lambda c: verify(c, destination, deep=True))
    return [f"{one.day} {one.table}: {one.what}" for one in found.differences]


@pytest.mark.fault(
    37, "transactions that commit after an export", "C", guard="queue of days by transaction"
)
def test_transactions_that_commit_late(fault: Fault, world: ExportedWorld) -> None:
    """Changes that commit in any order around exports all reach the lake."""
    newest = text("""
        SELECT DISTINCT orchestra_etl.run_day(start_time, first_seen_at) AS day
        FROM orchestra.runs
        WHERE updated_at > (SELECT max(exported_at) FROM orchestra_etl.export_days)
        ORDER BY day DESC
    """)

    def late(name: str) -> list[str]:
        with psycopg.connect(world.url) as slow:
            slow.execute(RUN, [f"{name}-late", "2026-06-01T12:00Z"])
            query(world.url, RUN, f"{name}-early", "2026-06-02T12:00Z")
            world.export()
        return _differences(world)

    for number in range(5):
        assert late(f"run-{number}") == []
        fault.injected()
    with patch.object(changes, "changed_days", lambda c: list(c.execute(newest).scalars())):
        world.export()
        fault.control(late("watermark"))


@pytest.mark.fault(
    38, "database restored from a dump, the lake is newer", "C", guard="origin of the last export"
)
def test_a_restored_dump(
    fault: Fault, world: ExportedWorld, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """After a restore, the lake loses what the database no longer has, though its files are new."""
    dump = tmp_path / "dump"
    tool = str(psql_path().with_name("pg_dump"))
    subprocess.run([tool, "--format=custom", f"--file={dump}", world.url], check=True)
    query(world.url, RUN, "after-the-dump", "2026-06-01T12:00Z")
    query(world.url, "UPDATE orchestra.runs SET status = 'after the dump'")
    world.export()
    garbage.run(world.database, Destination(str(world.location), payloads=True), keep=0)

    def restored(name: str, *, guarded: bool) -> list[str]:
        with psycopg.connect(postgres_server.url_for("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
        url = postgres_server.url_for(name)
        restore = str(psql_path().with_name("pg_restore"))
        subprocess.run([restore, f"--dbname={url}", str(dump)], check=True)
        first, world.database = world.database, Database(url, patience=5)
        try:
            with ExitStack() as stack:
                if not guarded:
                    stack.enter_context(patch.object(origin, "why_invalid", lambda c: None))
                problems = _differences(world)
            ids = {row["id"] for row in lake_reader.rows(world.location, "runs")}
            if ids != set(world.run_ids):
                problems.append("the lake has runs that the database does not have")
            return problems
        except LakeError as error:
            return [str(error)]
        finally:
            world.database.close()
            world.database = first
            with psycopg.connect(postgres_server.url_for("postgres"), autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def restored_in_place(*, guarded: bool) -> list[str]:
        query(world.url, "DROP SCHEMA orchestra, orchestra_etl CASCADE")
        restore = str(psql_path().with_name("pg_restore"))
        subprocess.run([restore, f"--dbname={world.url}", str(dump)], check=True)
        try:
            with ExitStack() as stack:
                if not guarded:
                    stack.enter_context(
                        patch.object(attachment, "is_ahead", lambda c, destination: False)
                    )
                query(world.url, "UPDATE orchestra.runs SET status = 'after the restore'")
                return _differences(world)
        except LakeError as error:
            return [str(error)]

    fault.control(restored("restored_unguarded", guarded=False))
    assert restored("restored_guarded", guarded=True) == []
    fault.injected()
    fault.control(restored_in_place(guarded=False))
    assert restored_in_place(guarded=True) == []
    ids = {row["id"] for row in lake_reader.rows(world.location, "runs")}
    assert ids == set(world.run_ids)
    fault.injected()


@pytest.mark.fault(
    39, "erasure, also of runs that only the lake has", "S", guard="former files are deleted"
)
def test_a_canary_in_every_file(fault: Fault, world: ExportedWorld) -> None:
    """After an erasure, no byte of the lake's files holds the erased content."""
    destination = Destination(str(world.location), payloads=True)

    def erased(run_id: str, *, keep: float) -> list[str]:
        query(
            world.url,
            "UPDATE orchestra.steps SET error = to_jsonb(%s::text) WHERE run_id = %s",
            CANARY,
            run_id,
        )
        world.export()
        assert lake_reader.files_with(world.location, CANARY)
        world.prune(runs=5.1)
        world.export()
        erase(world.database, Selection(runs=(run_id,)))
        run = garbage.run

        def collected(database: Database, destination: Destination, **_: Any) -> Any:
            return run(database, destination, keep=keep)

        with patch.object(garbage, "run", collected):
            erasure.erase(world.database, destination)
        found = lake_reader.files_with(world.location, CANARY)
        return [f"{CANARY} is in {len(found)} files"] if found else []

    young, old = world.run_ids[0], world.run_ids[-1]
    fault.control(erased(world.run_ids[1], keep=garbage.KEEP))
    for run_id in (old, young):
        assert erased(run_id, keep=0) == []
        fault.injected()


@pytest.mark.fault(
    40, "retention, moved runs and a changed state map between exports", "C",
    guard="rows that the lake keeps",
)  # fmt: skip
def test_retention_and_moves_between_exports(fault: Fault, world: ExportedWorld) -> None:
    """After any removal or move of runs, the lake has each run once, pruned ones too."""

    def changed(days: float) -> list[str]:
        world.prune(payloads=days - 1, runs=days)
        query(
            world.url,
            "UPDATE orchestra.runs SET start_time = start_time - interval '1 day'"
            " WHERE id = (SELECT max(id) FROM orchestra.runs)",
        )
        world.database.transaction(
            lambda c: state_map.apply(c, {f"status{days}": "failed"}, lambda status: "failed")
        )
        problems = _differences(world)
        ids = [row["id"] for row in lake_reader.rows(world.location, "runs")]
        if sorted(ids) != sorted(world.run_ids):
            problems.append(f"the lake has {len(ids)} of {len(world.run_ids)} runs")
        return problems

    for days in (6.1, 5.1, 4.1):
        assert changed(days) == []
        fault.injected()
    with patch.object(archive, "of_day", lambda c, lake, day: Kept(day, {}, None)):
        fault.control(changed(3.1))
    assert exporter.run(world.database, Destination(str(world.location), payloads=True)).complete

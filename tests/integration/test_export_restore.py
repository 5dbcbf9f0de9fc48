"""An export after PostgreSQL was recovered to an earlier time from a base backup and its WAL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest
import structlog

from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.export import exporter
from etl.export.destination import Destination
from etl.export.verify import verify
from etl.schema import upgrade
from tests import lake_reader
from tests.postgres_fixture import new_home
from tests.support import query, wait_until

pytestmark = pytest.mark.slow

DAYS = [date(2026, 11, number) for number in (1, 2, 3)]


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    """Provide the folders of a server and of its restored copy."""
    found = new_home(), new_home()
    yield found
    for home in found:
        shutil.rmtree(home, ignore_errors=True)


def _run(url: str, id: str, day: date) -> None:
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES (%s, 'w', 'succeeded', 'api', 'final', CAST(%s AS date))",
        id, day,
    )  # fmt: skip


def _export(url: str, lake: Path) -> exporter.ExportReport:
    database = Database(url, patience=5)
    try:
        return exporter.run(database, Destination(str(lake)))
    finally:
        database.close()


def test_a_recovery_to_an_earlier_time_is_noticed(homes: tuple[Path, Path], tmp_path: Path) -> None:
    """After a point-in-time recovery, an export writes all days, and the lake loses the rest.

    The recovered server has the same system identifier, and continues on another timeline.
    """
    home, copy = homes
    archive, lake = home / "archive", tmp_path / "lake"
    archive.mkdir()
    archive.chmod(0o777)
    settings = {
        "archive_mode": "on",
        "archive_command": f"cp %p {archive}/%f",
        "wal_level": "replica",
    }
    with EmbeddedPostgres(home, settings=settings) as server:
        upgrade(server.url)
        _run(server.url, "before the backup", DAYS[0])
        assert _export(server.url, lake).days == 1
    # The server is stopped, so that a copy of its files is a base backup.
    subprocess.run(["cp", "-a", str(server.data), str(copy)], check=True)
    with EmbeddedPostgres(home, settings=settings) as server:
        _run(server.url, "kept", DAYS[1])
        _export(server.url, lake)
        [row] = query(server.url, "SELECT CAST(clock_timestamp() AS text) AS time")
        _run(server.url, "lost", DAYS[2])
        assert _export(server.url, lake).days == 1
        before = query(server.url, "SELECT * FROM orchestra_etl.export_state")
        [segment] = query(server.url, "SELECT pg_walfile_name(pg_switch_wal()) AS name")
        wait_until(lambda: (archive / segment["name"]).exists())
    assert {one["id"] for one in lake_reader.rows(lake, "runs")} == {
        "before the backup", "kept", "lost",
    }  # fmt: skip

    recovery = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": row["time"],
        "recovery_target_action": "promote",
        "archive_mode": "off",
    }
    restored = EmbeddedPostgres(copy, settings=recovery)
    signal = restored.data / "recovery.signal"
    signal.touch()
    owner = restored.data.stat()
    shutil.chown(signal, owner.st_uid, owner.st_gid)
    with restored:
        wait_until(lambda: not _is_recovering(restored.url))
        with structlog.testing.capture_logs() as logs:
            done = _export(restored.url, lake)
        assert "restored" in next(
            one["reason"] for one in logs if one["event"] == "export_restarted"
        )
        assert done.complete
        assert {one["id"] for one in lake_reader.rows(lake, "runs")} == {
            "before the backup", "kept",
        }  # fmt: skip
        after = query(restored.url, "SELECT * FROM orchestra_etl.export_state")
        assert after[0]["system_identifier"] == before[0]["system_identifier"]
        assert (before[0]["timeline"], after[0]["timeline"]) == (1, 2)
        database = Database(restored.url, patience=5)
        try:
            found = database.in_one_snapshot(lambda c: verify(c, Destination(str(lake)), deep=True))
        finally:
            database.close()
        assert (found.differences, found.waiting) == ([], 0)
        _run(restored.url, "after the recovery", DAYS[2])
        assert _export(restored.url, lake).days == 1


def _is_recovering(url: str) -> bool:
    with psycopg.connect(url) as connection:
        [row] = connection.execute("SELECT pg_is_in_recovery()").fetchall()
    return bool(row[0])

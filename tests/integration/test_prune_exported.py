"""`prune --exported` removes only what a verified export holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.admin import expired, retention
from etl.export import exported_runs
from etl.export.destination import Destination
from tests import lake_reader
from tests.command_line import Command, Printed
from tests.exported_world import ExportedWorld
from tests.support import query

RUNS = 8


@pytest.fixture
def command(
    world: ExportedWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Provide the command line, with the lake in its configuration."""
    return world.command(tmp_path, monkeypatch, capsys)


def _prune(command: Command, *more: str) -> Printed:
    return command("prune", "--exported", "--runs-older-than", "3d", "--yes", "--json", *more)


def _stored(world: ExportedWorld) -> set[str]:
    return {row["id"] for row in query(world.url, "SELECT id FROM orchestra.runs")}


@pytest.mark.slow
def test_what_is_exported_is_pruned_and_stays_in_the_lake(world: ExportedWorld) -> None:
    """Exported runs leave PostgreSQL, several batches of one day too, and stay in the lake."""
    before = world.rows()
    query(world.url, "UPDATE orchestra.runs SET start_time = '2026-01-01Z', end_time = NULL")
    query(world.url, "UPDATE orchestra.steps SET start_time = '2026-01-01Z', end_time = NULL")
    world.export()
    wanted = world.database.transaction(
        lambda c: expired.horizons(c, payloads=None, runs=3 * 86400.0)
    )
    destination = Destination(str(world.location), payloads=True)
    assert wanted.runs is not None
    horizon = wanted.runs
    held = world.database.in_one_snapshot(
        lambda c: exported_runs.find(c, destination, horizon=horizon)
    )
    assert held.report.ok
    done = retention.prune(world.database, wanted, batch=3, may_remove=held.may_remove)
    assert done.runs == 8
    assert _stored(world) == set()
    world.export()
    assert {row["id"] for row in world.rows()["runs"]} == {row["id"] for row in before["runs"]}
    assert world.archived() == set(world.run_ids)


def test_a_day_that_waits_for_an_export_is_kept(world: ExportedWorld, command: Command) -> None:
    """A run that changed since the export is kept, and so is everything younger than its day."""
    oldest = world.run_ids[-1]
    query(world.url, "UPDATE orchestra.runs SET status = 'changed' WHERE id = %s", oldest)
    assert _prune(command).json["runs"] == 0
    assert _stored(world) == set(world.run_ids)
    world.export()
    assert _prune(command).json["runs"] > 0
    assert oldest not in _stored(world)
    found = [row for row in lake_reader.rows(world.location, "runs") if row["id"] == oldest]
    assert [row["status"] for row in found] == ["changed"]


def test_without_the_option_such_a_run_is_lost(world: ExportedWorld, command: Command) -> None:
    """The control: without `--exported`, the change that was not exported is lost."""
    oldest = world.run_ids[-1]
    query(world.url, "UPDATE orchestra.runs SET status = 'changed' WHERE id = %s", oldest)
    assert command("prune", "--runs-older-than", "3d", "--yes").status == 0
    world.export()
    found = [row for row in lake_reader.rows(world.location, "runs") if row["id"] == oldest]
    assert "changed" not in {row["status"] for row in found}


def test_a_lake_that_differs_prunes_nothing(world: ExportedWorld, command: Command) -> None:
    """If the lake lacks a file, nothing is removed from PostgreSQL."""
    sorted((world.location / "orchestra" / "steps" / "data").rglob("*.parquet"))[0].unlink()
    printed = _prune(command)
    assert printed.status == 10
    assert "the lake differs" in " ".join(printed.err.split())
    assert _stored(world) == set(world.run_ids)


def test_payloads_that_are_not_exported_are_not_pruned(
    world: ExportedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A lake without payloads does not let payloads, or runs that have them, be removed."""
    command = world.command(tmp_path, monkeypatch, capsys, more="")
    assert command("export", "run").status == 0
    printed = _prune(command)
    assert printed.status == 2
    assert "the lake holds no payloads" in " ".join(printed.err.split())
    assert command("prune", "--payloads-older-than", "3d", "--yes").status == 0
    assert command("export", "run").status == 0
    assert _prune(command).json["runs"] > 0


def test_a_run_with_bytes_outside_the_lake_is_kept(world: ExportedWorld, command: Command) -> None:
    """A run with an open dead letter is kept: the lake does not have the letter's bytes."""
    query(
        world.url,
        "INSERT INTO orchestra_etl.dead_letters"
        " (workflow_id, run_id, reason, detail, content_hash, body)"
        " VALUES (%s, %s, 'malformed', 'd', 'h', 'bytes')",
        world.workflow,
        world.run_ids[-1],
    )
    assert _prune(command).json["runs"] > 0
    assert world.run_ids[-1] in _stored(world)

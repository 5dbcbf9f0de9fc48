"""The lake keeps what retention removes, and loses what is erased."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.admin.erase import Selection, erase
from tests import lake_reader as lake
from tests.exported_world import TABLES, ExportedWorld
from tests.support import query

RUNS = 6


@pytest.mark.slow
def test_pruned_runs_stay_in_the_lake(world: ExportedWorld) -> None:
    """A pruned run stays in every table with every value, marked, however often it is exported."""
    before = world.rows()
    assert len(before["runs"]) == 6
    world.prune(runs=3.1)
    gone = {row["id"] for row in before["runs"]} - {
        row["id"] for row in query(world.url, "SELECT id FROM orchestra.runs")
    }
    assert len(gone) == 3
    for full in (False, True, True):
        assert world.export(full=full).complete
        assert world.rows() == before
        assert world.archived() == gone
    [row] = query(world.url, "SELECT sum(archived_runs) AS n FROM orchestra_etl.export_days")
    assert row["n"] == 3


@pytest.mark.slow
def test_pruned_payloads_stay_in_the_lake(world: ExportedWorld) -> None:
    """Payloads that were pruned stay in the lake when other values of their run change."""
    before = world.rows()
    world.prune(payloads=3.1)
    left = query(world.url, "SELECT count(data) AS n FROM orchestra.inputs")[0]["n"]
    assert 0 < left < len(before["step_payloads"])
    for full in (False, True):
        assert world.export(full=full).complete
        assert world.rows() == before
    query(world.url, "UPDATE orchestra.runs SET status = 'other'")
    world.export()
    found = world.rows()
    assert {row["status"] for row in found["runs"]} == {"other"}
    assert found["step_payloads"] == before["step_payloads"]
    assert found["run_payloads"] == before["run_payloads"]


def test_payloads_that_were_pruned_before_the_first_export_are_null(
    tmp_path: Path, world: ExportedWorld
) -> None:
    """A lake that begins after the payloads were pruned has their rows, without values."""
    world.prune(payloads=3.1)
    world.location = tmp_path / "second"
    world.export()
    found = lake.rows(world.location, "step_payloads")
    assert len(found) == query(world.url, "SELECT count(*) AS n FROM orchestra.steps")[0]["n"]
    assert {row["inputs_note"] for row in found} == {None, "pruned"}
    world.export(full=True)
    assert lake.rows(world.location, "step_payloads") == found


def test_erased_runs_leave_the_lake(world: ExportedWorld) -> None:
    """A run that is erased leaves the lake; so does one that was pruned first."""
    world.prune(runs=3.1)
    world.export()
    young, old = world.run_ids[0], world.run_ids[-1]
    erase(world.database, Selection(runs=(young, old)))
    world.export(full=True)
    found = world.rows()
    assert {row["id"] for row in found["runs"]} == set(world.run_ids) - {young, old}
    for name in TABLES[1:]:
        assert not {young, old} & {row["run_id"] for row in found[name]}


def test_a_payload_that_a_rule_may_reach_is_not_kept(world: ExportedWorld) -> None:
    """If a run was redacted after its payloads were pruned, the lake drops them as well."""
    world.prune(payloads=3.1)
    world.export()
    old = world.run_ids[-1]
    query(world.url, "UPDATE orchestra.runs SET redaction_policy = 'p' WHERE id = %s", old)
    query(world.url, "UPDATE orchestra.steps SET redaction_policy = 'p' WHERE run_id = %s", old)
    world.export()
    for row in lake.rows(world.location, "step_payloads"):
        if row["run_id"] == old:
            assert row["inputs_data"] is None
            assert row["outputs_data"] is None
    kept = [row for row in lake.rows(world.location, "run_payloads") if row["inputs"] is not None]
    assert old not in {row["run_id"] for row in kept}
    assert len(kept) == 5


def test_a_run_deleted_by_hand_leaves_the_lake(world: ExportedWorld) -> None:
    """The lake keeps only what retention removed: a run without a tombstone is gone."""
    world.prune(runs=3.1)
    query(world.url, "DELETE FROM orchestra.runs WHERE id = %s", world.run_ids[0])
    world.export()
    assert {row["id"] for row in world.rows()["runs"]} == set(world.run_ids[1:])

"""A sync of the real response loads it exactly, and later writes only what changed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from etl.simulator.folder import Folder
from etl.simulator.server import Simulator
from tests.support import configuration, environment, load, query, sync, writes

WORKFLOW = "1234f567-bb12-1234-b7cd-f7a71a98cd24"
RUN = "5b69669f-975a-49af-a33a-61ff9ae5a20f"


@pytest.fixture
def served(tmp_path: Path, sample_steps: bytes) -> Path:
    """Provide a folder that serves the real response as the steps of one run, and nothing else."""
    folder = tmp_path / "served" / WORKFLOW / RUN
    folder.mkdir(parents=True)
    (folder / "steps.json").write_bytes(sample_steps)
    return tmp_path / "served"


def _poll(tmp_path: Path, served: Path, url: str) -> Any:
    """Make every run due and run one sync."""
    query(url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
    with Simulator(Folder(served)).in_thread() as simulator:
        toml = configuration(WORKFLOW, discover=False, runs=(RUN,))
        return asyncio.run(sync(load(tmp_path, toml, environment(url, simulator.base_url))))


def test_the_sample_is_loaded_exactly(
    tmp_path: Path, served: Path, database_url: str, sample_steps: bytes
) -> None:
    """The sample is stored as one run and two steps with exact times, tokens and payloads."""
    report = _poll(tmp_path, served, database_url)
    assert report.exit_status == 0
    steps = query(database_url, "SELECT * FROM orchestra.steps ORDER BY position")
    assert [step["id"] for step in steps] == [
        "b2acc986-af06-418a-bf71-c730d5ghaf0b",
        "ad6edfea-bf1c-4639-9d9f-b53c9ad60bgg",
    ]
    assert [step["duration_ms"] for step in steps] == [2237.692, 1775.644]
    model = steps[0]
    assert (model["response_model"], model["request_model"], model["node_type"]) == (
        "virtuoso-medium",
        "virtuoso-medium",
        "model",
    )
    assert (model["input_tokens"], model["output_tokens"], model["total_tokens"]) == (36, 48, 84)
    assert steps[1]["node_type"] == "integration"
    assert steps[1]["reported_error"] is None
    sample = json.loads(sample_steps)
    for table in ("inputs", "outputs"):
        rows = {
            row["step_id"]: row for row in query(database_url, f"SELECT * FROM orchestra.{table}")
        }
        assert {one: row["data"] for one, row in rows.items()} == {
            step["id"]: step[table] for step in sample
        }
        assert all(row["raw"] is None and row["note"] is None for row in rows.values())
    runs = query(database_url, "SELECT * FROM orchestra.runs")
    assert [
        (run["id"], run["workflow_id"], run["state"], run["status_source"]) for run in runs
    ] == [(RUN, WORKFLOW, "succeeded", "derived")]


def test_a_second_poll_writes_nothing(tmp_path: Path, served: Path, database_url: str) -> None:
    """A second poll of the same response writes no row, by PostgreSQL's own counters."""
    _poll(tmp_path, served, database_url)
    before = writes(database_url)
    report = _poll(tmp_path, served, database_url)
    assert report.load.runs == 1
    assert writes(database_url) == before
    assert before["steps"] == (2, 0, 0)


def test_a_changed_step_changes_that_step_only(
    tmp_path: Path, served: Path, database_url: str
) -> None:
    """A change of one step's outputs updates one row of steps and one of outputs, nothing else."""
    _poll(tmp_path, served, database_url)
    before = writes(database_url)
    path = served / WORKFLOW / RUN / "steps.json"
    changed = path.read_bytes().replace(b"C0257V9FS09", b"C9")
    path.write_bytes(changed)
    steps = json.loads(changed)
    report = _poll(tmp_path, served, database_url)
    after = writes(database_url)
    assert (report.load.steps_inserted, report.load.steps_updated) == (0, 1)
    assert {
        table: tuple(b - a for a, b in zip(before[table], after[table], strict=True))
        for table in after
    } == {
        "runs": (0, 0, 0),
        "run_payloads": (0, 0, 0),
        "steps": (0, 1, 0),
        "inputs": (0, 0, 0),
        "outputs": (0, 1, 0),
    }
    stored = query(
        database_url, "SELECT data FROM orchestra.outputs WHERE step_id = %s", steps[1]["id"]
    )
    assert stored[0]["data"] == steps[1]["outputs"]

"""A server of responses that a test writes as values: workflows, a run list, runs and steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from etl.simulator.folder import Folder
from etl.simulator.server import Simulator

START = datetime.now(UTC) - timedelta(days=2)
"""The start of all runs and steps, in the windows of alerts and of `explain`."""


class ServedRun(NamedTuple):
    """A run with responses of its own: its row, and the list of its steps."""

    row: Mapping[str, Any]
    steps: Sequence[Any]


def run_row(id: str, workflow_id: str, status: str, **more: Any) -> dict[str, Any]:
    """Return the row of a run that took five seconds."""
    return {
        "run_id": id, "id": id, "workflow_id": workflow_id, "status": status,
        "start_time": START.isoformat(), "end_time": (START + timedelta(seconds=5)).isoformat(),
        **more,
    }  # fmt: skip


def call_step(id: str, text: str, *, model: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a step that called a model and took a second.

    Args:
        id: the step's id.
        text: each of its names and texts.
        model: the model that responded, if it has another name.
        more: further members of the step, or other values of these.
    """
    return {
        "id": id, "node_id": text, "status": "completed", "start_time": START.isoformat(),
        "end_time": (START + timedelta(seconds=1)).isoformat(), "elapsed_time": 1, "error": None,
        "inputs": {"model": text}, "tokens": 3,
        "outputs": {
            "model": model or text,
            "usage": {"prompt_tokens": 1, "total_tokens": 3, "completion_tokens": 2},
            "choices": [{"finish_reason": text, "message": {"content": text}}],
        },
        **more,
    }  # fmt: skip


@contextmanager
def served_folder(
    folder: Path,
    workflows: Sequence[Mapping[str, Any]],
    rows: Sequence[Any],
    runs: Sequence[ServedRun],
) -> Iterator[Simulator]:
    """Serve these responses from files in a folder.

    Args:
        folder: an empty folder.
        workflows: the list of workflows.
        rows: the run list of the first workflow.
        runs: the first workflow's runs that have responses of their own.
    """
    first = folder / workflows[0]["id"]
    _write(folder / "workflows.json", workflows)
    _write(first / "runs.json", rows)
    for run in runs:
        _write(first / run.row["id"] / "run.json", [run.row])
        _write(first / run.row["id"] / "steps.json", run.steps)
    with Simulator(Folder(folder)).in_thread() as server:
        yield server


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))

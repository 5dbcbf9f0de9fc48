"""Runs, steps and the pipeline's state for tests of alerts, written as rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support import query


def workflow(url: str, id: str, *, swept_at: datetime, labels: str = "{}") -> None:
    """Store a workflow whose last complete sweep began and ended at this time."""
    query(
        url,
        "INSERT INTO orchestra.workflows (id, name, labels) VALUES (%s, %s, %s)"
        " ON CONFLICT (id) DO NOTHING",
        id, f"The workflow {id}", labels,
    )  # fmt: skip
    swept(url, id, swept_at)


def swept(url: str, id: str, at: datetime) -> None:
    """Record that a sweep of the workflow began and completed at this time."""
    query(
        url,
        "INSERT INTO orchestra_etl.sweeps AS s (workflow_id, fencing_token, watermark, started_at,"
        " swept_at) VALUES (%s, 1, 1, %s, %s) ON CONFLICT (workflow_id) DO UPDATE"
        " SET started_at = excluded.started_at, swept_at = excluded.swept_at,"
        " fencing_token = s.fencing_token + 1, watermark = s.fencing_token + 1",
        id, at, at,
    )  # fmt: skip


def run(
    url: str,
    id: str,
    workflow_id: str,
    start: datetime | None,
    state: str = "succeeded",
    *,
    seconds: float = 1.0,
    is_read: bool = True,
    **columns: Any,
) -> None:
    """Store a run that was listed, and with `is_read` also read.

    Args:
        url: of the database.
        id: the run's id.
        workflow_id: its workflow.
        start: when it started.
        state: its state.
        seconds: its duration, if its state is an end.
        is_read: whether its rows are stored.
        columns: further columns of `orchestra.runs`.
    """
    read_at = None
    if is_read:  # An open run has just been read.
        read_at = start if _is_over(state) else datetime.now(UTC)
    query(
        url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, start_time,"
        " listed_sweep, due_at, steps_observed_at, run_state)"
        " VALUES (%s, %s, 'list', %s, %s, 1, %s, %s, %s) ON CONFLICT (run_id) DO UPDATE"
        " SET tracking = excluded.tracking, due_at = excluded.due_at,"
        " steps_observed_at = excluded.steps_observed_at, run_state = excluded.run_state",
        id, workflow_id, "final" if is_read and _is_over(state) else "open", start,
        None if is_read else start, read_at, state if is_read else None,
    )  # fmt: skip
    if is_read:
        values = {
            "id": id, "workflow_id": workflow_id, "state": state, "status_source": "api",
            "tracking": "final" if _is_over(state) else "open", "start_time": start,
            "end_time": start + timedelta(seconds=seconds) if start and _is_over(state) else None,
            **columns,
        }  # fmt: skip
        _insert(url, "orchestra.runs", values)


def step(
    url: str,
    id: str,
    run_id: str,
    workflow_id: str,
    start: datetime | None,
    state: str = "succeeded",
    *,
    seconds: float = 1.0,
    **columns: Any,
) -> None:
    """Store a step; `columns` are further columns of `orchestra.steps`."""
    values = {
        "id": id, "run_id": run_id, "workflow_id": workflow_id, "state": state, "position": 0,
        "start_time": start, "content_hash": b"",
        "end_time": start + timedelta(seconds=seconds) if start and _is_over(state) else None,
        **columns,
    }  # fmt: skip
    _insert(url, "orchestra.steps", values)


def _insert(url: str, table: str, values: Mapping[str, Any]) -> None:
    changed = ", ".join(f"{name} = excluded.{name}" for name in values if name != "id")
    query(
        url,
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})"
        f" ON CONFLICT (id) DO UPDATE SET {changed}",
        *values.values(),
    )


def _is_over(state: str) -> bool:
    return state in ("succeeded", "failed", "cancelled", "skipped")

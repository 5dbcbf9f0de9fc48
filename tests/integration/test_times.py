"""Placeholder times, from the responses to the views."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.faults.responses import changed
from tests.support import configuration, environment, load, query, sync

BEGUN = "2026-01-01T10:00:00+00:00"
ENDED = "2026-01-01T10:00:05+00:00"


def test_placeholder_times_reach_no_column(tmp_path: Path, database_url: str) -> None:
    """Placeholder times are null in all columns, kept in `extra` and counted as drift.

    Examples are the year 1, 1970 and a time far ahead. Durations and coverage stay right.
    """
    history = History(seed=5, workflows=1, runs_per_workflow=3, live=0, arrivals_per_minute=0)
    (workflow,) = history.workflow_ids
    plain, odd, ahead = history.run_ids(workflow)
    far = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    times = {
        plain: (BEGUN, ENDED),
        odd: ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ahead: (BEGUN, far),
    }

    def row(run_id: str) -> dict[str, Any]:
        begun, ended = times[run_id]
        return {
            "id": run_id,
            "status": "completed",
            "start_time": begun,
            "end_time": ended,
            "elapsed_time": -62135596800,
        }

    def respond(request: web.Request, call: Any, honest: web.Response) -> web.Response:
        if call.endpoint == "runs":
            offset = int(request.query.get("offset", "0"))
            return web.json_response([row(run_id) for run_id in times][offset:])
        if call.endpoint == "steps":
            return web.json_response(
                [row(call.run_id) | {"id": f"step of {call.run_id}", "tokens": 2**63 - 1}]
            )
        return honest

    with Simulator(history).in_thread() as simulator, changed(simulator, respond):
        variables = environment(database_url, simulator.base_url)
        report = asyncio.run(sync(load(tmp_path, configuration(workflow), variables)))
    assert report.exit_status == 0
    for table, own in (("runs", "id"), ("steps", "run_id")):
        rows = query(
            database_url,
            f"SELECT {own} AS run, start_time, end_time, duration_ms, extra FROM orchestra.{table}",
        )
        found = {row["run"]: row for row in rows}
        assert found[plain]["duration_ms"] == 5_000
        assert (found[odd]["start_time"], found[odd]["end_time"], found[odd]["duration_ms"]) == (
            None,
            None,
            None,
        )
        assert found[ahead]["start_time"] == datetime.fromisoformat(BEGUN)
        assert (found[ahead]["end_time"], found[ahead]["extra"]["end_time"]) == (None, far)
        kept = {
            name: found[odd]["extra"][name] for name in ("start_time", "end_time", "elapsed_time")
        }
        assert kept == {name: json.loads(json.dumps(row(odd)))[name] for name in kept}
    listed = query(
        database_url, "SELECT start_time FROM orchestra_etl.run_ledger WHERE run_id = %s", odd
    )
    assert listed == [{"start_time": None}]
    (coverage,) = query(database_url, "SELECT complete_since FROM orchestra.coverage")
    assert coverage["complete_since"] == datetime.fromisoformat(BEGUN)
    drift = query(
        database_url,
        "SELECT subject, field, kind, occurrences FROM orchestra_etl.drift ORDER BY 1, 2",
    )
    assert [tuple(one.values()) for one in drift] == [
        ("run", "elapsed_time", "implausible_number", 3),
        ("run", "end_time", "implausible_time", 2),
        ("run", "start_time", "implausible_time", 1),
        ("step", "elapsed_time", "implausible_number", 3),
        ("step", "end_time", "implausible_time", 2),
        ("step", "start_time", "implausible_time", 1),
        ("step", "tokens", "implausible_number", 3),
    ]

"""A server that throttles, refuses and forgets: real workers against the simulator."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import text

from etl.extract.client import OrchestraClient
from etl.extract.run_list import RunListWalker
from etl.ledger import sweeps
from etl.pipeline.budget import RequestBudget
from etl.simulator.misbehaviour import Misbehaviour
from tests.faults.responses import changed, emptied
from tests.faults.suite import Fault
from tests.faults.world import World, world
from tests.support import query

HERE = "tests.faults.test_api_faults"

# Fault 15: a capped list


def the_end_is_the_watermark() -> None:
    """Take every run above the list's end for known when a walk reaches that end."""

    def end(self: RunListWalker) -> None:
        self.outcome = "ended"

    RunListWalker._end = end  # type: ignore[method-assign]


def _overrun(found: World, *without: str) -> list[str]:
    """Return what goes wrong when 500 runs are added between two syncs and the list shows 100."""
    found.simulator.misbehave(Misbehaviour(list_cap=100, endpoints=("runs",)))
    (workflow,) = found.history.workflow_ids
    problems = []

    def sync(expected: int, gaps: int) -> None:
        status = found.sync(without=without)
        recorded = query(
            found.url, "SELECT after_time, before_time FROM orchestra_etl.gaps ORDER BY id"
        )
        if (status, len(recorded)) != (expected, gaps):
            problems.append(f"status {status} and {len(recorded)} gaps, not {expected} and {gaps}")

    sync(0, 0)
    known = set(found.history.run_ids(workflow, 100))
    for _ in range(5):
        found.history.add_runs(workflow, 100)
        found.history.advance(timedelta(hours=1))
    listed = set(found.history.run_ids(workflow, 100))
    missed = set(found.history.run_ids(workflow, 400, offset=100))
    sync(6, 1)
    sync(0, 1)
    ledger = {
        row["run_id"] for row in query(found.url, "SELECT run_id FROM orchestra_etl.run_ledger")
    }
    if ledger != known | listed:
        problems.append(f"{len(ledger)} runs in the ledger, not {len(known | listed)}")
    for gap in query(found.url, "SELECT after_time, before_time FROM orchestra_etl.gaps"):
        starts = [
            datetime.fromisoformat(row["start_time"])
            for row in found.history.runs(workflow)
            if row["id"] in missed
        ]
        if not gap["after_time"] <= min(starts) <= max(starts) <= gap["before_time"]:
            problems.append(f"the gap's times do not enclose what was missed: {gap}")
    unread = [
        problem
        for problem in found.complete()
        if not any(f"run {one} is missing" == problem for one in missed)
    ]
    stored = {row["id"] for row in query(found.url, "SELECT id FROM orchestra.runs")}
    return (
        problems
        + [one for one in unread if not one.endswith("is missing")]
        + sorted(ledger - stored)
    )


@pytest.mark.fault(
    15, "list capped at 100, 500 new runs", "C W", guard="a list's end proves nothing"
)
def test_a_capped_list(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """Runs that a capped list hides become one gap around their times, and exit status 6 once."""
    options: dict[str, Any] = {"workflows": 1, "runs_per_workflow": 120, "steps_per_run": 2}
    with world(database_url, tmp_path, log, **options) as found:
        found.history.freeze()
        assert _overrun(found) == []
        fault.injected(1, note="400 runs missed")
    emptied(database_url)
    with world(database_url, tmp_path, log, **options) as found:
        found.history.freeze()
        fault.control(_overrun(found, f"{HERE}:the_end_is_the_watermark"))


# Fault 17: HTTP 429

LONGEST_WAIT = 2.0
RATE = 30.0
LEEWAY = 1.5
"""Seconds until a 429 stops every replica.

A grant for requests is valid for one more second, and a busy machine is late.
"""


def short_waits() -> None:
    """Limit the longest wait to two seconds instead of sixty."""
    defaults = OrchestraClient.__init__.__kwdefaults__
    assert defaults is not None
    defaults["max_wait"] = LONGEST_WAIT


def each_for_itself() -> None:
    """Keep a throttled replica from stopping the others."""

    async def hold_off(self: RequestBudget, seconds: float) -> None:
        self._granted = 0

    RequestBudget.hold_off = hold_off  # type: ignore[method-assign]


def _in_two_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


RETRY_AFTER = ["2", "DATE", "-5", "soon", "99999999"]
QUIET = [2.0, 2.0, 0.0, 0.0, LONGEST_WAIT]
"""Seconds without requests after each of these responses."""


def _storm(found: World, times: int, *without: str) -> tuple[list[str], float]:
    """Return the problems when three replicas meet the first `times` 429, and the longest pause."""
    throttled: list[tuple[float, float]] = []
    sent: list[float] = []
    lock = threading.Lock()
    waiting = list(zip(RETRY_AFTER, QUIET, strict=True))[:times]
    responses = 0

    def answer(request: web.Request, call: Any, response: web.Response) -> web.Response:
        nonlocal responses
        with lock:
            now = time.monotonic()
            sent.append(now)
            responses += call.endpoint == "steps"
            # One 429 after the other: each comes when the pause before it is over and the replicas
            # are at work again.
            if not waiting or responses < 10 or (throttled and now < sum(throttled[-1]) + 0.05):
                return response
            responses = 0
            header, quiet = waiting.pop(0)
            throttled.append((now, quiet))
        refused = web.Response(status=429)
        refused.headers["Date"] = format_datetime(datetime.now(UTC), usegmt=True)
        refused.headers["Retry-After"] = _in_two_seconds() if header == "DATE" else header
        return refused

    with changed(found.simulator, answer):
        workers = [
            found.started("sync", without=(f"{HERE}:short_waits", *without)) for _ in range(3)
        ]
        with workers[0] as one, workers[1] as two, workers[2] as three:
            statuses = [worker.wait() for worker in (one, two, three)]
    problems = [f"a worker ended with {status}" for status in statuses if status not in (0, 6)]
    for at, quiet in throttled:
        early = [one - at for one in sent if at + LEEWAY < one < at + quiet - 0.01]
        if early:
            problems.append(
                f"{len(early)} requests while a 429 requested {quiet:g} s, the first "
                f"after {early[0]:.2f} s"
            )
    sent.sort()
    for first in sent:
        # The budget may save up one second's requests, and each replica draws a tenth of a second's
        # requests at a time.
        within = sum(first <= one < first + 1 for one in sent)
        if within > 2 * RATE + 3 * RATE / 10 + 3:
            problems.append(f"{within} requests in a second")
            break
    pauses = [later - one for one, later in itertools.pairwise(sent)]
    if max(pauses) > 2 * LONGEST_WAIT:
        problems.append(f"no request for {max(pauses):.1f} s")
    if waiting:
        problems.append(f"{len(waiting)} of the 429 were never sent")
    return problems, max(pauses)


@pytest.mark.fault(
    17,
    "429 with every kind of `Retry-After`, three replicas",
    "C B",
    guard="pause shared by all replicas",
)
def test_a_storm_of_429(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """All replicas obey Retry-After, senseless values are clamped, and a 429 only delays."""
    rate = {"ORCHESTRA_ETL_API__REQUESTS_PER_SECOND": str(RATE)}
    with world(database_url, tmp_path, log, steps_per_run=2, variables=rate) as found:
        problems, pause = _storm(found, len(RETRY_AFTER))
        assert problems + found.complete() + found.witnessed() == []
        fault.injected(len(RETRY_AFTER), note=f"longest pause {pause:.1f} s")
    emptied(database_url)
    with world(database_url, tmp_path, log, steps_per_run=2, variables=rate) as found:
        fault.control(
            [
                one
                for one in _storm(found, 1, f"{HERE}:each_for_itself")[0]
                if "429 requested" in one
            ]
        )


# Fault 18: HTTP 401


def the_watermark_moves() -> None:
    """Count a sweep as complete although it was cut off."""
    statement = str(sweeps._ABANDON)
    assert "SET leased_until = NULL" in statement
    sweeps._ABANDON = text(
        statement.replace("SET leased_until", "SET watermark = fencing_token, leased_until")
    )


def _renewed_key(found: World, log: Path, offset: int, *without: str) -> list[str]:
    """Return what goes wrong from a new key in mid-sweep until the next sync with that key."""
    (workflow,) = found.history.workflow_ids
    found.history.add_runs(workflow, 100)
    found.history.advance(timedelta(hours=1))
    right = found.simulator.api_key

    def renew(request: web.Request, call: Any, response: web.Response) -> web.Response:
        if call.endpoint == "runs" and int(request.query["offset"]) >= offset:
            found.simulator.api_key = "renewed"
        return response

    def mark() -> Any:
        return query(found.url, "SELECT watermark, swept_at FROM orchestra_etl.sweeps")

    before, size_before = mark(), log.stat().st_size
    with changed(found.simulator, renew):
        status = found.sync(without=without)
    found.simulator.api_key = right
    problems = [] if status == 3 else [f"status {status}, not 3"]
    printed = log.read_bytes()[size_before:].decode().splitlines()
    lines = [line for line in printed if line.startswith("orchestra-etl: ")]
    if len(lines) != 1 or "401" not in lines[0] or any("Traceback" in line for line in printed):
        problems.append(f"printed {lines}")
    if mark() != before:
        problems.append("the watermark moved")
    known = {
        row["run_id"] for row in query(found.url, "SELECT run_id FROM orchestra_etl.run_ledger")
    }
    lost = [one for one in found.history.run_ids(workflow, offset) if one not in known]
    problems += [f"run {one} was listed and is not in the ledger" for one in lost]
    if query(
        found.url, "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE leased_until IS NOT NULL"
    ):
        problems.append("a claim was left behind")
    status = found.sync(without=without)
    return (
        problems
        + ([] if status == 0 else [f"then {status}"])
        + found.complete()
        + found.witnessed()
    )


@pytest.mark.fault(
    18, "401 in the middle of a sweep", "C W", guard="watermark only of complete sweeps"
)
def test_a_key_refused_in_a_sweep(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """A key refused in mid-sweep ends the sync with 3 and one line, and loses no listed run.

    The next sync with the right key completes.
    """
    options: dict[str, Any] = {
        "workflows": 1,
        "steps_per_run": 1,
        "variables": {"ORCHESTRA_ETL_API__PAGE_SIZE": "20"},
    }

    def problems(offsets: Sequence[int], *without: str) -> list[str]:
        emptied(database_url)
        with world(database_url, tmp_path, log, **options) as found:
            found.history.freeze()
            assert found.sync() == 0
            return [one for offset in offsets for one in _renewed_key(found, log, offset, *without)]

    assert problems([10, 30, 70]) == []
    fault.injected(3)
    fault.control(
        [one for one in problems([30], f"{HERE}:the_watermark_moves") if "missing" in one]
    )

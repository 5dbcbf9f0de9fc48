"""The service's memory while it stores tens of thousands of runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.soak import HISTORY, SETTINGS, Sample, bytes_a_run, watched
from tests.faults.suite import Fault
from tests.faults.workers import said
from tests.faults.world import world

ENOUGH = 6_000
"""Runs after which growth differs from one-time effects, such as caches and pools.

In the second half, memory grows by 1,300 bytes a run for the first 2,000 runs, 110 for the first
6,000 and 20 for 12,000. The control leaks 1,024 more, and runs as long.
"""
RUNS = int(os.environ.get("SOAK_RUNS", ENOUGH))
BOUND = 200.0 if RUNS > 10 * ENOUGH else 600.0
"""Bytes a run."""


def _growth(samples: list[Sample]) -> list[str]:
    grown = bytes_a_run(samples)
    return [f"its memory grows by {grown:.0f} bytes a run"] if grown > BOUND else []


@pytest.mark.fault(32, "soak: a stream of new runs", "B", guard="no memory kept for a stored run")
def test_memory_does_not_grow(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """In the second half of a soak memory hardly grows; the test would notice 1 KB a run."""
    with world(database_url, tmp_path, log, **HISTORY) as found:
        found.variables.update(SETTINGS)
        samples = watched(found, RUNS)
        if RUNS < ENOUGH:
            pytest.skip(f"growth cannot be told from fewer than {ENOUGH} runs")
        assert _growth(samples) == [], said(log)
        size = samples[-1].kilobytes / 1024
        fault.injected(
            samples[-1].runs,
            note=f"{bytes_a_run(samples):.0f} bytes a run, {size:.0f} MB at the end",
        )
        fault.control(_growth(watched(found, ENOUGH, without=("tests.faults.soak:leak",))))

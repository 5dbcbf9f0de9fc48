"""The service's memory while it stores tens of thousands of runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.soak import HISTORY, SETTINGS, Kind, Sample, bytes_a_run, watched
from tests.faults.suite import Fault
from tests.faults.workers import output_of
from tests.faults.world import world

ENOUGH = 6_000
"""Runs after which growth differs from one-time effects, such as caches and pools.

In the second half, live memory grows by 480 bytes a run for the first 3,000 runs and by 230 for the
first 6,000. The control leaks 1,024 more, and runs as long.
"""
RUNS = int(os.environ.get("SOAK_RUNS", ENOUGH))
LONG = RUNS > 10 * ENOUGH
BOUND = 200.0 if LONG else 600.0
"""Bytes a run."""


def _growth(samples: list[Sample]) -> list[str]:
    # Resident memory also grows when a batch is the largest so far. How large batches are depends
    # on the load, and only a long soak is longer than these steps last.
    kinds: tuple[Kind, ...] = ("live", "resident") if LONG else ("live",)
    grown = {kind: bytes_a_run(samples, kind) for kind in kinds}
    return [
        f"its {kind} memory grows by {grown[kind]:.0f} bytes a run"
        for kind in kinds
        if grown[kind] > BOUND
    ]


@pytest.mark.fault(32, "soak: a stream of new runs", "B", guard="no memory kept for a stored run")
def test_memory_does_not_grow(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """In the second half of a soak memory hardly grows; the test would notice 1 KB a run."""
    with world(database_url, tmp_path, log, **HISTORY) as found:
        found.variables.update(SETTINGS)
        samples = watched(found, RUNS)
        if RUNS < ENOUGH:
            pytest.skip(f"growth cannot be measured with fewer than {ENOUGH} runs")
        assert _growth(samples) == [], output_of(log)
        size = samples[-1].resident / (1 << 20)
        fault.injected(
            samples[-1].runs,
            note=f"{bytes_a_run(samples):.0f} bytes a run, {size:.0f} MB at the end",
        )
        fault.control(_growth(watched(found, ENOUGH, without=("tests.faults.soak:leak",))))

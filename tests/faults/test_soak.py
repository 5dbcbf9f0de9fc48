"""The service's memory while tens of thousands of runs pass through it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.soak import HISTORY, SETTINGS, Sample, bytes_a_run, watched
from tests.faults.suite import Fault
from tests.faults.workers import said
from tests.faults.world import world

LONG = bool(os.environ.get("SOAK"))
SECONDS = 900.0 if LONG else 60.0
BOUND = 200.0 if LONG else 600.0
"""Bytes a run. What is filled once, caches and pools, is most of the growth in the first half minute (some 1,000 bytes a run),
still 170 in the second, 20 to 30 after two minutes; the control leaks 1,024 a run, and is watched
as long."""


def _growth(samples: list[Sample]) -> list[str]:
    grown = bytes_a_run(samples)
    return [f"its memory grows by {grown:.0f} bytes a run"] if grown > BOUND else []


@pytest.mark.fault(
    32, "soak: a stream of new runs", "B", guard="keeping nothing of a run that is stored"
)
def test_memory_does_not_grow(fault: Fault, database_url: str, tmp_path: Path, log: Path) -> None:
    """In the second half of a soak the memory grows by next to nothing for each run; a leak of 1 KB a run is noticed."""
    with world(database_url, tmp_path, log, **HISTORY) as found:
        found.variables.update(SETTINGS)
        samples = watched(found, SECONDS)
        assert _growth(samples) == [], said(log)
        size = samples[-1].kilobytes / 1024
        fault.injected(
            samples[-1].runs,
            note=f"{bytes_a_run(samples):.0f} bytes a run, {size:.0f} MB at the end",
        )
        fault.control(_growth(watched(found, 60.0, without=("tests.faults.soak:leak",))))

"""The service's memory over a long time, on a history that never stops.

python -m tests.faults.soak [--runs N] [--kills N]     about 20 minutes in total
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT
from tests.faults.world import World
from tests.support import query

SETTINGS = {
    "ORCHESTRA_ETL_POLLING__SETTLE_AFTER": "500ms",
    "ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN": "500ms",
    "ORCHESTRA_ETL_POLLING__RECONCILE": "1h",
}
# Runs of one small step that end at once, about 200 a second: only their number matters.
HISTORY: dict[str, Any] = {
    "workflows": 4, "runs_per_workflow": 10, "steps_per_run": 1, "step_bytes": 200,
    "arrivals_per_minute": 3000.0,
    "pace": 0.001,
}  # fmt: skip

leaked: list[bytearray] = []


def leak() -> None:
    """Keep 1 KB of every run that the worker reads (the negative control)."""
    from etl.pipeline.reading import Reader

    read = Reader.read

    async def keeping(self: Reader, claim: Any, group: Any) -> Any:
        leaked.append(bytearray(b"x" * 1024))
        return await read(self, claim, group)

    Reader.read = keeping  # type: ignore[method-assign]


class Sample(NamedTuple):
    """The worker at one moment."""

    seconds: float
    runs: int
    kilobytes: float


def memory(pid: int) -> float:
    """Return a process's own memory in KB: resident, and not shared with other processes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return float(line.split()[1])
    raise ValueError("no RssAnon")


def watched(found: World, runs: int, *, without: tuple[str, ...] = ()) -> list[Sample]:
    """Let the service store that many runs, and sample it twice a second.

    The length is a number of runs, since the runs a second depend on the machine and its load.
    """
    found.swept_every("500ms")
    stored = "SELECT count(*) AS n FROM orchestra.runs"
    enough = query(found.url, stored)[0]["n"] + runs
    samples: list[Sample] = []
    with found.started("serve", without=without) as worker:
        began = time.monotonic()
        while not samples or samples[-1].runs < enough:
            time.sleep(0.5)
            assert worker.status is None, "the service ended by itself"
            count = query(found.url, stored)[0]["n"]
            samples.append(Sample(time.monotonic() - began, count, memory(worker.pid)))
    return samples


def bytes_a_run(samples: Sequence[Sample]) -> float:
    """Return the growth in bytes per stored run: the least-squares slope of the second half."""
    half = samples[len(samples) // 2 :]
    runs = sum(one.runs for one in half) / len(half)
    size = sum(one.kilobytes for one in half) / len(half)
    squares = sum((one.runs - runs) ** 2 for one in half)
    return (
        1024 * sum((one.runs - runs) * (one.kilobytes - size) for one in half) / max(squares, 1.0)
    )


def main() -> int:
    """Run the long soak and the thousand kills."""
    parser = argparse.ArgumentParser(
        prog="make soak",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--runs", type=int, default=150_000, help="number of runs that the service stores"
    )
    parser.add_argument("--kills", type=int, default=1000, help="times that it is killed")
    given = parser.parse_args()
    tests = ["tests/faults/test_soak.py", "tests/faults/test_processes.py::test_killed_at_random"]
    sizes = {"SOAK_RUNS": str(given.runs), "SOAK_KILLS": str(given.kills)}
    return subprocess.call(
        [sys.executable, "-m", "pytest", *tests], cwd=ROOT, env={**os.environ, **sizes}
    )


if __name__ == "__main__":
    sys.exit(main())

"""The service over a long time on a history that never rests: does its memory grow?

python -m tests.faults.soak     15 minutes, then a thousand kills; about 20 minutes altogether
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.world import World
from tests.support import query

SETTINGS = {
    "ORCHESTRA_ETL_POLLING__SETTLE_AFTER": "500ms",
    "ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN": "500ms",
    "ORCHESTRA_ETL_POLLING__RECONCILE": "1h",
}
# Runs of one small step that are over at once, some two hundred a second: what matters is how many
# there are.
HISTORY: dict[str, Any] = {
    "workflows": 4, "runs_per_workflow": 10, "steps_per_run": 1, "step_bytes": 200, "arrivals_per_minute": 3000.0,
    "pace": 0.001,
}  # fmt: skip

leaked: list[bytearray] = []


def leak() -> None:
    """The worker keeps 1 KB of every run that it reads (the negative control)."""
    from etl.pipeline.reading import Reader

    read = Reader.read

    async def keeping(self: Reader, claim: Any) -> Any:
        leaked.append(bytearray(b"x" * 1024))
        return await read(self, claim)

    Reader.read = keeping  # type: ignore[method-assign]


class Sample(NamedTuple):
    """The worker at one moment."""

    seconds: float
    runs: int
    kilobytes: float


def memory(pid: int) -> float:
    """What a process holds of its own, in KB: resident, and shared with nobody else's files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return float(line.split()[1])
    raise ValueError("no RssAnon")


def watched(found: World, seconds: float, *, without: tuple[str, ...] = ()) -> list[Sample]:
    """Let the service work for so many seconds and look at it twice a second."""
    found.swept_every("500ms")
    samples = []
    with found.started("serve", without=without) as worker:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            time.sleep(0.5)
            runs = query(found.url, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"]
            samples.append(Sample(now, runs, memory(worker.pid)))
            assert worker.status is None, "the service has ended by itself"
    return samples


def bytes_a_run(samples: Sequence[Sample]) -> float:
    """By how many bytes its memory grew for each run stored, in the second half: the least squares' slope."""
    half = samples[len(samples) // 2 :]
    runs = sum(one.runs for one in half) / len(half)
    size = sum(one.kilobytes for one in half) / len(half)
    squares = sum((one.runs - runs) ** 2 for one in half)
    return (
        1024 * sum((one.runs - runs) * (one.kilobytes - size) for one in half) / max(squares, 1.0)
    )


def main() -> int:
    """The long soak and the thousand kills."""
    tests = ["tests/faults/test_soak.py", "tests/faults/test_processes.py::test_killed_at_random"]
    return subprocess.call(
        [sys.executable, "-m", "pytest", *tests], env={**os.environ, "SOAK": "1"}
    )


if __name__ == "__main__":
    sys.exit(main())

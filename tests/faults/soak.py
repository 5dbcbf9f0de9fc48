"""The service's memory over a long time, on a history that never stops.

python -m tests.faults.soak [--runs N] [--kills N]     about 20 minutes in total
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from tests.conftest import ROOT
from tests.faults.workers import Worker
from tests.faults.world import World
from tests.support import query, wait_until

SETTINGS = {
    "ORCHESTRA_ETL_POLLING__SETTLE_AFTER": "500ms",
    "ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN": "500ms",
    "ORCHESTRA_ETL_POLLING__RECONCILE": "1h",
}
# Runs of one small step that end at once: only their number matters.
HISTORY: dict[str, Any] = {
    "workflows": 4, "runs_per_workflow": 10, "steps_per_run": 1, "step_bytes": 200, "pace": 0.001,
}  # fmt: skip

HEAP = "SOAK_HEAP"
"""The variable with the path of the file that `watch_heap` writes."""
WATCH_HEAP = "tests.faults.soak:watch_heap"

Kind = Literal["live", "resident"]

leaked: list[bytearray] = []


def leak() -> None:
    """Keep 1 KB of every run that the worker reads (the negative control)."""
    from etl.pipeline.reading import Reader

    read = Reader.read

    async def keeping(self: Reader, claim: Any, group: Any) -> Any:
        leaked.append(bytearray(b"x" * 1024))
        return await read(self, claim, group)

    Reader.read = keeping  # type: ignore[method-assign]


class _MallInfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


# With PyDLL, each call keeps the interpreter's lock. So no other thread prints while standard error
# leads elsewhere.
_LIBC = ctypes.PyDLL(None)


def live_memory(printed: IO[bytes]) -> int:
    """Return the bytes that this process has allocated and not freed.

    They are those of malloc in all its arenas, and of Python's own allocator for small objects.

    Args:
        printed: a file for the statistics of Python's allocator, which go to standard error.
    """
    stderr = _LIBC.dup(2)
    _LIBC.dup2(printed.fileno(), 2)
    sys._debugmallocstats()
    _LIBC.dup2(stderr, 2)
    _LIBC.close(stderr)
    printed.seek(0)
    found = re.search(rb"# bytes in allocated blocks *= *([0-9,]+)", printed.read())
    assert found is not None
    printed.seek(0)
    _LIBC.mallinfo2.restype = _MallInfo
    malloc: Any = _LIBC.mallinfo2()
    return int(found[1].replace(b",", b"")) + int(malloc.uordblks + malloc.hblkhd)


def _keep_writing(path: str) -> None:
    with open(path, "w", buffering=1) as heap, tempfile.TemporaryFile() as printed:
        while True:
            print(live_memory(printed), file=heap)
            time.sleep(0.05)


def watch_heap() -> None:
    """Let a thread write the worker's live memory to a file, 20 times a second."""
    threading.Thread(target=_keep_writing, args=(os.environ[HEAP],), daemon=True).start()


class Sample(NamedTuple):
    """The worker's memory in bytes when it has stored all runs."""

    runs: int
    """Stored so far."""
    live: int
    """Allocated and not freed."""
    resident: int
    """Resident, and not shared with other processes.

    An allocator keeps as many pages as the largest batch has needed so far, in each thread's arena.
    """


def resident(pid: int) -> int:
    """Return a process's own memory in bytes: resident, and not shared with other processes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no RssAnon")


def watched(found: World, runs: int, *, without: tuple[str, ...] = ()) -> list[Sample]:
    """Let the service store that many runs, and sample its memory in the second half.

    The runs are a stream. It pauses for each of ten samples until the worker has nothing to read:
    how much a worker holds while it works depends on the machine's load.
    """
    found.swept_every("500ms")
    heap = found.log.with_suffix(".heap")
    heap.write_text("")
    step = max(50, runs // 20)
    samples: list[Sample] = []
    with found.started("serve", without=(WATCH_HEAP, *without), **{HEAP: str(heap)}) as worker:
        for added in (runs // 2, *[step] * (runs // 2 // step)):
            _add(found, added)
            samples.append(_at_rest(found, worker, heap, seconds=600 + runs / 50))
    return samples


def _at_rest(found: World, worker: Worker, heap: Path, *, seconds: float) -> Sample:
    """Wait until every run is final, so that the worker reads none, and return its memory."""

    def wait(condition: Callable[[], bool]) -> None:
        wait_until(lambda: worker.status is not None or condition(), seconds=seconds)
        assert worker.status is None, "the service ended unexpectedly"

    listed = sum(len(found.history.run_ids(one)) for one in found.history.workflow_ids)
    final = "SELECT count(*) AS n FROM orchestra_etl.run_ledger WHERE tracking = 'final'"
    wait(lambda: bool(query(found.url, final)[0]["n"] == listed))
    read = heap.stat().st_size
    wait(lambda: heap.stat().st_size > read + 200)
    with heap.open() as lines:
        lines.seek(read)
        live = min(int(line) for line in lines)
    return Sample(listed, live, resident(worker.pid))


def _add(found: World, runs: int) -> None:
    """Add runs, 200 a second."""
    for _ in range(0, runs, 50):
        for workflow_id, count in zip(found.history.workflow_ids, (13, 12, 13, 12), strict=True):
            found.history.add_runs(workflow_id, count)
        time.sleep(0.25)


def bytes_a_run(samples: Sequence[Sample], kind: Kind = "live") -> float:
    """Return the growth of this kind of memory in bytes per stored run.

    It is the median of the slopes between any two samples, so that no single step decides it.
    """
    points: list[tuple[int, int]] = [(one.runs, getattr(one, kind)) for one in samples]
    return statistics.median(
        (y - before) / (x - earlier)
        for (earlier, before), (x, y) in itertools.combinations(points, 2)
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

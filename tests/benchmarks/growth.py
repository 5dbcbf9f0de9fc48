"""`make bench-growth`: the time, memory and disk space of growing histories, and of pruning.

It loads histories, each ten times the one before, into an empty database, then 100 new runs, then
nothing new, several times each, and prunes everything at the end. Steps are small, so that there
can be a million of them. With `--home` it measures beside the history that `make bench-analytics
ARGS="--home FOLDER"` has stored there. Memory is the resident set of the command, with the shared
pages of its libraries.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from etl.admin import expired, retention
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from tests.benchmarks.analytics import SERVER
from tests.benchmarks.contenders import OURS
from tests.benchmarks.plot import Line, draw
from tests.benchmarks.recorded import Api, Corpus, served
from tests.postgres_fixture import new_home
from tests.support import query

NEW = 100
"""Runs that an incremental sync finds new."""
SAMPLE = 0.5
"""Seconds between two samples of a process and its tables."""


class LoadSample(NamedTuple):
    """The progress of a load."""

    seconds: float
    steps: int
    """Steps written so far, as PostgreSQL counts them: up to a second late."""
    rss_mb: float


class Sync(NamedTuple):
    """The cost of a `sync`."""

    seconds: float
    peak_mb: float
    samples: list[LoadSample]


class Growth(NamedTuple):
    """The cost of a history of one size."""

    runs: int
    steps: int
    first_load: float
    """Seconds, here and below."""
    new_runs: float
    nothing_new: float
    prune: float | None
    peak_mb: float
    mb_per_million_steps: float
    """Slope of the memory over the second half of the load."""
    stored_mb: float
    """Size of all tables and indexes."""


def sync(api: Api, url: str, folder: Path) -> Sync:
    """Run `sync` to its end and sample it meanwhile.

    Raises:
        SystemExit: if it fails.
    """
    command, variables = OURS.command(api, url, folder)
    before = _steps_written(url)
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--workflow", api.workflow_id],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
    )
    samples = [LoadSample(0.0, 0, 0.0)]
    peak_mb = 0.0
    while True:
        try:
            status = process.wait(SAMPLE)
        except subprocess.TimeoutExpired:
            memory = Path(f"/proc/{process.pid}/status").read_text()
            found = {
                name: int(kb) / 1024
                for name, kb in re.findall(r"(VmHWM|VmRSS):\s*(\d+) kB", memory)
            }
            peak_mb = found.get("VmHWM", peak_mb)
            samples.append(
                LoadSample(
                    time.perf_counter() - begun,
                    _steps_written(url) - before,
                    found.get("VmRSS", peak_mb),
                )
            )
        else:
            break
    if status != 0:
        raise SystemExit(f"sync ended with {status}")
    seconds = time.perf_counter() - begun
    # PostgreSQL has counted all steps only now, after the sessions have closed.
    samples.append(LoadSample(seconds, _steps_written(url) - before, samples[-1].rss_mb))
    return Sync(seconds, peak_mb, samples)


def _steps_written(url: str) -> int:
    [row] = query(
        url,
        (
            "SELECT n_tup_ins AS steps FROM pg_stat_user_tables"
            " WHERE relid = 'orchestra.steps'::regclass"
        ),
    )
    return int(row["steps"])


def measure(
    api: Api, runs: int, url: str, folder: Path, repetitions: int, *, empty: bool
) -> tuple[Growth, Sync]:
    """Load that many runs, then new runs, then nothing new, and prune.

    A database that held something before is not pruned.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if empty:
        OURS.prepare(url)
    api.show(runs)
    first = sync(api, url, folder)
    steps = _steps(url, api)
    stored_mb = _stored_mb(url)
    fresh = []
    for number in range(1, repetitions + 1):
        api.show(runs + number * NEW)
        fresh.append(sync(api, url, folder).seconds)
    nothing = [sync(api, url, folder).seconds for _ in range(repetitions)]
    pruned = _prune(url, runs + repetitions * NEW) if empty else None
    half = [sample for sample in first.samples if sample.steps > steps / 2]
    slope = 0.0
    if len({sample.steps for sample in half}) > 2:
        slope = statistics.linear_regression(
            [one.steps / 1e6 for one in half], [one.rss_mb for one in half]
        ).slope
    growth = Growth(
        runs, steps, first.seconds, statistics.median(fresh), statistics.median(nothing), pruned,
        first.peak_mb, slope,
        stored_mb,
    )  # fmt: skip
    return growth, first


def _steps(url: str, api: Api) -> int:
    [row] = query(
        url, "SELECT count(*) AS steps FROM orchestra.steps WHERE workflow_id = %s", api.workflow_id
    )
    return int(row["steps"])


def _stored_mb(url: str) -> float:
    [row] = query(
        url,
        """SELECT sum(pg_total_relation_size(oid)) / 1e6 AS mb FROM pg_class
           WHERE relnamespace IN ('orchestra'::regnamespace, 'orchestra_etl'::regnamespace)
             AND relkind = 'r'""",
    )
    return float(row["mb"])


def _prune(url: str, runs: int) -> float:
    """Return the seconds to prune all runs, and check their number."""
    database = Database(url)
    try:
        wanted = database.transaction(lambda c: expired.horizons(c, payloads=None, runs=1.0))
        begun = time.perf_counter()
        pruned = retention.prune(database, wanted).runs
        seconds = time.perf_counter() - begun
    finally:
        database.close()
    if pruned != runs:
        raise SystemExit(f"{pruned} of {runs} runs were pruned")
    return seconds


def large_step(url: str, folder: Path, large_bytes: int) -> dict[str, float]:
    """Return the peak memory for a run with a large step, and for a run with small steps."""
    found = {}
    for name, large in (("small steps", 0), ("a large step", large_bytes)):
        with served(Corpus(1, 5, large_bytes=large)) as api:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            OURS.prepare(url)
            api.show(1)
            found[f"{name}, MB of memory"] = sync(api, url, folder).peak_mb
            found[f"{name}, MB of the response"] = api.body_bytes / 1e6
    return found


def plot(load: Sync, file: Path) -> None:
    """Draw the rate and the memory of a load over the number of loaded steps."""
    rates = []
    apart = min(10, len(load.samples) - 1)
    for earlier, later in zip(load.samples, load.samples[apart:], strict=False):
        if later.steps > earlier.steps:
            rates.append(
                (
                    later.steps / 1000,
                    (later.steps - earlier.steps) / (later.seconds - earlier.seconds),
                )
            )
    memory = [(sample.steps / 1000, sample.rss_mb) for sample in load.samples]
    file.write_text(
        draw(
            "A first load",
            "thousand steps stored",
            [Line("steps a second", rates), Line("memory of the command, MB", memory)],
        )
    )


def sizes(largest: int) -> Iterator[int]:
    """Yield a hundredth, a tenth and all of the largest history's number of runs."""
    yield from (largest // 100, largest // 10, largest)


def show(found: Sequence[Growth]) -> None:
    """Print the figures, and the cost of a tenfold history."""
    print(
        f"{'runs':>9}{'steps':>11}{'first load s':>14}{'steps/s':>9}{'100 new s':>11}"
        f"{'nothing s':>11}{'prune s':>9}"
        f"{'steps/s':>9}{'peak MB':>9}{'MB/M steps':>12}{'stored MB':>11}"
    )
    for one in found:
        prune = (
            f"{one.prune:>9.1f}{one.steps / one.prune:>9,.0f}"
            if one.prune is not None
            else f"{'':>18}"
        )
        print(
            f"{one.runs:>9,}{one.steps:>11,}{one.first_load:>14.1f}"
            f"{one.steps / one.first_load:>9,.0f}"
            f"{one.new_runs:>11.2f}{one.nothing_new:>11.2f}{prune}{one.peak_mb:>9.0f}"
            f"{one.mb_per_million_steps:>12.1f}"
            f"{one.stored_mb:>11,.0f}"
        )
    for smaller, larger in itertools.pairwise(found):
        print(
            f"{smaller.runs:,} to {larger.runs:,} runs: the first load takes "
            f"{larger.first_load / smaller.first_load:.1f} times"
            f" as long, {NEW} new runs {larger.new_runs / smaller.new_runs:.2f} times"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="make bench-growth",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=210_000, help="runs of the largest history")
    parser.add_argument(
        "--large-bytes", type=int, default=50_000_000, help="size of a large step's outputs"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="number of syncs of new runs")
    parser.add_argument(
        "--home",
        type=Path,
        help="measure only the largest history, beside the data in this folder's database",
    )
    parser.add_argument("--plot", type=Path, help="draw the largest load into this file (SVG)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    home = given.home or new_home()
    folder = Path(new_home())
    found = []
    large = {}
    try:
        with EmbeddedPostgres(home, settings=SERVER) as server:
            largest = given.runs + given.repetitions * NEW
            with served(Corpus(largest, step_bytes=0)) as api:
                for runs in [given.runs] if given.home else sizes(given.runs):
                    growth, load = measure(
                        api, runs, server.url, folder, given.repetitions, empty=given.home is None
                    )
                    found.append(growth)
                    print(f"{runs:,} runs: done", file=sys.stderr, flush=True)
            if given.home is None:
                upgrade(server.url)
                large = large_step(server.url, folder, given.large_bytes)
        if given.plot:
            plot(load, given.plot)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if given.home is None:
            shutil.rmtree(home, ignore_errors=True)
    show(found)
    for name, value in large.items():
        print(f"{name}: {value:.1f}")
    if given.json:
        figures = {"histories": [one._asdict() for one in found], "a step": large}
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""`make bench`: this project compared with its alternatives, in one run on one machine.

Every contender reads the same history from the same process, which serves prepared bytes, and
stores it in the same PostgreSQL. Afterwards the tables of each contender must hold the same steps
with the same JSON values. Each figure is the median of several repetitions, with its spread; the
contenders take turns. `--json FILE` stores the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from etl.embedded.postgres import EmbeddedPostgres
from tests.benchmarks.contenders import (
    DLT,
    DLT_FULL,
    DLT_NEW,
    HAND_WRITTEN,
    OURS,
    Contender,
    Cost,
    digest,
    limit,
    run,
)
from tests.benchmarks.load_stage import empty, write_ready_made
from tests.benchmarks.recorded import Api, Corpus, served
from tests.postgres_fixture import new_home
from tests.support import query

VARIANTS = {
    "5 steps of 2 KB": (1.0, 5, 3000),
    "5 steps, small": (1.0, 5, 0),
    "5 steps of 55 KB": (0.1, 5, 50_000),
    "1 step": (1.0, 1, 3000),
    "50 steps": (0.1, 50, 3000),
}
"""Share of the runs, steps per run, and the approximate size of a model's step in bytes."""

LIMIT = "limit: bare aiohttp, COPY"

BUDGET = 200
"""Shared budget of several services, in requests per second, where that is measured."""


class Figure(NamedTuple):
    """The cost of one contender for one task."""

    variant: str
    task: str
    contender: str
    runs: int
    """The number of runs in the list."""
    seconds: float
    spread: float
    """Largest minus smallest duration of the repetitions, in seconds."""
    cpu_seconds: float
    peak_mb: float
    requests: int


def compare(
    corpus: Corpus, variant: str, contenders: Sequence[Contender], repetitions: int
) -> Iterator[Figure]:
    """Time each contender's first load, a sync with 1 % more runs, and a sync with nothing new.

    Also time the limit: the same responses fetched and the same rows stored, without any other
    work.
    """
    home = new_home()
    folder = home / "work"
    costs: dict[tuple[str, str], list[tuple[Cost, int]]] = {}
    stored: dict[str, tuple[int, str]] = {}
    try:
        with EmbeddedPostgres(home) as server, served(corpus) as api:
            older = corpus.runs * 100 // 101
            for _ in range(repetitions):
                for contender in contenders:
                    shutil.rmtree(folder, ignore_errors=True)
                    folder.mkdir()
                    contender.prepare(server.url)
                    for task, shown in (
                        ("first load", older),
                        ("1 % new", corpus.runs),
                        ("unchanged", corpus.runs),
                    ):
                        api.show(shown)
                        query(server.url, "CHECKPOINT")
                        before = api.requests()
                        cost = run(*contender.command(api, server.url, folder))
                        costs.setdefault((task, contender.name), []).append(
                            (cost, api.requests() - before)
                        )
                    stored[contender.name] = digest(server.url, contender)
            if len(set(stored.values())) != 1 or stored[contenders[0].name][0] != api.steps:
                raise SystemExit(f"the contenders have not stored the same: {stored}")
            # The limit sends the rows that this project has just stored.
            batches = folder / "batches"
            # A process starts with the peak memory of its parent, so the large batches are made in
            # another process.
            making = get_context("spawn").Process(
                target=write_ready_made, args=(server.url, batches)
            )
            making.start()
            making.join()
            if making.exitcode != 0:
                raise SystemExit("the ready-made rows could not be written")
            api.show(corpus.runs)
            for _ in range(repetitions):
                empty(server.url)
                before = api.requests()
                cost = run(limit(api, server.url, batches), {})
                costs.setdefault(("first load", LIMIT), []).append((cost, api.requests() - before))
            for (task, name), measured in costs.items():
                seconds = [cost.seconds for cost, _ in measured]
                yield Figure(
                    variant,
                    task,
                    name,
                    older if task == "first load" else corpus.runs,
                    statistics.median(seconds),
                    max(seconds) - min(seconds),
                    statistics.median(cost.cpu_seconds for cost, _ in measured),
                    max(cost.peak_mb for cost, _ in measured),
                    measured[-1][1],
                )
    finally:
        shutil.rmtree(home, ignore_errors=True)


def replicas(runs: int, latency: float) -> dict[int, float]:
    """Return the seconds in which 1, 2 and 4 services load a history from an API.

    Args:
        runs: of the history.
        latency: of the API, in seconds.
    """
    found = {}
    home = new_home()
    folder = home / "work"
    try:
        with EmbeddedPostgres(home) as server, served(Corpus(runs, step_bytes=3000)) as api:
            for count in (1, 2, 4):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                OURS.prepare(server.url)
                api.delay(latency)
                with _services(count, api, server.url, folder):
                    begun = 0.0
                    while True:
                        [row] = query(server.url, "SELECT count(*) AS runs FROM orchestra.runs")
                        if row["runs"] and not begun:
                            # Only the load is timed; a single service does the start and the sweep
                            # before it.
                            begun, first = time.perf_counter(), row["runs"]
                        if row["runs"] == runs:
                            break
                        time.sleep(0.05)
                    # A tiny history may be loaded at the first look.
                    found[count] = (time.perf_counter() - begun) * runs / max(runs - first, 1)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return found


def budgeted(runs: int, rate: int, count: int = 4) -> float:
    """Return the requests per second of `count` services under one budget of `rate`."""
    home = new_home()
    folder = home / "work"
    folder.mkdir()
    try:
        with EmbeddedPostgres(home) as server, served(Corpus(runs, step_bytes=3000)) as api:
            OURS.prepare(server.url)
            with _services(count, api, server.url, folder, requests_per_second=rate):
                while api.requests() == 0:
                    time.sleep(0.01)
                begun = time.perf_counter()
                while api.requests() < runs:
                    time.sleep(0.01)
                return api.requests() / (time.perf_counter() - begun)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _services(
    count: int, api: Api, url: str, folder: Path, requests_per_second: int = 0
) -> Iterator[None]:
    _, variables = OURS.command(api, url, folder)
    more = {
        "ORCHESTRA_ETL_SERVICE__PORT": "0",
        "ORCHESTRA_ETL_API__REQUESTS_PER_SECOND": str(requests_per_second),
    }
    command = [sys.executable, "-m", "etl", "serve"]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **variables, **more}, stderr=subprocess.DEVNULL
        )
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def starts() -> dict[str, float]:
    """Return the median seconds of Python's own start and of `--help`."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "orchestra-etl --help": ["-m", "etl", "--help"],
    }
    return {
        name: statistics.median(run([sys.executable, *arguments], {}).seconds for _ in range(5))
        for name, arguments in commands.items()
    }


def show(figures: Sequence[Figure]) -> None:
    """Print the figures, and each contender's duration as a multiple of this project's."""
    ours = {(one.variant, one.task): one.seconds for one in figures if one.contender == OURS.name}
    print(
        f"{'history':18}{'task':12}{'contender':28}{'runs':>8}{'seconds':>9}{'± half':>8}"
        f"{'CPU s':>8}{'MB':>6}"
        f"{'requests':>10}{'× ours':>8}"
    )
    for one in figures:
        print(
            f"{one.variant:18}{one.task:12}{one.contender:28}{one.runs:>8,}"
            f"{one.seconds:>9.2f}{one.spread / 2:>8.2f}"
            f"{one.cpu_seconds:>8.2f}{one.peak_mb:>6.0f}{one.requests:>10,}"
            f"{one.seconds / ours[one.variant, one.task]:>8.1f}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_100, help="runs of the largest history")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    contenders = [OURS, HAND_WRITTEN, *((DLT_FULL, DLT_NEW) if DLT.exists() else ())]
    figures: list[Figure] = []
    for variant in given.variants:
        share, steps, step_bytes = VARIANTS[variant]
        corpus = Corpus(int(given.runs * share), steps, step_bytes)
        figures += compare(corpus, variant, contenders, given.repetitions)
        print(f"{variant}: done", file=sys.stderr, flush=True)
    show(figures)
    for contender in contenders:
        if contender.limits:
            print(f"{contender.name}: {contender.limits}")
    scaling = replicas(given.runs // 4, 0.05)
    print(
        "concurrent services, API with 50 ms latency: "
        + ", ".join(f"{n}: {s:.2f} s" for n, s in scaling.items())
    )
    kept = budgeted(given.runs // 5, BUDGET)
    print(
        f"4 services under one budget of {BUDGET} requests a second: the API sees "
        f"{kept:.0f} a second"
    )
    started = starts()
    print("start: " + ", ".join(f"{name}: {seconds:.3f} s" for name, seconds in started.items()))
    if given.json:
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        given.json.write_text(
            json.dumps(
                {
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "machine": machine,
                    "figures": [one._asdict() for one in figures],
                    "replicas_seconds": scaling,
                    "requests_a_second": {"budget": BUDGET, "seen": kept},
                    "start_seconds": started,
                },
                indent=2,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()

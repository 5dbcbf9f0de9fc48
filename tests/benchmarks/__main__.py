"""`make bench`: this project compared with its alternatives, in one run on one machine.

Every contender reads the same history from the same process, which serves prepared bytes, and
stores it in the same PostgreSQL: first everything, then with 1 % new runs and 0.5 % changed ones,
then with nothing new. Afterwards the tables of each contender must hold the same steps with the
same JSON values. The contenders take turns; each figure is the median of the repetitions, ± half
the difference between the longest and the shortest. CPU is the time of the first load for a run, of
the program and of PostgreSQL; memory is the peak of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.comparison import (
    FIRST,
    NEW,
    NOTHING,
    SHAPES,
    Figure,
    Progress,
    compare,
    expected,
)
from tests.benchmarks.contenders import (
    DLT,
    DLT_FULL,
    DLT_NEW,
    HAND_WRITTEN,
    LIMIT,
    OURS,
    SINGER,
    SINGER_PAIR,
)
from tests.benchmarks.cost import run
from tests.benchmarks.plot import Bar, draw_bars
from tests.benchmarks.replicas import budgeted, replicas

BUDGET = 200
"""Shared budget of several services, in requests per second, where that is measured."""
REST = 90
"""Expected seconds of what is measured after the comparison."""


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


def table(figures: Sequence[Figure]) -> list[str]:
    """Return the lines of a table, in Markdown, of one shape of history.

    A ratio in parentheses is a multiple of this project's time. The ratio to the limit is that of
    the first load.
    """
    found = {(one.task, one.contender): one for one in figures}
    rows = [[
        "", *(f"{task}, s" for task in (FIRST, NEW, NOTHING)),
        "× limit", "CPU ms a run", "PostgreSQL's", "MB",
    ]]  # fmt: skip
    for name in dict.fromkeys(one.contender for one in figures):
        first = found[FIRST, name]
        times = []
        for task in (FIRST, NEW, NOTHING):
            one = found.get((task, name))
            ratio = one.seconds / found[task, OURS.name].seconds if one else 0
            other = "" if name == OURS.name else f" ({ratio:.1f})"
            times.append(f"{one.seconds:.2f} ± {one.half_spread:.2f}{other}" if one else "")
        peak = max(found[key].peak_mb for key in found if key[1] == name)
        limit = first.seconds / found[FIRST, LIMIT.name].seconds
        rows.append([name, *times, f"{limit:.1f}", f"{first.cpu_ms:.2f}", f"{first.server_ms:.2f}",
                     f"{peak:.0f}"])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]


def picture(figures: Sequence[Figure]) -> str:
    """Return a drawing of the time of the first load in every shape, and of what is new."""
    panels = {}
    for shape in dict.fromkeys(one.shape for one in figures):
        for task in (FIRST, NEW):
            panels[f"{shape}: {task}, seconds"] = [
                Bar(one.contender, one.seconds, OURS.name == one.contender)
                for one in figures
                if one.shape == shape and one.task == task
            ]
    return draw_bars("The same history in the same PostgreSQL", panels)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--runs", type=int, default=10_000,
        help="runs of the largest history; other shapes have a fixed share",
    )  # fmt: skip
    parser.add_argument("--repetitions", type=int, default=2, help="turns of each contender")
    parser.add_argument(
        "--shapes", nargs="*", choices=list(SHAPES), default=list(SHAPES),
        help="shapes of history",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--plot", type=Path, help="draw the comparison into this file (SVG)")
    given = parser.parse_args()
    contenders = [
        OURS,
        HAND_WRITTEN,
        *((DLT_FULL, DLT_NEW) if DLT.exists() else ()),
        *((SINGER_PAIR,) if SINGER.exists() else ()),
    ]
    seconds = expected(given.runs, given.shapes, given.repetitions)
    print(
        f"expected on two idle cores: {(seconds + REST) / 60:.0f} minutes, of which the comparison"
        f" {seconds / 60:.0f}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    progress = Progress(seconds)
    figures: list[Figure] = []
    for shape in given.shapes:
        found = list(compare(given.runs, shape, contenders, given.repetitions, progress))
        figures += found
        print(f"\n{shape}: {found[0].runs:,} runs, {given.repetitions} repetitions\n")
        print("\n".join(table(found)), flush=True)
        # Write after each shape, so that a failure of a later one loses nothing.
        if given.json:
            given.json.write_text(_report(figures, {}))
        if given.plot:
            given.plot.write_text(picture(figures))
    print()
    for contender in contenders:
        if contender.limits:
            print(f"{contender.name}: {contender.limits}")
    scaling = replicas(max(1, given.runs // 4), 0.05)
    print(
        "concurrent services, API with 50 ms latency: "
        + ", ".join(f"{n}: {s:.2f} s" for n, s in scaling.items())
    )
    kept = budgeted(max(1, given.runs // 5), BUDGET)
    print(
        f"4 services under one budget of {BUDGET} requests a second: the API sees "
        f"{kept:.0f} a second"
    )
    started = starts()
    print("start: " + ", ".join(f"{name}: {seconds:.3f} s" for name, seconds in started.items()))
    if given.json:
        rest = {
            "replicas_seconds": scaling,
            "requests_a_second": {"budget": BUDGET, "seen": kept},
            "start_seconds": started,
        }
        given.json.write_text(_report(figures, rest))


def _report(figures: Sequence[Figure], rest: dict[str, object]) -> str:
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "figures": [
            {**one._asdict(), "costs": [cost._asdict() for cost in one.costs]} for one in figures
        ],
        **rest,
    }
    return json.dumps(report, indent=2) + "\n"


if __name__ == "__main__":
    main()

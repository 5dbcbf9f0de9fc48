"""The contenders' turns: each loads the same history, then what is new, then nothing."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from etl.embedded.postgres import EmbeddedPostgres
from tests.benchmarks.contenders import BATCHES, LIMIT, OURS, Contender, Stored, stored
from tests.benchmarks.cost import Cost, run
from tests.benchmarks.load_stage import write_ready_made
from tests.benchmarks.recorded import Api, Corpus, served
from tests.postgres_fixture import new_home
from tests.support import query

FIRST, NEW, NOTHING = "first load", "1 % new", "nothing new"


class Shape(NamedTuple):
    """A shape of history."""

    share: float
    """Share of the runs of the largest history."""
    steps: int
    """Steps of a run."""
    step_bytes: int
    """Approximate size of a model's step."""
    seconds: float
    """Expected seconds for a run in all turns of a repetition, on two idle cores."""

    def corpus(self, runs: int) -> Corpus:
        """Return the history: 101 % of the runs; the last 1 % appear later, when 0.5 % change."""
        listed = max(2, round(runs * self.share))
        new = max(1, listed // 100)
        changing = max(1, listed // 200)
        return Corpus(listed + new, self.steps, self.step_bytes, new=new, changing=changing)


SHAPES = {
    "5 steps of 2 KB": Shape(1.0, 5, 3000, 0.036),
    "5 steps, small": Shape(0.3, 5, 0, 0.030),
    "5 steps of 55 KB": Shape(0.05, 5, 50_000, 0.200),
    "1 step of 2 KB": Shape(0.3, 1, 3000, 0.022),
    "50 steps of 2 KB": Shape(0.05, 50, 3000, 0.170),
}
START = 25
"""Expected seconds for the starts of all commands of a repetition."""


class Figure(NamedTuple):
    """The cost of one contender for one task, in each repetition."""

    shape: str
    task: str
    contender: str
    runs: int
    """The number of runs in the list."""
    costs: Sequence[Cost]
    requests: int

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(one.seconds for one in self.costs)

    @property
    def half_spread(self) -> float:
        """Half the difference between the longest and the shortest repetition, in seconds."""
        every = [one.seconds for one in self.costs]
        return (max(every) - min(every)) / 2

    @property
    def cpu_ms(self) -> float:
        """Median CPU time of the program for a run, in milliseconds."""
        return statistics.median(one.cpu_seconds for one in self.costs) * 1000 / self.runs

    @property
    def server_ms(self) -> float:
        """Median CPU time of PostgreSQL for a run, in milliseconds."""
        return statistics.median(one.server_seconds for one in self.costs) * 1000 / self.runs

    @property
    def peak_mb(self) -> float:
        """The highest peak memory."""
        return max(one.peak_mb for one in self.costs)


class Progress:
    """Prints each turn, and when the rest is expected to end."""

    def __init__(self, expected: float) -> None:
        """Start, with the expected seconds of everything."""
        self._begun = time.perf_counter()
        self._expected = expected
        self._done = 0.0

    def ended(self, what: str, expected: float) -> None:
        """Report a part that was expected to take `expected` seconds."""
        self._done += expected
        passed = time.perf_counter() - self._begun
        left = (self._expected - self._done) * passed / self._done
        print(
            f"{passed / 60:5.1f} min, about {max(left, 0) / 60:.0f} left: {what}",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def expected(runs: int, shapes: Sequence[str], repetitions: int) -> float:
    """Return the seconds that the comparison takes on two idle cores."""
    return repetitions * sum(
        START + SHAPES[name].corpus(runs).runs * SHAPES[name].seconds for name in shapes
    )


def compare(
    runs: int, name: str, contenders: Sequence[Contender], repetitions: int, progress: Progress
) -> Iterator[Figure]:
    """Time each contender's first load, the load of new and changed runs, and of nothing new.

    The contenders take turns; each repetition begins with another one. Only one contender has
    tables at a time, so that a turn does not include the vacuum of another one's tables.

    Args:
        runs: of the largest shape.
        name: of the shape.
        contenders: what is compared, this project first; the limit joins them.
        repetitions: the turns of each contender.
        progress: reports each turn.

    Raises:
        SystemExit: a contender fails, or has stored other data than the first one.
    """
    corpus = SHAPES[name].corpus(runs)
    each = expected(runs, [name], 1) / (len(contenders) + 1)
    home = new_home()
    folder = home / "work"
    folder.mkdir()
    figures: dict[tuple[str, str], Figure] = {}
    found: dict[bool, Stored] = {}
    try:
        with EmbeddedPostgres(home) as server, served(corpus) as api:
            order = [*contenders, LIMIT]
            for repetition in range(repetitions):
                first = repetition % len(order)
                for contender in [*order[first:], *order[:first]]:
                    tasks = _turn(contender, corpus, api, server.url, folder)
                    for task, listed, cost, requests in tasks:
                        key = (task, contender.name)
                        before = figures[key].costs if key in figures else ()
                        figures[key] = Figure(
                            name, task, contender.name, listed, [*before, cost], requests
                        )
                    if contender is not LIMIT:
                        _check(contender, api, server.url, found)
                    contender.clear(server.url)
                    progress.ended(f"{name}, {contender.name}", each)
        yield from figures.values()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _turn(
    contender: Contender, corpus: Corpus, api: Api, url: str, folder: Path
) -> Iterator[tuple[str, int, Cost, int]]:
    """Yield task, listed runs, cost and requests of each task of a contender."""
    shutil.rmtree(own := folder / "own", ignore_errors=True)
    own.mkdir()
    contender.prepare(url)
    if contender is LIMIT:
        (own / BATCHES).symlink_to(folder / BATCHES)
    older = corpus.runs - corpus.new
    for task, listed in ((FIRST, older), (NEW, corpus.runs), (NOTHING, corpus.runs)):
        api.show(listed)
        query(url, "CHECKPOINT")
        before = api.requests()
        cost = run(*contender.command(api, url, own), url)
        yield task, listed, cost, api.requests() - before
        if contender is LIMIT:
            return
        if contender is OURS and task == FIRST and not (folder / BATCHES).exists():
            # The limit sends the rows that this project has just stored. A process starts with the
            # peak memory of its parent, so the large batches are made in another process.
            making = get_context("spawn").Process(
                target=write_ready_made, args=(url, folder / BATCHES)
            )
            making.start()
            making.join()
            if making.exitcode != 0:
                raise SystemExit("the ready-made rows could not be written")


def _check(contender: Contender, api: Api, url: str, found: dict[bool, Stored]) -> None:
    """Compare what a contender has stored with what the first one has stored.

    Raises:
        SystemExit: if it is not the same.
    """
    mine = stored(url, contender, api.changing)
    if not found:
        found |= mine
        if sum(one.steps for one in mine.values()) != api.steps:
            raise SystemExit(f"{contender.name} has stored {mine} of {api.steps} steps")
    if mine[False] != found[False] or (mine[True] == found[True]) != contender.sees_changes:
        raise SystemExit(f"{contender.name} has not stored the same: {mine}, not {found}")

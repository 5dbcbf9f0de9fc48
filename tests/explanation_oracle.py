"""Why figures differ between two periods, in plain Python over the raw runs and steps.

Fractions, so that nothing is rounded. The tree of a cost is walked from its root; the SQL functions
compute it from tables of counts instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

from etl.usage import CALLS, KINDS
from tests.rollup_oracle import charged, context_tier, is_call, is_unmetered, usage_of
from tests.view_oracle import Facts, Row, model, outcome, started, step_cost

Period = tuple[datetime, datetime]
Path = tuple[Any, ...]
"""The path to a branch of the tree: version, node, currency, model with its tiers, kind."""
Key = tuple[Any, ...]

LEVELS = ("version", "calls", "priced", "models", "usage", "prices")
THE_END = "the end"
_PER = {kind.name: kind.per for kind in (*KINDS, CALLS)}
_PRICES = {kind.name: kind.price_column for kind in (*KINDS, CALLS)}


class Side(NamedTuple):
    """The counts of a period of each branch of the tree."""

    counts: Counter[Path]
    costs: dict[str, Fraction]
    charged: dict[Key, Fraction]
    """Cost by currency, model with its tiers and kind, over all versions and nodes."""
    used: Counter[Key]


def cost(facts: Facts, workflow: str, baseline: Period, period: Period) -> dict[Key, Fraction]:
    """Return the parts of the difference by currency, part, version, node, model, tiers and kind.

    A part `baseline` is the cost in the baseline.
    """
    sides = [_side(facts, workflow, one) for one in (baseline, period)]
    found: dict[Key, Fraction] = defaultdict(Fraction)
    for currency in {one for side in sides for one in side.costs}:
        tree = _Tree(sides, currency)
        tree.walk()
        found.update({(currency, *key): amount for key, amount in tree.found.items()})
        found[currency, "baseline", *[None] * 6] = sides[0].costs.get(currency, Fraction(0))
    return {
        key: Fraction(amount) for key, amount in found.items() if amount or key[1] == "baseline"
    }


class _Tree:
    """The split of one currency."""

    def __init__(self, sides: list[Side], currency: str) -> None:
        self._sides = sides
        self._currency = currency
        self.found: dict[Key, Fraction] = defaultdict(Fraction)
        self._children: dict[Path, set[Path]] = defaultdict(set)
        for path in (one for side in sides for one in side.counts):
            if len(path) == 5 and path[2] == currency:
                for depth in range(5):
                    self._children[path[:depth]].add(path[: depth + 1])

    def walk(self) -> None:
        runs = [Fraction(side.counts[()]) for side in self._sides]
        below = [self._below((), number) for number in (0, 1)]
        self._add(("runs", *[None] * 6), (runs[1] - runs[0]) * (below[0] + below[1]) / 2)
        self._split((), (runs[0] + runs[1]) / 2)

    def _split(self, path: Path, weight: Fraction) -> None:
        if len(path) == 5:
            before, after = (self._price(path, number) for number in (0, 1))
            self._add(("prices", *_shown(path)), weight * (after - before))
            return
        for child in self._children[path]:
            before, after = (self._factor(child, number) for number in (0, 1))
            mean = (self._below(child, 0) + self._below(child, 1)) / 2
            amount = weight * (after - before) * mean
            if len(child) == 1:
                # The version's part is shown by node.
                for node in self._children[child]:
                    one = sum(
                        self._factor(node, number) * self._below(node, number) for number in (0, 1)
                    )
                    key = ("version", None, node[1], *[None] * 4)
                    self._add(key, weight * (after - before) * one / 2)
            elif len(child) == 2:
                part = "nodes" if 0 in (before, after) else "calls"
                self._add((part, *child, *[None] * 4), amount)
            elif len(child) == 3:
                lost = Fraction(0)
                for name in ("unpriced", "unmetered"):
                    less = self._factor((*path, name), 0) - self._factor((*path, name), 1)
                    self._add((name, *path, *[None] * 4), weight * less * mean)
                    lost += less
                rest = weight * (after - before - lost) * mean
                self._add(("currencies", *path, *[None] * 4), rest)
            else:
                self._add((LEVELS[len(child) - 1], *_shown(child)), amount)
            self._split(child, weight * (before + after) / 2)

    def _below(self, path: Path, number: int) -> Fraction:
        """Return the cost of one unit of what this branch counts."""
        if len(path) == 5:
            return self._price(path, number)
        return sum(
            (
                self._factor(child, number) * self._below(child, number)
                for child in self._children[path]
            ),
            Fraction(0),
        )

    def _factor(self, child: Path, number: int) -> Fraction:
        for one in (number, 1 - number):
            counts = self._sides[one].counts
            if counts[child[:-1]]:
                return Fraction(counts[child], counts[child[:-1]])
        return Fraction(0)

    def _price(self, path: Path, number: int) -> Fraction:
        for key in ((path[1:3], path), (None, path[2:])):
            for one in (number,) if key[0] else (number, 1 - number):
                side = self._sides[one]
                if side.used[key[1]]:
                    return side.charged[key[1]] / side.used[key[1]]
        raise AssertionError(path)

    def _add(self, key: Key, amount: Fraction) -> None:
        self.found[key] += amount


def _shown(path: Path) -> Key:
    """Return version, node, model, service tier, context tier and kind of a path."""
    version, node, _, named, *kind = path
    return (version, node, *named, kind[0] if kind else None)


def _side(facts: Facts, workflow: str, period: Period) -> Side:
    runs = {run["id"]: run for run in facts.runs}
    begins, ends = period
    started_runs: Counter[Any] = Counter()
    stretches = _stretches(facts, workflow, period)
    for run in facts.runs:
        if run["workflow_id"] == workflow and begins <= started(run) < ends:
            started_runs[_at(stretches, started(run))] += 1
    calls = []
    for step in facts.steps:
        time = started(step, runs[step["run_id"]])
        belongs = (step if step["start_time"] else runs[step["run_id"]])["workflow_id"]
        if belongs == workflow and begins <= time < ends and is_call(step):
            calls.append((step, time, _at(stretches, time)))
    versions = _versions(stretches, started_runs)
    side = Side(Counter(), defaultdict(Fraction), defaultdict(Fraction), Counter())
    for stretch, count in started_runs.items():
        side.counts[()] += count
        side.counts[(versions[stretch],)] += count
    if calls and not started_runs:
        side.counts[()] = side.counts[(versions[0],)] = 1
    for step, time, stretch in calls:
        path: Path = (versions[stretch], step["node_id"])
        side.counts[path] += 1
        if is_unmetered(step):
            side.counts[(*path, "unmetered")] += 1
            continue
        amount, price = step_cost(facts, step, time)
        if amount is None or price is None:
            side.counts[(*path, "unpriced")] += 1
            continue
        currency = price["currency"]
        path = (*path, currency)
        side.counts[path] += 1
        path = (*path, (model(step), step["service_tier"], context_tier(step)))
        side.counts[path] += 1
        side.costs[currency] += 0
        used = charged(usage_of(step))
        if used and price[CALLS.price_column]:
            used[CALLS.name] = 1
        for kind, quantity in used.items():
            paid = Fraction(quantity) * Fraction(price[_PRICES[kind]]) / _PER[kind]
            side.counts[(*path, kind)] += quantity
            side.costs[currency] += paid
            for key in ((*path, kind), (*path, kind)[2:]):
                side.charged[key] += paid
                side.used[key] += quantity
    return side


def _stretches(facts: Facts, workflow: str, period: Period) -> list[tuple[datetime, Any]]:
    """Return the begin and the version of each stretch of a period, in order."""
    begins, ends = period
    times = [row["first_seen_at"] for row in facts.versions]
    times += [row["api_updated_at"] for row in facts.versions if row["api_updated_at"]]
    cuts = sorted({begins, *(time for time in times if begins < time < ends)})
    return [(time, facts.version(workflow, time)) for time in cuts]


def _at(stretches: list[tuple[datetime, Any]], time: datetime) -> int:
    return max(number for number, (begins, _) in enumerate(stretches) if begins <= time)


def _versions(stretches: list[tuple[datetime, Any]], runs: Mapping[int, int]) -> list[Any]:
    """Return the version that each stretch counts to.

    Neighbours of one version are one stretch. One without a run counts to the last before it that
    has one, else to the first that has one.
    """
    groups: list[list[int]] = []
    for number, (_, version) in enumerate(stretches):
        if groups and stretches[groups[-1][0]][1] == version:
            groups[-1].append(number)
        else:
            groups.append([number])
    has = [sum(runs.get(one, 0) for one in group) > 0 for group in groups]
    found: list[Any] = []
    for index, group in enumerate(groups):
        before = [one for one in range(index + 1) if has[one]]
        after = [one for one in range(index, len(groups)) if has[one]]
        chosen = before[-1] if before else after[0] if after else 0
        found += [stretches[groups[chosen][0]][1]] * len(group)
    return found


def failures(
    facts: Facts,
    kinds: Mapping[str, tuple[str, str]],
    workflow: str,
    baseline: Period,
    period: Period,
) -> dict[Key, Fraction]:
    """Return the parts of the difference by part, outcome, node and fingerprint.

    `kinds` are the fingerprint and pattern of each failed step.
    """
    runs = {run["id"]: run for run in facts.runs}
    counts = []
    for begins, ends in (baseline, period):
        failed: Counter[Key] = Counter()
        for step in facts.steps:
            time = started(step, runs[step["run_id"]])
            belongs = (step if step["start_time"] else runs[step["run_id"]])["workflow_id"]
            if belongs == workflow and begins <= time < ends:
                how = outcome(step)
                if how in ("failed", "soft_failed"):
                    failed[how, step["node_id"], kinds[step["id"]][0]] += 1
        all_runs = sum(
            run["workflow_id"] == workflow and begins <= started(run) < ends for run in facts.runs
        )
        counts.append((max(all_runs, 1 if failed else 0), failed))
    (runs_0, before), (runs_1, after) = counts
    found: dict[Key, Fraction] = defaultdict(Fraction)
    found["baseline", None, None, None] = Fraction(before.total())
    for key in {*before, *after}:
        rate_0 = Fraction(before[key], runs_0) if runs_0 else Fraction(after[key], runs_1)
        rate_1 = Fraction(after[key], runs_1) if runs_1 else rate_0
        found["runs", None, None, None] += (runs_1 - runs_0) * (rate_0 + rate_1) / 2
        part = (
            "new" if not rate_0 else "gone" if not rate_1 else
            "grown" if rate_1 > rate_0 else "shrunk"
        )  # fmt: skip
        found[(part, *key)] += Fraction(runs_0 + runs_1, 2) * (rate_1 - rate_0)
    return {key: one for key, one in found.items() if one or key[0] == "baseline"}


def duration(facts: Facts, workflow: str, baseline: Period, period: Period) -> dict[Key, Fraction]:
    """Return the parts of the difference of the mean duration in milliseconds by part and node."""
    sides = []
    for begins, ends in (baseline, period):
        took: dict[Any, Fraction] = defaultdict(Fraction)
        times: Counter[Any] = Counter()
        waited: dict[Any, Fraction] = defaultdict(Fraction)
        total, number = Fraction(0), 0
        for run in facts.runs:
            start, end = run["start_time"], run["end_time"]
            if (
                run["workflow_id"] != workflow
                or start is None
                or end is None
                or not begins <= start < ends
                or end < start
                or facts.run_outcome(run) != "succeeded"
            ):
                continue
            number += 1
            total += _ms(start, end)
            for node, own, before in critical_path(facts.of_run(run["id"]), start, end):
                waited[node] += before
                if own is not None:
                    took[node] += own
                    times[node] += 1
        sides.append((number, total, took, times, waited))
    (n_0, total_0, took_0, times_0, waited_0), (n_1, total_1, took_1, times_1, waited_1) = sides
    if not n_0 or not n_1:
        return {}
    found: dict[Key, Fraction] = defaultdict(Fraction)
    found["baseline", None] = Fraction(total_0) / n_0
    for node in {*times_0, *times_1}:
        often = (Fraction(times_0[node], n_0), Fraction(times_1[node], n_1))
        ms_0 = Fraction(took_0[node]) / times_0[node] if times_0[node] else None
        ms_1 = Fraction(took_1[node]) / times_1[node] if times_1[node] else ms_0
        ms_0 = ms_1 if ms_0 is None else ms_0
        assert ms_0 is not None
        assert ms_1 is not None
        part = "executions" if all(often) else "nodes"
        found[part, node] += (often[1] - often[0]) * (ms_0 + ms_1) / 2
        found["time", node] += (often[0] + often[1]) / 2 * (ms_1 - ms_0)
    for node in {*waited_0, *waited_1}:
        change = Fraction(waited_1[node]) / n_1 - Fraction(waited_0[node]) / n_0
        at_end = node == THE_END
        found["waiting_at_end" if at_end else "waiting", None if at_end else node] += change
    assert sum(found.values()) == Fraction(total_1) / n_1
    return {key: one for key, one in found.items() if one or key[0] == "baseline"}


def critical_path(
    steps: list[Row], start: datetime, end: datetime
) -> list[tuple[Any, Fraction | None, Fraction]]:
    """Return node, milliseconds, and milliseconds of waiting before, of each step on the path.

    The last entry is the time after the last step, or the whole run without steps.
    """
    left = sorted(
        (
            (max(min(step["start_time"], end), start), min(step["end_time"], end), step)
            for step in steps
            if step["start_time"] and step["end_time"]
            and start <= step["end_time"] >= step["start_time"]
        ),
        key=_rank,
    )  # fmt: skip
    found: list[tuple[Any, Fraction | None, Fraction]] = []
    at, node = end, THE_END
    own: Fraction | None = None
    while True:
        later = [number for number, one in enumerate(left) if one[1] <= at]
        if not later:
            return [*found, (node, own, _ms(start, at))]
        best = left[later[0]]
        left = left[later[0] + 1 :]
        found.append((node, own, _ms(best[1], at)))
        node, own, at = best[2]["node_id"], _ms(best[0], best[1]), best[0]


def _rank(one: Any) -> Any:
    """Return the sort key of the order of ends, the last first."""
    step = one[2]
    return (-_us(step["end_time"]), step["start_time"], step["position"], step["id"])


def _us(time: datetime) -> int:
    return int(_ms(datetime(2000, 1, 1, tzinfo=UTC), time) * 1000)


def _ms(begin: datetime, end: datetime) -> Fraction:
    passed = end - begin
    return Fraction(passed.days * 86400 + passed.seconds) * 1000 + Fraction(
        passed.microseconds, 1000
    )

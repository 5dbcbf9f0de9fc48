"""The views in plain Python, computed from `runs`, `steps` and the views' other sources."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from etl.usage import CALLS, KINDS
from tests.rollup_oracle import (
    NODE,
    USAGE,
    CountedGroup,
    Rollups,
    charged,
    context_tier,
    error_text,
    is_call,
    is_cut_off,
    is_unmetered,
    is_untotalled,
    kinds_of,
    outcome_of,
    usage_of,
)

Row = dict[str, Any]

# These are 0 without a call; for other rows nothing is known.
_PLAIN = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "total_tokens",
)
_KINDS = {kind.name: kind for kind in KINDS}
RUNS = """
    SELECT r.*, l.run_observed_at, l.steps_observed_at
    FROM orchestra.runs AS r LEFT JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
"""
_ENDED = ("succeeded", "soft_failed", "failed", "cancelled", "skipped")


class Facts(NamedTuple):
    """The sources of the views."""

    runs: list[Row]
    """The runs, each with `run_observed_at` and `steps_observed_at` of the ledger (see `RUNS`)."""
    steps: list[Row]
    """The steps that are not absent."""
    workflows: dict[str, Row]
    versions: list[Row]
    """The versions in the order in which they were observed."""
    prices: list[Row]

    def name(self, workflow_id: str) -> str:
        """Return the workflow's name, or its id."""
        return str(self.workflows[workflow_id]["name"] or workflow_id)

    def price(
        self, model: str | None, time: datetime, service_tier: str | None, length: int | None
    ) -> Row | None:
        """Return the model's price on the day of `time`, for this tier and length of the input."""
        day = time.astimezone(UTC).date()
        for row in self.prices:
            if (
                (row["model"], row["service_tier"]) == (model, service_tier or "standard")
                and row["above_input_tokens"] <= (length or 0)
                and (row["up_to_input_tokens"] is None or (length or 0) < row["up_to_input_tokens"])
                and row["valid_from"] <= day
                and (not row["valid_until"] or day < row["valid_until"])
            ):
                return row
        return None

    def version(self, workflow_id: str, time: datetime) -> str | None:
        """Return the workflow's latest version that began by that time."""
        found = None
        seen_until = datetime.min.replace(tzinfo=UTC)
        for row in self.versions:
            if row["workflow_id"] == workflow_id:
                begun = row["first_seen_at"]
                if (
                    row["api_updated_at"] is not None
                    and seen_until <= row["api_updated_at"] < begun
                ):
                    begun = row["api_updated_at"]
                if begun <= time:
                    found = row["version"]
                seen_until = row["first_seen_at"]
        return found

    def run_outcome(self, run: Row) -> str:
        """Return how a run ended."""
        soft = any(outcome_of(step) == "soft_failed" for step in self.of_run(run["id"]))
        return "soft_failed" if run["state"] == "succeeded" and soft else outcome_of(run)

    def of_run(self, run_id: str) -> list[Row]:
        """Return the run's steps in the order of their starts; those not started come last."""
        return sorted((step for step in self.steps if step["run_id"] == run_id), key=_order)


def cost(price: Row | None, usage: Row, calls: int = 1) -> Decimal | None:
    """Return the cost of this usage, or None if one of its kinds has no price."""
    if price is None:
        return None
    amount = Fraction(0)
    parts = charged(usage)
    for name, quantity in parts.items():
        if price[_KINDS[name].price_column] is None:
            return None
        amount += quantity * Fraction(price[_KINDS[name].price_column]) / _KINDS[name].per
    if parts:
        amount += calls * Fraction(price[CALLS.price_column] or 0) / CALLS.per
    return Decimal(amount.numerator) / Decimal(amount.denominator)


def step_cost(facts: Facts, step: Row, time: datetime) -> tuple[Decimal | None, Row | None]:
    """Return the cost of a step that started at that time, and its price."""
    if not is_call(step) or is_unmetered(step):
        return None, None
    price = facts.price(model(step), time, step["service_tier"], context_tier(step))
    return cost(price, usage_of(step)), price


def run_summary(facts: Facts) -> dict[Any, Row]:
    """Return `run_summary` by run."""
    made = {}
    for run in facts.runs:
        steps = facts.of_run(run["id"])
        outcomes = [outcome(step) for step in steps]
        calls = [step for step in steps if is_call(step)]
        costs = [step_cost(facts, step, started(step, run)) for step in calls]
        paid = [
            (price["currency"], amount)
            for amount, price in costs
            if price is not None and amount is not None
        ]
        reported = [step["reported_cost"] for step in calls if step["reported_cost"] is not None]
        currencies = {currency for currency, _ in paid}
        failed = [step for step in steps if step["state"] == "failed"]
        failed += [step for step in steps if outcome(step) == "soft_failed"]
        error = message(failed[0]) if failed else None
        made[run["id"]] = {
            "run_id": run["id"],
            "workflow_name": facts.name(run["workflow_id"]),
            "labels": facts.workflows[run["workflow_id"]]["labels"],
            "workflow_version": facts.version(run["workflow_id"], started(run)),
            "outcome": "soft_failed"
            if run["state"] == "succeeded" and "soft_failed" in outcomes
            else outcome_of(run),
            "steps": len(steps),
            **{
                f"{name}_steps": outcomes.count(name)
                for name in ("succeeded", "soft_failed", "failed")
            },
            "first_failed_node": failed[0]["node_id"] if failed else None,
            "first_error": (error or error_text(run["error"]) or "")[:500] or None,
            "calls": len(calls),
            **{
                name: added([usage_of(step)[name] for step in steps], len(calls)) for name in _PLAIN
            },
            "cache_write_tokens": added([usage_of(step)["cache_write_tokens"] for step in steps]),
            "reported_cost": sum(reported) if reported else None,
            "reported_calls": len(reported),
            "untotalled_calls": sum(is_untotalled(step) for step in steps),
            "cost": sum(amount for _, amount in paid) if len(currencies) == 1 else None,
            "currency": currencies.pop() if len(currencies) == 1 else None,
            "unpriced_calls": len(calls) - (len(paid) if len({one for one, _ in paid}) == 1 else 0),
            **_same(
                run,
                "workflow_id",
                "organization_id",
                "user_id",
                "state",
                "tracking",
                "start_time",
                "end_time",
            ),
            **_same(run, "duration_ms", "first_seen_at", "updated_at"),
            "observed_at": observed(run),
        }
    return made


def step_timeline(facts: Facts) -> dict[Any, Row]:
    """Return `step_timeline` by step."""
    made = {}
    for run in facts.runs:
        steps = facts.of_run(run["id"])
        begun = min(
            time for time in (run["start_time"], *(step["start_time"] for step in steps)) if time
        )
        lanes: list[datetime | None] = []
        executions: dict[str, list[str]] = defaultdict(list)
        for step in steps:
            if step["state"] != "skipped":
                executions[step["node_id"]].append(step["id"])
        for step in steps:
            start, lane, wait = step["start_time"], None, None
            if start is not None:
                free = [number for number, at in enumerate(lanes) if at is not None and at <= start]
                lane = free[0] if free else len(lanes)
                lanes[lane : lane + 1] = [step["end_time"]]
                ends = [
                    one["end_time"]
                    for one in steps
                    if one is not step and one["end_time"] is not None
                ]
                wait = start - max((end for end in ends if end <= start), default=begun)
            amount, price = step_cost(facts, step, started(step, run))
            made[step["id"]] = {
                "step_id": step["id"],
                "workflow_name": facts.name(run["workflow_id"]),
                "model": model(step),
                "outcome": outcome(step),
                "offset_ms": None if start is None else (start - begun).total_seconds() * 1000,
                "wait_ms": None if wait is None else wait.total_seconds() * 1000,
                "lane": None if lane is None else lane + 1,
                "execution": None
                if step["state"] == "skipped"
                else executions[step["node_id"]].index(step["id"]) + 1,
                "executions": len(executions[step["node_id"]]),
                "error": message(step),
                "calls": int(is_call(step)),
                "cost": amount,
                "currency": price["currency"] if price and amount is not None else None,
                "usage_kinds": kinds_of(step) if is_call(step) else None,
                "cut_off": step["finish_reason"] and is_cut_off(step["finish_reason"]),
                **_same(
                    step,
                    "run_id",
                    "workflow_id",
                    "position",
                    "node_id",
                    "node_type",
                    "state",
                    "start_time",
                    "end_time",
                ),
                **{
                    name: usage_of(step)[name]
                    for name in (*_PLAIN, "cache_write_tokens", "reported_cost")
                },
                **_same(step, "duration_ms", "service_tier", "finish_reason"),
                "observed_at": run["steps_observed_at"],
            }
    return made


def workflow_hourly(facts: Facts, rollups: Rollups) -> dict[Any, Row]:
    """Return `workflow_hourly` by workflow, hour and organisation."""
    names = ("runs", *_ENDED, "unfinished")
    return {
        key: {
            **dict(zip(("workflow_id", "hour", "organization_id"), key, strict=True)),
            "workflow_name": facts.name(key[0]),
            **{name: group.counts.get(name, 0) for name in names},
            **_histogram(group.durations),
        }
        for key, group in rollups.runs.items()
    }


def nodes(facts: Facts, rollups: Rollups, when: str) -> dict[Any, Row]:
    """Return the node view by workflow, hour or day, organisation, node, its type and model."""
    states = (*_ENDED, "unfinished")
    groups: dict[Any, list[CountedGroup]] = defaultdict(list)
    for key, group in (rollups.hours if when == "hour" else rollups.days).items():
        groups[key[: 2 + len(NODE)]].append(group)
    made = {}
    for key, found in groups.items():
        counts = {
            name: sum(group.counts.get(name, 0) for group in found)
            for name in (*states, "calls", "untotalled_calls")
        }
        durations: Counter[tuple[bool, int]] = Counter()
        for group in found:
            durations.update(group.durations)
        totals = [group.counts.get("total_tokens") for group in found if group.counts.get("calls")]
        made[key] = {
            **dict(zip(("workflow_id", when, *NODE), key, strict=True)),
            "workflow_name": facts.name(key[0]),
            "steps": sum(counts[name] for name in states),
            **counts,
            "total_tokens": added(totals, counts["calls"]),
            **_histogram(durations),
        }
    return made


def model_usage(facts: Facts, rollups: Rollups) -> dict[Any, Row]:
    """Return `model_usage` by hour, workflow, organisation, node, model, tier, length and kinds.

    The length is that of the input, the kinds are those of the usage.
    """
    made = {}
    for (
        workflow_id,
        hour,
        organization_id,
        node_id,
        _,
        name,
        tier,
        length,
        kinds,
    ), group in rollups.hours.items():
        if not group.counts.get("calls"):
            continue
        unmetered = group.counts.get("unmetered_calls", 0)
        calls = group.counts["calls"]
        usage = {one: group.counts.get(one) for one in USAGE}
        price = facts.price(name, hour, tier, length) if unmetered < calls else None
        amount = cost(price, usage, calls - unmetered)
        made[hour, workflow_id, organization_id, node_id, name, tier, length, kinds] = {
            "hour": hour,
            "workflow_id": workflow_id,
            "workflow_name": facts.name(workflow_id),
            "organization_id": organization_id,
            "node_id": node_id,
            "model": name,
            "provider": price and price["provider"],
            "calls": calls,
            **usage,
            "service_tier": tier,
            "context_tier": length,
            "usage_kinds": kinds,
            "untotalled_calls": group.counts.get("untotalled_calls", 0),
            "reported_calls": group.counts.get("reported_calls", 0),
            "cost": amount,
            "currency": price["currency"] if price and amount is not None else None,
            "unpriced_calls": calls if amount is None else unmetered,
        }
    return made


def cost_differences(facts: Facts) -> dict[Any, Row]:
    """Return `cost_differences` by step that reports a cost."""
    made = {}
    runs = {run["id"]: run for run in facts.runs}
    for step in facts.steps:
        if step["reported_cost"] is None:
            continue
        time = started(step, runs[step["run_id"]])
        amount, price = step_cost(facts, step, time)
        dollars = amount if price and price["currency"] == "USD" else None
        made[step["id"]] = {
            "step_id": step["id"],
            "time": time,
            "workflow_name": facts.name(step["workflow_id"]),
            "model": model(step),
            "provider": price and price["provider"],
            "usage_kinds": kinds_of(step),
            "cost": amount,
            "currency": price["currency"] if price and amount is not None else None,
            "difference": None if dollars is None else dollars - step["reported_cost"],
            "ratio": dollars / step["reported_cost"]
            if dollars is not None and step["reported_cost"]
            else None,
            **_same(
                step,
                "workflow_id",
                "organization_id",
                "run_id",
                "node_id",
                "service_tier",
                "reported_cost",
            ),
        }
    return made


def failure_groups(facts: Facts, kinds: Mapping[str, tuple[str, str]]) -> dict[Any, Row]:
    """Return `failure_groups` by workflow, node, outcome and fingerprint.

    `kinds` are the fingerprint and pattern of each failed step.
    """
    groups: dict[Any, list[Row]] = defaultdict(list)
    runs = {run["id"]: run for run in facts.runs}
    for step in facts.steps:
        if outcome(step) in ("failed", "soft_failed"):
            groups[
                step["workflow_id"], step["node_id"], outcome(step), kinds[step["id"]][0]
            ].append(step)
    made = {}
    for key, steps in groups.items():
        steps.sort(key=lambda step: (started(step, runs[step["run_id"]]), step["id"]))
        made[key] = {
            **dict(zip(("workflow_id", "node_id", "outcome", "fingerprint"), key, strict=True)),
            "workflow_name": facts.name(key[0]),
            "pattern": kinds[steps[0]["id"]][1],
            "example": (message(steps[-1]) or "")[:500],
            "first_time": started(steps[0], runs[steps[0]["run_id"]]),
            "last_time": started(steps[-1], runs[steps[-1]["run_id"]]),
            "steps": len(steps),
            "runs": len({step["run_id"] for step in steps}),
        }
    return made


def failures(facts: Facts, kinds: Mapping[str, tuple[str, str]]) -> dict[Any, Row]:
    """Return `failures` by step; `kinds` as for `failure_groups`."""
    runs = {run["id"]: run for run in facts.runs}
    return {
        step["id"]: {
            "time": started(step, runs[step["run_id"]]),
            "workflow_name": facts.name(step["workflow_id"]),
            "step_id": step["id"],
            "outcome": outcome(step),
            "fingerprint": kinds[step["id"]][0],
            "pattern": kinds[step["id"]][1],
            "message": (message(step) or "")[:500],
            **_same(step, "workflow_id", "organization_id", "run_id", "node_id"),
        }
        for step in facts.steps
        if outcome(step) in ("failed", "soft_failed")
    }


def open_runs(facts: Facts) -> dict[Any, Row]:
    """Return `open_runs` by run, with the exact percentile."""
    made = {}
    for run in facts.runs:
        if run["state"] not in ("pending", "running", "unknown") or run["tracking"] in (
            "final",
            "gone",
        ):
            continue
        steps = facts.of_run(run["id"])
        running = [step["node_id"] for step in steps if step["state"] == "running"]
        durations = sorted(
            one["duration_ms"]
            for one in facts.runs
            if one["workflow_id"] == run["workflow_id"]
            and one["duration_ms"] is not None
            and facts.run_outcome(one) == "succeeded"
        )
        usual = next(
            (one for rank, one in enumerate(durations, 1) if rank >= 0.95 * len(durations)), None
        )
        age = max((observed(run) - started(run)).total_seconds() * 1000, 0)
        made[run["id"]] = {
            "run_id": run["id"],
            "workflow_name": facts.name(run["workflow_id"]),
            "age_ms": age,
            "usual_p95_ms": usual,
            "overdue": usual is not None and age > usual,
            "steps": len(steps),
            "finished_steps": sum(
                step["state"] in ("succeeded", "failed", "cancelled", "skipped") for step in steps
            ),
            "running_node": running[0] if running else None,
            "observed_at": observed(run),
            **_same(
                run, "workflow_id", "organization_id", "user_id", "state", "tracking", "start_time"
            ),
        }
    return made


def outcome(step: Row) -> str:
    """Return how a step ended."""
    return outcome_of(step)


def added(tokens: Iterable[int | None], calls: int | None = None) -> int | None:
    """Return the sum of the known values.

    Without any, it is 0 for 0 calls, otherwise None.
    """
    known = [one for one in tokens if one is not None]
    return sum(known) if known or calls == 0 else None


def model(step: Row) -> str | None:
    """Return the model that responded, or the requested one."""
    name: str | None = step["response_model"] or step["request_model"]
    return name


def started(row: Row, run: Row | None = None) -> datetime:
    """Return when a run started or was first seen; for a step of `run`, its start or the run's."""
    time: datetime = (
        row["start_time"] or (run and run["start_time"]) or (run or row)["first_seen_at"]
    )
    return time


def observed(run: Row) -> datetime:
    """Return when the run was last read."""
    reads: list[datetime] = [
        run[name] for name in ("run_observed_at", "steps_observed_at") if run[name]
    ]
    return max(reads, default=run["first_seen_at"])


def message(step: Row) -> str | None:
    """Return the text of a step's error."""
    return error_text(step["error"]) or step["reported_error"]


def _order(step: Row) -> tuple[object, ...]:
    start = step["start_time"]
    return (start is None, 0 if start is None else start, step["position"], step["id"])


def _same(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names}


def _histogram(durations: Mapping[tuple[bool, int], int]) -> Row:
    made: Row = {}
    for failures, prefix in ((False, ""), (True, "failed_")):
        buckets = sorted(bucket for of_failures, bucket in durations if of_failures is failures)
        made[f"{prefix}buckets"] = buckets
        made[f"{prefix}counts"] = [durations[failures, bucket] for bucket in buckets]
    return made

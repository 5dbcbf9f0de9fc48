"""Computes in plain Python what the views must show, from rows of `runs` and `steps` and what else the views read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from tests.rollup_oracle import Group, Rollups, error_text, is_call, is_unmetered, is_untotalled, outcome_of, tokens_of

Row = dict[str, Any]

_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "total_tokens")
_ENDED = ("succeeded", "soft_failed", "failed", "cancelled", "skipped")


class Facts(NamedTuple):
    """What the views are computed from."""

    runs: list[Row]
    steps: list[Row]
    """Without those that are absent."""
    workflows: dict[str, Row]
    versions: list[Row]
    """In the order in which they were observed."""
    prices: list[Row]

    def name(self, workflow_id: str) -> str:
        """The workflow's name, or its id."""
        return str(self.workflows[workflow_id]["name"] or workflow_id)

    def price(self, model: str | None, time: datetime) -> Row | None:
        """The model's price on the day of that time."""
        day = time.astimezone(UTC).date()
        for row in self.prices:
            if (
                row["model"] == model
                and row["valid_from"] <= day
                and (not row["valid_until"] or day < row["valid_until"])
            ):
                return row
        return None

    def version(self, workflow_id: str, time: datetime) -> str | None:
        """The workflow's version that began last by that time."""
        found = None
        seen_until = datetime.min.replace(tzinfo=UTC)
        for row in self.versions:
            if row["workflow_id"] == workflow_id:
                begun = row["observed_at"]
                if row["updated_at"] is not None and seen_until <= row["updated_at"] < begun:
                    begun = row["updated_at"]
                if begun <= time:
                    found = row["version"]
                seen_until = row["observed_at"]
        return found

    def run_outcome(self, run: Row) -> str:
        """How a run ended."""
        soft = any(outcome_of(step) == "soft_failed" for step in self.of_run(run["id"]))
        return "soft_failed" if run["state"] == "succeeded" and soft else outcome_of(run)

    def of_run(self, run_id: str) -> list[Row]:
        """The run's steps in the order of their starts; those not started come last."""
        return sorted((step for step in self.steps if step["run_id"] == run_id), key=_order)


def cost(price: Row | None, tokens: Row) -> Decimal | None:
    """What these tokens cost."""
    if price is None:
        return None
    given, cached, made = (
        Decimal(tokens[name] or 0) for name in ("input_tokens", "cached_input_tokens", "output_tokens")
    )
    cached_price = price["cached_input_per_million"]
    if cached_price is None:
        cached_price = price["input_per_million"]
    cached = min(cached, given)
    per_million = (
        (given - cached) * price["input_per_million"] + cached * cached_price + made * price["output_per_million"]
    )
    return Decimal(per_million) / 1_000_000


def run_summary(facts: Facts) -> dict[Any, Row]:
    """By run."""
    made = {}
    for run in facts.runs:
        steps = facts.of_run(run["id"])
        outcomes = [outcome(step) for step in steps]
        calls = [step for step in steps if is_call(step)]
        paid = [
            (price["currency"], cost(price, tokens_of(step)) or 0)
            for step in calls
            if not is_unmetered(step) and (price := facts.price(model(step), started(step, run)))
        ]
        currencies = {currency for currency, _ in paid}
        failed = [step for step in steps if step["state"] == "failed"]
        failed += [step for step in steps if outcome(step) == "soft_failed"]
        error = message(failed[0]) if failed else None
        made[run["id"]] = {
            "run_id": run["id"],
            "workflow_name": facts.name(run["workflow_id"]),
            "labels": facts.workflows[run["workflow_id"]]["labels"],
            "workflow_version": facts.version(run["workflow_id"], started(run)),
            "outcome": "soft_failed" if run["state"] == "succeeded" and "soft_failed" in outcomes else outcome_of(run),
            "steps": len(steps),
            **{f"{name}_steps": outcomes.count(name) for name in ("succeeded", "soft_failed", "failed")},
            "first_failed_node": failed[0]["node_id"] if failed else None,
            "first_error": (error or error_text(run["error"]) or "")[:500] or None,
            "calls": len(calls),
            **{name: added([tokens_of(step)[name] for step in steps], len(calls)) for name in _TOKENS},
            "untotalled_calls": sum(is_untotalled(step) for step in steps),
            "cost": sum(amount for _, amount in paid) if len(currencies) == 1 else None,
            "currency": currencies.pop() if len(currencies) == 1 else None,
            "unpriced_calls": len(calls) - (len(paid) if len({one for one, _ in paid}) == 1 else 0),
            **_same(run, "workflow_id", "organization_id", "user_id", "state", "tracking", "start_time", "end_time"),
            **_same(run, "duration_ms", "first_seen_at", "updated_at"),
        }
    return made


def step_timeline(facts: Facts) -> dict[Any, Row]:
    """By step."""
    made = {}
    for run in facts.runs:
        steps = facts.of_run(run["id"])
        begun = min(time for time in (run["start_time"], *(step["start_time"] for step in steps)) if time)
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
                ends = [one["end_time"] for one in steps if one is not step and one["end_time"] is not None]
                wait = start - max((end for end in ends if end <= start), default=begun)
            price = facts.price(model(step), started(step, run))
            if not is_call(step) or is_unmetered(step):
                price = None
            made[step["id"]] = {
                "step_id": step["id"],
                "workflow_name": facts.name(run["workflow_id"]),
                "model": model(step),
                "outcome": outcome(step),
                "offset_ms": None if start is None else (start - begun).total_seconds() * 1000,
                "wait_ms": None if wait is None else wait.total_seconds() * 1000,
                "lane": None if lane is None else lane + 1,
                "execution": None if step["state"] == "skipped" else executions[step["node_id"]].index(step["id"]) + 1,
                "executions": len(executions[step["node_id"]]),
                "error": message(step),
                "calls": int(is_call(step)),
                "cost": cost(price, tokens_of(step)),
                "currency": price and price["currency"],
                **_same(
                    step, "run_id", "workflow_id", "position", "node_id", "node_type", "state", "start_time", "end_time"
                ),
                **{name: tokens_of(step)[name] for name in ("input_tokens", "output_tokens", "total_tokens")},
                **_same(step, "duration_ms"),
            }
    return made


def workflow_hourly(facts: Facts, rollups: Rollups) -> dict[Any, Row]:
    """By workflow, hour and organisation."""
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
    """By workflow, hour or day, organisation, node, its type and model."""
    states = (*_ENDED, "unfinished")
    return {
        key: {
            **dict(zip(("workflow_id", when, "organization_id", "node_id", "node_type", "model"), key, strict=True)),
            "workflow_name": facts.name(key[0]),
            "steps": sum(group.counts.get(name, 0) for name in states),
            **{name: group.counts.get(name, 0) for name in (*states, "calls", "untotalled_calls")},
            "total_tokens": _tokens(group, "total_tokens"),
            **_histogram(group.durations),
        }
        for key, group in (rollups.hours if when == "hour" else rollups.days).items()
    }


def model_usage(facts: Facts, rollups: Rollups) -> dict[Any, Row]:
    """By hour, workflow, organisation, node and model."""
    made = {}
    for (workflow_id, hour, organization_id, node_id, _, name), group in rollups.hours.items():
        if not group.counts.get("calls"):
            continue
        unmetered = group.counts.get("unmetered_calls", 0)
        calls = group.counts["calls"]
        tokens = {one: _tokens(group, one) for one in _TOKENS}
        price = facts.price(name, hour) if unmetered < calls else None
        made[hour, workflow_id, organization_id, node_id, name] = {
            "hour": hour,
            "workflow_id": workflow_id,
            "workflow_name": facts.name(workflow_id),
            "organization_id": organization_id,
            "node_id": node_id,
            "model": name,
            "provider": price and price["provider"],
            "calls": calls,
            **tokens,
            "untotalled_calls": group.counts.get("untotalled_calls", 0),
            "cost": cost(price, tokens),
            "currency": price and price["currency"],
            "unpriced_calls": unmetered if price else calls,
        }
    return made


def failure_groups(facts: Facts, kinds: Mapping[str, tuple[str, str]]) -> dict[Any, Row]:
    """By workflow, node, outcome and fingerprint; `kinds` are fingerprint and pattern of each failed step."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    runs = {run["id"]: run for run in facts.runs}
    for step in facts.steps:
        if outcome(step) in ("failed", "soft_failed"):
            groups[step["workflow_id"], step["node_id"], outcome(step), kinds[step["id"]][0]].append(step)
    made = {}
    for key, steps in groups.items():
        steps.sort(key=lambda step: (started(step, runs[step["run_id"]]), step["id"]))
        made[key] = {
            **dict(zip(("workflow_id", "node_id", "outcome", "fingerprint"), key, strict=True)),
            "workflow_name": facts.name(key[0]),
            "pattern": kinds[steps[0]["id"]][1],
            "example": (message(steps[-1]) or "")[:500],
            "first_seen": started(steps[0], runs[steps[0]["run_id"]]),
            "last_seen": started(steps[-1], runs[steps[-1]["run_id"]]),
            "steps": len(steps),
            "runs": len({step["run_id"] for step in steps}),
        }
    return made


def failures(facts: Facts, kinds: Mapping[str, tuple[str, str]]) -> dict[Any, Row]:
    """By step; `kinds` as for failure_groups."""
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


def open_runs(facts: Facts, at: datetime) -> dict[Any, Row]:
    """By run, as of `at`, with the exact percentile."""
    made = {}
    for run in facts.runs:
        if run["state"] not in ("pending", "running", "unknown") or run["tracking"] in ("final", "gone"):
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
        usual = next((one for place, one in enumerate(durations, 1) if place >= 0.95 * len(durations)), None)
        age = (at - started(run)).total_seconds() * 1000
        made[run["id"]] = {
            "run_id": run["id"],
            "workflow_name": facts.name(run["workflow_id"]),
            "age_ms": age,
            "usual_p95_ms": usual,
            "overdue": usual is not None and age > usual,
            "steps": len(steps),
            "finished_steps": sum(step["state"] in ("succeeded", "failed", "cancelled", "skipped") for step in steps),
            "running_node": running[0] if running else None,
            **_same(run, "workflow_id", "organization_id", "user_id", "state", "tracking", "start_time"),
        }
    return made


def outcome(step: Row) -> str:
    """How a step ended."""
    return outcome_of(step)


def added(tokens: Iterable[int | None], calls: int) -> int | None:
    """The sum of what is known; without any of it 0 where there is no call, else nobody knows."""
    known = [one for one in tokens if one is not None]
    return sum(known) if known or not calls else None


def model(step: Row) -> str | None:
    """The model that answered, else the one asked for."""
    name: str | None = step["response_model"] or step["request_model"]
    return name


def started(row: Row, run: Row | None = None) -> datetime:
    """When a run started, or was first seen; when a step of `run` did, or else its run."""
    time: datetime = row["start_time"] or (run and run["start_time"]) or (run or row)["first_seen_at"]
    return time


def message(step: Row) -> str | None:
    """What a step's error says."""
    return error_text(step["error"]) or step["reported_error"]


def _order(step: Row) -> tuple[object, ...]:
    start = step["start_time"]
    return (start is None, 0 if start is None else start, step["position"], step["id"])


def _same(row: Row, *names: str) -> Row:
    return {name: row[name] for name in names}


def _tokens(group: Group, name: str) -> int | None:
    return group.counts.get(name, None if group.counts.get("calls") else 0)


def _histogram(durations: Mapping[tuple[bool, int], int]) -> Row:
    made: Row = {}
    for failures, prefix in ((False, ""), (True, "failed_")):
        buckets = sorted(bucket for of_failures, bucket in durations if of_failures is failures)
        made[f"{prefix}buckets"] = buckets
        made[f"{prefix}counts"] = [durations[failures, bucket] for bucket in buckets]
    return made

"""Counts of runs and steps in plain Python, as the rollups must have them in SQL.

Rows are dicts with the columns of `runs` and `steps`, from the database or from the simulator's own
data.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from etl.simulator.history import History
from etl.usage import BITS, CONTEXT_TIERS, KINDS
from tests import oracle
from tests.support import query

Row = Mapping[str, Any]
Key = tuple[Any, ...]

USAGE = (*BITS, "total_tokens", "reported_cost")
"""The sums over calls; missing if not known."""
NODE = ("organization_id", "node_id", "node_type", "model")
_CALLS = (*NODE, "service_tier", "context_tier", "usage_kinds")
_ENDED = ("succeeded", "soft_failed", "failed", "cancelled", "skipped")
_STEP_COUNTS = (
    *_ENDED,
    "unfinished",
    "calls",
    "unmetered_calls",
    "untotalled_calls",
    "reported_calls",
    *USAGE,
)
RESPONSES = ("responses", "cut_off_responses")
"""The counts of responses, in hours only; missing without calls, or if not counted."""
_CUT_OFF = ("length", "max_tokens", "MAX_TOKENS", "max_output_tokens")
"""The spellings that the tests' data has."""
_RUN_COUNTS = ("runs", *_ENDED, "unfinished")
_FAILURE = ("run_id", "workflow_id", "node_id", "organization_id", "time", "outcome", "message")


class CountedGroup(NamedTuple):
    """The counts of a rollup's row."""

    counts: Mapping[str, int]
    """Counts other than 0, and known usage, which may be 0."""
    durations: Mapping[tuple[bool, int], int]
    """The number of durations in each bucket, of failures (True) and of successes."""


class Rollups(NamedTuple):
    """The rollups' content, by the keys of their rows."""

    hours: dict[Key, CountedGroup]
    days: dict[Key, CountedGroup]
    runs: dict[Key, CountedGroup]
    failures: dict[str, Key]


def bucket(milliseconds: float | None) -> int | None:
    """Return the bucket of a duration: each is 4 % wider than the one before, from 1 ms on."""
    if milliseconds is None or milliseconds < 0:
        return None
    return 0 if milliseconds < 1 else math.floor(math.log(milliseconds) / math.log(1.04)) + 1


def counted(runs: Iterable[Row], steps: Iterable[Row]) -> Rollups:
    """Return the rollups of these rows."""
    groups: dict[str, dict[Key, tuple[Counter[str], Counter[tuple[bool, int]]]]] = {
        name: defaultdict(lambda: (Counter(), Counter())) for name in ("hours", "days", "runs")
    }
    failures, soft = {}, set()
    runs = {run["id"]: run for run in runs}
    for step in steps:
        if step["absent_since"] is not None:
            continue
        outcome = outcome_of(step)
        if outcome == "soft_failed":
            soft.add(step["run_id"])
        usage = {name: count for name, count in usage_of(step).items() if count is not None}
        model = step["response_model"] or step["request_model"]
        calls = {
            "calls": int(is_call(step)),
            "unmetered_calls": int(is_unmetered(step)),
            "untotalled_calls": int(is_untotalled(step)),
            "reported_calls": int(step["reported_cost"] is not None),
        }
        run = runs[step["run_id"]]
        time = step["start_time"] or run["start_time"] or run["first_seen_at"]
        workflow_id = (step if step["start_time"] else run)["workflow_id"]
        priced = (
            (step["service_tier"], context_tier(step), kinds_of(step))
            if is_call(step)
            else (None, None, None)
        )
        for when, table in ((_hour(time), "hours"), (_hour(time).date(), "days")):
            key = (
                workflow_id,
                when,
                step["organization_id"],
                step["node_id"],
                step["node_type"],
                model,
                *priced,
            )
            more = responses_of(step) if table == "hours" else {}
            _add(groups[table][key], outcome, {**calls, **usage, **more}, step["duration_ms"])
        if outcome in ("failed", "soft_failed"):
            names = (step["run_id"], workflow_id, step["node_id"], step["organization_id"])
            failures[step["id"]] = (*names, time, outcome, _message(step)[:500])
    for run in runs.values():
        outcome = (
            "soft_failed" if run["state"] == "succeeded" and run["id"] in soft else outcome_of(run)
        )
        group = (
            run["workflow_id"],
            _hour(run["start_time"] or run["first_seen_at"]),
            run["organization_id"],
        )
        _add(groups["runs"][group], outcome, {"runs": 1}, run["duration_ms"])
    made = {
        name: {
            key: CountedGroup(_without_zeros(counts), dict(durations))
            for key, (counts, durations) in of.items()
        }
        for name, of in groups.items()
    }
    return Rollups(made["hours"], made["days"], made["runs"], failures)


def outcome_of(row: Row) -> str:
    """Return how a step, or a run by itself, ended."""
    carries = error_text(row["error"]) is not None or row.get("reported_error") is not None
    return "soft_failed" if row["state"] == "succeeded" and carries else str(row["state"])


def usage_of(step: Row) -> dict[str, Any]:
    """Return the known usage of a step by kind, with `total_tokens` and `reported_cost`."""
    usage: dict[str, Any] = {
        name: count if _plausible(count := step[name]) else None for name in (*BITS, "total_tokens")
    }
    for part, whole in (
        ("cached_input_tokens", "input_tokens"),
        ("reasoning_tokens", "output_tokens"),
    ):
        if usage[part] is not None:
            usage[part] = None if usage[whole] is None else min(usage[part], usage[whole])
    read, written = usage["input_tokens"], usage["output_tokens"]
    if usage["total_tokens"] is None and read is not None and written is not None:
        usage["total_tokens"] = read + written
    return {**usage, "reported_cost": step["reported_cost"]}


def charged(usage: Row) -> dict[str, int]:
    """Return the charged quantity of each kind.

    The innermost parts come first, and each is subtracted from all that contain it.
    """
    left = {name: usage[name] or 0 for name in BITS}
    for kind in sorted(KINDS, key=lambda kind: -len(kind.part_of)):
        for whole in kind.part_of:
            left[whole] -= left[kind.name]
    return {name: count for name, count in left.items() if count > 0}


def kinds_of(step: Row) -> int:
    """Return the bits of the charged kinds."""
    return sum(BITS[name] for name in charged(usage_of(step)))


def context_tier(step: Row) -> int | None:
    """Return the last length at which prices change that the input exceeds."""
    read = usage_of(step)["input_tokens"]
    return None if read is None else max((tier for tier in CONTEXT_TIERS if read > tier), default=0)


def is_call(step: Row) -> bool:
    """Return whether the step called a model.

    It did if it has usage or a finish reason, or if it reached a node with a model.
    """
    if _has_usage(step) or step["finish_reason"] is not None:
        return True
    named = bool(step["response_model"] or step["request_model"])
    return (
        named
        and step["node_type"] not in ("code", "integration")
        and step["state"] not in ("pending", "skipped")
    )


def responses_of(step: Row) -> dict[str, int]:
    """Return the counts of a step that says why its model stopped."""
    reason = step["finish_reason"]
    return dict(zip(RESPONSES, (int(reason is not None), int(is_cut_off(reason))), strict=True))


def is_cut_off(reason: str | None) -> bool:
    """Return whether a model stopped because it ran out of tokens."""
    return reason in _CUT_OFF


def is_unmetered(step: Row) -> bool:
    """Return whether the step called a model with unknown usage.

    A failure without usage counts as free.
    """
    usage = usage_of(step)
    return all(usage[name] is None for name in BITS) and _should_have_usage(step)


def is_untotalled(step: Row) -> bool:
    """Return whether the step called a model charged by tokens with an unknown total of tokens."""
    usage = usage_of(step)
    elsewise = any(
        usage[name] is not None for name in ("audio_ms", "document_pages", "search_units")
    )
    if elsewise and usage["input_tokens"] is None and usage["output_tokens"] is None:
        return False
    return usage["total_tokens"] is None and _should_have_usage(step)


def _plausible(count: int | None) -> bool:
    return count is not None and 0 <= count <= 10**12


def _has_usage(step: Row) -> bool:
    return any(step[name] is not None for name in USAGE)


def _should_have_usage(step: Row) -> bool:
    return is_call(step) and (_has_usage(step) or outcome_of(step) == "succeeded")


def counted_rows(url: str) -> Rollups:
    """Return the rollups of the stored runs and steps."""
    return counted(
        query(url, "SELECT * FROM orchestra.runs"), query(url, "SELECT * FROM orchestra.steps")
    )


def counted_history(history: History, url: str) -> Rollups:
    """Return the rollups of the history.

    Only the time and the user of a row's first storage come from the database.
    """
    runs, steps = rows_of_history(history, url)
    return counted(runs.values(), steps.values())


def rows_of_history(
    history: History, url: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the runs and steps of the history by id, with every counted column."""
    runs, steps = oracle.expected(history)
    types = {
        (workflow["workflow_id"], node["id"]): node["type"]
        for workflow in history.workflows()
        for node in workflow["graph"]["nodes"]
    }
    seen = {
        row["id"]: row
        for row in query(url, "SELECT id, organization_id, first_seen_at FROM orchestra.runs")
    }
    steps_seen = {row["id"]: row for row in query(url, "SELECT * FROM orchestra.steps")}
    for step in steps.values():
        inputs, outputs = (
            step[name] if isinstance(step[name], dict) else {} for name in ("inputs", "outputs")
        )
        stored_step = steps_seen[step["id"]]
        step.update(
            node_type=types[step["workflow_id"], step["node_id"]],
            request_model=inputs.get("model"),
            reported_error=_reported_error(outputs.get("result")),
            first_seen_at=stored_step["first_seen_at"],
        )
    for run in runs.values():
        ended = run["start_time"] is not None and run["end_time"] is not None
        run["duration_ms"] = (
            (run["end_time"] - run["start_time"]).total_seconds() * 1000 if ended else None
        )
        run.update(seen[run["id"]])
    return runs, steps


def stored(url: str) -> Rollups:
    """Return the stored rollups.

    Their rows must be numbered within a group, and their buckets must rise.
    """
    hours = _rows(url, "step_rollup", ("workflow_id", "hour", *_CALLS), (*_STEP_COUNTS, *RESPONSES))
    days = _rows(url, "step_rollup_daily", ("workflow_id", "day", *_CALLS), _STEP_COUNTS)
    runs = _rows(url, "run_rollup", ("workflow_id", "hour", "organization_id"), _RUN_COUNTS)
    rows = query(url, "SELECT * FROM orchestra.step_failures")
    return Rollups(
        hours, days, runs, {row["step_id"]: tuple(row[name] for name in _FAILURE) for row in rows}
    )


def _rows(
    url: str, table: str, key: Sequence[str], counts: Sequence[str]
) -> dict[Key, CountedGroup]:
    """Add the counts of pruned runs, in rows with a negative ordinal, to those of stored runs."""
    found: dict[Key, CountedGroup] = {}
    ordinals, seen = defaultdict(list), set()
    for row in query(url, f"SELECT * FROM orchestra.{table}"):
        durations: Counter[tuple[bool, int]] = Counter()
        for failures, prefix in ((False, ""), (True, "failed_")):
            buckets = row[f"{prefix}buckets"]
            assert buckets == sorted(set(buckets))
            durations.update(
                {(failures, one): n for one, n in zip(buckets, row[f"{prefix}counts"], strict=True)}
            )
        names, sign = tuple(row[name] for name in key), 1 if row["ordinal"] > 0 else -1
        assert (names, sign) not in seen, f"{table} has two rows of {names}"
        seen.add((names, sign))
        known = Counter({name: row[name] for name in counts if row[name] is not None})
        other = found.get(names, CountedGroup({}, {}))
        known.update(other.counts)
        durations.update(other.durations)
        found[names] = CountedGroup(_without_zeros(known), dict(durations))
        ordinals[names[:2], sign].append(sign * row["ordinal"])
    assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in ordinals.values())
    return found


def _without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts without zeros; some usage is 0 even without a call."""
    known = (*USAGE, *RESPONSES)
    return {name: n for name, n in counts.items() if n or (name in known and counts.get("calls"))}


def error_text(error: Any) -> str | None:
    """Return the text of an API error from the first member that has one, or None."""
    if _says_nothing(error):
        return None
    if isinstance(error, dict):
        inner: Any = error.get("error") if isinstance(error.get("error"), dict) else {}
        texts = (
            error.get("message"),
            inner.get("message"),
            error.get("detail"),
            inner.get("detail"),
            error.get("error"),
        )
        return next((one for one in texts if isinstance(one, str) and one), None) or (
            json.dumps(error)
        )
    return error if isinstance(error, str) else json.dumps(error)


def _says_nothing(error: Any) -> bool:
    if isinstance(error, dict | list):
        return all(map(_says_nothing, error.values() if isinstance(error, dict) else error))
    return not error or error in ("None", "null")


def _hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _add(
    group: tuple[Counter[str], Counter[tuple[bool, int]]],
    outcome: str,
    counts: Mapping[str, int],
    milliseconds: float | None,
) -> None:
    group[0].update({outcome if outcome in _ENDED else "unfinished": 1, **counts})
    number = bucket(milliseconds)
    if number is not None and outcome in ("succeeded", "soft_failed", "failed"):
        group[1][outcome != "succeeded", number] += 1


def _reported_error(result: Any) -> str | None:
    if not isinstance(result, dict):
        return None
    if result.get("error"):
        return str(result["error"])
    return "reported successful: false" if result.get("successful") is False else None


def _message(step: Row) -> str:
    return str(error_text(step["error"]) or step["reported_error"] or "")

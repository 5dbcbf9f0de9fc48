"""Compares every field in the database with the simulator's own data.

It does not use the project's own transform, so that an error in it cannot hide here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from etl.simulator.history import History
from etl.simulator.model_calls import Expected
from etl.usage import BITS, Usage
from tests.support import query

STATES = {"completed": "succeeded", "failed": "failed", "cancelled": "cancelled",
          "running": "running",
          "pending": "pending", "skipped": "skipped"}  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _expected_run(row: dict[str, Any], workflow_id: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "workflow_id": workflow_id,
        "status": row["status"],
        "state": STATES[row["status"]],
        "status_source": "api",
        "start_time": _time(row["start_time"]),
        "end_time": _time(row["end_time"]),
        "error": row["error"],
        "inputs": row["inputs"],
        "outputs": row["outputs"],
    }


def _expected_step(
    step: dict[str, Any], position: int, run_id: str, workflow_id: str, expected: Expected | None
) -> dict[str, Any]:
    start, end = _time(step["start_time"]), _time(step["end_time"])
    return {
        "id": step["id"],
        "run_id": run_id,
        "workflow_id": workflow_id,
        "position": position,
        "node_id": step["node_id"],
        "user_id": step["user_id"],
        "organization_id": step["organization_id"],
        "status": step["status"],
        "state": STATES[step["status"]],
        "start_time": start,
        "end_time": end,
        "duration_ms": None
        if start is None or end is None
        else round((end - start).total_seconds() * 1000, 3),
        "api_elapsed_seconds": step["elapsed_time"],
        "api_tokens": step["tokens"],
        **_call(expected or _chat_completion(step["outputs"])),
        "error": step["error"],
        "step_metadata": step["step_metadata"],
        "absent_since": None,
        "inputs": step["inputs"],
        "outputs": step["outputs"],
    }


def _call(expected: Expected) -> dict[str, Any]:
    """Return the columns of a model call: each quantity, and the kinds that are charged."""
    usage = {name: getattr(expected.usage, name) for name in Usage.__struct_fields__}
    return {
        **usage,
        "response_model": expected.model,
        "finish_reason": expected.finish_reason,
        "usage_kinds": sum(
            BITS[name] for name, quantity in leaves(expected.usage).items() if quantity
        ),
    }


def leaves(usage: Usage) -> dict[str, int]:
    """Return the quantity charged at the price of each kind, computed by hand."""
    known = {name: getattr(usage, name) or 0 for name in BITS}
    heard, seen = (known[f"cached_{medium}_tokens"] for medium in ("audio", "image"))
    written = sum(known[f"output_{medium}_tokens"] for medium in ("audio", "image", "video"))
    return known | {
        "input_tokens": known["input_tokens"]
        - known["cached_input_tokens"] - known["cache_write_tokens"]
        - known["input_audio_tokens"] - known["input_image_tokens"] - known["input_video_tokens"]
        + heard + seen,
        "cached_input_tokens": known["cached_input_tokens"] - heard - seen,
        "cache_write_tokens": known["cache_write_tokens"] - known["cache_write_1h_tokens"],
        "input_audio_tokens": known["input_audio_tokens"] - heard,
        "input_image_tokens": known["input_image_tokens"] - seen,
        "output_tokens": known["output_tokens"]
        - known["reasoning_tokens"] - known["citation_tokens"] - written,
    }  # fmt: skip


def _chat_completion(outputs: Any) -> Expected:
    """Return the usage of outputs that a test has put in place of the simulator's.

    They are chat completions, or have no usage.
    """
    response = outputs if isinstance(outputs, dict) else {}
    usage, choices = response.get("usage") or {}, response.get("choices") or [{}]
    used = Usage(
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        total_tokens=usage.get("total_tokens"),
    )
    return Expected(used, response.get("model"), choices[0].get("finish_reason"))


def expected(history: History) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the runs and steps of the current history by id, with their payloads.

    They have the columns of their tables.
    """
    runs, steps = {}, {}
    for workflow_id in history.workflow_ids:
        for row in history.runs(workflow_id):
            runs[row["id"]] = _expected_run(row, workflow_id)
            calls = history.expected(row["id"])
            for position, step in enumerate(history.steps(row["id"])):
                steps[step["id"]] = _expected_step(
                    step, position, row["id"], workflow_id, calls.get(step["id"])
                )
    return runs, steps


def differences(url: str, history: History) -> list[str]:
    """Return the differences between the database and the current history."""
    runs, steps = expected(history)
    found_runs = query(
        url,
        (
            "SELECT r.*, p.inputs, p.outputs FROM orchestra.runs r"
            " LEFT JOIN orchestra.run_payloads p ON p.run_id = r.id"
        ),
    )
    found_steps = query(
        url,
        "SELECT s.*, i.data AS inputs, o.data AS outputs FROM orchestra.steps s"
        " LEFT JOIN orchestra.inputs i ON i.step_id = s.id LEFT JOIN orchestra.outputs o"
        " ON o.step_id = s.id",
    )
    return [*_compare("run", runs, found_runs), *_compare("step", steps, found_steps)]


def _compare(
    kind: str, expected: dict[str, dict[str, Any]], found: list[dict[str, Any]]
) -> list[str]:
    by_id = {row["id"]: row for row in found}
    problems = [f"{kind} {one} is missing" for one in expected.keys() - by_id.keys()]
    problems += [f"{kind} {one} is not in the history" for one in by_id.keys() - expected.keys()]
    for one in expected.keys() & by_id.keys():
        for field, value in expected[one].items():
            stored = by_id[one][field]
            if field == "duration_ms" and stored is not None:
                stored = round(stored, 3)
            if stored != value:
                problems.append(f"{kind} {one}: {field} is {stored!r:.200}, not {value!r:.200}")
    return problems

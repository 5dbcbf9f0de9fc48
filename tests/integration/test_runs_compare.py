"""`runs compare` shows two runs side by side, and where their inputs and outputs first differ."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from rich.cells import cell_len

from tests.command_line import TRIAGE, WEATHER, Command
from tests.integration.test_costs import price
from tests.support import query

A, B = "5b69669f-975a-49af-a33a-61ff9ae5a20f", "7c9e6679-7425-40de-944b-e07fc1f90ae7"


def store_run(
    url: str, run: str, *, workflow: str = WEATHER, seconds: float = 4, **more: Any
) -> None:
    """Store a run; more columns are those of its payloads."""
    query(
        url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking)"
        " VALUES (%s, %s, 'list', 'final')",
        run, workflow,
    )  # fmt: skip
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time,"
        " end_time) VALUES (%s, %s, %s, 'api', 'final', '2026-11-23 20:00Z',"
        " timestamptz '2026-11-23 20:00Z' + make_interval(secs => %s))",
        run, workflow, more.pop("state", "succeeded"), seconds,
    )  # fmt: skip
    if more:
        names = ", ".join(more)
        query(
            url,
            f"INSERT INTO orchestra.run_payloads (run_id, {names})"
            f" VALUES (%s, {', '.join(['%s'] * len(more))})",
            run, *more.values(),
        )  # fmt: skip


def store_step(
    url: str,
    run: str,
    node: str | None,
    *,
    at: float = 0,
    inputs: str | None = None,
    outputs: str | None = None,
    **columns: Any,
) -> str:
    """Store a step that takes a second; return its id."""
    step = f"{run}-{node}-{at}"
    columns = {"state": "succeeded", **columns}
    query(
        url,
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, position, content_hash,"
        f" start_time, end_time, {', '.join(columns)})"
        " SELECT %s, r.id, r.workflow_id, %s, 0, 'h', r.start_time + make_interval(secs => %s),"
        f" r.start_time + make_interval(secs => %s), {', '.join(['%s'] * len(columns))}"
        " FROM orchestra.runs AS r WHERE r.id = %s",
        step, node, at, at + 1, *columns.values(), run,
    )  # fmt: skip
    for table, data in (("inputs", inputs), ("outputs", outputs)):
        if data is not None:
            query(
                url,
                f"INSERT INTO orchestra.{table} (step_id, data, size_bytes) VALUES (%s, %s, %s)",
                step, data, len(data),
            )  # fmt: skip
    return step


def _call(prompt: str, answer: str, number: int) -> dict[str, Any]:
    """Return the payloads and columns of a call of a model, with ids and times of its own."""
    return {
        "inputs": json.dumps(
            {
                "model": "m",
                "run_id": (A, B)[number],
                "messages": [{"role": "user", "content": prompt}],
            }
        ),
        "outputs": json.dumps(
            {
                "id": f"chatcmpl-{number}",
                "created": 1741833676 + number,
                "choices": [{"message": {"content": answer}}],
            }
        ),
        "response_model": "m",
        "input_tokens": 30 + number,
        "output_tokens": 40,
        "total_tokens": 70 + number,
    }


def test_a_good_run_beside_a_bad_one(command: Command, database_url: str) -> None:
    """Steps are shown side by side, with the first difference of their payloads.

    Ids and times of the calls, which always differ, do not hide the different answer.
    """
    store_run(database_url, A, seconds=4, inputs='{"topic": "rain"}', outputs='{"joke": 1}')
    store_run(database_url, B, seconds=3.5, inputs='{"topic": "rain"}', outputs='{"joke": 2}')
    store_step(database_url, A, "model", **_call("A joke", "Wet", 0))
    store_step(database_url, B, "model", **_call("A joke", "Dry\x1b[2J🙂\u202e", 1))
    store_step(database_url, A, "slack", at=2)
    store_step(database_url, B, "retry", at=1.5, state="failed", error='"no \\u001b[31m way"')
    store_step(database_url, B, "slack", at=2)
    printed = command("runs", "compare", A[:8], B[:8])
    assert printed.status == 0
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    words = _words(printed.out)
    assert "first the outputs of step model differ at $.choices[0].message.content" in words
    assert "duration 4.000 s 3.500 s -0.500 s" in words
    assert "tokens 70 (30 in, 40 out) 71 (31 in, 40 out) +1" in words
    assert "outputs different, first at $.joke A 1 B 2" in words
    assert "inputs equal except for ids and times, first at $.run_id" in words
    assert r'content A "Wet" B "Dry\u001b[2J🙂\u202e"' in words
    assert r"retry only in B outcome failed duration 1.000 s error B no \x1b[31m way" in words
    assert [line for line in lines if line in ("model", "slack")] == ["model", "slack"]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed.out)


def test_the_same_as_json(command: Command, database_url: str) -> None:
    """`--json` has both runs, every pair of steps, the changes and the first differences."""
    store_run(database_url, A)
    store_run(database_url, B)
    store_step(database_url, A, "model", **_call("A joke", "Wet", 0))
    store_step(database_url, B, "model", **_call("Two jokes", "Dry", 1))
    found = command("runs", "compare", A, B, "--json").json
    assert (found["a"]["id"], found["b"]["id"], found["notes"]) == (A, B, [])
    (node,) = found["nodes"]
    assert (node["node_id"], node["occurrence"]) == ("model", 1)
    assert node["changes"] == {"duration_ms": 0.0, "total_tokens": 1, "cost": None}
    assert node["inputs"]["result"] == "different"
    assert node["inputs"]["difference"] == {
        "path": "$.messages[0].content",
        "a": '"A joke"',
        "b": '"Two jokes"',
        "is_minor": False,
    }
    assert found["inputs"]["result"] == "none"
    same = command("runs", "compare", A, A, "--json").json
    assert [one["result"] for one in (same["nodes"][0]["inputs"], same["nodes"][0]["outputs"])] == [
        "equal",
        "equal",
    ]
    assert "first no difference found" in _words(command("runs", "compare", A, A).out)


def test_steps_are_matched_by_node_and_occurrence(command: Command, database_url: str) -> None:
    """The second execution of a node is compared with the second, in the order of their starts.

    A step of one run only is shown where it ran; steps that the API no longer returns are left out.
    """
    store_run(database_url, A)
    store_run(database_url, B, workflow=TRIAGE)
    for at, node in enumerate(("plan", "tool", None, "tool", "end")):
        store_step(database_url, A, node, at=at, inputs=f'{{"n": {at}}}')
    for at, node in enumerate(("tool", "plan", "tool", "tool", None, "extra")):
        store_step(database_url, B, node, at=at + 9, inputs=f'{{"n": {at}}}')
    gone = f"{A}-end-4"
    query(database_url, "UPDATE orchestra.steps SET absent_since = now() WHERE id = %s", gone)
    found = command("runs", "compare", A, B, "--json").json
    assert [
        (node["node_id"], node["occurrence"], *(node[run] and node[run]["id"] for run in "ab"))
        for node in found["nodes"]
    ] == [
        ("plan", 1, f"{A}-plan-0", f"{B}-plan-10"),
        ("tool", 1, f"{A}-tool-1", f"{B}-tool-9"),
        (None, 1, f"{A}-None-2", f"{B}-None-13"),
        ("extra", 1, None, f"{B}-extra-14"),
        ("tool", 2, f"{A}-tool-3", f"{B}-tool-11"),
        ("tool", 3, None, f"{B}-tool-12"),
    ]
    assert found["nodes"][4]["inputs"]["difference"]["path"] == "$.n"
    assert found["nodes"][5]["inputs"] is None
    assert "different workflows" in found["notes"][0]
    words = _words(command("runs", "compare", A, B).out)
    assert "tool (3) only in B" in words
    assert "note the runs belong to different workflows; nodes are matched by their ids" in words


def test_an_unknown_cost_is_not_zero(command: Command, database_url: str) -> None:
    """Costs are subtracted only if both are known and in one currency; so are tokens."""
    price(database_url, "m", input_per_million=1, output_per_million=1)
    price(database_url, "e", currency="EUR", input_per_million=2, output_per_million=2)
    store_run(database_url, A)
    store_run(database_url, B)
    used: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}
    calls: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
        (
            "both",
            {"response_model": "m", **used},
            {"response_model": "m", "input_tokens": 3000, "output_tokens": 0, "total_tokens": 3000},
        ),
        ("no-price", {"response_model": "m", **used}, {"response_model": "x", **used}),
        ("no-usage", {"response_model": "m"}, {"response_model": "m", **used}),
        ("currency", {"response_model": "m", **used}, {"response_model": "e", **used}),
        ("no-call", {}, {}),
    )
    for at, (node, a, b) in enumerate(calls):
        store_step(database_url, A, node, at=at, **a)
        store_step(database_url, B, node, at=at, **b)
    found = command("runs", "compare", A, B, "--json").json
    changes = {node["node_id"]: node["changes"] for node in found["nodes"]}
    assert {name: one["cost"] and float(one["cost"]) for name, one in changes.items()} == {
        "both": 0.0015,
        "no-price": None,
        "no-usage": None,
        "currency": None,
        "no-call": None,
    }
    assert {name: one["total_tokens"] for name, one in changes.items()} == {
        "both": 1500,
        "no-price": 0,
        "no-usage": None,
        "currency": 0,
        "no-call": None,
    }
    assert (found["changes"]["cost"], found["changes"]["total_tokens"]) == (None, None)
    assert "some costs are in different currencies" in found["notes"][0]
    printed = command("runs", "compare", A, B).out
    words = _words(printed)
    assert "cost 0.0015 USD 0.003 USD +0.0015" in words
    assert "cost 0.0015 USD unknown" in words
    assert "cost unknown 0.0015 USD" in words
    assert "cost 0.0015 USD 0.003 EUR" in words
    assert "without 1 call" in words
    assert max(map(len, printed.splitlines())) <= 80
    assert "tokens" not in printed[printed.index("no-call\n") :]


def test_a_sum_that_lacks_calls_is_not_subtracted(command: Command, database_url: str) -> None:
    """Sums of cost and tokens that lack a call say so, and their difference is unknown."""
    price(database_url, "m", input_per_million=1, output_per_million=1)
    used: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}
    for run in (A, B):
        store_run(database_url, run)
        store_step(database_url, run, "priced", response_model="m", **used)
    store_step(database_url, B, "silent", at=1, response_model="m")
    found = command("runs", "compare", A, B, "--json").json
    assert [float(found[run]["cost"]) for run in "ab"] == [0.0015, 0.0015]
    assert [found[run]["total_tokens"] for run in "ab"] == [1500, 1500]
    assert (found["changes"]["cost"], found["changes"]["total_tokens"]) == (None, None)
    words = _words(command("runs", "compare", A, B).out)
    assert "cost 0.0015 USD 0.0015 USD, without 1 call" in words


def test_payloads_that_cannot_be_compared_are_named(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruned payloads, bytes outside of jsonb, and values too large or too deep are named as such.

    Nothing is said to be equal that was not compared.
    """
    monkeypatch.setattr("etl.reports.comparison.LARGEST_SEARCHED", 100_000)
    deep = "[" * 3000 + "{}" + "]" * 3000
    inputs = {
        "large": ('{"x": "' + "a" * 100_000 + '"}', '{"x": "' + "a" * 100_000 + 'b"}'),
        "equal": ('{"x": "' + "a" * 200_000 + '"}',) * 2,
        "deep": (deep.format(1), deep.format(2)),
        "missing": ("1", None),
        "pruned": ("1", "1"),
        "bytes": ('"\ufffd"', '"\ufffd"'),
        "only-bytes": (None, None),
    }
    store_run(
        database_url, A, inputs='{"a": 1}', inputs_raw=b"x", note="inputs: jsonb cannot hold: x"
    )
    store_run(database_url, B, note="inputs: pruned; outputs: pruned")
    for at, (node, (a, b)) in enumerate(inputs.items()):
        for run, data in ((A, a), (B, b)):
            store_step(database_url, run, node, at=at, inputs=data)
    query(
        database_url,
        "UPDATE orchestra.inputs SET data = NULL, note = 'pruned' WHERE step_id = %s",
        f"{B}-pruned-4",
    )
    for run, byte in ((A, b"a"), (B, b"b")):
        query(
            database_url,
            "UPDATE orchestra.inputs SET raw = %s, note = 'jsonb cannot hold: NUL'"
            " WHERE step_id = %s",
            byte, f"{run}-bytes-5",
        )  # fmt: skip
        query(
            database_url,
            "INSERT INTO orchestra.inputs (step_id, raw, size_bytes, note)"
            " VALUES (%s, %s, 1, 'too large for jsonb')",
            f"{run}-only-bytes-6", byte,
        )  # fmt: skip
    query(database_url, "UPDATE orchestra.steps SET redaction_policy = 'v2' WHERE run_id = %s", B)
    found = command("runs", "compare", A, B, "--json").json
    assert {
        node["node_id"]: (node["inputs"]["result"], node["inputs"]["reason"])
        for node in found["nodes"]
    } == {
        "large": ("different", "too large to search"),
        "equal": ("equal", None),
        "deep": ("different", "nested too deeply to search"),
        "missing": ("different", "only A has any"),
        "pruned": ("not_comparable", "B: pruned"),
        "bytes": ("different", "they differ in bytes that jsonb cannot hold"),
        "only-bytes": ("different", "they differ in bytes that jsonb cannot hold"),
    }
    assert found["inputs"]["result"] == "not_comparable"
    assert (found["inputs"]["a_form"], found["inputs"]["b_form"]) == ("json", "removed")
    assert "different redaction rules" in found["notes"][0]
    words = _words(command("runs", "compare", A, B).out)
    assert "inputs not comparable: B: pruned" in words
    assert "note: jsonb cannot hold: NUL" in words


@pytest.mark.slow
def test_numbers_with_a_text_beyond_every_limit(command: Command, database_url: str) -> None:
    """A short payload whose text PostgreSQL cannot make blocks neither command nor other steps."""
    numbers = ", ".join(["1e131071"] * 9000)
    store_run(database_url, A)
    store_run(database_url, B)
    for run, number in ((A, 1), (B, 2)):
        store_step(database_url, run, "numbers", inputs=f"[{numbers}, {number}]")
        store_step(database_url, run, "other", at=1, inputs=f'{{"n": {number}}}', outputs="1")
    nodes = command("runs", "compare", A, B, "--json").json["nodes"]
    assert [(node["inputs"]["result"], node["outputs"]["result"]) for node in nodes] == [
        ("different", "none"),
        ("different", "equal"),
    ]
    assert "the text of a payload is too large" in nodes[1]["inputs"]["reason"]


def test_runs_that_cannot_be_compared(command: Command, database_url: str) -> None:
    """An unknown, an ambiguous or an unread run is an error of one line that says what to do."""
    store_run(database_url, A)
    store_run(database_url, "abcd-1")
    store_run(database_url, "abcd-2")
    query(
        database_url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source)"
        " VALUES ('unread', 'w', 'track')",
    )
    for other, words in (
        ("nobody", "orchestra-etl track"),
        ("abcd", "it can mean abcd-1, abcd-2"),
        ("unread", "nothing is stored for run 'unread': `orchestra-etl runs show` says why"),
    ):
        for arguments in ((A, other), (other, A)):
            printed = command("runs", "compare", *arguments)
            assert (printed.status, printed.out, printed.err.count("\n")) == (2, "", 1)
            assert words in printed.err


def test_hostile_names_on_a_narrow_terminal(
    command: Command, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and values that a terminal would obey are escaped, at any width.

    Only a word that is longer than a line, such as the path of a value, exceeds the width.
    """
    hostile = "\x1b]0;t\x07\u202e" + "节点🙂" * 40
    store_run(database_url, A)
    store_run(database_url, B)
    for run in (A, B):
        store_step(
            database_url, run, hostile, inputs=json.dumps({hostile: [run, hostile + run[:2]]}),
            response_model=hostile, finish_reason=hostile + run, error=json.dumps(hostile),
        )  # fmt: skip
    for width in ("20", "80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        printed = command("runs", "compare", A, B)
        assert printed.status == 0
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed.out)
        lines = [line for line in printed.out.splitlines() if len(line.split()) > 1]
        assert max(map(cell_len, lines)) <= max(int(width), len("first  ") + len(A))


@pytest.mark.slow
def test_a_run_of_many_steps(command: Command, database_url: str) -> None:
    """Two runs of 2,000 steps with payloads are compared with a few statements each."""
    store_run(database_url, A)
    store_run(database_url, B)
    query(
        database_url,
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, position, content_hash,"
        " state) SELECT r.id || n, r.id, r.workflow_id, 'n' || n, n, 'h', 'succeeded'"
        " FROM orchestra.runs AS r, generate_series(1, 2000) AS n",
    )
    query(
        database_url,
        "INSERT INTO orchestra.inputs (step_id, data, size_bytes)"
        " SELECT id, jsonb_build_object('n', position, 'same', repeat('x', 1000),"
        " 'run_id', run_id), 1000 FROM orchestra.steps",
    )
    found = command("runs", "compare", A, B, "--json").json
    assert len(found["nodes"]) == 2000
    assert {node["inputs"]["result"] for node in found["nodes"]} == {"ids_and_times"}


def _words(text: str) -> str:
    return " ".join(text.split())

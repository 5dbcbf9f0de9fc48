"""The prompts, answers, tools, media and settings that SQL reads from payloads."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from etl.transform.content_drift import has_known_answer, has_known_prompt
from etl.transform.content_shapes import CONTAINERS, MAX_DEPTH, REQUEST_CONTAINERS, SHAPES
from etl.transform.shape import PARTS, REQUEST, RESPONSE
from tests.examples import examples
from tests.provider_bodies import SAMPLES
from tests.provider_calls import CALLS, Call
from tests.provider_exchanges import EXCHANGES
from tests.provider_streams import STREAMS
from tests.support import query

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
READ: LiteralString = """
    SELECT orchestra.prompt_text(i.data) AS prompt, orchestra.system_text(i.data) AS system,
           orchestra.answer_text(o.data) AS answer, orchestra.called_tools(o.data) AS tools,
           orchestra.image_count(i.data) AS input_images,
           orchestra.image_count(o.data) AS output_images,
           orchestra.audio_count(i.data) AS input_audio,
           orchestra.audio_count(o.data) AS output_audio,
           orchestra.call_parameters(i.data) AS parameters
    FROM (SELECT CAST(%s AS jsonb) AS data) AS i, (SELECT CAST(%s AS jsonb) AS data) AS o
"""


def read(url: str, inputs: Any = None, outputs: Any = None) -> dict[str, Any]:
    """Return what the functions read from these payloads; None: no payload is stored."""
    payloads = (None if one is None else Jsonb(one) for one in (inputs, outputs))
    [found] = query(url, READ, *payloads)
    return found


def add(url: str, step_id: str, inputs: Any = None, outputs: Any = None, **more: Any) -> None:
    """Add a call of the model m to the run `run`; None: no payload is stored."""
    columns = {
        "id": step_id, "run_id": "run", "workflow_id": "w", "position": 0, "state": "succeeded",
        "start_time": NOON, "node_type": "model", "request_model": "m", "content_hash": b"", **more,
    }  # fmt: skip
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    query(url, f"INSERT INTO orchestra.steps ({names}) VALUES ({marks})", *columns.values())
    for table, data in ("inputs", inputs), ("outputs", outputs):
        if data is not None:
            query(
                url,
                f"INSERT INTO orchestra.{table} (step_id, data, size_bytes) VALUES (%s, %s, 1)",
                step_id,
                Jsonb(data),
            )


@pytest.fixture
def url(database_url: str) -> str:
    """Provide a database with a run."""
    query(
        database_url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES ('run', 'w', 'succeeded', 'api', 'final', %s)",
        NOON,
    )
    return database_url


def columns_of(call: Call) -> dict[str, Any]:
    """Return the columns of `model_calls` that follow from the payloads."""
    names = ("prompt", "system", "answer", "tools", "images", "audio", "parameters")
    return {name: getattr(call, name) for name in names}


def test_every_shape(url: str) -> None:
    """The view has the prompt, answer, tools, media and settings of each documented shape."""
    calls = (*CALLS, *EXCHANGES, *STREAMS)
    for number, call in enumerate(calls):
        add(url, f"{number:03}", call.inputs, call.outputs)
    found = query(
        url,
        "SELECT prompt, system, answer, tools, images, audio, parameters"
        " FROM orchestra.model_calls ORDER BY step_id",
    )
    names = [call.name for call in calls]
    assert dict(zip(names, found, strict=True)) == {call.name: columns_of(call) for call in calls}
    assert all(call.source.startswith(("https://", "the ")) for call in calls)


def test_the_answers_of_all_known_responses(url: str) -> None:
    """The answer is read from each response whose usage is read."""
    found = {one.name: read(url, outputs=one.body)["answer"] for one in SAMPLES}
    assert found == {one.name: one.answer for one in SAMPLES}


def test_every_place_has_a_meaning_and_a_source() -> None:
    """Every place cites a public page, and one of a body has the member that it starts with."""
    assert {one.part for one in SHAPES} == PARTS.keys()
    for one in SHAPES:
        assert one.source.startswith("https://"), one
        assert bool(one.member) or one.part not in (*REQUEST, *RESPONSE), one


def test_the_containers_of_load_and_sql_are_the_same(url: str) -> None:
    """SQL finds a request and a response in each container of the load, and no deeper than it."""
    request, response = {"messages": [{"content": "Rain?"}]}, {"choices": [{"text": "Rain."}]}
    for name in REQUEST_CONTAINERS:
        assert read(url, inputs={name: request})["prompt"] == "Rain?", name
    for name in CONTAINERS:
        assert read(url, outputs={name: response})["answer"] == "Rain.", name
        assert read(url, outputs={name: [response]})["answer"] == "Rain.", name
    for depth in range(MAX_DEPTH + 2):
        inputs: Any = request
        outputs: Any = response
        for _ in range(depth):
            inputs, outputs = {"body": inputs}, {"result": outputs}
        found = read(url, inputs, outputs)
        assert (found["prompt"] is None, found["answer"] is None) == (depth > MAX_DEPTH,) * 2
        assert has_known_prompt(_raw(inputs)) is has_known_answer(_raw(outputs))
        assert has_known_prompt(_raw(inputs)) is (depth <= MAX_DEPTH)


def _raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


_NAMES = sorted(
    {one.member for one in SHAPES if one.member}
    | {*CONTAINERS, *REQUEST_CONTAINERS}
    | {"type", "role", "index", "parts", "text", "name", "function", "toolUse", "thought", "id"}
    | {"mimeType", "inlineData", "image_url", "arguments", "args", "kwargs", "tool_calls"}
)
_WORDS = sorted(
    {"message", "tool_use", "tool_result", "image", "text-delta", "reasoning", "AIMessageChunk"}
    | {"image/png", "system", "user", "{}", '{"a": [1, "\\ud83d\\ude00"]}', '{"messages": ["a"]}'}
    | {"response.output_text.delta", "[", "{", "\u0130", ""}
    | {'data: {"choices": [{"text": "a"}]}\n\n', 'data: {"text":\ndata: "a"}', "data: {", ":"}
    | {'{"text": "a"}\n{"response": "b"}', '\r\nevent: a\rdata:[1],{"messages": ["a"]}', "id:1"}
)
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(_WORDS)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
)  # fmt: skip
_PAYLOADS = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5)
    ),
    max_leaves=25,
)


def test_any_payload_is_read(url: str) -> None:
    """No payload raises an error; what the load counts as an unknown shape is null in SQL."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:

        @settings(max_examples=examples(400))
        @given(_PAYLOADS)
        @example([[[[{"choices": [[[{"message": [[{"content": [["a"]]}]]}]]]}]]]])
        @example({"choices": "a", "messages": "b", "content": 1, "output": None})
        def check(payload: Any) -> None:
            [found] = connection.execute(READ, [Jsonb(payload)] * 2).fetchall()
            if not has_known_prompt(_raw(payload)):
                read = (found["prompt"], found["system"], found["parameters"])
                assert read == (None, None, None)
            if not has_known_answer(_raw(payload)):
                assert (found["answer"], found["tools"]) == (None, None)

        check()


_JSON_TEXTS = (
    st.builds(json.dumps, _PAYLOADS, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 1]))
    | st.text(st.sampled_from(list('{}[]:,"\\ \n\t01.eE+-untrfalse\u00e9dD83')), max_size=20)
)  # fmt: skip


def test_json_texts_are_recognised(url: str) -> None:
    """A text is parsed exactly if PostgreSQL itself accepts it as JSON."""
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.info.server_version < 160000:
            pytest.skip("pg_input_is_valid came with PostgreSQL 16")

        @settings(max_examples=examples(400))
        @given(_JSON_TEXTS)
        @example('"\\ud83d\\ude00"')
        @example('"\\ude00\\ud83d"')
        @example('"\\\\ud83d"')
        @example('"\\u0000"')
        @example("[1 2]")
        @example('{"a":1,}')
        @example("01")
        @example("1e999")
        @example("truefalse")
        @example("[" * 100 + "]" * 100)
        @example('{"a" "b"}')
        def check(text: str) -> None:
            [(ours, own)] = connection.execute(
                "SELECT orchestra.parsed_json(%s) IS NOT NULL, pg_input_is_valid(%s, 'jsonb')",
                [text, text],
            ).fetchall()
            assert ours == own

        check()


def test_what_is_beyond_a_bound_is_null(url: str) -> None:
    """Too many messages or events, too long or too deep a text give null, not a part of it."""

    def one(function: LiteralString, payload: str) -> Any:
        question: LiteralString = f"SELECT orchestra.{function}(CAST(CAST(%s AS text) AS jsonb))"
        [row] = query(url, f"{question} AS found", payload)
        return row["found"]

    def messages(count: int) -> str:
        return json.dumps({"messages": [{"role": "user", "content": "a"}] * count})

    def events(count: int) -> str:
        return json.dumps([{"choices": [{"delta": {"content": "a"}}]}] * count)

    assert len(one("prompt_text", messages(10_000))) == 10_000 * 9 - 2
    assert one("prompt_text", messages(10_001)) is None
    assert one("answer_text", events(10_000)) == "a" * 10_000
    assert one("answer_text", events(10_001)) is None
    long = json.dumps({"prompt": "a" * (1 << 20)})
    assert len(one("prompt_text", long)) == 1 << 20
    assert one("prompt_text", json.dumps(long)) is None
    event = 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
    assert one("answer_text", json.dumps(event * 10_000)) == "a" * 10_000
    assert one("answer_text", json.dumps(event * 10_001)) is None
    assert one("answer_text", json.dumps(event + "data: {broken\n\n")) is None
    assert one("answer_text", json.dumps(event + ":" * (1 << 20))) is None
    assert one("answer_text", '{"result":[' * 3_000 + '{"text":"a"}' + "]}" * 3_000) is None


def test_a_payload_that_is_not_stored_is_null(url: str) -> None:
    """A call without payloads has a row without texts; a redacted payload shows what was left."""
    add(url, "none")
    add(url, "redacted", {"messages": "(removed)"}, {"choices": "(removed)"})
    add(url, "kept", {"messages": [{"role": "user", "content": "sha256:ab"}]}, {})
    add(url, "absent", absent_since=NOON)
    add(url, "code", {"model": "m"}, node_type="code")
    assert query(
        url,
        "SELECT step_id, prompt, answer, tools, images FROM orchestra.model_calls ORDER BY 1",
    ) == [
        {"step_id": "kept", "prompt": "sha256:ab", "answer": None, "tools": None, "images": 0},
        {"step_id": "none", "prompt": None, "answer": None, "tools": None, "images": None},
        {"step_id": "redacted", "prompt": "(removed)", "answer": None, "tools": None, "images": 0},
    ]


def test_the_columns_of_a_call(url: str) -> None:
    """A row has the step's columns, the names of its workflow, its cost and its state."""
    query(url, "INSERT INTO orchestra.workflows (id, name) VALUES ('w', 'Weather')")
    query(
        url,
        "INSERT INTO orchestra.prices (model, provider, valid_from, currency, input_per_million,"
        " output_per_million, source) VALUES ('m', 'p', '0001-01-01', 'USD', 2, 3, 'set')",
    )
    add(
        url, "s", CALLS[0].inputs, CALLS[0].outputs, input_tokens=1_000_000, output_tokens=0,
        finish_reason="length", organization_id="o", node_id="n", start_time=None,
        reported_error="late", redaction_policy="1",
    )  # fmt: skip
    [row] = query(url, "SELECT * FROM orchestra.model_calls")
    assert (row["workflow_name"], row["provider"], row["model"]) == ("Weather", "p", "m")
    assert (row["time"], row["start_time"], row["outcome"]) == (NOON, None, "soft_failed")
    assert (row["cost"], row["currency"], row["total_tokens"]) == (2, "USD", 1_000_000)
    assert (row["is_cut_off"], row["error"], row["redaction_policy"]) == (True, "late", "1")
    of_steps = {
        row["name"]
        for row in query(
            url,
            "SELECT attname AS name FROM pg_attribute"
            " WHERE attrelid = 'orchestra.steps'::regclass AND attnum > 0",
        )
    }
    assert row.keys() >= {name for name in of_steps if "tokens" in name} - {"api_tokens"}


def test_one_run_is_read_by_its_index(url: str) -> None:
    """A condition on the run uses the index of its steps; unused payloads are not read at all."""
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking)"
        " SELECT 'r' || n, 'w', 'succeeded', 'api', 'final' FROM generate_series(0, 999) AS n",
    )
    query(
        url,
        "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)"
        " SELECT 's' || n, 'r' || n % 1000, 'w', 0, 'succeeded', '' FROM generate_series(1, 5000)"
        " AS n",
    )
    query(url, "ANALYZE orchestra.steps")

    def plan(columns: str) -> str:
        rows = query(
            url, f"EXPLAIN SELECT {columns} FROM orchestra.model_calls WHERE run_id = 'r7'"
        )
        return "\n".join(row["QUERY PLAN"] for row in rows)

    assert "steps_run_id_idx" in plan("*")
    assert "Seq Scan on steps" not in plan("*")
    assert "inputs" in plan("prompt")
    assert "outputs" not in plan("prompt")
    assert "inputs" not in plan("step_id, cost")
    assert "_text" not in plan("step_id, cost")
    # Beyond 100,000, a server with the defaults would compile the query.
    costs = re.findall(r"\.\.([0-9.]+) rows=", plan("*"))
    assert float(costs[0]) < 100_000

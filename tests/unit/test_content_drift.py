"""Payloads of model calls whose shape is not known, counted by the load."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from etl.transform.content_drift import has_known_answer, has_known_prompt
from etl.transform.decode import decode_steps
from etl.transform.generation import read_generation
from etl.transform.redact import Policy, RedactionRule
from etl.transform.states import StateMap
from tests.provider_bodies import SAMPLES
from tests.provider_calls import CALLS
from tests.provider_exchanges import EXCHANGES
from tests.provider_streams import STREAMS

USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
CHAT = {"object": "chat.completion", "choices": [{"message": {"content": "Rain."}}], "usage": USAGE}
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Rain?"}]}


def raw(value: Any) -> Raw:
    """Return a value as JSON."""
    return Raw(json.dumps(value).encode())


def unknown(inputs: Any, outputs: Any, policy: Policy | None = None) -> list[tuple[str, str, str]]:
    """Return the drift of a step with these payloads: field, kind and what was found."""
    step = {"id": "s", "status": "completed", "inputs": inputs, "outputs": outputs}
    decoded = decode_steps(
        json.dumps([step]).encode(), workflow_id="w", run_id="r", states=StateMap({}), policy=policy
    )
    return [
        (one.field, one.kind, one.found)
        for one in decoded.drift
        if one.kind in ("unknown_prompt", "unknown_answer")
    ]


@pytest.mark.parametrize("call", [*CALLS, *EXCHANGES, *STREAMS], ids=lambda call: call.name)
def test_known_shapes_are_no_drift(call: Any) -> None:
    """The payloads of each documented shape are known by the names of their members."""
    inputs = None if call.inputs is None else raw(call.inputs)
    outputs = None if call.outputs is None else raw(call.outputs)
    assert inputs is None or has_known_prompt(inputs)
    assert outputs is None or has_known_answer(outputs)
    assert [
        one
        for one in read_generation(inputs, outputs).deviations
        if one.kind in ("unknown_prompt", "unknown_answer")
    ] == []


def test_known_responses_are_no_drift() -> None:
    """Each response whose usage is read has its answer at a known place."""
    assert [one.name for one in SAMPLES if not has_known_answer(raw(one.body))] == []


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (ASKED, CHAT, []),
        ({"model": "m", "question": "Rain?"}, CHAT, [("inputs", "unknown_prompt", "object")]),
        ("Rain?", CHAT, [("inputs", "unknown_prompt", "string")]),
        (ASKED, {"usage": USAGE, "reply": "Rain."}, [("outputs", "unknown_answer", "object")]),
        (ASKED, {"reply": "Rain."}, [("outputs", "unknown_answer", "object")]),
        ({"model": "m"}, {"result": {"data": [{"usage": USAGE, "reply": "Rain."}]}},
         [("inputs", "unknown_prompt", "object"), ("outputs", "unknown_answer", "object")]),
        # Nothing was sent, or the call failed.
        (None, CHAT, []), ({}, CHAT, []), (ASKED, None, []), (ASKED, {}, []),
        (ASKED, {"error": {"message": "late"}, "usage": USAGE}, []),
        # An answer without text.
        (ASKED, {"choices": [{"message": {"tool_calls": []}}], "usage": USAGE}, []),
        ({"model": "m", "input": "a"}, {"data": [{"embedding": [1]}], "usage": USAGE}, []),
        ({"model": "m", "prompt": "a"}, {"data": [{"url": "a"}], "usage": USAGE}, []),
        # No call of a model.
        ({"code": "x", "model": "m"}, {"result": 1}, []),
        ({"app_name": "a", "action": "b", "model": "m"}, {"result": {"data": {"a": 1}}}, []),
        ({"query": "a"}, {"documents": []}, []),
        ({"model": "m", "input": {"a": 1}}, CHAT, [("inputs", "unknown_prompt", "object")]),
    ],
)  # fmt: skip
def test_unknown_shapes_are_counted(inputs: Any, outputs: Any, expected: list[Any]) -> None:
    """A call without a known prompt or answer is drift; one without payloads or answer is not."""
    assert unknown(inputs, outputs) == expected


@pytest.mark.parametrize(
    "path", ["$.outputs.choices", "$.outputs.choices[*]", "$.inputs.messages", "$.inputs.*"]
)
@pytest.mark.parametrize("action", ["drop", "mask", "hash"])
def test_redaction_is_no_unknown_shape(path: str, action: Any) -> None:
    """What a rule removes does not count as an unknown shape; what was unknown before does."""
    policy = Policy([RedactionRule(path, action)], b"0" * 32)
    assert unknown(ASKED, CHAT, policy) == []
    assert unknown(ASKED, {"reply": "b", "usage": USAGE}, policy) == [
        ("outputs", "unknown_answer", "object")
    ]


@pytest.mark.parametrize(
    "value",
    [b"[" * 100_000, b'{"result":' * 50_000 + b"1" + b"}" * 50_000, b'"{"', b'"\\ud800"', b"1",
     b"[1,[],{}]", b'"[1"'],
)  # fmt: skip
def test_any_value_is_looked_at(value: bytes) -> None:
    """No value raises an error."""
    assert has_known_prompt(Raw(value)) is False
    assert has_known_answer(Raw(value)) in (False, True)

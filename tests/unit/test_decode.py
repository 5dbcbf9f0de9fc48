"""The response of the steps endpoint as records."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from etl.records import DecodedSteps, Step
from etl.transform import decode
from etl.transform.decode import decode_steps
from etl.transform.scanner import split_fast, split_tolerant
from etl.transform.states import StateMap
from etl.transform.tolerant_json import Malformed, split_object
from tests.examples import examples
from tests.hostile import (
    CLEAN_VALUES,
    IMPLAUSIBLE_TIMES,
    MALFORMED_VALUES,
    READABLE_TIMES,
    REFUSED_VALUES,
    TIMES_WITHOUT_ZONE,
    UNREADABLE_TIMES,
    UNUSABLE_IDS,
    USABLE_IDS,
    step_with,
)

BOM = b"\xef\xbb\xbf"
STATES = StateMap()


def decoded(body: bytes, node_types: Mapping[str, str] | None = None) -> DecodedSteps:
    """Return the response, decoded for some run."""
    return decode_steps(
        body, workflow_id="w", run_id="r", states=STATES, node_types=node_types or {}
    )


def one(**members: object) -> Step:
    """Return the only step of a response that holds a step with these members."""
    (step,) = decoded(json.dumps([{"id": "s", **members}]).encode()).steps
    return step


def array(*steps: bytes) -> bytes:
    """Return a response with these steps."""
    return b"[" + b", ".join(steps) + b"]"


def drift_of(answer: DecodedSteps) -> list[tuple[str, str, str, int]]:
    """Return the response's drift as sorted plain tuples."""
    return sorted((drift.field, drift.kind, drift.found, drift.count) for drift in answer.drift)


def test_sample(sample_steps: bytes) -> None:
    """The real response gives its two steps with every column, and payloads equal as JSON."""
    answer = decoded(sample_steps)
    model, slack = answer.steps
    given_model, given_slack = json.loads(sample_steps)
    assert (answer.rejected, answer.drift, answer.readable) == ((), (), True)
    assert [model.id, slack.id] == [
        "b2acc986-af06-418a-bf71-c730d5ghaf0b",
        "ad6edfea-bf1c-4639-9d9f-b53c9ad60bgg",
    ]
    assert (model.position, slack.position) == (0, 1)
    assert (model.node_id, model.node_type, slack.node_id, slack.node_type) == (
        *("model", "model"),
        *("slack_integration", "integration"),
    )
    assert (model.user_id, model.organization_id) == ("2*****************1", "2*****************7")
    assert (model.status, model.state) == ("completed", "succeeded")
    assert model.start_time == datetime(2025, 3, 13, 2, 41, 15, 144470, UTC)
    assert model.end_time == datetime(2025, 3, 13, 2, 41, 17, 382162, UTC)
    assert (model.api_elapsed_seconds, model.api_tokens) == (2.0, 0)
    assert (model.request_model, model.response_model) == ("virtuoso-medium", "virtuoso-medium")
    assert (model.usage.input_tokens, model.usage.output_tokens, model.usage.total_tokens) == (
        36,
        48,
        84,
    )
    assert (model.usage.cached_input_tokens, model.usage.reasoning_tokens, model.finish_reason) == (
        None,
        None,
        "stop",
    )
    assert (slack.request_model, slack.usage.input_tokens, slack.reported_error) == (
        None,
        None,
        None,
    )
    assert (model.error, model.step_metadata, model.extra) == (None, None, None)
    for step, original in ((model, given_model), (slack, given_slack)):
        for payload, value in (
            (step.inputs, original["inputs"]),
            (step.outputs, original["outputs"]),
        ):
            assert payload is not None
            assert payload.data is not None
            data = bytes(payload.data)
            assert (json.loads(data), payload.raw, payload.note) == (value, None, None)
            assert data in sample_steps
            assert payload.size_bytes == len(data)


def test_truncated_anywhere_is_unreadable(sample_steps: bytes) -> None:
    """A response truncated at any byte says nothing about the run, but its bytes are kept."""
    whole = sample_steps.rstrip()
    for end in range(len(whole)):
        answer = decoded(whole[:end])
        assert (answer.readable, answer.steps) == (False, ())
        assert [(rejected.reason, rejected.body) for rejected in answer.rejected] == [
            ("not_an_array", whole[:end])
        ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"1",
        b'"[]"',
        b"{}",
        b'{"error": "not found"}',
        b'{"steps": []}',
        b"<html><body>[]</body></html>",
        b"[] []",
        b"[]x",
        b"[]]",
        b"[",
        b"]",
        b"[{]}",
        b'[{"id": "s]',
        b'[{"id": "s"}',
        b'[{"id": "s"]}',
        b"\xff\xfe[\x00]\x00",
        b"[" * 20_000,
        b"]" * 20_000,
    ],
)
def test_a_body_that_is_not_an_array_is_unreadable(body: bytes) -> None:
    """A body that is not exactly one array says nothing about the run's steps."""
    answer = decoded(body)
    assert (answer.readable, answer.steps, answer.rejected[0].reason) == (False, (), "not_an_array")


@pytest.mark.parametrize(
    "body", [b"[]", b" [ \n] ", BOM + b"[]\r\n", b"null", b" null\n", BOM + b"null"]
)
def test_empty_array_is_readable(body: bytes) -> None:
    """An empty array means that the run has no steps yet."""
    answer = decoded(body)
    assert (answer.readable, answer.steps, answer.rejected, answer.drift) == (True, (), (), ())


@pytest.mark.parametrize("value", CLEAN_VALUES + REFUSED_VALUES, ids=lambda value: repr(value[:40]))
@pytest.mark.parametrize("start", [b"", BOM])
def test_any_payload_is_stored_with_its_neighbours(start: bytes, value: bytes) -> None:
    """A payload that jsonb or the decoder refuses loses neither its own step nor another one.

    Its bytes are kept.
    """
    plain = step_with(b'{"a": 1}', b'"before"')
    answer = decoded(start + array(plain, step_with(value), step_with(b"[]", b'"after"')))
    before, step, after = answer.steps
    assert [before.id, step.id, after.id] == ["before", "s", "after"]
    assert before == decoded(array(plain)).steps[0]
    assert step.outputs is not None
    kept = step.outputs.raw or bytes(step.outputs.data or b"")
    assert (kept, step.outputs.size_bytes) == (value, len(value))
    assert (step.outputs.raw is None) == (value in CLEAN_VALUES)
    assert (step.status, step.state, answer.rejected) == ("completed", "succeeded", ())


@pytest.mark.parametrize("value", MALFORMED_VALUES, ids=repr)
def test_one_malformed_step_of_a_hundred(value: bytes) -> None:
    """A step with broken syntax becomes a dead letter with its bytes; the other 99 are stored."""
    steps = [step_with(b"{}", b'"%d"' % number) for number in range(99)]
    broken = step_with(value)
    answer = decoded(array(*steps[:50], broken, *steps[50:]))
    assert [step.id for step in answer.steps] == [str(number) for number in range(99)]
    assert [step.position for step in answer.steps] == [*range(50), *range(51, 100)]
    assert [(rejected.reason, rejected.body) for rejected in answer.rejected] == [
        ("malformed", broken)
    ]


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (b"null", "not_an_object"),
        (b"1", "not_an_object"),
        (b'"text, [ and {"', "not_an_object"),
        (b"NaN", "not_an_object"),
        (b"[1, {}]", "not_an_object"),
        (b"[" * 20_000 + b"]" * 20_000, "not_an_object"),
        (b"", "malformed"),
        (b'{"id": "s", "inputs": [1}', None),
        (b"{} {}", "malformed"),
        (b'{"id": "s"} x', "malformed"),
        (b'{"id": "s" "status": 1}', "malformed"),
        (b'{"id": "s",}', "malformed"),
        (b'{"id": "s", "x": [}, "y": ]}', None),
        (b"undefined", "malformed"),
    ],
)
def test_elements_that_are_not_steps(element: bytes, reason: str | None) -> None:
    """An element that is not an object, or is broken, becomes a dead letter with its bytes.

    If crossed brackets hide its end, the whole body is unreadable.
    """
    answer = decoded(array(step_with(b"1", b'"before"'), element, step_with(b"1", b'"after"')))
    if reason is None:
        assert not answer.readable
    else:
        assert [step.id for step in answer.steps] == ["before", "after"]
        assert [(rejected.reason, rejected.body) for rejected in answer.rejected] == [
            (reason, element)
        ]


@pytest.mark.parametrize(("raw", "step_id"), USABLE_IDS, ids=lambda value: repr(value[:30]))
def test_usable_ids(raw: bytes, step_id: str) -> None:
    """Any text of 1 to 512 bytes is an id, exactly as given."""
    assert [step.id for step in decoded(array(step_with(b"1", raw))).steps] == [step_id]


@pytest.mark.parametrize("raw", UNUSABLE_IDS, ids=lambda value: repr(value[:30]))
def test_unusable_ids(raw: bytes) -> None:
    """A step whose id PostgreSQL cannot hold and index is a dead letter; the next one is stored."""
    step = step_with(b"1", raw)
    answer = decoded(array(step, step_with(b"1")))
    assert [step.id for step in answer.steps] == ["s"]
    assert [(rejected.reason, rejected.body) for rejected in answer.rejected] == [
        ("unusable_id", step)
    ]
    assert [rejected.reason for rejected in decoded(b'[{"status": "completed"}]').rejected] == [
        "unusable_id"
    ]


def test_duplicate_ids() -> None:
    """Equal steps with one id are one step; of different ones the last is stored.

    The other one becomes a dead letter.
    """
    first, second, other = step_with(b"1"), step_with(b"2"), step_with(b"3", b'"t"')
    same = decoded(array(first, other, first))
    assert ([(step.id, step.position) for step in same.steps], same.rejected) == (
        [("s", 0), ("t", 1)],
        (),
    )
    different = decoded(array(first, other, second))
    assert [(step.id, step.position) for step in different.steps] == [("t", 1), ("s", 2)]
    assert [(r.reason, r.body, r.step_id) for r in different.rejected] == [
        ("duplicate_id", first, "s")
    ]


def test_last_of_duplicate_names_wins() -> None:
    """Of duplicate members the last value counts, in both decoders."""
    body = b'[{"id": "a", "status": "failed", "id": "b", "status": "completed"}]'
    for start in (b"", BOM):
        assert [(step.id, step.state) for step in decoded(start + body).steps] == [
            ("b", "succeeded")
        ]


@pytest.mark.parametrize(("text", "expected"), READABLE_TIMES)
def test_readable_times(text: str, expected: str) -> None:
    """A time with a zone is read to the microsecond, in UTC, without drift."""
    answer = decoded(json.dumps([{"id": "s", "start_time": text}]).encode())
    (step,) = answer.steps
    assert step.start_time is not None
    assert (step.start_time.isoformat(), step.extra, answer.drift) == (expected, None, ())


@pytest.mark.parametrize(("text", "expected"), TIMES_WITHOUT_ZONE)
def test_times_without_zone(text: str, expected: str) -> None:
    """A time without a zone is taken as UTC and counted as drift."""
    answer = decoded(json.dumps([{"id": "s", "end_time": text}]).encode())
    (step,) = answer.steps
    assert step.end_time is not None
    assert (step.end_time.isoformat(), step.extra) == (expected, None)
    assert drift_of(answer) == [("end_time", "time_without_zone", "string", 1)]


@pytest.mark.parametrize("text", UNREADABLE_TIMES)
def test_unreadable_times(text: str) -> None:
    """A time that cannot be read or stored is null, kept in `extra`, and counted as drift."""
    answer = decoded(json.dumps([{"id": "s", "start_time": text}]).encode())
    (step,) = answer.steps
    assert step.extra is not None
    assert (step.start_time, json.loads(step.extra)) == (None, {"start_time": text})
    assert drift_of(answer) == [("start_time", "unreadable_time", "string", 1)]


@pytest.mark.parametrize("text", IMPLAUSIBLE_TIMES)
def test_implausible_times(text: str) -> None:
    """A time that stands for no time is null, kept in `extra`, and counted as drift."""
    answer = decoded(json.dumps([{"id": "s", "end_time": text}]).encode())
    (step,) = answer.steps
    assert step.extra is not None
    assert (step.end_time, json.loads(step.extra)) == (None, {"end_time": text})
    reported = [one for one in drift_of(answer) if one[1] != "time_without_zone"]
    assert reported == [("end_time", "implausible_time", "string", 1)]


def test_times_ahead_of_the_response() -> None:
    """A time a month and more after the response is implausible.

    Clocks and zones that are wrong by up to some weeks are not judged.
    """
    body = (
        b'[{"id": "s", "start_time": "2026-03-31T23:59:59Z", "end_time": "2026-04-01T00:00:00Z"}]'
    )
    now = datetime(2026, 3, 1, tzinfo=UTC)
    answer = decode_steps(body, workflow_id="w", run_id="r", states=STATES, now=now)
    (step,) = answer.steps
    assert (step.start_time, step.end_time) == (datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), None)
    assert drift_of(answer) == [("end_time", "implausible_time", "string", 1)]
    assert decoded(body).steps[0].end_time == datetime(2026, 4, 1, tzinfo=UTC)


def test_missing_null_and_empty_members() -> None:
    """Missing and null members, and a running step's empty end, are None without drift.

    A null payload is kept.
    """
    names = (
        "node_id",
        "status",
        "start_time",
        "elapsed_time",
        "tokens",
        "error",
        "step_metadata",
        "user_id",
    )
    answer = decoded(
        json.dumps(
            [{"id": "s"}, {"id": "t", "end_time": "", "inputs": None} | dict.fromkeys(names)]
        ).encode()
    )
    bare, nulls = answer.steps
    assert (answer.drift, bare.extra, nulls.extra) == ((), None, None)
    for step in answer.steps:
        assert (step.node_id, step.status, step.state, step.start_time, step.end_time) == (
            None,
            None,
            "unknown",
            None,
            None,
        )
        assert (step.api_elapsed_seconds, step.api_tokens, step.error, step.step_metadata) == (
            None,
            None,
            None,
            None,
        )
    assert (bare.inputs, nulls.inputs and nulls.inputs.data) == (None, Raw(b"null"))


def test_wrong_types_and_unknown_fields_are_kept_and_counted() -> None:
    """Values that do not fit their column are kept in `extra` and counted as drift.

    Drift is counted by field, kind and type over the whole response.
    """
    wrong = (
        b'"status": 7, "node_id": ["n"], "start_time": 1741833675, "elapsed_time": "2", '
        b'"tokens": 1.5, "user_id": true,'
        b' "end_time": {"a": 1.50}, "organization_id": 1e400, "new": [1.10], "\\u00fcber": null'
    )
    answer = decoded(
        array(b'{"id": "s", ' + wrong + b"}", b'{"id": "t", "new": [], "tokens": true}')
    )
    extra = answer.steps[0].extra
    assert extra is not None
    assert json.loads(extra, parse_float=str) == json.loads(b"{" + wrong + b"}", parse_float=str)
    assert (answer.steps[0].status, answer.steps[0].state) == (None, "unknown")
    assert drift_of(answer) == [
        ("elapsed_time", "wrong_type", "string", 1),
        ("end_time", "wrong_type", "object", 1),
        ("new", "unknown_field", "array", 2),
        ("node_id", "wrong_type", "array", 1),
        ("organization_id", "wrong_type", "number", 1),
        ("start_time", "wrong_type", "number", 1),
        ("status", "wrong_type", "number", 1),
        ("tokens", "wrong_type", "boolean", 1),
        ("tokens", "wrong_type", "number", 1),
        ("user_id", "wrong_type", "boolean", 1),
        ("\u00fcber", "unknown_field", "null", 1),
    ]


@pytest.mark.parametrize(
    ("member", "value", "plausible"),
    [
        ("tokens", "0", True),
        ("tokens", "1000000000000", True),
        ("tokens", "1000000000001", False),
        ("tokens", "9223372036854775807", False),
        ("tokens", "9223372036854775808", False),
        ("tokens", "-1", False),
        ("elapsed_time", "0", True),
        ("elapsed_time", "2.5", True),
        ("elapsed_time", "316224000", True),
        ("elapsed_time", "1e300", False),
        ("elapsed_time", "-62135596800", False),
    ],
)
def test_numbers_at_their_limits(member: str, value: str, plausible: bool) -> None:
    """An impossible count or duration is null, kept in `extra` with all digits, and drift.

    Possible ones are read.
    """
    answer = decoded(f'[{{"id": "s", "{member}": {value}}}]'.encode())
    (step,) = answer.steps
    column = step.api_tokens if member == "tokens" else step.api_elapsed_seconds
    if plausible:
        assert (column, step.extra, answer.drift) == (float(value), None, ())
    else:
        assert (column, step.extra) == (None, f'{{"{member}":{value}}}')
        assert drift_of(answer) == [(member, "implausible_number", "number", 1)]


def test_drift_stays_small() -> None:
    """An object keyed by data does not fill the drift table, and drift texts are short."""
    answer = decoded(
        json.dumps(
            [{"id": "s", "status": "x" * 400, "y" * 400: 1} | {str(n): n for n in range(5_000)}]
        ).encode()
    )
    assert len(answer.drift) == 100
    assert max(len(drift.field) + len(drift.found) for drift in answer.drift) <= 106
    assert len(json.loads(answer.steps[0].extra or "")) == 5_001


def test_unknown_status_is_reported_as_found() -> None:
    """An unknown status is kept, its state is `unknown`, and it is counted as drift."""
    answer = decoded(json.dumps([{"id": "s", "status": "half\ud83d\ude00baked"}]).encode())
    assert (answer.steps[0].status, answer.steps[0].state) == ("half\U0001f600baked", "unknown")
    assert drift_of(answer) == [("status", "unknown_status", "half\U0001f600baked", 1)]


def test_text_that_no_column_takes() -> None:
    """A text with NUL or lone surrogates leaves its column null.

    `extra` has it readable, and the rejected rows have it exactly.
    """
    member = rb'"a\u0000b\ud800"'
    answer = decoded(array(b'{"id": "s", "user_id": ' + member + b', "error": ' + member + b"}"))
    (step,) = answer.steps
    assert step.user_id is None
    assert json.loads(step.extra or "") == {"user_id": "a\ufffdb\ufffd"}
    assert json.loads(step.error or "") == "a\ufffdb\ufffd"
    assert [(r.reason, r.step_id, r.body) for r in answer.rejected] == [
        ("not_storable", "s", member),
        ("not_storable", "s", b'{"user_id":' + member + b"}"),
    ]
    assert answer.drift == ()


def test_texts_too_long_for_an_index() -> None:
    """A text of 512 characters fits its column, a longer one goes to `extra`.

    A model's name that long is left out.
    """
    step = one(
        node_id="\u00e9" * 512,
        user_id="x" * 513,
        inputs={"model": "m" * 513, "app_name": "a", "action": "b"},
    )
    assert (step.node_id, step.user_id, step.request_model) == ("\u00e9" * 512, None, None)
    assert json.loads(step.extra or "") == {"user_id": "x" * 513}


def test_names_that_are_not_utf_8_stay_apart() -> None:
    """Members whose names differ only in bytes that are not UTF-8 are both kept."""
    answer = decoded(b'[{"id": "s", "\xff": 1, "\xfe": 2, "ok": "\xfd"}]')
    assert [step.id for step in answer.steps] == ["s"]
    assert [(r.reason, r.body) for r in answer.rejected] == [
        ("not_storable", b'{"\\udcff":1,"\\udcfe":2,"ok":"\xfd"}')
    ]


def test_a_trailing_comma_loses_no_step() -> None:
    """After a trailing comma there is an empty element; the steps before it are stored."""
    answer = decoded(array(step_with(b"1"))[:-1] + b",]")
    assert [step.id for step in answer.steps] == ["s"]
    assert [(rejected.reason, rejected.body) for rejected in answer.rejected] == [
        ("malformed", b"")
    ]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"}", b"[]", b"{]", b'{"a": [1}}', b'{"a": {"b": 1]}', b'{"a": 1]', b"{} "]
)
def test_a_text_that_is_not_an_object_is_malformed(text: bytes) -> None:
    """The tolerant decoder accepts only whole objects with paired brackets."""
    with pytest.raises(Malformed):
        split_object(text)


def test_errors_and_metadata_of_any_type_are_json() -> None:
    """An error or metadata of any type is kept as its JSON."""
    step = one(error={"code": 504, "why": [1.5]}, step_metadata="text")
    assert (json.loads(step.error or ""), step.step_metadata) == (
        {"code": 504, "why": [1.5]},
        '"text"',
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "node_type"),
    [
        ({}, {"object": "chat.completion"}, "model"),
        ({}, {"choices": [], "usage": {}}, "model"),
        ({}, {"choices": []}, None),
        ({"app_name": "slack", "action": "SEND"}, None, "integration"),
        ({"app_name": "slack"}, {}, None),
        ({}, {"result": {"successful": True}}, "integration"),
        ({}, {"result": {"successfull": False}}, "integration"),
        ({}, {"result": {"error": "x"}}, "integration"),
        ({}, {"result": {"rows": 1}}, None),
        ({}, {"result": "text"}, None),
        ({"language": "python", "code": "pass"}, {"result": {"error": "x"}}, "code"),
        ({"query": "q"}, {"documents": []}, "knowledge_retrieval"),
        ({"query": "q"}, {}, None),
        ({"conditions": []}, {"branch": "true"}, "conditional"),
        ("text", [1], None),
        (None, None, None),
    ],
)
def test_node_type_by_shape(inputs: object, outputs: object, node_type: str | None) -> None:
    """Without a graph, payloads of a distinctive shape give the node's type, others give none."""
    assert one(inputs=inputs, outputs=outputs).node_type == node_type


def test_node_type_from_the_graph() -> None:
    """The graph's type takes precedence; a node that is not in the graph keeps its shape's type."""
    chat = {"object": "chat.completion"}
    body = json.dumps(
        [{"id": name, "node_id": name, "outputs": chat} for name in ("a", "b")]
    ).encode()
    assert [step.node_type for step in decoded(body, {"a": "agent"}).steps] == ["agent", "model"]


def test_model_columns() -> None:
    """Models, tokens, details and the finish reason are read under both families of names."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    details = {
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 6},
    }
    other = {
        "input_tokens": 10,
        "output_tokens": 20,
        "total_tokens": 30,
        "input_tokens_details": {"cached_tokens": 5},
    }
    other["output_tokens_details"] = {"reasoning_tokens": 6}
    for given_usage in (usage | details, other):
        outputs = {
            "object": "chat.completion",
            "model": "m-1",
            "usage": given_usage,
            "choices": [{"finish_reason": "length"}],
        }
        step = one(inputs={"model": "m"}, outputs=outputs)
        assert (step.request_model, step.response_model, step.finish_reason) == (
            "m",
            "m-1",
            "length",
        )
        assert (step.usage.input_tokens, step.usage.output_tokens, step.usage.total_tokens) == (
            10,
            20,
            30,
        )
        assert (step.usage.cached_input_tokens, step.usage.reasoning_tokens) == (5, 6)


@pytest.mark.parametrize("wrong", [None, "seven", 7.5, True, -1, 2**63, [7], {"a": 7}, [[[[]]]]])
def test_model_columns_of_wrong_types_are_none(wrong: object) -> None:
    """A value of the wrong type in a model's outputs is None, and its neighbours are read."""
    outputs = {
        "object": "chat.completion",
        "model": [wrong],
        "choices": wrong,
        "usage": {"prompt_tokens": wrong},
    }
    outputs["usage"] = {
        "prompt_tokens": wrong,
        "completion_tokens": 3,
        "prompt_tokens_details": wrong,
    }
    step = one(inputs={"model": [wrong]}, outputs=outputs)
    assert (step.request_model, step.response_model, step.finish_reason) == (None, None, None)
    assert (step.usage.input_tokens, step.usage.output_tokens, step.usage.cached_input_tokens) == (
        None,
        3,
        None,
    )
    assert one(outputs={"object": "chat.completion", "usage": wrong}).usage.total_tokens is None


def test_a_missing_total_is_the_sum() -> None:
    """Without a plausible total, input and output make the total of a call.

    With one of them unknown the total is unknown too.
    """
    for usage, total in (
        ({"prompt_tokens": 10, "completion_tokens": 20}, 30),
        ({"input_tokens": 10, "output_tokens": 0}, 10),
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 31}, 31),
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 2**63 - 1}, 30),
        ({"prompt_tokens": 10}, None),
        ({"prompt_tokens": 10, "completion_tokens": -1}, None),
        ({}, None),
    ):
        assert (
            one(outputs={"object": "chat.completion", "usage": usage}).usage.total_tokens == total
        )


def test_an_implausible_number_of_tokens_is_none_and_drift() -> None:
    """An implausible or negative number of tokens, or no number, is null and counted as drift."""
    usage = {"prompt_tokens": 10**12 + 1, "completion_tokens": 10**12, "total_tokens": -1}
    usage_with_text = {
        "prompt_tokens": "many",
        "completion_tokens_details": {"reasoning_tokens": 2**62},
    }
    body = json.dumps([{"id": str(n), "outputs": {"object": "chat.completion", "usage": one}}
                       for n, one in enumerate((usage, usage_with_text))]).encode()  # fmt: skip
    answer = decoded(body)
    assert [
        (step.usage.input_tokens, step.usage.output_tokens, step.usage.total_tokens)
        for step in answer.steps
    ] == [
        (None, 10**12, None),
        (None, None, None),
    ]
    assert {(one.field, one.kind, one.count) for one in answer.drift} == {
        ("outputs.usage.prompt_tokens", "implausible_number", 1),
        ("outputs.usage.prompt_tokens", "wrong_type", 1),
        ("outputs.usage.total_tokens", "implausible_number", 1),
        ("outputs.usage.completion_tokens_details.reasoning_tokens", "implausible_number", 1),
    }


CHAT = {"object": "chat.completion", "usage": {}}


@pytest.mark.parametrize(
    ("outputs", "reported"),
    [
        # An integration's result.
        ({"result": {"error": "no channel", "successful": True}}, "no channel"),
        ({"result": {"error": None, "successful": False}}, "reported successful: false"),
        ({"result": {"error": "", "successfull": False}}, "reported successful: false"),
        ({"result": {"error": "None", "successful": False}}, "reported successful: false"),
        ({"result": {"error": None, "successful": "false"}}, "reported successful: false"),
        ({"result": {"success": " False "}}, "reported success: false"),
        ({"result": {"error": {"code": 1.50}, "successful": False}}, '{"code": 1.5}'),
        (
            {"result": {"error": {"code": None, "message": "no channel"}}},
            '{"code": null, "message": "no channel"}',
        ),
        ({"result": {"error": "x" * 5_000}}, "x" * 2_000),
        ({"result": {"error": True}}, "true"),
        ({"result": {"error": ["no channel"]}}, '["no channel"]'),
        *[
            ({"result": {"error": error, "successful": True}}, None)
            for error in (
                None,
                False,
                0,
                "",
                "  ",
                "None",
                "none",
                "null",
                "NULL",
                "undefined",
                "N/A",
                "false",
                "no error",
                {},
                [],
                {"code": None, "message": None},
                [None, ""],
            )
        ],
        ({"result": {"error": False, "successful": "true"}}, None),
        ({"result": "None"}, None),
        # A result that is not wrapped.
        ({"successful": False, "data": {}}, "reported successful: false"),
        ({"success": "no"}, "reported success: false"),
        # An error in place of a response, from any type of node.
        (
            {"error": {"message": "overloaded", "code": 529}},
            '{"message": "overloaded", "code": 529}',
        ),
        ({"error": "overloaded"}, "overloaded"),
        ({"error": ["overloaded"]}, '["overloaded"]'),
        ({**CHAT, "error": {"message": "overloaded"}}, '{"message": "overloaded"}'),
        ({**CHAT, "error": None}, None),
        ({"error": "None"}, None),
        ({"error": {}}, None),
        ({"error": 0.05}, None),
        # A choice that broke off, the first or another one.
        ({**CHAT, "choices": [{"finish_reason": "error"}]}, "finish_reason: error"),
        (
            {**CHAT, "choices": [{"finish_reason": "stop"}, {"finish_reason": "ERROR"}]},
            "finish_reason: ERROR",
        ),
        (
            {**CHAT, "choices": [{"finish_reason": "error", "error": {"message": "overloaded"}}]},
            '{"message": "overloaded"}',
        ),
        ({**CHAT, "choices": [{"finish_reason": "stop", "error": None}]}, None),
        ({**CHAT, "choices": [{"finish_reason": "length"}, {"finish_reason": None}]}, None),
    ],
)
@pytest.mark.parametrize("status", ["completed", "failed", "running"])
def test_reported_error(status: str, outputs: dict[str, Any], reported: str | None) -> None:
    """An error in a payload is kept for every status; an empty one is no error."""
    assert one(status=status, outputs=outputs).reported_error == reported


def test_a_code_nodes_success_member_is_ignored() -> None:
    """A code node's outputs belong to its author: only an error in them counts."""
    inputs = {"code": "…"}
    assert one(status="completed", inputs=inputs, outputs={"success": False}).reported_error is None
    assert (
        one(status="completed", inputs=inputs, outputs={"error": "overloaded"}).reported_error
        == "overloaded"
    )


def test_content_hash_covers_all_that_the_row_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash is stable and covers everything that the row depends on.

    It changes with each byte, the position, the run, the workflow, the node's type and the version.
    """
    body = array(b'{"id": "s", "node_id": "n", "status": "odd"}')

    def digest(
        body: bytes = body, workflow_id: str = "w", run_id: str = "r", **types: str
    ) -> bytes:
        steps = decode_steps(
            body, workflow_id=workflow_id, run_id=run_id, states=STATES, node_types=types
        ).steps
        return steps[-1].content_hash

    assert len(digest()) == 16
    assert digest() == digest(BOM + b" " + body)
    others = [
        digest(body.replace(b": ", b":  ", 1)),
        digest(b"[1," + body[1:]),
        digest(workflow_id="v"),
        digest(run_id="q"),
        digest(n="agent"),
    ]
    monkeypatch.setattr(decode, "TRANSFORM_VERSION", decode.TRANSFORM_VERSION + 1)
    others.append(digest())
    monkeypatch.undo()
    assert len({digest(), *others}) == 7


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "status",
        "node_id",
        "start_time",
        "end_time",
        "elapsed_time",
        "tokens",
        "error",
        "inputs",
        "outputs",
        "step_metadata",
    ]
)
STEPS = st.lists(
    st.dictionaries(NAMES | st.text(max_size=10), JSON, max_size=8).flatmap(
        lambda step: st.sampled_from(["a", "b", "c", "\u00e9"]).map(
            lambda step_id: {**step, "id": step_id}
        )
    ),
    max_size=5,
)


@settings(max_examples=examples(100))
@given(steps=STEPS, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_both_ways_give_the_same(
    steps: list[dict[str, object]], ascii_only: bool, indent: int | None
) -> None:
    """For any JSON the tolerant decoder splits and decodes exactly like the fast one."""
    body = json.dumps(steps, ensure_ascii=ascii_only, indent=indent).encode(errors="replace")
    fast, tolerant = list(split_fast(body)), list(split_tolerant(body))
    assert [bytes(one.own) for one in fast] == [bytes(one.own) for one in tolerant]
    for one in fast:
        assert one.members is not None
        walked = split_object(bytes(one.own))
        assert [(name, bytes(raw)) for name, raw in one.members.items()] == [
            (name, bytes(raw)) for name, raw in walked.items()
        ]
    assert decoded(body) == decoded(BOM + body)


@settings(max_examples=examples(200))
@given(seed=st.integers(0, 2**32), cuts=st.integers(1, 4))
def test_damaged_responses_never_raise(seed: int, cuts: int, sample_steps: bytes) -> None:
    """A damaged response gives records or rejections; a rejected step has only its own bytes."""
    rng = random.Random(seed)
    body = bytearray(sample_steps)
    for _ in range(cuts):
        at = rng.randrange(len(body))
        body[at : at + rng.choice([0, 1, 5])] = rng.choice(
            [b"", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"\xff", b"\x00"]
        )
    answer = decoded(bytes(body))
    assert answer.readable or not answer.steps
    assert all(
        rejected.body in bytes(body)
        for rejected in answer.rejected
        if rejected.reason == "malformed"
    )

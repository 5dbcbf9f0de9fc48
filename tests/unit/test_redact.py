"""Redaction of single elements: what is removed, what stays exact, and what is unredactable."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from etl.errors import ConfigurationError
from etl.records import DecodedSteps
from etl.settings import load
from etl.transform.decode import decode_steps
from etl.transform.generation import REMOVED_ERROR, is_error
from etl.transform.redact import UNTOUCHED, Action, NotRedactable, Policy, Redaction, RedactionRule
from etl.transform.runs import decode_page, decode_run, decode_single_run
from etl.transform.scanner import split
from etl.transform.states import StateMap
from etl.transform.tolerant_json import Members
from tests.hostile import CLEAN_VALUES, REFUSED_VALUES, step_with

KEY = "0123456789abcdef0123456789abcdef"
CANARY = "canary-7f3a"
STATES = StateMap()


def policy(*rules: tuple[str, Action] | RedactionRule, key: str = KEY) -> Policy:
    """Return the policy with these rules, for any workflow."""
    made = [
        rule if isinstance(rule, RedactionRule) else RedactionRule(rule[0], rule[1])
        for rule in rules
    ]
    found = Redaction(made, key).policy("w")
    assert found is not None
    return found


def element(own: bytes) -> tuple[Raw, Members]:
    """Return one element as the decoder passes it on."""
    parts = split(b"[" + own + b"]")
    assert parts is not None
    ((raw, members),) = parts.elements
    assert members is not None
    return raw, members


def redacted(own: bytes, *rules: tuple[str, Action] | RedactionRule) -> bytes:
    """Return what these rules leave of a step."""
    return bytes(policy(*rules).step(*element(own)).own)


def after(value: object, *rules: tuple[str, Action] | RedactionRule) -> Any:
    """Return what these rules leave of a step, parsed."""
    return json.loads(redacted(json.dumps(value).encode(), *rules))


def hashed(text: str, key: str = KEY) -> str:
    """Return what a hash rule makes of this text."""
    return (
        "hmac-sha256:"
        + hmac.new(key.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    )


def decoded(body: bytes, rules: Policy | None) -> DecodedSteps:
    """Decode a response of the steps endpoint."""
    return decode_steps(body, workflow_id="w", run_id="r", states=STATES, policy=rules)


def test_actions() -> None:
    """Drop removes a member or leaves null in an array; mask and hash put a text in its place."""
    step = {"id": "s", "inputs": {"a": 1, "b": [1, {"c": 2}, 3], "d": "x"}}
    assert after(step, ("$.inputs.a", "drop")) == {
        "id": "s",
        "inputs": {"b": [1, {"c": 2}, 3], "d": "x"},
    }
    assert after(step, ("$.inputs.b[1]", "drop"))["inputs"]["b"] == [1, None, 3]
    assert after(step, ("$.inputs.b[*]", "mask"))["inputs"]["b"] == ["********"] * 3
    assert after(step, ("$.inputs", "drop")) == {"id": "s"}
    assert after(step, ("$.inputs.d", "hash"))["inputs"]["d"] == hashed("x")
    assert after(step, ("$.inputs.b", "hash"))["inputs"]["b"] == hashed('[1,{"c":2},3]')


def test_equal_values_have_equal_hashes() -> None:
    """Equal values have equal hashes: texts by their UTF-8, others in any order and spacing."""
    rule: tuple[str, Action] = ("$.v", "hash")
    assert redacted(b'{"id":"s","v":"gr\\u00fc\\u00df"}', rule) == redacted(
        '{"id":"s", "v": "gr\u00fc\u00df"}'.encode(), rule
    )
    assert redacted(b'{"id":"s","v":{"b":1.10,"a":[]}}', rule) == redacted(
        b'{"id":"s","v":{ "a" : [ ],"b" : 1.10}}', rule
    )
    assert json.loads(redacted(b'{"id":"s","v":{"b":1.10,"a":[]}}', rule))["v"] == hashed(
        '{"a":[],"b":1.10}'
    )
    assert json.loads(redacted(b'{"id":"s","v":"\\ud800"}', rule))["v"] == hashed("\ud800")
    assert policy(rule, key=KEY[::-1]).step(*element(b'{"id":"s","v":"x"}')).own != redacted(
        b'{"id":"s","v":"x"}', rule
    )


def test_a_hashed_value_is_not_hashed_again() -> None:
    """Redacting redacted data changes nothing, for any actions."""
    rules: list[tuple[str, Action]] = [
        ("$.a", "hash"),
        ("$.b", "mask"),
        ("$.c", "drop"),
        ("$.d[0]", "drop"),
    ]
    once = redacted(b'{"id":"s","a":[1.10],"b":1,"c":2,"d":[1,2]}', *rules)
    assert redacted(once, *rules) == once
    nearly = {"id": "s", "a": hashed("x").upper()}
    assert after(nearly, ("$.a", "hash"))["a"] == hashed(nearly["a"])


def test_the_outer_match_wins() -> None:
    """Nested matches are one removal in any order of rules; in one place the first rule counts."""
    step = {"id": "s", "inputs": {"messages": [{"role": "user", "content": "x"}]}}
    inner: tuple[str, Action] = ("$.inputs.messages[*].content", "hash")
    outer: tuple[str, Action] = ("$.inputs.messages", "mask")
    for rules in ((inner, outer), (outer, inner)):
        assert after(step, *rules)["inputs"] == {"messages": "********"}
    assert after(step, outer, ("$.inputs.messages", "drop"))["inputs"] == {"messages": "********"}
    assert after(step, ("$..*", "mask")) == {"id": "s", "inputs": "********"}


def test_members_that_hold_the_row_together_stay() -> None:
    """Id, node, status, times and tokens survive every path if they are plain values.

    User and organisation may be removed.
    """
    kept = dict.fromkeys(sorted(UNTOUCHED), "x")
    for action in ("drop", "mask", "hash"):
        assert (
            after({**kept, "user_id": "u", "organization_id": "o"}, ("$.*", action)).items()
            >= kept.items()
        )
    assert after({**kept, "user_id": "u"}, ("$.*", "drop")) == kept
    assert after({"id": "s", "status": {"text": CANARY}}, ("$.*", "mask")) == {
        "id": "s",
        "status": "********",
    }
    assert after({"id": "s", "inputs": {"id": CANARY}}, ("$..id", "mask")) == {
        "id": "s",
        "inputs": {"id": "********"},
    }


def test_filters_compare_numbers() -> None:
    """RFC 9535 filters compare numbers by value, also from their own text, and never with true."""
    body = (
        b'{"id":"s","v":[{"n":1.10},{"n":2},{"n":1e400},'
        b'{"n":123456789012345678901234567890},{"n":true},{"n":"2"}]}'
    )
    left = json.loads(redacted(body, ("$.v[?@.n > 1.5]", "drop")))["v"]
    assert [one and one["n"] for one in left] == [1.1, None, None, None, True, "2"]
    assert json.loads(redacted(body, ("$.v[?@.n == 1.1]", "drop")))["v"][0] is None
    left = json.loads(redacted(body.replace(b"1.10", b"1"), ("$.v[?@.n == 1]", "drop")))["v"]
    assert [one is None for one in left] == [True, False, False, False, False, False]
    assert after({"id": "s", "v": ["a@b.c", "x"]}, ("$.v[?search(@, '@')]", "mask"))["v"] == [
        "********",
        "x",
    ]


def test_rules_of_a_node() -> None:
    """A rule with a node applies only to that node's steps; one without applies to all rows."""
    rules = policy(RedactionRule("$.inputs", "drop", node="A"), ("$.outputs", "drop"))
    left = {}
    for node in ("A", "a", None):
        body = json.dumps({"id": "s", "node_id": node, "inputs": 1, "outputs": 2}).encode()
        left[node] = sorted(json.loads(bytes(rules.step(*element(body)).own)))
    assert left == {
        "A": ["id", "node_id"],
        "a": ["id", "inputs", "node_id"],
        None: ["id", "inputs", "node_id"],
    }
    row = b'{"id":"r","node_id":"A","inputs":1,"outputs":2}'
    assert json.loads(bytes(rules.run(*element(row)).own)) == {
        "id": "r",
        "node_id": "A",
        "inputs": 1,
    }


def test_rules_of_a_workflow() -> None:
    """A workflow gets its own rules and those for all; without any it has no policy."""
    redaction = Redaction(
        [RedactionRule("$.a", "drop", workflow="w1"), RedactionRule("$.b", "drop", workflow="w2")],
        KEY,
    )
    one, two = redaction.policy("w1"), redaction.policy("w2")
    assert one is not None
    assert two is not None
    assert redaction.policy("w3") is None
    assert set(redaction.policies) == {one.version, two.version}
    both = Redaction(
        [RedactionRule("$.a", "drop", workflow="w1"), RedactionRule("$.b", "drop")], KEY
    )
    assert [len(both.policy(name).rules) for name in ("w1", "w2")] == [2, 1]  # type: ignore[union-attr]
    assert Redaction().policy("w") is None


def test_the_version_follows_from_the_rules_effect() -> None:
    """The version depends only on the key, the actions, the nodes and the meaning of the paths.

    It is the same after every start.
    """
    base = policy(("$.a.b", "mask"))
    assert (
        base.version
        == policy(("$['a']['b']", "mask")).version
        == policy(RedactionRule("$.a.b", "mask", workflow="w")).version
    )
    assert base.version == "1ffe9606de80"
    others = [
        policy(("$.a.c", "mask")),
        policy(("$.a.b", "hash")),
        policy(RedactionRule("$.a.b", "mask", node="n")),
        policy(("$.a.b", "mask"), key=KEY[::-1]),
    ]
    assert len({base.version, *(other.version for other in others)}) == 5
    assert KEY not in base.rules_json
    assert json.loads(base.rules_json) == [{"node": None, "path": "$['a']['b']", "action": "mask"}]


@pytest.mark.parametrize(
    "value", CLEAN_VALUES + REFUSED_VALUES, ids=range(len(CLEAN_VALUES + REFUSED_VALUES))
)
def test_values_that_no_rule_matches_are_stored_unchanged(value: bytes) -> None:
    """Beside a removed member every value gives the same column, or is not kept at all.

    Values nested beyond Python's limit are not kept.
    """
    body = b"[" + step_with(value)[:-1] + b', "secret": "' + CANARY.encode() + b'"}]'
    with_rules = decoded(body, policy(("$.secret", "drop")))
    (before,) = decoded(body, None).steps
    if not with_rules.steps:
        (letter,) = with_rules.rejected
        assert (letter.reason, letter.body, letter.step_id) == ("not_redactable", b"", "s")
        assert value.count(b"[") + value.count(b"{") > 400
        return
    (step,) = with_rules.steps
    assert before.outputs is not None
    assert step.outputs is not None
    assert step.outputs.raw is None
    assert CANARY.encode() not in bytes(step.source)
    assert step.extra is None
    if (
        before.outputs.data is not None
        and b"\xff" not in value
        and (before.outputs.note or "").count("UTF-8") == 0
    ):
        assert step.outputs.data is not None
        assert same(bytes(step.outputs.data).decode(), bytes(before.outputs.data).decode())
    if before.outputs.note is not None and "control" not in before.outputs.note:
        assert step.outputs.note is not None
        assert step.outputs.note.endswith("; not kept: the workflow has redaction rules")


def same(one: str, other: str) -> bool:
    """Return whether two texts are the same JSON value, with numbers compared digit by digit."""

    def exact(text: str) -> Any:
        return json.loads(
            text, parse_int=lambda n: ("n", n), parse_float=lambda n: ("n", n), strict=False
        )

    return bool(exact(one) == exact(other))


_NUMBERS = st.one_of(
    st.integers().map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "-0.0", "1.10", "1e400", "9" * 5000]),
)
_TEXTS = st.text(st.characters(), max_size=8).map(lambda text: json.dumps(text))
_JSON = st.recursive(
    st.one_of(
        _NUMBERS,
        _TEXTS,
        st.sampled_from(["null", "true", "false", '"\\ud800"', '"\\udc00\\ud800"', '"\\/"']),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
        st.dictionaries(_TEXTS, inner, max_size=4).map(
            lambda members: (
                "{" + ",".join(f"{name} : {value}" for name, value in members.items()) + "}"
            )
        ),
    ),
    max_leaves=20,
)


@given(_JSON)
def test_untouched_values_are_exact(value: str) -> None:
    """Any value stays the same JSON value, digit by digit, after another member is removed."""

    def exact(text: bytes) -> Any:
        number = dict.fromkeys(
            ("parse_int", "parse_float", "parse_constant"), lambda n: ("number", n)
        )
        return json.loads(text.decode(), object_pairs_hook=list, **number)  # type: ignore[arg-type]

    left = redacted(f'{{"id":"s","kept":{value},"secret":{value}}}'.encode(), ("$.secret", "drop"))
    assert exact(left) == exact(f'{{"id":"s","kept":{value}}}'.encode())


def test_only_the_last_of_duplicate_members_is_left() -> None:
    """Of duplicate members only the last is left: no path finds an earlier one."""
    body = b'{"id":"s","inputs":{"text":"%s"},"inputs":{"other":1}}' % CANARY.encode()
    assert redacted(body, ("$.inputs.text", "mask")) == b'{"id":"s","inputs":{"other":1}}'


def test_unreadable_bytes_are_not_kept() -> None:
    """Unreadable bodies and elements leave only a keyed hash and a length.

    These are bodies that are not arrays, and elements that are malformed, too deep or no objects.
    """
    rules = policy(("$.inputs", "drop"))
    secret = CANARY.encode()
    deep = b'{"id":"deep","inputs":"%s","outputs":%s}' % (secret, b"[" * 3000 + b"]" * 3000)
    for body in (secret, b'{"detail":"%s"}' % secret, b"\xff" + secret, b"[" * 9 + secret):
        answer = decoded(body, rules)
        (letter,) = answer.rejected
        assert (answer.readable, letter.reason, letter.body) == (False, "not_an_array", b"")
        assert f"Its {len(body)} bytes are not kept" in letter.detail
        page = decode_page(body, policy=rules)
        assert [(one.reason, one.body, one.content_hash) for one in page.rejected] == [
            ("not_an_array", b"", letter.content_hash)
        ]
    elements = [
        b'"%s"' % secret,
        b'{"id":"cut","inputs":"%s' % secret + b'"',
        b'{"id": "%s" "a"}' % secret,
        deep,
    ]
    answer = decoded(
        b"[" + b",".join([elements[0], elements[2], deep, b'{"id":"s","inputs":1}']) + b"]", rules
    )
    assert [(one.reason, one.step_id) for one in answer.rejected] == [
        ("not_an_object", None),
        ("malformed", None),
        ("not_redactable", "deep"),
    ]
    assert [step.position for step in answer.steps] == [3]
    for one in answer.rejected:
        assert one.body == b""
        assert CANARY not in one.detail
        assert one.content_hash is not None
        assert len(one.content_hash) == 16
    assert len({one.content_hash for one in answer.rejected}) == 3
    expected = hmac.new(KEY.encode(), elements[0], hashlib.sha256).digest()[:16]
    assert answer.rejected[0].content_hash == expected
    with pytest.raises(NotRedactable):
        rules.step(*element(deep))


def test_bytes_of_dead_letters_are_redacted() -> None:
    """Dead letters for unusable or duplicate ids keep their bytes without the canary."""
    rules = policy(("$.inputs", "mask"))
    body = b'[{"id":7,"inputs":"%s"},{"id":"s","inputs":"%s","n":1},{"id":"s","inputs":"%s"}]' % (
        (CANARY.encode(),) * 3
    )
    answer = decoded(body, rules)
    assert [one.reason for one in answer.rejected] == ["unusable_id", "duplicate_id"]
    page = decode_page(body, policy=rules)
    assert [one.reason for one in page.rejected] == ["unusable_id", "duplicate_id"]
    assert [row if isinstance(row, str) else None for row in page.rows] == [None, "s", "s"]
    kept = [
        *(one.body for one in (*answer.rejected, *page.rejected)),
        page.runs[0].listing,
        bytes(answer.steps[0].source),
    ]
    for found in kept:
        assert b'"inputs":"********"' in found
        assert CANARY.encode() not in found


def test_columns_are_made_from_redacted_bytes() -> None:
    """Columns, an integration's error and unknown fields come from redacted bytes only.

    The record has the policy's version.
    """
    step = {
        "id": "s", "status": "completed", "error": {"text": CANARY}, "surprise": CANARY,
        "user_id": CANARY,
        "inputs": {"model": CANARY}, "outputs": {"result": {"error": CANARY, "successful": False}},
    }  # fmt: skip
    body = json.dumps([step]).encode()
    paths = ("$.error.text", "$.surprise", "$.user_id", "$.inputs.model", "$.outputs.result.error")
    rules = policy(*[(path, "hash") for path in paths])
    (before,) = decoded(body, None).steps
    (found,) = decoded(body, rules).steps
    assert before.reported_error == CANARY
    assert before.redaction_policy is None
    assert CANARY not in repr(found)
    assert found.redaction_policy == rules.version
    assert found.user_id == found.request_model == hashed(CANARY)
    assert found.reported_error == hashed(CANARY)


@pytest.mark.parametrize("action", ["mask", "hash"])
def test_empty_values_are_not_masked(action: Action) -> None:
    """Mask and hash keep null and empty values; false, 0 and blank strings are replaced."""
    nothing: list[Any] = [None, "", [], {}]
    for empty in nothing:
        step = {"id": "s", "error": empty, "inputs": {"a": empty}}
        assert after(step, ("$.error", action), ("$.inputs.a", action)) == step
    for value in (False, 0, " "):
        left = after({"id": "s", "inputs": {"a": value}}, ("$.inputs.a", action))["inputs"]["a"]
        assert left == (
            "********"
            if action == "mask"
            else hashed(value if isinstance(value, str) else json.dumps(value))
        )
    (match,) = policy(("$.error", action)).matches(*element(b'{"id":"s","error":null}'))
    assert (match.kind, match.applied) == ("null", False)


OUTCOMES: list[dict[str, Any]] = [
    {"error": None, "successful": True, "successfull": True},
    {"error": "", "successful": True},
    {"error": False, "successful": True},
    {"error": "no such channel", "successful": False},
    {"error": {"code": 404}},
    {"error": None, "successful": False},
    {"data": {"ok": True}, "successful": True},
]
PLACES = (
    "$.outputs.result.error", "$.outputs.result.successful",
    "$.outputs.result['error','successful','successfull']",
    "$.outputs.result.*", "$.outputs.result", "$.outputs", "$.outputs..*", "$.error", "$.*", "$..*",
    "$.inputs",
)  # fmt: skip


@pytest.mark.parametrize("action", ["drop", "mask", "hash"])
@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("result", OUTCOMES, ids=range(len(OUTCOMES)))
def test_rules_do_not_change_states(result: dict[str, Any], path: str, action: Action) -> None:
    """A rule does not change whether a step reports an error, nor its type, state and own error."""
    step = {
        "id": "s", "node_id": "n", "status": "completed", "error": None,
        "inputs": {"app_name": "slack", "action": "POST"},
        "outputs": {"result": result},
    }  # fmt: skip
    body = json.dumps([step]).encode()
    (before,) = decoded(body, None).steps
    (found,) = decoded(body, policy((path, action))).steps
    assert (found.reported_error is None) == (before.reported_error is None)
    assert (found.node_type, found.state, found.error) == (
        before.node_type,
        before.state,
        before.error,
    )
    if path in ("$.outputs.result.error", "$.outputs.result", "$.outputs"):
        assert found.reported_error != "no such channel"


@pytest.mark.parametrize(
    "path", ["$.error", "$.error.*", "$..*", "$[?@ != $.inputs]", "$.error[?search(@, '')]"]
)
@pytest.mark.parametrize("action", ["drop", "mask", "hash"])
def test_rules_neither_make_nor_remove_an_error(path: str, action: Action) -> None:
    """A rule neither makes nor removes an error of a step or run, and leaves none of its text."""
    errors: list[Any] = [
        "None", " null ", "n/a", "", False, 0, {}, [], [None], {"message": "None", "code": 0},
        {"error": {"message": None}},
        "canary", 7, True, ["canary"], {"message": "canary"}, {"message": "canary", "code": None},
    ]  # fmt: skip
    for error in errors:
        left = after({"id": "s", "error": error, "inputs": {}}, (path, action)).get("error")
        assert is_error(left) == is_error(error), (error, left)
        assert "canary" not in json.dumps(left) or path in ("$.error.*", "$.error[?search(@, '')]")
        assert (
            after({"id": "s", "error": left, "inputs": {}}, (path, action)).get("error") == left
            or action != "drop"
        )


def test_an_error_that_is_dropped_still_changes_the_hash() -> None:
    """A step that begins to report an error is written again, even if the rule drops the error."""
    hashes = set()
    for error in (None, "late"):
        body = json.dumps(
            [{"id": "s", "status": "completed", "outputs": {"result": {"error": error}}}]
        ).encode()
        (found,) = decoded(body, policy(("$.outputs.result.error", "drop"))).steps
        assert b"late" not in bytes(found.source)
        assert found.reported_error == (None if error is None else REMOVED_ERROR)
        hashes.add(found.content_hash)
    assert len(hashes) == 2


def test_a_model_call_stays_one() -> None:
    """A model step whose payload a rule removes is still a model call, with unknown tokens."""
    body = (
        b'[{"id":"s","outputs":{"object":"chat.completion","usage":{"total_tokens":3}},'
        b'"inputs":{"text":"\\ud800"}}]'
    )
    (found,) = decoded(body, policy(("$.outputs", "drop"))).steps
    assert (found.node_type, found.usage.total_tokens, found.outputs) == ("model", None, None)


def test_columns_are_read_from_what_jsonb_cannot_hold() -> None:
    """Model and tokens are read from a payload with a lone surrogate, whose bytes are not kept."""
    usage = b'{"model":"m","usage":{"total_tokens":3},"choices":[],"text":"\\ud800"}'
    (found,) = decoded(b"[" + step_with(usage) + b"]", policy(("$.secret", "drop"))).steps
    assert (found.response_model, found.usage.total_tokens) == ("m", 3)


def test_descendants_are_found_however_deep() -> None:
    """The descendant segment reaches 150 levels down."""
    nested = b'{"a":' * 150 + b'{"secret":1}' + b"}" * 150
    assert b"secret" not in redacted(b'{"id":"s","inputs":%s}' % nested, ("$..secret", "drop"))


def test_a_changed_policy_changes_the_hash() -> None:
    """The same step under other rules counts as changed, even if both leave the same bytes."""
    body = b'[{"id":"s","inputs":1}]'
    hashes = {
        decoded(body, rules).steps[0].content_hash
        for rules in (
            None,
            policy(("$.a", "mask")),
            policy(("$.b", "mask")),
            policy(("$.a", "mask"), key=KEY[::-1]),
        )
    }
    assert len(hashes) == 4


def test_a_listing_is_redacted_as_it_is_read() -> None:
    """A listing stored without rules loses what the rules forbid; a redacted one stays as it is."""
    row = b'{"id":"r","status":"completed","inputs":"%s","all_outputs":"%s"}' % (
        (CANARY.encode(),) * 2
    )
    rules = policy(("$.inputs", "hash"))
    (plain,) = decode_page(b"[" + row + b"]").runs
    listed = decode_single_run(row, "r", policy=rules)
    assert listed is not None
    assert CANARY.encode() not in listed.listing
    assert listed.listing_hash != plain.listing_hash
    runs = [decode_run(one.listing, states=STATES, policy=rules).run for one in (plain, listed)]
    assert runs[0] == runs[1]
    assert runs[0].redaction_policy == rules.version
    assert runs[0].inputs is not None
    assert runs[0].inputs.data == Raw(f'"{hashed(CANARY)}"'.encode())
    deep = b'{"id":"r","inputs":%s}' % (b"[" * 3000 + b"]" * 3000)
    with pytest.raises(NotRedactable):
        decode_run(deep, states=STATES, policy=rules)


def test_unstored_members_need_not_be_redactable() -> None:
    """With an unreadable `all_outputs` a row is still stored; no dead letter keeps any of it."""
    deep = b"[" * 3000 + b"]" * 3000
    rows = (
        b'{"id":"r","inputs":1,"all_outputs":%s}' % deep,
        b'{"id":7,"all_outputs":"%s"}' % CANARY.encode(),
    )
    page = decode_page(b"[" + b",".join(rows) + b"]", policy=policy(("$.inputs", "mask")))
    assert [run.listing for run in page.runs] == [b'{"id":"r","inputs":"********"}']
    assert [(one.reason, one.body) for one in page.rejected] == [("unusable_id", b'{"id":7}')]
    unredacted = decode_page(b"[" + b",".join(rows) + b"]")
    assert [one.body for one in unredacted.rejected] == [rows[1]]


def test_matches_name_places_and_never_values() -> None:
    """A preview has the place, kind and size of each match, whether it is removed, and no value."""
    rules = policy(
        ("$.inputs..content", "mask"),
        ("$.inputs.messages", "drop"),
        ("$.id", "mask"),
        ("$.none", "drop"),
    )
    body = b'{"id":"s","inputs":{"messages":[{"content":"%s"}],"content":1.10}}' % CANARY.encode()
    found = rules.matches(*element(body))
    assert [(one.rule, one.path, one.kind, one.size, one.applied) for one in found] == [
        (0, "$['inputs']['content']", "number", 4, True),
        (0, "$['inputs']['messages'][0]['content']", "string", 13, False),
        (1, "$['inputs']['messages']", "array", 27, True),
        (2, "$['id']", "string", 3, False),
    ]
    assert CANARY not in repr(found)


def test_one_policy_serves_several_threads(sample_steps: bytes) -> None:
    """Threads that redact at the same time get the result of a single thread."""
    rules = policy(("$..content", "mask"), ("$.inputs[?@ == 0.7]", "hash"))
    expected = decoded(sample_steps, rules)
    with ThreadPoolExecutor(8) as pool:
        assert all(
            found == expected
            for found in pool.map(lambda _: decoded(sample_steps, rules), range(200))
        )


# Settings


def refusal(folder: Path, toml: str, **environment: str) -> str:
    """Return the line with which this configuration is refused."""
    path = folder / "etl.toml"
    path.write_text(toml)
    with pytest.raises(ConfigurationError) as caught:
        load(path, environment).read_redaction_key()
    line = str(caught.value)
    assert "\n" not in line
    assert KEY not in line
    return line.replace(str(folder), "")


RULE = '[[redaction.rules]]\npath = "$.inputs"\naction = "mask"\n'


def test_identifiers_masked_by_the_api_are_not_hashed() -> None:
    """`hash` leaves a user's asterisks, and `mask` and `drop` do not; other members are hashed."""
    step = {"user_id": "2***1", "organization_id": "a", "v": "2***1", "x": {"user_id": "*"}}
    paths = ("$.user_id", "$.organization_id", "$.v", "$.x.user_id")
    left = after(step, *((path, "hash") for path in paths))
    assert left["user_id"] == "2***1"
    assert (left["organization_id"], left["v"]) == (hashed("a"), hashed("2***1"))
    assert left["x"] == {"user_id": hashed("*")}
    assert after(step, ("$.user_id", "mask"))["user_id"] == "********"
    assert "user_id" not in after(step, ("$.user_id", "drop"))


def test_rules_need_a_key(tmp_path: Path) -> None:
    """Rules without a usable key, or with a key in the file, are refused.

    The error names the command that makes a key.
    """
    assert "openssl rand -hex 32" in refusal(tmp_path, RULE)
    assert "ORCHESTRA_REDACTION_KEY" in refusal(tmp_path, RULE)
    assert "openssl rand -hex 32" in refusal(tmp_path, RULE, ORCHESTRA_REDACTION_KEY="short")
    assert "must not be in this file" in refusal(tmp_path, f'[redaction]\nkey = "{KEY}"\n{RULE}')
    assert "set twice" in refusal(
        tmp_path,
        RULE,
        ORCHESTRA_REDACTION_KEY=KEY,
        ORCHESTRA_REDACTION_KEY_FILE=str(tmp_path / "key"),
    )
    assert "cannot be read" in refusal(tmp_path, f'[redaction]\nkey_file = "missing"\n{RULE}')
    (tmp_path / "key").write_text(f"{KEY[:20]}\n")
    assert "openssl rand -hex 32" in refusal(tmp_path, f'[redaction]\nkey_file = "key"\n{RULE}')


def test_the_key_is_read_and_masked(tmp_path: Path) -> None:
    """The key comes from a file or from the environment, which wins, and is never shown."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    path = tmp_path / "etl.toml"
    path.write_text(f'[redaction]\nkey_file = "key"\n{RULE}')
    assert load(path, {}).read_redaction_key() == KEY
    other = load(path, {"ORCHESTRA_REDACTION_KEY": KEY[::-1]})
    assert other.read_redaction_key() == KEY[::-1]
    assert other.masked()["redaction"]["key"] == "********"
    assert KEY[::-1] not in repr(other)
    path.write_text("")
    listed = load(
        path,
        {
            "ORCHESTRA_REDACTION_KEY": KEY,
            "ORCHESTRA_ETL_REDACTION__RULES": '[{"path":"$.a","action":"drop"}]',
        },
    )
    assert [rule.path for rule in listed.redaction.rules] == ["$.a"]
    assert load(path, {}).read_redaction_key() == ""


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            '[[redaction.rules]]\npath = "$.a["\naction = "mask"',
            "redaction.rules no. 2.path: is not a valid JSONPath",
        ),
        (
            '[[redaction.rules]]\npath = "inputs"\naction = "mask"',
            "redaction.rules no. 2.path: is not a valid JSONPath",
        ),
        (
            '[[redaction.rules]]\npath = "$"\naction = "mask"',
            "redaction.rules no. 2.path: names the whole step",
        ),
        (
            '[[redaction.rules]]\npath = "$.a"\naction = "erase"',
            "redaction.rules no. 2.action: must be 'drop', 'mask' or",
        ),
        ('[[redaction.rules]]\npath = "$.a"', "redaction.rules no. 2.action: is missing"),
        (
            '[[redaction.rules]]\npath = "$.a"\naction = "drop"\nnode = ""',
            "redaction.rules no. 2.node: must not be empty",
        ),
        (
            '[[redaction.rules]]\npath = "$.a"\naction = "drop"\nworkflw = "w"',
            "did you mean redaction.rules.workflow?",
        ),
        (
            '[[redaction.rules]]\npath = "$.a"\naction = "drop"\nzzz = "w"',
            "known here: workflow, node, path, action",
        ),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, toml: str, expected: str) -> None:
    """The error says which rule is wrong, and how."""
    assert expected in refusal(tmp_path, RULE + toml, ORCHESTRA_REDACTION_KEY=KEY)


def test_without_rules_the_library_is_not_imported(tmp_path: Path) -> None:
    """Without rules, settings, decoding and help do not import the JSONPath library."""
    program = (
        "import sys; from etl import app, redacting, settings\n"
        "from etl.transform import decode, redact\n"
        "loaded = "
        f"settings.load(__import__('pathlib').Path({str(tmp_path / 'etl.toml')!r}), "
        f"{{}})\n"
        "redacting.open_redaction(loaded)\n"
        "import etl.cli.commands; etl.cli.commands.run(['redact', '--help'])\n"
        "assert not [name for name in sys.modules if 'jsonpath' in name]"
    )
    (tmp_path / "etl.toml").write_text("")
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=240)

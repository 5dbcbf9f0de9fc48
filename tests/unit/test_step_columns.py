"""A step or run of the usual form, decoded in one pass, is the same as when it is split."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from etl.records import MAX_ID_BYTES, DecodedRun
from etl.transform import runs
from etl.transform.fields import (
    MAX_ELAPSED_SECONDS,
    MAX_TEXT_CHARACTERS,
    MAX_TOKENS,
    Fields,
    Findings,
)
from etl.transform.payloads import may_be_refused
from etl.transform.scanner import check_utf8
from etl.transform.states import StateMap
from etl.transform.step_columns import StepColumns, Usual, read_columns, read_usual

_TEXTS = ("node_id", "status", "user_id", "organization_id")
_TIMES = ("start_time", "end_time")
_JSON = ("error", "step_metadata", "inputs", "outputs")
USUAL = {
    "id": "step-1",
    **dict.fromkeys(_TEXTS, "some text"),
    "start_time": "2025-03-13T02:41:15.144470Z",
    "end_time": "2025-03-13T02:41:16Z",
    "elapsed_time": 0.856,
    "tokens": 12,
    "error": None,
    "step_metadata": {"a": [1.10, 1e2]},
    "inputs": {"text": "hello"},
    "outputs": None,
}


def _both(step: bytes) -> tuple[StepColumns | None, StepColumns | None, Findings]:
    """Return the columns by both ways, and what the general way found wrong."""
    check_utf8(step)
    assert not may_be_refused(step)
    findings = Findings("step")
    members = msgspec.json.decode(step, type=dict[str, Raw])
    usual = read_usual(Raw(step), latest=findings.latest)
    id = msgspec.json.decode(members["id"]) if "id" in members else None
    if not isinstance(id, str):
        return usual, None, findings
    return usual, read_columns(Fields(id, members, findings, suspect=False), id), findings


def test_the_usual_form_is_read_in_one_pass() -> None:
    """A step as the API describes it is decoded in one pass, without any finding."""
    usual, general, findings = _both(msgspec.json.encode(USUAL))
    assert usual is not None
    assert usual == general
    assert not findings.drift


_TIME_TEXTS = st.sampled_from(
    [
        "", "2025-03-13", "2025-03-13T02:41:15", "2025-03-13 02:41:15.5Z", "1970-01-01T00:00:00Z",
        "2025-03-13T02:41:15.1444705Z", "2025-03-13T02:41:15+02:00", "9999-12-31T23:59:59.9999999Z",
        "2025-03-13t02:41:15z", "2025-13-13T02:41:15Z", "2001-01-02T11:59:59Z", "2098-12-31T00:00Z",
        "2025-03-13T24:00:00Z", "2025-03-13T02:41:60Z", "now",
    ]
)  # fmt: skip
_ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, MAX_TOKENS + 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([MAX_TOKENS, MAX_ELAPSED_SECONDS, -0.0, 1.0, 1e300, 2**70]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.sampled_from([MAX_TEXT_CHARACTERS, MAX_TEXT_CHARACTERS + 1, MAX_ID_BYTES]).map("é".__mul__),
    _TIME_TEXTS,
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text("ab", max_size=2), st.none(), max_size=2),
)


@given(
    changed=st.dictionaries(st.sampled_from(sorted(USUAL)), _ODD, max_size=3),
    times=st.dictionaries(st.sampled_from(_TIMES), _TIME_TEXTS),
    missing=st.sets(st.sampled_from(sorted(USUAL)), max_size=3),
    more=st.dictionaries(st.sampled_from(["model", "Id", ""]), _ODD, max_size=1),
)
def test_any_step_has_the_same_columns_by_both_ways(
    changed: dict[str, Any], times: dict[str, str], missing: set[str], more: dict[str, Any]
) -> None:
    """A step with any values is either read alike by both ways, or left to the general one."""
    step = {name: value for name, value in (USUAL | changed | times).items() if name not in missing}
    usual, general, findings = _both(msgspec.json.encode(step | more))
    if usual is not None:
        assert usual == general
        assert not findings.drift
        assert not findings.rejected


RUN = {name: value for name, value in USUAL.items() if name in Usual.__struct_fields__} | {
    "status": "completed"
}


def _both_runs(listing: bytes) -> tuple[bool, DecodedRun, DecodedRun]:
    """Return whether a row is of the usual form, and the run with and without the one pass."""
    states = StateMap()
    with patch.object(runs, "_read_usual", return_value=None):
        general = runs.decode_run(listing, states=states)
    is_usual = runs._read_usual(listing, states, None) is not None
    return is_usual, runs.decode_run(listing, states=states), general


@given(
    changed=st.dictionaries(
        st.sampled_from(sorted(RUN.keys() - {"id"})), _ODD | st.just("a\0"), max_size=3
    ),
    times=st.dictionaries(st.sampled_from(_TIMES), _TIME_TEXTS),
    missing=st.sets(st.sampled_from(sorted(RUN.keys() - {"id"})), max_size=3),
    more=st.dictionaries(st.sampled_from(["node_id", "tokens", "Id", ""]), _ODD, max_size=1),
)
@example(changed={"status": "hibernating"}, times={}, missing=set(), more={})
@example(changed={"user_id": "a\0"}, times={}, missing=set(), more={})
@example(changed={}, times={"start_time": "2025-03-13T02:41:15"}, missing=set(), more={})
@example(changed={}, times={}, missing=set(), more={"node_id": None})
def test_any_run_is_the_same_by_both_ways(
    changed: dict[str, Any], times: dict[str, str], missing: set[str], more: dict[str, Any]
) -> None:
    """A run's row with any values is decoded alike in one pass and member by member."""
    assert _both_runs(msgspec.json.encode(RUN))[0]
    row = {name: value for name, value in (RUN | changed | times).items() if name not in missing}
    _, found, general = _both_runs(msgspec.json.encode(row | more))
    assert found == general


@pytest.mark.parametrize("name", _JSON)
def test_json_keeps_its_spelling(name: str) -> None:
    """Numbers, spaces and duplicate keys of a JSON member stay byte for byte."""
    text = b'{ "a" : 1.10, "a":-0.0,"b":[1e2 ,"\\u00e9"] }'
    usual, general, _ = _both(b'{"id":"a","%s":%s}' % (name.encode(), text))
    assert usual is not None
    assert usual == general
    value = getattr(usual, name)
    assert text == (value.encode() if isinstance(value, str) else bytes(value.data))

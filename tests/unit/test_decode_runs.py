"""The run list, single runs and the list of workflows as records."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from etl.errors import ApiUnavailable
from etl.transform.runs import decode_page, decode_run, decode_single_run
from etl.transform.states import StateMap
from etl.transform.workflows import decode_workflows, node_types_of

BOM = b"\xef\xbb\xbf"
STATES = StateMap()

ROW = (
    b'{"id": "run-1", "status": "completed", "start_time": "2025-03-13T02:41:15.1Z", "end_time":'
    b' "2025-03-13 02:41:19+00:00", "elapsed_time": 4, "error": null, "outputs": "a '
    b'joke", "all_outputs": {"model": "long"},'
    b' "inputs": {"prompt": 1.10}}'
)


def test_page_keeps_rows_as_bytes() -> None:
    """A page gives its rows in order, each with its members' bytes and without `all_outputs`."""
    page = decode_page(b"[" + ROW + b', {"id": "run-0"}]')
    first, second = page.runs
    assert (first.id, second.id, len(page.rows), page.readable, page.rejected) == (
        "run-1",
        "run-0",
        2,
        True,
        (),
    )
    assert first.start_time == datetime(2025, 3, 13, 2, 41, 15, 100000, UTC)
    assert b'"inputs":{"prompt": 1.10}' in first.listing
    expected = json.loads(ROW)
    del expected["all_outputs"]
    assert json.loads(first.listing) == expected
    assert (second.listing, second.start_time) == (b'{"id":"run-0"}', None)


def test_listing_hash_ignores_what_only_grows() -> None:
    """The listing hash changes with any member except the elapsed time and repeated outputs.

    The elapsed time grows by itself.
    """

    def digest(row: bytes) -> bytes:
        return decode_page(b"[" + row + b"]").runs[0].listing_hash

    assert len(digest(ROW)) == 16
    assert (
        digest(ROW)
        == digest(ROW.replace(b'"elapsed_time": 4', b'"elapsed_time":5'))
        == digest(ROW.replace(b"long", b"l"))
    )
    assert digest(ROW) != digest(ROW.replace(b"completed", b"running"))
    assert digest(ROW) != digest(ROW.replace(b"1.10", b"1.1"))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"<html>", b"[" + ROW, b'{"detail": "no"}', b"nul", b"null null", b"NULL"]
)
def test_page_that_is_not_an_array(body: bytes) -> None:
    """A page that is not an array is unreadable, so it does not count as the end of the list."""
    page = decode_page(body)
    assert (page.readable, page.runs, len(page.rows)) == (False, (), 0)
    assert [(rejected.reason, rejected.body) for rejected in page.rejected] == [
        ("not_an_array", body)
    ]


def test_bad_rows_are_counted_and_block_no_other() -> None:
    """Rows that are not runs become dead letters and are counted, because paging counts rows.

    The other rows are stored.
    """
    broken = b'{"id": "x", "outputs": tru}'
    odd = b'{"id": "\\ud800"}'
    page = decode_page(b"[1, " + broken + b", " + odd + b", " + ROW + b', {"status": "completed"}]')
    assert ([run.id for run in page.runs], len(page.rows)) == (["run-1"], 5)
    assert [(r.reason, r.body) for r in page.rejected] == [
        ("not_an_object", b"1"),
        ("malformed", broken),
        ("unusable_id", odd),
        ("unusable_id", b'{"status": "completed"}'),
    ]


def test_run_listed_twice() -> None:
    """Equal rows of one run in a page are one row; of different ones the last is stored.

    The other one becomes a dead letter.
    """
    page = decode_page(b"[" + ROW + b"," + ROW + b"]")
    assert (len(page.runs), len(page.rows), page.rejected) == (1, 2, ())
    page = decode_page(b"[" + ROW + b"," + ROW.replace(b"completed", b"failed") + b"]")
    assert [decode_run(run.listing, states=STATES).run.status for run in page.runs] == ["failed"]
    assert [rejected.reason for rejected in page.rejected] == ["duplicate_id"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" + ROW + b"]",
        ROW,
        BOM + b" " + ROW,
        BOM + b"[" + ROW + b"]",
        b'[{"id":"o"},' + ROW + b"]",
    ],
)
def test_single_run(body: bytes) -> None:
    """The response for one run is found in a list and as a bare object."""
    listed = decode_single_run(body, "run-1")
    assert listed == decode_page(b"[" + ROW + b"]").runs[0]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b'[{"id": "other"}]', b'{"error": "no"}', b"<html>", ROW[:-1]]
)
def test_missing_single_run(body: bytes) -> None:
    """A response without that run gives None."""
    assert decode_single_run(body, "run-1") is None


def test_run_columns() -> None:
    """A run's row gives its columns, and its payloads in the response's own bytes."""
    answer = decode_run(decode_page(b"[" + ROW + b"]").runs[0].listing, states=STATES)
    run = answer.run
    assert (run.id, run.status, run.state, run.api_elapsed_seconds) == (
        "run-1",
        "completed",
        "succeeded",
        4.0,
    )
    assert run.start_time == datetime(2025, 3, 13, 2, 41, 15, 100000, UTC)
    assert run.end_time == datetime(2025, 3, 13, 2, 41, 19, tzinfo=UTC)
    assert (run.error, run.extra, run.user_id, answer.drift, answer.rejected) == (
        None,
        None,
        None,
        (),
        (),
    )
    assert run.inputs is not None
    assert run.outputs is not None
    assert (run.inputs.data, run.outputs.data) == (Raw(b'{"prompt": 1.10}'), Raw(b'"a joke"'))


def test_hostile_run() -> None:
    """A row in a list keeps every byte, and values that do not fit are kept and reported.

    Their dead letters name no step.
    """
    row = (
        b'{"id": "r", "status": "odd", "outputs": ["\\ud800", NaN, "\xff"], "error":"\\u0000",'
        b' "elapsed_time": "4", "\\ud800": 1}'
    )
    listing = decode_page(b"[" + row + b"]").runs[0].listing
    answer = decode_run(listing, states=STATES)
    assert answer.run.outputs is not None
    assert answer.run.outputs.raw == b'["\\ud800", NaN, "\xff"]'
    assert answer.run.outputs.data == Raw('["\\ufffd", "NaN", "\ufffd"]'.encode())
    assert (answer.run.state, answer.run.error) == ("unknown", '"\\ufffd"')
    assert json.loads(answer.run.extra or "") == {"elapsed_time": "4", "\ufffd": 1}
    assert [(r.reason, r.step_id, r.body) for r in answer.rejected] == [
        ("not_storable", None, b'"\\u0000"'),
        ("not_storable", None, b'{"elapsed_time":"4","\\ud800":1}'),
    ]
    assert sorted((drift.subject, drift.field, drift.kind) for drift in answer.drift) == [
        ("run", "elapsed_time", "wrong_type"),
        ("run", "status", "unknown_status"),
        ("run", "\ufffd", "unknown_field"),
    ]


def test_listing_of_nothing_is_refused() -> None:
    """Bytes that are not a run's row are a mistake of the caller."""
    for listing in (b"", b"1", b"{}", b'{"id": 1}', b'{"id": "a"}, {"id": "b"}'):
        with pytest.raises(ValueError, match="listing"):
            decode_run(listing, states=STATES)


def test_workflows() -> None:
    """Workflows give their columns and their nodes' types; a version may be a number."""
    body = (
        b'[{"workflow_id": "w1", "name": "jokes", "description": null, "version": 3, '
        b'"graph": {"nodes": [{"id": "m", "type":'
        b' "model"}], "x": 1.10}, "updated_at": "2025-03-12 00:59:55.465508+00:00"},'
        b' {"id": "w2", "version": "v2", "name": "a\\u0000", "updated_at": 5}, {"name": '
        b'"no id"}, 7]'
    )
    first, second = decode_workflows(body).workflows
    assert (first.id, first.name, first.description, first.version) == ("w1", "jokes", None, "3")
    assert first.graph == '{"nodes": [{"id": "m", "type": "model"}], "x": 1.10}'
    assert dict(first.node_types) == {"m": "model"}
    assert first.updated_at == datetime(2025, 3, 12, 0, 59, 55, 465508, tzinfo=UTC)
    assert (second.id, second.version, second.graph, second.name) == ("w2", "v2", None, "a\ufffd")
    assert second.updated_at is None


def test_null_is_a_list_without_elements() -> None:
    """`null` is an empty list of workflows or runs, as servers in Go write it."""
    assert decode_workflows(b"null").workflows == ()
    assert (decode_page(b"null\n").readable, decode_page(b"null\n").rows) == (True, ())


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b"[{}"])
def test_unreadable_workflows(body: bytes) -> None:
    """A list of workflows that is not an array is an error, and never an empty list."""
    with pytest.raises(ApiUnavailable):
        decode_workflows(body)


@pytest.mark.parametrize(
    ("graph", "types"),
    [
        (
            {"nodes": [{"id": "a", "type": "model"}, {"id": "b", "data": {"type": "code"}}]},
            {"a": "model", "b": "code"},
        ),
        ({"nodes": [{"id": "a", "type": "custom", "data": {"type": "code"}}]}, {"a": "code"}),
        (
            {"nodes": {"a": {"type": "model"}, "b": {"data": {"type": "code"}}, "c": 1}},
            {"a": "model", "b": "code"},
        ),
        (
            {
                "nodes": [
                    {"id": 1, "type": "model"},
                    {"id": "a", "type": 2},
                    {"type": "model"},
                    None,
                    "x",
                ]
            },
            {},
        ),
        ({"nodes": [{"id": "a", "data": "x"}]}, {}),
        ({"nodes": 5}, {}),
        ({}, {}),
        ([], {}),
        (None, {}),
    ],
)
def test_node_types_of_graphs(graph: object, types: dict[str, str]) -> None:
    """Node types are found in lists and mappings of nodes, in the node or in its data.

    Other shapes give none.
    """
    assert node_types_of(graph) == types

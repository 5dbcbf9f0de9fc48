"""The strings in a dead letter's bytes that can be the id of a run."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from etl.ledger.named_runs import naming, strings_of


@pytest.mark.parametrize(
    "body",
    [
        b'["r\\u00e9\\"1", 2]',
        json.dumps({"a": ["x", 'r\u00e9"1']}).encode(),
        json.dumps(json.dumps(json.dumps(['r\u00e9"1']))).encode(),
        # Not JSON: truncated after the id, begun inside a string, and with an extra quote before
        # it.
        b'[{"id": "r\\u00e9\\"1", "b": "cut o',
        b'e text", "id": "r\\u00e9\\"1"}]',
        b'x " y {"id": "r\\u00e9\\"1"',
    ],
    ids=["escaped", "as it is", "in strings", "cut off", "begun inside", "a quote too many"],
)
def test_an_id_is_found_however_it_is_written(body: bytes) -> None:
    """A whole string is found in each JSON spelling and in other bytes; a part of one is not."""
    assert 'r\u00e9"1' in set(strings_of(body))
    assert 'r\u00e9"' not in set(strings_of(body))


def test_a_truncated_string_is_no_id() -> None:
    """The beginning of a truncated string is no id, since it may belong to a longer one."""
    assert "run-1" not in set(strings_of(b'[{"id": "run-1'))


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "unclosed": lambda times: b'["' + b'\\"' * times,
    "no bracket": lambda times: b'["' + b'\\"' * times + b'"',
    "backslashes": lambda times: b'["' + b"\\" * (2 * times + 1),
    "quotes": lambda times: b'"' * times,
    "strings in strings": lambda times: json.dumps(
        [json.dumps(json.dumps(["x"]))] * (times // 100)
    ).encode()[:-1],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_take_work_by_their_length(kind: str) -> None:
    """Bytes that look like very many strings are scanned a few times, not once for each quote."""
    body = HOSTILE[kind](20_000)
    assert naming([("letter", body)], lambda strings: set()) == set()
    assert sum(map(len, strings_of(body))) <= 10 * len(body)

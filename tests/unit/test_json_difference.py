"""The first difference between two JSON values: which one it is, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.reports.json_difference import (
    LONGEST_PATH,
    LONGEST_VALUE,
    JsonDifference,
    first_difference,
)


def _text(value: Any) -> bytes:
    """Return JSON as PostgreSQL prints it: shorter names first."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        parts = (b"%b: %b" % (_text(name), _text(value[name])) for name in names)
        return b"{" + b", ".join(parts) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(map(_text, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode()


def _first(a: Any, b: Any, **own: Any) -> JsonDifference | None:
    return first_difference(_text(a), _text(b), **own)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
)


def _at(value: Any, path: str) -> Any:
    """Return the value at a path; KeyError or IndexError: it is missing."""
    rest = path.removeprefix("$")
    while rest:
        if rest[0] == "[":
            number, rest = rest[1:].split("]", 1)
            value = value[int(number)]
        elif rest[1] == '"':
            name, end = json.JSONDecoder().raw_decode(rest[1:])
            value, rest = value[name], rest[1 + end :]
        else:
            end = next((n for n, c in enumerate(rest[1:], 1) if c in ".["), len(rest))
            value, rest = value[rest[1:end]], rest[end:]
    return value


@given(VALUES, VALUES)
def test_a_difference_is_found_exactly_if_there_is_one(a: Any, b: Any) -> None:
    """Equal values have no difference; the path of another one leads to two different values."""
    assert first_difference(_text(a), _text(a)) is None
    found = _first(a, b)
    if found is None:
        assert _text(a) == _text(b)
        return
    for value, shown in ((a, found.a), (b, found.b)):
        if shown is None:
            with pytest.raises((KeyError, IndexError)):
                _at(value, found.path)
        elif len(shown) < LONGEST_VALUE:
            assert _text(json.loads(shown)) == _text(_at(value, found.path))
    assert found.a != found.b


@pytest.mark.parametrize(
    ("a", "b", "path"),
    [
        ({"bb": 1, "a": [0, 1]}, {"bb": 2, "a": [0, 2]}, "$.a[1]"),
        ({"a": {"x y": "1"}}, {"a": {"x y": "2"}}, '$.a."x y"'),
        ([1], [1, 2], "$[1]"),
        ({"a": 1}, {}, "$.a"),
        ({"a": {}}, {"a": []}, "$.a"),
        (True, 1, "$"),
    ],
)
def test_the_path_in_document_order(a: Any, b: Any, path: str) -> None:
    """The first difference in the order of `jsonb` is named by a path of jsonpath."""
    found = _first(a, b)
    assert found is not None
    assert (found.path, found.is_minor) == (path, False)


def test_numbers_are_compared_exactly() -> None:
    """1.1 equals 1.10, as in `jsonb`; numbers that a double cannot distinguish differ."""
    assert first_difference(b"[1.1]", b"[1.10]") is None
    long = b"123456789012345678901234567890"
    found = first_difference(long, long[:-1] + b"1")
    assert found is not None
    assert (found.a, found.b) == (long.decode(), long[:-1].decode() + "1")


OWN = ("0b2f0f64-run-a", "77aa-run-b")


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("id", 1, 2),
        ("run_id", "x", "y"),
        ("responseId", "x", "y"),
        ("ID", "x", "y"),
        ("createTime", "x", "y"),
        ("created_at", 1, None),
        ("latencyMs", 12, 13),
        ("ids", ["a", "b"], ["c"]),
        ("x", "5b69669f-975a-49af-a33a-61ff9ae5a20f", "7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("x", "2026-11-28T12:00:00.123Z", "2026-11-28T13:00:00+01:00"),
        ("x", f"/runs/{OWN[0]}/log", f"/runs/{OWN[1]}/log"),
    ],
)
def test_an_id_or_a_time_does_not_hide_another_difference(name: str, a: Any, b: Any) -> None:
    """A difference in an id or a time counts only if there is no other, before or behind it."""
    found = _first({name: a}, {name: b}, own_ids=OWN)
    assert found is not None
    assert found.is_minor
    for other in ("a", "zzzzzzzzzzzzzzz"):
        found = _first({name: a, other: "wet"}, {name: b, other: "dry"}, own_ids=OWN)
        assert found is not None
        assert (found.path, found.is_minor) == (f"$.{other}", False)


@pytest.mark.parametrize("name", ["paid", "valid", "grid", "idea", "content", "update", "format"])
def test_other_names_are_not_taken_for_ids_or_times(name: str) -> None:
    """A name that only ends in the letters of such a word is an ordinary member."""
    found = _first({name: "x"}, {name: "y"}, own_ids=OWN)
    assert found is not None
    assert not found.is_minor


def test_long_values_are_cut_around_the_difference() -> None:
    """Two long strings are cut so that both show where they differ; paths are bounded, too."""
    same = "🙂 and " * 1000
    found = _first({"a": f"{same}wet {same}"}, {"a": f"{same}dry {same}"})
    assert found is not None
    for shown, word in ((found.a, "wet"), (found.b, "dry")):
        assert shown is not None
        assert word in shown
        assert (shown[0], shown[-1]) == ("…", "…")
        assert len(shown) <= LONGEST_VALUE + 4
    found = _first({"a": "short"}, {"a": {"x": same}})
    assert found is not None
    assert (found.a, len(found.b or "")) == ('"short"', LONGEST_VALUE + 1)
    deep_a: Any = 1
    deep_b: Any = 2
    for number in range(150):
        deep_a, deep_b = {f"name{number}": deep_a}, {f"name{number}": deep_b}
    found = _first(deep_a, deep_b)
    assert found is not None
    assert len(found.path) == LONGEST_PATH + 1
    assert found.path.endswith(".name1.name0")


def test_too_deep_a_value_is_an_error_that_is_caught() -> None:
    """Nesting that cannot be read raises RecursionError, which the caller reports."""
    with pytest.raises(RecursionError):
        first_difference(b"[" * 9000 + b"1" + b"]" * 9000, b"[" * 9000 + b"2" + b"]" * 9000)

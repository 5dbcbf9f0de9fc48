"""Values that jsonb refuses, and their stored forms."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from etl.records import Payload
from etl.transform import payloads
from etl.transform.payloads import MAX_DEPTH, may_be_refused, payload, storable
from tests.hostile import CLEAN_VALUES, REFUSED_VALUES


@pytest.mark.parametrize("value", CLEAN_VALUES, ids=lambda value: repr(value[:40]))
def test_clean_values_stay_as_they_are(value: bytes) -> None:
    """A value that jsonb accepts is stored in its own bytes, whether suspected or not."""
    expected = Payload(Raw(value), len(value))
    assert payload(Raw(value), suspect=True) == expected
    assert payload(Raw(value), suspect=False) == expected


@pytest.mark.parametrize("value", REFUSED_VALUES, ids=lambda value: repr(value[:40]))
def test_refused_values_are_kept_exactly(value: bytes) -> None:
    """A value that jsonb refuses is stored in another form, with its exact bytes and a note."""
    stored = payload(Raw(value), suspect=True)
    assert stored.raw == value
    assert stored.size_bytes == len(value)
    assert stored.data is not None
    assert bytes(stored.data) != value
    assert stored.note is not None
    assert stored.note.startswith("jsonb cannot hold: ")


@pytest.mark.parametrize(
    ("value", "stored", "note"),
    [
        (rb'["a\u0000b", "\\u0000", "\\\u0000"]', r'["a\ufffdb", "\\u0000", "\\\ufffd"]', "NUL"),
        (
            rb'{"\ud800": "\uDC00 \ud83d\ude00"}',
            r'{"\ufffd": "\ufffd \ud83d\ude00"}',
            "a lone surrogate",
        ),
        (rb'"\ud83d\ud83d\ude00"', r'"\ufffd\ud83d\ude00"', "a lone surrogate"),
        (
            rb'{"a": NaN, "b": [-Infinity, 1]}',
            r'{"a": "NaN", "b": ["-Infinity", 1]}',
            "NaN or infinity",
        ),
        (
            rb'[1.50, 1e131072, "1e131072"]',
            r'[1.50, "1e131072", "1e131072"]',
            "a number beyond numeric",
        ),
        (rb"-1E-20000", r'"-1E-20000"', "a number beyond numeric"),
        (b'"a\xffb"', '"a\ufffdb"', "bytes that are not UTF-8"),
        (b'"a\nb\x00"', r'"a\u000ab\ufffd"', "an unescaped control character, NUL"),
        (rb'["\u0000", NaN]', r'["\ufffd", "NaN"]', "NUL, NaN or infinity"),
    ],
)
def test_only_the_refused_token_is_replaced(value: bytes, stored: str, note: str) -> None:
    """The text around a refused token keeps its spelling, and the note names the reason.

    Escaped backslashes keep theirs too.
    """
    assert storable(value) == (stored.encode(), f"jsonb cannot hold: {note}")


def test_deep_subtree_becomes_its_text() -> None:
    """A subtree beyond the depth limit is stored as a string; its neighbours stay JSON."""
    deep = b'{"a": ' + b"[" * 6_000 + rb'"x\u0000"' + b"]" * 6_000 + b', "b": [1.0]}'
    data, note = storable(deep)
    assert data is not None
    text = data.decode()
    assert text.endswith(', "b": [1.0]}')
    inner = json.loads(text[text.index('"[') : text.rindex(']"') + 2])
    assert inner == "[" * 1_001 + r'"x\u0000"' + "]" * 1_001
    assert note == "jsonb cannot hold: nesting beyond 5000 levels"


@pytest.mark.parametrize("value", REFUSED_VALUES, ids=lambda value: repr(value[:40]))
def test_every_refused_json_value_is_suspected(value: bytes) -> None:
    """The check of whole responses finds every JSON value that jsonb refuses in harmless text."""
    harmless = b'"3e12, 9e1234567-ab 0e+123456x C:\\\\u00 12345678901234567890"'
    for before in range(7):
        body = (
            b"["
            + harmless * before
            + b" " * before * 997
            + b", "
            + value
            + b","
            + harmless * 3
            + b"]"
        )
        if storable(value).note is not None and _is_valid(value):
            assert may_be_refused(body)


def test_harmless_text_is_not_suspected() -> None:
    """Ids, hashes, times and long digit texts do not send a response to the slow decoder."""
    values = [
        {
            "id": f"chatcmpl-{number:x}9e1234567a",
            "e": f"{number}e-123456a",
            "at": "2025-03-13T02:41:15.144470Z",
        }
        for number in range(10**30, 10**30 + 1_000)
    ]
    assert not may_be_refused(json.dumps(values).encode())
    assert not may_be_refused(json.dumps(["7" * 2_999 + "x"] * 50).encode())


def test_depth_is_that_of_the_brackets_outside_strings() -> None:
    """Brackets in strings neither make a flat response suspect nor hide the depth of a deep one."""
    strings = [rb'"[{"', rb'"\\"', rb'"\"["', rb'"]\\\"]"']
    assert not may_be_refused(b"[" + b",".join(strings * 3_000) + b"]")
    for string in strings:
        for levels, expected in ((MAX_DEPTH, False), (MAX_DEPTH + 1, True)):
            assert (
                may_be_refused((b"[" + string + b",") * levels + b"0" + b"]" * levels) is expected
            )


def test_too_large_for_jsonb_is_kept_as_bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value beyond jsonb's own limits has no JSON form, only its bytes."""
    monkeypatch.setattr(payloads, "_ALWAYS_FITS_BYTES", 1_000)
    monkeypatch.setattr(payloads, "_MAX_CONTAINER_BYTES", 20_000)
    monkeypatch.setattr(payloads, "_MAX_ELEMENTS", 1_000)
    many, long, fitting = (
        b"[" + b"1," * 1_001 + b"1]",
        b'"' + b"x" * 20_001 + b'"',
        b'"' + b"x" * 19_000 + b'"',
    )
    for value in (many, long):
        held = payload(Raw(value), suspect=may_be_refused(value))
        assert held == Payload(None, len(value), value, "too large for jsonb")
    assert payload(Raw(fitting), suspect=may_be_refused(fitting)) == Payload(
        Raw(fitting), len(fitting)
    )


def _is_valid(value: bytes) -> bool:
    """Return whether the value is JSON by the letter of the standard, at any depth."""
    try:
        value.decode()
        json.loads(value, parse_constant=_refuse, parse_int=str, parse_float=str)
    except RecursionError:
        return b"\\ud8" not in value and b"\x00" not in value
    except ValueError:
        return False
    return b"\\ud" not in value.lower()


def _refuse(constant: str) -> None:
    raise ValueError(constant)

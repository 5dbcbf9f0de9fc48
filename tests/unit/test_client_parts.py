"""The pure parts of the API client: times in headers, piecewise inflating, unsendable requests."""

from __future__ import annotations

import asyncio
import gzip
import math
import os
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import ConfigurationError, InvalidIdentifier
from etl.extract.client import OrchestraClient
from etl.extract.gunzip import PIECE_BYTES, Gunzip, gunzip
from etl.extract.http_dates import http_date, retry_after

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-30", 0.0),
        ("9" * 400, math.inf),
        ("inf", math.inf),
        ("Tue, 03 Nov 2026 12:00:30 GMT", 30.0),
        ("Tue, 03 Nov 2026 13:00:30 +0100", 30.0),
        ("Tue, 03 Nov 2026 12:00:30 -0000", 30.0),
        ("Tue, 03 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 33 Nov 2026 11:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -0100", None),
    ],
)
def test_retry_after_forms(header: str | None, seconds: float | None) -> None:
    """Every form of Retry-After gives seconds that are not negative, and garbage gives None."""
    assert retry_after(header, server_time=NOON) == seconds


def test_retry_after_date_without_server_time() -> None:
    """If the response has no Date, a Retry-After date counts from the machine's own clock."""
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = retry_after(header, server_time=None)
    assert seconds is not None
    assert 90 < seconds <= 100


@given(
    st.one_of(
        st.text(),
        st.from_regex(r"\w{3}, \d{1,9} \w{3} \d{1,9} \d{1,4}:\d{1,4}:\d{1,4} [+-]\d{1,9}"),
    )
)
def test_times_in_headers_never_raise(header: str) -> None:
    """No header makes reading a time raise, or return a negative pause."""
    moment = http_date(header)
    assert moment is None or moment.tzinfo is UTC
    seconds = retry_after(header, server_time=NOON)
    assert seconds is None or seconds >= 0


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 50))
def test_gunzip_returns_the_original_bytes(members: list[bytes], chunk_bytes: int) -> None:
    """One or several gzip members, cut anywhere, inflate to the original bytes."""
    body = b"".join(gzip.compress(member) for member in members)
    stream = Gunzip()
    chunks = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    assert b"".join(piece for chunk in chunks for piece in stream.feed(chunk)) == b"".join(members)
    assert stream.complete
    assert gunzip(body) == b"".join(members)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 50 * PIECE_BYTES])
def test_gunzip_pieces_are_bounded(size: int) -> None:
    """A chunk inflates in pieces of bounded size, including the last one."""
    for value in (bytes(size), os.urandom(size)):
        stream = Gunzip()
        pieces = list(stream.feed(gzip.compress(value)))
        assert b"".join(pieces) == value
        assert max(map(len, pieces)) <= PIECE_BYTES
        assert stream.complete


def test_gunzip_knows_a_truncated_stream() -> None:
    """A gzip stream cut at any byte never counts as complete."""
    body = gzip.compress(b'[{"id": "a"}, {"id": "b"}]')
    for length in range(len(body)):
        stream = Gunzip()
        list(stream.feed(body[:length]))
        assert not stream.complete, length


def test_gunzip_checks_the_checksum() -> None:
    """A body that inflates but was changed on the way is refused."""
    body = bytearray(gzip.compress(b"[1, 2, 3]"))
    body[-5] ^= 1
    with pytest.raises(zlib.error):
        list(Gunzip().feed(bytes(body)))


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../admin",
        "a\\..\\b",
        "a\0",
        "a\nb",
        "a\x7f",
        "a\x85",
        "\ud800",
        "x" * 2001,
    ],
)
def test_unusable_identifiers(identifier: str) -> None:
    """An id that would change the path's meaning is refused before sending, on a printable line."""

    async def refused() -> int:
        async with OrchestraClient("http://127.0.0.1:1", api_key=lambda: "key") as client:
            with pytest.raises(InvalidIdentifier) as workflow_refused:
                await client.run_page(identifier, offset=0, limit=1)
            with pytest.raises(InvalidIdentifier) as run_refused:
                await client.steps("w", identifier)
            assert str(workflow_refused.value).isprintable()
            assert str(run_refused.value).isprintable()
            return client.requests_sent

    assert asyncio.run(refused()) == 0


def test_an_unusable_base_url_is_refused() -> None:
    """A base URL that the HTTP library refuses is a configuration error that does not repeat it."""
    with pytest.raises(ConfigurationError) as refused:
        OrchestraClient("http://1.2.3.999/canary", api_key=lambda: "key")
    assert "canary" not in str(refused.value)

"""What the API client sends, when and how often, seen by a real server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.errors import (
    KeyRefused,
)
from tests.faults.loopback import (
    BODY,
    CANARY,
    answering,
    client_of,
    failed,
    fetched,
    message,
    run,
    serving,
)


@pytest.mark.parametrize(
    "value", ["3600", "9" * 500, "-5", "soon", "Fri, 31 Dec 2027 23:59:59 GMT", "nan"]
)
def test_retry_after_is_clamped(value: str) -> None:
    """For every Retry-After the pauses stay below the maximum, and all callers hold off as long."""
    holds: list[float] = []

    async def hold_off(seconds: float) -> None:
        holds.append(seconds)

    throttled = message(429, b"", f"Retry-After: {value}")
    started = time.monotonic()
    _, server = run(
        fetched(
            answering(throttled, throttled, message(200, BODY)), on_throttled=hold_off, max_wait=0.1
        )
    )
    assert time.monotonic() - started < 60
    assert len(server.heads) == 3
    assert len(holds) == 2
    assert all(0 <= seconds <= 0.1 for seconds in holds)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_after_is_honoured(status: int) -> None:
    """No attempt comes before the time in Retry-After, for any status."""
    _, server = run(
        fetched(
            answering(message(status, b"", "Retry-After: 0.3"), message(200, BODY)), max_wait=0.4
        ),
    )
    assert server.arrivals[1] - server.arrivals[0] >= 0.3


def test_all_callers_hold_off() -> None:
    """All callers hold off after a 429, and after a 503 with Retry-After, but no other failure.

    This holds for the last attempt too.
    """
    holds: list[float] = []

    async def hold_off(seconds: float) -> None:
        holds.append(seconds)

    async def count(*answers: bytes) -> int:
        holds.clear()
        await failed(answering(*answers), on_throttled=hold_off, attempts=2)
        return len(holds)

    assert run(count(message(429))) == 2
    assert run(count(message(503, b"", "Retry-After: 1"))) == 2
    assert run(count(message(503))) == 0
    assert run(count(message(500, b"", "Retry-After: 1"))) == 0


def test_times_of_a_response() -> None:
    """A response carries its own attempt's time of sending, and the server's Date in UTC."""
    ok = message(200, BODY, "Date: Tue, 03 Nov 2026 12:00:30 GMT")
    answer, server = run(fetched(answering(message(500), message(500), ok)))
    assert server.arrivals[1] < answer.requested_at <= server.arrivals[2]
    assert answer.server_time == datetime(2026, 11, 3, 12, 0, 30, tzinfo=UTC)
    assert run(fetched(answering(message(200, BODY, "Date: yesterday"))))[0].server_time is None


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "identity, gzip"])
def test_gzip_is_requested_and_inflated(encoding: str) -> None:
    """The client requests only gzip, and inflates it in a small body and in one of megabytes."""
    for body in (BODY, BODY * 100_000):
        answer, server = run(
            fetched(
                answering(message(200, gzip.compress(body, 1), f"Content-Encoding: {encoding}"))
            )
        )
        assert answer.body == body
        assert b"\r\naccept-encoding: gzip\r\n" in server.heads[0].lower()


@pytest.mark.parametrize(
    "key", ["", f"{CANARY}\n", f"{CANARY}\r\nX: y", f"{CANARY}é", f"{CANARY}\0"]
)
def test_a_key_that_no_header_can_carry(key: str) -> None:
    """A key that is empty or would break the header is refused without being sent or shown."""
    error, server = run(failed(answering(message(200, BODY)), api_key=lambda: key))
    assert type(error) is KeyRefused
    assert CANARY not in "".join(traceback.format_exception(error))
    assert server.heads == []


@pytest.mark.parametrize("header_name", ["Authorization", "Authentication", "X-Api-Key"])
def test_the_header_name_is_respected(header_name: str) -> None:
    """The key is sent as a bearer token in the configured header, and nowhere else."""
    _, server = run(fetched(answering(message(200, BODY)), header_name=header_name))
    assert f"\r\n{header_name}: Bearer {CANARY}\r\n".lower().encode() in server.heads[0].lower()
    assert server.heads[0].count(CANARY.encode()) == 1


def test_the_key_is_read_at_every_attempt() -> None:
    """A changed key takes effect at the next attempt."""
    keys = iter(["old", "new"])
    _, server = run(
        fetched(answering(message(500), message(200, BODY)), api_key=lambda: next(keys))
    )
    assert [b"Bearer old" in head for head in server.heads] == [True, False]
    assert b"Bearer new" in server.heads[1]


@pytest.mark.parametrize(
    "headers",
    [["X-Policy: " + "p" * 9_000], [f"X-{number}: y" for number in range(150)]],
    ids=["9 KB", "150"],
)
def test_large_headers_are_read(headers: list[str]) -> None:
    """A response with long or many headers, as proxies add them, is read like any other."""
    assert run(fetched(answering(message(200, BODY, *headers))))[0].body == BODY


@pytest.mark.parametrize(
    "headers",
    [["X-Policy: " + "p" * 70_000], [f"X-{number}: y" for number in range(300)]],
    ids=["70 KB", "300"],
)
def test_headers_beyond_the_limits_are_the_reason(headers: list[str]) -> None:
    """If the headers exceed the limits, the error says so and shows nothing of them."""
    error, _ = run(failed(answering(message(200, BODY, *headers)), attempts=1))
    assert "a header line of more than 65,536 bytes, or more than 256 headers" in str(error)
    assert "ppp" not in str(error)


def test_no_content_is_an_empty_list() -> None:
    """The status 204 means a list without elements."""
    assert run(fetched(answering(message(204))))[0].body == b"[]"


def test_cookies_are_not_kept() -> None:
    """A cookie of the server is not sent back, even on a reused connection."""

    async def check() -> None:
        ok = message(200, BODY, "Set-Cookie: tracked=yes; Path=/")
        async with (
            serving(answering(ok)) as server,
            client_of(server.url.replace("127.0.0.1", "localhost")) as client,
        ):
            await client.workflows()
            await client.workflows()
            assert len(server.heads) == 2
            assert b"cookie" not in server.heads[1].lower()

    run(check())


def test_no_more_in_flight_than_allowed() -> None:
    """Of many requests at once exactly `concurrency` reach the server together."""
    in_flight = [0, 0]

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        in_flight[0] += 1
        in_flight[1] = max(in_flight)
        await asyncio.sleep(0.02)
        in_flight[0] -= 1
        await answering(message(500) if number % 3 == 0 else message(200, BODY))(writer, number)

    async def check() -> None:
        async with (
            serving(respond) as server,
            client_of(server.url, concurrency=4, attempts=50) as client,
        ):
            answers = await asyncio.gather(
                *[client.steps("w", str(number)) for number in range(40)]
            )
            assert [answer.body for answer in answers] == [BODY] * 40

    run(check())
    assert in_flight[1] == 4


def test_a_pausing_request_frees_its_place() -> None:
    """While one request waits for its next attempt, others are sent in its place."""

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        slow_down = message(503, b"", "Retry-After: 3")
        await answering(slow_down if number == 0 else message(200, BODY))(writer, number)

    async def check() -> None:
        async with (
            serving(respond) as server,
            client_of(server.url, concurrency=1, max_wait=3) as client,
        ):
            throttled = asyncio.create_task(client.steps("w", "first"))
            await server.requested.wait()
            for run_id in ("second", "third", "fourth"):
                await client.steps("w", run_id)
            await throttled
            sent = [b"first", b"second", b"third", b"fourth", b"first"]
            assert [head.split(b"/")[4] for head in server.heads] == sent

    run(check())


def test_the_budget_is_used_before_every_attempt() -> None:
    """The hook runs once before each attempt; if it raises, nothing is sent."""
    heads_before: list[int] = []

    async def check() -> None:
        async with serving(answering(message(500), message(200, BODY))) as server:

            async def budget() -> None:
                heads_before.append(len(server.heads))
                if len(heads_before) == 3:
                    raise LookupError("no budget")

            async with client_of(server.url, before_request=budget) as client:
                await client.workflows()
                assert heads_before == [0, 1]
                with pytest.raises(LookupError):
                    await client.workflows()
                assert len(server.heads) == client.requests_sent == 2

    run(check())


def test_a_cancelled_request_frees_its_place() -> None:
    """A request cancelled while it waits for its response frees its place and its connection."""

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 0:
            await asyncio.sleep(10)
        await answering(message(200, BODY))(writer, number)

    async def check() -> None:
        async with serving(respond) as server, client_of(server.url, concurrency=1) as client:
            waiting = asyncio.create_task(client.workflows())
            await server.requested.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await client.workflows()).body == BODY

    run(check())


def test_the_environment_is_used_only_when_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment's proxy and netrc change nothing; with `trust_env` only the proxy is used."""

    async def check() -> None:
        async with (
            serving(answering(message(200, BODY))) as proxy,
            serving(answering(message(200, BODY))) as server,
        ):
            monkeypatch.setenv("http_proxy", proxy.url)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
            monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
            async with client_of(server.url) as client:
                await client.workflows()
            assert (len(server.heads), len(proxy.heads)) == (1, 0)
            async with client_of(server.url, trust_env=True) as client:
                await client.workflows()
            assert (len(server.heads), len(proxy.heads)) == (1, 1)
            assert proxy.heads[0].startswith(f"GET {server.url}/workflows HTTP/1.1".encode())
            assert f"Bearer {CANARY}".encode() in proxy.heads[0]
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            async with client_of(server.url, trust_env=True) as client:
                await client.workflows()
            assert (len(server.heads), len(proxy.heads)) == (2, 1)

    run(check())

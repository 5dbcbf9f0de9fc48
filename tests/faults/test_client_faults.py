"""The API client against refusals and broken, endless or dangerous responses of real servers."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import ssl
import struct
import traceback
from typing import Any

import aiohttp
import pytest

from etl.errors import (
    ApiError,
    ApiUnavailable,
    KeyRefused,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
    WorkflowRefused,
)
from etl.imports import certificates_unread
from tests.faults.loopback import (
    BODY,
    CANARY,
    CERTIFICATE,
    answering,
    client_of,
    failed,
    fetched,
    message,
    run,
    serving,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, KeyRefused),
        (403, WorkflowRefused),
        (404, NotFound),
        (400, RequestRefused),
        (410, RequestRefused),
        (206, RequestRefused),
        (304, RequestRefused),
        (600, RequestRefused),
    ],
)
def test_refusals_are_not_repeated(status: int, kind: type[ApiError]) -> None:
    """A permanent status ends the request at once, with the error that says what to do."""
    error, server = run(
        failed(answering(message(status, b"" if status == 304 else b"secret body")))
    )
    assert type(error) is kind
    assert not isinstance(error, RequestRefused) or error.status == status
    assert f"/workflows/w/runs/r/steps: {status}" in str(error)
    assert "secret body" not in str(error)
    assert len(server.heads) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_transient_statuses_are_repeated(status: int) -> None:
    """A transient status is retried, and the good response that follows is returned whole."""
    answer, server = run(
        fetched(answering(message(status, b"x"), message(status), message(200, BODY)))
    )
    assert answer.body == BODY
    assert len(server.heads) == 3


def test_attempts_end() -> None:
    """If no attempt succeeds, the error names the last cause after exactly the allowed attempts."""
    error, server = run(failed(answering(message(503)), attempts=3))
    assert type(error) is ApiUnavailable
    assert "status 503 (attempts: 3)" in str(error)
    assert len(server.heads) == 3


def test_key_refused_names_the_header_setting() -> None:
    """The error of a 401 names the header's setting: the vendor documents another header."""
    error, _ = run(failed(answering(message(401)), header_name="X-Key"))
    assert "`api.header_name` (now X-Key;" in str(error)
    assert "Authentication" in str(error)


def test_bodies_that_are_not_json_are_returned_unchanged() -> None:
    """A 200 with HTML or an empty body is a response: the client does not judge bodies."""
    for body in (b"<html>maintenance</html>", b""):
        assert (
            run(fetched(answering(message(200, body, "Content-Type: text/html"))))[0].body == body
        )


def test_a_broken_response_is_retried() -> None:
    """A truncated body and a body that is not gzip are retried until a good response comes."""
    truncated = message(200, BODY)[:-3]

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        answers = [truncated, message(200, BODY, "Content-Encoding: gzip"), message(200, BODY)]
        await answering(answers[number], close=number < 2)(writer, number)

    answer, server = run(fetched(respond))
    assert answer.body == BODY
    assert len(server.heads) == 3


def test_the_largest_response() -> None:
    """A body of exactly the limit is accepted and one byte more is refused without a retry.

    This holds for plain, chunked and compressed bodies.
    """

    def forms(body: bytes) -> list[bytes]:
        chunked = message(
            200,
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            "Transfer-Encoding: chunked",
            length=False,
        )
        return [
            message(200, body),
            chunked,
            message(200, gzip.compress(body), "Content-Encoding: gzip"),
        ]

    async def check() -> None:
        for whole in forms(b"x" * 50_000):
            assert (await fetched(answering(whole), max_response_bytes=50_000))[
                0
            ].body == b"x" * 50_000
        for whole in forms(b"x" * 50_001):
            error, server = await failed(answering(whole), max_response_bytes=50_000)
            assert type(error) is ResponseTooLarge
            assert "`api.max_response_bytes` (50,000)" in str(error)
            assert len(server.heads) == 1

    run(check())


def test_an_announced_excess_is_not_awaited() -> None:
    """A body whose Content-Length is beyond the limit is refused before it is sent.

    A client that waited for the body would wait for the deadline of an hour.
    """
    announced = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n"
    error, _ = run(failed(answering(announced), deadline=3600.0))
    assert type(error) is ResponseTooLarge


def test_connection_refused() -> None:
    """A refused connection is an unavailable API, with the system's error text and the address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        async def check() -> ApiError:
            async with client_of(url, attempts=2) as client:
                with pytest.raises(ApiUnavailable) as raised:
                    await client.workflows()
                assert client.requests_sent == 2
                return raised.value

        error = run(check())
    assert (
        f"GET {url}/workflows: cannot connect to {url.removeprefix('http://')} "
        "(Connection refused) (attempts: 2);"
        " check `api.base_url`" in str(error)
    )


def test_an_untrusted_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends nothing to a TLS server without a trusted certificate.

    If the environment trusts the certificate, the server responds.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))

    async def check() -> None:
        async with serving(answering(message(200, BODY)), tls=True) as server:
            async with client_of(server.url, attempts=1) as client:
                with pytest.raises(
                    ApiUnavailable,
                    match=r"the TLS certificate of 127\.0\.0\.1:\d+ is not trusted .*api\.base_url",
                ):
                    await client.workflows()
            assert server.heads == []
            async with client_of(server.url, trust_env=True) as client:
                assert (await client.workflows()).body == BODY

    run(check())


def test_certificates_that_a_library_does_not_need_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A context made while they are not read has none, and reads them when it connects."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with certificates_unread():
        context = ssl.create_default_context()
    assert context.cert_store_stats()["x509"] == 0

    async def check() -> None:
        async with (
            serving(answering(message(200, BODY)), tls=True) as server,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(server.url) as response,
        ):
            assert await response.read() == BODY

    run(check())


def test_an_error_is_not_read() -> None:
    """The client does not wait for the body of a refusal, however slow or long it is.

    A client that waited would wait for the deadline of an hour.
    """

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n{")
        await asyncio.sleep(3600)

    assert type(run(failed(respond, deadline=3600.0))[0]) is NotFound


@pytest.mark.parametrize("sent", [0, 20, -1])
def test_connection_reset(sent: int) -> None:
    """A connection reset before, in or after the head fails one attempt, and the next succeeds."""

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        if number > 1:
            await answering(message(200, BODY))(writer, number)
            return
        writer.write(message(200, BODY)[:sent])
        await asyncio.sleep(0.05)
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    answer, server = run(fetched(respond))
    assert answer.body == BODY
    assert len(server.heads) == 3


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0\xff" * 100,
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_response_that_is_not_http(garbage: bytes) -> None:
    """A response that is not HTTP is an unavailable API, never an unexpected error."""
    error, _ = run(failed(answering(garbage, close=True), attempts=2))
    assert type(error) is ApiUnavailable


def test_the_key_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """No failure puts the key into a text that an error, its causes or a log could show."""
    caplog.set_level(logging.DEBUG)
    broken = [
        message(200, BODY)[:-3],
        b"garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ]
    refused = [message(status, CANARY.encode()) for status in (401, 403, 404, 418, 302, 500, 429)]
    bomb = message(200, gzip.compress(bytes(5000)), "Content-Encoding: gzip")
    settings: dict[str, Any] = {"attempts": 2, "max_response_bytes": 1000, "deadline": 0.5}

    async def no_answer(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(10)

    async def errors() -> list[ApiError]:
        behaviours = [answering(answer, close=True) for answer in [*broken, *refused, bomb]]
        return [(await failed(respond, **settings))[0] for respond in [*behaviours, no_answer]]

    def chain(error: BaseException | None) -> list[BaseException]:
        return [error, *chain(error.__cause__), *chain(error.__context__)] if error else []

    for error in run(errors()):
        for link in chain(error):
            assert CANARY not in "".join([str(link), repr(link), repr(link.args), repr(vars(link))])
        assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in caplog.text

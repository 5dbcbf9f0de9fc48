"""The Orchestra API over HTTP: requests, retries, and the meaning of response statuses."""

from __future__ import annotations

import asyncio
import io
import random
import time
import zlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import aiohttp
import httpx

from etl.errors import (
    ApiUnavailable,
    ConfigurationError,
    KeyRefused,
    NotFound,
    RequestRefused,
    ResponseTooLarge,
    WorkflowRefused,
)
from etl.extract.gunzip import Gunzip, gunzip
from etl.extract.http_dates import http_date, retry_after
from etl.extract.transport import Transport, cause_of
from etl.identifiers import path_segment
from etl.records import ApiResponse

FIRST_BACKOFF_SECONDS = 0.5
"""The longest pause after the first failed attempt; it doubles after each further one."""

THREAD_FROM_BYTES = 1024 * 1024
"""Bodies this large or larger are inflated in a thread.

1 MB takes about 3 ms, for which the event loop would otherwise be blocked.
"""


class OrchestraClient:
    """Fetches complete responses from the API.

    Use a client within one event loop, and close it (`aclose`, or `async with`).

    Every request method raises, once its retries are used up: KeyRefused, WorkflowRefused,
    NotFound, RequestRefused, ResponseTooLarge, InvalidIdentifier (before anything is sent), and
    ApiUnavailable if no attempt returned a usable response. No error text contains the key or any
    part of a response body.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: Callable[[], str],
        header_name: str = "Authorization",
        concurrency: int = 16,
        deadline: float = 60.0,
        max_response_bytes: int = 256 * 1024 * 1024,
        trust_env: bool = False,
        attempts: int = 5,
        max_wait: float = 60.0,
        before_request: Callable[[], Awaitable[None]] | None = None,
        on_throttled: Callable[[float], Awaitable[None]] | None = None,
        on_request: Callable[[str, str, float], None] = lambda endpoint, status, seconds: None,
    ) -> None:
        """Prepare a client; it opens no connection before its first request.

        Args:
            base_url: the prefix of every request, without a trailing slash; the settings have
                validated it.
            api_key: called for every attempt, so that a changed key file takes effect at once.
            header_name: the header that carries `Bearer <key>`; the settings have validated it.
            concurrency: maximum number of requests in flight. A request that pauses before its
                next attempt does not count.
            deadline: seconds for one attempt, from connecting to the last byte of the body.
            max_response_bytes: the largest body, both as sent and decompressed.
            trust_env: take the proxy and the certificate authorities from the environment
                (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`, ...).
            attempts: maximum number of attempts for one request, the first one included.
            max_wait: the longest pause between two attempts, in seconds, even if the server
                requests a longer one.
            before_request: awaited right before every attempt, while the request already counts
                towards `concurrency`.
            on_throttled: awaited when the server requests a pause (429, or 503 with
                `Retry-After`), with the seconds for which all requests should pause.
            on_request: called after every attempt with the endpoint (`runs`, `run`, `steps`,
                `workflows`), the response's status, and the duration in seconds. Without a
                complete response, the status is `timeout`, `broken` or `cancelled`.

        Raises:
            ConfigurationError: the base URL is not a valid URL, or the environment's proxy or
                certificates cannot be used.
        """
        self._api_key = api_key
        self._key: str | None = None
        try:
            self._template = httpx.Request("GET", base_url)
        except httpx.InvalidURL:
            raise ConfigurationError("`api.base_url` is not a valid URL") from None
        self._base_url = str(self._template.url)
        self._header_name = header_name
        self._deadline = deadline
        self._max_response_bytes = max_response_bytes
        self._attempts = attempts
        self._max_wait = max_wait
        self._before_request = before_request
        self._on_throttled = on_throttled
        self._on_request = on_request
        self._in_flight = asyncio.Semaphore(concurrency)
        self._transport = Transport(base_url, trust_env=trust_env)
        self.requests_sent = 0
        """Attempts so far, including the failed ones."""
        self.has_responded = False
        """Whether any request returned a 2xx, which shows that the base URL is right."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def steps(self, workflow_id: str, run_id: str) -> ApiResponse:
        """Fetch the steps of one run: a JSON array."""
        return await self._get(
            f"/workflows/{path_segment(workflow_id)}/runs/{path_segment(run_id)}/steps", "steps"
        )

    async def run(self, workflow_id: str, run_id: str) -> ApiResponse:
        """Fetch one run's own row: a JSON array that contains it."""
        return await self._get(
            f"/workflows/{path_segment(workflow_id)}/runs/{path_segment(run_id)}", "run"
        )

    async def run_page(self, workflow_id: str, *, offset: int, limit: int) -> ApiResponse:
        """Fetch one page of a workflow's run list, newest first: a JSON array."""
        return await self._get(
            f"/workflows/{path_segment(workflow_id)}/runs?limit={limit}&offset={offset}", "runs"
        )

    async def workflows(self) -> ApiResponse:
        """Fetch the workflows that the key can see: a JSON array."""
        return await self._get("/workflows", "workflows")

    async def _get(self, path: str, endpoint: str) -> ApiResponse:
        """Send a request until it succeeds, is refused, or has no attempt left."""
        url = self._base_url + path
        failed_attempts = 0
        while True:
            try:
                async with self._in_flight:
                    if self._before_request is not None:
                        await self._before_request()
                    return await self._attempt(url, endpoint)
            except _NoResponse as error:
                # Handled outside this block, so that the final error does not refer to aiohttp's
                # errors: they print the request's headers, which contain the key.
                failure = error
            failed_attempts += 1
            pause = self._pause(failed_attempts, failure.retry_after)
            if failure.throttled and self._on_throttled is not None:
                await self._on_throttled(pause)
            if failed_attempts >= self._attempts:
                raise ApiUnavailable(
                    f"GET {url}: {failure.cause} (attempts: {failed_attempts}); "
                    f"{failure.advice}, or try again later"
                    if failure.advice
                    else f"GET {url}: {failure.cause} (attempts: {failed_attempts}); "
                    "try again later"
                )
            await asyncio.sleep(pause)

    def _pause(self, failed_attempts: int, retry_after_seconds: float | None) -> float:
        """Return the seconds until the next attempt.

        The jitter is added to the pause that the server requested. Otherwise all throttled clients
        would retry at the same moment.
        """
        jitter = random.uniform(
            0, min(self._max_wait, FIRST_BACKOFF_SECONDS * 2 ** (failed_attempts - 1))
        )
        return min(self._max_wait, (retry_after_seconds or 0.0) + jitter)

    async def _attempt(self, url: str, endpoint: str) -> ApiResponse:
        """Send one request; raise _NoResponse if another attempt may succeed."""
        request = self._request(url)
        self.requests_sent += 1
        requested_at = time.monotonic()
        status = "cancelled"
        try:
            # httpx has no total timeout: a body that arrives byte by byte never exceeds the
            # timeouts that it has.
            async with asyncio.timeout(self._deadline):
                response = await self._transport.handle_async_request(request)
                status = str(response.status_code)
                try:
                    server_time = http_date(response.headers.get("date"))
                    wait = retry_after(response.headers.get("retry-after"), server_time=server_time)
                    self._check_status(response.status_code, url, wait)
                    fetched = ApiResponse(
                        await self._body(response, url), requested_at, server_time
                    )
                    self.has_responded = True
                    return fetched
                finally:
                    await response.aclose()
        except TimeoutError:
            status = "timeout"
            raise _NoResponse(f"no complete response within {self._deadline:g} s") from None
        except (aiohttp.ClientError, OSError, zlib.error) as error:
            status = "broken"
            cause, advice = cause_of(error, httpx.URL(self._base_url))
            raise _NoResponse(cause, advice=advice) from None
        finally:
            self._on_request(endpoint, status, time.monotonic() - requested_at)

    def _request(self, url: str) -> httpx.Request:
        """Return a request with the current key, copied from a template.

        Building a request from scratch takes a seventh of a request's total time, half of it to
        parse the URL.
        """
        key = self._api_key()
        if key != self._key:
            if not key or not key.isascii() or not key.isprintable():
                raise KeyRefused(
                    "the API key is empty, or contains a character that an HTTP header cannot "
                    "contain: correct it"
                )
            headers = {
                self._header_name: f"Bearer {key}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": "orchestra-etl",
            }
            self._key, self._template = key, httpx.Request("GET", self._base_url, headers=headers)
        return _Request(self._template, url)

    def _check_status(self, status: int, url: str, retry_after_seconds: float | None) -> None:
        """Return if the body may be read; otherwise raise the error that the status means."""
        match status:
            # 206 carries only a part of the body; no request sends `Range`.
            case _ if 200 <= status < 300 and status != 206:
                return
            case 401:
                raise KeyRefused(
                    f"GET {url}: 401, the API refuses the key: check the key, and `api.header_name`"
                    f" (now {self._header_name}; some of the vendor's pages say Authentication)"
                )
            case 403:
                raise WorkflowRefused(
                    f"GET {url}: 403, this key may not read it: request access, or use another key"
                )
            case 404:
                raise NotFound(
                    f"GET {url}: 404, not found: check the id and `api.base_url`",
                    status,
                )
            case _ if status in {408, 425, 429} or 500 <= status < 600:
                throttled = status == 429 or (status == 503 and retry_after_seconds is not None)
                raise _NoResponse(f"status {status}", retry_after_seconds, throttled)
            case _ if 300 <= status < 400:
                raise RequestRefused(
                    f"GET {url}: {status}, redirects are not followed: check `api.base_url`", status
                )
            case _:
                raise RequestRefused(f"GET {url}: {status}, the API refuses the request", status)

    async def _body(self, response: httpx.Response, url: str) -> bytes:
        """Read and decompress the body.

        aiohttp itself raises if the body is shorter than the headers say.

        A compressed body is only measured while it arrives, and stays compressed: a body that
        inflates beyond the limit never takes more memory than was sent.
        """
        if response.status_code == 204:
            return b"[]"  # no content: an empty list
        encodings = [
            name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")
        ]
        encodings = [name for name in encodings if name not in {"", "identity"}]
        if encodings not in ([], ["gzip"], ["x-gzip"]):
            # With stacked encodings, 3 KB can become gigabytes.
            raise RequestRefused(
                f"GET {url}: the response's Content-Encoding is neither gzip nor identity"
            )
        limit = self._max_response_bytes
        if int(response.headers.get("content-length", 0)) > limit:
            raise _too_large(url, limit)
        stream = Gunzip() if encodings else None
        received = io.BytesIO()
        inflated_bytes = 0
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            received.write(chunk)
            if received.tell() > limit:
                raise _too_large(url, limit)
            for piece in stream.feed(chunk) if stream else ():
                inflated_bytes += len(piece)
                if inflated_bytes > limit:
                    raise _too_large(url, limit)
        body = received.getvalue()
        if stream is None:
            return body
        if not stream.complete:
            raise zlib.error("truncated")
        if inflated_bytes < THREAD_FROM_BYTES:
            return gunzip(body)
        return await asyncio.to_thread(gunzip, body)


class _Request(httpx.Request):
    """A copy of a request to another URL."""

    def __init__(self, template: httpx.Request, url: str) -> None:
        self.method = template.method
        self.url = _CheckedUrl(url)
        self.headers = template.headers
        self.stream = template.stream
        self.extensions = {}


class _CheckedUrl(httpx.URL):
    """A URL built from a validated base and escaped ids, which httpx need not parse.

    The transport reads only its text.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class _NoResponse(Exception):
    """An attempt returned no usable response; another attempt may."""

    def __init__(
        self,
        cause: str,
        retry_after_seconds: float | None = None,
        throttled: bool = False,
        *,
        advice: str = "",
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        """A status or a kind of failure that may be shown; never the text of a library's error."""
        self.advice = advice
        """What to check; empty if the cause needs no check."""
        self.retry_after = retry_after_seconds
        """Seconds for which the server requests a pause; None if it requests none."""
        self.throttled = throttled
        """Whether all requests should pause, not only this one."""


def _too_large(url: str, limit: int) -> ResponseTooLarge:
    return ResponseTooLarge(
        f"GET {url}: the response is larger than `api.max_response_bytes` ({limit:,})"
    )

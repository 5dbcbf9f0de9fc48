"""The simulator of the API: a real HTTP server that serves a generated history or recordings.

async with Simulator(History(seed=1)) as simulator: ...       # in the running event loop
with Simulator(History(seed=1)).in_thread() as simulator: ... # in a thread with its own loop
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http.client import responses
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import Handler

from etl.simulator.folder import Folder
from etl.simulator.history import History
from etl.simulator.misbehaviour import NONE, Endpoint, Misbehaviour, combine

BASE_PATH = "/api/v1/workflow"

DEFAULT_LIMIT = 100

LARGEST_LIMIT = 1000
"""The largest page: while the server builds a page, all other requests wait."""


class _Call(NamedTuple):
    """The resource that a request names."""

    endpoint: Endpoint
    workflow_id: str = ""
    run_id: str = ""


@dataclass
class _Active:
    """An active misbehaviour, and the number of requests that it has hit."""

    misbehaviour: Misbehaviour
    hits: int = 0


class _Refused(Exception):
    """A request that the server refuses with an error status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Simulator:
    """Serves `source` under `base_url` as the API does, except for the misbehaviours that are set.

    While it serves, any thread may read the public attributes and call the methods.

    Attributes:
        requests: number of requests by endpoint, successful or not.
        steps_requests: number of requests for steps by run id.
        responses: number of responses by status.
        request_times: `time.monotonic()` at the newest requests, at most 100,000.
        max_concurrency: the most requests that were in progress at the same time.
        steps_bodies: bytes to serve instead of a run's steps, by run id; the run need not exist.
    """

    def __init__(
        self,
        source: History | Folder,
        *,
        api_key: str = "simulated-key",
        auth_header: str = "Authorization",
        host: str = "127.0.0.1",
        port: int = 0,
        misbehaviours: Iterable[Misbehaviour] = (),
        seed: int = 0,
    ) -> None:
        """Configure a server; it starts when the context is entered.

        Args:
            source: the runs to serve.
            api_key: the key that requests must carry, in `auth_header` or in `Authentication`.
            auth_header: the header that carries the key.
            host: the address to listen on.
            port: the port to listen on; 0: any free port.
            misbehaviours: the misbehaviours to begin with.
            seed: decides which requests a misbehaviour with a probability hits.
        """
        self.source = source
        self.api_key = api_key
        self.auth_header = auth_header
        self.steps_bodies: dict[str, bytes] = {}
        self._host = host
        self._port = port
        self._random = Random(seed)
        self._runner: web.AppRunner | None = None
        self._concurrency = 0
        self.reset_counts()
        self.misbehave(*misbehaviours)

    @property
    def base_url(self) -> str:
        """The URL that the API's paths are appended to.

        Raises:
            RuntimeError: the server is not running.
        """
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("the simulator is not running")
        host, port = self._runner.addresses[0][:2]
        return (
            f"http://[{host}]:{port}{BASE_PATH}"
            if ":" in host
            else f"http://{host}:{port}{BASE_PATH}"
        )

    def misbehave(self, *misbehaviours: Misbehaviour) -> None:
        """Replace the active misbehaviours; without arguments, end them all."""
        self._misbehaviours = [_Active(misbehaviour) for misbehaviour in misbehaviours]

    def reset_counts(self) -> None:
        """Reset all counts to zero."""
        self.requests: Counter[Endpoint] = Counter()
        self.steps_requests: Counter[str] = Counter()
        self.responses: Counter[int] = Counter()
        self.request_times: deque[float] = deque(maxlen=100_000)
        self.max_concurrency = 0

    # Running

    async def __aenter__(self) -> Self:
        app = web.Application()
        routes: list[tuple[str, str, Endpoint]] = [
            ("GET", "/workflows", "workflows"),
            ("GET", "/workflows/{workflow_id}/runs", "runs"),
            ("GET", "/workflows/{workflow_id}/runs/{run_id}", "run"),
            ("GET", "/workflows/{workflow_id}/runs/{run_id}/steps", "steps"),
            ("POST", "/workflows/{workflow_id}/execute", "execute"),
        ]
        for method, path, endpoint in routes:
            app.router.add_route(method, BASE_PATH + path, self._handler(endpoint))
        app.router.add_route("*", "/{path:.*}", _no_such_path)
        # By default, a slow response would delay the shutdown for a minute.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Run the server in a thread with its own event loop.

        Raises:
            OSError: the server cannot listen on its address and port.
        """
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def serve() -> None:
            try:
                async with self:
                    stop = asyncio.Event()
                    started.set_result((asyncio.get_running_loop(), stop))
                    await stop.wait()
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)

        thread = threading.Thread(
            target=asyncio.run, args=(serve(),), name="simulator", daemon=True
        )
        thread.start()
        try:
            loop, stop = started.result()
            try:
                yield self
            finally:
                loop.call_soon_threadsafe(stop.set)
        finally:
            thread.join()

    # Responses

    def _handler(self, endpoint: Endpoint) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.requests[endpoint] += 1
            self.request_times.append(time.monotonic())
            self._concurrency += 1
            self.max_concurrency = max(self.max_concurrency, self._concurrency)
            try:
                call = _Call(endpoint, **request.match_info)
                if endpoint == "steps":
                    self.steps_requests[call.run_id] += 1
                wrong = self._draw(call) if self._misbehaviours else NONE
                if wrong.delay:
                    await asyncio.sleep(wrong.delay)
                response = await self._respond(request, call, wrong)
                self.responses[response.status] += 1
                if wrong.cut or wrong.drip_headers or wrong.drip_body:
                    return await _send_by_hand(request, response, wrong)
                return response
            finally:
                self._concurrency -= 1

        return handle

    def _draw(self, call: _Call) -> Misbehaviour:
        """Return the combined misbehaviours that hit this request."""
        hits = []
        for active in self._misbehaviours:
            misbehaviour = active.misbehaviour
            if (
                call.endpoint in misbehaviour.endpoints
                and misbehaviour.workflow_id in (None, call.workflow_id)
                and misbehaviour.run_id in (None, call.run_id)
                and (misbehaviour.count is None or active.hits < misbehaviour.count)
                and (
                    misbehaviour.probability >= 1
                    or self._random.random() < misbehaviour.probability
                )
            ):
                active.hits += 1
                hits.append(misbehaviour)
        return combine(hits)

    async def _respond(
        self, request: web.Request, call: _Call, wrong: Misbehaviour
    ) -> web.Response:
        status = 200
        content_type = "application/json"
        if wrong.status is not None or wrong.body is not None:
            status = wrong.status or 200
            content_type = wrong.content_type
            body = _error_body(responses.get(status, "Error")) if wrong.body is None else wrong.body
        else:
            try:
                self._check_key(request)
                body = await self._body(request, call, wrong)
            except _Refused as refusal:
                status, body = refusal.status, _error_body(refusal.detail)
            except KeyError:
                status, body = 404, _error_body("Not found")
        response = web.Response(
            status=status, body=body + b" " * wrong.pad_bytes, content_type=content_type
        )
        response.headers["Date"] = _http_date(int(self.source.now().timestamp()))
        response.headers.update(wrong.headers)
        return response

    def _check_key(self, request: web.Request) -> None:
        expected = f"Bearer {self.api_key}"
        if expected not in (
            request.headers.get(self.auth_header),
            request.headers.get("Authentication"),
        ):
            raise _Refused(401, "Missing or invalid API key")

    async def _body(self, request: web.Request, call: _Call, wrong: Misbehaviour) -> bytes:
        """Return the regular response body. Raises KeyError if the resource does not exist."""
        if call.endpoint == "execute":
            return self._execute(call.workflow_id, await request.read())
        if call.endpoint == "runs":
            limit = _count(request, "limit", DEFAULT_LIMIT, least=1, most=LARGEST_LIMIT)
            offset = _count(request, "offset", 0, least=0)
            if wrong.list_cap is not None:
                limit = max(0, min(limit, wrong.list_cap - offset))
            return self._page(call.workflow_id, limit, offset, wrong.grow_by)
        if call.endpoint == "steps" and call.run_id in self.steps_bodies:
            return self.steps_bodies[call.run_id]
        source = self.source
        if isinstance(source, Folder):
            if call.endpoint == "workflows":
                return source.read("workflows.json")
            return source.read(call.workflow_id, call.run_id, f"{call.endpoint}.json")
        if call.endpoint == "workflows":
            return msgspec.json.encode(source.workflows())
        if source.workflow_of(call.run_id) != call.workflow_id:
            raise KeyError(call.run_id)
        return msgspec.json.encode(
            source.steps(call.run_id) if call.endpoint == "steps" else [source.run(call.run_id)]
        )

    def _page(self, workflow_id: str, limit: int, offset: int, grow_by: int) -> bytes:
        if isinstance(self.source, Folder):
            return self.source.page(workflow_id, limit, offset)
        page = msgspec.json.encode(self.source.runs(workflow_id, limit, offset))
        if grow_by:
            self.source.add_runs(workflow_id, grow_by)
        return page

    def _execute(self, workflow_id: str, body: bytes) -> bytes:
        if isinstance(self.source, Folder):
            raise _Refused(404, "Recorded responses cannot be executed")
        try:
            inputs = msgspec.json.decode(body or b"{}", type=dict[str, object])
        except msgspec.DecodeError:
            raise _Refused(400, "The body must be a JSON object") from None
        [run_id] = self.source.add_runs(workflow_id, inputs=inputs)
        return msgspec.json.encode({"message": "Workflow execution started", "run_id": run_id})


async def _no_such_path(request: web.Request) -> web.Response:
    return web.Response(status=404, body=_error_body("Not found"), content_type="application/json")


def _error_body(detail: str) -> bytes:
    return msgspec.json.encode({"detail": detail})


def _count(
    request: web.Request, name: str, default: int, *, least: int, most: int | None = None
) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
    if number < least or (most is not None and number > most):
        raise _Refused(
            400,
            f"{name} must be an integer from {least}" + (f" to {most}" if most is not None else ""),
        )
    return number


@lru_cache(maxsize=8)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


class _Sent(web.StreamResponse):
    """A response whose bytes were already written, so that aiohttp sends nothing."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def _send_by_hand(request: web.Request, response: web.Response, wrong: Misbehaviour) -> _Sent:
    """Write the response as a broken server would, then close the connection."""
    transport = request.transport
    sent = _Sent(status=response.status)
    if transport is None:
        return sent
    body = response.body
    assert isinstance(body, bytes)
    head = [f"HTTP/1.1 {response.status} {response.reason}", "Connection: close"]
    head += [f"{name}: {value}" for name, value in response.headers.items()]
    if wrong.cut != "close":
        head.append(f"Content-Length: {len(body)}")
    parts = [
        ("\r\n".join(head) + "\r\n\r\n").encode("latin-1"),
        body[: len(body) // 2] if wrong.cut else body,
    ]
    if wrong.cut != "silent":
        for part, pause in zip(parts, (wrong.drip_headers, wrong.drip_body), strict=True):
            await _write(transport, part, pause)
    transport.close()
    return sent


async def _write(transport: asyncio.Transport, data: bytes, pause: float) -> None:
    if not pause:
        transport.write(data)
        return
    for byte in data:
        if transport.is_closing():
            return
        transport.write(bytes([byte]))
        await asyncio.sleep(pause)

"""Responses that are cut, slow, inflated or redirected, byte by byte from real loopback servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
import msgspec
import pytest

from etl.errors import ApiError, ApiUnavailable, RequestRefused
from etl.extract import client as client_module
from etl.extract.client import OrchestraClient
from etl.settings.api import ApiSettings
from etl.simulator.history import History
from etl.transform import decode as decode_module
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_page
from etl.transform.scanner import Element, elements
from etl.transform.states import StateMap
from etl.transform.tolerant_json import Malformed
from tests.faults.loopback import BODY, answering, client_of, failed, message, run, serving
from tests.faults.suite import Fault

# Fault 19: truncation


def _steps_readable(body: bytes) -> bool:
    return decode_steps(body, workflow_id="w", run_id="r", states=StateMap()).readable


def _page_readable(body: bytes) -> bool:
    return decode_page(body).readable


def _page() -> bytes:
    """Return a page of a run list."""
    history = History(
        seed=7, workflows=1, runs_per_workflow=3, steps_per_run=1, live=0, step_bytes=50
    )
    return msgspec.json.encode(history.runs(history.workflow_ids[0]))


def _chunked(body: bytes) -> bytes:
    first, second = body[: len(body) // 3], body[len(body) // 3 :]
    return b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(first), first, len(second), second)


FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "Content-Length": lambda body: message(200, body),
    "chunks": lambda body: message(200, _chunked(body), "Transfer-Encoding: chunked", length=False),
    "the end of the connection": lambda body: message(200, body, length=False),
    "gzip and the end of the connection": lambda body: message(
        200, gzip.compress(body), "Content-Encoding: gzip", length=False
    ),
}


async def _accepted(
    whole: bytes, readable: Callable[[bytes], bool], *, cuts: Sequence[int]
) -> list[str]:
    """Return the lengths to which a response was cut and still accepted.

    The whole response must be accepted.
    """
    async with (
        serving(answering(*(whole[:length] for length in cuts), whole, close=True)) as server,
        client_of(server.url, attempts=1) as client,
    ):
        taken = []
        for length in cuts:
            with contextlib.suppress(ApiUnavailable):
                if readable((await client.workflows()).body):
                    taken.append(f"cut to {length} of {len(whole)} bytes, and accepted")
        assert readable((await client.workflows()).body)
        assert len(server.heads) == len(cuts) + 1
        return taken


def take_what_there_is(body: bytes, **options: Any) -> Iterator[Element]:
    """Yield the elements that are there, whether or not the array ends."""
    try:
        found = list(elements(body, **options))
    except Malformed:
        found = list(elements(body[: body.rfind(b"}") + 1] + b"]", **options))
    return iter(found)


@pytest.mark.fault(19, "response cut at every byte", "C", guard="parsing to the last bracket")
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_cut_response_is_never_accepted(
    fault: Fault, framing: str, sample_steps: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real page or steps response, cut at any byte, is never accepted.

    This holds for each way to mark the end of the body.
    """
    steps = msgspec.json.encode(msgspec.json.decode(sample_steps, type=list[msgspec.Raw])[:1])
    for body, readable in ((_page(), _page_readable), (steps, _steps_readable)):
        whole = FRAMINGS[framing](body)
        assert run(_accepted(whole, readable, cuts=range(len(whole)))) == []
        fault.injected(len(whole))
    # The client refuses a response that ends before its frame. Without a frame only the parser can
    # tell.
    monkeypatch.setattr(decode_module, "elements", take_what_there_is)
    whole = FRAMINGS["the end of the connection"](sample_steps)
    fault.control(run(_accepted(whole, _steps_readable, cuts=range(0, len(whole), 50))))


@pytest.mark.fault(19, "response cut at every byte", "C", guard="parsing to the last bracket")
def test_a_cut_body_is_never_read(
    fault: Fault, sample_steps: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shortened part of a real response parses: none of its 4,440 bytes may be missing."""
    for length in range(len(sample_steps.rstrip())):
        assert not _steps_readable(sample_steps[:length])
    fault.injected(len(sample_steps))
    monkeypatch.setattr(decode_module, "elements", take_what_there_is)
    fault.control(
        [f"{n} bytes read" for n in range(len(sample_steps)) if _steps_readable(sample_steps[:n])]
    )


# Fault 20: dripping


class OwnTimeouts:
    """httpx's timeouts instead of the product's: each of them restarts with every byte."""

    def __init__(self, transport: Any, seconds: float) -> None:
        self._transport, self._seconds = transport, seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request with httpx's timeouts."""
        request.extensions["timeout"] = httpx.Timeout(self._seconds).as_dict()
        response: httpx.Response = await self._transport.handle_async_request(request)
        return response

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


class Drip(NamedTuple):
    """What a client did with a server whose response takes a second."""

    seconds: float
    ticks: int
    """Waits of 10 ms, one after the other, that ended before the client did.

    On a busy machine the client's own waits take longer, and these as much.
    """
    result: str
    """The error's text."""


async def _drip(dripped: str, *, deadline: float, own_timeouts: bool = False) -> Drip:
    """Return what a client does with a server that responds byte by byte, or never."""
    ticks = itertools.count()

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)
            next(ticks)

    async def respond(writer: asyncio.StreamWriter, number: int) -> None:
        whole = message(200, b" " * 100, "X-Long: " + "x" * 60)
        start = {"head": 0, "body": len(whole) - 100, "nothing": len(whole)}[dripped]
        writer.write(whole[:start] if dripped != "nothing" else b"")
        for position in range(start, len(whole)):
            writer.write(whole[position : position + 1])
            await writer.drain()
            await asyncio.sleep(0.01)
        await asyncio.sleep(10 if dripped == "nothing" else 0)

    async with (
        serving(respond) as server,
        client_of(server.url, deadline=deadline, attempts=2) as client,
    ):
        if own_timeouts:
            client._deadline = 60.0
            client._transport = OwnTimeouts(client._transport, deadline)  # type: ignore[assignment]
        ticking = asyncio.create_task(tick())
        started = time.monotonic()
        result = "a response"
        try:
            await client.steps("w", "r")
        except ApiError as error:
            result = str(error)
            assert len(server.heads) == 2
        seconds = time.monotonic() - started
        ticking.cancel()
        return Drip(seconds, next(ticks), result)


@pytest.mark.fault(20, "head or body dripped byte by byte", "B", guard="total deadline")
@pytest.mark.parametrize("dripped", ["head", "body", "nothing"])
def test_the_deadline_holds(fault: Fault, dripped: str) -> None:
    """A response that drips byte by byte, or never comes, takes no longer than two deadlines.

    They are 40 waits of 10 ms; up to 40 more are for the connections, and the pause between them.
    """
    found = run(_drip(dripped, deadline=0.2))
    assert found.seconds >= 0.4
    assert found.ticks < 80
    assert "no complete response within 0.2 s (attempts: 2)" in found.result
    fault.injected(2, note=f"{dripped}: {found.seconds:.1f} s for two of 0.2 s")
    found = run(_drip("body" if dripped == "nothing" else dripped, deadline=0.2, own_timeouts=True))
    fault.control([f"{found.seconds:.1f} s for one attempt"] if found.ticks >= 80 else [])


# Fault 21: bombs

MEASURE_BOMB = """
import asyncio, re, struct, sys, zlib
from etl.errors import ResponseTooLarge
from etl.extract.client import OrchestraClient

megabytes, limit = map(int, sys.argv[1:])
zeros = bytes(1024 * 1024)
deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
megabyte = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)
checksum = 0
for _ in range(megabytes):
    checksum = zlib.crc32(zeros, checksum)
trailer = struct.pack("<II", checksum, megabytes << 20)
bomb = b"\\x1f\\x8b\\x08" + bytes(6) + b"\\xff" + megabyte * megabytes + deflate.flush() + trailer

def peak():
    # Not getrusage: its figure starts at that of the process that forked this one.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

async def talk(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    head = b"HTTP/1.1 200 OK\\r\\nContent-Encoding: gzip\\r\\nContent-Length: %d\\r\\n\\r\\n"
    writer.write(head % len(bomb) + bomb)
    try:
        await writer.drain()
    except ConnectionError:
        pass
    writer.close()

async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    async with OrchestraClient(url, api_key=lambda: "key", max_response_bytes=limit) as client:
        before = peak()
        refused = False
        try:
            await client.workflows()
        except ResponseTooLarge:
            refused = True
        print(peak() - before, client.requests_sent, int(refused))
    server.close()

asyncio.run(main())
"""


def _bomb(megabytes: int, limit: int) -> tuple[float, int, bool]:
    """Return a bomb's memory in MB, the number of requests, and whether it was refused."""
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE_BOMB, str(megabytes), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    kilobytes, requests, refused = map(int, measured.stdout.split())
    return kilobytes / 1024, requests, bool(refused)


@pytest.mark.fault(21, "gzip bomb, stacked encodings", "B", guard="limit on the inflated size")
def test_a_bomb_needs_little_memory(fault: Fault) -> None:
    """A megabyte that inflates to a gigabyte is refused and adds less than 64 MB of memory.

    The limit is the default one.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("cannot measure a process's memory without /proc")
    megabytes, requests, refused = _bomb(1024, 256 << 20)
    assert (requests, refused) == (1, True)
    assert megabytes < 64
    fault.injected(1, note=f"1 GB: {megabytes:+.0f} MB")
    megabytes, _, _ = _bomb(200, 1 << 40)
    fault.control([f"200 MB: {megabytes:+.0f} MB"] if megabytes > 64 else [])


@pytest.mark.fault(21, "gzip bomb, stacked encodings", "B", guard="limit on the inflated size")
@pytest.mark.parametrize(
    "encoding", ["gzip, gzip", "gzip,identity,gzip", "br", "deflate", "zstd", "compress", "x"]
)
def test_unrequested_encodings(
    fault: Fault, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stacked and unknown encodings are refused without reading the body and without a retry."""
    body = gzip.compress(gzip.compress(BODY))
    twice = message(200, body, "Content-Encoding: gzip", "Content-Encoding: gzip")
    for answer in (message(200, body, f"Content-Encoding: {encoding}"), twice):
        error, server = run(failed(answering(answer)))
        assert type(error) is RequestRefused
        assert error.status is None
        assert len(server.heads) == 1
        fault.injected()

    async def read_anyway(self: OrchestraClient, response: httpx.Response, url: str) -> bytes:
        return b"".join([chunk async for chunk in response.aiter_raw()])

    monkeypatch.setattr(OrchestraClient, "_body", read_anyway)

    async def bytes_read() -> int:
        async with serving(answering(twice)) as server, client_of(server.url) as client:
            return len((await client.workflows()).body)

    fault.control([f"{run(bytes_read())} bytes read"])


# Fault 25: other targets

LEAVING = "redirects, other origins, `../` in an id"


async def _redirected(*, follow: bool) -> list[str]:
    """Return what another origin or path received of requests that were redirected."""
    problems = []
    async with serving(answering(message(200, BODY))) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            for target in (f"{elsewhere.url}/", "/other"):
                async with (
                    serving(answering(message(status, b"", f"Location: {target}"))) as server,
                    client_of(server.url) as client,
                ):
                    if follow:
                        client._transport = Following(  # type: ignore[assignment]
                            client._transport, elsewhere.url
                        )
                    try:
                        await client.steps("w", "r")
                        problems.append(f"{status} to {target}: followed")
                    except RequestRefused:
                        pass
                    if len(server.heads) != 1:
                        problems.append(f"{status} to {target}: {len(server.heads)} requests")
        problems += [f"elsewhere: {head[:40]!r}" for head in elsewhere.heads]
    return problems


class Following:
    """A transport that follows redirects to another origin."""

    def __init__(self, transport: Any, origin: str) -> None:
        self._transport, self._origin = transport, origin

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, and follow a redirect to the other origin."""
        response: httpx.Response = await self._transport.handle_async_request(request)
        target = response.headers.get("location", "")
        if not target.startswith(self._origin):
            return response
        await response.aclose()
        again: httpx.Response = await self._transport.handle_async_request(
            httpx.Request("GET", target, headers=request.headers)
        )
        return again

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


@pytest.mark.fault(25, LEAVING, "S", guard="no redirects, quoted ids")
def test_redirects_are_not_followed(fault: Fault) -> None:
    """A redirect to the same or another origin ends the request: the key goes nowhere else."""
    assert run(_redirected(follow=False)) == []
    fault.injected(10)
    fault.control(run(_redirected(follow=True)))


ODD_IDENTIFIERS = [
    *[
        "http://other.example/",
        "//other.example",
        "a/b",
        "a\\b",
        "?q=1",
        "#f",
        "%2E%2E",
        "%2e%2e%2f",
        "..%2f",
        "a%00",
    ],
    *[
        "...",
        "a b",
        "a+b",
        "é€😀",
        "\u202e",
        "a:b@c",
        "a;b=c",
        "!$&'()*,~",
        '<>"{}|^`[]',
        "x" * 2000,
    ],
]
REFUSED_IDENTIFIERS = [
    "..",
    ".",
    "../../admin",
    "a/../b",
    "..\\x",
    "/..",
    "a/.",
    "",
    "a\nb",
    "a\0",
    "\x7f",
    "\ud800",
]


async def _astray(prefix: str, identifiers: Sequence[str]) -> list[str]:
    """Return requests that missed the base URL's origin or path, or split the id."""
    base = prefix.rstrip("/").split("/")
    problems = []
    async with (
        serving(answering(message(200, BODY))) as server,
        client_of(ApiSettings(base_url=server.url + prefix).base_url) as client,
    ):
        host = f"\r\nhost: {server.url.removeprefix('http://')}\r\n".encode()
        for identifier in identifiers:
            server.heads.clear()
            try:
                await client.steps(identifier, "r")
                await client.run("w", identifier)
                await client.run_page(identifier, offset=20, limit=10)
            except ApiError as error:
                if identifier not in REFUSED_IDENTIFIERS or server.heads:
                    problems.append(f"{identifier!r}: {type(error).__name__}")
                continue
            targets = [head.split(b" ")[1].decode("ascii").partition("?") for head in server.heads]
            found = [[unquote(segment) for segment in path.split("/")] for path, _, _ in targets]
            if found != [
                [*base, "workflows", identifier, "runs", "r", "steps"],
                [*base, "workflows", "w", "runs", identifier],
                [*base, "workflows", identifier, "runs"],
            ]:
                problems.append(f"{identifier!r} led to {found}")
            if [query for _, _, query in targets] != ["", "", "limit=10&offset=20"]:
                problems.append(f"{identifier!r} changed the query")
            if not all(host in head.lower() for head in server.heads):
                problems.append(f"{identifier!r} changed the host")
    return problems


@pytest.mark.fault(25, LEAVING, "S", guard="no redirects, quoted ids")
@pytest.mark.parametrize("prefix", ["", "/", "/api/v1/workflow", "/api/v1/workflow/"])
def test_ids_stay_one_segment_of_the_path(
    fault: Fault, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each id arrives as one segment below the base URL, at its origin, or is not sent at all."""
    identifiers = ODD_IDENTIFIERS + REFUSED_IDENTIFIERS
    assert run(_astray(prefix, identifiers)) == []
    fault.injected(len(identifiers))
    monkeypatch.setattr(client_module, "path_segment", lambda identifier: identifier)
    fault.control(run(_astray(prefix, ["../../admin", "?q=1", "a/b"])))

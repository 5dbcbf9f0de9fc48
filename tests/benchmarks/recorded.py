"""The contenders' API: one process that serves prepared bytes and is never the bottleneck."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple

import msgspec
from aiohttp import web

from etl.simulator.history import History

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BASE_PATH = "/api/v1/workflow"


class Corpus(NamedTuple):
    """A history of finished runs of one workflow; equal arguments make equal bytes."""

    runs: int
    steps_per_run: int = 5
    step_bytes: int = 2000
    large_bytes: int = 0
    """Size of the outputs of each run's first step; 0: unchanged."""
    new: int = 0
    """The newest runs, which are listed last."""
    changing: int = 0
    """The runs before these: until all runs are listed, their last step is running."""

    def history(self) -> History:
        """Return the history."""
        return History(
            workflows=1,
            runs_per_workflow=self.runs,
            live=0,
            arrivals_per_minute=0,
            steps_per_run=self.steps_per_run,
            step_bytes=self.step_bytes,
            epoch=EPOCH,
        )


class Api(NamedTuple):
    """A served corpus."""

    base_url: str
    workflow_id: str
    steps: int
    """The number of steps of all runs."""
    body_bytes: int
    """The bytes of all responses with steps."""
    changing: tuple[str, ...]
    """The ids of the runs that change when all runs are listed."""

    def show(self, runs: int) -> None:
        """List only the oldest `runs` runs from now on."""
        urllib.request.urlopen(f"{self.base_url}/show/{runs}", timeout=10).close()

    def delay(self, seconds: float) -> None:
        """Delay every response by `seconds` from now on."""
        urllib.request.urlopen(f"{self.base_url}/delay/{seconds}", timeout=10).close()

    def requests(self) -> int:
        """Return the number of requests so far, without calls of `show`, `delay` and this one."""
        with urllib.request.urlopen(f"{self.base_url}/requests", timeout=10) as answer:
            return int(answer.read())


@contextmanager
def served(corpus: Corpus) -> Iterator[Api]:
    """Serve the corpus from its own process."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(corpus, theirs), daemon=True)
    process.start()
    try:
        yield Api(*ours.recv())
    finally:
        process.terminate()
        process.join()


def _serve(corpus: Corpus, ready: Connection) -> None:
    history = corpus.history()
    [workflow_id] = history.workflow_ids
    run_ids = history.run_ids(workflow_id)
    steps: dict[str, bytes] = {}
    rows: dict[str, bytes] = {}
    count = 0
    changing = run_ids[corpus.new : corpus.new + corpus.changing]
    history.freeze(EPOCH + timedelta(hours=1))
    for run_id in changing:
        history.reopen(run_id)
    steps_before = {run_id: msgspec.json.encode(history.steps(run_id)) for run_id in changing}
    rows_before = {run_id: msgspec.json.encode(history.run(run_id)) for run_id in changing}
    history.advance(timedelta(hours=1))
    for run_id in run_ids:
        found = history.steps(run_id)
        if corpus.large_bytes:
            found[0]["outputs"] = {"text": "All work and no play. " * (corpus.large_bytes // 22)}
        count += len(found)
        steps[run_id] = msgspec.json.encode(found)
        rows[run_id] = msgspec.json.encode(history.run(run_id))
    workflows = msgspec.json.encode(history.workflows())
    hidden = requests = 0
    pause = 0.0

    def answer(body: bytes) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(
            body=body, content_type="application/json", headers={"Date": formatdate(usegmt=True)}
        )

    def visible(after: dict[str, bytes], before: dict[str, bytes], run_id: str) -> bytes:
        return before[run_id] if hidden and run_id in before else after[run_id]

    async def all_workflows(request: web.Request) -> web.Response:
        return answer(workflows)

    async def page(request: web.Request) -> web.Response:
        await asyncio.sleep(pause)
        offset = int(request.query.get("offset", 0)) + hidden
        wanted = run_ids[offset : offset + int(request.query.get("limit", 100))]
        return answer(b"[" + b",".join([visible(rows, rows_before, one) for one in wanted]) + b"]")

    async def own_row(request: web.Request) -> web.Response:
        return answer(b"[" + visible(rows, rows_before, request.match_info["run"]) + b"]")

    async def own_steps(request: web.Request) -> web.Response:
        if pause:
            await asyncio.sleep(pause)
        return answer(visible(steps, steps_before, request.match_info["run"]))

    async def show(request: web.Request) -> web.Response:
        nonlocal hidden
        hidden = len(run_ids) - int(request.match_info["runs"])
        return web.Response()

    async def delay(request: web.Request) -> web.Response:
        nonlocal pause
        pause = float(request.match_info["seconds"])
        return web.Response()

    async def counted(request: web.Request) -> web.Response:
        return web.Response(text=str(requests))

    async def main() -> None:
        application = web.Application()
        for path, handler in (
            ("/workflows", all_workflows),
            ("/workflows/{workflow}/runs", page),
            ("/workflows/{workflow}/runs/{run}", own_row),
            ("/workflows/{workflow}/runs/{run}/steps", own_steps),
            ("/show/{runs}", show),
            ("/delay/{seconds}", delay),
            ("/requests", counted),
        ):
            application.router.add_get(BASE_PATH + path, handler)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}{BASE_PATH}"
        body_bytes = sum(map(len, steps.values()))
        ready.send((base_url, workflow_id, count, body_bytes, tuple(changing)))
        await asyncio.Event().wait()

    asyncio.run(main())

"""Large responses are decoded in a thread, so that the event loop can renew leases meanwhile."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.pipeline import known_workflows, reading, sweep
from etl.pipeline.decoding import LARGE, decoded
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.support import configuration, environment, load, query, sync

DECODERS = (
    (sweep, "decode_page"),
    (reading, "decode_run"),
    (reading, "decode_single_run"),
    (reading, "decode_steps"),
)


@pytest.mark.parametrize(("size", "beside"), [(1000, False), (1 << 20, True)])
def test_large_responses_are_decoded_in_a_thread(
    size: int, beside: bool, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses of a megabyte are decoded in a thread, and small ones in the event loop."""
    history = History(seed=5, workflows=2, runs_per_workflow=1, live=0, arrivals_per_minute=0)
    listed, named = history.workflow_ids
    for workflow_id in (listed, named):
        (run_id,) = history.run_ids(workflow_id)
        history.change_run(run_id, inputs={"text": "x" * size})
        history.change_step(run_id, history.steps(run_id)[0]["id"], inputs={"text": "x" * size})
    threads: dict[str, set[tuple[bool, bool]]] = {name: set() for _, name in DECODERS}

    def observed(name: str, decode: Callable[..., Any]) -> Callable[..., Any]:
        def work(body: bytes, *arguments: Any, **more: Any) -> Any:
            threads[name].add(
                (len(body) > 1 << 20, threading.current_thread() is not threading.main_thread())
            )
            return decode(body, *arguments, **more)

        return work

    for module, name in DECODERS:
        monkeypatch.setattr(module, name, observed(name, getattr(module, name)))
    with Simulator(history).in_thread() as simulator:
        toml = configuration(listed) + configuration(
            named, discover=False, runs=tuple(history.run_ids(named))
        )
        report = asyncio.run(
            sync(load(tmp_path, toml, environment(database_url, simulator.base_url)))
        )
    assert (report.exit_status, report.load.runs) == (0, 2)
    for name, seen in threads.items():
        # The empty page after the last one is small in both cases.
        assert {(beside, beside)} <= seen <= {(beside, beside), (False, False)}, name
    stored = query(
        database_url, "SELECT length(inputs ->> 'text') AS n FROM orchestra.run_payloads"
    )
    assert stored == [{"n": size}] * 2


def test_decoding_of_large_responses_leaves_threads_for_other_work() -> None:
    """Forty large responses are decoded one at a time, and other work still gets a thread."""
    at_once: list[int] = []
    running: list[int] = []
    go_on = threading.Event()

    def decode() -> None:
        running.append(1)
        at_once.append(len(running))
        go_on.wait(20)
        running.pop()

    async def work() -> None:
        decoding = [asyncio.create_task(decoded(LARGE + 1, decode)) for _ in range(40)]
        try:
            async with asyncio.timeout(10):
                await asyncio.to_thread(at_once.copy)
        finally:
            go_on.set()
            await asyncio.gather(*decoding)

    asyncio.run(work())
    assert set(at_once) == {1}
    assert len(at_once) == 40


def test_more_workflows_than_the_limit(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more workflows than the limit, the configured one and the first others are stored."""
    monkeypatch.setattr(known_workflows, "MAX_WORKFLOWS", 3)
    history = History(seed=5, workflows=1, runs_per_workflow=1, live=0, arrivals_per_minute=0)
    (own,) = history.workflow_ids
    described = [{"workflow_id": f"w{number}", "name": "n"} for number in range(9)] + [
        {"workflow_id": own, "name": "own"}
    ]
    with Simulator(history).in_thread() as simulator:
        simulator.misbehave(
            Misbehaviour(body=json.dumps(described).encode(), endpoints=("workflows",))
        )
        toml = configuration(own)
        assert (
            asyncio.run(
                sync(load(tmp_path, toml, environment(database_url, simulator.base_url)))
            ).exit_status
            == 0
        )
    stored = query(database_url, "SELECT id, name FROM orchestra.workflows ORDER BY id")
    assert sorted(one["id"] for one in stored) == sorted([own, "w0", "w1"])
    assert {"id": own, "name": "own"} in stored

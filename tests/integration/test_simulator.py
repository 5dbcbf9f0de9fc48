"""The simulator from a client's side: real requests over loopback, and all misbehaviours."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from etl.simulator.folder import Folder
from etl.simulator.history import History
from etl.simulator.misbehaviour import MISBEHAVIOURS, Misbehaviour
from etl.simulator.server import Simulator

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
SAMPLE = Path(__file__).parent.parent / "samples" / "steps.json"
KEY = {"Authorization": "Bearer simulated-key"}


@pytest.fixture
def history() -> History:
    """Provide a history of 130 runs a workflow whose clock stands still."""
    return History(3, runs_per_workflow=130, now=lambda: EPOCH)


@pytest.fixture
def simulator(history: History) -> Iterator[Simulator]:
    """Start a server of that history, in a thread."""
    with Simulator(history).in_thread() as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[httpx.Client]:
    """Provide a plain client that knows the key."""
    with httpx.Client(
        base_url=simulator.base_url, headers=KEY, trust_env=False, timeout=5
    ) as client:
        yield client


@pytest.fixture
def workflow_id(history: History) -> str:
    """Return the first workflow."""
    return history.workflow_ids[0]


@pytest.fixture
def steps_path(history: History, workflow_id: str) -> str:
    """Return the path of a finished run's steps."""
    return f"/workflows/{workflow_id}/runs/{history.run_ids(workflow_id, 1, 40)[0]}/steps"


def raw_response(
    simulator: Simulator,
    path: str,
    seconds: float = 60.0,
    until: Callable[[bytes], bool] = lambda received: False,
) -> bytes:
    """Return what the server sends until it closes, `seconds` are over, or `until` is true."""
    url = urlsplit(simulator.base_url)
    received = b""
    deadline = time.monotonic() + seconds
    with socket.create_connection((url.hostname, url.port)) as connection:
        request = (
            f"GET {url.path}{path} HTTP/1.1\r\nHost: x\r\n"
            "Authorization: Bearer simulated-key\r\n\r\n"
        )
        connection.sendall(request.encode())
        while not until(received) and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                data = connection.recv(65536)
            except TimeoutError:
                break
            if not data:
                break
            received += data
    return received


def test_every_endpoint_serves_the_history(
    history: History, client: httpx.Client, workflow_id: str, steps_path: str
) -> None:
    """Each endpoint serves the history's own objects as JSON, at the history's time."""
    [run_id] = history.run_ids(workflow_id, 1, 40)
    assert client.get("/workflows").json() == history.workflows()
    assert client.get(f"/workflows/{workflow_id}/runs").json() == history.runs(workflow_id, 100)
    assert client.get(f"/workflows/{workflow_id}/runs/{run_id}").json() == [history.run(run_id)]
    response = client.get(steps_path)
    assert response.json() == history.steps(run_id)
    assert response.headers["Content-Type"].startswith("application/json")
    assert parsedate_to_datetime(response.headers["Date"]) == EPOCH


def test_the_list_is_paged_as_documented(
    history: History, client: httpx.Client, workflow_id: str
) -> None:
    """The list has 100 rows from offset 0 by default, and an empty page after its end.

    An invalid limit or offset is a 400.
    """
    path = f"/workflows/{workflow_id}/runs"
    ids = history.run_ids(workflow_id)
    assert [row["id"] for row in client.get(path).json()] == ids[:100]
    for limit, offset in [
        (10, 0),
        (10, 10),
        (100, 100),
        (1000, 0),
        (1, 129),
        (5, 130),
        (5, 10**15),
    ]:
        page = client.get(path, params={"limit": limit, "offset": offset}).json()
        assert [row["id"] for row in page] == ids[offset : offset + limit]
    for bad in (
        "limit=0",
        "limit=-1",
        "limit=ten",
        "limit=1.5",
        "limit=",
        "limit=1001",
        "offset=-1",
        "offset=x",
    ):
        response = client.get(f"{path}?{bad}")
        assert response.status_code == 400, bad
        assert "detail" in response.json()


def test_the_key_is_required(simulator: Simulator, steps_path: str) -> None:
    """Either header accepts the right key; a wrong or missing key is a 401 on every endpoint."""
    workflow = steps_path.split("/runs")[0]
    with httpx.Client(base_url=simulator.base_url, trust_env=False) as client:
        for headers in (KEY, {"Authentication": "Bearer simulated-key"}):
            assert client.get(steps_path, headers=headers).status_code == 200
        for wrong in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": "simulated-key"},
            {"X-Key": "Bearer simulated-key"},
        ):
            responses = [
                client.get(path, headers=wrong)
                for path in ("/workflows", f"{workflow}/runs", steps_path)
            ]
            responses.append(client.post(f"{workflow}/execute", headers=wrong))
            assert {response.status_code for response in responses} == {401}
            assert all("detail" in response.json() for response in responses)


def test_another_header_name_can_be_required(history: History, steps_path: str) -> None:
    """A server with a header of its own refuses the standard one."""
    with Simulator(history, api_key="k", auth_header="X-Key").in_thread() as simulator:
        url = simulator.base_url + steps_path
        assert httpx.get(url, headers={"X-Key": "Bearer k"}, trust_env=False).status_code == 200
        assert (
            httpx.get(url, headers={"Authorization": "Bearer k"}, trust_env=False).status_code
            == 401
        )


def test_unknown_things_are_not_found(
    history: History, client: httpx.Client, workflow_id: str
) -> None:
    """An unknown workflow, run or path is a 404 in JSON, and so is a run of another workflow."""
    [run_id] = history.run_ids(workflow_id, 1)
    for path in (
        "/workflows/nobody/runs",
        f"/workflows/{workflow_id}/runs/nobody",
        f"/workflows/{workflow_id}/runs/nobody/steps",
        f"/workflows/{history.workflow_ids[1]}/runs/{run_id}/steps",
        f"/workflows/nobody/runs/{run_id}",
        "/elsewhere",
    ):
        response = client.get(path)
        assert response.status_code == 404, path
        assert "detail" in response.json()
    assert client.post("/workflows/nobody/execute", json={}).status_code == 404


def test_execute_starts_a_run(history: History, client: httpx.Client, workflow_id: str) -> None:
    """Executing a workflow starts a run with the given inputs at the head of the list."""
    response = client.post(f"/workflows/{workflow_id}/execute", json={"prompt": "Hi"}).json()
    assert response["message"] == "Workflow execution started"
    path = f"/workflows/{workflow_id}/runs"
    head = client.get(path, params={"limit": 1}).json()[0]
    assert (head["id"], head["status"], head["inputs"]) == (
        response["run_id"],
        "pending",
        {"prompt": "Hi"},
    )
    history.advance(timedelta(minutes=5))
    assert client.get(f"{path}/{response['run_id']}").json()[0]["end_time"] is not None
    for bad in (b"[1]", b"{", b"null"):
        assert client.post(f"/workflows/{workflow_id}/execute", content=bad).status_code == 400


def test_steps_can_be_replaced_by_any_bytes(
    simulator: Simulator, client: httpx.Client, steps_path: str
) -> None:
    """Replaced steps are served byte for byte, JSON or not, until the replacement is removed."""
    run_id = steps_path.split("/")[-2]
    true = client.get(steps_path).content
    for body in (b'[{"id": "\\ud800"}]', b"\xff\xfe", b""):
        simulator.steps_bodies[run_id] = body
        assert client.get(steps_path).content == body
    del simulator.steps_bodies[run_id]
    assert client.get(steps_path).content == true


def test_requests_are_counted(
    simulator: Simulator, client: httpx.Client, workflow_id: str, steps_path: str
) -> None:
    """The simulator counts requests by endpoint and run, responses by status, and their times."""
    for path in (
        steps_path,
        steps_path,
        f"/workflows/{workflow_id}/runs",
        "/workflows/nobody/runs",
    ):
        client.get(path)
    assert simulator.requests == {"steps": 2, "runs": 2}
    assert simulator.steps_requests == {steps_path.split("/")[-2]: 2}
    assert simulator.responses == {200: 3, 404: 1}
    assert list(simulator.request_times) == sorted(simulator.request_times)
    assert len(simulator.request_times) == 4
    assert simulator.max_concurrency == 1
    simulator.reset_counts()
    assert not simulator.requests
    assert not simulator.steps_requests


def test_it_serves_in_the_running_loop_and_sees_concurrency(
    history: History, steps_path: str
) -> None:
    """In an event loop, the simulator serves many requests at once and counts the overlap."""

    async def main() -> int:
        async with (
            Simulator(history, misbehaviours=[Misbehaviour(delay=0.2)]) as simulator,
            httpx.AsyncClient(base_url=simulator.base_url, headers=KEY, trust_env=False) as client,
        ):
            responses = await asyncio.gather(*(client.get(steps_path) for _ in range(8)))
            assert {response.status_code for response in responses} == {200}
            return simulator.max_concurrency

    assert asyncio.run(main()) == 8


def test_it_starts_again_and_reports_a_taken_port(history: History) -> None:
    """A simulator can restart; a port in use is an OSError, and a stopped server has no URL."""
    simulator = Simulator(history)
    for _ in range(2):
        with simulator.in_thread():
            port = urlsplit(simulator.base_url).port
            assert (
                httpx.get(
                    simulator.base_url + "/workflows", headers=KEY, trust_env=False
                ).status_code
                == 200
            )
            with pytest.raises(OSError), Simulator(history, port=port or 0).in_thread():
                pass
        with pytest.raises(RuntimeError):
            _ = simulator.base_url


def test_it_stops_at_once_despite_a_slow_response(history: History, steps_path: str) -> None:
    """A slow response does not delay the end."""
    with Simulator(history, misbehaviours=[Misbehaviour(delay=600)]).in_thread() as simulator:
        assert raw_response(simulator, steps_path, seconds=0.2) == b""
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 300


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_it_returns_an_error_status(
    simulator: Simulator, client: httpx.Client, steps_path: str, status: int
) -> None:
    """A status is returned as often as configured, with its headers, and then no more."""
    simulator.misbehave(
        Misbehaviour(status=status, headers={"Retry-After": "Tue, 99 Foo"}, count=2)
    )
    responses = [client.get(steps_path) for _ in range(3)]
    assert [response.status_code for response in responses] == [status, status, 200]
    assert responses[0].headers["Retry-After"] == "Tue, 99 Foo"
    assert "detail" in responses[0].json()
    assert "Retry-After" not in responses[2].headers


def test_misbehaviour_affects_only_its_target(
    simulator: Simulator, client: httpx.Client, history: History, workflow_id: str, steps_path: str
) -> None:
    """A misbehaviour for an endpoint, workflow or run leaves all other requests alone."""
    run_id = steps_path.split("/")[-2]
    other = history.workflow_ids[1]
    runs, other_runs = f"/workflows/{workflow_id}/runs", f"/workflows/{other}/runs"
    simulator.misbehave(Misbehaviour(status=403, workflow_id=workflow_id))
    assert [client.get(path).status_code for path in (runs, steps_path, other_runs)] == [
        403,
        403,
        200,
    ]
    simulator.misbehave(Misbehaviour(status=404, run_id=run_id))
    assert [client.get(path).status_code for path in (runs, steps_path, f"{runs}/{run_id}")] == [
        200,
        404,
        404,
    ]
    simulator.misbehave(
        Misbehaviour(status=500, endpoints=("runs",)), Misbehaviour(status=503, endpoints=("run",))
    )
    assert [client.get(path).status_code for path in (runs, steps_path, f"{runs}/{run_id}")] == [
        500,
        200,
        503,
    ]
    simulator.misbehave()
    assert client.get(runs).status_code == 200


def test_misbehaviour_can_be_random(
    simulator: Simulator, client: httpx.Client, steps_path: str
) -> None:
    """A probability affects about that share of the requests."""
    simulator.misbehave(Misbehaviour(status=500, probability=0.3))
    for _ in range(100):
        client.get(steps_path)
    assert 15 < simulator.responses[500] < 45
    assert simulator.responses.total() == 100


def test_it_can_be_slow(simulator: Simulator, client: httpx.Client, steps_path: str) -> None:
    """A delay passes before the first byte, in addition to other misbehaviour."""
    simulator.misbehave(Misbehaviour(delay=0.3), Misbehaviour(status=503))
    began = time.monotonic()
    assert client.get(steps_path).status_code == 503
    assert time.monotonic() - began >= 0.3


def test_it_drips_the_body(simulator: Simulator, client: httpx.Client, steps_path: str) -> None:
    """A body that drips byte by byte is complete in the end."""
    simulator.misbehave(Misbehaviour(drip_body=0.05))
    began = time.monotonic()
    received = raw_response(
        simulator, steps_path, until=lambda received: len(received.partition(b"\r\n\r\n")[2]) >= 8
    )
    taken = time.monotonic() - began
    head, _, part = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(part) <= 2 + taken / 0.05
    simulator.misbehave()
    true = client.get(steps_path).content
    simulator.misbehave(Misbehaviour(drip_body=0.000001))
    assert client.get(steps_path).content == true


def test_it_drips_the_headers(simulator: Simulator, steps_path: str) -> None:
    """Headers drip byte by byte, and stay incomplete for as long as a client waits."""
    simulator.misbehave(Misbehaviour(drip_headers=0.05))
    began = time.monotonic()
    received = raw_response(simulator, steps_path, until=lambda received: len(received) >= 8)
    taken = time.monotonic() - began
    assert len(received) <= 2 + taken / 0.05
    assert b"HTTP/1.1 200 OK".startswith(received[:15])


def test_it_cuts_the_body_short(
    simulator: Simulator, client: httpx.Client, steps_path: str
) -> None:
    """A body can be cut with or without Content-Length, or the response can be missing."""
    true = client.get(steps_path).content
    simulator.misbehave(Misbehaviour(cut="length"))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        client.get(steps_path)
    head, _, body = raw_response(simulator, steps_path).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(true)}".encode() in head
    assert body == true[: len(true) // 2]
    simulator.misbehave(Misbehaviour(cut="close"))
    response = client.get(steps_path)
    assert response.status_code == 200
    assert response.content == true[: len(true) // 2]
    with pytest.raises(json.JSONDecodeError):
        response.json()
    simulator.misbehave(Misbehaviour(cut="silent"))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        client.get(steps_path)
    simulator.misbehave()
    assert client.get(steps_path).content == true


def test_it_returns_html_or_broken_json(
    simulator: Simulator, client: httpx.Client, steps_path: str
) -> None:
    """HTML or broken JSON comes with status 200 and the given content type."""
    simulator.misbehave(
        MISBEHAVIOURS["html"], Misbehaviour(body=b"<html>", content_type="text/html")
    )
    response = client.get(steps_path)
    assert (response.status_code, response.content) == (200, b"<html>")
    assert response.headers["Content-Type"].startswith("text/html")
    simulator.misbehave(msgspec.structs.replace(MISBEHAVIOURS["malformed"], probability=1.0))
    response = client.get(steps_path)
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()


def test_it_pads_responses(simulator: Simulator, client: httpx.Client, workflow_id: str) -> None:
    """A padded response is longer by that size, and still the same JSON."""
    path = f"/workflows/{workflow_id}/runs?limit=5"
    true = client.get(path)
    simulator.misbehave(Misbehaviour(pad_bytes=3_000_000))
    padded = client.get(path)
    assert len(padded.content) == len(true.content) + 3_000_000
    assert padded.json() == true.json()


def test_the_list_can_be_capped(
    simulator: Simulator, client: httpx.Client, history: History, workflow_id: str
) -> None:
    """A capped list shows the newest 100 runs at any limit; older runs are still found by id."""
    simulator.misbehave(MISBEHAVIOURS["capped"])
    path = f"/workflows/{workflow_id}/runs"
    ids = history.run_ids(workflow_id)
    assert [row["id"] for row in client.get(path, params={"limit": 500}).json()] == ids[:100]
    assert [
        row["id"] for row in client.get(path, params={"offset": 90, "limit": 50}).json()
    ] == ids[90:100]
    assert client.get(path, params={"offset": 100}).json() == []
    assert client.get(f"{path}/{ids[-1]}/steps").status_code == 200


def test_the_list_can_grow_while_it_is_paged(
    simulator: Simulator, client: httpx.Client, history: History, workflow_id: str
) -> None:
    """Runs that start between two pages push rows down, so that a row appears twice."""
    simulator.misbehave(Misbehaviour(grow_by=4, endpoints=("runs",), count=1))
    path = f"/workflows/{workflow_id}/runs"
    first = [row["id"] for row in client.get(path, params={"limit": 10}).json()]
    second = [row["id"] for row in client.get(path, params={"limit": 10, "offset": 10}).json()]
    assert second[:4] == first[-4:]
    assert len(history.run_ids(workflow_id)) == 134


def test_a_server_can_serve_steps_alone(
    simulator: Simulator, client: httpx.Client, workflow_id: str, steps_path: str
) -> None:
    """A server can have the steps endpoint alone, without list, single run and workflows."""
    simulator.misbehave(MISBEHAVIOURS["steps-only"])
    run_path = steps_path.removesuffix("/steps")
    statuses = [
        client.get(path).status_code
        for path in ("/workflows", f"/workflows/{workflow_id}/runs", run_path)
    ]
    assert statuses == [404, 404, 404]
    assert client.get(steps_path).status_code == 200


def test_every_named_misbehaviour_has_an_effect(
    simulator: Simulator, client: httpx.Client, workflow_id: str, steps_path: str
) -> None:
    """Each named misbehaviour changes or delays some response."""

    def request_all() -> list[Any]:
        seen: list[Any] = []
        for path in ("/workflows", f"/workflows/{workflow_id}/runs?limit=130", steps_path):
            try:
                response = client.get(path)
            except httpx.TransportError as error:
                seen.append(type(error))
            else:
                seen.append(
                    (response.status_code, response.content, response.headers["Content-Type"])
                )
        return seen

    honest = request_all()
    for name, misbehaviour in MISBEHAVIOURS.items():
        simulator.misbehave(msgspec.structs.replace(misbehaviour, probability=1.0))
        if name in ("slow", "dripping", "dripping-headers"):
            assert len(raw_response(simulator, steps_path, seconds=0.2)) < len(honest[2][1]) / 2, (
                name
            )
        else:
            assert request_all() != honest or request_all() != honest, name


def test_a_folder_is_served_byte_for_byte(tmp_path: Path) -> None:
    """A folder serves each recorded response byte for byte, and 404 for all others.

    A changed file shows at once.
    """
    run = tmp_path / "flow" / "run"
    run.mkdir(parents=True)
    shutil.copy(SAMPLE, run / "steps.json")
    with (
        Simulator(Folder(tmp_path)).in_thread() as simulator,
        httpx.Client(base_url=simulator.base_url, headers=KEY, trust_env=False) as client,
    ):
        assert client.get("/workflows/flow/runs/run/steps").content == SAMPLE.read_bytes()
        missing = [
            "/workflows",
            "/workflows/flow/runs",
            "/workflows/flow/runs/run",
            "/workflows/flow/runs/other/steps",
        ]
        assert [client.get(path).status_code for path in missing] == [404] * 4
        assert client.post("/workflows/flow/execute", json={}).status_code == 404
        (run / "steps.json").write_bytes(b"[ ]")
        (run / "run.json").write_bytes(b'[{"id": "run"} ]')
        (tmp_path / "workflows.json").write_bytes(b"[\n]")
        assert client.get("/workflows/flow/runs/run/steps").content == b"[ ]"
        assert client.get("/workflows/flow/runs/run").content == b'[{"id": "run"} ]'
        assert client.get("/workflows").content == b"[\n]"


def test_a_folders_list_is_paged(tmp_path: Path) -> None:
    """A recorded list is cut into pages, each row as it was recorded."""
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "runs.json").write_bytes(
        b'[{"id":"c", "n": 1.10}, {"id":"b"}, {"id":"a","id":"a"}]'
    )
    with (
        Simulator(Folder(tmp_path)).in_thread() as simulator,
        httpx.Client(base_url=simulator.base_url, headers=KEY, trust_env=False) as client,
    ):
        path = "/workflows/flow/runs"
        assert client.get(f"{path}?limit=2").content == b'[{"id":"c", "n": 1.10},{"id":"b"}]'
        assert client.get(f"{path}?limit=2&offset=2").content == b'[{"id":"a","id":"a"}]'
        assert client.get(f"{path}?offset=3").content == b"[]"


def test_a_folder_shows_nothing_outside_itself(tmp_path: Path) -> None:
    """An id that contains a path never yields a file outside the folder."""
    (tmp_path / "steps.json").write_bytes(b"secret")
    (tmp_path / "inside").mkdir()
    folder = Folder(tmp_path / "inside")
    for names in (
        ("..", "steps.json"),
        ("../steps.json",),
        (str(tmp_path / "steps.json"),),
        ("", "x"),
        ("a\0b",),
    ):
        with pytest.raises(KeyError):
            folder.read(*names)
    with Simulator(folder).in_thread() as simulator:
        assert b"secret" not in raw_response(
            simulator, "/workflows/%2e%2e/runs/%2e%2e%2f%2e%2e/steps", seconds=0.3
        )
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "nowhere")

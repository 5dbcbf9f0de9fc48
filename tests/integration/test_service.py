"""The service and its polls: schedules, refused keys, lost databases and slow runs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psycopg
import pytest
import structlog.testing

from etl import alerting, app
from etl.alerts import delivery
from etl.database import Database
from etl.errors import DatabaseUnavailable, KeyRefused
from etl.ledger import sweeps
from etl.ledger.claims import Claim
from etl.pipeline import batches, poll
from etl.pipeline.decoding import DecodingGroup
from etl.pipeline.loading import Loader, LoadReport
from etl.pipeline.reading import Reader, Reading
from etl.service.daemon import Daemon, Pace, Schedule
from etl.service.health import BEAT_LIMIT, Health
from etl.settings import Settings
from etl.signals import Stop
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.oracle import differences
from tests.receiver import receiver
from tests.support import (
    configuration,
    environment,
    free_port,
    load,
    query,
    slow,
    sync,
    wait_in_loop,
)

Scenario = Callable[[Daemon, Health], Awaitable[None]]
QUICK = Pace(tick=0.1, prepare=0.3, refresh=0.3, observe=0.1, key_pause=0.5, clock_check=1.0)
"""The service's intervals, cut to a tenth or less."""
CLAIMED = "SELECT run_id FROM orchestra_etl.run_ledger WHERE leased_until IS NOT NULL"
SECONDS = 30.0
"""The limit for a shutdown, for a busy machine: waiting for the database would take 120 seconds."""


class World:
    """A server with two workflows of fifteen finished runs each, a database, and their settings."""

    def __init__(self, folder: Path, url: str, history: History, simulator: Simulator) -> None:
        self.folder, self.url, self.history, self.simulator = folder, url, history, simulator
        self.workflow_ids = list(history.workflow_ids)

    def settings(self, *, toml: str | None = None, **more: str) -> Settings:
        """Return settings that never retry a request."""
        variables = environment(
            self.url, self.simulator.base_url, **{"ORCHESTRA_ETL_API__ATTEMPTS": "1", **more}
        )
        return load(self.folder, toml or configuration(*self.workflow_ids), variables)

    def due(self, *runs: str) -> None:
        """Make these runs open and due; without arguments, all runs."""
        query(
            self.url,
            "UPDATE orchestra_etl.run_ledger SET due_at = now(), tracking = 'open'"
            " WHERE run_id = ANY (%s) OR cardinality(%s::text[]) = 0",
            list(runs),
            list(runs),
        )

    def loaded(self) -> int:
        """Return the number of stored runs."""
        return int(query(self.url, "SELECT count(*) AS n FROM orchestra.runs")[0]["n"])

    def serve(
        self,
        scenario: Scenario,
        *schedules: Schedule,
        settings: Settings | None = None,
        observed: bool = False,
        beat_limit: float = BEAT_LIMIT,
        pace: Pace = QUICK,
    ) -> float:
        """Run the service during the scenario, and return the seconds that its shutdown takes.

        With `observed`, the service also checks the status of the workflows.
        """

        loaded = settings or self.settings()

        async def work(database: Database) -> float:
            health, stop = Health(beat_limit=beat_limit), Stop()
            health.watch_database(lambda: database.problem, lambda: database.is_unavailable)
            async with app.open_jobs(loaded, database) as jobs:
                status = partial(app._checked_status, loaded, database) if observed else None
                found = Daemon(
                    jobs.syncer,
                    health,
                    schedules,
                    default_interval=0.3,
                    evaluate=partial(alerting.evaluate, loaded, database),
                    status=status,
                    courier=alerting.open_courier(loaded, database),
                    pace=pace,
                )
                running = asyncio.create_task(found.run(stop))
                try:
                    await scenario(found, health)
                finally:
                    began = time.monotonic()
                    stop.set()
                    await running
                return time.monotonic() - began

        with app.open_database(loaded) as database:
            return asyncio.run(work(database))


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide the workflows, with their server running in a thread."""
    history = History(seed=5, workflows=2, runs_per_workflow=15, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        yield World(tmp_path, database_url, history, simulator)


def _problems(health: Health) -> dict[str, str]:
    return health.problems


# The service.


def test_workflows_are_swept_on_their_schedules(world: World) -> None:
    """A workflow with an interval is swept at once and repeatedly; one with cron at its minute.

    Cron uses UTC.
    """
    often, nightly = world.workflow_ids

    async def scenario(found: Daemon, health: Health) -> None:
        swept = "SELECT fencing_token AS n FROM orchestra_etl.sweeps WHERE workflow_id = %s"
        await wait_in_loop(lambda: any(row["n"] >= 3 for row in query(world.url, swept, often)))
        assert query(world.url, swept, nightly) == []
        job = found._jobs._scheduler.get_job(f"sweep {nightly}")
        assert (
            job.next_run_time.hour,
            job.next_run_time.minute,
            str(job.next_run_time.tzinfo),
        ) == (3, 30, "UTC")
        job.modify(next_run_time=job.next_run_time.now(job.next_run_time.tzinfo))
        await wait_in_loop(lambda: query(world.url, swept, nightly) != [] and world.loaded() == 30)

    world.serve(scenario, Schedule(often, 0.2), Schedule(nightly, 60.0, "30 3 * * *"))
    assert differences(world.url, world.history) == []


def test_a_service_is_not_ready_until_workflows_are_listed(world: World) -> None:
    """With `all_workflows`, a service is not ready until the API lists the workflows."""
    world.simulator.misbehave(Misbehaviour(status=500, endpoints=("workflows",)))
    toml = configuration(world.workflow_ids[0], more="[api]\nall_workflows = true")

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(
            lambda: world.loaded() == 15 and "/workflows" in _problems(health).get("prepare", "")
        )
        world.simulator.misbehave()
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))

    world.serve(scenario, Schedule(world.workflow_ids[0], 0.3), settings=world.settings(toml=toml))
    assert differences(world.url, world.history) == []


def test_one_workflow_that_is_refused_leaves_the_service_ready(world: World) -> None:
    """One refused workflow stops neither the sweeps of the others nor the service's readiness.

    The API has no list for one workflow, and another has an unusable id. /readyz names the first.
    If all workflows are refused, the service is not ready.
    """
    one, other = world.workflow_ids
    body = json.dumps([{"workflow_id": id} for id in ("..", one, other)]).encode()
    unlisted = Misbehaviour(status=404, endpoints=("runs",), workflow_id=one)
    world.simulator.misbehave(Misbehaviour(body=body, endpoints=("workflows",)), unlisted)

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 15 and f"sweep {one}" in _problems(health))
        await wait_in_loop(lambda: health.ready)
        await asyncio.sleep(0.5)
        assert health.ready
        page = health._ready()
        assert (page.status, f"sweep {one}: GET" in page.body.decode()) == (200, True)
        assert "orchestra_etl_ready 1.0" in health._metrics().body.decode()
        world.simulator.misbehave(Misbehaviour(status=404, endpoints=("runs",)))
        await wait_in_loop(lambda: not health.ready)
        world.simulator.misbehave()
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))

    settings = world.settings(toml="[api]\nall_workflows = true")
    world.serve(scenario, settings=settings, observed=True)
    letters = query(world.url, "SELECT reason, occurrences FROM orchestra_etl.dead_letters")
    assert [row["reason"] for row in letters] == ["unusable_id"]


def test_a_request_in_the_queue_is_served_within_seconds(world: World) -> None:
    """A run named in `run_requests` while the service runs is loaded without any sweep."""
    toml = configuration(world.workflow_ids[0], discover=False)
    run = world.history.run_ids(world.workflow_ids[0])[0]

    async def scenario(found: Daemon, health: Health) -> None:
        await asyncio.sleep(0.3)
        query(
            world.url,
            "INSERT INTO orchestra.run_requests (workflow_id, run_id) VALUES (%s, %s)",
            world.workflow_ids[0],
            run,
        )
        await wait_in_loop(lambda: world.loaded() == 1)

    world.serve(scenario, settings=world.settings(toml=toml))
    assert world.simulator.requests["runs"] == 0


def test_a_refused_key_pauses_and_a_new_one_is_used(world: World, tmp_path: Path) -> None:
    """A refused key pauses requests and ends readiness; a new key in its file restores both."""
    key = tmp_path / "key"
    key.write_text("wrong\n")
    variables = environment(world.url, world.simulator.base_url, ORCHESTRA_API_KEY_FILE=str(key))
    del variables["ORCHESTRA_API_KEY"]
    settings = load(world.folder, configuration(*world.workflow_ids), variables)

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: "api key" in _problems(health))
        await asyncio.sleep(0.1)  # so that the other requests in flight end
        requests = sum(world.simulator.requests.values())
        await asyncio.sleep(0.2)
        assert sum(world.simulator.requests.values()) == requests
        key.write_text("simulated-key\n")
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))

    world.serve(scenario, settings=settings)
    assert differences(world.url, world.history) == []


def test_alerts_do_not_wait_for_the_key(world: World, tmp_path: Path) -> None:
    """While the API refuses the key, alerts are evaluated and their messages are delivered."""
    workflow_id = world.workflow_ids[0]
    rules = (
        '[[alerts]]\nname = "behind"\nmetric = "lag"\nabove = "30m"\nnotify = ["ops"]\n'
        '[notify.ops]\nurl_file = "ops"\n'
    )
    asyncio.run(sync(world.settings()))
    query(
        world.url,
        "UPDATE orchestra_etl.sweeps SET complete_until = now() - interval '2 hours',"
        " swept_at = now() - interval '2 hours' WHERE workflow_id = %s",
        workflow_id,
    )
    settings = world.settings(
        toml=configuration(*world.workflow_ids, more=rules), ORCHESTRA_API_KEY="wrong"
    )
    pace = msgspec.structs.replace(QUICK, key_pause=600.0, evaluate=0.1, notify=0.1)

    with receiver() as hook:
        (tmp_path / "ops").write_text(hook.url())

        async def scenario(found: Daemon, health: Health) -> None:
            await wait_in_loop(lambda: "api key" in _problems(health))
            await wait_in_loop(lambda: hook.requests != [])

        world.serve(scenario, settings=settings, pace=pace)
        [request] = hook.requests
        assert (request.document["alert"], request.document["workflow"]["id"]) == (
            "behind",
            workflow_id,
        )


def test_a_stopped_service_releases_the_message_that_it_sends(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that a receiver holds up does not delay the stop, and is due again at once."""
    monkeypatch.setattr(delivery, "STOP_PATIENCE", 0.2)
    toml = configuration(*world.workflow_ids, more='[notify.ops]\nurl_file = "ops"\n')
    query(
        world.url,
        "INSERT INTO orchestra_etl.alert_notifications"
        " (rule, subject, sequence, kind, channel, key, content)"
        " VALUES ('r', 's', 1, 'resolved', 'ops', 'k', '{}')",
    )
    with receiver() as hook:
        hook.delay = 30.0
        (tmp_path / "ops").write_text(hook.url())

        async def scenario(found: Daemon, health: Health) -> None:
            await wait_in_loop(lambda: hook.requests != [])

        pace = msgspec.structs.replace(QUICK, notify=0.1)
        world.serve(scenario, settings=world.settings(toml=toml), pace=pace)
        [row] = query(
            world.url,
            "SELECT leased_until, next_attempt_at <= now() AS is_due"
            " FROM orchestra_etl.alert_notifications",
        )
        assert (row["leased_until"], row["is_due"]) == (None, True)


def test_a_service_recovers_with_its_database(world: World) -> None:
    """A service is not ready while the database is unavailable, and loads all runs afterwards."""
    name = psycopg.conninfo.conninfo_to_dict(world.url)["dbname"]
    admin = world.url.replace(f"/{name}", "/postgres")
    settings = world.settings(ORCHESTRA_ETL_DATABASE__PATIENCE="200ms")
    world.simulator.misbehave(Misbehaviour(delay=0.05, endpoints=("steps",)))

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() > 0)
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        query(
            admin,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await wait_in_loop(lambda: "database" in _problems(health))
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        # A run that was claimed when the outage began is due again when its lease has ended.
        query(
            world.url,
            "UPDATE orchestra_etl.run_ledger SET leased_until = now()"
            " WHERE leased_until IS NOT NULL",
        )
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))

    world.serve(scenario, settings=settings)
    assert differences(world.url, world.history) == []


def test_readiness_follows_the_database_at_once(world: World) -> None:
    """A service is not ready soon after the database refuses a connection, and recovers with it.

    That holds with full patience. The log has one line for each change, although several jobs meet
    the error.
    """
    name = psycopg.conninfo.conninfo_to_dict(world.url)["dbname"]
    admin = world.url.replace(f"/{name}", "/postgres")

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        query(
            admin,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await wait_in_loop(lambda: "database" in _problems(health), seconds=20.0)
        await asyncio.sleep(0.4)
        assert set(_problems(health)) == {"database"}
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await wait_in_loop(lambda: not _problems(health))

    with structlog.testing.capture_logs() as events:
        world.serve(scenario, observed=True)
    warnings = [one["event"] for one in events if one["log_level"] not in ("debug", "info")]
    assert warnings == ["database_lost", "database_recovered"]


def test_the_service_ends_soon_without_a_database(world: World) -> None:
    """Without a database, a service with usual patience and its threads end in seconds."""
    name = psycopg.conninfo.conninfo_to_dict(world.url)["dbname"]
    admin = world.url.replace(f"/{name}", "/postgres")

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 30)
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        query(
            admin,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await asyncio.sleep(0.4)

    began = time.monotonic()
    world.serve(scenario)
    assert time.monotonic() - began < SECONDS
    query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_a_service_that_is_stopped_loads_what_it_has_read(world: World) -> None:
    """A service that is stopped during slow reads leaves no claim, and the next sync completes."""
    world.simulator.misbehave(Misbehaviour(delay=0.1, endpoints=("steps",)))

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.simulator.requests["steps"] > 5)

    world.serve(scenario)
    assert query(world.url, CLAIMED) == []
    assert all(not thread.name.startswith("asyncio") for thread in threading.enumerate())
    world.simulator.misbehave()
    asyncio.run(sync(world.settings()))
    assert differences(world.url, world.history) == []


def test_a_schema_changed_under_the_service_shows_in_readiness(world: World) -> None:
    """A newer schema makes the service not ready until it is reverted, even while polls succeed."""
    version = "UPDATE orchestra_etl.alembic_version SET version_num = %s, oldest_program = %s"
    [now] = query(
        world.url, "SELECT version_num, oldest_program FROM orchestra_etl.alembic_version"
    )

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))
        query(world.url, version, "9999", "9999")
        await wait_in_loop(lambda: "newer than this program" in _problems(health).get("schema", ""))
        await asyncio.sleep(0.4)
        assert "schema" in _problems(health)
        query(world.url, version, *now.values())
        await wait_in_loop(lambda: not _problems(health))

    world.serve(scenario, observed=True)


def test_a_workflow_that_is_overdue_shows_in_readiness(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overdue workflow makes the service not ready, and its metrics show the verdict."""
    monkeypatch.setattr(app, "GRACE", -59.0)
    one, other = world.workflow_ids

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 30 and not _problems(health))
        world.simulator.misbehave(Misbehaviour(status=500, endpoints=("runs",), workflow_id=one))
        await wait_in_loop(
            lambda: (
                "no complete sweep since" in _problems(health).get(f"workflow {one}", "")
                and f"workflow {other}" not in _problems(health)
            )
        )
        assert (
            f'orchestra_etl_verdict{{workflow="{one}"}} 2.0'
            in health.metrics.exposition(ready=False).decode()
        )
        world.simulator.misbehave()
        await wait_in_loop(lambda: not _problems(health))

    world.serve(scenario, Schedule(one, 0.2), Schedule(other, 0.2), observed=True)


def test_metrics_of_an_unavailable_database_disappear(world: World) -> None:
    """While the database is unavailable, metrics show no older figures of it."""
    name = psycopg.conninfo.conninfo_to_dict(world.url)["dbname"]
    admin = world.url.replace(f"/{name}", "/postgres")

    async def scenario(found: Daemon, health: Health) -> None:
        def shown() -> bool:
            return "orchestra_etl_open_runs{" in health.metrics.exposition(ready=True).decode()

        await wait_in_loop(lambda: world.loaded() == 30 and shown())
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        query(
            admin,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
        await wait_in_loop(lambda: not shown())
        query(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await wait_in_loop(shown)

    world.serve(
        scenario, settings=world.settings(ORCHESTRA_ETL_DATABASE__PATIENCE="0.3s"), observed=True
    )


def test_a_dead_scheduler_is_not_alive(world: World) -> None:
    """/livez returns 503 once no job has started for too long, independently of the database."""
    limit = 1.0
    port = free_port()

    async def scenario(found: Daemon, health: Health) -> None:
        async def livez() -> int:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/livez") as response,
            ):
                return response.status

        async with health.served("127.0.0.1", port):
            await asyncio.sleep(1.2 * limit)
            for _ in range(100):  # a busy machine may have delayed a beat just now
                if await livez() == 200:
                    break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("/livez does not return 200")
            found._jobs._scheduler.pause()
            await asyncio.sleep(1.2 * limit)
            assert await livez() == 503
            found._jobs._scheduler.resume()

    world.serve(scenario, beat_limit=limit)


# One slow read.


def _hanging(run: str) -> Misbehaviour:
    return Misbehaviour(delay=60.0, endpoints=("steps",), run_id=run)


def _add_step(world: World, run: str, step: str) -> Callable[[], bool]:
    """Make the API return this step of the run; return a function that says if it is stored."""
    world.simulator.steps_bodies[run] = json.dumps([{"id": step, "status": "completed"}]).encode()
    stored = "SELECT 1 AS one FROM orchestra.steps WHERE id = %s"
    return lambda: query(world.url, stored, step) != []


def test_a_slow_read_does_not_delay_other_runs(world: World) -> None:
    """A slow read of one run delays neither other runs nor the end of the service."""
    slow, other = world.history.run_ids(world.workflow_ids[0])[:2]
    world.simulator.misbehave(_hanging(slow))

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 29)
        for turn in range(3):
            loaded = _add_step(world, other, f"late {turn}")
            world.due(other)
            await wait_in_loop(loaded, seconds=20.0)
        assert world.simulator.steps_requests[slow] == 1

    assert world.serve(scenario) < SECONDS
    assert query(world.url, CLAIMED) == []


def test_runs_loaded_during_a_slow_read_show_at_once(world: World) -> None:
    """Runs loaded during a slow read are counted and logged, and clear a problem of the poll."""
    slow, other = world.history.run_ids(world.workflow_ids[0])[:2]
    world.simulator.misbehave(_hanging(slow))

    async def scenario(found: Daemon, health: Health) -> None:
        def counted(runs: int) -> bool:
            return (
                f"orchestra_etl_runs_read_total {runs}.0"
                in health.metrics.exposition(ready=True).decode()
            )

        await wait_in_loop(lambda: counted(29))
        health.fail("poll", "the API did not answer")
        await asyncio.sleep(0.4)
        assert "poll" in _problems(health)
        world.simulator.steps_bodies[other] = b'[{"id": "late", "status": "completed"}, 7]'
        world.due(other)
        await wait_in_loop(lambda: "poll" not in _problems(health), seconds=20.0)
        assert world.simulator.steps_requests[slow] == 1
        assert counted(30)

    with structlog.testing.capture_logs() as events:
        world.serve(scenario)
    assert sum(event["runs"] for event in events if event["event"] == "batch_loaded") == 30
    assert [event["count"] for event in events if event["event"] == "dead_letters_recorded"] == [1]


def test_a_refused_workflow_is_retried_during_a_slow_read(world: World) -> None:
    """A workflow is read within seconds of access to it, even if another read is slow."""
    one, refused = world.workflow_ids
    slow, run = world.history.run_ids(one)[0], world.history.run_ids(refused)[0]
    world.simulator.misbehave(_hanging(slow))

    async def scenario(found: Daemon, health: Health) -> None:
        await wait_in_loop(lambda: world.loaded() == 29)
        world.simulator.misbehave(
            Misbehaviour(status=403, endpoints=("steps",), workflow_id=refused)
        )
        world.due(run)
        attempts = (
            "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE run_id = %s AND attempts > 0"
        )
        await wait_in_loop(lambda: query(world.url, attempts, run) != [], seconds=20.0)
        world.simulator.misbehave()
        loaded = _add_step(world, run, "late")
        world.due(run)
        await wait_in_loop(loaded, seconds=20.0)
        assert world.simulator.steps_requests[slow] == 1

    world.serve(scenario)


# Polls.


def test_reads_beside_a_refused_key_are_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that end after another read's key is refused are still loaded.

    Only the refused run's claim is released.
    """
    workflow = world.workflow_ids[0]
    refused = world.history.run_ids(workflow)[0]
    world.simulator.misbehave(Misbehaviour(status=401, endpoints=("steps",), run_id=refused))
    read, ended, first, together = Reader.read, [], asyncio.Event(), asyncio.Event()

    async def read_together(self: Reader, claim: Claim, group: DecodingGroup) -> Reading:
        try:
            return await read(self, claim, group)
        finally:
            if claim.run_id == refused:
                first.set()
            await first.wait()
            ended.append(claim.run_id)
            if len(ended) == 15:
                together.set()
            await together.wait()

    monkeypatch.setattr(Reader, "read", read_together)
    with pytest.raises(KeyRefused):
        asyncio.run(sync(world.settings(toml=configuration(workflow))))
    assert ended[0] == refused
    assert world.loaded() == 14
    assert query(world.url, CLAIMED) == []


@pytest.mark.parametrize("delay", [0.0, 0.05, *slow(0.01, 0.12, 0.2)])
def test_a_poll_can_be_stopped_or_cancelled_at_any_moment(world: World, delay: float) -> None:
    """A poll that is stopped or cancelled at any moment leaves no claim to wait for."""
    settings = world.settings()
    world.simulator.misbehave(Misbehaviour(delay=0.01, endpoints=("steps",)))

    async def work(*, cancel: bool) -> None:
        with app.open_database(settings) as database:
            async with app.open_jobs(settings, database) as jobs:
                for workflow_id in world.workflow_ids:
                    await jobs.syncer.sweep(workflow_id)
                stop = asyncio.Event()
                task = asyncio.create_task(jobs.poller.drain(stop=stop))
                await asyncio.sleep(delay)
                if cancel:
                    task.cancel()
                else:
                    stop.set()
                await asyncio.wait({task}, timeout=60)
                assert task.done()
                if not cancel:
                    task.result()

    asyncio.run(work(cancel=False))
    assert query(world.url, CLAIMED) == []
    asyncio.run(work(cancel=True))
    # A claim in progress at the cancellation ends with its lease.
    query(
        world.url,
        "UPDATE orchestra_etl.run_ledger SET leased_until = now() WHERE leased_until IS NOT NULL",
    )
    asyncio.run(sync(settings))
    assert differences(world.url, world.history) == []


def test_a_sweep_that_is_cancelled_while_it_begins_leaves_no_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sweep need not wait for the lease of one that a stop cancelled at its start."""
    settings = world.settings()
    begun = threading.Event()
    begin = sweeps.begin

    def slowly(*given: Any, **more: Any) -> sweeps.Sweep | None:
        found = begin(*given, **more)
        begun.set()
        time.sleep(0.2)
        return found

    monkeypatch.setattr(sweeps, "begin", slowly)

    async def work() -> None:
        with app.open_database(settings) as database:
            async with app.open_jobs(settings, database) as jobs:
                task = asyncio.create_task(jobs.syncer.sweep(world.workflow_ids[0]))
                await asyncio.to_thread(begun.wait)
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled()

    asyncio.run(work())
    assert query(
        world.url, "SELECT leased_until IS NULL AS free, watermark FROM orchestra_etl.sweeps"
    ) == [{"free": True, "watermark": 0}]


def test_reads_wait_for_a_slow_database_without_a_deadlock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs are read and loaded even if memory has room for less than one response."""
    monkeypatch.setattr(poll, "WAITING_BYTES", 1)
    monkeypatch.setattr(batches, "BATCH_BYTES", 1 << 40)
    asyncio.run(sync(world.settings()))
    assert differences(world.url, world.history) == []


def test_a_locked_row_is_polled_slowly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll looks for a locked due run no more than about twenty times a second."""
    settings = world.settings()
    asyncio.run(sync(settings))
    run = world.history.run_ids(world.workflow_ids[0])[0]
    world.due(run)
    counted: list[float] = []

    async def work() -> None:
        with app.open_database(settings) as database:
            async with app.open_jobs(settings, database) as jobs:
                begin = database.transaction

                def counting(unit: Any) -> Any:
                    counted.append(time.monotonic())
                    return begin(unit)

                monkeypatch.setattr(database, "transaction", counting)
                with psycopg.connect(world.url) as other:
                    other.execute(
                        "SELECT FROM orchestra_etl.run_ledger WHERE run_id = %s FOR UPDATE", [run]
                    )
                    threading.Timer(1.0, other.rollback).start()
                    await jobs.poller.drain(stop=asyncio.Event(), wait_for_others=True)

    asyncio.run(work())
    assert len(counted) < 60
    assert (
        query(world.url, "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE tracking = 'open'")
        == []
    )


def test_no_load_outlives_a_pass_that_loses_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If claims cannot be released, the poll still waits for the load in progress.

    What that load stored counts.
    """
    running: list[int] = []
    unread = world.history.run_ids(world.workflow_ids[0])[0]
    world.simulator.misbehave(Misbehaviour(delay=2.0, endpoints=("steps",), run_id=unread))

    def slow(self: Loader, readings: Any) -> LoadReport:
        running.append(1)
        time.sleep(0.6)
        running.pop()
        return LoadReport()

    monkeypatch.setattr(Loader, "load", slow)
    settings = world.settings()

    async def work() -> None:
        with app.open_database(settings) as database:
            async with app.open_jobs(settings, database) as jobs:
                for workflow_id in world.workflow_ids:
                    await jobs.syncer.sweep(workflow_id)
                task = asyncio.create_task(jobs.poller.drain(stop=asyncio.Event()))
                await wait_in_loop(lambda: running != [])

                def broken(unit: Any) -> Any:
                    raise DatabaseUnavailable("gone")

                monkeypatch.setattr(database, "transaction", broken)
                task.cancel()
                await asyncio.wait({task}, timeout=60)
                assert running == []

    asyncio.run(work())


def test_steps_are_loaded_although_the_single_run_fails(world: World) -> None:
    """If the single-run endpoint returns only errors, steps are stored with a derived status."""
    world.simulator.misbehave(Misbehaviour(status=500, endpoints=("run", "runs", "workflows")))
    runs = world.history.run_ids(world.workflow_ids[0])[:7]
    toml = configuration(world.workflow_ids[0], discover=False, runs=tuple(runs))
    assert asyncio.run(sync(world.settings(toml=toml))).exit_status == 0
    rows = query(
        world.url,
        "SELECT r.status_source, l.tracking FROM orchestra.runs r JOIN orchestra_etl.run_ledger l"
        " ON l.run_id = r.id",
    )
    assert [tuple(row.values()) for row in rows] == [("derived", "open")] * 7
    world.simulator.misbehave()
    world.due()
    asyncio.run(sync(world.settings(toml=toml)))
    assert query(world.url, "SELECT DISTINCT tracking FROM orchestra_etl.run_ledger") == [
        {"tracking": "final"}
    ]


def test_a_tracked_run_that_moved_on_gets_its_new_row(world: World) -> None:
    """A finished run that is not listed and gets another step is stored with its new end."""
    workflow = world.workflow_ids[0]
    run = world.history.run_ids(workflow)[0]
    settings = world.settings(toml=configuration(workflow, discover=False, runs=(run,)))
    asyncio.run(sync(settings))
    world.due(run)
    asyncio.run(sync(settings))
    assert world.simulator.requests["run"] == 1
    world.history.change_run(run, end_time="2026-11-01T00:00:00.000000Z")
    changed = [
        *world.history.steps(run),
        {"id": "late", "status": "completed", "end_time": "2026-11-01T00:00:00Z"},
    ]
    world.simulator.steps_bodies[run] = json.dumps(changed).encode()
    world.due(run)
    asyncio.run(sync(settings))
    assert world.simulator.requests["run"] == 2
    ends = query(world.url, "SELECT end_time::text AS t FROM orchestra.runs WHERE id = %s", run)
    assert ends == [{"t": "2026-11-01 00:00:00+00"}]


def test_node_types_come_from_the_graph(world: World) -> None:
    """Steps have the type of their node in the workflow's graph, even if the payload differs."""
    workflow = world.workflow_ids[0]
    run = world.history.run_ids(workflow)[0]
    graph = {"nodes": [{"id": "n", "type": "code"}], "edges": []}
    body = json.dumps(
        [{"workflow_id": workflow, "name": "w", "version": "1", "graph": graph}]
    ).encode()
    world.simulator.misbehave(Misbehaviour(body=body, endpoints=("workflows",)))
    outputs = {"object": "chat.completion", "model": "m", "choices": [], "usage": {}}
    world.simulator.steps_bodies[run] = json.dumps(
        [{"id": "s", "node_id": "n", "status": "completed", "outputs": outputs}]
    ).encode()
    asyncio.run(sync(world.settings()))
    assert query(world.url, "SELECT node_type FROM orchestra.steps WHERE id = 's'") == [
        {"node_type": "code"}
    ]

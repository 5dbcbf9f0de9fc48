"""Delivery of alerts: at least once, in order, by one replica; no channel delays another one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import ObjectNotExecutableError

from etl.alerts import channels, delivery, evidence
from etl.alerts.channels import Channels
from etl.alerts.delivery import Courier, Delivery, pause_after
from etl.database import Database
from etl.errors import DatabaseError
from tests.receiver import Receiver, receiver
from tests.support import free_port, query, wait_in_loop, wait_until

WINDOW = {
    "metric": "failure_rate",
    "value": 0.43,
    "threshold": 0.2,
    "workflow_id": "w1",
    "workflow_name": "Weather jokes",
    "window_begin": "2026-03-01T09:00:00+00:00",
    "window_end": "2026-03-01T10:00:00+00:00",
}


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """Provide a running receiver."""
    with receiver() as found:
        yield found


def _queue(
    url: str,
    key: str,
    *,
    kind: str = "firing",
    channel: str = "ops",
    rule: str = "support fails",
    subject: str = "w1",
    **content: Any,
) -> None:
    query(
        url,
        "INSERT INTO orchestra_etl.alert_notifications"
        " (rule, subject, sequence, kind, channel, key, content)"
        " VALUES (%s, %s, 1, %s, %s, %s, %s::jsonb)",
        rule, subject, kind, channel, key, json.dumps({**WINDOW, **content}),
    )  # fmt: skip


def _courier(database: Database, **urls: str) -> Courier:
    return Courier(database, Channels({name: lambda url=url: url for name, url in urls.items()}))  # type: ignore[misc]


def _deliver(courier: Courier) -> list[Delivery]:
    return asyncio.run(courier.deliver_all())


async def _stopped(courier: Courier, hook: Receiver) -> list[Delivery]:
    """Deliver, and stop when the first request has arrived."""
    stop = asyncio.Event()
    running = asyncio.create_task(courier.deliver_all(stop))
    await wait_in_loop(lambda: hook.requests != [])
    stop.set()
    return await running


def _rows(url: str) -> list[dict[str, Any]]:
    return query(
        url,
        "SELECT key, attempts, failure, delivered_at IS NOT NULL AS delivered,"
        " next_attempt_at IS NOT NULL AS waiting,"
        " EXTRACT(epoch FROM next_attempt_at - now()) AS pause"
        " FROM orchestra_etl.alert_notifications ORDER BY id",
    )


def _keys(hook: Receiver) -> list[str]:
    return [request.document["key"] for request in hook.requests]


RETRY_NOW = "UPDATE orchestra_etl.alert_notifications SET next_attempt_at = now()" \
    " WHERE next_attempt_at IS NOT NULL"  # fmt: skip


def test_a_queued_message_is_delivered_once(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """What is queued is sent with its numbers and names, marked as delivered, and never again."""
    _queue(database_url, "k1")
    courier = _courier(database, ops=hook.url())
    assert _deliver(courier) == [Delivery("support fails", "ops", "firing")]
    assert _deliver(courier) == []
    [request] = hook.requests
    document = request.document
    assert (document["key"], document["kind"], document["alert"]) == (
        "k1",
        "firing",
        "support fails",
    )
    assert (document["value"], document["threshold"]) == (0.43, 0.2)
    assert document["workflow"] == {"id": "w1", "name": "Weather jokes"}
    assert "Failure rate: 43.0 %, above 20.0 %" in document["text"]
    [row] = _rows(database_url)
    assert row["delivered"]
    assert (row["attempts"], row["failure"], row["waiting"]) == (1, None, False)


def test_a_failed_message_is_retried_with_the_same_key(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """A refused message waits longer after each attempt, and is then sent with the same key."""
    _queue(database_url, "k1")
    courier = _courier(database, ops=hook.url())
    hook.status = 503
    pauses = []
    for _ in range(4):
        [attempt] = _deliver(courier)
        assert attempt.failure == "status 503"
        assert _deliver(courier) == []
        [row] = _rows(database_url)
        pauses.append(float(row["pause"]))
        query(database_url, RETRY_NOW)
    assert row["failure"] == "status 503"
    assert [round(pause) <= 5 * 2**n for n, pause in enumerate(pauses)] == [True] * 4
    assert pauses[3] > 5 * 2**3 / 2 - 2 > pauses[0]
    hook.status = 200
    _deliver(courier)
    assert _keys(hook) == ["k1"] * 5
    assert _rows(database_url)[0]["delivered"]


def test_the_pause_grows_to_a_limit_and_respects_the_receiver() -> None:
    """The pause doubles up to ten minutes; a receiver may request more, but not days."""
    assert 2.5 <= pause_after(1, None) <= 5.0
    assert 300.0 <= pause_after(60, None) <= 600.0
    assert pause_after(1, 77.0) == 77.0
    assert pause_after(1, float("inf")) == 3600.0


def test_a_message_is_given_up_after_a_day(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """A message older than a day is given up instead of sent, and its row says so.

    The same holds for a channel that is no longer configured. Newer messages are not held up.
    """
    _queue(database_url, "old")
    _queue(database_url, "removed", channel="gone")
    query(
        database_url,
        "UPDATE orchestra_etl.alert_notifications SET created_at = now() - interval '25 hours'",
    )
    _queue(database_url, "new", kind="resolved")
    _deliver(_courier(database, ops=hook.url()))
    assert _keys(hook) == ["new"]
    assert [(row["key"], row["delivered"], row["waiting"], row["failure"])
            for row in _rows(database_url)] == [
        ("old", False, False, None),
        ("removed", False, False, "the channel is not configured"),
        ("new", True, False, None),
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["next_attempt_at", "leased_until"])
def test_a_clock_that_was_set_back_delays_no_message(
    database: Database, database_url: str, hook: Receiver, column: str
) -> None:
    """A pause or a lease of a day, which only an earlier clock can have set, does not count."""
    _queue(database_url, "k1")
    query(
        database_url,
        f"UPDATE orchestra_etl.alert_notifications SET {column} = now() + interval '1 day'",
    )
    assert len(_deliver(_courier(database, ops=hook.url()))) == 1


def test_old_notifications_are_forgotten(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """What was delivered more than 30 days ago is removed when something else is delivered."""
    courier = _courier(database, ops=hook.url())
    for key, days in (("old", 31), ("young", 29)):
        _queue(database_url, key)
        _deliver(courier)
        query(
            database_url,
            "UPDATE orchestra_etl.alert_notifications"
            " SET created_at = now() - %s * interval '1 day' WHERE key = %s",
            days, key,
        )  # fmt: skip
    _queue(database_url, "new")
    _deliver(courier)
    assert [row["key"] for row in _rows(database_url)] == ["young", "new"]


def test_resolved_never_overtakes_firing(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """While the message that an alert fires waits for a retry, that it is resolved waits too.

    Other alerts of the channel are not held up.
    """
    courier = _courier(database, ops=hook.url())
    _queue(database_url, "firing")
    hook.status = 500
    _deliver(courier)
    hook.status = 200
    _queue(database_url, "resolved", kind="resolved")
    _queue(database_url, "other", subject="w2")
    _deliver(courier)
    assert _keys(hook) == ["firing", "other"]
    query(database_url, RETRY_NOW)
    _deliver(courier)
    assert _keys(hook) == ["firing", "other", "firing", "resolved"]


def test_a_slow_channel_delays_no_other(
    database: Database, database_url: str, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel that fails makes one attempt; another channel delivers everything meanwhile."""
    monkeypatch.setattr(channels, "DEADLINE", 2.0)
    for number in range(3):
        _queue(database_url, f"slow {number}", channel="slow", subject=f"w{number}")
        _queue(database_url, f"fast {number}", channel="fast", subject=f"w{number}")
    courier = _courier(database, slow=f"http://127.0.0.1:{free_port()}", fast=hook.url())
    done = _deliver(courier)
    assert [one.failure for one in done if one.channel == "slow"] == ["cannot connect"]
    assert _keys(hook) == ["fast 0", "fast 1", "fast 2"]


def test_three_replicas_deliver_once(database_url: str, hook: Receiver) -> None:
    """Three replicas that deliver at the same time send each message once."""
    for number in range(20):
        _queue(database_url, f"k{number}", subject=f"w{number}")
    together = threading.Barrier(3)

    def replica() -> int:
        own = Database(database_url)
        try:
            courier = _courier(own, ops=hook.url())
            together.wait()
            return len(_deliver(courier))
        finally:
            own.close()

    with ThreadPoolExecutor(3) as pool:
        counts = [one.result() for one in [pool.submit(replica) for _ in range(3)]]
    assert sum(counts) == 20
    assert sorted(_keys(hook)) == sorted(f"k{number}" for number in range(20))


def test_a_crash_after_sending_repeats_the_message(
    database: Database, database_url: str, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the result cannot be recorded, the message is sent again with its key after the lease."""
    _queue(database_url, "k1")
    courier = _courier(database, ops=hook.url())
    with monkeypatch.context() as patched:
        patched.setattr(delivery, "_DELIVERED", "not a statement")
        with pytest.raises(ObjectNotExecutableError):
            _deliver(courier)
    assert _deliver(courier) == []
    query(
        database_url,
        "UPDATE orchestra_etl.alert_notifications SET leased_until = now() - interval '1 second'",
    )
    assert len(_deliver(courier)) == 1
    assert _keys(hook) == ["k1", "k1"]


def test_a_stop_releases_the_claim_of_a_message_that_is_being_sent(
    database: Database, database_url: str, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that a stop interrupts is sent by the next delivery, not after the lease."""
    monkeypatch.setattr(delivery, "STOP_PATIENCE", 0.1)
    _queue(database_url, "k1")
    courier = _courier(database, ops=hook.url())
    hook.delay = 30.0

    assert asyncio.run(_stopped(courier, hook)) == []
    hook.delay = 0.0
    assert _deliver(courier) == [Delivery("support fails", "ops", "firing")]
    assert _keys(hook) == ["k1", "k1"]


def test_a_cancelled_delivery_leaves_no_task(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """If a delivery is cancelled while it sends a message, none of its tasks continues."""
    _queue(database_url, "k1")
    hook.delay = 30.0

    async def cancelled() -> set[str]:
        running = asyncio.create_task(_courier(database, ops=hook.url()).deliver_all())
        await wait_in_loop(lambda: hook.requests != [])
        running.cancel()
        await asyncio.wait({running})
        return {str(one.get_coro()) for one in asyncio.all_tasks() - {asyncio.current_task()}}

    assert asyncio.run(cancelled()) == set()


def test_an_error_of_one_channel_leaves_no_other_at_work(
    database: Database, database_url: str, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the database refuses the delivery to one channel, the deliveries to others end, too."""
    _queue(database_url, "k1")
    hook.delay = 30.0
    courier = _courier(database, ops=hook.url(), broken=hook.url())
    claim = Courier._claim

    def refused(self: Courier, connection: Connection, channel: str) -> Any:
        if channel == "broken":
            wait_until(lambda: hook.requests != [])
            raise DatabaseError("refused")
        return claim(self, connection, channel)

    monkeypatch.setattr(Courier, "_claim", refused)

    async def failed() -> set[str]:
        with pytest.raises(DatabaseError, match="refused"):
            await courier.deliver_all()
        return {str(one.get_coro()) for one in asyncio.all_tasks() - {asyncio.current_task()}}

    assert asyncio.run(failed()) == set()


def test_a_message_that_is_accepted_in_time_is_sent_once_despite_a_stop(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """A message whose response comes soon after the stop is delivered; no other is begun."""
    for key in ("k1", "k2"):
        _queue(database_url, key, subject=key)
    courier = _courier(database, ops=hook.url())
    hook.delay = 0.2

    assert len(asyncio.run(_stopped(courier, hook))) == 1
    assert [row["delivered"] for row in _rows(database_url)] == [True, False]


def test_an_idle_check_writes_nothing(database: Database, database_url: str) -> None:
    """With nothing to deliver, a check takes no transaction id, so it writes no row."""
    courier = _courier(database, ops="http://127.0.0.1:9/")

    def look(connection: Connection) -> object:
        assert courier._claim(connection, "ops") == ([], None)
        return connection.execute(text("SELECT pg_current_xact_id_if_assigned()")).scalar()

    assert database.transaction(look) is None
    _queue(database_url, "k1")
    with pytest.raises(AssertionError):
        database.transaction(look)


def test_a_message_is_completed_from_the_window(
    database: Database, database_url: str, hook: Receiver
) -> None:
    """A message names the most frequent failure and three failed runs of its window, no others."""
    query(
        database_url,
        """
        INSERT INTO orchestra.workflows (id, name) VALUES ('w1', 'Weather jokes'), ('w2', 'Other');
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
        SELECT workflow || '-r' || n, workflow, 'failed', 'api', 'final',
               TIMESTAMPTZ '2026-03-01T09:00:00Z' + n * interval '5 minutes'
        FROM generate_series(-3, 15) AS n, (VALUES ('w1'), ('w2')) AS w (workflow);
        INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, position, state, start_time,
                                     content_hash, error)
        SELECT id || '-s', id, workflow_id, 'fetch', 0, 'failed', start_time, '\\x00', '"x"'
        FROM orchestra.runs;
        INSERT INTO orchestra.step_failures (step_id, run_id, workflow_id, node_id, time, outcome,
                                             fingerprint, pattern, message)
        SELECT id, run_id, workflow_id, node_id, start_time, 'failed',
               CASE WHEN run_id LIKE '%%0' THEN 'b' ELSE 'a' END,
               CASE WHEN run_id LIKE '%%0' THEN 'rare' ELSE 'status <n> from <text>' END, 'm'
        FROM orchestra.steps ON CONFLICT DO NOTHING;
        """,
    )
    _queue(database_url, "k1")
    _deliver(_courier(database, ops=hook.url()))
    document = hook.requests[0].document
    # Runs start every five minutes from 08:45 on; the window ends before 10:00.
    assert document["example_runs"] == ["w1-r11", "w1-r10", "w1-r9"]
    assert document["failure_pattern"] == "status <n> from <text>"
    assert "Most frequent failure (10 runs): status <n> from <text>" in document["text"]
    assert document["command"] == "orchestra-etl runs show w1-r11"


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("duration_p95", ["w1-r3", "w1-r2", "w1-r1"]),
        ("cost", ["w1-r1", "w1-r2", "w1-r3"]),
        ("runs", ["w1-r4", "w1-r3", "w1-r2"]),
        ("overdue_runs", ["w1-r0", "w1-r4"]),
        ("lag", []),
    ],
)
def test_examples_fit_the_metric(
    database: Database, database_url: str, hook: Receiver, metric: str, expected: list[str]
) -> None:
    """The example runs are those that make the metric large: slowest, most tokens, oldest open."""
    query(
        database_url,
        """
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time,
                                    end_time)
        SELECT 'w1-r' || n, 'w1', CASE WHEN n IN (0, 4) THEN 'running' ELSE 'succeeded' END, 'api',
               CASE WHEN n IN (0, 4) THEN 'open' ELSE 'final' END, begun,
               CASE WHEN n NOT IN (0, 4) THEN begun + n * interval '1 second' END
        FROM generate_series(0, 4) AS n,
             LATERAL (SELECT TIMESTAMPTZ '2026-03-01T09:00:00Z' + n * interval '5 minutes'
                     ) AS b (begun);
        INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, position, state, start_time,
                                     end_time, content_hash, total_tokens)
        SELECT id || '-s', id, workflow_id, 'fetch', 0, state, start_time, end_time, '\\x00',
               1000 - EXTRACT(epoch FROM end_time - start_time)::bigint
        FROM orchestra.runs WHERE state = 'succeeded';
        """,
    )
    now: dict[str, Any] = {}
    if metric in ("overdue_runs", "lag"):
        now = {"window_begin": None, "window_end": None}
    _queue(database_url, "k1", metric=metric, **now)
    _deliver(_courier(database, ops=hook.url()))
    assert hook.requests[0].document["example_runs"] == expected


def test_slow_evidence_does_not_hold_a_message_back(
    database: Database, database_url: str, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the history cannot be read in time, the message is sent without examples."""
    monkeypatch.setattr(evidence, "SECONDS", 0.05)
    monkeypatch.setattr(evidence, "_PATTERN", text("SELECT pg_sleep(10)"))
    _queue(database_url, "k1")
    _deliver(_courier(database, ops=hook.url()))
    document = hook.requests[0].document
    assert (document["key"], document["example_runs"]) == ("k1", [])

"""Faults of alerts: workers killed around a delivery, replicas, and canaries in messages."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.canaries import ALL, API_KEY, PAYLOAD
from tests.faults.suite import Fault
from tests.faults.workers import output_of
from tests.faults.world import World, world
from tests.receiver import Receiver, receiver
from tests.support import query, wait_until

GUARDS = "tests.faults.alert_guards:"
SHORT = f"{GUARDS}short_lease"
QUICK = f"{GUARDS}quick_alerts"
TOKEN = "canary-payload-c64e10-in-a-url"
"""A part of the channel's URL: the canary of payloads, so that the session's search finds it."""
RULES = """
[[alerts]]
name = "runs fail"
metric = "failures"
above = 0
over = "31d"
notify = ["ops"]
[notify.ops]
url_file = "channel"
"""
OUTBOX = "SELECT key, delivered_at IS NOT NULL AS delivered FROM orchestra_etl.alert_notifications"


@contextmanager
def _world(url: str, folder: Path, log: Path, hook: Receiver) -> Iterator[World]:
    """Provide workflows with failed runs, and a rule that fires for each."""
    (folder / "channel").write_text(hook.url(f"/{TOKEN}"))
    with world(
        url, folder, log, more=RULES, workflows=3, runs_per_workflow=30, failure_rate=0.5
    ) as found:
        yield found


def _keys(hook: Receiver) -> Counter[str]:
    return Counter(request.document["key"] for request in hook.requests)


def _lost(url: str, hook: Receiver) -> list[str]:
    """Return the notifications that the receiver does not have."""
    return [
        f"{row['key']} was not delivered"
        for row in query(url, OUTBOX)
        if not row["delivered"] or row["key"] not in _keys(hook)
    ]


def _recovered(found: World, *without: str) -> None:
    """Sync until the leases of crashed workers have ended and everything is delivered."""
    for _ in range(3):
        query(
            found.url,
            "UPDATE orchestra_etl.alert_notifications SET leased_until = now()"
            " WHERE leased_until IS NOT NULL",
        )
        assert found.sync(without=without) == 0, output_of(found.log)


@pytest.mark.fault(
    34,
    "worker killed between evaluation and delivery, and after it; three replicas",
    "C S",
    guard="lease of a notification, and its end",
)
def test_killed_around_a_delivery(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """A message whose worker is killed before or after sending is sent again with the same key."""
    with receiver() as hook, _world(database_url, tmp_path, log, hook) as found:
        status = found.sync(without=(f"{GUARDS}killed_before_sending", SHORT))
        assert status == -signal.SIGKILL, output_of(log)
        keys = {row["key"] for row in query(database_url, OUTBOX)}
        assert (len(keys), hook.requests) == (3, [])
        status = found.sync(without=(f"{GUARDS}killed_after_sending", SHORT))
        assert status in (0, -signal.SIGKILL)
        _recovered(found)
        fault.injected(2)
        assert _lost(database_url, hook) == []
        counts = _keys(hook)
        assert counts.keys() == keys
        assert sorted(counts.values()) in ([1, 1, 1], [1, 1, 2])

        query(
            database_url,
            "UPDATE orchestra_etl.alert_notifications SET delivered_at = NULL,"
            " next_attempt_at = now()",
        )
        hook.requests.clear()
        found.sync(without=(f"{GUARDS}killed_before_sending", SHORT))
        _recovered(found, f"{GUARDS}no_lease_end")
        fault.control(_lost(database_url, hook))


def _repeated(found: World, hook: Receiver, *without: str) -> list[str]:
    """Return the messages that three replicas together deliver more than once."""
    hook.requests.clear()
    query(found.url, "DELETE FROM orchestra_etl.alert_notifications")
    query(found.url, "DELETE FROM orchestra_etl.alerts")
    query(found.url, "DELETE FROM orchestra_etl.alert_episodes")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(found.started("serve", without=(QUICK, *without)))
        wait_until(lambda: len(_keys(hook)) >= 3 and _lost(found.url, hook) == [])
    return [f"{key} was delivered {count} times" for key, count in _keys(hook).items() if count > 1]


@pytest.mark.fault(
    34,
    "worker killed between evaluation and delivery, and after it; three replicas",
    "C S",
    guard="lease of a notification, and its end",
)
def test_three_services_deliver_once(
    fault: Fault, database_url: str, tmp_path: Path, log: Path
) -> None:
    """Three services that evaluate and deliver together send each message once."""
    with receiver() as hook, _world(database_url, tmp_path, log, hook) as found:
        assert found.sync() == 0, output_of(log)
        # Long enough for the other services to look while one sends.
        hook.delay = 1.0
        assert _repeated(found, hook) == []
        fault.injected(3)
        fault.control(_repeated(found, hook, f"{GUARDS}no_lease"))


def test_no_canary_is_in_a_message(database_url: str, tmp_path: Path, log: Path) -> None:
    """No message contains a payload or a secret, and no log contains a channel's URL.

    Payloads, the texts that errors quote, the API key, the database's password and the channels'
    URLs hold canaries. One channel cannot be reached. The fixture `canaries` searches the logs.
    """
    with receiver() as hook, _world(database_url, tmp_path, log, hook) as found:
        for workflow_id in found.history.workflow_ids:
            for row in found.history.runs(workflow_id):
                if row["status"] == "failed":
                    found.history.change_run(row["id"], inputs={"text": PAYLOAD})
                    for step in found.history.steps(row["id"]):
                        found.history.change_step(
                            row["id"], step["id"], inputs={"text": PAYLOAD},
                            outputs={"text": PAYLOAD, "key": API_KEY},
                            **({"error": f'rejected "{PAYLOAD}"'} if step["error"] else {}),
                        )  # fmt: skip
        (tmp_path / "chat").write_text(hook.apprise_url(f"/{TOKEN}/chat"))
        config = Path(found.variables["ORCHESTRA_ETL_CONFIG"])
        config.write_text(
            config.read_text().replace(
                'notify = ["ops"]\n',
                'notify = ["ops", "chat", "silent"]\n[notify.chat]\nurl_file = "chat"\n'
                '[notify.silent]\nurl_file = "silent"\n',
            )
        )
        (tmp_path / "silent").write_text(f"http://127.0.0.1:9/{TOKEN}")
        assert found.sync() == 0, output_of(log)
        for command in (
            ["status"],
            ["status", "--json"],
            ["config", "show"],
            ["alerts", "list"],
            ["alerts", "check", "--json"],
        ):
            with found.started(*command) as worker:
                worker.wait()
        assert len(hook.requests) >= 4
        for request in hook.requests:
            text = json.dumps(request.document)
            assert [canary for canary in ALL if canary in text] == []

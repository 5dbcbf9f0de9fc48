"""What users see of alerts: `alerts test`, messages after a `sync`, `status` and the metrics."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl import app, settings
from etl.database import Database
from etl.exit_status import ExitStatus
from etl.service.metrics import Metrics
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.command_line import Command, command_line
from tests.receiver import Receiver, receiver
from tests.support import configuration, environment, query

TOKEN = "canary-token-77b1"
RULES = """
[[alerts]]
name = "runs fail"
metric = "failures"
above = 0
over = "31d"
notify = ["ops", "chat"]
[[alerts]]
name = "never"
metric = "failures"
above = 1000000
[notify.ops]
url_file = "ops"
[notify.chat]
url_file = "chat"
[dashboards]
url = "https://superset.example"
"""


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Receiver]:
    """Provide a running receiver, and its URLs in files: a webhook, and one of Apprise."""
    with receiver() as found:
        (tmp_path / "ops").write_text(found.url(f"/{TOKEN}"))
        (tmp_path / "chat").write_text(found.apprise_url(f"/{TOKEN}"))
        yield found


@pytest.fixture
def history() -> History:
    """Provide a workflow with 40 runs in two weeks, of which half fail."""
    return History(
        seed=3, workflows=1, runs_per_workflow=40, live=0, arrivals_per_minute=0, failure_rate=0.5,
        spacing=timedelta(hours=8),
    )  # fmt: skip


@pytest.fixture
def loading(
    history: History,
    hook: Receiver,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Command]:
    """Provide the command line with rules, channels and a server."""
    with Simulator(history).in_thread() as simulator:
        toml = configuration(*history.workflow_ids, more=RULES)
        variables = environment(database_url, simulator.base_url)
        yield command_line(tmp_path, monkeypatch, capsys, toml, **variables)


def test_a_sync_tells_each_channel_once(
    loading: Command, hook: Receiver, history: History, database_url: str
) -> None:
    """A sync that finds failed runs messages a webhook and Apprise; the next sends nothing.

    The webhook's document has the numbers, the cause, runs that really failed, and next steps.
    """
    assert loading("sync").status == 0
    webhook, chat = sorted(hook.requests, key=lambda one: "key" not in one.document)
    document = webhook.document
    failed = [
        row["id"] for row in history.runs(history.workflow_ids[0]) if row["status"] == "failed"
    ]
    assert (document["kind"], document["alert"], document["metric"]) == (
        "firing", "runs fail", "failures",
    )  # fmt: skip
    assert document["value"] >= len(failed) > 0
    assert document["workflow"]["id"] == history.workflow_ids[0]
    assert len(document["example_runs"]) == 3
    stored = {
        row["run_id"]
        for row in query(
            database_url,
            "SELECT run_id FROM orchestra.run_summary WHERE outcome IN ('failed', 'soft_failed')",
        )
    }
    assert set(document["example_runs"]) <= stored
    assert document["failure_pattern"]
    assert document["command"] == f"orchestra-etl runs show {document['example_runs'][0]}"
    assert document["dashboard"].startswith(
        "https://superset.example/superset/dashboard/orchestra-failures/?"
    )
    assert chat.document["type"] == "failure"
    assert document["title"] in chat.document["title"]
    assert loading("sync").status == 0
    assert len(hook.requests) == 2


def test_a_message_about_cost_says_why(
    loading: Command, hook: Receiver, database_url: str, tmp_path: Path
) -> None:
    """A message about cost quotes three lines of the explanation, and its command prints them.

    It also says that the history begins within the time before.
    """
    config = tmp_path / "etl.toml"
    toml = config.read_text().replace(
        '"failures"\nabove = 0\nover = "31d"', '"cost"\nabove = 0\nover = "7d"'
    )
    config.write_text(toml)
    assert loading("sync").status == 0
    [document] = [one.document for one in hook.requests if "key" in one.document]
    assert (document["metric"], document["unit"]) == ("cost", "USD")
    *lines, missing = document["explanation"]
    assert len(lines) == 3
    assert missing.startswith("the time before may be incomplete: the history begins at ")
    assert [f"Why: {line}" in document["text"] for line in lines] == [True] * 3
    program, *arguments = shlex.split(document["command"])
    assert (program, arguments[:2]) == ("orchestra-etl", ["explain", "cost"])
    done = loading(*arguments)
    assert done.status == 0
    assert lines[0].partition(":")[0] in done.out


def test_a_share_is_shown_in_percent(loading: Command, tmp_path: Path) -> None:
    """`alerts list` shows a share and its limit as messages do, and JSON as the settings do.

    Its lines fit in 80 columns.
    """
    config = tmp_path / "etl.toml"
    toml = config.read_text().replace('"failures"\nabove = 0\n', '"failure_rate"\nabove = 0.055\n')
    config.write_text(toml.replace('"runs fail"', '"more runs fail than usual"'))
    assert loading("sync").status == 0
    lines = loading("alerts", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    [row] = [line for line in lines if "failure_rate" in line]
    [found] = [
        one
        for one in loading("alerts", "list", "--json").json["alerts"]
        if one["state"] == "firing"
    ]
    assert found["threshold"] == 0.055
    assert f"{100 * found['value']:.1f} %      5.5 %" in row


def test_a_channel_that_refuses_does_not_fail_a_sync(
    loading: Command, hook: Receiver, tmp_path: Path
) -> None:
    """A refused message leaves a sync's exit status alone; `status` says why, without the URL."""
    hook.status = 503
    done = loading("sync")
    assert done.status == 0
    assert TOKEN not in done.out + done.err
    found = loading("status", "--json").json["alerts"]
    assert found["channels"] == [
        {"name": "ops", "undelivered": 1, "failure": "status 503"},
        {
            "name": "chat",
            "undelivered": 1,
            "failure": "the service refuses the message, or does not respond",
        },
    ]
    shown = " ".join(loading("status").out.split())
    assert "1 message to ops could not be delivered yet: status 503" in shown
    assert TOKEN not in shown


def test_status_and_metrics_show_what_fires(
    loading: Command, history: History, database_url: str, tmp_path: Path
) -> None:
    """`status` names the alert and its workflow; `/metrics` counts 1 for it and 0 for the other."""
    loading("sync")
    [workflow] = history.workflows()
    rules = loading("status", "--json").json["alerts"]["rules"]
    assert [(rule["name"], rule["firing"]) for rule in rules] == [("runs fail", 1), ("never", 0)]
    [example] = rules[0]["examples"]
    assert (example["workflow_id"], example["threshold"]) == (workflow["workflow_id"], 0.0)
    shown = " ".join(loading("status").out.split())
    assert f"runs fail fires: {workflow['name']} since" in shown
    assert "never" not in shown

    metrics = Metrics()
    database = Database(database_url)
    try:
        metrics.set_status(app.read_status(settings.load(tmp_path / "etl.toml", {}), database))
    finally:
        database.close()
    firing = {
        sample.labels["name"]: sample.value
        for family in text_string_to_metric_families(metrics.exposition(ready=True).decode())
        if family.name == "orchestra_etl_alert_firing"
        for sample in family.samples
    }
    assert firing == {"runs fail": 1.0, "never": 0.0}


def test_status_works_before_the_tables_of_alerts_exist(
    loading: Command, hook: Receiver, database_url: str
) -> None:
    """With a schema older than the alerts, `sync` and `status` work and show no alert."""
    query(
        database_url,
        "DROP VIEW orchestra.alerts;"
        "DROP TABLE orchestra_etl.alerts, orchestra_etl.alert_notifications,"
        " orchestra_etl.alert_episodes, orchestra_etl.alert_mutes, orchestra_etl.alert_evaluation",
    )
    assert loading("sync").status == 0
    assert loading("status", "--json").json["alerts"] == {"rules": [], "channels": []}
    assert hook.requests == []


@pytest.mark.parametrize("channel", ["ops", "chat"])
def test_a_channel_is_tested(loading: Command, hook: Receiver, channel: str) -> None:
    """`alerts test` sends one message that says what it is, and needs no database."""
    done = loading("alerts", "test", channel)
    assert done.status == 0
    [request] = hook.requests
    assert "orchestra-etl can reach this channel" in request.document["title"]
    assert f"test {channel} " in json.dumps(request.document)


@pytest.mark.parametrize(("channel", "status"), [("ops", 404), ("chat", 302)])
def test_a_channel_that_does_not_accept_has_an_exit_status(
    loading: Command, hook: Receiver, channel: str, status: int
) -> None:
    """A refused test message ends with status 13, and the URL is not shown."""
    hook.status = status
    done = loading("alerts", "test", channel)
    assert done.status == ExitStatus.NOT_ACCEPTED
    assert f"{channel} did not accept the message" in done.err
    assert TOKEN not in done.out + done.err


def test_an_unknown_channel_is_refused(loading: Command, hook: Receiver) -> None:
    """The error names the channels that exist."""
    done = loading("alerts", "test", "opps")
    assert done.status == ExitStatus.USAGE
    assert "there is no channel opps" in done.err
    assert "choose from ops, chat" in done.err
    assert hook.requests == []

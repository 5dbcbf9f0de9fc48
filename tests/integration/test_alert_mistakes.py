"""`config check` names the rules that can never fire, and `alerts` shows what rules find."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.exit_status import ExitStatus
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests import alert_rows
from tests.command_line import Command, command_line
from tests.support import query

ID = "workflow-a"


def rule(**values: object) -> str:
    """Return a rule in TOML."""
    given = {"name": "r", "metric": "failures", "above": 0, **values}
    lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
    return "\n".join(["[[alerts]]", *lines, ""])


WORKFLOW = f"""
[[workflows]]
id = "{ID}"
labels = {{ team = "support" }}
"""


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """Provide a simulated API."""
    with Simulator(History(runs_per_workflow=1, live=0), api_key="the-key").in_thread() as found:
        yield found


Make = Callable[..., Command]


@pytest.fixture
def make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Make:
    """Provide a function that makes a command with a configuration."""

    def made(toml: str, **variables: str) -> Command:
        return command_line(tmp_path, monkeypatch, capsys, toml, **variables)

    return made


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (rule(workflow="elsewhere"), "workflow elsewhere is not configured"),
        (rule(label="team=sales"), "no configured workflow has the label team=sales"),
        (rule(node="SendMial_0"), "no step has the node SendMial_0"),
        (rule(model="virtuoso"), "no step has the model virtuoso"),
        (rule(organisation="nobody"), "no step has the organisation nobody"),
        (rule(over="1m"), "its window of 1 min is shorter than the 5 min between two sweeps"),
        (rule(over="2d"), "its window is longer than runs are kept (retention.runs)"),
        (rule(label="team=support", node="SendMail_0"), None),
        (rule(node="NotRunYet_0"), None),
    ],
)
def test_config_check_names_a_rule_that_can_never_fire(
    make: Make, simulator: Simulator, database_url: str, toml: str, problem: str | None
) -> None:
    """The check names the rule and why: an unknown name, or too short a window or retention."""
    now = datetime.now(UTC)
    alert_rows.workflow(database_url, ID, swept_at=now, labels='{"team": "support"}')
    query(
        database_url,
        "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, graph)"
        ' VALUES (%s, now(), \'{"nodes": [{"id": "NotRunYet_0"}]}\')',
        ID,
    )
    query(
        database_url,
        "INSERT INTO orchestra.step_rollup_daily (workflow_id, day, ordinal, node_id, succeeded,"
        " soft_failed, failed, cancelled, skipped, unfinished, calls, unmetered_calls,"
        " untotalled_calls, reported_calls, buckets, counts, failed_buckets, failed_counts)"
        " VALUES (%s, current_date, 1, 'SendMail_0', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}', '{}',"
        " '{}', '{}')",
        ID,
    )
    configuration = f'{WORKFLOW}interval = "5m"\n[retention]\nruns = "1d"\n{toml}'
    command = make(
        configuration, DATABASE_URL=database_url, ORCHESTRA_BASE_URL=simulator.base_url,
        ORCHESTRA_API_KEY="the-key",
    )  # fmt: skip
    found = {one["subject"]: one for one in command("config", "check", "--json").json}
    if problem is None:
        assert found["alerts"]["ok"]
    else:
        assert found["alert r"]["text"] == f"it can never fire: {problem}"


def test_a_rule_with_an_unknown_channel_is_an_error(make: Make, database_url: str) -> None:
    """A misspelt channel stops every command, so that it is seen at once."""
    command = make(WORKFLOW + rule().rstrip() + '\nnotify = ["opps"]\n', DATABASE_URL=database_url)
    failed = command("alerts", "list")
    assert failed.status == ExitStatus.USAGE
    assert "notifies opps, but there is no [notify.opps]" in failed.err


def test_alerts_are_listed_checked_and_muted(make: Make, database_url: str, tmp_path: Path) -> None:
    """`check` shows what would be sent and changes nothing; `mute` holds it back."""
    now = datetime.now(UTC)
    alert_rows.workflow(database_url, ID, swept_at=now)
    alert_rows.run(database_url, "bad", ID, now - timedelta(minutes=5), "failed")
    (tmp_path / "ops").write_text("http://127.0.0.1:9/hook")
    toml = f'{WORKFLOW}{rule().rstrip()}\nnotify = ["ops"]\n[notify.ops]\nurl_file = "ops"\n'
    command = make(toml, DATABASE_URL=database_url)
    assert "not evaluated yet" in command("alerts", "list").out
    checked = command("alerts", "check")
    assert checked.status == ExitStatus.ALERT_FIRES
    assert "firing" in checked.out
    assert "would send to ops" in checked.out
    [finding] = command("alerts", "check", "--json").json["findings"]
    assert (finding["alert"]["state"], finding["alert"]["value"]) == ("firing", 1)
    assert query(database_url, "SELECT FROM orchestra_etl.alerts") == []
    assert command("alerts", "mute", "r", "--for", "2h", "--json").json["muted_until"] is not None
    [finding] = command("alerts", "check", "--json").json["findings"]
    assert finding["messages"] == []
    assert command("alerts", "unmute", "r", "--json").json["was_muted"]
    assert command("alerts", "mute", "other", "--for", "2h").status == ExitStatus.USAGE


def test_alerts_need_their_tables(make: Make, database_url: str) -> None:
    """With the schema of an earlier revision, the commands say what to do."""
    for table in ("alert_evaluation", "alert_mutes"):
        query(database_url, f"DROP TABLE orchestra_etl.{table}")
    command = make(WORKFLOW + rule(), DATABASE_URL=database_url)
    failed = command("alerts", "list")
    assert failed.status == ExitStatus.DATABASE
    assert "db upgrade" in failed.err

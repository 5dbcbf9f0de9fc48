"""Rules fire and resolve by what happened, and say so when that is not known."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import psycopg
import pytest

from etl.alerts import definitions, evaluation, knowledge, states
from etl.alerts.evaluation import EvaluationReport
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Part, Rule
from etl.analytics import rollups
from etl.database import Database
from etl.schema import upgrade
from tests import alert_rows
from tests.support import query

PAUSES = Pauses({"a": 60.0, "b": 60.0})


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database with a workflow that was swept just now."""
    alert_rows.workflow(database_url, "a", swept_at=now())
    return database


def now() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


def ago(minutes: float) -> datetime:
    """Return the time this many minutes before the current whole minute."""
    return now().replace(second=0, microsecond=0) - timedelta(minutes=minutes)


def rule(**values: Any) -> Rule:
    """Return a rule on failed runs."""
    return Rule(
        **{
            "name": "r",
            "metric": "failure_rate",
            "comparison": "above",
            "limit": 0.2,
            "notify": ("ops",),
            **values,
        }
    )


def evaluate(database: Database, url: str, *rules: Rule, refresh: bool = True) -> EvaluationReport:
    """Sweep, refresh the rollups, and evaluate."""
    alert_rows.swept(url, "a", now())
    if refresh:
        rollups.drain(database)
    return database.transaction(lambda c: evaluation.evaluate(c, rules, PAUSES))


def stored(url: str) -> list[dict[str, Any]]:
    """Return the stored states."""
    return query(url, "SELECT * FROM orchestra_etl.alerts ORDER BY rule, subject")


def definitions_lapse(url: str) -> None:
    """Make the definitions that were evaluated so far older than the time for which they count."""
    query(
        url,
        "UPDATE orchestra_etl.alert_evaluation SET definitions = (SELECT jsonb_object_agg(rule,"
        " (SELECT jsonb_object_agg(key, CAST(value AS float8) - %s) FROM jsonb_each(times)))"
        " FROM jsonb_each(definitions) AS d (rule, times))",
        definitions.KEPT,
    )


def queued(url: str) -> list[tuple[str, str, int]]:
    """Return the kind, the channel and the sequence of the queued messages."""
    rows = query(url, "SELECT * FROM orchestra_etl.alert_notifications ORDER BY id")
    return [(row["kind"], row["channel"], row["sequence"]) for row in rows]


def test_a_failing_workflow_fires_and_resolves_once(database: Database, database_url: str) -> None:
    """A rule fires with one message if too many runs failed, and resolves if few fail again."""
    for n in range(8):
        alert_rows.run(database_url, f"ok{n}", "a", ago(30 - n))
    assert evaluate(database, database_url, rule()).findings == ()
    assert stored(database_url) == []
    for n in range(3):
        alert_rows.run(database_url, f"bad{n}", "a", ago(20 - n), "failed")
    evaluate(database, database_url, rule())
    evaluate(database, database_url, rule())
    [alert] = stored(database_url)
    assert (alert["state"], alert["value"], alert["threshold"]) == ("firing", 3 / 11, 0.2)
    assert queued(database_url) == [("firing", "ops", 1)]
    for n in range(8):
        alert_rows.run(database_url, f"more{n}", "a", ago(10 - n / 10))
    evaluate(database, database_url, rule())
    assert [one["state"] for one in stored(database_url)] == ["resolved"]
    assert queued(database_url) == [("firing", "ops", 1), ("resolved", "ops", 1)]


def silence(**values: Any) -> Rule:
    """Return a rule on a workflow that does not run."""
    return rule(metric="runs", comparison="below", limit=1, over=600.0, **values)


def known_run(url: str) -> None:
    """Store an old run, so that the history begins before any window."""
    alert_rows.run(url, "first", "a", ago(60 * 24 * 60))


def state_of(url: str) -> list[tuple[str, str | None]]:
    """Return the state of each alert, and why it is not known."""
    return [(row["state"], row["reason"]) for row in stored(url)]


def test_a_breach_must_last(database: Database, database_url: str) -> None:
    """A rule with `for` is pending until the breach has lasted, and then fires."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    held = rule(hold=300.0)
    evaluate(database, database_url, held)
    assert (state_of(database_url), queued(database_url)) == ([("pending", None)], [])
    query(database_url, "UPDATE orchestra_etl.alerts SET since = since - interval '299 seconds'")
    evaluate(database, database_url, held)
    query(database_url, "UPDATE orchestra_etl.alerts SET since = since - interval '5 seconds'")
    evaluate(database, database_url, held)
    assert state_of(database_url) == [("firing", None)]
    assert queued(database_url) == [("firing", "ops", 1)]


def test_a_breach_that_ends_early_is_forgotten(database: Database, database_url: str) -> None:
    """A pending rule that is no longer breached leaves no row."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    evaluate(database, database_url, rule(hold=300.0))
    alert_rows.run(database_url, "bad", "a", ago(5), "succeeded")
    evaluate(database, database_url, rule(hold=300.0))
    assert stored(database_url) == []


def test_reminders_follow_the_interval_of_the_rule(database: Database, database_url: str) -> None:
    """While a rule fires, a reminder follows whenever `repeat` has passed."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    repeated = rule(repeat=3600.0)
    for _ in range(3):
        evaluate(database, database_url, repeated)
    assert queued(database_url) == [("firing", "ops", 1)]
    for _ in range(2):
        query(
            database_url,
            "UPDATE orchestra_etl.alerts SET notified_at = notified_at - interval '1 hour'",
        )
        evaluate(database, database_url, repeated)
    assert queued(database_url) == [("firing", "ops", 1), *[("reminder", "ops", 1)] * 2]
    keys = query(database_url, "SELECT DISTINCT key FROM orchestra_etl.alert_notifications")
    assert len(keys) == 3


def test_late_data_undoes_a_breach(database: Database, database_url: str) -> None:
    """Silence that late runs disprove is resolved, and fires again under another sequence."""
    known_run(database_url)
    evaluate(database, database_url, silence())
    alert_rows.run(database_url, "late", "a", ago(5))
    evaluate(database, database_url, silence())
    assert state_of(database_url) == [("resolved", None)]
    query(database_url, "DELETE FROM orchestra.runs WHERE id = 'late'")
    evaluate(database, database_url, silence())
    assert queued(database_url) == [
        ("firing", "ops", 1),
        ("resolved", "ops", 1),
        ("firing", "ops", 2),
    ]
    episodes = query(database_url, "SELECT * FROM orchestra.alerts ORDER BY fired_at")
    assert [one["state"] for one in episodes] == ["resolved", "firing"]
    assert episodes[0]["resolved_at"] >= episodes[0]["fired_at"]


Obstacle = Literal["gap", "open gap", "behind", "never swept", "unread", "queue", "empty history"]


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        ("gap", "runs of this time may have been missed (see `gaps list`)"),
        ("open gap", "runs of this time may have been missed (see `gaps list`)"),
        ("behind", "no complete sweep since"),
        ("never swept", "no sweep has completed yet"),
        ("unread", "some of its runs are not read yet"),
        ("queue", "its rollups are being recomputed"),
        ("empty history", "its history begins within the window"),
    ],
)
def test_silence_of_the_pipeline_is_not_silence_of_the_workflow(
    database: Database, database_url: str, obstacle: Obstacle, reason: str
) -> None:
    """Nothing ran as far as is known, but the window is not complete: the rule says so."""
    if obstacle != "empty history":
        known_run(database_url)
    rollups.drain(database)
    alert_rows.swept(database_url, "a", now())
    match obstacle:
        case "gap":
            gap(database_url, ago(9), ago(3))
        case "open gap":
            gap(database_url, ago(60 * 24 * 60), None)
        case "behind":
            alert_rows.swept(database_url, "a", ago(8))
        case "never swept":
            query(database_url, "UPDATE orchestra_etl.sweeps SET watermark = 0, swept_at = NULL")
        case "unread":
            alert_rows.run(database_url, "unread", "a", ago(7), is_read=False)
        case "queue":
            query(database_url, "INSERT INTO orchestra_etl.changed_groups (hour) VALUES (NULL)")
        case "empty history":
            pass
    database.transaction(lambda c: evaluation.evaluate(c, [silence()], PAUSES))
    [(state, found)] = state_of(database_url)
    assert state == "unknown"
    assert found is not None
    assert found.startswith(reason)
    assert queued(database_url) == []


def test_a_clock_that_was_set_back_stops_no_evaluation(
    database: Database, database_url: str
) -> None:
    """If the last times are in the future, rules are evaluated; a pending alert stays pending."""
    alert_rows.run(database_url, "r", "a", ago(5), "failed")
    pending = rule(hold=60.0)
    assert evaluate(database, database_url, pending).firing == 0
    query(
        database_url,
        "UPDATE orchestra_etl.alert_evaluation SET evaluated_at = now() + interval '1 day';"
        "UPDATE orchestra_etl.alerts SET since = now() + interval '1 day'",
    )
    report = database.transaction(
        lambda c: evaluation.evaluate(c, [pending], PAUSES, every=evaluation.EVERY)
    )
    assert report.at is not None
    assert report.findings[0].alert.since <= report.at


def test_without_rules_nothing_is_imported_until_a_removed_rule_has_states(
    database: Database, database_url: str
) -> None:
    """Without rules, a sync loads no module of the alerts; a state of a removed rule still ends."""
    code = (
        "import asyncio, sys; from types import SimpleNamespace; from etl import alerting;"
        "from etl.database import Database; database = Database(sys.argv[1]);"
        "settings = SimpleNamespace(alerts=(), workflows=(), api=SimpleNamespace("
        "all_workflows=False));"
        "asyncio.run(alerting.evaluate(settings, database)); database.close();"
        "print([one for one in sys.modules if one.startswith('etl.alerts')])"
    )

    def loaded() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, database_url], capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()[-1]

    assert loaded() == "[]"
    alert_rows.run(database_url, "r", "a", ago(5), "failed")
    assert evaluate(database, database_url, rule()).firing == 1
    definitions_lapse(database_url)
    assert "etl.alerts.states" in loaded()
    assert state_of(database_url) == [("resolved", "no rule covers it any more")]


def test_windows_before_the_begin_of_a_sweep_is_stored(empty_database_url: str) -> None:
    """With the schema of revision 0003, a window ends a minute before the end of a sweep."""
    upgrade(empty_database_url, revision="0003")
    swept = ago(5)
    alert_rows.workflow(empty_database_url, "a", swept_at=swept)
    query(empty_database_url, "UPDATE orchestra_etl.sweeps SET started_at = now()")
    made = Database(empty_database_url, patience=5)
    [known] = made.transaction(lambda c: knowledge.read(c, now(), PAUSES))
    made.close()
    assert known.until == swept - timedelta(minutes=1)


def gap(url: str, after: datetime, before: datetime | None) -> None:
    """Record a gap of the workflow."""
    query(
        url,
        "INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail, detected_at)"
        " VALUES ('a', %s, %s, '', %s)",
        after, before, before or after,
    )  # fmt: skip


def test_a_gap_elsewhere_hides_nothing(database: Database, database_url: str) -> None:
    """A gap outside the window, or in another workflow, does not matter; silence fires."""
    known_run(database_url)
    gap(database_url, ago(60), ago(30))
    alert_rows.workflow(database_url, "b", swept_at=now())
    query(
        database_url,
        "INSERT INTO orchestra_etl.gaps (workflow_id, after_time, detail) VALUES ('b', %s, '')",
        ago(60),
    )
    evaluate(database, database_url, silence(workflow="a"))
    assert state_of(database_url) == [("firing", None)]


def test_an_alert_keeps_firing_while_nothing_is_known(
    database: Database, database_url: str
) -> None:
    """An alert that fires is neither resolved nor repeated while the window is not complete."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    repeated = rule(repeat=1.0)
    evaluate(database, database_url, repeated)
    query(database_url, "UPDATE orchestra_etl.alerts SET notified_at = now() - interval '1 day'")
    alert_rows.swept(database_url, "a", ago(30))
    database.transaction(lambda c: evaluation.evaluate(c, [repeated], PAUSES))
    [(state, reason)] = state_of(database_url)
    assert state == "firing"
    assert reason is not None
    assert reason.startswith("no complete sweep since")
    assert queued(database_url) == [("firing", "ops", 1)]
    alert_rows.run(database_url, "bad", "a", ago(5))
    evaluate(database, database_url, repeated)
    assert queued(database_url)[1:] == [("resolved", "ops", 1)]


def test_open_runs_can_change_a_share(database: Database, database_url: str) -> None:
    """A share is known only if the runs that have not ended cannot move it over the limit."""
    for n in range(3):
        alert_rows.run(database_url, f"bad{n}", "a", ago(20), "failed")
    for n in range(17):
        alert_rows.run(database_url, f"open{n}", "a", ago(10), "running")
    evaluate(database, database_url, rule())
    assert state_of(database_url) == [("unknown", "runs that have not ended could change it")]
    alert_rows.run(database_url, "bad3", "a", ago(19), "failed")
    alert_rows.run(database_url, "bad4", "a", ago(19), "failed")
    evaluate(database, database_url, rule())
    assert [state for state, _ in state_of(database_url)] == ["firing"]


def test_a_count_says_what_has_happened(database: Database, database_url: str) -> None:
    """A run that has not ended has not failed, so a count of failures is known."""
    alert_rows.run(database_url, "open", "a", ago(10), "running")
    failures = rule(metric="failures", limit=0)
    assert evaluate(database, database_url, failures).findings == ()
    query(database_url, "UPDATE orchestra_etl.run_ledger SET attempts = 3, due_at = now()")
    evaluate(database, database_url, failures)
    assert state_of(database_url) == [("unknown", "some of its runs are not read yet")]


def test_a_run_that_was_just_listed_ends_the_window(database: Database, database_url: str) -> None:
    """The window ends before runs that are read in a moment, instead of being unknown."""
    known_run(database_url)
    listed = ago(2)
    alert_rows.run(database_url, "ok", "a", ago(8))
    alert_rows.run(database_url, "unread", "a", listed, is_read=False)
    counted = rule(metric="runs", limit=0, over=600.0)
    evaluate(database, database_url, counted)
    [alert] = stored(database_url)
    assert (alert["state"], alert["value"]) == ("firing", 1)
    [row] = query(database_url, "SELECT content FROM orchestra_etl.alert_notifications")
    assert datetime.fromisoformat(row["content"]["window_end"]) == listed


def test_a_muted_rule_says_nothing_until_the_mute_ends(
    database: Database, database_url: str
) -> None:
    """A muted rule fires without a message; if it fires after the mute, it sends one then."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    database.transaction(lambda c: states.mute(c, "r", 3600.0))
    evaluate(database, database_url, rule())
    assert (state_of(database_url), queued(database_url)) == ([("firing", None)], [])
    assert database.transaction(lambda c: states.unmute(c, "r"))
    evaluate(database, database_url, rule())
    assert queued(database_url) == [("firing", "ops", 1)]


def test_an_alert_that_fired_only_while_muted_is_resolved_silently(
    database: Database, database_url: str
) -> None:
    """An alert that fired only while it was muted is resolved without a message."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    database.transaction(lambda c: states.mute(c, "r", 3600.0))
    evaluate(database, database_url, rule())
    alert_rows.run(database_url, "bad", "a", ago(5))
    evaluate(database, database_url, rule())
    assert (state_of(database_url), queued(database_url)) == ([("resolved", None)], [])


def test_a_rule_that_is_removed_is_resolved(database: Database, database_url: str) -> None:
    """Channels that got a message about an alert get one when no rule covers it any more."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    evaluate(database, database_url, rule())
    evaluate(database, database_url)
    definitions_lapse(database_url)
    evaluate(database, database_url)
    assert [state for state, _ in state_of(database_url)] == ["resolved"]
    assert queued(database_url) == [("firing", "ops", 1), ("resolved", "ops", 1)]
    assert evaluate(database, database_url).at is None
    assert len(queued(database_url)) == 2


def test_rules_cover_the_workflows_that_they_name(database: Database, database_url: str) -> None:
    """A rule covers all workflows, one, or those with a label, and each by itself."""
    alert_rows.workflow(database_url, "b", swept_at=now(), labels='{"team": "support"}')
    alert_rows.workflow(database_url, "elsewhere", swept_at=now())
    for id in ("a", "b", "elsewhere"):
        alert_rows.run(database_url, f"bad {id}", id, ago(5), "failed")
    rules = [
        rule(name="all"),
        rule(name="one", workflow="a"),
        rule(name="team", label="team=support"),
    ]
    evaluate(database, database_url, *rules)
    assert [(row["rule"], row["workflow_id"], row["state"]) for row in stored(database_url)] == [
        ("all", "a", "firing"),
        ("all", "b", "firing"),
        ("one", "a", "firing"),
        ("team", "b", "firing"),
    ]


def test_nothing_is_written_when_nothing_changes(database: Database, database_url: str) -> None:
    """A second evaluation of firing, unknown and resolved alerts touches no row of theirs."""
    known_run(database_url)
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    alert_rows.run(database_url, "open", "a", ago(6), "running")
    rules = [rule(), silence(name="quiet"), rule(name="unsure", limit=0.6)]
    evaluate(database, database_url, *rules)
    tables = ("alerts", "alert_episodes", "alert_notifications", "alert_mutes")
    sql = " UNION ALL ".join(
        f"SELECT '{one}' AS name, xmin::text, ctid::text FROM orchestra_etl.{one}" for one in tables
    )
    before = query(database_url, sql)
    assert {row["name"] for row in before} == {"alerts", "alert_episodes", "alert_notifications"}
    assert evaluate(database, database_url, *rules).written == 0
    assert query(database_url, sql) == before


def evaluated_within(database: Database, every: float) -> bool:
    """Return whether a process evaluates, unless another did so this many seconds ago."""
    report = database.transaction(lambda c: evaluation.evaluate(c, [rule()], PAUSES, every=every))
    return report.at is not None


@pytest.mark.parametrize("difference", ["removed", "limit", "workflows"])
def test_replicas_with_other_settings_end_no_alert(
    database: Database, database_url: str, difference: str
) -> None:
    """Of two processes with other settings in turn, neither resolves what the other one fires.

    The alert sends one message. It is resolved when only settings that do not breach it are left.
    """
    alert_rows.workflow(database_url, "b", swept_at=now())
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    alert_rows.run(database_url, "ok", "a", ago(6))
    old = rule()
    rules, pauses = {
        "removed": ([rule(name="other", limit=0.9)], PAUSES),
        "limit": ([rule(limit=0.9)], PAUSES),
        "workflows": ([old], Pauses({"b": 60.0})),
    }[difference]

    def new() -> None:
        database.transaction(lambda c: evaluation.evaluate(c, rules, pauses))

    for _ in range(2):
        evaluate(database, database_url, old)
        assert state_of(database_url) == [("firing", None)]
        new()
        [(state, reason)] = state_of(database_url)
        assert state == "firing"
        assert reason is not None
        assert reason.startswith("a process with other settings")
    definitions_lapse(database_url)
    evaluate(database, database_url, old)
    new()
    assert [one for one, _ in state_of(database_url)] == ["firing"]
    definitions_lapse(database_url)
    new()
    assert [one for one, _ in state_of(database_url)] == ["resolved"]
    assert queued(database_url) == [("firing", "ops", 1), ("resolved", "ops", 1)]


def test_replicas_with_other_rules_each_evaluate_their_own(
    database: Database, database_url: str
) -> None:
    """Of replicas that tick in turn, each evaluates its rules; with equal rules, one does."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    alert_rows.swept(database_url, "a", now())
    rollups.drain(database)
    one, other = [rule()], [rule(), rule(name="other")]

    def tick(rules: list[Rule]) -> bool:
        found = database.transaction(
            lambda c: evaluation.evaluate(c, rules, PAUSES, every=evaluation.EVERY)
        )
        # Half a minute passes until the other one's tick.
        query(
            database_url,
            "UPDATE orchestra_etl.alert_evaluation"
            " SET evaluated_at = evaluated_at - interval '30 seconds'",
        )
        return found.at is not None

    assert [(tick(one), tick(other)) for _ in range(3)] == [(True, True)] * 3
    assert [one["rule"] for one in stored(database_url)] == ["other", "r"]
    assert [(tick(other), tick(other)) for _ in range(3)] == [(False, True)] * 3


def test_a_pending_alert_survives_replicas_with_other_settings(
    database: Database, database_url: str
) -> None:
    """The time that a breach has lasted is not lost to a process without the rule."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    held = rule(hold=300.0)
    evaluate(database, database_url, held)
    since = stored(database_url)[0]["since"]
    evaluate(database, database_url, rule(name="other", limit=1))
    evaluate(database, database_url, rule(hold=300.0, limit=1))
    evaluate(database, database_url, held)
    assert [(one["state"], one["since"]) for one in stored(database_url)] == [("pending", since)]


def test_the_record_of_definitions_is_seldom_written(database: Database, database_url: str) -> None:
    """An evaluation of known definitions writes them again only after some minutes."""

    def recorded() -> float:
        [found] = query(database_url, "SELECT definitions FROM orchestra_etl.alert_evaluation")
        [time] = found["definitions"]["r"].values()
        return float(time)

    evaluate(database, database_url, rule())
    first = recorded()
    evaluate(database, database_url, rule())
    assert recorded() == first
    query(
        database_url,
        "UPDATE orchestra_etl.alert_evaluation SET definitions = jsonb_set(definitions, '{r}',"
        " (SELECT jsonb_object_agg(key, CAST(value AS float8) - %s)"
        " FROM jsonb_each(definitions -> 'r')))",
        definitions.RENEWED_AFTER,
    )
    evaluate(database, database_url, rule())
    assert recorded() > first


def test_other_recipients_are_the_same_rule(database: Database, database_url: str) -> None:
    """A change of `notify` or `repeat` does not delay the end of an alert."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    evaluate(database, database_url, rule())
    alert_rows.run(database_url, "bad", "a", ago(5))
    evaluate(database, database_url, rule(notify=("dev",), repeat=60.0))
    assert state_of(database_url) == [("resolved", None)]


def test_alerts_end_at_once_with_the_schema_of_revision_0003(empty_database_url: str) -> None:
    """Without the column for definitions, rules are evaluated, and others end at once."""
    upgrade(empty_database_url, revision="0003")
    alert_rows.workflow(empty_database_url, "a", swept_at=now())
    alert_rows.run(empty_database_url, "bad", "a", ago(5), "failed")
    made = Database(empty_database_url, patience=5)
    evaluate(made, empty_database_url, rule())
    assert state_of(empty_database_url) == [("firing", None)]
    evaluate(made, empty_database_url, rule(name="other", limit=1))
    assert state_of(empty_database_url) == [("resolved", "no rule covers it any more")]
    made.close()


def test_a_rule_is_muted_with_the_schema_of_revision_0004(empty_database_url: str) -> None:
    """Without the column for the time of a mute, a rule is muted, again and no longer."""
    upgrade(empty_database_url, revision="0004")
    made = Database(empty_database_url, patience=5)
    alert_rows.workflow(empty_database_url, "a", swept_at=now())
    alert_rows.run(empty_database_url, "bad", "a", ago(5), "failed")
    first = made.transaction(lambda c: states.mute(c, "r", 3600.0))
    again = made.transaction(lambda c: states.mute(c, "r", 7200.0))
    assert timedelta(minutes=59) < again - first < timedelta(minutes=61)
    evaluate(made, empty_database_url, rule())
    assert (state_of(empty_database_url), queued(empty_database_url)) == ([("firing", None)], [])
    assert made.transaction(lambda c: states.unmute(c, "r"))
    evaluate(made, empty_database_url, rule())
    assert queued(empty_database_url) == [("firing", "ops", 1)]
    made.close()


def test_a_reminder_does_not_wait_for_a_clock_that_was_set_back(
    database: Database, database_url: str
) -> None:
    """If the last message lies in the future, the next reminder is due `repeat` after now."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    repeated = rule(repeat=60.0)
    evaluate(database, database_url, repeated)
    query(database_url, "UPDATE orchestra_etl.alerts SET notified_at = now() + interval '1 day'")
    report = evaluate(database, database_url, repeated)
    assert stored(database_url)[0]["notified_at"] == report.at
    query(database_url, "UPDATE orchestra_etl.alerts SET notified_at = notified_at - interval '1m'")
    evaluate(database, database_url, repeated)
    assert [kind for kind, _, _ in queued(database_url)] == ["firing", "reminder"]


def test_one_process_evaluates_for_all(database: Database, database_url: str) -> None:
    """Of several processes that evaluate at the same time, one does, and sends one message."""
    alert_rows.run(database_url, "bad", "a", ago(5), "failed")
    alert_rows.swept(database_url, "a", now())
    rollups.drain(database)
    reports: list[EvaluationReport] = []
    together = threading.Barrier(4)

    def one() -> None:
        own = Database(database_url, patience=5)
        together.wait()
        reports.append(
            own.transaction(
                lambda c: evaluation.evaluate(c, [rule()], PAUSES, every=evaluation.EVERY)
            )
        )
        own.close()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.subjects for report in reports if report.at is not None] == [1]
    assert evaluated_within(database, evaluation.EVERY) is False
    assert evaluated_within(database, 0.0) is True
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM orchestra_etl.alert_evaluation FOR UPDATE")
        assert evaluated_within(database, 0.0) is False
    assert queued(database_url) == [("firing", "ops", 1)]


def test_overdue_runs_are_those_of_the_view(database: Database, database_url: str) -> None:
    """The number of overdue runs is that of `orchestra.open_runs`, by organisation too."""
    for n in range(40):
        alert_rows.run(database_url, f"ok{n}", "a", ago(100 + n), seconds=10.0 if n else 3000.0)
    for n, organisation in enumerate(["one", "two", "one", None]):
        alert_rows.run(
            database_url, f"open{n}", "a", ago(4 * n), "running", organization_id=organisation
        )
    for one in ("one", None):
        part = Part(organisation=one)
        overdue = rule(metric="overdue_runs", comparison="above", limit=0, part=part)
        found = evaluate(database, database_url, overdue)
        expected = query(
            database_url,
            "SELECT count(*) AS n FROM orchestra.open_runs WHERE overdue"
            " AND (organization_id = %(one)s OR %(one)s::text IS NULL)".replace("%(one)s", "%s"),
            one, one,
        )[0]["n"]  # fmt: skip
        assert expected > 0
        assert [
            finding.alert.value for finding in found.findings if finding.alert.state == "firing"
        ] == [expected]
        definitions_lapse(database_url)


def test_lag_is_known_when_the_pipeline_is_behind(database: Database, database_url: str) -> None:
    """The lag is the time since the last complete sweep began, however long ago that was."""
    alert_rows.swept(database_url, "a", now() - timedelta(hours=3))
    behind = rule(metric="lag", limit=7200.0)
    database.transaction(lambda c: evaluation.evaluate(c, [behind], PAUSES))
    [alert] = stored(database_url)
    assert alert["state"] == "firing"
    assert 3 * 3600 <= alert["value"] < 3 * 3600 + 60


def test_a_rule_without_enough_runs_says_nothing(database: Database, database_url: str) -> None:
    """With fewer than `min_runs`, a breach is none; with enough, it fires."""
    for n in range(4):
        alert_rows.run(database_url, f"bad{n}", "a", ago(5 + n), "failed")
    assert evaluate(database, database_url, rule(min_runs=5)).findings == ()
    alert_rows.run(database_url, "bad4", "a", ago(5), "failed")
    evaluate(database, database_url, rule(min_runs=5))
    assert state_of(database_url) == [("firing", None)]


def test_calls_without_a_price_can_cost_anything(database: Database, database_url: str) -> None:
    """A cost that lacks a price is not known to be low, but can be known to be high."""
    alert_rows.run(database_url, "run", "a", ago(5))
    alert_rows.step(
        database_url, "step", "run", "a", ago(5), request_model="nobody knows", input_tokens=1
    )
    evaluate(database, database_url, rule(metric="cost", limit=10))
    assert state_of(database_url) == [("unknown", "some of its calls have no price")]
    unpriced = rule(metric="unpriced_calls", limit=0)
    evaluate(database, database_url, unpriced)
    assert stored(database_url)[0]["state"] == "firing"


def test_a_late_read_is_named(database: Database, database_url: str) -> None:
    """The patience for reads is that of the module: an old open run is not late by design."""
    alert_rows.run(database_url, "open", "a", ago(10), "running")
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET due_at = now() - make_interval(secs => %s)",
        knowledge.PATIENCE + 1,
    )
    evaluate(database, database_url, rule(metric="failures", limit=0))
    assert state_of(database_url) == [("unknown", "some of its runs are not read yet")]

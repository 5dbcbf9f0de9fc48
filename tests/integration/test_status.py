"""`status`: what it shows of each workflow, and when that is a warning or a failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.command_line import TRIAGE, WEATHER, Command, command_line
from tests.support import query

TOML = f"""
[[workflows]]
id = "{WEATHER}"
name = "weather jokes"
"""


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> Command:
    """Provide the command, with one workflow configured."""
    return command_line(tmp_path, monkeypatch, capsys, TOML, DATABASE_URL=database_url)


def _sweep(
    url: str,
    *,
    ago: str = "1 minute",
    error: str | None = None,
    new: int = 3,
    listed: int = 100,
    known: int = 0,
) -> None:
    """Store a complete sweep.

    `known` is the number of runs in the last full walk; 0 stands for the listed ones.
    """
    query(
        url,
        "INSERT INTO orchestra_etl.sweeps (workflow_id, fencing_token, watermark, started_at,"
        " swept_at, new_runs, listed_runs, known_runs, last_error)"
        " VALUES (%s, 7, 7, now() - %s::interval, now() - %s::interval + interval '1 s',"
        " %s, %s, %s, %s)"
        " ON CONFLICT (workflow_id) DO UPDATE"
        " SET started_at = excluded.started_at, swept_at = excluded.swept_at,"
        " new_runs = excluded.new_runs, listed_runs = excluded.listed_runs,"
        " known_runs = excluded.known_runs, last_error = excluded.last_error",
        WEATHER, ago, ago, new, listed, known or listed, error,
    )  # fmt: skip


def _run(
    url: str,
    run: str,
    *,
    tracking: str = "final",
    ago: str = "1 hour",
    workflow: str = WEATHER,
    **more: Any,
) -> None:
    """Store a run that was listed and read; `more` are columns of the ledger."""
    columns = {
        "due_at": None,
        "listed_sweep": 5,
        "attempts": 0,
        "last_error": None,
        "priority": 0,
        **more,
    }
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    query(
        url,
        f"INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, {names},"
        f" steps_observed_at) VALUES (%s, %s, 'list', %s, {marks}, now())",
        run, workflow, tracking, *columns.values(),
    )  # fmt: skip
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES (%s, %s, 'succeeded', 'api', %s, now() - %s::interval)",
        run, workflow, tracking, ago,
    )  # fmt: skip


def _only(command: Command, *arguments: str) -> dict[str, Any]:
    (workflow,) = command("status", "--json", *arguments).json["workflows"]
    return dict(workflow)


def _reasons(workflow: dict[str, Any]) -> list[tuple[str, str]]:
    return [(reason["level"], reason["text"]) for reason in workflow["reasons"]]


def test_a_healthy_workflow_is_ok_and_its_numbers_are_right(
    command: Command, database_url: str
) -> None:
    """Counts, ages, coverage and headroom of a healthy workflow agree with the tables."""
    _sweep(database_url)
    for number, tracking in enumerate(["final", "final", "final", "open", "stale", "gone"]):
        _run(database_url, f"run-{number}", tracking=tracking, ago=f"{number + 1} hours")
    _run(database_url, "tracked-by-hand", ago="9 days", listed_sweep=None)
    printed = command("status", "--json")
    found = printed.json
    (workflow,) = found["workflows"]
    assert (printed.status, found["verdict"], workflow["verdict"], workflow["reasons"]) == (
        0,
        "ok",
        "ok",
        [],
    )
    assert workflow["runs"] == {
        "open": 1,
        "final": 4,
        "stale": 1,
        "gone": 1,
        "lost": 0,
        "removed": 0,
    }
    assert 3600 <= workflow["freshness"]["newest_run_age"] < 3660
    assert 59 <= workflow["freshness"]["swept_age"] < 90
    stored = query(
        database_url,
        "SELECT start_time, started_at FROM orchestra.runs, orchestra_etl.sweeps"
        " WHERE id = 'run-5'",
    )[0]
    # Coverage starts at the oldest listed run, not at the older run that a user tracked.
    assert workflow["coverage"]["complete_since"] == stored["start_time"].isoformat().replace(
        "+00:00", "Z"
    )
    assert workflow["coverage"]["complete_until"] == stored["started_at"].isoformat().replace(
        "+00:00", "Z"
    )
    assert workflow["headroom"] == {"new_runs": 3, "listed_runs": 100, "window_full": False}
    assert (workflow["lag"]["due"], workflow["lag"]["unread"], workflow["dead_letters"]) == (
        0,
        0,
        0,
    )


def test_the_text_fits_80_columns_and_names_what_matters(
    command: Command, database_url: str
) -> None:
    """The text has at most 80 columns and names gaps, counts and times."""
    _sweep(database_url)
    _run(database_url, "run-1")
    query(
        database_url,
        "INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail)"
        " VALUES (%s, '2026-11-01 10:00Z', '2026-11-01 11:30Z', 'x')",
        WEATHER,
    )
    text = command("status").out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("warning ")
    assert "weather jokes  1234f567-bb12-1234-b7cd-f7a71a98cd24  warning" in text
    words = " ".join(text.split())
    assert "1 gap: #1 2026-11-01 10:00:00Z to 2026-11-01 11:30:00Z" in words
    assert "0 open, 1 final, 0 stale, 0 gone" in words
    assert "gaps not acknowledged: 1 (`orchestra-etl gaps list`)" in words
    command("gaps", "ack", "--all")
    words = " ".join(command("status").out.split())
    assert "except 1 gap (1 acknowledged): #1" in words
    assert "gaps not acknowledged" not in words
    assert (
        command("gaps", "list").out
        == "no gaps to acknowledge; 1 acknowledged gap: --all shows it\n"
    )


@pytest.mark.parametrize(
    ("ago", "error", "verdict", "words"),
    [
        ("1 minute", None, "ok", None),
        ("1 minute", "503 from the API", "warning", "the last sweep failed: 503 from the API"),
        ("119 minutes", None, "ok", None),
        ("3 hours", None, "failing", "check that the service runs"),
        ("3 hours", "503 from the API", "failing", "503 from the API"),
    ],
)
def test_a_sweep_that_is_overdue_is_a_failure(
    command: Command,
    database_url: str,
    ago: str,
    error: str | None,
    verdict: str,
    words: str | None,
) -> None:
    """A failed sweep is a warning, or a failure if none completed for two hours.

    The workflow's interval is added to the two hours.
    """
    _sweep(database_url, ago=ago, error=error)
    workflow = _only(command)
    assert workflow["verdict"] == verdict
    reasons = _reasons(workflow)
    assert len(reasons) == (words is not None)
    assert all((words or "") in text for _, text in reasons)


def test_the_maximum_age_is_an_option(command: Command, database_url: str) -> None:
    """`--max-age` replaces the default age; `--check` exits with 7 on a failure only."""
    _sweep(database_url, ago="20 minutes", error="x")
    assert _only(command)["verdict"] == "warning"
    assert command("status", "--check").status == 0
    assert command("status", "--check", "--max-age", "30m").status == 0
    failing = command("status", "--check", "--max-age", "15m")
    assert failing.status == 7
    assert failing.out.startswith("failing ")
    assert command("status", "--max-age", "15m").status == 0


def test_a_slow_schedule_is_overdue_later(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> None:
    """A workflow with a daily interval or cron is overdue after 40 hours, but not after 20."""
    for schedule in ('interval = "1d"', 'cron = "30 4 * * *"'):
        command = command_line(
            tmp_path, monkeypatch, capsys, TOML + schedule, DATABASE_URL=database_url
        )
        _sweep(database_url, ago="20 hours")
        assert _only(command)["verdict"] == "ok", schedule
        _sweep(database_url, ago="40 hours")
        assert _only(command)["verdict"] == "failing", schedule


def test_never_swept(command: Command, database_url: str) -> None:
    """Before the first complete sweep, coverage is empty; a failed first sweep is a failure."""
    workflow = _only(command)
    assert _reasons(workflow) == [
        ("warning", "not swept yet: start `orchestra-etl serve`, or run `orchestra-etl sync`")
    ]
    assert workflow["coverage"]["complete_until"] is None
    query(
        database_url,
        "INSERT INTO orchestra_etl.sweeps (workflow_id, fencing_token, started_at, last_error)"
        " VALUES (%s, 1, now(), '404')",
        WEATHER,
    )
    workflow = _only(command)
    assert _reasons(workflow) == [
        ("failing", "no sweep has completed yet; the last one failed: 404")
    ]
    assert workflow["coverage"]["complete_until"] is None


def test_an_interrupted_sweep_does_not_move_the_coverage(
    command: Command, database_url: str
) -> None:
    """Coverage ends at the last complete sweep while a later one runs or was interrupted."""
    _sweep(database_url, ago="10 minutes")
    query(
        database_url,
        "UPDATE orchestra_etl.sweeps SET fencing_token = 8, started_at = now(),"
        " leased_until = now() + interval '1 m'",
    )
    completed = query(database_url, "SELECT swept_at FROM orchestra_etl.sweeps")[0]["swept_at"]
    assert _only(command)["coverage"]["complete_until"] == completed.isoformat().replace(
        "+00:00", "Z"
    )


def test_runs_that_wait_too_long_are_a_failure_and_backfill_is_not(
    command: Command, database_url: str
) -> None:
    """Live runs that are due for hours are a failure; a backfill that waits is not."""
    _sweep(database_url)
    due = query(database_url, "SELECT now() - interval '3 hours' AS t")[0]["t"]
    _run(database_url, "history", tracking="open", due_at=due, priority=1)
    workflow = _only(command)
    assert (workflow["verdict"], workflow["lag"]["due"]) == ("ok", 1)
    assert workflow["lag"]["oldest_due"] == due.isoformat().replace("+00:00", "Z")
    _run(database_url, "live", tracking="open", due_at=due)
    assert [level for level, _ in _reasons(_only(command))] == ["failing"]


def test_open_dead_letters_and_failing_reads_are_warnings(
    command: Command, database_url: str
) -> None:
    """Open dead letters and failing reads are warnings with advice; resolved ones are not."""
    _sweep(database_url)
    due = query(database_url, "SELECT now() + interval '1 hour' AS t")[0]["t"]
    _run(
        database_url,
        "bad",
        tracking="open",
        attempts=3,
        last_error="the response for its steps is not a JSON array",
        due_at=due,
    )
    # This run was never listed and returned 404 for a week, so it is no longer read.
    _run(database_url, "given up", tracking="stale", attempts=99, last_error="404")
    _run(database_url, "gone", tracking="gone", attempts=9, last_error="404")
    for run, resolved in (("a", None), ("b", "discarded")):
        query(
            database_url,
            "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
            " content_hash, body, resolution, resolved_at)"
            " VALUES (%s, %s, 'malformed', 'd', 'h', 'SECRET-BODY', %s,"
            " CASE WHEN %s::text IS NULL THEN NULL ELSE now() END)",
            WEATHER, run, resolved, resolved,
        )  # fmt: skip
    workflow = _only(command)
    assert workflow["failing"] == {
        "runs": 1,
        "example_run": "bad",
        "example_error": "the response for its steps is not a JSON array",
    }
    assert workflow["dead_letters"] == 1
    assert [level for level, _ in _reasons(workflow)] == ["warning", "warning"]
    text = command("status").out
    assert "1 run; run bad: the response for its steps is not a JSON array" in " ".join(
        text.split()
    )
    assert "SECRET-BODY" not in text
    (health,) = query(
        database_url, "SELECT failing_runs, dead_letters FROM orchestra.pipeline_health"
    )
    assert (health["failing_runs"], health["dead_letters"]) == (
        workflow["failing"]["runs"],
        workflow["dead_letters"],
    )


def test_dead_letters_of_unknown_workflows_are_counted(command: Command, database_url: str) -> None:
    """Dead letters of a workflow without runs have a block of their own."""
    _sweep(database_url)
    query(
        database_url,
        "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
        " content_hash, body) VALUES ('typo', '', 'unusable_id', 'd', 'h', 'x')",
    )
    found = command("status", "--json").json
    assert sum(one["dead_letters"] for one in found["workflows"]) == 1
    assert found["verdict"] == "warning"


def test_status_says_if_the_list_shows_fewer_runs_than_known(
    command: Command, database_url: str
) -> None:
    """`status` says that the list shows all known runs only if the list showed that many."""
    for number in range(12):
        _run(database_url, f"run-{number}")
    _sweep(database_url, listed=12)
    assert "the list shows 12 runs, all that are known" in " ".join(command("status").out.split())
    _sweep(database_url, listed=10)
    words = " ".join(command("status").out.split())
    assert "the last walk of the whole list showed 10 runs; 12 are known now" in words
    assert "all that are known" not in words


def test_the_headroom_warns_before_runs_are_missed(command: Command, database_url: str) -> None:
    """A full window with more than half new runs is a warning; a complete list is not."""
    for number in range(12):
        _run(database_url, f"run-{number}")
    _sweep(database_url, new=6, listed=12)
    assert _only(command)["verdict"] == "ok"
    _sweep(database_url, new=5, listed=10, known=12)
    assert _only(command)["verdict"] == "ok"
    # Runs that came after the full walk do not show what the list dropped.
    _sweep(database_url, new=6, listed=10)
    assert _only(command)["verdict"] == "ok"
    _sweep(database_url, new=6, listed=10, known=12)
    workflow = _only(command)
    assert workflow["headroom"] == {"new_runs": 6, "listed_runs": 10, "window_full": True}
    assert _reasons(workflow) == [
        ("warning", "the last sweep found 6 new runs where the list shows 10: sweep more often")
    ]


def test_unconfigured_workflows_are_named(command: Command, database_url: str) -> None:
    """`status` names workflows that are not configured; one with runs has its own block."""
    _sweep(database_url)
    query(
        database_url,
        "INSERT INTO orchestra.workflows (id, name)"
        " VALUES ('w-3', 'invoice\x1b[31m [red]reader'), (%s, 'triage')",
        TRIAGE,
    )
    _run(database_url, "stray", workflow=TRIAGE)
    found = command("status", "--json").json
    assert {one["id"] for one in found["unconfigured"]} == {"w-3", TRIAGE}
    stray = next(one for one in found["workflows"] if one["id"] == TRIAGE)
    assert (stray["configured"], stray["discover"], stray["verdict"]) == (False, False, "ok")
    text = command("status").out
    # A name is shown as text; neither the terminal nor the markup interprets it.
    assert "\x1b" not in text
    assert "invoice\\x1b[31m [red]reader" in text


def test_drift_is_counted_and_shown(command: Command, database_url: str) -> None:
    """Drift is shown and does not change the verdict, because new fields break nothing."""
    _sweep(database_url)
    query(
        database_url,
        "INSERT INTO orchestra_etl.drift VALUES (%s, 'step', 'cost', 'unknown_field', 'number',"
        " 12, now(), now(), 'r')",
        WEATHER,
    )
    workflow = _only(command)
    assert (workflow["verdict"], workflow["drift"], workflow["drift_examples"][0]["field"]) == (
        "ok",
        1,
        "cost",
    )
    assert "1 difference from the API's description: step.cost unknown_field number" in " ".join(
        command("status").out.split()
    )

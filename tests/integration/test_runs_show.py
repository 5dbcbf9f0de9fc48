"""`runs list` and `runs show` print what is stored, as harmless text."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from pathlib import Path

from etl.ledger import lookup
from etl.simulator.folder import Folder
from etl.simulator.server import Simulator
from tests.command_line import TRIAGE, WEATHER, Command
from tests.support import configuration, environment, load, query, sync

RUN = "5b69669f-975a-49af-a33a-61ff9ae5a20f"


def _load_sample(folder: Path, database_url: str, sample: bytes) -> None:
    steps = folder / "served" / WEATHER / RUN
    steps.mkdir(parents=True)
    (steps / "steps.json").write_bytes(sample)
    with Simulator(Folder(folder / "served")).in_thread() as simulator:
        toml = configuration(WEATHER, discover=False, runs=(RUN,))
        asyncio.run(sync(load(folder, toml, environment(database_url, simulator.base_url))))


def _run(
    url: str,
    run: str,
    *,
    workflow: str = WEATHER,
    state: str = "succeeded",
    start: str | None = None,
) -> None:
    query(
        url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking)"
        " VALUES (%s, %s, 'list', 'final')",
        run, workflow,
    )  # fmt: skip
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time,"
        " end_time) VALUES (%s, %s, %s, 'api', 'final', %s, %s::timestamptz + interval '4 s')",
        run, workflow, state, start, start,
    )  # fmt: skip


def _step(url: str, run: str, step: str, **columns: object) -> None:
    names = ", ".join(columns)
    marks = ", ".join(["%s"] * len(columns))
    query(
        url,
        f"INSERT INTO orchestra.steps (id, run_id, workflow_id, position, content_hash, {names})"
        f" VALUES (%s, %s, %s, 0, 'h', {marks})",
        step, run, WEATHER, *columns.values(),
    )  # fmt: skip


def test_the_sample_as_a_waterfall(
    command: Command, tmp_path: Path, database_url: str, sample_steps: bytes
) -> None:
    """The sample is shown with each step's start, duration, model, tokens and bar."""
    _load_sample(tmp_path, database_url, sample_steps)
    printed = command("runs", "show", RUN)
    assert printed.status == 0
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert f"workflow  {WEATHER}" in lines
    assert "tokens    84 (36 in, 48 out)" in lines
    first = next(line for line in lines if "model  succeeded" in line)
    second = next(line for line in lines if "slack_integration  succeeded" in line)
    assert first.split()[:2] == ["0.000", "s"]
    assert second.split()[:2] == ["2.259", "s"]
    assert ("2.238 s" in first, "1.776 s" in second) == (True, True)
    assert "virtuoso-medium, 84 tokens" in printed.out
    bars = [re.search("█+", line) for line in (first, second)]
    assert all(bars)
    (model, slack) = ((bar.start(), bar.end()) for bar in bars if bar)
    # The second step starts when the first one ends, 56 % into the run of 4.035 s.
    assert model[1] - model[0] == 13
    assert abs(slack[0] - model[1]) <= 1


def test_the_sample_as_json(
    command: Command, tmp_path: Path, database_url: str, sample_steps: bytes
) -> None:
    """`--json --payloads` prints the steps' inputs and outputs as the API sent them."""
    _load_sample(tmp_path, database_url, sample_steps)
    shown = command("runs", "show", RUN, "--payloads", "--json").json
    assert (shown["id"], shown["state"], shown["status_source"]) == (RUN, "succeeded", "derived")
    for step, sent in zip(shown["steps"], json.loads(sample_steps), strict=True):
        assert step["id"] == sent["id"]
        for name in ("inputs", "outputs"):
            assert step["payloads"][name]["data"] == sent[name]
    assert "payloads" not in command("runs", "show", RUN).out
    assert command("runs", "show", RUN, "--json").json["steps"][0]["payloads"] is None
    text = command("runs", "show", RUN, "--payloads").out
    assert '"prompt": "Tell me a joke about the weather"' in text
    assert "slack_integration ad6edfea-bf1c-4639-9d9f-b53c9ad60bgg outputs" in text


def test_stored_numbers_keep_their_digits(command: Command, database_url: str) -> None:
    """JSON output keeps all digits of stored numbers.

    A program with doubles would lose some of 30 digits.
    """
    _run(database_url, "r", start="2026-11-23 20:00Z")
    _step(database_url, "r", "s", state="succeeded")
    exact = '{"big": 123456789012345678901234567890, "price": 1.10}'
    query(
        database_url,
        "INSERT INTO orchestra.outputs (step_id, data, size_bytes) VALUES ('s', %s, 1)",
        exact,
    )
    out = command("runs", "show", "r", "--payloads", "--json").out
    assert "123456789012345678901234567890" in out
    assert "1.10" in out


def test_text_from_the_api_is_shown_without_control_characters(
    command: Command, database_url: str
) -> None:
    """Control characters and markup from the API reach the terminal as harmless text."""
    _run(database_url, "r", state="failed", start="2026-11-23 20:00Z")
    _step(
        database_url,
        "r",
        "s",
        state="failed",
        node_id="a[/b]\x1b]0;title\x07",
        error='"\\u001b[2J gone\\n[bold]x"',
    )
    for printed in (command("runs", "show", "r").out, command("runs", "list").out):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", printed)
        assert "[2J gone [bold]x" in printed
    assert r"a[/b]\x1b]0;title\x07" in command("runs", "show", "r").out


def test_a_run_that_was_never_read(command: Command, database_url: str) -> None:
    """A run that was never read is shown with the reason.

    An unknown run is an error that says what to do.
    """
    query(
        database_url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, attempts, last_error)"
        " VALUES ('r', %s, 'track', 2, 'the API returns 404 for its steps')",
        WEATHER,
    )
    shown = command("runs", "show", "r")
    assert "tracking   open, never read" in shown.out
    assert "failed, attempt 2: the API returns 404 for its steps" in shown.out
    assert command("runs", "show", "r", "--json").json["stored"] is False
    unknown = command("runs", "show", "nobody")
    assert (unknown.status, unknown.out) == (2, "")
    assert "orchestra-etl track" in unknown.err
    assert len(unknown.err.splitlines()) == 1


def test_steps_with_odd_times(command: Command, database_url: str) -> None:
    """Steps that run, end before they start, have no times or are absent are all shown."""
    _run(database_url, "r", state="running", start="2026-11-23 20:00Z")
    query(database_url, "UPDATE orchestra_etl.run_ledger SET tracking = 'open'")
    begin = "2026-11-23 20:00:00Z"
    _step(database_url, "r", "s1", state="running", start_time=begin, node_id="runs")
    _step(
        database_url,
        "r",
        "s2",
        state="failed",
        start_time=begin,
        end_time="2026-11-23 19:59:59.5Z",
        node_id="backwards",
    )
    _step(database_url, "r", "s3", state="pending", node_id="waits")
    _step(
        database_url,
        "r",
        "s4",
        state="succeeded",
        node_id="vanished",
        absent_since=begin,
        reported_error="soft",
    )
    printed = command("runs", "show", "r")
    assert printed.status == 0
    lines = {
        line.split()[-2]: line
        for line in printed.out.splitlines()
        if re.search(r"  [a-z]+  [a-z]+$", line.rstrip())
    }
    assert "█" * 24 in lines["runs"]
    assert "-0.500 s" in lines["backwards"]
    assert "█" not in lines["waits"]
    words = " ".join(printed.out.split())
    assert "not in the API's response since 2026-11-23 20:00:00Z" in words
    assert "soft" in words


def test_the_list_of_runs(command: Command, database_url: str) -> None:
    """`runs list` shows the newest runs first, with totals and first error, and can filter them."""
    for number in range(5):
        _run(
            database_url,
            f"run-{number}",
            start=f"2026-11-23 20:0{number}Z",
            state="failed" if number == 3 else "succeeded",
        )
    # A run without a start is sorted by the time it was first seen, which is now.
    _run(database_url, "waiting", state="pending")
    _run(database_url, "other", workflow=TRIAGE, start="2026-11-22 20:00Z")
    _step(database_url, "run-3", "s1", state="succeeded", total_tokens=1200)
    _step(database_url, "run-3", "s2", state="failed", error='{"code": 503}', total_tokens=34)
    _step(
        database_url,
        "run-3",
        "s3",
        state="succeeded",
        total_tokens=9,
        absent_since="2026-11-23 21:00Z",
    )

    def ids(*options: str) -> list[str]:
        return [run["id"] for run in command("runs", "list", "--json", *options).json]

    assert ids() == ["waiting", "run-4", "run-3", "run-2", "run-1", "run-0", "other"]
    assert ids("--limit", "2") == ["waiting", "run-4"]
    assert ids("--state", "failed") == ["run-3"]
    assert ids("--workflow", TRIAGE) == ["other"]
    assert ids("--workflow", TRIAGE, "-w", WEATHER, "--limit", "7")[-1] == "other"
    text = command("runs", "list", "--state", "failed").out.splitlines()
    assert text[1] == "2026-11-23 20:03:00Z  run-3  failed   4.000 s"
    assert text[2] == f'  {WEATHER}, 2 steps, 1,234 tokens: {{"code": 503}}'
    nobody = command("runs", "list", "-w", "nobody")
    assert (nobody.status, "nothing is stored for workflow 'nobody'" in nobody.err) == (2, True)
    assert command("runs", "list", "--state", "skipped").out == "no runs found\n"
    wrong = command("runs", "list", "--state", "over")
    assert "Invalid value for '--state': 'over' is not one of 'pending'" in wrong.err


def test_a_list_of_ordinary_runs_fits_80_columns(command: Command, database_url: str) -> None:
    """A line of the list has at most 80 columns with the longest usual values.

    These are an id of 36 characters and the longest state and duration.
    """
    _run(database_url, RUN, state="succeeded", start="2026-11-23 20:03Z")
    query(
        database_url,
        "UPDATE orchestra.runs SET end_time = start_time + interval '59 minutes 59 seconds'",
    )
    assert max(map(len, command("runs", "list").out.splitlines())) <= 80


def test_tokens_that_are_unknown_are_not_zero(command: Command, database_url: str) -> None:
    """A run shows how many of its calls report no tokens, beside the sum of the others."""
    for run in ("silent", "no-calls", "some"):
        _run(database_url, run)
    _step(database_url, "silent", "s1", state="succeeded", response_model="m")
    _step(database_url, "no-calls", "s2", state="succeeded")
    _step(database_url, "some", "s3", state="succeeded", response_model="m", total_tokens=7)
    _step(database_url, "some", "s4", state="succeeded", request_model="m")
    lines = {
        run: command("runs", "show", run).out.splitlines()[4]
        for run in ("silent", "no-calls", "some")
    }
    assert lines == {
        "silent": "tokens    not known: 1 call without a count",
        "no-calls": "tokens    -",
        "some": "tokens    7 (- in, - out), and 1 call without a count",
    }
    shown = command("runs", "list", "--json").json
    assert {one["id"]: one["total_tokens"] for one in shown} == {
        "silent": None,
        "no-calls": None,
        "some": 7,
    }


def test_a_run_by_a_unique_prefix(command: Command, database_url: str) -> None:
    """A unique prefix of at least four characters finds a run; an ambiguous one names candidates.

    A complete id finds its own run even if it is the prefix of another id.
    """
    for run in ("abcd", "abcd-1", "abce-2", "xy", *(f"many-{number}" for number in range(9))):
        _run(database_url, run)

    def shown(typed: str) -> str:
        return str(command("runs", "show", typed, "--json").json["id"])

    assert [shown(typed) for typed in ("abce", "abcd", "abcd-", "xy")] == [
        "abce-2",
        "abcd",
        "abcd-1",
        "xy",
    ]
    ambiguous = command("runs", "show", "many")
    assert (ambiguous.status, ambiguous.out, ambiguous.err.count("\n")) == (2, "", 1)
    assert "it can mean many-0, many-1, many-2, many-3, many-4, …" in ambiguous.err
    for typed in ("abc", "x", "many-9", "%", "ab_d", "a\0b"):
        unknown = command("runs", "show", typed)
        assert (unknown.status, "is not known" in unknown.err) == (2, True), typed


def test_a_prefix_is_found_through_the_primary_key(database_url: str) -> None:
    """Finding a run by prefix uses the primary key instead of reading all runs."""
    query(
        database_url,
        "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source)"
        " SELECT md5(n::text), 'w', 'list' FROM generate_series(1, 20000) AS n",
    )
    query(database_url, "ANALYZE orchestra_etl.run_ledger")
    typed = hashlib.md5(b"7").hexdigest()[:8]
    statement = str(lookup._RUNS).replace(":typed", "%s").replace(":limit", "6")
    plan = " ".join(row["QUERY PLAN"] for row in query(database_url, f"EXPLAIN {statement}", typed))
    assert "Index Cond" in plan


def test_a_workflow_by_its_name_or_a_prefix(command: Command, database_url: str) -> None:
    """`--workflow` takes the id, a unique prefix of it, or the name.

    A workflow that is not stored is an error, not an empty list.
    """
    query(
        database_url,
        "INSERT INTO orchestra.workflows (id, name)"
        " VALUES (%s, 'weather jokes'), (%s, 'support'), ('w-3', 'support')",
        WEATHER, TRIAGE,
    )  # fmt: skip
    _run(database_url, "one")
    _run(database_url, "two", workflow=TRIAGE)

    def ids(typed: str) -> list[str]:
        return [run["id"] for run in command("runs", "list", "--json", "-w", typed).json]

    assert [ids(typed) for typed in (WEATHER, "weather jokes", WEATHER[:4], TRIAGE[:8])] == [
        ["one"],
        ["one"],
        ["one"],
        ["two"],
    ]
    ambiguous = command("gaps", "list", "-w", "support")
    assert (ambiguous.status, f"it can mean {TRIAGE}, w-3" in ambiguous.err) == (2, True)


def test_what_happens_next(command: Command, database_url: str) -> None:
    """An open run shows when and why it is read next, its claim and its priority.

    It also shows when it is given up. A final run shows why it is not read again.
    """
    _run(database_url, "r")
    query(database_url, "UPDATE orchestra_etl.run_ledger SET due_at = NULL")
    assert re.search(
        r"^next +not read again: its end is confirmed", command("runs", "show", "r").out, re.M
    )
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'open',"
        " due_at = now() + interval '4 min', fencing_token = 7,"
        " steps_observed_at = now(), priority = 1",
    )
    words = " ".join(command("runs", "show", "r").out.split())
    assert re.search(r"next read in (4 m 00|3 m 5\d) s \(.*Z\): the run is still running", words)
    assert "if it is still open (polling.give_up_after)" in words
    assert "claim none, token 7; priority: backfill, after all live runs" in words
    query(database_url, "UPDATE orchestra_etl.run_ledger SET due_at = now() - interval '1 hour'")
    assert "due for 1 h 00 m; read by `serve` or the next `sync`" in " ".join(
        command("runs", "show", "r").out.split()
    )
    query(
        database_url, "UPDATE orchestra_etl.run_ledger SET leased_until = now() + interval '2 min'"
    )
    printed = command("runs", "show", "r")
    assert "being read; claimed for" in " ".join(printed.out.split())
    assert max(map(len, printed.out.splitlines())) <= 80
    shown = command("runs", "show", "r", "--json").json
    assert shown["next"]["action"] == "being_read"
    assert (shown["next"]["at"], shown["fencing_token"]) == (shown["leased_until"], 7)

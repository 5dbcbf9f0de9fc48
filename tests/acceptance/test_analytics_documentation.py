"""Each query of analytics.md returns what plain Python computes from the tables."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from etl import app, maintenance
from etl.admin import roles
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.privileges import ANALYST
from etl.simulator.history import History
from etl.simulator.server import Simulator
from etl.usage import CALLS, KINDS
from tests import view_oracle
from tests.conftest import ROOT
from tests.rollup_oracle import charged, counted, error_text
from tests.support import configuration, environment, load, query, sync
from tests.view_oracle import Facts, Row, message, model, outcome, started

DOCUMENT = (ROOT / "docs" / "how-to" / "analytics.md").read_text()
SECTIONS = re.findall(r"^## (\d+)\. [^\n]+\n(.+?)(?=^## )", DOCUMENT, re.MULTILINE | re.DOTALL)
QUERY_AND_HEADER = re.compile(r"```sql\n(.+?);\n```\n\n(\|[^\n]+\|)\n\|[-|]+\|\n\|", re.DOTALL)
QUERIES = {
    f"{number}{'ab'[index]}": found
    for number, section in SECTIONS
    for index, found in enumerate(QUERY_AND_HEADER.findall(section))
}
"""The queries and the headers of their results, by number and letter of the question."""

LIMIT = re.compile(r"\nLIMIT (\d+)$")
KIND = {kind.name: kind for kind in KINDS}
DAYS_7, DAYS_30 = timedelta(days=7), timedelta(days=30)


class World:
    """A database, and the content of its tables."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.facts = Facts(
            query(url, view_oracle.RUNS),
            query(url, "SELECT * FROM orchestra.steps WHERE absent_since IS NULL"),
            {row["id"]: row for row in query(url, "SELECT * FROM orchestra.workflows")},
            query(url, "SELECT * FROM orchestra.workflow_versions ORDER BY first_seen_at"),
            query(url, "SELECT * FROM orchestra.prices"),
        )

    @cached_property
    def runs(self) -> list[Row]:
        """The totals of each run's steps."""
        return list(view_oracle.run_summary(self.facts).values())

    def since(self, time: datetime) -> list[Row]:
        """Return the runs that started at this time or later."""
        return [
            run for run in self.runs if run["start_time"] is not None and run["start_time"] >= time
        ]

    def steps_since(self, time: datetime) -> list[Row]:
        """Return the steps that started at this time or later."""
        return [
            step
            for step in self.facts.steps
            if step["start_time"] is not None and step["start_time"] >= time
        ]

    def run(self, name: str) -> tuple[datetime, list[Row]]:
        """Run a query without its LIMIT, and return the database's time and the rows.

        With its LIMIT, the query must return the first of these rows.
        """
        sql, _ = QUERIES[name]
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            [now] = connection.execute("SELECT now() AS at").fetchall()
            limited, rows = (
                connection.execute(one.encode()).fetchall() for one in (sql, LIMIT.sub("", sql))
            )
        limit = LIMIT.search(sql)
        assert limited == rows[: int(limit[1]) if limit else None]
        return now["at"], rows


@pytest.fixture(scope="module")
def world(
    postgres_server: EmbeddedPostgres,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """Provide eight days of runs of four workflows, and older ones.

    Statements add what a simulator cannot produce.
    """
    history = History(
        seed=11, workflows=4, runs_per_workflow=100, live=3, arrivals_per_minute=0,
        failure_rate=0.4, spacing=timedelta(hours=2),
    )  # fmt: skip
    history.freeze()
    with psycopg.connect(postgres_server.url_for("postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE questions TEMPLATE {template_database}".encode())
        try:
            url = postgres_server.url_for("questions")
            with Simulator(history).in_thread() as simulator:
                variables = environment(url, simulator.base_url)
                settings = load(
                    tmp_path_factory.mktemp("questions"),
                    configuration(*history.workflow_ids),
                    variables,
                )
                asyncio.run(sync(settings))
            with app.open_database(settings) as database:
                succeeded = {
                    row["workflow_id"]: row["ids"]
                    for row in query(
                        url,
                        "SELECT workflow_id, array_agg(id ORDER BY start_time DESC) AS ids"
                        " FROM orchestra.runs WHERE state = 'succeeded' GROUP BY workflow_id",
                    )
                }
                for change in changes(*((one, succeeded[one]) for one in history.workflow_ids)):
                    assert query(url, change + " RETURNING 1"), change
                asyncio.run(maintenance.refresh_rollups(settings, database))
            query(url, "DELETE FROM orchestra.prices")
            for price in PRICES:
                query(url, price)
            yield World(url)
        finally:
            server.execute("DROP DATABASE questions WITH (FORCE)")


def changes(*workflows: tuple[str, list[str]]) -> Iterator[str]:
    """Return statements that add cases to the history which the questions need.

    Each argument is a workflow with its successful runs.
    """
    (jokes, joke_runs), (triage, triage_runs), (invoices, invoice_runs), (twin, _) = workflows
    yield f"UPDATE orchestra.workflows SET name = 'weather jokes' WHERE id = '{twin}'"
    yield f"UPDATE orchestra.workflows SET name = NULL WHERE id = '{invoices}'"
    # Some runs are older than thirty days, and so are their steps.
    for workflow_id, count in ((jokes, 6), (triage, 7), (invoices, 8), (twin, 11)):
        old = (
            f"(SELECT id FROM orchestra.runs WHERE workflow_id = '{workflow_id}'"
            f" ORDER BY start_time LIMIT {count})"
        )
        times = ", ".join(
            f"{name} = {name} - interval '40 days'" for name in ("start_time", "end_time")
        )
        for table, key in (("steps", "run_id"), ("runs", "id")):
            yield f"UPDATE orchestra.{table} SET {times} WHERE {key} IN {old}"
    yield (
        "UPDATE orchestra.runs SET end_time = end_time + (end_time - start_time) * 200"
        f" WHERE workflow_id = '{invoices}'"
    )
    yield (
        "UPDATE orchestra.runs"
        " SET user_id = CASE WHEN id < '5' THEN 'ana' WHEN id < 'b' THEN 'ben' END"
    )
    # One version is dated before it was seen, and two have no date.
    yield (
        "UPDATE orchestra.workflow_versions SET api_updated_at = NULL,"
        " first_seen_at = now() - interval '20 days'"
    )
    for workflow_id, days, dated in (
        (jokes, 3, "NULL"),
        (triage, 2, "now() - interval '5 days'"),
        (twin, 4, "NULL"),
    ):
        yield (
            "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version,"
            f" api_updated_at) VALUES ('{workflow_id}', now() - interval '{days} days', '2',"
            f" {dated})"
        )
    # These runs failed although no step did: two for one reason, one too early, and one with a soft
    # failure.
    for run_id, hours, error in (
        (triage_runs[0], 1, '"workflow timed out after 600 s"'),
        (triage_runs[1], 11, '"workflow timed out after 900 s"'),
        (triage_runs[2], 13, '"workflow timed out after 900 s"'),
        (joke_runs[0], 2, '{"message": "workflow timed out after 600 s"}'),
    ):
        begun = (
            f"start_time = now() - interval '{hours} hours',"
            f" end_time = now() - interval '{hours} hours' + interval '9 s'"
        )
        yield (
            f"UPDATE orchestra.runs SET state = 'failed', error = '{error}', {begun}"
            f" WHERE id = '{run_id}'"
        )
        soft = f"CASE WHEN node_id = 'fetch_forecast' THEN 'no page of number 7' END, {begun}"
        yield f"UPDATE orchestra.steps SET reported_error = {soft} WHERE run_id = '{run_id}'"
    # These runs have not ended. Some are open for longer than usual, some are stale or gone, and
    # some have no running step.
    yield (
        "UPDATE orchestra.runs SET start_time = now() - interval '5 hours' WHERE state = 'running'"
    )
    for run_id, since, tracking in (
        (triage_runs[3], "3 hours", "open"), (triage_runs[4], "35 days", "stale"),
        (joke_runs[1], "2 hours", "open"),
        (joke_runs[2], "9 hours", "gone"), (invoice_runs[0], "2 minutes", "open"),
    ):  # fmt: skip
        begun = f"state = 'running', start_time = now() - interval '{since}', end_time = NULL"
        yield (
            f"UPDATE orchestra.runs SET {begun}, updated_at = now(), tracking = '{tracking}'"
            f" WHERE id = '{run_id}'"
        )
        if tracking == "open":
            yield (
                f"UPDATE orchestra.steps SET {begun} WHERE node_id = 'end' AND run_id = '{run_id}'"
            )
    # One workflow has a single currency; others have several, even within a run. One call has no
    # tokens, and one never took place.
    answers = f"workflow_id = '{triage}' AND node_id = 'answer' AND state = 'succeeded'"
    yield (
        f"UPDATE orchestra.steps SET response_model = 'o3-mini-2025-01-31' WHERE {answers}"
        " AND run_id < '4'"
    )
    one = "request_model = 'virtuoso-medium', response_model = 'virtuoso-medium'"
    yield (
        f"UPDATE orchestra.steps SET {one} WHERE workflow_id = '{twin}'"
        " AND response_model IS NOT NULL"
    )
    tokens = (
        "input_tokens = NULL, cached_input_tokens = NULL, output_tokens = NULL, total_tokens = NULL"
    )
    yield f"UPDATE orchestra.steps SET {tokens} WHERE {answers} AND run_id > 'c'"
    yield "UPDATE orchestra.steps SET request_model = 'gpt-4o-2024-08-06' WHERE state = 'skipped'"
    one = "request_model = NULL, response_model = NULL"
    yield (
        f"UPDATE orchestra.steps SET {one} WHERE workflow_id = '{triage}'"
        " AND response_model = 'gemini-2.5-pro'"
    )
    # Some nodes are executed more than once, in workflows with the same name. Others only seem to
    # be.
    for (workflow_id, runs), index, node_id, state, begun, absent, copies in (
        (workflows[0], 5, "'model'", "succeeded", "1 hour", "NULL", 2),
        (workflows[0], 6, "'model'", "failed", "1 hour", "NULL", 2),
        (workflows[3], 5, "'model'", "running", "1 hour", "NULL", 1),
        (workflows[1], 5, "'classify'", "skipped", "1 hour", "NULL", 3),
        (workflows[1], 5, "NULL", "succeeded", "1 hour", "NULL", 3),
        (workflows[1], 6, "'answer'", "succeeded", "1 hour", "now()", 1),
        (workflows[1], 7, "'end'", "succeeded", "31 days", "NULL", 2),
        (workflows[1], 7, "'approval'", "running", "1 hour", "NULL", 1),
    ):
        columns = (
            "run_id, workflow_id, position, content_hash, node_id, state, absent_since,"
            " finish_reason, response_model"
        )
        values = (
            f"'{runs[index]}', '{workflow_id}', 40 + n, 'h', {node_id}, '{state}', {absent},"
            " 'length', 'virtuoso-medium'"
        )
        end = "NULL" if state == "running" else "begun + n * interval '4 s'"
        yield (
            f"INSERT INTO orchestra.steps (id, {columns}, start_time, end_time)"
            f" SELECT gen_random_uuid()::text, {values}, begun, {end}"
            f" FROM generate_series(1, {copies}) AS n,"
            f" (SELECT now() - interval '{begun}' AS begun) AS t"
        )


COLUMNS = "input_per_million, cached_input_per_million, output_per_million"
PRICES = [
    "INSERT INTO orchestra.prices (model, valid_from, valid_until, provider, currency,"
    f" {columns}, source) VALUES ('{name}', {days}, 'someone', {amounts}, 'set')"
    for name, days, columns, amounts in (
        ("virtuoso-medium", "'0001-01-01', now()::date - 3", COLUMNS, "'USD', 0.35, NULL, 1.4"),
        ("virtuoso-medium", "now()::date - 3, NULL", COLUMNS, "'USD', 0.7, NULL, 2.8"),
        ("gpt-4o-2024-08-06", "'0001-01-01', now()::date - 4", COLUMNS, "'EUR', 2.2, 1.1, 9"),
        ("gpt-4o-2024-08-06", "now()::date - 4, NULL", COLUMNS, "'USD', 2.5, 1.25, 10"),
        ("o3-mini-2025-01-31", "'0001-01-01', NULL", COLUMNS, "'EUR', 1.1, 0, 4.4"),
        (
            "gpt-5-mini-2025-08-07",
            "'0001-01-01', NULL",
            f"{COLUMNS}, reasoning_per_million",
            "'USD', 0.25, 0.025, 2, 2",
        ),
        (
            "claude-sonnet-4-5-20250929",
            "'0001-01-01', NULL",
            f"{COLUMNS}, web_searches_per_thousand",
            "'USD', 3, 0.3, 15, 10",
        ),
        ("sonar", "'0001-01-01', NULL", f"{COLUMNS}, calls_per_thousand", "'USD', 1, 1, 1, 12"),
    )
]


def percentile(durations: Iterable[float | None], q: float) -> Any:
    """Return the quantile `q` of the known durations, or None without any.

    A histogram is exact to 2 %, and the result is rounded.
    """
    known = sorted(one for one in durations if one is not None)
    exact = next((one for rank, one in enumerate(known, 1) if rank >= q * len(known)), None)
    return exact if exact is None else pytest.approx(exact, abs=0.02 * exact + 0.5)


def rounded(value: Decimal | None, places: int) -> Decimal | None:
    """Return the value as SQL rounds it."""
    return None if value is None else value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def total(values: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of the values that are not None, or None without any."""
    known = [one for one in values if one is not None]
    return sum(known, Decimal(0)) if known else None


def added(numbers: Iterable[int | None]) -> int | None:
    """Return the sum of the known numbers, or None without any."""
    known = [one for one in numbers if one is not None]
    return sum(known) if known else None


def percent(part: Decimal | int | None, whole: Decimal | int | None) -> Decimal | None:
    """Return a percentage with one decimal place."""
    return rounded(Decimal(100) * part / whole, 1) if part is not None and whole else None


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Return the rows by their key."""
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def rising(value: Any) -> tuple[bool, Any]:
    """Return a key that sorts as SQL does: null comes last."""
    return value is None, value


def falling(value: Any) -> tuple[bool, Any]:
    """Return a key that sorts in descending order; null comes last."""
    return value is None, None if value is None else -value


def hour(row: Row) -> datetime:
    """Return the hour in which a run or step counts."""
    return started(row).astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day(row: Row) -> date:
    """Return the day in which a run or step counts."""
    return hour(row).date()


def folded(message: str | None) -> str | None:
    """Return the pattern that a message shares with failures of its kind."""
    if message is None:
        return None
    message = re.sub(r"\"[^\"]*\"|`[^`]*`|(?<![^\W_])'[^']*'(?![^\W_])", "<text>", message[:500])
    message = re.sub(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", "<id>", message)
    message = re.sub(r"\b(?=[^\W_]*[0-9])(?:[0-9a-fA-F]{8,}|[^\W_]{16,})\b", "<id>", message)
    message = re.sub(r"\breq_[^\W_]+", "req_<id>", message)
    message = re.sub(
        r"(?<!Error code: )(?<![0-9])(?![0-9]+ Service Unavailable)[0-9]+(?:[.,:][0-9]+)*",
        "<n>",
        message,
    )
    return re.sub(r"\s+", " ", message).strip()


def names(rows: Sequence[Row], name: str) -> list[Any]:
    """Return a column of the rows."""
    return [row[name] for row in rows]


def test_every_query_has_the_shown_columns(world: World) -> None:
    """The page has thirteen questions, and the shown results have the columns of their queries."""
    assert [number for number, _ in SECTIONS] == [str(number) for number in range(1, 14)]
    assert set(QUERIES) == {"4b", "11b", *(f"{number}a" for number in range(1, 14))}
    assert "".join(section for _, section in SECTIONS).count("```sql") == len(QUERIES)
    for name, (sql, header) in QUERIES.items():
        rows = query(world.url, sql)
        assert list(rows[0]) == [one.strip() for one in header.strip("|").split("|")], name


def test_the_queries_of_prompts_find_calls(world: World) -> None:
    """The page's queries of prompts and answers find the calls of the simulated history."""
    section = DOCUMENT.partition("\n## Read prompts and answers\n")[2].partition("\n## ")[0]
    of_run, cut_off, by_tool = re.findall(r"```sql\n(.+?);\n```", section, re.DOTALL)
    run = query(world.url, "SELECT run_id FROM orchestra.model_calls WHERE answer <> '' LIMIT 1")
    rows = query(world.url, of_run.replace("…", run[0]["run_id"]))
    assert any(row["prompt"] and row["answer"] for row in rows)
    # Yesterday may have no such call.
    rows = query(world.url, cut_off.replace("interval '1 day'", "interval '8 days'"))
    assert any(row["ending"] for row in rows)
    rows = query(world.url, by_tool)
    assert {"search", "web_search_call"} <= {row["tool"] for row in rows}
    assert all(row["calls"] > 0 and row["example"] for row in rows)


def test_success_rate_by_workflow_and_week(world: World) -> None:
    """Question 1 counts each run in the UTC week of its start.

    Soft failures count as failures, and unfinished runs are not part of the rate.
    """
    _, rows = world.run("1a")
    made = []
    for (workflow_id, week), runs in grouped(
        world.runs, lambda run: (run["workflow_id"], day(run) - timedelta(days=day(run).weekday()))
    ).items():
        ends = Counter(run["outcome"] for run in runs)
        rated = ends["succeeded"] + ends["soft_failed"] + ends["failed"]
        made.append(
            (
                world.facts.name(workflow_id),
                workflow_id,
                week,
                len(runs),
                percent(ends["succeeded"], rated),
            )
        )
    assert [tuple(row.values()) for row in rows] == [(one[0], *one[2:]) for one in sorted(made)]
    assert {"soft_failed", "failed", "cancelled", "running"} <= {
        run["outcome"] for run in world.runs
    }


def test_slowest_nodes(world: World) -> None:
    """Question 2 compares each node's p95 since yesterday with the thirty days before.

    The slowest nodes come first.
    """
    at, rows = world.run("2a")
    today = at.astimezone(UTC).date()
    steps = [step for step in world.facts.steps if day(step) >= today - DAYS_30]
    left = list(rows)
    for (workflow_id, node_id), all_steps in grouped(
        steps, lambda one: (one["workflow_id"], one["node_id"])
    ).items():
        good = [step for step in all_steps if outcome(step) == "succeeded"]
        lately, before = (
            [one for one in good if (day(one) >= today - timedelta(days=1)) is is_late]
            for is_late in (True, False)
        )
        wanted = {
            "workflow_name": world.facts.name(workflow_id),
            "node_id": node_id,
            "succeeded": len(good),
            "p95_ms": percentile(names(good, "duration_ms"), 0.95),
            "p95_ms_before": percentile(names(before, "duration_ms"), 0.95),
            "p95_ms_lately": percentile(names(lately, "duration_ms"), 0.95),
        }
        assert wanted in left
        left.remove(wanted)
    assert left == []
    assert rows == sorted(rows, key=lambda row: falling(row["p95_ms"]))
    assert len(steps) < len(world.facts.steps)


def test_what_failed_last_night(world: World) -> None:
    """Question 3 counts failures of twelve hours by kind, and runs without a failed step."""
    at, rows = world.run("3a")
    by_id = {run["id"]: run for run in world.facts.runs}
    found = [
        {
            **step,
            "step": 1,
            "kind": (
                step["workflow_id"],
                step["node_id"],
                outcome(step),
                folded(message(step) or ""),
            ),
        }
        for step in world.facts.steps
        if outcome(step) in ("failed", "soft_failed")
        and started(step, by_id[step["run_id"]]) >= at - timedelta(hours=12)
    ]
    broken = {(step["run_id"], outcome(step)) for step in world.facts.steps}
    found += [
        {
            "run_id": run["id"],
            "step": 0,
            "kind": (run["workflow_id"], None, ended, folded(error_text(run["error"]))),
        }
        for run in world.facts.runs
        if (ended := world.facts.run_outcome(run)) in ("failed", "soft_failed")
        and (run["id"], ended) not in broken
        and run["start_time"] >= at - timedelta(hours=12)
    ]
    made = []
    for (workflow_id, node_id, ended, pattern), failed in grouped(
        found, lambda one: one["kind"]
    ).items():
        runs, steps = set(names(failed, "run_id")), sum(names(failed, "step"))
        name = world.facts.name(workflow_id)
        order = (-len(runs), -steps, name, workflow_id, rising(node_id), ended, rising(pattern))
        made.append((order, (name, node_id, ended, pattern, steps, len(runs), min(runs))))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    alone = [row for row in rows if row["node_id"] is None]
    assert [(row["pattern"], row["steps"], row["runs"]) for row in alone] == [
        ("workflow timed out after <n> s", 0, 2), ("workflow timed out after <n> s", 0, 1),
    ]  # fmt: skip
    assert {("failed", True), ("soft_failed", True)} <= {
        (row["outcome"], row["steps"] > 0) for row in rows
    }


def test_cost_by_model(world: World) -> None:
    """Question 4 adds up calls, tokens and costs by model, workflow and currency.

    It covers all that is stored, and also counts unpriced calls.
    """
    _, rows = world.run("4a")
    usage = view_oracle.model_usage(
        world.facts, counted(world.facts.runs, world.facts.steps)
    ).values()
    made = []
    for (name, workflow_id, currency), used in grouped(
        usage, lambda one: (one["model"], one["workflow_id"], one["currency"])
    ).items():
        sums = [added(names(used, one)) for one in ("calls", "input_tokens", "output_tokens")]
        spent, workflow = rounded(total(names(used, "cost")), 4), world.facts.name(workflow_id)
        row = (name, workflow, *sums, spent, currency, sum(names(used, "unpriced_calls")))
        made.append(((rising(currency), falling(spent), rising(name), workflow, workflow_id), row))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert set(names(rows, "currency")) == {"EUR", "USD", None}


def test_cost_by_user(world: World) -> None:
    """Question 4 adds up the same by user, for the runs of seven days that called a model."""
    at, rows = world.run("4b")
    runs = [run for run in world.since(at - DAYS_7) if run["calls"]]
    made = []
    for (workflow_id, user_id, currency), used in grouped(
        runs, lambda run: (run["workflow_id"], run["user_id"], run["currency"])
    ).items():
        sums = [added(names(used, one)) for one in ("input_tokens", "output_tokens")]
        spent, name = rounded(total(names(used, "cost")), 4), world.facts.name(workflow_id)
        row = (name, user_id, len(used), *sums, spent, currency, sum(names(used, "unpriced_calls")))
        made.append(((rising(currency), falling(spent), name, rising(user_id), workflow_id), row))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert {"EUR", "USD", None} == set(names(rows, "currency"))
    assert {"ana", "ben", None} == set(names(rows, "user_id"))
    assert len(runs) < len(world.since(at - DAYS_7)) < len(world.runs)


def test_money_spent_on_failed_runs(world: World) -> None:
    """Question 5 shows the cost of failed runs of seven days, and its share of all costs.

    Soft failures are included, and costs are given by currency.
    """
    at, rows = world.run("5a")
    runs = [run for run in world.since(at - DAYS_7) if run["calls"]]
    spent = grouped(runs, lambda run: (run["workflow_id"], run["currency"]))
    made = []
    for (workflow_id, ended, currency), failed in grouped(
        runs, lambda run: (run["workflow_id"], run["outcome"], run["currency"])
    ).items():
        if ended in ("failed", "soft_failed"):
            lost = total(names(failed, "cost"))
            share = percent(lost, total(names(spent[workflow_id, currency], "cost")))
            name, unpriced = world.facts.name(workflow_id), sum(names(failed, "unpriced_calls"))
            row = (name, ended, len(failed), rounded(lost, 4), currency, share, unpriced)
            made.append(((name, workflow_id, ended, rising(currency)), row))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert {"EUR", "USD", None} == set(names(rows, "currency"))
    assert any(row["cost"] is not None and row["unpriced_calls"] for row in rows)


def test_stuck_runs(world: World) -> None:
    """Question 6 lists the runs that are open for longer than usual, the oldest first."""
    at, rows = world.run("6a")
    runs = [
        run for run in world.facts.runs if run["duration_ms"] is None or hour(run) >= at - DAYS_30
    ]
    found = view_oracle.open_runs(world.facts._replace(runs=runs)).values()
    for run in found:
        run["age_ms"] = round(round(run["age_ms"], 3))
    assert rows == [
        {
            **{name: run[name] for name in ("workflow_name", "run_id", "tracking", "age_ms")},
            "usual_p95_ms": pytest.approx(
                run["usual_p95_ms"], abs=0.02 * run["usual_p95_ms"] + 0.5
            ),
            "running_node": run["running_node"],
        }
        for run in sorted(found, key=lambda run: (-run["age_ms"], run["run_id"]))
        if run["overdue"]
    ]
    assert {"open", "stale"} <= set(names(rows, "tracking"))
    assert {None, "end"} <= set(names(rows, "running_node"))
    assert len(rows) < len(found)


def test_versions_compared(world: World) -> None:
    """Question 7 shows p95 and mean cost by version, with a mean only for a single currency."""
    at, rows = world.run("7a")
    made = []
    for (workflow_id, version), runs in grouped(
        world.since(at - DAYS_7), lambda run: (run["workflow_id"], run["workflow_version"])
    ).items():
        currencies = sorted({run["currency"] for run in runs} - {None})
        costs = [run["cost"] for run in runs if run["cost"] is not None]
        mean = rounded(Decimal(sum(costs)) / len(costs), 5) if len(currencies) == 1 else None
        name = world.facts.name(workflow_id)
        good = [run for run in runs if run["outcome"] == "succeeded"]
        slow, listed = percentile(names(good, "duration_ms"), 0.95), ", ".join(currencies) or None
        row = (
            name,
            version,
            len(runs),
            len(good),
            slow,
            mean,
            listed,
            sum(names(runs, "unpriced_calls")),
        )
        made.append(((name, workflow_id, min(names(runs, "start_time"))), row))
    assert [tuple(row.values()) for row in rows] == [
        row for _, row in sorted(made, key=lambda one: one[0])
    ]
    assert {(True, "USD"), (False, "EUR, USD")} <= {
        (row["mean_cost"] is not None, row["currency"]) for row in rows
    }
    assert len(rows) == 4 + 3


def test_responses_cut_off(world: World) -> None:
    """Question 8 counts the responses of thirty days that were cut off, by node and model."""
    at, rows = world.run("8a")
    made = []
    answered = [
        step for step in world.steps_since(at - DAYS_30) if step["finish_reason"] is not None
    ]
    for (workflow_id, node_id, name), calls in grouped(
        answered, lambda one: (one["workflow_id"], one["node_id"], model(one))
    ).items():
        cut = sum(
            one in ("length", "max_tokens", "MAX_TOKENS", "max_output_tokens")
            for one in names(calls, "finish_reason")
        )
        workflow = world.facts.name(workflow_id)
        order = (-cut, -len(calls), workflow, workflow_id, rising(node_id), rising(name))
        made.append((order, (workflow, node_id, name, len(calls), cut)))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert 0 < sum(names(rows, "cut_off")) < sum(names(rows, "calls"))
    assert (
        len({one for one in names(answered, "finish_reason") if one.lower().startswith("max")}) == 3
    )


def test_nodes_executed_more_than_once(world: World) -> None:
    """Question 9 counts repeated executions of a node within a run.

    Skipped, absent and old steps and steps without a node do not count.
    """
    at, rows = world.run("9a")
    executed = [
        step
        for step in world.steps_since(at - DAYS_30)
        if step["node_id"] and step["state"] != "skipped"
    ]
    times = Counter((step["workflow_id"], step["node_id"], step["run_id"]) for step in executed)
    repeated = [{"node": node, "times": count} for (*node, _), count in times.items() if count > 1]
    made = []
    for (workflow_id, node_id), runs in grouped(repeated, lambda one: tuple(one["node"])).items():
        name = world.facts.name(workflow_id)
        made.append(
            (
                (-len(runs), name, workflow_id, node_id),
                (name, node_id, len(runs), max(names(runs, "times"))),
            )
        )
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    twins = sorted((row["runs"], row["most"]) for row in rows if row["node_id"] == "model")
    assert twins == [(1, 2), (2, 3)]


def test_end_to_end_duration(world: World) -> None:
    """Question 10 shows runs that succeeded or failed in thirty days, with their durations.

    The figures are given by workflow.
    """
    at, rows = world.run("10a")
    runs = [run for run in world.facts.runs if hour(run) >= at - DAYS_30]
    made = []
    for workflow_id, own in grouped(runs, lambda run: run["workflow_id"]).items():
        ends = {run["id"]: world.facts.run_outcome(run) for run in own}
        good = [run for run in own if ends[run["id"]] == "succeeded"]
        bad = [run for run in own if ends[run["id"]] in ("failed", "soft_failed")]
        took, failed = names(good, "duration_ms"), percentile(names(bad, "duration_ms"), 0.5)
        row = (len(good), percentile(took, 0.5), percentile(took, 0.95), len(bad), failed)
        made.append((world.facts.name(workflow_id), workflow_id, *row))
    made.sort(key=lambda one: one[:2])
    assert [tuple(row.values()) for row in rows] == [(one[0], *one[2:]) for one in made]
    assert len(runs) < len(world.facts.runs)


def test_kinds_of_usage(world: World) -> None:
    """Question 11 adds up each kind of usage by provider and model, for all calls with tokens."""
    _, rows = world.run("11a")
    usage = view_oracle.model_usage(
        world.facts, counted(world.facts.runs, world.facts.steps)
    ).values()
    kinds = (
        "input_tokens", "cached_input_tokens", "cache_write_tokens", "input_audio_tokens",
        "input_image_tokens", "output_tokens", "reasoning_tokens", "web_searches",
    )  # fmt: skip
    made = []
    for (provider, name), used in grouped(
        usage, lambda one: (one["provider"], one["model"])
    ).items():
        if added(names(used, "total_tokens")):
            sums = [added(names(used, one)) for one in kinds]
            made.append(
                (
                    (rising(provider), rising(name)),
                    (provider, name, sum(names(used, "calls")), *sums),
                )
            )
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert all(any(row[one] for row in rows) for one in list(rows[0])[2:])


def test_parts_of_costs(world: World) -> None:
    """Question 11 shows the cost of each kind of usage; the parts add up to the whole cost."""
    _, rows = world.run("11b")
    usage = view_oracle.model_usage(
        world.facts, counted(world.facts.runs, world.facts.steps)
    ).values()
    parts = []
    for used in usage:
        if used["cost"] is not None:
            price = world.facts.price(
                used["model"], used["hour"], used["service_tier"], used["context_tier"]
            )
            assert price is not None
            quantities = {
                kind: (count, price[KIND[kind].price_column], KIND[kind].per)
                for kind, count in charged(used).items()
            }
            if quantities and price["calls_per_thousand"]:
                quantities["calls"] = (
                    used["calls"] - used["unpriced_calls"],
                    price["calls_per_thousand"],
                    CALLS.per,
                )
            for kind, (count, each, per) in quantities.items():
                key = (used["provider"], used["model"], kind, used["currency"])
                parts.append({"key": key, "count": count, "cost": count * each / per})
    made = []
    for (provider, name, kind, currency), alike in grouped(parts, lambda one: one["key"]).items():
        spent = rounded(total(names(alike, "cost")), 4)
        row = (provider, name, kind, sum(names(alike, "count")), spent, currency)
        made.append(((currency, falling(spent), provider, name, kind), row))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert {"calls", "input_tokens", "cached_input_tokens", "output_tokens", "web_searches"} <= set(
        names(rows, "kind")
    )
    for currency in ("EUR", "USD"):
        spent = total(one["cost"] for one in usage if one["currency"] == currency)
        assert sum(one["cost"] for one in parts if one["key"][3] == currency) == spent


def test_why_calls_have_no_price(world: World) -> None:
    """Question 12 shows the reason for each call without a price."""
    _, rows = world.run("12a")
    usage = view_oracle.model_usage(
        world.facts, counted(world.facts.runs, world.facts.steps)
    ).values()
    known = {price["model"] for price in world.facts.prices}
    unpriced = []
    for used in usage:
        price = world.facts.price(
            used["model"], used["hour"], used["service_tier"], used["context_tier"]
        )
        lacking = (
            []
            if price is None
            else [one for one in charged(used) if price[KIND[one].price_column] is None]
        )
        if used["model"] is None:
            why = "the calls name no model"
        elif used["model"] not in known:
            why = "the model has no price"
        elif used["cost"] is not None or not used["usage_kinds"]:
            why = "the calls do not say what they used"
        elif price is None:
            why = "no price for this service tier, length of the input or day"
        else:
            why = f"no price for {', '.join(lacking)}"
        if used["unpriced_calls"]:
            unpriced.append({**used, "why": why, "tier": used["service_tier"] or "standard"})
    made = []
    for (name, tier, why), calls in grouped(
        unpriced, lambda one: (one["model"], one["tier"], one["why"])
    ).items():
        count = sum(names(calls, "unpriced_calls"))
        made.append(((-count, rising(name), tier, why), (name, tier, why, count)))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert {
        "the calls name no model", "the model has no price", "the calls do not say what they used",
        "no price for this service tier, length of the input or day",
        "no price for web_searches",
    } <= set(names(rows, "why"))  # fmt: skip


def test_reported_costs(world: World) -> None:
    """Question 13 compares reported costs of thirty days with computed ones, in US dollars."""
    at, rows = world.run("13a")
    reported = [
        one
        for one in view_oracle.cost_differences(world.facts).values()
        if one["time"] >= at - DAYS_30
    ]
    made = []
    for (provider, name), calls in grouped(
        reported, lambda one: (one["provider"], one["model"])
    ).items():
        compared = [one for one in calls if one["difference"] is not None]
        spent, provider_cost = (
            rounded(total(names(compared, one)), 4) for one in ("cost", "reported_cost")
        )
        apart = sum(
            one["ratio"] is not None and not 0.99 <= one["ratio"] <= 1.01 for one in compared
        )
        row = (
            provider,
            name,
            len(compared),
            spent,
            provider_cost,
            apart,
            len(calls) - len(compared),
        )
        made.append(((rising(provider), rising(name)), row))
    assert [tuple(row.values()) for row in rows] == [row for _, row in sorted(made)]
    assert {(True, False), (False, True)} <= {
        (row["compared"] > 0, row["not_compared"] > 0) for row in rows
    }
    assert {None, "someone"} == set(names(rows, "provider"))
    assert any(row["apart"] > 0 for row in rows)


def test_the_time_zone_of_the_session_changes_no_result(world: World) -> None:
    """Every query returns the same result in any time zone, even on another day there."""
    zones = ("America/New_York", "Asia/Kolkata", "Etc/GMT+12", "Pacific/Kiritimati")
    with psycopg.connect(world.url) as connection:
        for name, (sql, _) in QUERIES.items():
            answers = []
            for zone in ("UTC", *zones):
                connection.execute(f"SET LOCAL TimeZone = '{zone}'".encode())
                answers.append(connection.execute(LIMIT.sub("", sql).encode()).fetchall())
            assert all(answer == answers[0] for answer in answers), name


def test_an_analyst_can_run_every_query(world: World) -> None:
    """An analyst can run every query."""
    database = Database(world.url)
    roles.apply(database)
    database.close()
    try:
        with psycopg.connect(world.url, autocommit=True) as connection:
            connection.execute(f"SET ROLE {ANALYST}".encode())
            for sql, _ in QUERIES.values():
                assert connection.execute(sql.encode()).fetchall()
    finally:
        with psycopg.connect(world.url, autocommit=True) as connection:
            connection.execute("REASSIGN OWNED BY orchestra_migrator TO postgres")
            for role in roles.PURPOSES:
                connection.execute(f"DROP OWNED BY {role}".encode())
                connection.execute(f"DROP ROLE {role}".encode())

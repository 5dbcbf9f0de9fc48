"""`make bench-alerts`: the cost of an evaluation of many rules for many workflows.

An evaluation reads whole hours from the rollups, and by index the runs and steps of those at the
edges of windows. Therefore, SQL generates the rollups and the ledger of ten million steps in 90
days, but the runs and steps only of the last day and of the same day in each of the four weeks
before. The rules are of all metrics, four parts of a workflow and four windows; some
compare with the usual value of an hour. The benchmark measures an evaluation in which nothing
changes: its time, the CPU seconds of Python and of all processes of the server, and what it writes.
The fastest of some evaluations must not take longer than `--limit`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import psycopg
from sqlalchemy import text

from etl.alert_metrics import OF_CALLS, Comparison, Metric
from etl.alerts import evaluation
from etl.alerts.evaluation import EvaluationReport
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Part, Rule
from etl.analytics import rollups
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from tests.benchmarks import analytics
from tests.benchmarks.cost import server_cpu
from tests.postgres_fixture import new_home
from tests.support import query

DAYS = 90
HOUR = 3600.0
OVERS = (900.0, HOUR, 6 * HOUR, 24 * HOUR)
PARTS = (
    Part(), Part(), Part(organisation="organisation-1"), Part(node="node-2"),
    Part(model="gpt-4o"),
)  # fmt: skip
METRICS: tuple[Metric, ...] = (
    "failure_rate", "soft_failure_rate", "failures", "runs", "duration_p50", "duration_p95", "cost",
    "tokens", "unpriced_calls", "overdue_runs", "lag",
)  # fmt: skip
_WRITES = text("""
    SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables
    WHERE schemaname = 'orchestra_etl' AND relname = ANY (:tables)
""")
_WRITTEN = (
    "alerts", "alert_episodes", "alert_notifications", "alert_mutes", "alert_evaluation", "locks",
)  # fmt: skip

# The copies keep the time of the day.
_EARLIER_RUNS = """
    INSERT INTO orchestra.runs (id, workflow_id, organization_id, user_id, status, state,
                                status_source, tracking, start_time, end_time, first_seen_at,
                                updated_at)
    SELECT 'week-' || week || '-' || id, workflow_id, organization_id, user_id, status, state,
           status_source, tracking, start_time - week * interval '168 hours',
           end_time - week * interval '168 hours', first_seen_at - week * interval '168 hours',
           updated_at
    FROM orchestra.runs CROSS JOIN generate_series(1, 4) AS week
    WHERE state <> 'running'
"""
_EARLIER_STEPS = """
    INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, node_type, position, user_id,
                                 organization_id, status, state, start_time, end_time,
                                 request_model, response_model, input_tokens, output_tokens,
                                 total_tokens, error, reported_error, content_hash, first_seen_at,
                                 updated_at)
    SELECT 'week-' || week || '-' || s.id, r.id, s.workflow_id, s.node_id, s.node_type, s.position,
           s.user_id, s.organization_id, s.status, s.state,
           s.start_time - week * interval '168 hours', s.end_time - week * interval '168 hours',
           s.request_model, s.response_model, s.input_tokens, s.output_tokens, s.total_tokens,
           s.error, s.reported_error, s.content_hash, s.first_seen_at, s.updated_at
    FROM orchestra.steps AS s CROSS JOIN generate_series(1, 4) AS week
    JOIN orchestra.runs AS r ON r.id = 'week-' || week || '-' || s.run_id
"""
_OTHER_LEDGER = """
    INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, start_time,
                                          listed_sweep, steps_observed_at)
    SELECT 'day-' || day || '-' || run_id, workflow_id, 'list', 'final',
           start_time - day * interval '24 hours', 1, now()
    FROM orchestra_etl.run_ledger CROSS JOIN generate_series(1, %(days)s - 1) AS day
    WHERE run_id LIKE 'run-%%' AND day %% 7 > 0
"""
_OTHER_DAYS = """
    INSERT INTO orchestra.{table} ({columns})
    SELECT {shifted}
    FROM orchestra.{table} AS r CROSS JOIN generate_series(1, %(days)s) AS day
    WHERE r.hour > date_trunc('hour', now()) - interval '24 hours' AND day %% 7 > 0
    ON CONFLICT DO NOTHING
"""


class Result(NamedTuple):
    """The cost of an evaluation."""

    seconds: list[float]
    python_seconds: list[float]
    """CPU time of this process."""
    server_seconds: list[float]
    """CPU time of PostgreSQL."""
    subjects: int
    states: int
    writes: int
    """Rows written by the last evaluation, but for the time of the evaluation."""


def make(url: str, workflows: int, runs: int) -> None:
    """Create the history."""
    given: dict[str, int] = {
        "workflows": workflows, "nodes": analytics.NODES, "days": 1, "runs": runs, "first": 1,
        "last": runs,
    }  # fmt: skip
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(analytics._WORKFLOWS, given)
        connection.execute(analytics._RUNS, given)
        connection.execute(analytics._STEPS, given)
        connection.execute(_EARLIER_RUNS)
        connection.execute(_EARLIER_STEPS)
        for statement in (analytics._LEDGER, analytics._SWEEPS, analytics._PRICES):
            connection.execute(statement)
    database = Database(url)
    rollups.drain(database)
    database.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for table, rollup in (
            ("run_rollup", rollups.RUNS),
            ("step_rollup", rollups.STEPS[True].rollup),
        ):
            columns = ", ".join(rollup.columns)
            shifted = ", ".join(
                "r.hour - day * interval '24 hours'" if one == "hour" else f"r.{one}"
                for one in rollup.columns
            )
            connection.execute(
                _OTHER_DAYS.format(table=table, columns=columns, shifted=shifted), {"days": DAYS}
            )
        connection.execute(_OTHER_LEDGER, {"days": DAYS})
        connection.execute("VACUUM ANALYZE")


def rules(number: int) -> list[Rule]:
    """Return that many different rules, none of which any history breaches: no rate is above 1."""
    kinds = itertools.product(METRICS, OVERS, PARTS, range(number))
    found: list[Rule] = []
    for metric, over, part, n in sorted(kinds, key=lambda one: one[3]):
        if metric in ("runs", "overdue_runs", "lag") and part.of_steps:
            continue
        usual = metric in (*OF_CALLS, "runs", "failures") and over == HOUR and n % 10 == 3
        comparison: Comparison = "above_usual" if usual else "above"
        limit = 50.0 if usual else 1.0 if metric.endswith("rate") else 10.0**9
        found.append(Rule(f"rule {len(found)}", metric, comparison, limit, over, part=part))
        if len(found) == number:
            return found
    return found


def measure(url: str, wanted: list[Rule], workflows: int, repetitions: int) -> Result:
    """Time evaluations in which nothing changes."""
    database = Database(url)
    # The same sweep for all evaluations: with a later one, windows and therefore values change.
    query(url, "UPDATE orchestra_etl.sweeps SET started_at = now(), swept_at = now()")
    pauses = Pauses({f"workflow-{n}": HOUR for n in range(1, workflows + 1)})
    seconds, python, server = [], [], []

    def evaluate() -> EvaluationReport:
        return database.transaction(lambda c: evaluation.evaluate(c, wanted, pauses))

    evaluate()
    for _ in range(repetitions):
        query(url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")
        before = _writes(database)
        of_server, of_python, begun = server_cpu(url), time.process_time(), time.perf_counter()
        report = evaluate()
        seconds.append(time.perf_counter() - begun)
        python.append(time.process_time() - of_python)
        server.append(server_cpu(url) - of_server)
        written = _writes(database) - before
    database.close()
    # One row is the time of the evaluation.
    return Result(seconds, python, server, report.subjects, len(report.findings), written - 1)


def _writes(database: Database) -> int:
    """Return the number of rows that the database's session wrote to the tables of alerts."""
    # Otherwise a session reports its writes up to ten seconds later.
    database.transaction(lambda c: c.execute(text("SELECT pg_stat_force_next_flush()")))
    return int(
        database.transaction(lambda c: c.execute(_WRITES, {"tables": list(_WRITTEN)}).scalar_one())
    )


def _rounded(seconds: list[float]) -> list[float]:
    return [round(one, 2) for one in seconds]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="make bench-alerts",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rules", type=int, default=1000, help="rules that are evaluated")
    parser.add_argument("--workflows", type=int, default=100, help="workflows of the history")
    parser.add_argument("--runs", type=int, default=22_222, help="runs of a day")
    parser.add_argument("--repetitions", type=int, default=5, help="evaluations")
    parser.add_argument(
        "--limit", type=float, default=2.0, help="seconds that the fastest evaluation may take"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    folder = new_home()
    try:
        with EmbeddedPostgres(folder, settings=analytics.SERVER) as server:
            upgrade(server.url)
            make(server.url, given.workflows, given.runs)
            found = measure(server.url, rules(given.rules), given.workflows, given.repetitions)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # Other work of the machine makes the others up to 1.5 times as slow.
    fastest = min(found.seconds)
    report = json.dumps(
        {
            "rules": given.rules,
            "workflows": given.workflows,
            "subjects": found.subjects,
            "states": found.states,
            "seconds": _rounded(found.seconds),
            "python_cpu_seconds": _rounded(found.python_seconds),
            "server_cpu_seconds": _rounded(found.server_seconds),
            "rows_written": found.writes,
        }
    )
    print(report)
    if given.json:
        given.json.write_text(report + "\n")
    if fastest > given.limit:
        raise SystemExit(f"every evaluation took over {given.limit:g} s: at least {fastest:.1f} s")
    if found.writes:
        raise SystemExit(f"{found.writes} rows were written though nothing had changed")


if __name__ == "__main__":
    main()

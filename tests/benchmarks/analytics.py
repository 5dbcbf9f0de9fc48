"""`make bench-analytics`: the cost of a dashboard's queries on a large history.

SQL generates the history: runs with a fixed number of steps, spread evenly over the days, with
lognormal durations around each node's own. One step in twenty is skipped and has no start. There
are no payloads, because no query reads them. The benchmark measures the refresh of the rollups, the
stored size and every query; a query that takes longer than `--limit` fails it. For each index that
only queries need, it shows the cost of a load with it, and which query needs it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg

from etl.analytics import rollups
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from tests.benchmarks import indexes
from tests.postgres_fixture import new_home
from tests.support import query

WORKFLOWS, NODES, DAYS = 10, 5, 90
# The usual memory settings of a server with two cores; everything else is PostgreSQL's default.
SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "512MB",
    "work_mem": "32MB",
}

_WORKFLOWS = """
    INSERT INTO orchestra.workflows (id, name, labels)
    SELECT 'workflow-' || w, 'workflow ' || w, '{}'
    FROM generate_series(1, CAST(%(workflows)s AS integer)) AS w
"""

_RUNS = """
    INSERT INTO orchestra.runs (id, workflow_id, organization_id, user_id, status, state,
                                status_source, tracking,
                                start_time, end_time, first_seen_at, updated_at)
    SELECT 'run-' || n, 'workflow-' || 1 + n %% %(workflows)s, 'organisation-' || n %% 3,
           'user-' || n %% 97,
           state, state, 'api', CASE state WHEN 'running' THEN 'open' ELSE 'final' END, start_time,
           CASE state WHEN 'running' THEN NULL
                ELSE start_time +
                make_interval(secs => exp(1.5 + n %% %(workflows)s / 5.0 + random_normal() * 0.6))
                END,
           start_time, start_time
    FROM (
        SELECT n,
               now() - (n / %(runs)s::double precision) *
               make_interval(days => CAST(%(days)s AS integer)) AS start_time,
               CASE WHEN n %% 20000 = 1 THEN 'running' WHEN random() < 0.03 THEN 'failed'
                    WHEN random() < 0.01 THEN 'cancelled'
                    ELSE 'succeeded' END AS state
        FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS n
    ) AS made
"""

_STEPS = """
    INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, node_type, position, user_id,
                                 organization_id, status, state,
                                 start_time, end_time, request_model, response_model, input_tokens,
                                 output_tokens, total_tokens, finish_reason,
                                 error, reported_error, content_hash, first_seen_at, updated_at)
    SELECT 'step-' || n || '-' || node, run_id, workflow_id, 'node-' || node,
           CASE node %% 2 WHEN 0 THEN 'model' ELSE 'integration' END, node - 1, user_id,
               organization_id, state, state, started,
           CASE state WHEN 'running' THEN NULL
                ELSE started + make_interval(secs => exp(node / 3.0 - 1 + random_normal() * 0.5))
                END,
           model, model, input_tokens, output_tokens, input_tokens + output_tokens,
           CASE WHEN output_tokens < 105 THEN 'length' WHEN output_tokens > 0 THEN 'stop' END,
           CASE state WHEN 'failed'
                THEN to_jsonb('upstream answered ' || 500 + n %% 4 || ' after ' || n || ' ms') END,
           CASE WHEN state = 'succeeded' AND node %% 2 = 1 AND n %% 50 = 0
                THEN 'rate limit "' || n || '" reached' END,
           '\\x00', seen, seen
    FROM (
        SELECT n, node, r.id AS run_id, r.workflow_id, r.user_id, r.organization_id,
               r.start_time AS seen,
               CASE WHEN n %% 4 > 0 OR node <> 3
                    THEN r.start_time + make_interval(secs => node) END AS started,
               CASE WHEN node = %(nodes)s THEN r.state WHEN n %% 4 = 0 AND node = 3 THEN 'skipped'
                    ELSE 'succeeded' END AS state,
               CASE node %% 2 WHEN 0
                    THEN (ARRAY['gpt-4o', 'gpt-4o-mini',
                          'claude-sonnet-4'])[1 + n %% 3] END AS model,
               CASE node %% 2 WHEN 0 THEN 500 + n %% 1000 END AS input_tokens,
               CASE node %% 2 WHEN 0 THEN 100 + n %% 300 END AS output_tokens
        FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS n
        JOIN orchestra.runs AS r ON r.id = 'run-' || n
        CROSS JOIN generate_series(1, CAST(%(nodes)s AS integer)) AS node
    ) AS made
"""

# The service's data on these runs, for the views that show its own condition.
_LEDGER = """
    INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, start_time,
                                          listed_sweep, due_at,
                                          steps_observed_at)
    SELECT id, workflow_id, 'list', tracking, start_time, 1,
           CASE tracking WHEN 'open' THEN now() END, now()
    FROM orchestra.runs
"""

_SWEEPS = """
    INSERT INTO orchestra_etl.sweeps (workflow_id, fencing_token, watermark, started_at, swept_at,
                                      listed_runs)
    SELECT id, 1, 1, now(), now(), 100 FROM orchestra.workflows
"""

# Prices: one changes over time, and one of the three models has none.
_PRICES = """
    INSERT INTO orchestra.prices (model, valid_from, valid_until, currency, input_per_million,
                                  output_per_million, source)
    VALUES ('gpt-4o', '0001-01-01', current_date - 30, 'USD', 5, 15, 'set'),
           ('gpt-4o', current_date - 30, NULL, 'USD', 2.5, 10, 'set'),
           ('gpt-4o-mini', '0001-01-01', NULL, 'USD', 0.15, 0.6, 'set')
"""

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "analytics.md"
CHUNK = 100_000
"""The number of runs that one statement creates."""


class Question(NamedTuple):
    """A query of a dashboard."""

    name: str
    sql: str


class QueryCost(NamedTuple):
    """The cost of a query."""

    name: str
    rows: int
    milliseconds: float
    """The median of the repetitions without the first, which reads from the disk."""
    slowest_milliseconds: float


# The query of a copy of the tables (see docs/how-to/analytics.md).
_CHANGED = (
    "SELECT count(*), max(updated_at) FROM orchestra.{}"
    " WHERE updated_at >= now() - interval '3 hours'"
)

QUESTIONS = [
    Question(
        "p50 and p95 by node, 90 days",
        """SELECT workflow_id, node_id, orchestra.duration_quantile(buckets, counts, 0.5),
                  orchestra.duration_quantile(buckets, counts, 0.95)
           FROM orchestra.step_rollup_daily GROUP BY 1, 2""",
    ),
    Question(
        "p95 by node and day, 90 days",
        """SELECT workflow_id, node_id, day, orchestra.duration_quantile(buckets, counts, 0.95)
           FROM orchestra.step_rollup_daily GROUP BY 1, 2, 3""",
    ),
    Question(
        "p95 by node and hour, 7 days",
        """SELECT workflow_id, node_id, hour, orchestra.duration_quantile(buckets, counts, 0.95)
           FROM orchestra.step_rollup WHERE hour > now() - interval '7 days' GROUP BY 1, 2, 3""",
    ),
    Question(
        "runs and p95 by workflow and day, 90 days",
        """SELECT workflow_id, date_trunc('day', hour), sum(succeeded), sum(soft_failed),
                  sum(failed),
                  orchestra.duration_quantile(buckets, counts, 0.95)
           FROM orchestra.run_rollup GROUP BY 1, 2""",
    ),
    Question(
        "p95 by workflow, 30 days",
        """SELECT workflow_id, orchestra.duration_quantile(buckets, counts, 0.95)
           FROM orchestra.run_rollup WHERE hour > now() - interval '30 days' GROUP BY 1""",
    ),
    Question(
        "steps by workflow and hour, 90 days",
        """SELECT workflow_id, hour, sum(succeeded), sum(soft_failed), sum(failed)
           FROM orchestra.step_rollup GROUP BY 1, 2""",
    ),
    Question(
        "tokens by model and day, 90 days",
        """SELECT model, date_trunc('day', hour), sum(calls), sum(input_tokens), sum(output_tokens)
           FROM orchestra.step_rollup WHERE calls > 0 GROUP BY 1, 2""",
    ),
    Question(
        "groups of failures, 7 days",
        """SELECT workflow_id, node_id, fingerprint, min(pattern), count(*),
                  count(DISTINCT run_id), max(time)
           FROM orchestra.step_failures WHERE time > now() - interval '7 days' GROUP BY 1, 2, 3
           ORDER BY 5 DESC LIMIT 50""",
    ),
    Question(
        "success rate and volume by day, 90 days",
        """SELECT date_trunc('day', hour), sum(runs),
                  sum(succeeded) / NULLIF(sum(succeeded + soft_failed + failed), 0)
           FROM orchestra.workflow_hourly WHERE hour > now() - interval '90 days' GROUP BY 1""",
    ),
    Question(
        "p50 and p95 by node, 90 days of days",
        """SELECT workflow_name, node_id, sum(steps),
                  orchestra.duration_quantile(buckets, counts, 0.5),
                  orchestra.duration_quantile(buckets, counts, 0.95)
           FROM orchestra.node_daily WHERE day > current_date - 90 GROUP BY 1, 2""",
    ),
    Question(
        "newest 100 runs", "SELECT * FROM orchestra.run_summary ORDER BY start_time DESC LIMIT 100"
    ),
    Question(
        "failed runs of a workflow, 7 days",
        """SELECT * FROM orchestra.run_summary
           WHERE workflow_id = 'workflow-3' AND outcome = 'failed'
              AND start_time > now() - interval '7 days' ORDER BY start_time DESC LIMIT 1000""",
    ),
    Question(
        "soft-failed runs of a workflow by its name, 7 days",
        """SELECT * FROM orchestra.run_summary
           WHERE workflow_name = 'workflow 1' AND outcome = 'soft_failed'
              AND start_time > now() - interval '7 days' ORDER BY start_time DESC LIMIT 1000""",
    ),
    Question(
        "the timeline of a run",
        "SELECT * FROM orchestra.step_timeline WHERE run_id = 'run-7' ORDER BY position",
    ),
    Question("open runs", "SELECT * FROM orchestra.open_runs ORDER BY age_ms DESC"),
    Question("health of the pipeline", "SELECT * FROM orchestra.pipeline_health"),
    Question(
        "kinds of failures seen in 7 days",
        """SELECT * FROM orchestra.failure_groups
           WHERE last_time > now() - interval '7 days' ORDER BY steps DESC LIMIT 50""",
    ),
    Question(
        "kinds of failures counted over 7 days",
        """SELECT workflow_name, node_id, outcome, fingerprint, min(pattern), count(*),
                  count(DISTINCT run_id)
           FROM orchestra.failures WHERE time > now() - interval '7 days' GROUP BY 1, 2, 3, 4
           ORDER BY 6 DESC LIMIT 50""",
    ),
    Question(
        "usage and cost of models by day, 90 days",
        """SELECT date_trunc('day', hour), model, currency, sum(calls), sum(total_tokens),
                  sum(cost), sum(unpriced_calls)
           FROM orchestra.model_usage WHERE hour > now() - interval '90 days' GROUP BY 1, 2, 3""",
    ),
    *(
        Question(
            f"why the {figure} of a workflow differs, 7 days",
            f"""SELECT * FROM orchestra.explain_{figure}('workflow-3', now() - interval '7 days',
                    now(), now() - interval '14 days', now() - interval '7 days')""",
        )
        for figure in ("cost", "duration", "failures")
    ),
    Question("coverage", "SELECT * FROM orchestra.coverage"),
    Question("runs changed in 3 hours", _CHANGED.format("runs")),
    Question("steps changed in 3 hours", _CHANGED.format("steps")),
]


def documented() -> list[Question]:
    """Return the queries of docs/how-to/analytics.md, for which an analyst may wait."""
    sections = re.findall(
        r"^## (\d+)\. [^\n]+\n(.+?)(?=^## )", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )
    return [
        Question(f"question {number}{'ab'[index]} of the document", sql)
        for number, section in sections
        for index, sql in enumerate(re.findall(r"```sql\n(.+?);\n```", section, re.DOTALL))
    ]


def make(url: str, runs: int) -> None:
    """Create the history."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        given: dict[str, int] = {"workflows": WORKFLOWS, "nodes": NODES, "days": DAYS, "runs": runs}
        connection.execute(_WORKFLOWS, given)
        for first in range(1, runs + 1, CHUNK):
            chunk = {**given, "first": first, "last": min(first + CHUNK - 1, runs)}
            connection.execute(_RUNS, chunk)
            connection.execute(_STEPS, chunk)
            print(f"\r{chunk['last']:,} runs", end="", file=sys.stderr, flush=True)
        for statement in (_LEDGER, _SWEEPS, _PRICES):
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE")
    print(file=sys.stderr)


def measure(url: str, question: Question, repetitions: int) -> QueryCost:
    """Run a query repeatedly, and return what it cost."""
    times = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for _ in range(repetitions + 1):
            begun = time.perf_counter()
            rows = connection.execute(question.sql).fetchall()
            times.append((time.perf_counter() - begun) * 1000)
    return QueryCost(question.name, len(rows), statistics.median(times[1:]), max(times[1:]))


def _build(url: str, runs: int) -> dict[str, object]:
    """Create a history of that many runs, refresh the rollups, and return what that cost."""
    upgrade(url)
    begun = time.perf_counter()
    make(url, runs)
    made = time.perf_counter() - begun
    database = Database(url)
    begun = time.perf_counter()
    done = rollups.drain(database)
    refreshed = time.perf_counter() - begun
    begun = time.perf_counter()
    rollups.drain(database)
    unchanged = time.perf_counter() - begun
    database.close()
    query(url, "VACUUM ANALYZE")
    return {
        "make_seconds": made,
        "refresh_seconds": refreshed,
        "groups": done.groups,
        "rollup_rows": done.rows,
        "refresh_of_nothing_seconds": unchanged,
    }


def parser_of(target: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a target of make, with the size of the history and the repetitions."""
    parser = argparse.ArgumentParser(
        prog=f"make {target}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=2_000_000, help="runs, five steps each")
    parser.add_argument("--repetitions", type=int, default=3, help="times that a query runs")
    parser.add_argument(
        "--limit", type=float, default=1.5, help="seconds that a query may take, else it fails"
    )
    parser.add_argument(
        "--home", type=Path, help="keep the database in this folder, and reuse an existing one"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


@contextmanager
def history(home: Path | None, runs: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Provide the URL of a database with that many runs, and the figures of its creation.

    A database that `home` keeps is not created again.
    """
    folder = home or new_home()
    kept = home is not None and (home / "made").exists()
    folder.mkdir(exist_ok=True)
    try:
        with EmbeddedPostgres(folder, settings=SERVER) as server:
            found: dict[str, object] = {"runs": runs, "steps": runs * NODES}
            if not kept:
                found |= _build(server.url, runs)
                (folder / "made").touch()
            found["size_mb"] = {
                row["name"]: round(row["bytes"] / 1e6, 1)
                for row in query(
                    server.url,
                    """SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class
                       WHERE relnamespace = 'orchestra'::regnamespace AND relkind = 'r'
                       ORDER BY 2 DESC LIMIT 6""",
                )
            }
            yield server.url, found
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def show(
    found: dict[str, object], costs: Sequence[QueryCost], limit: float, file: Path | None
) -> None:
    """Print the result as a table, and write it to the file as JSON.

    Raises:
        SystemExit: if a query took longer than `limit` seconds.
    """
    print(json.dumps(found, default=str))
    print_costs(costs)
    if file:
        report = {**found, "queries": [one._asdict() for one in costs]}
        file.write_text(json.dumps(report, indent=2, default=str) + "\n")
    if slow := [one.name for one in costs if one.milliseconds > limit * 1000]:
        raise SystemExit(f"over {limit:g} s: {', '.join(slow)}")


def print_costs(costs: Sequence[QueryCost]) -> None:
    """Print the cost of the queries."""
    width = max(len(one.name) for one in costs) + 1
    print(f"{'question':{width}}{'rows':>8}{'median ms':>11}{'slowest ms':>12}")
    for one in costs:
        print(
            f"{one.name:{width}}{one.rows:>8,}{one.milliseconds:>11.0f}"
            f"{one.slowest_milliseconds:>12.0f}"
        )


def main() -> None:
    """Run the benchmark."""
    given = parser_of("bench-analytics", __doc__).parse_args()
    with history(given.home, given.runs) as (url, found):
        costs = [measure(url, question, given.repetitions) for question in QUESTIONS]
        new = {"workflows": WORKFLOWS, "nodes": NODES, "days": DAYS, "runs": given.runs}
        more = min(indexes.RUNS, given.runs)
        new |= {"first": given.runs + 1, "last": given.runs + more}

        def load(connection: psycopg.Connection) -> None:
            connection.execute(_RUNS, new)
            connection.execute(_STEPS, new)

        timed = [
            indexes.TimedQuery(one.name, one.sql, cost.milliseconds)
            for one, cost in zip(QUESTIONS, costs, strict=True)
        ]
        indexes.show(url, load, more, timed)
        print_costs([measure(url, question, given.repetitions) for question in documented()])
        show(found, costs, given.limit, given.json)


if __name__ == "__main__":
    main()

"""The work for some runs does not grow with the history around them.

Work is not time, but the rows that a transaction reads, as PostgreSQL counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, text

from etl.admin import erase, retention
from etl.alert_metrics import Metric
from etl.alerts import evaluation, evidence
from etl.alerts.content import Content
from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Part, Rule
from etl.analytics import explanation, rollups
from etl.analytics.explanation import Period
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.export import changes, completeness
from etl.ledger import claims, clock_set_back, dead_letters, listed_pages, lookup, requests, sweeps
from etl.ledger.listed_pages import SweepResult
from etl.load import upsert
from etl.load.batch import RunWrite
from etl.records import ListedRun
from etl.reports import comparison, runs, search
from etl.transform.decode import decode_steps
from etl.transform.states import StateMap
from tests.conftest import fresh_database
from tests.support import query

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
SMALL, LARGE = 1_000, 10_000
"""The runs of the two histories: one an hour, so that the larger one reaches further back."""
BATCH = 6
"""The newest runs, on which everything here works."""
RUN_IDS = [f"run-{n}" for n in range(1, BATCH + 1)]
SLACK = 600

METRICS: tuple[Metric, ...] = ("failure_rate", "failures", "duration_p95", "cost", "tokens")
MOMENTARY: tuple[Metric, ...] = ("overdue_runs", "lag")
FIGURES: tuple[explanation.Figure, ...] = ("cost", "duration", "failures")

_HISTORY = """
INSERT INTO orchestra.workflows (id, name) SELECT 'w' || n, 'w' || n
FROM generate_series(0, 2) AS n;
INSERT INTO orchestra_etl.sweeps (workflow_id, fencing_token, watermark, started_at, swept_at)
SELECT id, 1, 1, now(), now() FROM orchestra.workflows;
CREATE TEMPORARY TABLE made AS
SELECT n, 'run-' || n AS run_id, 'w' || n % 3 AS workflow_id, 'o' || n AS organization_id,
       CAST('{now}' AS timestamptz) - n * interval '1 hour' AS at
FROM generate_series(1, {runs}) AS n;
INSERT INTO orchestra.runs (id, workflow_id, organization_id, user_id, status, state, status_source,
                            tracking, start_time, end_time, first_seen_at, updated_at)
SELECT run_id, workflow_id, organization_id, 'u' || n, 'completed', 'succeeded', 'api', 'final', at,
       at + interval '1 minute', at, at
FROM made;
INSERT INTO orchestra.run_payloads (run_id, inputs, outputs)
SELECT run_id, to_jsonb(n), to_jsonb('outputs of ' || run_id) FROM made;
INSERT INTO orchestra.steps (id, run_id, workflow_id, organization_id, user_id, node_id, node_type,
                             position, status, state, start_time, end_time, error, request_model,
                             input_tokens, output_tokens, content_hash, first_seen_at, updated_at)
SELECT run_id || '-' || s, run_id, workflow_id, organization_id, 'u' || n, 'node-' || s, 'model', s,
       state, state, CASE WHEN s < 3 THEN at + s * interval '1 second' END,
       CASE WHEN s < 3 THEN at + s * interval '2 seconds' END,
       CASE WHEN s = 2 THEN to_jsonb('error ' || n) END, 'gpt-4o', 10, 20, '\\x00', at, at
FROM made
CROSS JOIN LATERAL (SELECT s, (ARRAY['succeeded', 'failed', 'skipped'])[s] AS state
                    FROM generate_series(1, 3) AS s) AS kinds;
INSERT INTO orchestra.inputs (step_id, data, size_bytes)
SELECT id, to_jsonb('asked ' || id), 9 FROM orchestra.steps;
INSERT INTO orchestra.outputs (step_id, data, size_bytes)
SELECT id, to_jsonb('said ' || id), 9 FROM orchestra.steps;
INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking, start_time, listed_at,
                                      listing_hash, listed_sweep, due_at, steps_observed_at,
                                      run_observed_at, run_state, first_seen_at)
SELECT run_id, workflow_id, 'list', 'final', at, at, '\\x00', 1, NULL, at, at, 'succeeded', at
FROM made;
INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail, content_hash, body,
                                        first_seen_at, last_seen_at, resolved_at, resolution)
SELECT workflow_id, run_id, 'malformed', 'is malformed', '\\x00', '\\x7b', at, at, at, 'loaded'
FROM made WHERE n % 100 = 0;
INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail, detected_at,
                                acknowledged_at)
SELECT workflow_id, at, at, 'a gap', at, at FROM made WHERE n % 100 = 0;
DROP TABLE made;
"""

# The rows of a table and the entries of its indexes are added up: which of them the planner reads
# depends on the size of the table, and on the hour of the day.
_READ = text("""
    SELECT COALESCE(i.indrelid, c.oid)::regclass::text AS name,
           sum(pg_stat_get_xact_tuples_returned(c.oid))::bigint AS rows
    FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    WHERE c.relkind IN ('r', 'i')
      AND c.relnamespace IN ('orchestra'::regnamespace, 'orchestra_etl'::regnamespace)
    GROUP BY 1
""")
_QUEUE = text("""
    INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
    SELECT * FROM unnest(CAST(:workflow_ids AS text[]), CAST(:hours AS timestamptz[])) AS g
""")
_MAKE_DUE = text("UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE run_id = ANY (:ids)")
_CHANGE = text("UPDATE orchestra.outputs SET data = '1' WHERE step_id = ANY (:ids)")


class _Enough(Exception):
    """Rolls a transaction back."""


def _read(connection: Connection) -> dict[str, int]:
    return {row.name: row.rows for row in connection.execute(_READ)}


def work(database: Database, do: Callable[[Connection], object]) -> dict[str, int]:
    """Return the rows and index entries that `do` reads of each table.

    What it changes is rolled back.
    """
    found: dict[str, int] = {}

    def measured(connection: Connection) -> None:
        before = _read(connection)
        do(connection)
        found.update({name: rows - before[name] for name, rows in _read(connection).items()})
        raise _Enough

    with pytest.raises(_Enough):
        database.transaction(measured)
    return found


def _of(n: int) -> str:
    return f"w{n % 3}"


def _hour(n: int) -> datetime:
    return NOW - timedelta(hours=n)


def _queue(connection: Connection, groups: int) -> None:
    numbers = range(1, groups + 1)
    connection.execute(
        _QUEUE,
        {"workflow_ids": [_of(n) for n in numbers], "hours": [_hour(n) for n in numbers]},
    )


def _refresh(connection: Connection, groups: int) -> None:
    _queue(connection, groups)
    assert rollups.refresh(connection).groups == groups


def _prune(connection: Connection) -> None:
    done = retention._prune_part(
        connection, run_ids=RUN_IDS, horizon=NOW, may_remove=None, work=retention._remove
    )
    assert done.runs == BATCH


def _prune_payloads(connection: Connection) -> None:
    done = retention._prune_part(
        connection, run_ids=RUN_IDS, horizon=NOW, may_remove=None, work=retention._empty_payloads
    )
    assert done.runs_without_payloads == BATCH


def _erase(connection: Connection) -> None:
    assert erase.find(connection, erase.Selection(tuple(RUN_IDS))).runs == BATCH
    assert erase._remover(RUN_IDS, None)(connection)["runs"] == BATCH


def _claim(connection: Connection) -> None:
    connection.execute(_MAKE_DUE, {"ids": RUN_IDS})
    assert claims.pending(connection).due == BATCH
    claimed = claims.claim(connection, limit=BATCH, lease=60.0)
    claims.renew(connection, claimed, lease=60.0)
    assert all(claims.lock(connection, claimed))
    claims.vanished(connection, RUN_IDS, gone_after=60.0)
    claims.release(connection, claimed)


def _load(connection: Connection) -> None:
    batch = [
        RunWrite(
            id=run_id, workflow_id=_of(n), tracking="final", observed=None, stored=False,
            derived_state="succeeded", start_time=_hour(n), end_time=_hour(n), user_id=None,
            organization_id=None,
            steps=decode_steps(
                f'[{{"id": "{run_id}-1", "inputs": 1}}, {{"id": "{run_id}-9"}}]'.encode(),
                workflow_id=_of(n), run_id=run_id, states=StateMap(),
            ).steps,
            complete=True,
        )
        for n, run_id in enumerate(RUN_IDS, 1)
    ]  # fmt: skip
    done = upsert.write(connection, batch)
    assert (done.steps_inserted, done.steps_absent) == (BATCH, 2 * BATCH)


def _sweep(connection: Connection) -> None:
    sweep = sweeps.begin(connection, "w1", lease=60.0, count_to=BATCH)
    assert sweep is not None
    page = [
        ListedRun(run_id, b"{}", b"1", _hour(n))
        for n, run_id in enumerate(RUN_IDS, 1)
        if _of(n) == "w1"
    ]
    ids = [run.id for run in page]
    assert sweeps.members(connection, sweep, ids) == set(ids)
    listed_pages.write_page(
        connection, sweep, page, requested_at=NOW, lease=60.0, priority=0, reconcile=True,
        completion=SweepResult(False, False, len(page), 0),
    )  # fmt: skip


RULES = [
    Rule(f"{metric} {part}", metric, "above_usual", 2.0, over=86400.0, part=part)
    for metric in METRICS
    for part in (Part(), Part(node="node-2"))
] + [Rule(metric, metric, "above", 1.0) for metric in MOMENTARY]


def _evaluate(connection: Connection) -> None:
    _queue(connection, BATCH)
    evaluation.preview(connection, RULES, Pauses(dict.fromkeys(("w0", "w1", "w2"), 60.0)))


def _explain_alert(connection: Connection, metric: str) -> None:
    content = Content(metric, workflow_id="w1", window_begin=_hour(24), window_end=NOW)
    assert evidence.evidence_for(connection, content).runs


def _explain(connection: Connection, figure: explanation.Figure) -> None:
    explanation.explain(
        connection,
        figure,
        "w1",
        period=Period(_hour(24), NOW),
        baseline=Period(_hour(48), _hour(24)),
    )


def _search(connection: Connection) -> None:
    search._prepare(connection, "said run-1")
    search._search(connection, search.Wanted("said run-1-", since=_hour(BATCH)))


def _export(connection: Connection) -> None:
    connection.execute(_CHANGE, {"ids": [f"{run_id}-1" for run_id in RUN_IDS]})
    days = changes.changed_days(connection)
    completeness.describe(connection, days)
    changes.dequeue(connection, days)
    completeness.refresh(connection)


ACTIONS: dict[str, Callable[[Connection], object]] = {
    "refresh hours": partial(_refresh, groups=BATCH),
    "refresh days": partial(_refresh, groups=48),
    "prune runs": _prune,
    "prune payloads": _prune_payloads,
    "erase": _erase,
    "claim": _claim,
    "load": _load,
    "sweep": _sweep,
    "clock set back": clock_set_back.repair,
    "track": lambda c: requests.track(c, "w1", RUN_IDS),
    "open dead letters": lambda c: dead_letters.open_bodies(c, RUN_IDS),
    "evaluate alerts": _evaluate,
    **{f"evidence of {one}": partial(_explain_alert, metric=one) for one in ("failures", "tokens")},
    **{f"explain {one}": partial(_explain, figure=one) for one in FIGURES},
    "search": _search,
    "export": _export,
    "list runs": runs.recent,
    "list runs of a workflow": partial(runs.recent, workflows=["w1"]),
    "show a run": lambda c: runs.get(c, "run-1", give_up_after=60.0, payloads=True),
    "compare runs": lambda c: comparison.compare(c, "run-1", "run-4"),
    "find a run": lambda c: lookup.runs(c, "run-100"),
}


@pytest.fixture(scope="module")
def histories(
    postgres_server: EmbeddedPostgres, template_database: str
) -> Iterator[tuple[Database, Database]]:
    """Provide a database with the small history, and one with the large one."""
    with ExitStack() as stack:
        made = []
        for size in (SMALL, LARGE):
            url = stack.enter_context(fresh_database(postgres_server, template_database))
            database = Database(url, patience=5)
            stack.callback(database.close)
            query(url, _HISTORY.format(runs=size, now=NOW))
            rollups.drain(database)
            query(url, "DELETE FROM orchestra_etl.changed_days")
            query(url, "VACUUM ANALYZE")
            made.append(database)
        yield made[0], made[1]


@pytest.mark.parametrize("name", ACTIONS)
def test_the_history_adds_no_work(name: str, histories: tuple[Database, Database]) -> None:
    """Beside ten times as many runs, the same work reads at most twice as many rows of a table.

    `SLACK` more are allowed, because the planner reads a small table as a whole.
    """
    small, large = (work(one, ACTIONS[name]) for one in histories)
    assert {
        table: (small[table], rows)
        for table, rows in large.items()
        if rows > 2 * small[table] + SLACK
    } == {}

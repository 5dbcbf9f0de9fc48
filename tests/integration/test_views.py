"""Each view shows what plain Python computes from the API's history, to its readers alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from etl.admin import roles
from etl.analytics import rollups
from etl.database import Database
from etl.privileges import ANALYST, LOADER, PAYLOAD_ANALYST
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests import view_oracle
from tests.oracle import differences
from tests.rollup_oracle import counted, rows_of_history
from tests.support import configuration, environment, load, query, sync
from tests.view_oracle import Facts

VIEWS = (
    "alerts", "cost_differences", "coverage", "failure_groups", "failures", "model_usage",
    "node_daily", "node_hourly", "open_runs", "pipeline_health", "removed_runs", "run_summary",
    "step_timeline", "workflow_hourly",
)  # fmt: skip


class ForgetfulHistory(History):
    """A history that leaves out some steps of its responses."""

    forgotten: frozenset[str] = frozenset()

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        """Return the steps that are not forgotten."""
        return [step for step in super().steps(run_id) if step["id"] not in self.forgotten]


class World:
    """A server with live runs, a database, and syncs; the test moves the server's clock."""

    def __init__(
        self, folder: Path, url: str, history: ForgetfulHistory, simulator: Simulator
    ) -> None:
        self.folder, self.url, self.history = folder, url, history
        self.variables = environment(
            url, simulator.base_url, ORCHESTRA_ETL_POLLING__RECONCILE="1ms"
        )
        self.database = Database(url, patience=5)

    def follow(self, **more: str) -> None:
        """Run one sync with every open run due, and refresh the rollups."""
        query(
            self.url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL"
        )
        asyncio.run(
            sync(
                load(
                    self.folder,
                    configuration(*self.history.workflow_ids),
                    {**self.variables, **more},
                )
            )
        )
        rollups.drain(self.database)

    def facts(self) -> Facts:
        """Return the data behind the views: the history, and what only the database knows."""
        runs, steps = rows_of_history(self.history, self.url)
        for row in query(
            self.url,
            "SELECT r.id, r.tracking, r.user_id, r.updated_at, l.run_observed_at,"
            " l.steps_observed_at FROM orchestra.runs AS r"
            " JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id",
        ):
            runs[row["id"]].update(row)
        return Facts(
            list(runs.values()),
            list(steps.values()),
            {row["id"]: row for row in query(self.url, "SELECT * FROM orchestra.workflows")},
            query(self.url, "SELECT * FROM orchestra.workflow_versions ORDER BY first_seen_at"),
            query(self.url, "SELECT * FROM orchestra.prices"),
        )

    def shown(self, view: str, *key: str) -> dict[Any, dict[str, Any]]:
        """Return the rows of a view by these columns, with ordered histograms."""
        rows = [rounded(merged(row)) for row in query(self.url, f"SELECT * FROM orchestra.{view}")]
        found = {
            row[key[0]] if len(key) == 1 else tuple(row[name] for name in key): row for row in rows
        }
        assert len(found) == len(rows), f"{view} has several rows of one {key}"
        return found


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its milliseconds rounded to the microsecond, the precision of times."""
    return {
        name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()
    }


def merged(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with each bucket of its histograms once, in ascending order."""
    found = dict(row)
    for prefix in ("", "failed_"):
        if f"{prefix}buckets" in row:
            counts: Counter[int] = Counter()
            for bucket, count in zip(row[f"{prefix}buckets"], row[f"{prefix}counts"], strict=True):
                counts[bucket] += count
            found |= {
                f"{prefix}buckets": sorted(counts),
                f"{prefix}counts": [counts[one] for one in sorted(counts)],
            }
    return found


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    """Provide three workflows with live runs that cross midnight, half of which fail.

    One sync has been made.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = today - timedelta(days=1, seconds=20)
    history = ForgetfulHistory(
        seed=11, workflows=3, runs_per_workflow=14, live=8, arrivals_per_minute=0, failure_rate=0.5,
        epoch=start, now=lambda: start,
    )  # fmt: skip
    with Simulator(history).in_thread() as simulator:
        made = World(tmp_path, database_url, history, simulator)
        made.follow()
        describe(database_url, start, today - timedelta(days=1))
        yield made
        made.database.close()


def describe(url: str, start: datetime, price_change: datetime) -> None:
    """Store labels, versions, prices of some models, and a workflow without a name.

    One price changes, and one has another currency.
    """
    workflow_id = query(url, "SELECT min(id) AS id FROM orchestra.workflows")[0]["id"]
    query(
        url, 'UPDATE orchestra.workflows SET labels = \'{"team": "a"}\' WHERE id <> %s', workflow_id
    )
    query(url, "UPDATE orchestra.workflows SET name = NULL WHERE id = %s", workflow_id)
    query(
        url,
        "UPDATE orchestra.workflow_versions SET first_seen_at = %s",
        start - timedelta(seconds=30),
    )
    # One workflow's versions have no date. Another's second version is dated ten seconds before it
    # was seen. The third's second version is dated before its first one was seen.
    for offset, (first, second) in enumerate(((None, None), (35, 20), (40, 40))):
        [row] = query(
            url, "SELECT id FROM orchestra.workflows ORDER BY id OFFSET %s LIMIT 1", offset
        )
        dates = [seconds and start - timedelta(seconds=seconds) for seconds in (first, second)]
        query(
            url,
            "UPDATE orchestra.workflow_versions SET api_updated_at = %s WHERE workflow_id = %s",
            dates[0],
            row["id"],
        )
        query(
            url,
            "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version,"
            " api_updated_at) VALUES (%s, %s, '2', %s)",
            row["id"], start - timedelta(seconds=10), dates[1],
        )  # fmt: skip
    query(url, "DELETE FROM orchestra.prices")
    for name, since, until, currency, amounts in (
        (
            "virtuoso-medium",
            "0001-01-01",
            price_change.date(),
            "USD",
            ("0.35", "0.35", "1.4", "1.4"),
        ),
        ("virtuoso-medium", price_change.date(), None, "USD", ("0.7", "0.7", "2.8", "2.8")),
        ("gpt-4o-2024-08-06", "0001-01-01", None, "USD", ("2.5", "1.25", "10", "10")),
        ("o3-mini-2025-01-31", "0001-01-01", None, "EUR", ("1.1", "0", "4.4", "5.5")),
    ):
        query(
            url,
            "INSERT INTO orchestra.prices (model, valid_from, valid_until, provider, currency,"
            " input_per_million, cached_input_per_million, output_per_million,"
            " reasoning_per_million, source)"
            " VALUES (%s, %s, %s, 'someone', %s, %s, %s, %s, %s, 'set')",
            name, since, until, currency, *map(Decimal, amounts),
        )  # fmt: skip


def compare(world: World) -> dict[str, Mapping[Any, Any]]:
    """Assert that every view equals what plain Python computes, and return the computed rows."""
    assert_complete(world)
    facts = world.facts()
    groups = counted(facts.runs, facts.steps)
    kinds = {
        row["step_id"]: (row["fingerprint"], row["pattern"])
        for row in query(
            world.url, "SELECT step_id, fingerprint, pattern FROM orchestra.step_failures"
        )
    }
    node = ("workflow_id", "organization_id", "node_id", "node_type", "model")
    wanted = {
        "run_summary": (("run_id",), view_oracle.run_summary(facts)),
        "step_timeline": (("step_id",), view_oracle.step_timeline(facts)),
        "workflow_hourly": (
            ("workflow_id", "hour", "organization_id"),
            view_oracle.workflow_hourly(facts, groups),
        ),
        "node_hourly": ((node[0], "hour", *node[1:]), view_oracle.nodes(facts, groups, "hour")),
        "node_daily": ((node[0], "day", *node[1:]), view_oracle.nodes(facts, groups, "day")),
        "model_usage": (
            ("hour", *node[:3], "model", "service_tier", "context_tier", "usage_kinds"),
            view_oracle.model_usage(facts, groups),
        ),
        "cost_differences": (("step_id",), view_oracle.cost_differences(facts)),
        "failures": (("step_id",), view_oracle.failures(facts, kinds)),
        "failure_groups": (
            ("workflow_id", "node_id", "outcome", "fingerprint"),
            view_oracle.failure_groups(facts, kinds),
        ),
    }
    for view, (key, expected) in wanted.items():
        shown = world.shown(view, *key)
        assert shown.keys() == expected.keys(), view
        for one, row in expected.items():
            assert shown[one] == rounded(row), (view, one)
    with psycopg.connect(world.url, row_factory=psycopg.rows.dict_row) as connection:
        found = {
            row["run_id"]: row
            for row in connection.execute("SELECT * FROM orchestra.open_runs").fetchall()
        }
    unfinished = view_oracle.open_runs(facts)
    assert found.keys() == unfinished.keys()
    for run_id, row in unfinished.items():
        usual = row["usual_p95_ms"]
        assert found[run_id].pop("usual_p95_ms") == (usual and pytest.approx(usual, rel=0.02))
        assert rounded(found[run_id]) == rounded(
            {name: row[name] for name in row if name != "usual_p95_ms"}
        )
    return {**{view: expected for view, (_, expected) in wanted.items()}, "open_runs": unfinished}


def assert_complete(world: World) -> None:
    """Assert that the tables hold the history apart from the forgotten steps."""
    found = differences(world.url, world.history)
    assert [
        one
        for one in found
        if not any(f"step {step} is not" in one for step in world.history.forgotten)
    ] == []


def test_a_history_as_the_views_show_it(world: World) -> None:
    """Each view equals a count in Python while runs start, fail, stall, end and run again.

    Some also go stale, are cancelled or lose steps.
    """
    seen: set[Any] = set()

    def follow(**more: str) -> None:
        world.follow(**more)
        views = compare(world)
        seen.update(row["outcome"] for row in views["run_summary"].values())
        seen.update(row["tracking"] for row in views["run_summary"].values())
        seen.update(("overdue", row["overdue"]) for row in views["open_runs"].values())
        seen.update(("lane", row["lane"]) for row in views["step_timeline"].values())
        seen.update(("executions", row["executions"]) for row in views["step_timeline"].values())
        for row in views["run_summary"].values():
            seen.add(("cost", row["cost"] is not None, row["unpriced_calls"] > 0))
            seen.add(("version", row["workflow_version"]))

    history = world.history
    for _ in range(2):
        follow()
        history.advance(timedelta(seconds=11))
    follow()
    follow(ORCHESTRA_ETL_POLLING__GIVE_UP_AFTER="1ms")
    # The steps of this run overlap. One node fails twice, two calls have prices in two currencies,
    # and one step disappears.
    several, steps = next(
        (run, steps)
        for workflow_id in history.workflow_ids
        for run in history.run_ids(workflow_id)
        if history.run(run)["status"] == "running" and len(steps := history.steps(run)) >= 3
    )
    history.change_step(
        several, steps[1]["id"], start_time=steps[0]["start_time"], node_id=steps[0]["node_id"]
    )
    for number, (step, name) in enumerate(
        ((steps[0], "gpt-4o-2024-08-06"), (steps[1], "o3-mini-2025-01-31"))
    ):
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        outputs = {"object": "chat.completion", "model": name, "choices": [], "usage": usage}
        history.change_step(
            several, step["id"], status="failed", error=f"it broke at {number}", outputs=outputs
        )
    history.forgotten = frozenset({steps[2]["id"]})
    history.advance(timedelta(hours=1))
    follow()
    assert query(world.url, "SELECT id FROM orchestra.steps WHERE absent_since IS NOT NULL") == [
        {"id": steps[2]["id"]}
    ]
    mixed = world.shown("run_summary", "run_id")[several]
    assert (mixed["calls"], mixed["unpriced_calls"], mixed["cost"], mixed["currency"]) == (
        2,
        2,
        None,
        None,
    )
    softly = query(
        world.url, "SELECT run_id FROM orchestra.run_summary WHERE outcome = 'soft_failed'"
    )[0]["run_id"]
    vanishing = query(world.url, "SELECT step_id FROM orchestra.failures WHERE run_id = %s", softly)
    history.forgotten |= {row["step_id"] for row in vanishing}
    for run_id in (softly, *history.run_ids(history.workflow_ids[0])[-3:]):
        history.reopen(run_id)
    follow()
    history.advance(timedelta(hours=1))
    follow()
    assert world.shown("run_summary", "run_id")[softly]["outcome"] == "succeeded"
    assert seen >= {
        "succeeded",
        "soft_failed",
        "failed",
        "cancelled",
        "running",
        "open",
        "final",
        "stale",
    }
    assert seen >= {
        ("overdue", True),
        ("lane", 2),
        ("lane", None),
        ("executions", 2),
        ("version", None),
        ("version", "2"),
    }
    assert seen >= {("cost", True, False), ("cost", False, True), ("cost", False, False)}


def test_the_version_in_force_when_a_run_started(database_url: str) -> None:
    """A version starts at its date if that is plausible, else when it was first seen.

    A date is plausible if it lies between the time at which the version before was seen and the
    time at which this one was first seen.
    """
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    times = {"noon": noon, **{f"{hour}h": noon + timedelta(hours=hour) for hour in range(-9, 20)}}
    for version, seen, dated in (
        ("one", "0h", "-3h"),  # dated before the workflow was first seen
        ("two", "5h", "2h"),
        ("three", "6h", None),
        ("four", "9h", "4h"),  # a date before "three" was seen is wrong
        ("one", "12h", "10h"),
        ("five", "14h", "15h"),  # dated by a clock that is ahead
    ):
        query(
            database_url,
            "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version,"
            " api_updated_at) VALUES ('w', %s, %s, %s)",
            times[seen], version, dated and times[dated],
        )  # fmt: skip
    query(
        database_url,
        "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version,"
        " api_updated_at) VALUES ('v', %s, 'of v', %s)",
        noon, noon - timedelta(hours=8),
    )  # fmt: skip
    for name, time in times.items():
        query(
            database_url,
            "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking,"
            " start_time) VALUES (%s, 'w', 'succeeded', 'api', 'final', %s)",
            name, time,
        )  # fmt: skip
    rows = query(
        database_url, "SELECT run_id, workflow_version AS version FROM orchestra.run_summary"
    )
    assert {row["run_id"]: row["version"] for row in rows} == {
        "noon": "one",
        **{f"{hour}h": None for hour in range(-9, -3)},
        **{f"{hour}h": "one" for hour in range(-3, 2)},
        **{f"{hour}h": "two" for hour in range(2, 6)},
        **{f"{hour}h": "three" for hour in range(6, 9)},
        **{f"{hour}h": "four" for hour in range(9, 10)},
        **{f"{hour}h": "one" for hour in range(10, 14)},
        **{f"{hour}h": "five" for hour in range(14, 20)},
    }


def test_pipeline_health_counts_the_whole_ledger(database_url: str, world: World) -> None:
    """The one row of pipeline_health counts due, open and failing runs, and dead letters.

    It also counts gaps, drift and waiting groups, across the whole ledger.
    """
    query(
        database_url,
        "UPDATE orchestra_etl.run_ledger SET due_at = now() + interval '1 hour'"
        " WHERE due_at IS NOT NULL",
    )
    for number, (tracking, attempts, due) in enumerate(
        (
            ("open", 0, -1),
            ("open", 3, -1),
            ("open", 1, 1),
            ("stale", 2, 1),
            ("stale", 0, -1),
            ("final", 0, None),
        )
    ):
        query(
            database_url,
            "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking,"
            " attempts, due_at) VALUES (%s, 'w', 'list', %s, %s,"
            " now() + make_interval(secs => %s * 60))",
            f"made up {number}", tracking, attempts, due,
        )  # fmt: skip
    for resolved in (None, None, datetime.now(UTC)):
        query(
            database_url,
            "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, reason, detail,"
            " content_hash, body, resolved_at)"
            " VALUES ('w', gen_random_uuid()::text, 'malformed', 'x', 'h', '', %s)",
            resolved,
        )
        query(
            database_url,
            "INSERT INTO orchestra_etl.gaps (workflow_id, detail, acknowledged_at)"
            " VALUES ('w', 'x', %s)",
            resolved,
        )
    # The first run has the id of another workflow's run. The second has entered the ledger since.
    # The third dead letter is about a step whose id another run has.
    query(
        database_url,
        "INSERT INTO orchestra_etl.dead_letters (workflow_id, run_id, step_id, reason, detail,"
        " content_hash, body, resolved_at)"
        " VALUES ('w', 'elsewhere', NULL, 'id_conflict', 'x', 'h', '', now()),"
        " ('w', 'made up 1', NULL, 'id_conflict', 'x', 'h', '', now()),"
        " ('w', 'r', 's', 'id_conflict', 'x', 'h', '', now())",
    )
    query(
        database_url,
        "INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)"
        " VALUES ('w', now()), ('w', now())",
    )
    query(
        database_url,
        "INSERT INTO orchestra_etl.drift (workflow_id, subject, field, kind, found, occurrences,"
        " last_run_id) VALUES ('w', 'step', 'x', 'unknown_field', 'text', 1, 'r')",
    )
    query(
        database_url,
        "UPDATE orchestra_etl.sweeps SET swept_at = now() - interval '5 minutes'"
        " WHERE workflow_id = (SELECT max(workflow_id) FROM orchestra_etl.sweeps)",
    )
    # These workflows left the configuration long ago, were never swept, or both.
    query(
        database_url,
        "INSERT INTO orchestra_etl.sweeps (workflow_id, started_at, swept_at) VALUES"
        " ('gone', now() - interval '8 days', now() - interval '8 days'), ('new', now(), NULL),"
        " ('gone unswept', now() - interval '8 days', NULL)",
    )
    tracked = query(
        database_url,
        "SELECT tracking FROM orchestra_etl.run_ledger WHERE run_id NOT LIKE 'made up%%'",
    )
    (row,) = query(database_url, "SELECT * FROM orchestra.pipeline_health")
    runs, _ = rows_of_history(world.history, database_url)
    assert row["newest_run_start"] == max(run["start_time"] for run in runs.values())
    assert row["behind_seconds"] == pytest.approx(300, abs=20)
    assert row["checked_at"] - row["swept_at"] == timedelta(seconds=row["behind_seconds"])
    assert row["open_runs"] == 3 + sum(one["tracking"] == "open" for one in tracked)
    assert {name: row[name] for name in ("due_runs", "failing_runs", "dead_letters",
                                         "unacknowledged_gaps", "drift")} == {
        "due_runs": 3, "failing_runs": 3, "dead_letters": 2, "unacknowledged_gaps": 2, "drift": 1,
    }  # fmt: skip
    assert (row["waiting_groups"], row["unswept_workflows"], row["conflicting_runs"]) == (2, 1, 1)


@pytest.mark.slow
def test_a_run_of_many_steps(database_url: str) -> None:
    """Lanes, waits and executions are right for 400 steps with odd times.

    Steps start and end together, take no time, never end or never start.
    """
    chance = Random(3)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    query(
        database_url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES ('run', 'w', 'running', 'api', 'open', %s)",
        noon,
    )
    query(
        database_url, "INSERT INTO orchestra.workflows (id, name, labels) VALUES ('w', NULL, '{}')"
    )
    for number in range(400):
        start = noon + timedelta(seconds=chance.randrange(60)) if chance.random() < 0.9 else None
        end = start and start + timedelta(seconds=chance.choice((0, 0, 1, 5, 9, -2)))
        state = "skipped" if start is None else "succeeded"
        query(
            database_url,
            "INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, position, state,"
            " start_time, end_time, content_hash) VALUES (%s, 'run', 'w', %s, %s, %s, %s, %s, '')",
            f"step {number}", f"node {number % 7}", number, state, start,
            end if chance.random() < 0.98 else None,
        )  # fmt: skip
    facts = Facts(
        query(database_url, view_oracle.RUNS),
        query(database_url, "SELECT * FROM orchestra.steps"),
        {row["id"]: row for row in query(database_url, "SELECT * FROM orchestra.workflows")},
        [],
        [],
    )
    rows = query(database_url, "SELECT * FROM orchestra.step_timeline")
    expected = view_oracle.step_timeline(facts)
    assert len(rows) == len(expected) == 400
    for row in rows:
        assert rounded(row) == rounded(expected[row["step_id"]])


# Who may read the views.


def test_analysts_read_every_view(world: World) -> None:
    """Analysts and the loader can read each view without payloads, and no other user can.

    The view with payloads is for payload analysts and the loader.
    """
    url = world.url
    roles.apply(world.database)
    query(
        url,
        "UPDATE orchestra_etl.run_ledger SET tracking = 'pruned', removed_at = now()"
        " WHERE tracking = 'final'",
    )
    query(url, "UPDATE orchestra.steps SET reported_cost = 0.01 WHERE input_tokens > 0")
    try:
        privileges = query(
            url,
            "SELECT c.relname AS name, a.grantee::regrole::text AS grantee,"
            " a.privilege_type AS privilege"
            " FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a"
            " WHERE c.relnamespace = 'orchestra'::regnamespace AND c.relkind = 'v'"
            " AND a.grantee <> c.relowner",
        )
        granted = {(row["name"], row["grantee"], row["privilege"]) for row in privileges}
        readers = dict.fromkeys(VIEWS, (ANALYST, LOADER))
        readers["model_calls"] = (PAYLOAD_ANALYST, LOADER)
        assert granted == {
            (view, role, "SELECT") for view, names in readers.items() for role in names
        }
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"SET ROLE {ANALYST}")
            for view in VIEWS:
                rows = connection.execute(f"SELECT * FROM orchestra.{view}".encode()).fetchall()
                assert rows or view in ("alerts", "open_runs", "failures", "failure_groups"), view
            connection.execute(
                "SELECT orchestra.duration_quantile(buckets, counts, 0.9)"
                " FROM orchestra.workflow_hourly"
            )
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("REASSIGN OWNED BY orchestra_migrator TO postgres")
            for role in roles.PURPOSES:
                connection.execute(f"DROP OWNED BY {role}".encode())
                connection.execute(f"DROP ROLE {role}".encode())

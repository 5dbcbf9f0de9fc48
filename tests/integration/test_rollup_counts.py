"""How rollups count durations, tokens and outcomes, with absurd values and groups that fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from etl.analytics import rollups, verification
from etl.database import Database
from tests.integration.test_rollup_groups import MONTHS_AGO, add, enter, hours, prune
from tests.rollup_oracle import counted_rows, stored
from tests.support import query


@pytest.fixture
def database(database: Database) -> Database:
    """Provide a database whose first refresh is done."""
    rollups.drain(database)
    return database


@pytest.mark.parametrize(
    ("state", "more", "column", "histogram"),
    [
        ("succeeded", {}, "succeeded", "counts"),
        ("failed", {}, "failed", "failed_counts"),
        ("succeeded", {"error": '"refused"'}, "soft_failed", "failed_counts"),
        ("succeeded", {"reported_error": "refused"}, "soft_failed", "failed_counts"),
        ("skipped", {}, "skipped", None),
        ("cancelled", {}, "cancelled", None),
        ("running", {}, "unfinished", None),
        ("unknown", {}, "unfinished", None),
    ],
)
def test_a_histogram_has_the_population_of_its_count(
    database: Database,
    database_url: str,
    state: str,
    more: dict[str, Any],
    column: str,
    histogram: str | None,
) -> None:
    """The histogram of a kind of outcome contains as many durations as its column counts steps.

    Successes and failures have separate histograms; other outcomes have none. Nine steps of 0.1 s
    have the outcome under test, beside a success of 10 s.
    """
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO + timedelta(seconds=10))
    add(
        database_url,
        "run",
        "long",
        MONTHS_AGO,
        node_id="n",
        end_time=MONTHS_AGO + timedelta(seconds=10),
    )
    for number in range(9):
        end = MONTHS_AGO + timedelta(milliseconds=100)
        add(
            database_url,
            "run",
            f"s{number}",
            MONTHS_AGO,
            node_id="n",
            state=state,
            **{"end_time": end, **more},
        )
    rollups.drain(database)
    expected = {"succeeded": 1, "counts": 1, "failed_counts": 0}
    expected[column] = expected.get(column, 0) + 9
    if histogram is not None:
        expected[histogram] += 9
    columns = """
        sum(succeeded)::int AS succeeded, sum(soft_failed)::int AS soft_failed,
        sum(failed)::int AS failed, sum(skipped)::int AS skipped,
        sum(cancelled)::int AS cancelled, sum(unfinished)::int AS unfinished,
        sum((SELECT sum(n) FROM unnest(counts) AS n))::int AS counts,
        COALESCE(sum((SELECT sum(n) FROM unnest(failed_counts) AS n)), 0)::int AS failed_counts,
        orchestra.duration_quantile(buckets, counts, 0.5) AS p50,
        orchestra.duration_quantile(failed_buckets, failed_counts, 0.5) AS failed_p50
    """
    for view in ("node_hourly", "node_daily"):
        [row] = query(database_url, f"SELECT {columns} FROM orchestra.{view}")
        assert {name: row[name] for name in expected} == expected
        assert row["p50"] == pytest.approx(
            100 if state == "succeeded" and not more else 10_000, rel=0.02
        )
        assert row["failed_p50"] == (
            pytest.approx(100, rel=0.02) if histogram == "failed_counts" else None
        )
    assert stored(database_url) == counted_rows(database_url)


def test_soft_failed_runs_count_as_failures(database: Database, database_url: str) -> None:
    """A run with a successful status and an error counts as a soft failure everywhere.

    That covers counts, durations and the run's summary.
    """
    for number, (error, outcome) in enumerate(
        [
            (None, "succeeded"),
            ('"None"', "succeeded"),
            ('{"code": null}', "succeeded"),
            ('{"code": 5}', "soft_failed"),
        ]
    ):
        enter(database_url, f"r{number}", MONTHS_AGO, MONTHS_AGO + timedelta(seconds=10))
        query(
            database_url,
            "UPDATE orchestra.runs SET error = CAST(%s AS jsonb) WHERE id = %s",
            error,
            f"r{number}",
        )
        shown = query(
            database_url,
            "SELECT outcome, first_error FROM orchestra.run_summary WHERE run_id = %s",
            f"r{number}",
        )
        assert shown == [
            {"outcome": outcome, "first_error": '{"code": 5}' if outcome == "soft_failed" else None}
        ]
    rollups.drain(database)
    [row] = query(
        database_url,
        "SELECT succeeded, soft_failed, counts, failed_counts FROM orchestra.workflow_hourly",
    )
    assert row == {"succeeded": 3, "soft_failed": 1, "counts": [3], "failed_counts": [1]}


ABSURD = (2**63 - 1, 2**63 - 1, -(2**63))


def test_an_absurd_number_of_tokens_is_unknown(database: Database, database_url: str) -> None:
    """An absurd number of tokens is unknown in sums and costs; the others are added up."""
    query(
        database_url,
        "INSERT INTO orchestra.prices (model, valid_from, currency, input_per_million,"
        " cached_input_per_million, output_per_million, reasoning_per_million, source)"
        " VALUES ('m', '0001-01-01', 'USD', 1000000, 1000000, 1000000, 1000000, 'set')",
    )
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO)
    names = (
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "cached_input_tokens",
        "reasoning_tokens",
    )
    for number, count in enumerate((*ABSURD, 5)):
        tokens: dict[str, Any] = dict.fromkeys(names, count)
        add(
            database_url,
            "run",
            f"s{number}",
            MONTHS_AGO,
            request_model="m",
            api_tokens=2**63 - 1,
            **tokens,
        )
    assert rollups.drain(database).stuck == 0
    added = ", ".join(
        f"CAST(sum({name}) AS int) AS {name}"
        for name in (*names, "calls", "unpriced_calls", "untotalled_calls")
    )
    for view in ("model_usage", "run_summary"):
        [row] = query(database_url, f"SELECT {added}, sum(cost) AS cost FROM orchestra.{view}")
        assert {row[name] for name in names} == {5}
        assert (row["calls"], row["unpriced_calls"], row["untotalled_calls"], row["cost"]) == (
            4,
            3,
            3,
            10,
        )
    assert query(
        database_url,
        "SELECT CAST(sum(cost) AS int) AS cost, CAST(sum(total_tokens) AS int) AS tokens"
        " FROM orchestra.step_timeline",
    ) == [{"cost": 10, "tokens": 5}]
    assert database.transaction(verification.verify).ok


def test_unknown_tokens_are_not_zero(database: Database, database_url: str) -> None:
    """A call's total is reported or the sum of its parts, else null and counted as unknown.

    A step that is not a call counts as 0.
    """
    cases: list[tuple[dict[str, Any], tuple[int | None, ...]]] = [
        ({"input_tokens": 4, "output_tokens": 1}, (4, 1, 5, 0)),
        ({"input_tokens": 4}, (4, None, None, 1)),
        ({"total_tokens": 9}, (None, None, 9, 0)),
        ({"request_model": "m"}, (None, None, None, 1)),
        ({"request_model": "m", "state": "failed"}, (None, None, None, 0)),
        ({"node_type": "code"}, (0, 0, 0, 0)),
    ]
    for number, (more, _) in enumerate(cases):
        enter(database_url, f"r{number}", MONTHS_AGO, MONTHS_AGO)
        add(database_url, f"r{number}", f"s{number}", MONTHS_AGO, node_id=f"{number}", **more)
    rollups.drain(database)
    for number, (_, expected) in enumerate(cases):
        columns = "input_tokens, output_tokens, total_tokens, untotalled_calls"
        for source in (f"run_summary WHERE run_id = 'r{number}'",
                       f"step_rollup WHERE node_id = '{number}'",
                       f"step_rollup_daily WHERE node_id = '{number}'"):  # fmt: skip
            [row] = query(database_url, f"SELECT {columns} FROM orchestra.{source}")
            assert tuple(row.values()) == expected, (source, number)
    together = (
        "SELECT CAST(sum(total_tokens) AS int) AS n, CAST(sum(untotalled_calls) AS int) AS"
        " unknown FROM orchestra."
    )
    for source in ("node_hourly", "node_daily", "model_usage", "run_summary"):
        assert query(database_url, together + source) == [{"n": 14, "unknown": 2}]


@pytest.mark.parametrize(
    "end",
    ["0001-01-01T00:00Z", "9999-12-31T23:59Z", "2000-01-01T00:00Z"],
    ids=["year 1", "year 9999", "before the start"],
)
def test_absurd_times_leave_other_durations_right(
    database: Database, database_url: str, end: str
) -> None:
    """An absurd or negative duration breaks nothing: all steps count, other durations are right."""
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO + timedelta(seconds=10))
    add(
        database_url,
        "run",
        "good",
        MONTHS_AGO,
        node_id="n",
        end_time=MONTHS_AGO + timedelta(seconds=10),
    )
    add(database_url, "run", "odd", MONTHS_AGO, node_id="n", end_time=end)
    add(database_url, "run", "elsewhere", end, node_id="m", end_time=end)
    assert rollups.drain(database).stuck == 0
    [row] = query(
        database_url,
        "SELECT sum(succeeded)::int AS succeeded, orchestra.duration_quantile(buckets, counts,"
        " 0.5) AS p50 FROM orchestra.node_daily WHERE node_id = 'n'",
    )
    assert (row["succeeded"], row["p50"]) == (2, pytest.approx(10_000, rel=0.02))
    assert query(
        database_url, "SELECT CAST(sum(succeeded) AS int) AS n FROM orchestra.node_daily"
    ) == [{"n": 3}]
    assert database.transaction(verification.verify).ok


def test_times_that_only_postgresql_can_represent(database: Database, database_url: str) -> None:
    """An hour that only PostgreSQL can represent is reported and not counted; all others are."""
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO)
    for number, start in enumerate(("infinity", "-infinity", "20000-01-01", "0044-03-15 BC")):
        add(database_url, "run", f"s{number}", start, end_time=None)
    add(database_url, "run", "good", MONTHS_AGO)
    done = rollups.drain(database)
    assert (done.stuck, done.waiting) == (4, 0)
    assert hours(database_url, "succeeded") == {MONTHS_AGO.replace(minute=0): 1}
    found = database.transaction(verification.verify)
    assert (len(found.stuck), found.differences, found.ok) == (4, [], False)
    query(
        database_url,
        "UPDATE orchestra.steps SET end_time = start_time WHERE start_time < '-infinity'"
        " OR id = 'good'",
    )
    query(database_url, "DELETE FROM orchestra.steps WHERE start_time > '10000-01-01'")
    assert prune(database, datetime.now(UTC) - timedelta(days=90)) == 1
    rollups.drain(database)
    assert hours(database_url, "succeeded") == {MONTHS_AGO.replace(minute=0): 1}


def test_long_texts_are_counted(database: Database, database_url: str) -> None:
    """Names too long for an index and an error of a megabyte do not stop the count."""
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO)
    add(database_url, "run", "good", MONTHS_AGO, node_id="n")
    long = {
        "node_id": "n" * 100_000,
        "request_model": "m" * 100_000,
        "organization_id": "o" * 500,
        "node_type": "t" * 5_000,
    }
    error = '{"message": "' + "e\\u00e9 1 " * 200_000 + '"}'
    add(database_url, "run", "long", MONTHS_AGO, state="failed", error=error, **long)
    assert rollups.drain(database).stuck == 0
    [row] = query(
        database_url,
        "SELECT length(message) AS message, length(pattern) AS pattern FROM orchestra.failures",
    )
    assert row == {"message": 500, "pattern": 500}
    assert stored(database_url).hours == counted_rows(database_url).hours
    assert database.transaction(verification.verify).ok


# Groups that cannot be counted.


def test_a_group_that_cannot_be_computed_is_stuck(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that fails is stuck, and all others are computed.

    The log and `verify` report the group. Once the cause is gone, a later refresh computes it.
    """
    query(
        database_url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.node_id = 'bad' THEN RAISE numeric_value_out_of_range; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON orchestra.step_rollup"
        " FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    for day in range(12):
        start = MONTHS_AGO + timedelta(days=day)
        enter(database_url, f"r{day}", start, start)
        add(database_url, f"r{day}", f"s{day}", start, node_id="bad" if day in (3, 7) else "good")
    with capture_logs() as lines:
        done = rollups.drain(database)
    assert (done.stuck, done.waiting, done.groups) == (2, 0, 10)
    assert [(line["event"], line["cause"]) for line in lines if line["log_level"] == "error"] == [
        ("rollup_group_failed", "22003")
    ] * 2
    assert len(hours(database_url, "succeeded")) == 10
    found = database.transaction(verification.verify)
    assert ([one.cause for one in found.stuck], found.differences, found.ok) == (
        ["22003"] * 2,
        [],
        False,
    )

    # A stuck group does not fail the next refresh, and is retried only after a while, even if more
    # of its steps are loaded.
    enter(database_url, "more", MONTHS_AGO + timedelta(days=3), MONTHS_AGO + timedelta(days=3))
    enter(database_url, "other", MONTHS_AGO + timedelta(days=30), MONTHS_AGO + timedelta(days=30))
    assert rollups.drain(database) == rollups.RefreshReport(groups=1, rows=1, stuck=2)
    query(database_url, "DROP TRIGGER refuse ON orchestra.step_rollup")
    assert rollups.drain(database).groups == 0
    query(
        database_url,
        "UPDATE orchestra_etl.changed_groups SET failed_at = failed_at - interval '1 hour'",
    )
    assert rollups.drain(database).groups == 2
    assert database.transaction(verification.verify).ok
    assert stored(database_url) == counted_rows(database_url)


def test_a_comparison_that_fails_is_reported(database: Database, database_url: str) -> None:
    """`verify` reports a failure of its own comparison."""
    query(database_url, "ALTER FUNCTION orchestra.token_count(bigint) RENAME TO token_count_gone;"
                        "CREATE FUNCTION orchestra.token_count(bigint) RETURNS bigint"
                        " LANGUAGE sql AS 'SELECT 1 / ($1 * 0)'")  # fmt: skip
    enter(database_url, "run", MONTHS_AGO, MONTHS_AGO)
    add(database_url, "run", "step", MONTHS_AGO, input_tokens=1)
    assert rollups.drain(database).stuck == 1
    found = database.transaction(verification.verify)
    assert (found.failure, found.ok, len(found.stuck)) == ("22012", False, 1)

"""The explanations of differences between two periods, compared with plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.analytics import rollups
from etl.database import Database
from tests import explanation_oracle
from tests.conftest import fresh_database
from tests.examples import examples
from tests.explanation_oracle import Period
from tests.integration.test_costs import price
from tests.support import query
from tests.view_oracle import Facts, model

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
"""The middle of the generated history, and the day on which a price changes."""
COST = ("currency", "part", "version", "node_id", "model", "service_tier", "context_tier", "kind")
_PRICES = {
    "m": {"input_per_million": "1.25", "cached_input_per_million": "0.125",
          "output_per_million": "10", "calls_per_thousand": "7"},
    "euro": {"currency": "EUR", "input_per_million": "3", "output_per_million": "0.7",
             "audio_per_hour": "0.36"},
    "dear": {"input_per_million": "15", "output_per_million": "75"},
}  # fmt: skip


@pytest.fixture(scope="module")
def history_url(postgres_server: Any, template_database: str) -> Iterator[str]:
    """Provide a database with prices, whose history each example replaces."""
    with fresh_database(postgres_server, template_database) as url:
        query(url, "INSERT INTO orchestra.workflows (id, labels) VALUES ('w', '{}'), ('v', '{}')")
        for name, amounts in _PRICES.items():
            price(url, name, **amounts)
        # Twice as dear from the second day on.
        query(url, "UPDATE orchestra.prices SET valid_until = %s WHERE model = 'dear'", MIDNIGHT)
        price(url, "dear", valid_from=MIDNIGHT, input_per_million="30", output_per_million="150")
        yield url


# A few hours, so that periods, versions and runs cut each other, and the hours.
MINUTES = st.integers(-150, 150)
STEP = st.fixed_dictionaries(
    {
        "node_id": st.sampled_from(("a", "b", None)),
        "response_model": st.sampled_from(("m", "dear", "dear", "euro", "unpriced", None)),
        "service_tier": st.sampled_from((None, None, "standard", "batch")),
        "state": st.sampled_from(("succeeded", "succeeded", "succeeded", "failed", "skipped")),
        "reported_error": st.sampled_from((*[None] * 8, "broken", "lost it")),
        "input_tokens": st.sampled_from((None, 0, 10, 1000, 40_000)),
        "cached_input_tokens": st.sampled_from((None, None, 5)),
        "output_tokens": st.sampled_from((None, 7, 333)),
        "audio_ms": st.sampled_from((None, None, None, 1000)),
        "offset": st.one_of(st.none(), st.integers(-5, 9000), st.integers(0, 600)),
        "absent": st.sampled_from((False, False, False, False, True)),
        "seconds": st.integers(-5, 300),
    }
)
RUN = st.fixed_dictionaries(
    {
        "workflow_id": st.sampled_from(("w", "w", "w", "v")),
        "start": MINUTES,
        "started": st.sampled_from((True, True, False)),
        "seconds": st.integers(-90, 900).map(lambda one: None if one < 0 else one),
        "state": st.sampled_from(("succeeded", "succeeded", "failed")),
        "steps": st.lists(STEP, min_size=1, max_size=5),
    }
)
VERSION = st.tuples(MINUTES, st.sampled_from(("1", "2", None)), st.integers(0, 90))
PERIODS = st.one_of(
    st.sampled_from(((-120, 0, 0, 120), (-150, 150, -150, 0), (-75, -15, -15, 45))),
    st.tuples(MINUTES, MINUTES, MINUTES, MINUTES).map(lambda t: (*sorted(t[:2]), *sorted(t[2:]))),
)


def _at(minutes: int) -> datetime:
    return MIDNIGHT + timedelta(minutes=minutes)


def _replace(url: str, runs: list[dict[str, Any]], versions: list[Any]) -> None:
    """Replace the history by these runs and versions."""
    names = [
        "node_id", "response_model", "service_tier", "state", "reported_error", "input_tokens",
        "cached_input_tokens", "output_tokens", "audio_ms",
    ]  # fmt: skip
    columns = [
        "id", "run_id", "workflow_id", "position", "start_time", "end_time", "organization_id",
        "absent_since", *names,
    ]  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM orchestra.runs")
        connection.execute("DELETE FROM orchestra.workflow_versions")
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orchestra.workflow_versions (workflow_id, first_seen_at, version,"
                " api_updated_at) VALUES ('w', %s, %s, %s) ON CONFLICT DO NOTHING",
                [(_at(at), name, _at(at - earlier)) for at, name, earlier in versions],
            )
            for number, run in enumerate(runs):
                begun = _at(run["start"])
                start = begun if run["started"] else None
                end = None if run["seconds"] is None else begun + timedelta(seconds=run["seconds"])
                cursor.execute(
                    "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking,"
                    " start_time, end_time, first_seen_at, organization_id)"
                    " VALUES (%s, %s, %s, 'api', 'final', %s, %s, %s, %s)",
                    (
                        f"r{number}",
                        run["workflow_id"],
                        run["state"],
                        start,
                        end,
                        begun,
                        f"o{number % 2}",
                    ),
                )
                for position, step in enumerate(run["steps"]):
                    at = (
                        None if step["offset"] is None
                        else begun + timedelta(seconds=step["offset"])
                    )  # fmt: skip
                    done = None if at is None else at + timedelta(seconds=step["seconds"])
                    absent = begun if step["absent"] else None
                    row = [
                        f"s{number} {position}",
                        f"r{number}",
                        run["workflow_id"],
                        position,
                        at,
                        done,
                    ]
                    row += [f"o{number % 2}", absent]
                    cursor.execute(
                        f"INSERT INTO orchestra.steps (content_hash, {', '.join(columns)})"
                        f" VALUES ('', {', '.join(['%s'] * len(columns))})",
                        [*row, *(step[name] for name in names)],
                    )


def _facts(url: str) -> Facts:
    return Facts(
        query(url, "SELECT * FROM orchestra.runs"),
        query(url, "SELECT * FROM orchestra.steps WHERE absent_since IS NULL"),
        {row["id"]: row for row in query(url, "SELECT * FROM orchestra.workflows")},
        query(url, "SELECT * FROM orchestra.workflow_versions ORDER BY first_seen_at"),
        query(url, "SELECT * FROM orchestra.prices"),
    )


def _part(facts: Facts, organisation: str | None, node: str | None, called: str | None) -> Facts:
    """Return the facts of an organisation, a node or a model; None: not limited by it."""
    return facts._replace(
        runs=[one for one in facts.runs if organisation in (None, one["organization_id"])],
        steps=[
            one
            for one in facts.steps
            if organisation in (None, one["organization_id"])
            and node in (None, one["node_id"])
            and called in (None, model(one))
        ],
    )


def explained(url: str, figure: str, baseline: Period, period: Period) -> list[dict[str, Any]]:
    """Return the rows of the SQL function for workflow w."""
    return query(
        url, f"SELECT * FROM orchestra.explain_{figure}('w', %s, %s, %s, %s)", *period, *baseline
    )


def _close(found: dict[Any, Decimal], wanted: dict[Any, Fraction], unit: str) -> None:
    """Check that parts are right to the last digit, except one that takes the rounding."""
    missing = {key for key, one in wanted.items() if abs(one) > Fraction(unit) / 2} - found.keys()
    assert missing == set()
    assert found.keys() <= wanted.keys()
    off = [abs(Fraction(one) - wanted[key]) for key, one in found.items()]
    rounded = [one for one in off if one > Fraction(unit) / 2]
    assert len(rounded) <= len({key[0] for key in found})
    assert all(one <= Fraction(unit) * len(found) for one in rounded), rounded


@given(
    st.lists(RUN, max_size=12), st.lists(VERSION, max_size=3, unique_by=lambda one: one[0]), PERIODS
)
@settings(max_examples=examples(30), suppress_health_check=list(HealthCheck))
def test_every_explanation_equals_a_split_of_the_raw_steps(
    history_url: str, runs: list[dict[str, Any]], versions: list[Any], bounds: tuple[int, ...]
) -> None:
    """Parts equal those of an independent split of the raw rows, and add up to the last digit."""
    url = history_url
    _replace(url, runs, versions)
    database = Database(url, patience=5)
    rollups.drain(database)
    database.close()
    facts = _facts(url)
    a, b, c, d = map(_at, bounds)
    baseline, period = (a, b), (c, d)

    rows = explained(url, "cost", baseline, period)
    found = {tuple(row[name] for name in COST): row["amount"] for row in rows}
    assert len(found) == len(rows)
    wanted = explanation_oracle.cost(facts, "w", baseline, period)
    _close(found, wanted, "1e-12")
    for currency in {row["currency"] for row in rows}:
        total = sum(row["amount"] for row in rows if row["currency"] == currency)
        exact = sum(one for key, one in wanted.items() if key[0] == currency)
        assert abs(Fraction(total) - exact) <= Fraction("0.5e-12")

    for organisation, node, called in (("o1", None, None), (None, "a", None), (None, None, "dear")):
        rows = query(
            url,
            "SELECT * FROM orchestra.explain_cost('w', %s, %s, %s, %s, %s, %s, %s)",
            *period, *baseline, organisation, node, called,
        )  # fmt: skip
        found = {tuple(row[name] for name in COST): row["amount"] for row in rows}
        own = _part(facts, organisation, node, called)
        _close(found, explanation_oracle.cost(own, "w", baseline, period), "1e-12")

    kinds = {
        row["step_id"]: (row["fingerprint"], row["pattern"])
        for row in query(url, "SELECT * FROM orchestra.step_failures")
    }
    rows = explained(url, "failures", baseline, period)
    names = ("part", "outcome", "node_id", "fingerprint")
    found = {tuple(row[name] for name in names): row["amount"] for row in rows}
    wanted = explanation_oracle.failures(facts, kinds, "w", baseline, period)
    _close(found, wanted, "1e-6")
    assert sum(found.values()) == sum(wanted.values())

    rows = explained(url, "duration", baseline, period)
    wanted = explanation_oracle.duration(facts, "w", baseline, period)
    found = {(row["part"], row["node_id"]): row["amount"] for row in rows}
    assert len(found) == len(rows)
    _close(found, wanted, "1e-6")
    assert abs(Fraction(sum(found.values())) - sum(wanted.values())) <= Fraction("0.5e-6")


SECONDS = st.integers(-3, 12)


@given(st.integers(0, 9), st.lists(st.tuples(SECONDS, st.integers(0, 6)), max_size=8))
@settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))
def test_the_critical_path(
    read_only_database_url: str, length: int, spans: list[tuple[int, int]]
) -> None:
    """Any steps, even outside of their run, leave a path that adds up to the run's duration."""
    steps: list[dict[str, Any]] = [
        {
            "id": f"{position}", "node_id": f"{position}", "position": position,
            "start_time": _at(0) + timedelta(seconds=start),
            "end_time": _at(0) + timedelta(seconds=start + took),
        }
        for position, (start, took) in enumerate(spans)
    ]  # fmt: skip
    end = _at(0) + timedelta(seconds=length)
    steps.sort(key=lambda one: (one["start_time"], one["position"]))
    steps.sort(key=lambda one: one["end_time"], reverse=True)
    [found] = query(
        read_only_database_url,
        "SELECT * FROM orchestra.critical_path(%s::timestamptz[], %s::timestamptz[], %s, %s)",
        [one["start_time"] for one in steps], [one["end_time"] for one in steps], _at(0), end,
    )  # fmt: skip
    path = {
        steps[position]["node_id"]: (took, waited)
        for position, (took, waited) in enumerate(zip(found["took"], found["waited"], strict=True))
        if took is not None
    }
    wanted = explanation_oracle.critical_path(steps, _at(0), end)
    at_end = [waited for node, own, waited in wanted if own is None]
    assert [found["waited_at_end"] / 1000] == at_end
    assert {node: (took / 1000, waited / 1000) for node, (took, waited) in path.items()} == {
        node: (own, waited) for node, own, waited in wanted if own is not None
    }
    assert sum(map(sum, path.values())) + found["waited_at_end"] == length * 1_000_000


@given(st.lists(VERSION, max_size=5, unique_by=lambda one: one[0]))
@settings(max_examples=examples(10), suppress_health_check=list(HealthCheck))
def test_versions_are_those_of_run_summary(history_url: str, versions: list[Any]) -> None:
    """A run belongs to the stretch of its version, as in `run_summary`."""
    step = {"workflow_id": "w", "started": True, "seconds": 1, "state": "succeeded", "steps": []}
    _replace(history_url, [{**step, "start": 5 * one} for one in range(-30, 30)], versions)
    database = Database(history_url, patience=5)
    rollups.drain(database)
    database.close()
    counted = query(
        history_url,
        """SELECT version, CAST(sum(runs) AS integer) AS runs
           FROM orchestra.explained_periods('w', %s, %s, %s, %s)
           WHERE side = 1 GROUP BY version""",
        _at(-150), _at(150), _at(-200), _at(-150),
    )  # fmt: skip
    wanted = query(
        history_url,
        "SELECT workflow_version AS version, CAST(count(*) AS integer) AS runs"
        " FROM orchestra.run_summary GROUP BY 1",
    )
    assert {row["version"]: row["runs"] for row in counted} == {
        row["version"]: row["runs"] for row in wanted
    }

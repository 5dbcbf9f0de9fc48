"""Each cause of a difference by itself, and the command `explain`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from etl.admin import expired, retention
from etl.alerts.content import Content
from etl.alerts.evidence import evidence_for
from etl.analytics import rollups
from etl.analytics.explanation import FigureChange, Period, explain, first_lines
from etl.database import Database
from etl.errors import SchemaMismatch
from tests import alert_rows
from tests.command_line import Command
from tests.integration.test_costs import price
from tests.integration.test_rollup_groups import add, enter
from tests.support import query

BASE, CHANGED = datetime(2026, 3, 1, 8, 30, tzinfo=UTC), datetime(2026, 3, 8, 8, 30, tzinfo=UTC)
"""The begins of two periods of a week."""
BASELINE, PERIOD = Period(BASE, CHANGED), Period(CHANGED, CHANGED + timedelta(days=7))
OPTIONS = ("--since", "2026-03-08T08:30", "--until", "2026-03-15T08:30", "--against", "7d")


@pytest.fixture
def database(database: Database, database_url: str) -> Database:
    """Provide a database with a workflow and prices."""
    query(
        database_url,
        "INSERT INTO orchestra.workflows (id, name, labels) VALUES ('w', 'weather', '{}')",
    )
    price(database_url, "m", input_per_million=2, output_per_million=10)
    price(database_url, "dear", input_per_million=20, output_per_million=100)
    price(database_url, "euro", currency="EUR", input_per_million=1, output_per_million=1)
    return database


class Runs:
    """Stores runs of two calls, the nodes a and b, each with the model m."""

    def __init__(self, url: str, begin: datetime) -> None:
        self._url = url
        self._begin = begin
        self._number = 0

    def add(self, count: int = 1, *, calls: int = 1, **more: Any) -> None:
        """Add runs an hour apart, of which a is called so many times; `more` are columns of a."""
        for _ in range(count):
            self._number += 1
            start = self._begin + timedelta(hours=self._number)
            run = f"{self._begin:%d} {self._number}"
            enter(self._url, run, start, start + timedelta(seconds=10))
            nodes = [("a", more)] * calls + [("b", {})]
            for position, (node, columns) in enumerate(nodes):
                begun = start + timedelta(seconds=2 * position + 1)
                columns = {
                    "node_id": node, "node_type": "model", "response_model": "m",
                    "input_tokens": 1000, "output_tokens": 100,
                    "end_time": begun + timedelta(seconds=2), "position": position, **columns,
                }  # fmt: skip
                add(self._url, run, f"{run} {position}", begun, **columns)


def _explained(database: Database, figure: Any = "cost") -> list[Any]:
    rollups.drain(database)
    return database.transaction(
        lambda c: explain(c, figure, "w", period=PERIOD, baseline=BASELINE)
    ).differences


def _sums(difference: FigureChange) -> dict[str, Decimal]:
    assert sum(one.amount for one in difference.parts) == difference.difference
    assert difference.before + difference.difference == difference.after
    found: dict[str, Decimal] = {}
    for one in difference.parts:
        found[one.part] = found.get(one.part, Decimal(0)) + one.amount
    return found


USED = {"response_model": "m", "input_tokens": 1000, "output_tokens": 100}


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"count": 6}, {"runs": "0.012"}, id="volume"),
        pytest.param({"calls": 3}, {"calls": "0.024"}, id="calls per run"),
        pytest.param({"output_tokens": 300}, {"usage": "0.008"}, id="output tokens"),
        pytest.param(
            {"response_model": "dear"}, {"models": "0.108"}, id="a dearer model"
        ),
        pytest.param({"node_id": "c", "output_tokens": 200}, {"nodes": "0.004"}, id="another node"),
        pytest.param({"response_model": "unknown"}, {"unpriced": "-0.012"}, id="no price"),
        pytest.param(
            {"input_tokens": None, "output_tokens": None}, {"unmetered": "-0.012"}, id="no usage"
        ),
    ],
)  # fmt: skip
def test_a_single_cause_is_the_only_part(
    database: Database, database_url: str, more: dict[str, Any], parts: dict[str, str]
) -> None:
    """A change of one factor appears as that part alone, with the whole difference."""
    Runs(database_url, BASE).add(4)
    Runs(database_url, CHANGED).add(more.pop("count", 4), **more)
    [found] = _explained(database)
    assert _sums(found) == {name: Decimal(amount) for name, amount in parts.items()}
    assert found.before == Decimal("0.024")


def test_a_changed_price_is_a_part(database: Database, database_url: str) -> None:
    """A price that changes between the periods is the part `prices`, even for a new version."""
    query(database_url, "UPDATE orchestra.prices SET valid_until = '2026-03-08' WHERE model = 'm'")
    price(database_url, "m", valid_from="2026-03-08", input_per_million=2, output_per_million=30)
    query(
        database_url,
        "INSERT INTO orchestra.workflow_versions (workflow_id, version, first_seen_at)"
        " VALUES ('w', '2', %s)",
        CHANGED,
    )
    Runs(database_url, BASE).add(4)
    Runs(database_url, CHANGED).add(4)
    [found] = _explained(database)
    assert _sums(found) == {"prices": Decimal("0.016")}


def test_a_new_version_is_a_part(database: Database, database_url: str) -> None:
    """What differs between a version and the one before it is the part `version`, by node."""
    middle = CHANGED + timedelta(hours=2, minutes=30)
    query(
        database_url,
        "INSERT INTO orchestra.workflow_versions (workflow_id, version, first_seen_at)"
        " VALUES ('w', '1', '2026-01-01'), ('w', '2', %s)",
        middle,
    )
    Runs(database_url, BASE).add(4)
    runs = Runs(database_url, CHANGED)
    runs.add(2)
    runs.add(2, output_tokens=300)
    [found] = _explained(database)
    assert _sums(found) == {"version": Decimal("0.004")}
    assert [(one.node_id, one.amount) for one in found.parts] == [("a", Decimal("0.004"))]


def test_each_currency_is_split_by_itself(database: Database, database_url: str) -> None:
    """Calls that are paid in another currency leave one difference and appear in the other."""
    Runs(database_url, BASE).add(4)
    Runs(database_url, CHANGED).add(4, response_model="euro")
    euro, dollars = _explained(database)
    assert (euro.unit, euro.before, euro.after) == ("EUR", 0, Decimal("0.0044"))
    assert _sums(euro) == {"currencies": Decimal("0.0044")}
    assert (dollars.unit, dollars.difference) == ("USD", Decimal("-0.012"))
    assert _sums(dollars) == {"currencies": Decimal("-0.012")}


@pytest.mark.parametrize("begin", [BASE, CHANGED])
def test_a_period_without_runs(database: Database, database_url: str, begin: datetime) -> None:
    """If only one period has runs, they are the difference; without runs there is none."""
    assert _explained(database) == []
    assert _explained(database, "duration") == []
    assert _sums(_explained(database, "failures")[0]) == {}
    Runs(database_url, begin).add(3, state="failed")
    sign = 1 if begin == CHANGED else -1
    [found] = _explained(database)
    assert _sums(found) == {"runs": sign * Decimal("0.018")}
    [found] = _explained(database, "failures")
    assert _sums(found) == {"runs": sign * 3}
    assert _explained(database, "duration") == []


def test_late_and_pruned_runs(database: Database, database_url: str) -> None:
    """A run that arrives late counts at once; a pruned one keeps its cost, and its failures.

    Its version is known even if the version changed within the hour of the run.
    """
    query(
        database_url,
        "INSERT INTO orchestra.workflow_versions (workflow_id, version, first_seen_at)"
        " VALUES ('w', '1', '2026-01-01'), ('w', '2', %s)",
        BASE + timedelta(hours=2, minutes=15),
    )
    Runs(database_url, BASE).add(4, state="failed", error='"it broke"')
    Runs(database_url, CHANGED).add(1)
    before = _explained(database)
    late = Runs(database_url, CHANGED + timedelta(days=1))
    late.add(3, output_tokens=300)
    [found] = _explained(database)
    assert before[0].difference == Decimal("-0.018")
    assert (found.before, found.difference) == (Decimal("0.024"), Decimal("0.006"))
    assert _sums(found).keys() == {"version", "usage"}
    wanted = database.transaction(
        lambda c: expired.horizons(
            c, payloads=None, runs=(datetime.now(UTC) - CHANGED).total_seconds()
        )
    )
    assert retention.prune(database, wanted).runs == 4
    assert _explained(database) == [found]
    [failures] = _explained(database, "failures")
    assert failures.before == 4
    assert _sums(failures) == {"pruned": -4}


def test_failures_are_new_gone_grown_and_shrunk(database: Database, database_url: str) -> None:
    """Kinds of failure are distinguished by node and pattern, and by their change per run."""
    base, changed = Runs(database_url, BASE), Runs(database_url, CHANGED)
    for runs, counts in (
        (base, {"gone": 2, "grown": 1, "shrunk": 3, "same": 1}),
        (changed, {"new": 1, "grown": 3, "shrunk": 1, "same": 1}),
    ):
        for name, count in counts.items():
            runs.add(count, state="failed", error=f'"this is {name}"')
    changed.add(1)
    [found] = _explained(database, "failures")
    assert (found.before, found.after) == (7, 6)
    assert _sums(found) == {"new": 1, "gone": -2, "grown": 2, "shrunk": -2}
    assert {one.pattern for one in found.parts} == {
        "this is new", "this is gone", "this is grown", "this is shrunk"
    }  # fmt: skip


def test_durations_follow_the_critical_path(database: Database, database_url: str) -> None:
    """Only steps that the run waited for count, with the time until the next one starts."""
    for begin, slow in ((BASE, 3), (CHANGED, 5)):
        start = begin + timedelta(hours=1)

        def at(seconds: float, start: datetime = start) -> datetime:
            return start + timedelta(seconds=seconds)

        run = f"{begin:%d}"
        enter(database_url, run, start, at(slow + 4))
        for node, starts, ends in (
            ("first", 0, 1), ("slow", 1, slow + 1), ("beside", 1, 2), ("last", slow + 2, slow + 3),
        ):  # fmt: skip
            add(database_url, run, f"{run} {node}", at(starts), node_id=node, end_time=at(ends))
    [found] = _explained(database, "duration")
    assert (found.before, found.after) == (7000, 9000)
    assert [(one.part, one.node_id, one.amount) for one in found.parts] == [("time", "slow", 2000)]


def test_failures_of_earlier_runs(database: Database, database_url: str) -> None:
    """In a period in which no run started, failures belong to earlier runs, and are not lost."""
    Runs(database_url, BASE).add(2)
    late = CHANGED + timedelta(hours=3)
    add(database_url, f"{BASE:%d} 1", "late", late, node_id="a", state="failed")
    [found] = _explained(database, "failures")
    assert (found.before, found.after) == (0, 1)
    assert _sums(found) == {"runs": Decimal("-0.5"), "new": Decimal("1.5")}


def test_a_soft_failed_run_has_no_duration(database: Database, database_url: str) -> None:
    """Only runs that succeeded without an error count in the mean duration."""
    base, changed = Runs(database_url, BASE), Runs(database_url, CHANGED)
    base.add(2)
    changed.add(1)
    [found] = _explained(database, "duration")
    assert found.difference == 0
    changed.add(1, reported_error="it broke", end_time=PERIOD.until)
    assert _explained(database, "duration") == [found]
    query(database_url, "UPDATE orchestra.steps SET reported_error = 'it broke'")
    assert _explained(database, "duration") == []


def test_first_lines(database: Database, database_url: str) -> None:
    """The lines name the largest parts first; names are printable and short."""
    hostile = "evil\x1b[2J\n" + "x" * 100
    Runs(database_url, BASE).add(4)
    Runs(database_url, CHANGED).add(6, node_id=hostile, output_tokens=300)
    rollups.drain(database)

    def lines(connection: Any) -> list[str]:
        return first_lines(
            connection, "w", (PERIOD.since, PERIOD.until), (BASELINE.since, BASELINE.until)
        )

    found = database.transaction(lines)
    assert len(found) == 3
    assert found[0].startswith("+0.025000 USD: calls per run of node evil")
    assert "which only one period calls: 0 -> 1" in found[0]
    assert all("\x1b" not in one and "\n" not in one and len(one) < 200 for one in found)


def test_an_older_schema_is_named(database: Database, database_url: str) -> None:
    """Without the SQL functions, the error says how to get them."""
    query(
        database_url,
        "DROP FUNCTION orchestra.explain_cost(text, timestamptz, timestamptz, timestamptz,"
        " timestamptz)",
    )
    with pytest.raises(SchemaMismatch, match="run `orchestra-etl db upgrade`"):
        database.transaction(
            lambda c: explain(c, "failures", "w", period=PERIOD, baseline=BASELINE)
        )


@pytest.fixture
def loaded(database: Database, database_url: str) -> None:
    """Store runs whose output and number grow, and a complete sweep."""
    alert_rows.swept(database_url, "w", PERIOD.until)
    Runs(database_url, BASE).add(4)
    Runs(database_url, CHANGED).add(6, output_tokens=300)
    rollups.drain(database)


def test_the_command_prints_the_parts(loaded: None, command: Command) -> None:
    """The command prints both totals and each part with its details; JSON has the exact parts."""
    printed = command("explain", "cost", "weather", *OPTIONS)
    assert (printed.status, printed.err) == (0, "")
    assert printed.out == (
        "workflow  weather (w)\n"
        "period    2026-03-08 08:30:00Z to 2026-03-15 08:30:00Z\n"
        "against   2026-03-01 08:30:00Z to 2026-03-08 08:30:00Z\n"
        "\n"
        "part       change  total (USD)\n"
        "before             0.024000\n"
        "runs    +0.014000\n"
        "  +0.014000 USD: runs: 4 -> 6\n"
        "usage   +0.010000\n"
        "  +0.010000 USD: output tokens per call of m in node a: 100 -> 300\n"
        "after   +0.024000  0.048000\n"
    )
    found = command("explain", "cost", "w", *OPTIONS, "--json").json
    [difference] = found["differences"]
    assert sum(Decimal(part["amount"]) for part in difference["parts"]) == Decimal("0.024")
    assert [part["part"] for part in difference["parts"]] == ["runs", "usage"]
    assert found["baseline"] == {
        "since": "2026-03-01T08:30:00Z", "until": "2026-03-08T08:30:00Z"
    }  # fmt: skip


def test_a_part_of_the_calls(loaded: None, database_url: str, command: Command) -> None:
    """The options limit the cost to an organisation's, a node's and a model's calls."""
    printed = command("explain", "cost", "w", *OPTIONS, "--node", "b", "--model", "m")
    assert (printed.status, printed.err) == (0, "")
    assert "\nnode      b\nmodel     m\n" in printed.out
    assert printed.out.endswith(
        "before             0.012000\n"
        "runs    +0.006000\n"
        "  +0.006000 USD: runs: 4 -> 6\n"
        "after   +0.006000  0.018000\n"
    )
    found = command("explain", "cost", "w", *OPTIONS, "--organisation=none", "--json").json
    assert found["calls"] == {"organisation": "none", "node": None, "model": None}
    assert found["differences"] == []
    query(
        database_url,
        "DROP FUNCTION orchestra.explain_cost(text, timestamptz, timestamptz, timestamptz,"
        " timestamptz, text, text, text)",
    )
    refused = command("explain", "cost", "w", *OPTIONS, "--node", "b")
    assert "run `orchestra-etl db upgrade`" in refused.err


@pytest.mark.parametrize(
    ("obstacle", "period", "words"),
    [
        pytest.param(
            "UPDATE orchestra_etl.sweeps SET started_at = '2026-03-14Z', swept_at = '2026-03-14Z'",
            "period", "no complete sweep since 2026-03-14 00:00Z",
            id="behind",
        ),
        pytest.param(
            "DELETE FROM orchestra_etl.sweeps", "baseline", "no sweep has completed yet",
            id="never swept",
        ),
        pytest.param(
            "INSERT INTO orchestra_etl.gaps (workflow_id, after_time, before_time, detail)"
            " VALUES ('w', '2026-03-07Z', '2026-03-08Z', '')",
            "baseline", "runs may have been missed: see `gaps list`", id="gap",
        ),
        pytest.param(
            "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking,"
            " start_time) VALUES ('u', 'w', 'list', 'open', '2026-03-09Z')",
            "period", "1 run is not read yet", id="unread",
        ),
        pytest.param(
            "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking,"
            " start_time) SELECT 'u' || n, 'w', 'list', 'gone', '2026-03-02Z'"
            " FROM generate_series(1, 2) AS n",
            "baseline", "2 runs are not read yet", id="abandoned",
        ),
        pytest.param(
            "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking,"
            " start_time, steps_observed_at, attempts)"
            " VALUES ('u', 'w', 'list', 'open', '2026-03-09Z', now(), 3)",
            "period", "1 open run is not re-read in time", id="failed reads",
        ),
        pytest.param(
            "INSERT INTO orchestra_etl.retention (id, run_horizon) VALUES (1, '2026-03-02Z')",
            "baseline", "runs that ended before 2026-03-02 00:00Z are pruned", id="pruned",
        ),
        pytest.param(
            "INSERT INTO orchestra_etl.changed_groups (hour) VALUES (NULL)",
            "period", "the rollups of many hours are being recomputed", id="old rollups",
        ),
    ],
)  # fmt: skip
def test_what_may_be_missing_is_reported(
    loaded: None, database_url: str, command: Command, obstacle: str, period: str, words: str
) -> None:
    """If a period is incomplete, the text and the JSON say which one and why."""
    query(database_url, obstacle)
    printed = command("explain", "cost", "w", *OPTIONS)
    assert f"incomplete  the {period}: {words}\n" in printed.out.replace(" " * 12, "incomplete  ")
    assert words in command("explain", "cost", "w", *OPTIONS, "--json").json["incomplete"][period]


def test_the_lines_of_an_alert_explain_what_its_rule_measures(
    loaded: None, database: Database, database_url: str
) -> None:
    """An alert on a node quotes the parts of that node alone, and what may be missing."""
    query(
        database_url,
        "INSERT INTO orchestra_etl.retention (id, run_horizon) VALUES (1, '2026-03-02Z')",
    )
    content = Content(
        metric="cost", workflow_id="w", node="b", window_begin=PERIOD.since,
        window_end=PERIOD.until,
    )  # fmt: skip
    found = database.transaction(lambda c: evidence_for(c, content))
    assert found.explanation == (
        "+0.006000 USD: runs: 4 -> 6",
        "the time before may be incomplete: runs that ended before 2026-03-02 00:00Z are pruned",
    )


def test_the_options_choose_the_periods(loaded: None, command: Command) -> None:
    """A duration counts back from the period's end or start; a time is a start."""

    def periods(*options: str) -> tuple[str, ...]:
        found = command("explain", "failures", "w", "--until", "2026-03-15", *options, "--json")
        return tuple(
            found.json[one][end][:13]
            for one in ("period", "baseline")
            for end in ("since", "until")
        )

    week = ("2026-03-08T00", "2026-03-15T00")
    assert periods() == (*week, "2026-03-01T00", "2026-03-08T00")
    assert periods("--against", "28d") == (*week, "2026-02-08T00", "2026-03-08T00")
    assert periods("--against", "2026-01-01") == (*week, "2026-01-01T00", "2026-01-08T00")
    assert periods("--since", "2026-03-14T12:00", "--against", "1h") == (
        "2026-03-14T12", "2026-03-15T00", "2026-03-14T11", "2026-03-14T12"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--since", "soon"), "--since takes a duration with a unit, such as 7d, or a time"),
        (("--against", "2026-13-01"), "--against: '2026-13-01' is not a time"),
        (("--against", "9999-12-31"), "the periods must be within the years 1 to 9999"),
        (("--since", "2026-03-16"), "--since must be earlier than the end of the period"),
    ],
)
def test_wrong_options(
    loaded: None, command: Command, options: tuple[str, ...], words: str
) -> None:
    """A wrong option is one line and exit status 2."""
    printed = command("explain", "cost", "w", "--until", "2026-03-15", *options)
    assert (printed.status, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert words in printed.err


def test_nothing_to_explain(loaded: None, command: Command) -> None:
    """Without a cost or a successful run, the command says so; an unknown workflow is an error."""
    old = ("--until", "2026-02-01")
    assert "no call in these periods has a cost" in command("explain", "cost", "w", *old).out
    assert "successful runs in both periods" in command("explain", "duration", "w", *old).out
    out = command("explain", "failures", "w", *old).out
    assert out.split()[-5:] == ["before", "0.0", "after", "+0.0", "0.0"]
    unknown = command("explain", "cost", "other")
    assert (unknown.status, unknown.out) == (2, "")

"""All ways to request a newer read of a run, with a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection

from etl.database import Database
from etl.ledger import claims, dead_letters, listed_pages, repairs, requests, state_map, sweeps
from etl.ledger.dead_letters import DeadLetter
from etl.ledger.lifecycle import PollingPolicy
from etl.pipeline.loading import Loader
from etl.pipeline.reading import Reading
from etl.records import ListedRun, Rejected
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_page, decode_run
from etl.transform.states import StateMap
from tests.support import query

W, RUN = "workflow", "run"
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
ROW = {"id": RUN, "status": "odd", "start_time": "2025-03-13T02:41:14Z", "end_time": None}

# The states of a run before it is reopened.
OPEN, FINAL, GONE = "open", "final", "gone"


def _page() -> dict[str, ListedRun]:
    return {run.id: run for run in decode_page(json.dumps([ROW]).encode()).runs}


def _list(connection: Connection) -> None:
    sweep = sweeps.begin(connection, W, lease=60, count_to=25)
    assert sweep is not None
    listed_pages.write_page(
        connection,
        sweep,
        list(_page().values()),
        requested_at=sweep.begun_at,
        lease=60,
        priority=0,
    )


def _retry(connection: Connection) -> None:
    dead_letters.record(connection, [DeadLetter(W, RUN, Rejected("malformed", "Bad.", b"{"))])
    dead_letters.retry(connection, None)


def _map_states(connection: Connection) -> int:
    return state_map.apply(connection, {"odd": "completed"}, lambda status: "completed")


WAYS: dict[str, tuple[Callable[[Connection], object], int, tuple[str, ...]]] = {
    "listed otherwise": (_list, 0, (OPEN, FINAL, GONE)),
    "tracked": (lambda c: requests.track(c, W, [RUN]), 0, (OPEN, FINAL, GONE)),
    "dead letter retried": (_retry, 0, (OPEN, FINAL, GONE)),
    "named for another workflow": (lambda c: requests.register(c, "named", [RUN]), 1, (OPEN,)),
    "read again": (lambda c: requests.reread(c, [W], since=None, until=None), 1, (FINAL,)),
    "missing from the tables": (
        lambda c: repairs.request_reread(c, W, _page(), datetime.now(UTC)),
        1,
        (OPEN, FINAL),
    ),
    "states mapped otherwise": (_map_states, 1, (OPEN, FINAL)),
}
"""The request, the priority that a backfilled run has after it, and the run's possible states."""

REASONS = dict(
    zip(WAYS, ("list", "track", "track", "config", "reread", "repair", "states"), strict=True)
)
"""The reason that the ledger records for each way."""


@pytest.mark.parametrize(
    ("way", "tracking"), [(way, state) for way, (*_, states) in WAYS.items() for state in states]
)
def test_a_reopened_run_is_reset_and_its_claim_is_invalid(
    database: Database, database_url: str, way: str, tracking: str
) -> None:
    """Every request for a newer read leaves the same columns and invalidates the present claim."""
    request, priority, _ = WAYS[way]
    claim = _prepare(database, database_url, way, tracking)
    database.transaction(request)
    row = _row(database_url)
    assert (row.pop("is_due"), row.pop("fencing_token")) == (True, claim.token + 1)
    opened_at = row.pop("opened_at")
    assert opened_at == LONG_AGO if tracking == OPEN else opened_at > LONG_AGO
    assert row == {
        "tracking": "open",
        "leased_until": None,
        "checks": 0,
        "not_found_since": None,
        # The columns about the last reads stay.
        "attempts": 2,
        "last_error": "timeout",
        "priority": priority,
        "reopened_by": REASONS[way],
    }
    assert database.transaction(lambda c: claims.lock(c, [claim])) == [False]


def test_a_changed_state_map_keeps_the_priority_of_live_runs(
    database: Database, database_url: str
) -> None:
    """A live run keeps its priority when a changed state map has it read again."""
    _prepare(database, database_url, "states mapped otherwise", OPEN)
    query(database_url, "UPDATE orchestra_etl.run_ledger SET priority = 0")
    assert database.transaction(_map_states) == 1
    assert _row(database_url)["priority"] == 0


def test_a_gone_run_gets_its_new_state_without_a_read(
    database: Database, database_url: str
) -> None:
    """A changed state map changes the state of a gone run without any request."""
    _prepare(database, database_url, "states mapped otherwise", GONE)
    before = _row(database_url)
    assert database.transaction(_map_states) == 0
    assert _row(database_url) == before
    assert query(
        database_url,
        "SELECT r.state, l.run_state FROM orchestra.runs AS r JOIN orchestra_etl.run_ledger AS l"
        " ON l.run_id = r.id",
    ) == [{"state": "completed", "run_state": "completed"}]


def _prepare(database: Database, url: str, way: str, tracking: str) -> claims.Claim:
    """Create a run in this state whose last reads failed, with a valid claim on it."""
    database.transaction(lambda c: requests.track(c, W, [RUN]))
    (claim,) = database.transaction(lambda c: claims.claim(c, limit=1, lease=3600))
    if way == "states mapped otherwise":
        states = StateMap({})
        steps = decode_steps(b"[]", workflow_id=W, run_id=RUN, states=states)
        run = decode_run(json.dumps(ROW).encode(), states=states).run
        at = claim.claimed_at
        reading = Reading(claim, at, server_time=at, steps=steps, run=run, run_observed_at=at)
        Loader(database, PollingPolicy(), states).load([reading])
    query(
        url,
        "UPDATE orchestra_etl.run_ledger SET tracking = %s, due_at = NULL,"
        " leased_until = now() + interval '1 hour',"
        " checks = 3, attempts = 2, last_error = 'timeout', not_found_since = %s, opened_at = %s,"
        " priority = 1, steps_observed_at = CASE WHEN %s THEN now() ELSE steps_observed_at END",
        tracking, LONG_AGO, LONG_AGO, way == "missing from the tables",
    )  # fmt: skip
    assert database.transaction(lambda c: claims.lock(c, [claim])) == [True]
    return claim


def _row(url: str) -> dict[str, Any]:
    (row,) = query(
        url,
        "SELECT tracking, leased_until, checks, not_found_since, attempts, last_error, priority,"
        " reopened_by,"
        " opened_at, due_at IS NOT NULL AS is_due, fencing_token FROM orchestra_etl.run_ledger",
    )
    return row

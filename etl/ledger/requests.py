"""Runs that enter the ledger by name: by configuration, `track` or `orchestra.run_requests`.

A name is a request, and the API decides. A run belongs to a workflow once the API has shown it
there, in the list or by its steps. From then on, no request moves it to another workflow. Until
then, the run is only requested, and a later request may name another workflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from etl.database import allow_long
from etl.ledger.reopening import reopen
from etl.settings.values import clean_id

# Maximum number of requests in one transaction: a user who may insert into the queue can insert
# millions.
BATCH = 10_000

_NO_STEPS = hashlib.blake2b(digest_size=16).hexdigest()
"""The digest of a response without steps, as a load stores it."""

# The ledger's own columns come first: after a wait for a load of the run, the statement sees the
# load's changes only in the locked ledger row, not in the other tables.
ONLY_REQUESTED = f"""(l.listed_at IS NULL AND l.removed_at IS NULL AND l.run_observed_at IS NULL
        AND (l.steps_observed_at IS NULL OR l.read_digest = decode('{_NO_STEPS}', 'hex'))
        AND NOT EXISTS (SELECT FROM orchestra.steps AS s WHERE s.run_id = l.run_id)
        AND NOT EXISTS (SELECT FROM orchestra.runs AS r
                        WHERE r.id = l.run_id AND r.status_source = 'api'))"""
"""The condition that the run of a row `l` of the ledger is only requested.

The API has not shown such a run under its workflow. A response without steps shows nothing, because
some servers return an empty array for any id.
"""

# If several workflows name a run, the next one takes the run over when the API has returned 404 for
# it under the first one.
_REGISTER = text(f"""
    INSERT INTO orchestra_etl.run_ledger AS l (run_id, workflow_id, source)
    SELECT r.run_id, :workflow_id, 'config'
    FROM unnest(CAST(:ids AS text[])) AS r (run_id)
    ORDER BY r.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET {reopen("config", workflow_id="excluded.workflow_id", source="excluded.source")}
    WHERE l.workflow_id <> excluded.workflow_id AND {ONLY_REQUESTED} AND l.tracking = 'open'
      AND l.not_found_since IS NOT NULL
    RETURNING xmax = 0 AS inserted
""")

# A known run is reopened. A tombstone stays a tombstone.
_TRACK = text(f"""
    INSERT INTO orchestra_etl.run_ledger AS l (run_id, workflow_id, source)
    SELECT r.run_id, r.workflow_id, :source
    FROM unnest(CAST(:ids AS text[]), CAST(:workflow_ids AS text[])) AS r (run_id, workflow_id)
    ORDER BY r.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET {reopen("track", workflow_id="excluded.workflow_id", priority="0")}
    WHERE l.removed_at IS NULL AND (l.workflow_id = excluded.workflow_id OR {ONLY_REQUESTED})
    RETURNING l.run_id, xmax = 0 AS inserted
""")

_OWNED = text(f"""
    SELECT l.run_id, l.workflow_id, l.removed_at IS NOT NULL AS removed,
           {ONLY_REQUESTED} AS only_requested
    FROM orchestra_etl.run_ledger AS l
    WHERE l.run_id = ANY (CAST(:ids AS text[]))
""")

_TAKE = text("""
    DELETE FROM orchestra.run_requests
    WHERE id IN (SELECT id FROM orchestra.run_requests ORDER BY id LIMIT :limit)
    RETURNING id, run_id, workflow_id
""")


_FORGET_RUNS = text(f"""
    DELETE FROM orchestra_etl.run_ledger
    WHERE run_id IN (
        SELECT l.run_id
        FROM orchestra_etl.run_ledger AS l
        WHERE l.workflow_id = :workflow_id
          AND (CAST(:ids AS text[]) IS NULL OR l.run_id = ANY (CAST(:ids AS text[])))
          AND {ONLY_REQUESTED}
        ORDER BY l.run_id
        FOR UPDATE OF l
    )
    RETURNING run_id
""")

# Runs whose responses contained no steps have rows, too.
_FORGET_EMPTY = text("DELETE FROM orchestra.runs WHERE id = ANY (CAST(:forgotten AS text[]))")

_FORGET_REQUESTS = text("""
    DELETE FROM orchestra.run_requests
    WHERE workflow_id = :workflow_id
      AND (CAST(:ids AS text[]) IS NULL OR run_id = ANY (CAST(:ids AS text[])))
""")

# The dead letters of the forgotten runs, and those of conflicting runs that were only
# requested: their body is a JSON string.
_FORGET_LETTERS = text("""
    DELETE FROM orchestra_etl.dead_letters
    WHERE workflow_id = :workflow_id
      AND (run_id = ANY (CAST(:forgotten AS text[]))
           OR (reason = 'id_conflict' AND step_id IS NULL
               AND substring(body FROM 1 FOR 1) = CAST('"' AS bytea)
               AND (CAST(:ids AS text[]) IS NULL OR run_id = ANY (CAST(:ids AS text[])))))
""")

_IS_KNOWN = text(f"""
    SELECT EXISTS (SELECT FROM orchestra_etl.run_ledger AS l
                   WHERE l.run_id = ANY (CAST(:ids AS text[]))
                     AND l.workflow_id = :workflow_id AND NOT {ONLY_REQUESTED})
""")


class Conflict(msgspec.Struct, frozen=True):
    """A run that cannot be stored because another workflow has a run with the same id."""

    workflow_id: str
    run_id: str
    owner: str
    """The workflow whose run is stored."""
    body: bytes
    """The bytes that the dead letter keeps: the run's list row, or the requested run id as JSON."""


class TrackReport(msgspec.Struct, frozen=True):
    """The effect of a request to track runs."""

    new: int
    """Runs that were not in the ledger."""
    known: int = 0
    """Runs that were already in the ledger, and are read again."""
    removed: int = 0
    """Erased or pruned runs: they stay removed."""
    conflicts: tuple[Conflict, ...] = ()
    """Runs that the API has shown under another workflow: they stay there."""


class TakenRequests(msgspec.Struct, frozen=True):
    """The requests that `take_queue` took out of the queue."""

    requests: int
    """Number of requests."""
    tracked: TrackReport
    unusable: tuple[tuple[str, bytes], ...] = ()
    """Workflow and run (as JSON) of requests with an id that cannot be part of an API request."""


class UntrackReport(msgspec.Struct, frozen=True):
    """What `forget` removed."""

    runs: int
    requests: int
    """Requests that still waited in the queue."""
    dead_letters: int
    """Dead letters of these runs."""


def register(connection: Connection, workflow_id: str, run_ids: Sequence[str]) -> TrackReport:
    """Enter the runs that the configuration names.

    A run that this workflow already has is not reopened: every start names the same runs again.
    """
    wanted = sorted(set(run_ids))
    rows = connection.execute(_REGISTER, {"workflow_id": workflow_id, "ids": wanted}).all()
    _, conflicts = _removed_and_conflicting(
        connection, [(run_id, workflow_id) for run_id in wanted]
    )
    return TrackReport(sum(row.inserted for row in rows), conflicts=conflicts)


def track(
    connection: Connection, workflow_id: str, run_ids: Sequence[str], *, source: str = "track"
) -> TrackReport:
    """Request a read of these runs now; known runs are read again."""
    return _track(connection, dict.fromkeys(run_ids, workflow_id), source)


def take_queue(connection: Connection) -> TakenRequests:
    """Move at most `BATCH` requests, oldest first, from `orchestra.run_requests` into the ledger.

    If two requests name the same run, the later request counts.
    """
    rows = sorted(connection.execute(_TAKE, {"limit": BATCH}).all())
    usable = {
        row.run_id: row.workflow_id
        for row in rows
        if _usable(row.run_id) and _usable(row.workflow_id)
    }
    unusable = [row for row in rows if not (_usable(row.run_id) and _usable(row.workflow_id))]
    return TakenRequests(
        len(rows),
        _track(connection, usable, "request"),
        tuple((row.workflow_id, _as_json(row.run_id)) for row in unusable),
    )


def forget(
    connection: Connection, workflow_id: str, run_ids: Sequence[str] | None
) -> UntrackReport:
    """Forget runs that are only requested under this workflow (None: all such runs).

    Their requests and dead letters are deleted, too. A run that the API has shown under the
    workflow is never forgotten.
    """
    wanted = {"workflow_id": workflow_id, "ids": None if run_ids is None else list(run_ids)}
    forgotten = list(connection.execute(_FORGET_RUNS, wanted).scalars())
    connection.execute(_FORGET_EMPTY, {"forgotten": forgotten})
    return UntrackReport(
        len(forgotten),
        connection.execute(_FORGET_REQUESTS, wanted).rowcount,
        connection.execute(_FORGET_LETTERS, {**wanted, "forgotten": forgotten}).rowcount,
    )


def are_history(connection: Connection, workflow_id: str, run_ids: Sequence[str]) -> bool:
    """Return whether the API has shown at least one of these runs under this workflow."""
    return bool(
        connection.execute(
            _IS_KNOWN, {"workflow_id": workflow_id, "ids": list(run_ids)}
        ).scalar_one()
    )


def _track(connection: Connection, wanted: dict[str, str], source: str) -> TrackReport:
    """Track runs; `wanted` maps run ids to workflow ids."""
    if not wanted:
        return TrackReport(0)
    parameters = {"ids": list(wanted), "workflow_ids": list(wanted.values()), "source": source}
    rows = connection.execute(_TRACK, parameters).all()
    new = sum(row.inserted for row in rows)
    taken = {row.run_id for row in rows}
    removed, conflicts = _removed_and_conflicting(
        connection, [one for one in wanted.items() if one[0] not in taken]
    )
    return TrackReport(new, len(rows) - new, removed, conflicts)


def _removed_and_conflicting(
    connection: Connection, wanted: Sequence[tuple[str, str]]
) -> tuple[int, tuple[Conflict, ...]]:
    """Return how many of these runs are removed, and those that belong to another workflow."""
    if not wanted:
        return 0, ()
    rows = connection.execute(_OWNED, {"ids": [run_id for run_id, _ in wanted]}).all()
    owners = {row.run_id: row for row in rows}
    found = [
        (run_id, workflow_id, owners[run_id]) for run_id, workflow_id in wanted if run_id in owners
    ]
    return sum(row.removed for *_, row in found), tuple(
        Conflict(workflow_id, run_id, row.workflow_id, _as_json(run_id))
        for run_id, workflow_id, row in found
        if not row.removed and not row.only_requested and row.workflow_id != workflow_id
    )


def _usable(id: str) -> bool:
    try:
        clean_id(id)
    except ValueError:
        return False
    return True


def _as_json(run_id: str) -> bytes:
    return json.dumps(run_id).encode()


_REREAD = text(f"""
    WITH wanted AS (
        SELECT l.run_id
        FROM orchestra_etl.run_ledger AS l
        WHERE l.workflow_id = ANY (CAST(:workflow_ids AS text[]))
          AND l.tracking = 'final'
          AND (CAST(:since AS timestamptz) IS NULL OR l.start_time >= CAST(:since AS timestamptz))
          AND (CAST(:until AS timestamptz) IS NULL OR l.start_time < CAST(:until AS timestamptz))
        ORDER BY l.run_id
        FOR UPDATE OF l
    )
    UPDATE orchestra_etl.run_ledger AS l
    SET {reopen("reread", priority="1")}
    FROM wanted WHERE l.run_id = wanted.run_id
""")


def reread(
    connection: Connection,
    workflow_ids: Sequence[str],
    *,
    since: datetime | None,
    until: datetime | None,
) -> int:
    """Request a new read of final runs at backfill priority; return how many.

    Args:
        connection: in a transaction.
        workflow_ids: the workflows of the runs.
        since: only runs that started at this time or later, according to the run list; None: all.
        until: only runs that started before this time, according to the run list; None: all.
    """
    wanted = {"workflow_ids": list(workflow_ids), "since": since, "until": until}
    # The statement takes 10 µs a run: some millions of runs exceed statement_timeout.
    allow_long(connection)
    return connection.execute(_REREAD, wanted).rowcount

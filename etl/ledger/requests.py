"""Runs that enter the ledger by name: from the configuration, by `track`, by the queue `orchestra.run_requests`.

A name is a claim, and the API decides. A run belongs to a workflow once the API has shown it there,
in the list or by its steps, and no claim moves it from then on. Until then it is only asked for,
and a later claim may name another workflow.
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

# Requests in one transaction: whoever may insert into the queue can insert millions.
BATCH = 10_000

_NO_STEPS = hashlib.blake2b(digest_size=16).hexdigest()
"""The digest of an answer that holds no step, as a load enters it."""

# The ledger's own columns come first: where a load of the run has been waited for, only they are
# seen as it has left them.
ASKED_FOR = f"""(l.listed_at IS NULL AND l.removed_at IS NULL AND l.run_observed_at IS NULL
        AND (l.steps_observed_at IS NULL OR l.read_digest = decode('{_NO_STEPS}', 'hex'))
        AND NOT EXISTS (SELECT FROM orchestra.steps AS s WHERE s.run_id = l.run_id)
        AND NOT EXISTS (SELECT FROM orchestra.runs AS r WHERE r.id = l.run_id AND r.status_source = 'api'))"""
"""The condition by which a row `l` of the ledger is only asked for: the API has not shown the run under its workflow.

An empty answer shows nothing: there are servers that give one for any id.
"""

# As long as the API answers 404 under the one workflow, the run may be the other's that names it,
# too.
_REGISTER = text(f"""
    INSERT INTO orchestra_etl.run_ledger AS l (run_id, workflow_id, source)
    SELECT r.run_id, :workflow_id, 'config'
    FROM unnest(CAST(:ids AS text[])) AS r (run_id)
    ORDER BY r.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET {reopen(workflow_id="excluded.workflow_id", source="excluded.source")}
    WHERE l.workflow_id <> excluded.workflow_id AND {ASKED_FOR} AND l.tracking = 'open' AND l.not_found_since IS NOT NULL
    RETURNING xmax = 0 AS inserted
""")

# A run that is known is reopened. A tombstone stays one.
_TRACK = text(f"""
    INSERT INTO orchestra_etl.run_ledger AS l (run_id, workflow_id, source)
    SELECT r.run_id, r.workflow_id, :source
    FROM unnest(CAST(:ids AS text[]), CAST(:workflow_ids AS text[])) AS r (run_id, workflow_id)
    ORDER BY r.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET {reopen(workflow_id="excluded.workflow_id", priority="0")}
    WHERE l.removed_at IS NULL AND (l.workflow_id = excluded.workflow_id OR {ASKED_FOR})
    RETURNING l.run_id, xmax = 0 AS inserted
""")

_OWNED = text(f"""
    SELECT l.run_id, l.workflow_id, l.removed_at IS NOT NULL AS removed, {ASKED_FOR} AS asked_for
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
        WHERE l.workflow_id = :workflow_id AND (CAST(:ids AS text[]) IS NULL OR l.run_id = ANY (CAST(:ids AS text[])))
          AND {ASKED_FOR}
        ORDER BY l.run_id
        FOR UPDATE OF l
    )
    RETURNING run_id
""")

# Of a run that was answered with nothing.
_FORGET_EMPTY = text("DELETE FROM orchestra.runs WHERE id = ANY (CAST(:forgotten AS text[]))")

_FORGET_REQUESTS = text("""
    DELETE FROM orchestra.run_requests
    WHERE workflow_id = :workflow_id AND (CAST(:ids AS text[]) IS NULL OR run_id = ANY (CAST(:ids AS text[])))
""")

# What was set aside of runs that are forgotten, and what conflicts with a run and was only asked
# for: its body is a JSON string.
_FORGET_LETTERS = text("""
    DELETE FROM orchestra_etl.dead_letters
    WHERE workflow_id = :workflow_id
      AND (run_id = ANY (CAST(:forgotten AS text[]))
           OR (reason = 'id_conflict' AND step_id IS NULL AND substring(body FROM 1 FOR 1) = CAST('"' AS bytea)
               AND (CAST(:ids AS text[]) IS NULL OR run_id = ANY (CAST(:ids AS text[])))))
""")

_IS_KNOWN = text(f"""
    SELECT EXISTS (SELECT FROM orchestra_etl.run_ledger AS l WHERE l.run_id = ANY (CAST(:ids AS text[]))
                     AND l.workflow_id = :workflow_id AND NOT {ASKED_FOR})
""")


class Conflict(msgspec.Struct, frozen=True):
    """A run that cannot be stored because another workflow has one of its id."""

    workflow_id: str
    run_id: str
    owner: str
    """The workflow that has it."""
    body: bytes
    """What is kept of the run: its row of the list, or what was asked for."""


class TrackReport(msgspec.Struct, frozen=True):
    """What became of the runs that were asked for."""

    new: int
    known: int = 0
    """Known before, and read again."""
    removed: int = 0
    """Erased or pruned: they stay so."""
    conflicts: tuple[Conflict, ...] = ()
    """Runs that the API has shown under another workflow: they stay there."""


class TakenRequests(msgspec.Struct, frozen=True):
    """What was taken out of the queue."""

    requests: int
    tracked: TrackReport
    unusable: tuple[tuple[str, bytes], ...] = ()
    """Of requests that name what can be no id in a request to the API: the workflow, and what was asked for."""


class UntrackReport(msgspec.Struct, frozen=True):
    """What was only asked for and is so no longer."""

    runs: int
    requests: int
    """Requests that still waited in the queue."""
    dead_letters: int
    """What had been set aside of these runs."""


def register(connection: Connection, workflow_id: str, run_ids: Sequence[str]) -> TrackReport:
    """Enter runs that the configuration names; naming a known run again, as every start does, asks for nothing."""
    wanted = sorted(set(run_ids))
    rows = connection.execute(_REGISTER, {"workflow_id": workflow_id, "ids": wanted}).all()
    _, conflicts = _not_ours(connection, [(run_id, workflow_id) for run_id in wanted])
    return TrackReport(sum(row.inserted for row in rows), conflicts=conflicts)


def track(
    connection: Connection, workflow_id: str, run_ids: Sequence[str], *, source: str = "track"
) -> TrackReport:
    """Have runs read now, again where they are known."""
    return _track(connection, dict.fromkeys(run_ids, workflow_id), source)


def take_queue(connection: Connection) -> TakenRequests:
    """Move the oldest requests from `orchestra.run_requests` into the ledger, at most `BATCH` of them.

    Of two requests for a run the later one counts.
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
        tuple((row.workflow_id, _named(row.run_id)) for row in unusable),
    )


def forget(
    connection: Connection, workflow_id: str, run_ids: Sequence[str] | None
) -> UntrackReport:
    """Forget runs that were only asked for under this workflow (None: all of them); never what the API has shown there."""
    wanted = {"workflow_id": workflow_id, "ids": None if run_ids is None else list(run_ids)}
    forgotten = list(connection.execute(_FORGET_RUNS, wanted).scalars())
    connection.execute(_FORGET_EMPTY, {"forgotten": forgotten})
    return UntrackReport(
        len(forgotten),
        connection.execute(_FORGET_REQUESTS, wanted).rowcount,
        connection.execute(_FORGET_LETTERS, {**wanted, "forgotten": forgotten}).rowcount,
    )


def are_history(connection: Connection, workflow_id: str, run_ids: Sequence[str]) -> bool:
    """Whether the API has shown one of these runs under this workflow."""
    return bool(
        connection.execute(
            _IS_KNOWN, {"workflow_id": workflow_id, "ids": list(run_ids)}
        ).scalar_one()
    )


def _track(connection: Connection, wanted: dict[str, str], source: str) -> TrackReport:
    """`wanted`: workflows by run."""
    if not wanted:
        return TrackReport(0)
    parameters = {"ids": list(wanted), "workflow_ids": list(wanted.values()), "source": source}
    rows = connection.execute(_TRACK, parameters).all()
    new = sum(row.inserted for row in rows)
    taken = {row.run_id for row in rows}
    removed, conflicts = _not_ours(
        connection, [one for one in wanted.items() if one[0] not in taken]
    )
    return TrackReport(new, len(rows) - new, removed, conflicts)


def _not_ours(
    connection: Connection, wanted: Sequence[tuple[str, str]]
) -> tuple[int, tuple[Conflict, ...]]:
    """Of these runs and workflows: how many are removed, and which belong to another workflow."""
    if not wanted:
        return 0, ()
    rows = connection.execute(_OWNED, {"ids": [run_id for run_id, _ in wanted]}).all()
    owners = {row.run_id: row for row in rows}
    found = [
        (run_id, workflow_id, owners[run_id]) for run_id, workflow_id in wanted if run_id in owners
    ]
    return sum(row.removed for *_, row in found), tuple(
        Conflict(workflow_id, run_id, row.workflow_id, _named(run_id))
        for run_id, workflow_id, row in found
        if not row.removed and not row.asked_for and row.workflow_id != workflow_id
    )


def _usable(id: str) -> bool:
    try:
        clean_id(id)
    except ValueError:
        return False
    return True


def _named(run_id: str) -> bytes:
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
    SET {reopen(priority="1")}
    FROM wanted WHERE l.run_id = wanted.run_id
""")


def reread(
    connection: Connection,
    workflow_ids: Sequence[str],
    *,
    since: datetime | None,
    until: datetime | None,
) -> int:
    """Have final runs of these workflows read again at low priority; how many."""
    wanted = {"workflow_ids": list(workflow_ids), "since": since, "until": until}
    # 10 µs a run: longer than statement_timeout from some millions on.
    allow_long(connection)
    return connection.execute(_REREAD, wanted).rowcount

"""Claims on due runs, and the settlements with which polls consume them.

The invariant: every request for a newer read of a run raises its fencing token and clears its
lease. A load is accepted only if the claim's token is still current and its lease is not cleared.
So once a newer read has been requested, no earlier response can be loaded. An expired lease does
not prevent a load: if another process had claimed the run since, the token would have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from etl.ledger.clock_set_back import AHEAD
from etl.ledger.lifecycle import KnownRun, Tracking


class Claim(msgspec.Struct, frozen=True):
    """A run that this process may read, and load until the run's fencing token changes.

    No other process claims the run before the lease ends.
    """

    run_id: str
    workflow_id: str
    token: int
    claimed_at: datetime
    """Database time of the claim."""
    listing: bytes | None
    """The run's row from the list; None if it is already loaded."""
    listed_at: datetime | None
    """Database time at which the page with this row was requested."""
    run_observed_at: datetime | None
    run_state: str | None
    run_end_time: datetime | None
    not_found_since: datetime | None
    """Since when the API returns 404 for the steps; None: the last read found no 404."""
    known: KnownRun


class Settlement(msgspec.Struct, frozen=True):
    """The result of a poll, to be written to the ledger; writing it consumes the claim.

    The ledger keeps its stored value where `steps_observed_at`, `read_digest`, `run_observed_at` or
    `listing_hash` is None. If `run_observed_at` is None, it also keeps the run's state and end.
    """

    run_id: str
    tracking: Tracking
    due_in: float | None
    """Seconds from now until the next poll; None: no further poll unless one is requested."""
    checks: int = 0
    attempts: int = 0
    last_error: str | None = None
    not_found_since: datetime | None = None
    steps_observed_at: datetime | None = None
    read_digest: bytes | None = None
    run_observed_at: datetime | None = None
    run_state: str | None = None
    run_end_time: datetime | None = None
    listing_hash: bytes | None = None
    listing_loaded: bool = False
    """Whether the ledger may drop the run's row from the list, because it is loaded."""


_IS_DUE = """due_at <= LEAST(now(), CAST(:cutoff AS timestamptz))
          AND (CAST(:workflows AS text[]) IS NULL OR workflow_id = ANY (CAST(:workflows AS text[])))
          AND NOT workflow_id = ANY (CAST(:except_workflows AS text[]))
          AND (CAST(:since AS timestamptz) IS NULL OR start_time >= CAST(:since AS timestamptz))
          AND (CAST(:until AS timestamptz) IS NULL OR start_time < CAST(:until AS timestamptz))
          AND (CAST(:listed_since AS timestamptz) IS NULL
               OR listed_at >= CAST(:listed_since AS timestamptz))"""

# A lease that ends later than any lease can shows that the clock was set back.
_CLAIM = text(f"""
    WITH due AS (
        SELECT run_id
        FROM orchestra_etl.run_ledger
        WHERE {_IS_DUE}
          AND ((leased_until IS NULL OR leased_until < now())
               OR leased_until > {AHEAD} + make_interval(secs => :lease))
        ORDER BY priority, due_at
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE orchestra_etl.run_ledger AS l
    SET fencing_token = l.fencing_token + 1,
        leased_until = now() + make_interval(secs => :lease)
    FROM due
    WHERE l.run_id = due.run_id
    RETURNING l.run_id, l.workflow_id, l.fencing_token, now() AS claimed_at, l.listing, l.listed_at,
              l.run_observed_at, l.run_state, l.run_end_time, l.not_found_since, l.opened_at,
              l.read_digest, l.checks, l.attempts, l.steps_observed_at, l.priority, l.due_at,
              l.tracking
""")

_PENDING = text(f"""
    SELECT count(*) AS due,
           count(*) FILTER (WHERE leased_until >= now()) AS leased,
           EXTRACT(epoch FROM min(leased_until) FILTER (WHERE leased_until >= now()) - now()
                  ) AS next_expiry
    FROM orchestra_etl.run_ledger
    WHERE {_IS_DUE}
""")

# In key order: two writers that lock the same rows in the same order cannot deadlock.
_LOCK = text("""
    SELECT l.run_id, held.token
    FROM orchestra_etl.run_ledger AS l
    JOIN unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[])) AS held (run_id, token)
      ON l.run_id = held.run_id COLLATE "C"
    WHERE l.fencing_token = held.token AND l.leased_until IS NOT NULL
    ORDER BY l.run_id
    FOR UPDATE OF l
""")

# The rows of claims that are still valid. A renewal skips rows that a load has locked, because the
# load consumes these claims.
_VALID = """
        SELECT mine.run_id
        FROM orchestra_etl.run_ledger AS mine
        JOIN unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[])) AS held (run_id, token)
          ON mine.run_id = held.run_id COLLATE "C"
        WHERE mine.fencing_token = held.token AND mine.leased_until IS NOT NULL
        ORDER BY mine.run_id
        FOR UPDATE OF mine"""

_RENEW = text(f"""
    UPDATE orchestra_etl.run_ledger AS l
    SET leased_until = now() + make_interval(secs => :lease)
    FROM ({_VALID} SKIP LOCKED) AS renewed
    WHERE l.run_id = renewed.run_id
""")

_RELEASE = text(f"""
    UPDATE orchestra_etl.run_ledger AS l
    SET leased_until = NULL
    FROM ({_VALID}) AS released
    WHERE l.run_id = released.run_id
""")

# An observation time in the future, from a worker whose clock has jumped, is stored as now:
# otherwise the ledger would ignore what the lists show until that time. The settlements are one
# JSON value, because the driver takes four times as long to write fourteen arrays.
_SETTLE = text("""
    UPDATE orchestra_etl.run_ledger AS l
    SET tracking = s.tracking,
        due_at = now() + make_interval(secs => s.due_in),
        opened_at = LEAST(l.opened_at, now()),
        leased_until = NULL,
        checks = s.checks,
        attempts = s.attempts,
        last_error = s.last_error,
        not_found_since = s.not_found_since,
        steps_observed_at = CASE WHEN s.steps_observed_at > now() THEN now()
                                 ELSE COALESCE(s.steps_observed_at, l.steps_observed_at) END,
        read_digest = COALESCE(decode(s.read_digest, 'base64'), l.read_digest),
        run_observed_at = CASE WHEN s.run_observed_at > now() THEN now()
                               ELSE COALESCE(s.run_observed_at, l.run_observed_at) END,
        run_state = CASE WHEN s.run_observed_at IS NULL THEN l.run_state ELSE s.run_state END,
        run_end_time = CASE WHEN s.run_observed_at IS NULL THEN l.run_end_time
                            ELSE s.run_end_time END,
        listing_hash = COALESCE(decode(s.listing_hash, 'base64'), l.listing_hash),
        listing = CASE WHEN s.listing_loaded THEN NULL ELSE l.listing END
    FROM json_to_recordset(CAST(:settlements AS json)) AS s (
        run_id text, tracking text, due_in double precision, checks int, attempts int,
        last_error text, not_found_since timestamptz, steps_observed_at timestamptz,
        read_digest text, run_observed_at timestamptz, run_state text, run_end_time timestamptz,
        listing_hash text, listing_loaded boolean
    )
    WHERE l.run_id = s.run_id COLLATE "C" AND l.removed_at IS NULL
""")

# A 404 means that the run is gone only if the workflow otherwise responds. The proof is a complete
# walk of its whole list, or, for a workflow whose list is not walked, a read of another of its
# runs. Either must have begun after the first 404 and after a page last listed the run.
_VANISHED = text("""
    SELECT l.run_id
    FROM orchestra_etl.run_ledger AS l
    LEFT JOIN orchestra_etl.sweeps AS s ON s.workflow_id = l.workflow_id
    WHERE l.run_id = ANY (CAST(:ids AS text[]))
      AND l.not_found_since < now() - make_interval(secs => :gone_after)
      AND (s.reconciled_at > GREATEST(l.not_found_since, l.listed_at)
           OR (s.reconciled_at IS NULL
               AND (l.listed_at IS NULL OR l.listed_at < l.not_found_since)
               AND EXISTS (
                   SELECT FROM orchestra_etl.run_ledger AS other
                   WHERE other.workflow_id = l.workflow_id
                     AND other.steps_observed_at > l.not_found_since)))
""")


class DueFilter(msgspec.Struct, frozen=True):
    """A filter for due runs; the default selects all of them."""

    cutoff: datetime | None = None
    """Only runs due at or before this database time."""
    workflows: tuple[str, ...] | None = None
    """Only runs of these workflows; None: of all."""
    except_workflows: tuple[str, ...] = ()
    """Leave out the runs of these workflows."""
    since: datetime | None = None
    """Only runs that started at this time or later, according to the run list."""
    until: datetime | None = None
    """Only runs that started before this time, according to the run list."""
    listed_since: datetime | None = None
    """Only runs listed by a page that was requested at this database time or later."""


ALL_DUE = DueFilter()


class Pending(msgspec.Struct, frozen=True):
    """Numbers of the due runs that a `DueFilter` selects."""

    due: int
    leased: int
    """How many of them are claimed, by a running process or by a crashed one."""
    next_expiry: float | None
    """Seconds until the first of those leases ends; None: no due run is claimed."""


def claim(
    connection: Connection,
    *,
    limit: int,
    lease: float,
    among: DueFilter = ALL_DUE,
) -> list[Claim]:
    """Claim up to `limit` due runs for `lease` seconds, live runs before backfill.

    Args:
        connection: in a transaction.
        limit: maximum number of claims.
        lease: seconds.
        among: the due runs that may be claimed.
    """
    rows = connection.execute(_CLAIM, {"limit": limit, "lease": lease, **_parameters(among)}).all()
    return [
        Claim(
            run_id=row.run_id,
            workflow_id=row.workflow_id,
            token=row.fencing_token,
            claimed_at=row.claimed_at,
            listing=None if row.listing is None else bytes(row.listing),
            listed_at=row.listed_at,
            run_observed_at=row.run_observed_at,
            run_state=row.run_state,
            run_end_time=row.run_end_time,
            not_found_since=row.not_found_since,
            known=KnownRun(
                opened_at=row.opened_at,
                listed=row.listed_at is not None,
                read_digest=None if row.read_digest is None else bytes(row.read_digest),
                checks=row.checks,
                attempts=row.attempts,
                steps_observed_at=row.steps_observed_at,
                tracking=row.tracking,
            ),
        )
        for row in sorted(rows, key=lambda row: (row.priority, row.due_at))
    ]


def pending(connection: Connection, among: DueFilter = ALL_DUE) -> Pending:
    """Count the due runs, including the claimed ones."""
    row = connection.execute(_PENDING, _parameters(among)).one()
    return Pending(row.due, row.leased, None if row.next_expiry is None else float(row.next_expiry))


def lock(connection: Connection, claims: Sequence[Claim]) -> list[bool]:
    """Lock the claimed rows in key order; return for each claim whether it is still valid.

    Of two claims of one run, at most one is valid.
    """
    valid = {(row.run_id, row.token) for row in connection.execute(_LOCK, _held(claims))}
    return [(one.run_id, one.token) in valid for one in claims]


def renew(connection: Connection, claims: Sequence[Claim], *, lease: float) -> None:
    """Extend the leases of valid claims; skip rows that a load has locked, which need no lease."""
    connection.execute(_RENEW, {**_held(claims), "lease": lease})


def release(connection: Connection, claims: Sequence[Claim]) -> None:
    """Release claims without reading their runs: the runs stay due."""
    connection.execute(_RELEASE, _held(claims))


def settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
    """Write the settlements to the ledger, and consume the claims.

    `lock` must have locked the rows in this transaction.
    """
    connection.execute(_SETTLE, {"settlements": msgspec.json.encode(settlements).decode()})


def vanished(connection: Connection, run_ids: Sequence[str], *, gone_after: float) -> set[str]:
    """Return those of these runs, all with a 404 response, that are gone (see `_VANISHED`).

    Args:
        connection: in a transaction.
        run_ids: runs for which the API has just returned 404.
        gone_after: seconds for which the API must have returned 404.
    """
    rows = connection.execute(_VANISHED, {"ids": list(run_ids), "gone_after": gone_after})
    return {row.run_id for row in rows}


def _parameters(among: DueFilter) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(among),
        "workflows": None if among.workflows is None else list(among.workflows),
        "except_workflows": list(among.except_workflows),
    }


def _held(claims: Sequence[Claim]) -> dict[str, list[str] | list[int]]:
    return {"ids": [claim.run_id for claim in claims], "tokens": [claim.token for claim in claims]}

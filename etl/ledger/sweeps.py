"""Sweeps: who may walk a workflow's run list, what the walk listed, and the watermark.

The watermark is the set of runs that *complete* sweeps have listed. Two numbers represent it: each
ledger row stores the number of the sweep that listed it, and `sweeps.watermark` is the number of
the last complete sweep. An interrupted sweep leaves rows with its own number above the watermark.
They are in the ledger and are polled, but no later walk takes them as proof that the list below
them is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate

import msgspec
from sqlalchemy import Connection, text

from etl.ledger import conflicts, gaps, repairs
from etl.ledger.clock_set_back import AHEAD
from etl.ledger.reopening import reopen
from etl.ledger.requests import ONLY_REQUESTED
from etl.records import ListedRun


class Sweep(msgspec.Struct, frozen=True):
    """The right to walk one workflow's list until the lease ends or another sweep begins."""

    workflow_id: str
    token: int
    begun_at: datetime
    """Database time."""
    watermark_size: int
    """Number of runs in the watermark, counted up to `count_to`."""
    last_complete: datetime | None
    """When the last complete sweep ended; None: no sweep has completed."""
    reconciled_at: datetime | None
    """When the last full walk began; None: there was none."""


class SweepSuperseded(Exception):
    """Another sweep of this workflow has begun: this sweep must stop and write nothing."""


# A lease that ends later than any lease can shows that the clock was set back.
_BEGIN = text(f"""
    INSERT INTO orchestra_etl.sweeps AS s (workflow_id, fencing_token, leased_until, started_at)
    VALUES (:workflow_id, 1, now() + make_interval(secs => :lease), now())
    ON CONFLICT (workflow_id) DO UPDATE
    SET fencing_token = s.fencing_token + 1,
        leased_until = excluded.leased_until,
        started_at = excluded.started_at
    WHERE s.leased_until IS NULL OR s.leased_until < now()
       OR s.leased_until > {AHEAD} + make_interval(secs => :lease)
    RETURNING fencing_token, watermark, now() AS begun_at, swept_at, reconciled_at
""")

_WATERMARK_SIZE = text("""
    SELECT count(*) FROM (
        SELECT FROM orchestra_etl.run_ledger
        WHERE workflow_id = :workflow_id AND listed_sweep <= :watermark
        LIMIT :count_to
    ) AS members
""")

# A horizon later than now shows that the clock was set back.
_HOLD = text("""
    UPDATE orchestra_etl.sweeps
    SET leased_until = now() + make_interval(secs => :lease)
    WHERE workflow_id = :workflow_id AND fencing_token = :token AND leased_until IS NOT NULL
    RETURNING watermark, list_problem,
              (SELECT run_horizon FROM orchestra_etl.retention
               WHERE run_horizon <= now()) AS run_horizon
""")

# No two sweeps of a workflow share a number: only this sweep can have made its number the
# watermark.
_IS_COMPLETE = text(
    "SELECT watermark = :token FROM orchestra_etl.sweeps WHERE workflow_id = :workflow_id"
)

_MEMBERS = text("""
    SELECT l.run_id
    FROM orchestra_etl.run_ledger AS l
    JOIN orchestra_etl.sweeps AS s ON s.workflow_id = l.workflow_id
    WHERE l.run_id = ANY (CAST(:ids AS text[]))
      AND l.workflow_id = :workflow_id
      AND l.listed_sweep <= s.watermark
    UNION ALL
    -- A conflicting run that was recorded before the last complete sweep ended is known as well.
    SELECT d.run_id
    FROM orchestra_etl.dead_letters AS d
    JOIN orchestra_etl.sweeps AS s ON s.workflow_id = d.workflow_id
    WHERE d.run_id = ANY (CAST(:ids AS text[]))
      AND d.workflow_id = :workflow_id
      AND d.reason = 'id_conflict' AND d.step_id IS NULL AND d.first_seen_at <= s.swept_at
""")

# The run was read before the clock was set back.
_READ_AHEAD = f"COALESCE(l.run_observed_at > {AHEAD}, false)"

# A page requests a newer read of a run in three cases: the run's row differs from the one last
# seen, and the page was requested after the run's own row was last read; or the run counted as
# gone; or the run belonged to another workflow. A tombstone is never read again: the page records
# only that it is still listed, so that the walk can tell known rows from new ones.
_NEEDS_READ = f"""(l.removed_at IS NULL AND (
        l.tracking = 'gone' OR l.workflow_id <> excluded.workflow_id OR (
            l.listing_hash IS DISTINCT FROM excluded.listing_hash
            AND (excluded.listed_at > COALESCE(l.run_observed_at, '-infinity')
                 OR {_READ_AHEAD}))))"""


# A run with 404 responses is recorded as listed even if its row has not changed: it is not gone. A
# run that is only requested under another workflow moves to the workflow that lists it. A run that
# was read under another workflow stays there, unless the listed row equals its own row: then the
# server ignores the workflow in a request for a run, and the list decides. A run that another
# workflow has listed stays there.
_WRITE = text(f"""
    INSERT INTO orchestra_etl.run_ledger AS l
        (run_id, workflow_id, source, listing, listing_hash, start_time, listed_at, listed_sweep,
         priority)
    SELECT p.run_id, :workflow_id, 'list',
           substring(CAST(:listings AS bytea) FROM p.first FOR p.size), p.listing_hash,
           p.start_time, LEAST(CAST(:requested_at AS timestamptz), now()),
           :token, :priority
    FROM unnest(CAST(:ids AS text[]), CAST(:firsts AS int[]), CAST(:sizes AS int[]),
                CAST(:hashes AS bytea[]), CAST(:starts AS timestamptz[])
               ) AS p (run_id, first, size, listing_hash, start_time)
    ORDER BY p.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET {
    reopen(
        "list",
        when=_NEEDS_READ,
        listing="excluded.listing",
        listing_hash="excluded.listing_hash",
        start_time="excluded.start_time",
    )
},
        workflow_id = excluded.workflow_id,
        listed_at = excluded.listed_at,
        run_observed_at = CASE WHEN {_READ_AHEAD}
                               THEN excluded.listed_at - interval '1 microsecond'
                               ELSE l.run_observed_at END,
        priority = LEAST(l.priority, excluded.priority),
        listed_sweep = CASE WHEN l.listed_sweep <= :watermark THEN l.listed_sweep
                            ELSE excluded.listed_sweep END
    WHERE (l.workflow_id = excluded.workflow_id OR {ONLY_REQUESTED} OR (l.listed_at IS NULL AND (
               l.removed_at IS NOT NULL OR l.listing_hash = excluded.listing_hash)))
      AND ((l.removed_at IS NULL AND l.listing_hash IS DISTINCT FROM excluded.listing_hash)
           OR l.listed_sweep IS NULL OR l.listed_sweep > :watermark
           OR l.tracking = 'gone' OR l.not_found_since IS NOT NULL)
    RETURNING xmax = 0 AS inserted,
              leased_until IS NULL AND due_at IS NOT DISTINCT FROM now() AS reopened
""")

# Runs that ended before the run horizon, and that the ledger does not know yet, become tombstones.
_BURY = text("""
    INSERT INTO orchestra_etl.run_ledger
        (run_id, workflow_id, source, tracking, start_time, listed_at, listed_sweep, priority,
         due_at, removed_at)
    SELECT p.run_id, :workflow_id, 'list', 'pruned', p.start_time,
           CAST(:requested_at AS timestamptz), :token, :priority, NULL, now()
    FROM unnest(CAST(:ids AS text[]), CAST(:starts AS timestamptz[])) AS p (run_id, start_time)
    ORDER BY p.run_id COLLATE "C"
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id
""")

# An interrupted sweep leaves its number on rows that this sweep may not have listed again. Those
# rows do not belong to the watermark.
_FORGET_CUT_OFF = text("""
    UPDATE orchestra_etl.run_ledger
    SET listed_sweep = NULL
    WHERE workflow_id = :workflow_id AND listed_sweep > :watermark AND listed_sweep < :token
""")

_COMPLETE = text("""
    UPDATE orchestra_etl.sweeps
    SET watermark = fencing_token,
        leased_until = NULL,
        swept_at = now(),
        reconciled_at = CASE WHEN :whole_list THEN :begun_at ELSE reconciled_at END,
        listed_runs = CASE WHEN :to_the_end THEN :listed ELSE listed_runs END,
        known_runs = CASE WHEN :to_the_end
                          THEN (SELECT count(*) FROM orchestra_etl.run_ledger AS l
                                WHERE l.workflow_id = :workflow_id)
                               + (SELECT count(*) FROM orchestra_etl.dead_letters AS d
                                  WHERE d.workflow_id = :workflow_id AND d.reason = 'id_conflict'
                                    AND d.step_id IS NULL
                                    AND d.resolution IS DISTINCT FROM 'loaded')
                          ELSE known_runs END,
        repaired_runs = CASE WHEN :whole_list THEN :repaired ELSE repaired_runs END,
        new_runs = :new_runs,
        list_problem = CASE WHEN :to_the_end OR CAST(:problem AS text) IS NOT NULL THEN :problem
                            ELSE list_problem END,
        last_error = NULL
    WHERE workflow_id = :workflow_id AND fencing_token = :token
    RETURNING new_runs, listed_runs,
              COALESCE(known_runs > listed_runs, false) AS window_full
""")

_ABANDON = text("""
    UPDATE orchestra_etl.sweeps
    SET leased_until = NULL, last_error = COALESCE(:error, last_error)
    WHERE workflow_id = :workflow_id AND fencing_token = :token
""")

_COUNT_OTHERS = text("""
    SELECT count(*) FROM orchestra_etl.sweeps
    WHERE swept_at IS NOT NULL AND workflow_id <> ALL (CAST(:workflows AS text[]))
""")

_NEXT_EXPIRY = text("""
    SELECT EXTRACT(epoch FROM leased_until - now())
    FROM orchestra_etl.sweeps
    WHERE workflow_id = :workflow_id AND leased_until >= now()
""")


class PageReport(msgspec.Struct, frozen=True):
    """The changes that a page made in the ledger."""

    new: int
    changed: int
    repaired: int = 0
    """Runs that were read but are missing from the tables, and are read again."""
    problem_is_new: bool = False
    """Whether the completion's problem differs from the known one."""
    overrun: tuple[int, int] | None = None
    """New runs and listed runs, if the list is full and more than half of it was new; else None.

    With twice as many new runs between two sweeps, some would be missed.
    """
    dead_letters: int = 0
    """New dead letters for conflicting runs."""
    missed: bool = False
    """Whether the completion's gap is new."""


class SweepResult(msgspec.Struct, frozen=True):
    """The result of a complete sweep."""

    whole_list: bool
    """Whether the walk went beyond the watermark, to the list's end or to the walk's own limit."""
    to_the_end: bool
    """Whether the walk reached the list's end; False if the list is empty though runs are known."""
    listed: int
    """Number of rows listed."""
    new_runs: int
    """New runs on the pages before the last one."""
    gap: str | None = None
    """One sentence if rows may have been missed; None if not."""
    problem: str | None = None
    """How the list deviates from the API's description, in one line."""
    oldest_start: datetime | None = None
    """Start of the oldest run listed."""
    repaired: int = 0
    """Runs that earlier pages found missing from the tables."""


def begin(connection: Connection, workflow_id: str, *, lease: float, count_to: int) -> Sweep | None:
    """Begin a sweep, and return it; return None while another sweep holds the lease.

    Args:
        connection: in a transaction.
        workflow_id: the workflow of the list.
        lease: seconds.
        count_to: number up to which the runs of the watermark are counted.
    """
    row = connection.execute(_BEGIN, {"workflow_id": workflow_id, "lease": lease}).one_or_none()
    if row is None:
        return None
    size = connection.execute(
        _WATERMARK_SIZE,
        {"workflow_id": workflow_id, "watermark": row.watermark, "count_to": count_to},
    ).scalar_one()
    return Sweep(
        workflow_id=workflow_id,
        token=row.fencing_token,
        begun_at=row.begun_at,
        watermark_size=size,
        last_complete=row.swept_at,
        reconciled_at=row.reconciled_at,
    )


def lease_ends_in(connection: Connection, workflow_id: str) -> float | None:
    """Return the seconds until the lease of a running sweep ends; None if no sweep runs."""
    seconds = connection.execute(_NEXT_EXPIRY, {"workflow_id": workflow_id}).scalar_one_or_none()
    return None if seconds is None else float(seconds)


def count_others(connection: Connection, workflow_ids: Sequence[str]) -> int:
    """Return how many other workflows have ever had a complete sweep."""
    return int(connection.execute(_COUNT_OTHERS, {"workflows": list(workflow_ids)}).scalar_one())


def members(connection: Connection, sweep: Sweep, run_ids: Sequence[str]) -> set[str]:
    """Return those of these runs that belong to the watermark.

    The result can change only when this sweep completes.
    """
    rows = connection.execute(_MEMBERS, {"workflow_id": sweep.workflow_id, "ids": list(run_ids)})
    return {row.run_id for row in rows}


def write_page(
    connection: Connection,
    sweep: Sweep,
    runs: Sequence[ListedRun],
    *,
    requested_at: datetime,
    lease: float,
    priority: int,
    reconcile: bool = False,
    completion: SweepResult | None = None,
) -> PageReport:
    """Write a page to the ledger and, with the last page, move the watermark.

    Args:
        connection: in a transaction.
        sweep: the sweep; its lease is renewed.
        runs: the page's rows.
        requested_at: database time at which the page was requested.
        lease: seconds.
        priority: 0: live; 1: backfill.
        reconcile: whether to compare the page with the tables.
        completion: the result of the sweep, with its last page; None: the sweep is not complete.

    Raises:
        SweepSuperseded: another sweep has begun; nothing was written.
    """
    held = {"workflow_id": sweep.workflow_id, "token": sweep.token}
    own = connection.execute(_HOLD, {**held, "lease": lease}).one_or_none()
    if own is None:
        if completion is not None and connection.execute(_IS_COMPLETE, held).scalar_one_or_none():
            # The response to the COMMIT was lost, and this unit of work is repeated: it is already
            # done.
            return PageReport(0, 0, missed=completion.gap is not None)
        raise SweepSuperseded(sweep.workflow_id)
    watermark = own.watermark
    seen = {**held, "requested_at": requested_at, "priority": priority}
    buried = _bury(connection, [run for run in runs if _is_beyond(run, own.run_horizon)], seen)
    by_id = {run.id: run for run in runs if run.id not in buried}
    new = changed = repaired = conflicting = 0
    overrun, missed = None, False
    if by_id:
        listings = [run.listing for run in by_id.values()]
        sizes = [len(listing) for listing in listings]
        rows = connection.execute(
            _WRITE,
            {
                **seen,
                "ids": list(by_id),
                # One value and the offsets of its parts: the driver would escape an array of
                # listings byte by byte.
                "listings": b"".join(listings),
                "firsts": list(accumulate(sizes[:-1], initial=1)),
                "sizes": sizes,
                "hashes": [run.listing_hash for run in by_id.values()],
                "starts": [run.start_time for run in by_id.values()],
                "watermark": watermark,
            },
        ).all()
        new = sum(row.inserted for row in rows)
        changed = sum(row.reopened and not row.inserted for row in rows)
        # A run that this page has entered is neither missing nor another workflow's.
        if new < len(by_id):
            # A run that retention would not store is not lost, so it gets no dead letter.
            wanted = {
                run.id: run.listing
                for run in by_id.values()
                if not _is_beyond(run, own.run_horizon)
            }
            conflicting = conflicts.record_listed(
                connection, sweep.workflow_id, wanted, since=requested_at
            )
            if reconcile:
                repaired = repairs.request_reread(
                    connection, sweep.workflow_id, by_id, requested_at
                )
    new += len(buried)
    if completion is not None:
        if completion.gap is not None:
            missed = gaps.record(
                connection,
                sweep.workflow_id,
                watermark=watermark,
                before_time=completion.oldest_start,
                detail=completion.gap,
                is_empty=completion.listed == 0,
            )
        if sweep.token > watermark + 1:
            connection.execute(_FORGET_CUT_OFF, {**held, "watermark": watermark})
        completed = connection.execute(
            _COMPLETE,
            {
                **held,
                "begun_at": sweep.begun_at,
                "whole_list": completion.whole_list,
                "to_the_end": completion.to_the_end,
                "listed": completion.listed,
                "new_runs": completion.new_runs + new,
                "repaired": completion.repaired + repaired,
                "problem": completion.problem,
            },
        ).one()
        if completed.window_full and 2 * completed.new_runs > completed.listed_runs:
            overrun = (completed.new_runs, completed.listed_runs)
    problem_is_new = completion is not None and _kind(completion.problem) not in (
        "",
        _kind(own.list_problem),
    )
    return PageReport(
        new,
        changed,
        repaired,
        problem_is_new=problem_is_new,
        overrun=overrun,
        dead_letters=conflicting,
        missed=missed,
    )


def _kind(problem: str | None) -> str:
    """Return the problem without its numbers, so that a changed number is not a new problem."""
    return re.sub(r"\d[\d,]*", "", problem or "")


def _is_beyond(run: ListedRun, horizon: datetime | None) -> bool:
    """Return whether the list itself shows that the run ended before the horizon.

    A run without an end, or with an end before its start (some servers fill in the year 1), may
    still be running, however long ago it began. It is read like any other, and pruned once it is
    known to be over.
    """
    if horizon is None or run.start_time is None or run.end_time is None:
        return False
    return run.start_time <= run.end_time < horizon


def _bury(
    connection: Connection, runs: Sequence[ListedRun], seen: Mapping[str, object]
) -> set[str]:
    """Enter the runs that the ledger does not know yet as tombstones; return their ids."""
    if not runs:
        return set()
    arrays = {"ids": [run.id for run in runs], "starts": [run.start_time for run in runs]}
    return set(connection.execute(_BURY, {**seen, **arrays}).scalars())


def hold(connection: Connection, sweep: Sweep, *, lease: float) -> None:
    """Extend the lease if no later sweep has begun."""
    connection.execute(
        _HOLD, {"workflow_id": sweep.workflow_id, "token": sweep.token, "lease": lease}
    )


def abandon(connection: Connection, sweep: Sweep, *, error: str | None = None) -> None:
    """Release the lease without moving the watermark."""
    connection.execute(
        _ABANDON, {"workflow_id": sweep.workflow_id, "token": sweep.token, "error": error}
    )

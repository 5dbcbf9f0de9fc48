"""What a sweep listed: its pages in the ledger, and the result of the whole walk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate

import msgspec
from sqlalchemy import Connection, text

from etl.ledger import conflicts, gaps, repairs, sweeps
from etl.ledger.clock_set_back import AHEAD
from etl.ledger.reopening import reopen
from etl.ledger.requests import ONLY_REQUESTED
from etl.ledger.sweeps import Sweep, SweepSuperseded
from etl.records import ListedRun

# No two sweeps of a workflow share a number: only this sweep can have made its number the
# watermark.
_IS_COMPLETE = text(
    "SELECT watermark = :token FROM orchestra_etl.sweeps WHERE workflow_id = :workflow_id"
)

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
    key = {"workflow_id": sweep.workflow_id, "token": sweep.token}
    held = sweeps.hold(connection, sweep, lease=lease)
    if held is None:
        if completion is not None and connection.execute(_IS_COMPLETE, key).scalar_one_or_none():
            # The response to the COMMIT was lost, and this unit of work is repeated: it is already
            # done.
            return PageReport(0, 0, missed=completion.gap is not None)
        raise SweepSuperseded(sweep.workflow_id)
    seen = {**key, "requested_at": requested_at, "priority": priority}
    buried = _bury(connection, [run for run in runs if _is_beyond(run, held.run_horizon)], seen)
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
                "watermark": held.watermark,
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
                if not _is_beyond(run, held.run_horizon)
            }
            conflicting = conflicts.record_listed(
                connection, sweep.workflow_id, wanted, since=requested_at
            )
            if reconcile:
                repaired = repairs.request_reread(
                    connection, sweep.workflow_id, by_id, requested_at
                )
    new += len(buried)
    problem_is_new = False
    if completion is not None:
        missed, overrun = _complete(
            connection, sweep, completion, watermark=held.watermark, new=new, repaired=repaired
        )
        problem = _kind(completion.problem)
        problem_is_new = problem not in ("", _kind(held.list_problem))
    return PageReport(
        new,
        changed,
        repaired,
        problem_is_new=problem_is_new,
        overrun=overrun,
        dead_letters=conflicting,
        missed=missed,
    )


def _complete(
    connection: Connection,
    sweep: Sweep,
    completion: SweepResult,
    *,
    watermark: int,
    new: int,
    repaired: int,
) -> tuple[bool, tuple[int, int] | None]:
    """Move the watermark; return `missed` and `overrun` of the report.

    Args:
        connection: in the transaction of the last page.
        sweep: the sweep, which holds the lease.
        completion: its result.
        watermark: the number of the last complete sweep before it.
        new: new runs on the last page.
        repaired: runs of the last page that were missing from the tables.
    """
    key = {"workflow_id": sweep.workflow_id, "token": sweep.token}
    missed = completion.gap is not None and gaps.record(
        connection,
        sweep.workflow_id,
        watermark=watermark,
        before_time=completion.oldest_start,
        detail=completion.gap,
        is_empty=completion.listed == 0,
    )
    if sweep.token > watermark + 1:
        connection.execute(_FORGET_CUT_OFF, {**key, "watermark": watermark})
    done = connection.execute(
        _COMPLETE,
        {
            **key,
            "begun_at": sweep.begun_at,
            "whole_list": completion.whole_list,
            "to_the_end": completion.to_the_end,
            "listed": completion.listed,
            "new_runs": completion.new_runs + new,
            "repaired": completion.repaired + repaired,
            "problem": completion.problem,
        },
    ).one()
    is_overrun = done.window_full and 2 * done.new_runs > done.listed_runs
    return missed, (done.new_runs, done.listed_runs) if is_overrun else None


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

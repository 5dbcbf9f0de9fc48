"""The walk of a workflow's run list: who may do it, what it listed, and how far the list is known without a hole.

The watermark is the set of runs that *complete* sweeps have listed, kept as two numbers: a ledger
row carries the sweep that listed it, `sweeps.watermark` the last complete one. A cut-off sweep
leaves rows with its own number above the watermark; they are in the ledger and get polled, but no
later walk takes them as proof that the list below them is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate

import msgspec
from sqlalchemy import Connection, text

from etl.ledger import conflicts, gaps, repairs
from etl.ledger.reopening import reopen
from etl.ledger.requests import ASKED_FOR
from etl.records import ListedRun


class Sweep(msgspec.Struct, frozen=True):
    """The right to walk one workflow's list, until the lease ends or another sweep begins."""

    workflow_id: str
    token: int
    begun_at: datetime
    """Database time."""
    watermark_size: int
    """Members of the watermark, counted up to `count_to`."""
    last_complete: datetime | None
    reconciled_at: datetime | None


class SweepSuperseded(Exception):
    """Another sweep of this workflow has begun: this one must stop without a trace."""


_BEGIN = text("""
    INSERT INTO orchestra_etl.sweeps AS s (workflow_id, fencing_token, leased_until, started_at)
    VALUES (:workflow_id, 1, now() + make_interval(secs => :lease), now())
    ON CONFLICT (workflow_id) DO UPDATE
    SET fencing_token = s.fencing_token + 1,
        leased_until = excluded.leased_until,
        started_at = excluded.started_at
    WHERE s.leased_until IS NULL OR s.leased_until < now()
    RETURNING fencing_token, watermark, now() AS begun_at, swept_at, reconciled_at
""")

_WATERMARK_SIZE = text("""
    SELECT count(*) FROM (
        SELECT FROM orchestra_etl.run_ledger
        WHERE workflow_id = :workflow_id AND listed_sweep <= :watermark
        LIMIT :count_to
    ) AS members
""")

_HOLD = text("""
    UPDATE orchestra_etl.sweeps
    SET leased_until = now() + make_interval(secs => :lease)
    WHERE workflow_id = :workflow_id AND fencing_token = :token AND leased_until IS NOT NULL
    RETURNING watermark, list_problem, (SELECT run_horizon FROM orchestra_etl.retention) AS run_horizon
""")

# A sweep's number is its own: only itself can have made it the watermark.
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
    -- What was set aside before the last complete sweep ended is known without a hole, too.
    SELECT d.run_id
    FROM orchestra_etl.dead_letters AS d
    JOIN orchestra_etl.sweeps AS s ON s.workflow_id = d.workflow_id
    WHERE d.run_id = ANY (CAST(:ids AS text[]))
      AND d.workflow_id = :workflow_id
      AND d.reason = 'id_conflict' AND d.step_id IS NULL AND d.first_seen_at <= s.swept_at
""")

# A page asks for a newer read of a run where its row differs from the one last seen and was
# requested after the run was last read on its own, or where the run was taken for gone or for one
# of another workflow. A tombstone is never read again: of what the list shows of it, only that it
# is still listed is noted, so that the walk can tell known rows from new ones.
_ASKED = """(l.removed_at IS NULL AND (l.tracking = 'gone' OR l.workflow_id <> excluded.workflow_id OR (
            l.listing_hash IS DISTINCT FROM excluded.listing_hash
            AND excluded.listed_at > COALESCE(l.run_observed_at, '-infinity'))))"""


# A row that answers 404 is noted as listed even where nothing else changed: it is not gone. A run
# that was only asked for under another workflow moves to the one that lists it. One that was read
# there stays, unless its own row is the very same: such a server does not look at the workflow when
# it is asked for a run, so that the list decides. One that another workflow has listed stays there.
_WRITE = text(f"""
    INSERT INTO orchestra_etl.run_ledger AS l
        (run_id, workflow_id, source, listing, listing_hash, start_time, listed_at, listed_sweep, priority)
    SELECT p.run_id, :workflow_id, 'list', substring(CAST(:listings AS bytea) FROM p.first FOR p.size), p.listing_hash,
           p.start_time, LEAST(CAST(:requested_at AS timestamptz), now()),
           :token, :priority
    FROM unnest(CAST(:ids AS text[]), CAST(:firsts AS int[]), CAST(:sizes AS int[]), CAST(:hashes AS bytea[]),
                CAST(:starts AS timestamptz[])) AS p (run_id, first, size, listing_hash, start_time)
    ORDER BY p.run_id COLLATE "C"
    ON CONFLICT (run_id) DO UPDATE
    SET {
    reopen(
        when=_ASKED,
        listing="excluded.listing",
        listing_hash="excluded.listing_hash",
        start_time="excluded.start_time",
    )
},
        workflow_id = excluded.workflow_id,
        listed_at = excluded.listed_at,
        priority = LEAST(l.priority, excluded.priority),
        listed_sweep = CASE WHEN l.listed_sweep <= :watermark THEN l.listed_sweep ELSE excluded.listed_sweep END
    WHERE (l.workflow_id = excluded.workflow_id OR {ASKED_FOR} OR (l.listed_at IS NULL AND (
               l.removed_at IS NOT NULL OR l.listing_hash = excluded.listing_hash)))
      AND ((l.removed_at IS NULL AND l.listing_hash IS DISTINCT FROM excluded.listing_hash)
           OR l.listed_sweep IS NULL OR l.listed_sweep > :watermark
           OR l.tracking = 'gone' OR l.not_found_since IS NOT NULL)
    RETURNING xmax = 0 AS inserted, leased_until IS NULL AND due_at IS NOT DISTINCT FROM now() AS asked
""")

# Runs that retention has left behind before they were ever known here.
_BURY = text("""
    INSERT INTO orchestra_etl.run_ledger
        (run_id, workflow_id, source, tracking, start_time, listed_at, listed_sweep, priority, due_at, removed_at)
    SELECT p.run_id, :workflow_id, 'list', 'pruned', p.start_time, CAST(:requested_at AS timestamptz), :token, :priority,
           NULL, now()
    FROM unnest(CAST(:ids AS text[]), CAST(:starts AS timestamptz[])) AS p (run_id, start_time)
    ORDER BY p.run_id COLLATE "C"
    ON CONFLICT (run_id) DO NOTHING
    RETURNING run_id
""")

# A sweep that was cut off leaves its number on rows that this one may not have met again; they are
# no members.
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
                          THEN (SELECT count(*) FROM orchestra_etl.run_ledger AS l WHERE l.workflow_id = :workflow_id)
                               + (SELECT count(*) FROM orchestra_etl.dead_letters AS d
                                  WHERE d.workflow_id = :workflow_id AND d.reason = 'id_conflict' AND d.step_id IS NULL
                                    AND d.resolution IS DISTINCT FROM 'loaded')
                          ELSE known_runs END,
        repaired_runs = CASE WHEN :whole_list THEN :repaired ELSE repaired_runs END,
        new_runs = :new_runs,
        list_problem = CASE WHEN :to_the_end OR CAST(:problem AS text) IS NOT NULL THEN :problem ELSE list_problem END,
        last_error = NULL
    WHERE workflow_id = :workflow_id AND fencing_token = :token
    RETURNING new_runs, listed_runs, COALESCE(known_runs > listed_runs, false) AS window_full
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
    """What a page changed in the ledger."""

    new: int
    changed: int
    repaired: int = 0
    """Runs found read but missing from the tables, now to be read again."""
    problem_is_new: bool = False
    """Whether the completion's problem is not the one that was known."""
    overrun: tuple[int, int] | None = None
    """New runs and the listable window, where the first came to more than half of the second: twice as many would be missed."""
    dead_letters: int = 0
    """New dead letters: runs whose id another workflow has."""
    missed: bool = False
    """Whether the completion's gap is a new one."""


class SweepResult(msgspec.Struct, frozen=True):
    """How a sweep ended."""

    whole_list: bool
    """Whether the walk went on behind the watermark, to the list's end or to its own bound."""
    to_the_end: bool
    listed: int
    new_runs: int
    gap: str | None = None
    """One sentence where rows may have been missed."""
    problem: str | None = None
    """How the list behaves otherwise than the API says, in one line."""
    oldest_start: datetime | None = None
    """Start of the oldest run listed."""
    repaired: int = 0
    """Runs that the pages before this one found missing from the tables."""


def begin(connection: Connection, workflow_id: str, *, lease: float, count_to: int) -> Sweep | None:
    """Begin a sweep; None while another one holds the lease (`lease` in seconds)."""
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
    """Seconds until the lease of a sweep in progress ends; None where there is none."""
    seconds = connection.execute(_NEXT_EXPIRY, {"workflow_id": workflow_id}).scalar_one_or_none()
    return None if seconds is None else float(seconds)


def count_others(connection: Connection, workflow_ids: Sequence[str]) -> int:
    """How many workflows beside these a sweep was ever complete for."""
    return int(connection.execute(_COUNT_OTHERS, {"workflows": list(workflow_ids)}).scalar_one())


def members(connection: Connection, sweep: Sweep, run_ids: Sequence[str]) -> set[str]:
    """Which of these runs belong to the watermark. Only this sweep's own completion could change the answer."""
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
    """Enter a page into the ledger and, with the last page, move the watermark.

    Args:
        connection: in a transaction.
        sweep: the sweep, whose lease is renewed.
        runs: the page's rows.
        requested_at: database time at which the page was requested.
        lease: seconds.
        priority: 0 live, 1 backfill.
        reconcile: compare the page with the tables, too.
        completion: with the last page of a complete sweep.

    Raises:
        SweepSuperseded: another sweep has begun; nothing was written.
    """
    held = {"workflow_id": sweep.workflow_id, "token": sweep.token}
    own = connection.execute(_HOLD, {**held, "lease": lease}).one_or_none()
    if own is None:
        if completion is not None and connection.execute(_IS_COMPLETE, held).scalar_one_or_none():
            # The answer to the COMMIT was lost, and this unit of work is being repeated: it is
            # done.
            return PageReport(0, 0, missed=completion.gap is not None)
        raise SweepSuperseded(sweep.workflow_id)
    watermark = own.watermark
    seen = {**held, "requested_at": requested_at, "priority": priority}
    buried = _bury(connection, [run for run in runs if _is_beyond(run, own.run_horizon)], seen)
    by_id = {run.id: run for run in runs if run.id not in buried}
    new = changed = repaired = aside = 0
    overrun, missed = None, False
    if by_id:
        listings = [run.listing for run in by_id.values()]
        sizes = [len(listing) for listing in listings]
        rows = connection.execute(
            _WRITE,
            {
                **seen,
                "ids": list(by_id),
                # As one value and its parts' places: as an array, every listing would be quoted
                # byte by byte.
                "listings": b"".join(listings),
                "firsts": list(accumulate(sizes[:-1], initial=1)),
                "sizes": sizes,
                "hashes": [run.listing_hash for run in by_id.values()],
                "starts": [run.start_time for run in by_id.values()],
                "watermark": watermark,
            },
        ).all()
        new = sum(row.inserted for row in rows)
        changed = sum(row.asked and not row.inserted for row in rows)
        # What retention would not store is not missed.
        wanted = {
            run.id: run.listing for run in by_id.values() if not _is_beyond(run, own.run_horizon)
        }
        aside = conflicts.set_listed_aside(
            connection, sweep.workflow_id, wanted, since=requested_at
        )
        if reconcile:
            repaired = repairs.request_reread(connection, sweep.workflow_id, by_id, requested_at)
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
        dead_letters=aside,
        missed=missed,
    )


def _kind(problem: str | None) -> str:
    """The problem without its numbers, which change with the list."""
    return re.sub(r"\d[\d,]*", "", problem or "")


def _is_beyond(run: ListedRun, horizon: datetime | None) -> bool:
    """Whether the list itself shows that the run was over before the horizon.

    Without an end, or with one before the start (some servers fill in the year 1), it may still be
    running, however long ago it began: it is read like any other, and pruned once it is known to be
    over.
    """
    if horizon is None or run.start_time is None or run.end_time is None:
        return False
    return run.start_time <= run.end_time < horizon


def _bury(
    connection: Connection, runs: Sequence[ListedRun], seen: Mapping[str, object]
) -> set[str]:
    """Enter runs as tombstones that the ledger does not know yet; which."""
    if not runs:
        return set()
    arrays = {"ids": [run.id for run in runs], "starts": [run.start_time for run in runs]}
    return set(connection.execute(_BURY, {**seen, **arrays}).scalars())


def hold(connection: Connection, sweep: Sweep, *, lease: float) -> None:
    """Prolong the lease, where the sweep is still the last one begun."""
    connection.execute(
        _HOLD, {"workflow_id": sweep.workflow_id, "token": sweep.token, "lease": lease}
    )


def abandon(connection: Connection, sweep: Sweep, *, error: str | None = None) -> None:
    """Give the lease back without moving the watermark."""
    connection.execute(
        _ABANDON, {"workflow_id": sweep.workflow_id, "token": sweep.token, "error": error}
    )

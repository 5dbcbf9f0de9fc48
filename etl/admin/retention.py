"""Retention: the permanent removal of the payloads of old runs, and of whole old runs.

Two horizons in `orchestra_etl.retention` only move forward, and they move before anything is
deleted. From then on, a load stores no payloads from before the payload horizon, and a sweep enters
a run that ended before the run horizon, according to the list, as a tombstone.

The counts of a removed run in the rollups stay: all of them are counted before a horizon moves.

`updated_at` does not change: otherwise an incremental copy that reads the rows with a newer
`updated_at` would take a pruned row for new content.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, Row, Table, TextClause, text

from etl.admin.expired import FIND_PAYLOADS, FIND_RUNS, OLD_LETTERS, STILL_AGED, Horizons
from etl.admin.removal import OWNED, RUN_PAYLOADS, batches, holds_payload, lock, remove
from etl.analytics import rollups
from etl.database import Database, allow_long
from etl.load.retention import PRUNED

log = structlog.get_logger(__name__)

# Runs in one transaction. The transaction lasts a fraction of a second, so that no load waits long
# for one of its runs.
BATCH = 1000
# Runs found by one search. A search reads all old rows, so it must be rare; this many ids fit in
# memory.
SEARCH = 50_000
# Seconds between two log lines about progress.
LOG_EVERY = 10.0
# Seconds between two checks whether another process has refreshed the rollups.
REFRESH_PAUSE = 0.5

# A horizon later than now shows that the database's clock was set back: it no longer counts.
_PAYLOADS_MOVED, _RUNS_MOVED = (
    f"GREATEST(CASE WHEN r.{name} <= now() THEN r.{name} END, excluded.{name})"
    for name in ("payload_horizon", "run_horizon")
)
_MOVE_HORIZONS = text(f"""
    INSERT INTO orchestra_etl.retention AS r (id, payload_horizon, run_horizon)
    VALUES (1, CAST(:payloads AS timestamptz), CAST(:runs AS timestamptz))
    ON CONFLICT (id) DO UPDATE
    SET payload_horizon = {_PAYLOADS_MOVED}, run_horizon = {_RUNS_MOVED}, updated_at = now()
    WHERE ({_PAYLOADS_MOVED}, {_RUNS_MOVED}) IS DISTINCT FROM (r.payload_horizon, r.run_horizon)
""")

# The notes that a load of such a run would write.
_NOTES = {
    "run_payloads": f"""concat_ws('; ',
            CASE WHEN num_nonnulls(inputs, inputs_raw) > 0 THEN 'inputs: {PRUNED}' END,
            CASE WHEN num_nonnulls(outputs, outputs_raw) > 0 THEN 'outputs: {PRUNED}' END)""",
    "inputs": f"'{PRUNED}'",
    "outputs": f"'{PRUNED}'",
}


def _empty(table: Table) -> str:
    columns = [f"{column} = NULL" for column in RUN_PAYLOADS[table]]
    if table.name in _NOTES:
        columns.append(f"note = {_NOTES[table.name]}")
    return (
        f"UPDATE {table.fullname} SET {', '.join(columns)}"
        f" WHERE {OWNED[table]} AND {holds_payload(table)}"
    )


_EMPTY = [text(_empty(table)) for table in RUN_PAYLOADS]

_DROP_LISTINGS = text("""
    UPDATE orchestra_etl.run_ledger SET listing = NULL
    WHERE run_id = ANY (CAST(:ids AS text[])) AND listing IS NOT NULL
""")

_EMPTIED = "body = CAST('' AS bytea), detail = detail || ' Its bytes were pruned.'"

# A pruned run cannot be read again, so its open dead letters are discarded.
_EMPTY_LETTERS_OF = text(f"""
    UPDATE orchestra_etl.dead_letters
    SET {_EMPTIED}, resolution = COALESCE(resolution, 'discarded'),
        resolved_at = COALESCE(resolved_at, now())
    WHERE run_id = ANY (CAST(:ids AS text[]))
      AND (octet_length(body) > 0 OR resolved_at IS NULL)
""")

_EMPTY_LETTERS = text(f"""
    UPDATE orchestra_etl.dead_letters
    SET {_EMPTIED}
    WHERE id IN (SELECT d.id {OLD_LETTERS} ORDER BY d.id LIMIT :limit)
""")


class PruneReport(msgspec.Struct):
    """The pruned data."""

    runs: int = 0
    steps: int = 0
    """Steps of the removed runs."""
    runs_without_payloads: int = 0
    dead_letters: int = 0
    """Dead letters that lost their bytes."""
    complete: bool = True
    """False if `prune` was stopped early: the next call continues from there."""


def prune(
    database: Database,
    wanted: Horizons,
    *,
    batch: int = BATCH,
    may_remove: Callable[[Connection, Sequence[str]], Sequence[str]] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> PruneReport:
    """Remove the data before the horizons, oldest first, in small transactions.

    It is safe while the service is running. The rollups are refreshed before the removal, because
    removed data can no longer be counted, and once more at the end.

    Args:
        database: with the current schema.
        wanted: the horizons; the database stores them, so that removed data is not loaded again.
        batch: runs in a transaction.
        may_remove: returns which of these runs may be removed; the bytes of old dead letters then
            stay. None: all runs may be removed, and the bytes too.
        stopped: called between two transactions; True ends the pruning, and the next call removes
            the rest.

    Raises:
        DatabaseError: the database cannot be used; committed transactions stay.
    """
    # All stored runs must be counted before a horizon moves. `busy` means that another process
    # counts.
    while rollups.drain(database, stopped=stopped).busy and not stopped():
        time.sleep(REFRESH_PAUSE)
    if stopped():
        return PruneReport(complete=False)
    database.transaction(
        lambda c: c.execute(_MOVE_HORIZONS, {"payloads": wanted.payloads, "runs": wanted.runs})
    )
    pruning = _Pruning(database, batch, may_remove, stopped)
    # Runs first: a run that is removed completely needs no removal of its payloads.
    if wanted.runs is not None:
        pruning.each(FIND_RUNS, wanted.runs, _remove)
    if wanted.payloads is not None:
        pruning.each(FIND_PAYLOADS, wanted.payloads, _empty_payloads)
        if may_remove is None:
            pruning.empty_letters(wanted.payloads)
    rollups.drain(database, stopped=stopped)
    return pruning.done


class _Pruning:
    """The state of one call of `prune`."""

    def __init__(
        self,
        database: Database,
        batch: int,
        may_remove: Callable[[Connection, Sequence[str]], Sequence[str]] | None,
        stopped: Callable[[], bool],
    ) -> None:
        self._database = database
        self._batch = batch
        self._may_remove = may_remove
        self._stopped = stopped
        self._logged_at = time.monotonic()
        self.done = PruneReport()

    def each(
        self,
        find: TextClause,
        horizon: datetime,
        work: Callable[[Connection, Sequence[str], PruneReport], None],
    ) -> None:
        """Do the work for all runs that `find` returns, oldest first, one transaction per batch."""
        bounds = {"horizon": horizon, "after": None, "after_id": "", "limit": SEARCH}
        while found := self._database.transaction(
            functools.partial(_rows, statement=find, parameters=bounds)
        ):
            for part in batches([row.run_id for row in found], self._batch):
                if not self._step(
                    functools.partial(
                        _prune_part,
                        run_ids=part,
                        horizon=horizon,
                        may_remove=self._may_remove,
                        work=work,
                    )
                ):
                    return
            if len(found) < SEARCH:
                return
            bounds |= {"after": found[-1].over_since, "after_id": found[-1].run_id}

    def empty_letters(self, horizon: datetime) -> None:
        """Remove the bytes of old dead letters, one transaction per batch."""
        before = -1
        while before != self.done.dead_letters:
            before = self.done.dead_letters
            if not self._step(
                functools.partial(_empty_old_letters, horizon=horizon, limit=self._batch)
            ):
                return

    def _step(self, work: Callable[[Connection], PruneReport]) -> bool:
        """Run one transaction, unless `prune` is to stop; return whether it ran."""
        if self._stopped():
            self.done.complete = False
            return False
        step = self._database.transaction(work)
        for name in ("runs", "steps", "runs_without_payloads", "dead_letters"):
            setattr(self.done, name, getattr(self.done, name) + getattr(step, name))
        if time.monotonic() - self._logged_at >= LOG_EVERY:
            self._logged_at = time.monotonic()
            log.info(
                "prune_progressed",
                runs=self.done.runs,
                runs_without_payloads=self.done.runs_without_payloads,
            )
        return True


def _rows(
    connection: Connection, *, statement: TextClause, parameters: Mapping[str, object]
) -> Sequence[Row[tuple[Any, ...]]]:
    allow_long(connection)
    return connection.execute(statement, dict(parameters)).all()


def _prune_part(
    connection: Connection,
    *,
    run_ids: Sequence[str],
    horizon: datetime,
    may_remove: Callable[[Connection, Sequence[str]], Sequence[str]] | None,
    work: Callable[[Connection, Sequence[str], PruneReport], None],
) -> PruneReport:
    done = PruneReport()
    lock(connection, run_ids)
    still: Sequence[str] = (
        connection.execute(STILL_AGED, {"ids": list(run_ids), "horizon": horizon}).scalars().all()
    )
    if still and may_remove is not None:
        still = may_remove(connection, still)
    if still:
        work(connection, still, done)
    return done


def _remove(connection: Connection, run_ids: Sequence[str], done: PruneReport) -> None:
    done.dead_letters = connection.execute(_EMPTY_LETTERS_OF, {"ids": list(run_ids)}).rowcount
    with rollups.keeping_counts(connection, run_ids):
        removed = remove(connection, run_ids, "pruned")
    done.runs, done.steps = removed["run_ledger"], removed["steps"]


def _empty_payloads(connection: Connection, run_ids: Sequence[str], done: PruneReport) -> None:
    for statement in (*_EMPTY, _DROP_LISTINGS):
        connection.execute(statement, {"ids": list(run_ids)})
    done.runs_without_payloads = len(run_ids)


def _empty_old_letters(connection: Connection, *, horizon: datetime, limit: int) -> PruneReport:
    emptied = connection.execute(_EMPTY_LETTERS, {"horizon": horizon, "limit": limit}).rowcount
    return PruneReport(dead_letters=emptied)

"""Removal of runs from every table, with tombstones: the common part of `erase` and `prune`.

Locks are taken in the order of a load: the ledger's rows first, in key order. A load of one of
these runs that is in progress either commits before the removal, and its rows are removed, or it
waits and finds its fencing token changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from sqlalchemy import Connection, Table, text

from etl.analytics import changed_groups
from etl.database import allow_long
from etl.ledger.reopening import FENCED, assign
from etl.ledger.run_locks import lock_runs
from etl.tables import PAYLOADS, metadata, runs, steps

T = TypeVar("T")
Removal = Literal["erased", "pruned"]


def _owner(table: Table) -> str | None:
    """Return the condition that selects the rows of the runs `:ids`; None if no row has a run."""
    if table is runs:
        return "id = ANY (CAST(:ids AS text[]))"
    for key in table.foreign_keys:
        if key.column is runs.c.id:
            return f"{key.parent.name} = ANY (CAST(:ids AS text[]))"
        if key.column is steps.c.id:
            return (
                f"{key.parent.name} IN (SELECT id FROM orchestra.steps"
                " WHERE run_id = ANY (CAST(:ids AS text[])))"
            )
    return None


OWNED: Mapping[Table, str] = {
    table: condition
    for table in reversed(metadata.sorted_tables)
    if (condition := _owner(table)) is not None
}
"""The tables whose rows belong to a run, children first, with the condition that selects them."""

RUN_PAYLOADS: Mapping[Table, tuple[str, ...]] = {
    table: columns for table, columns in PAYLOADS.items() if table in OWNED
}
"""The payload columns of runs. A workflow's graph is not one: it stays when runs are removed."""

_DELETE = {
    table.name: text(f"DELETE FROM {table.fullname} WHERE {owner}")
    for table, owner in OWNED.items()
}

_DELETE_REQUESTS = text(
    "DELETE FROM orchestra.run_requests WHERE run_id = ANY (CAST(:ids AS text[]))"
)

_ANALYZED = [
    table.fullname for table in metadata.sorted_tables if "workflow_id" in table.c or table in OWNED
]
# The schema may be older than this program.
_EXISTING = text("""
    SELECT name FROM unnest(CAST(:names AS text[])) AS t (name) WHERE to_regclass(name) IS NOT NULL
""")

_FORGET_EXAMPLES = text("""
    UPDATE orchestra_etl.drift SET last_run_id = ''
    WHERE last_run_id = ANY (CAST(:ids AS text[]))
""")

# The rebuild's position moves back to the last step that stays. A running rebuild takes its locks
# in another order: if that causes a deadlock, PostgreSQL ends one of the two transactions, which is
# then retried.
_FORGET_POSITION = text("""
    UPDATE orchestra_etl.rebuilds AS b
    SET after_step_id = (
        SELECT max(s.id) FROM orchestra.steps AS s
        WHERE s.id < b.after_step_id AND NOT s.run_id = ANY (CAST(:ids AS text[])))
    WHERE after_step_id IN (
        SELECT id FROM orchestra.steps WHERE run_id = ANY (CAST(:ids AS text[])))
""")

# A tombstone keeps the id and the workflow, so that nothing loads the run again. It also keeps the
# number of the sweep that listed the run, for the walk, and the times at which this program first
# saw and removed it. The start time stays only for a pruned run: the start time of an erased run
# could identify the person.
_TOMBSTONE = text(f"""
    UPDATE orchestra_etl.run_ledger AS l
    SET {assign(FENCED)}, tracking = :tracking, removed_at = now(), due_at = NULL,
        start_time = CASE WHEN :tracking = 'pruned' THEN start_time END,
        listing = NULL, listing_hash = NULL, read_digest = NULL, run_state = NULL,
        run_end_time = NULL, last_error = NULL, steps_observed_at = NULL, run_observed_at = NULL,
        not_found_since = NULL, checks = 0, attempts = 0
    WHERE run_id = ANY (CAST(:ids AS text[]))
""")


def holds_payload(table: Table) -> str:
    """Return the condition that a row of this table still has a payload."""
    return "(" + " OR ".join(f"{column} IS NOT NULL" for column in RUN_PAYLOADS[table]) + ")"


def batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Split the values into parts of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


def lock(connection: Connection, run_ids: Sequence[str]) -> None:
    """Lock these runs and the rollups until the transaction ends.

    Without the rollups' lock, a running refresh could write back the failures of a deleted step.
    """
    lock_runs(connection, run_ids)
    changed_groups.wait_for_lock(connection)


def remove(connection: Connection, run_ids: Sequence[str], tracking: Removal) -> dict[str, int]:
    """Delete the data of these runs and make their ledger rows tombstones; return rows by table.

    `lock` must have locked the rows in this transaction. Dead letters stay: the callers treat them
    differently.
    """
    ids = {"ids": list(run_ids)}
    connection.execute(_FORGET_POSITION, ids)
    removed = {
        name: connection.execute(statement, ids).rowcount for name, statement in _DELETE.items()
    }
    removed["run_requests"] = connection.execute(_DELETE_REQUESTS, ids).rowcount
    connection.execute(_FORGET_EXAMPLES, ids)
    removed["run_ledger"] = connection.execute(_TOMBSTONE, {**ids, "tracking": tracking}).rowcount
    return removed


def analyze(connection: Connection) -> None:
    """Analyze the tables, because the planner's statistics keep frequent values of deleted rows.

    Such a value may be a user's id. For a user who owns neither the tables nor the database,
    PostgreSQL only emits a warning, and the statistics stay until autovacuum.
    """
    allow_long(connection)
    names = connection.execute(_EXISTING, {"names": _ANALYZED}).scalars().all()
    connection.execute(text(f"ANALYZE {', '.join(names)}"))

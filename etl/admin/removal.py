"""Takes runs out of every table and leaves tombstones behind; what `erase` and `prune` have in common.

The order of locks is that of a load: the ledger's rows first, in key order. A load of one of these
runs that is under way either commits before, and its rows are removed, or waits and finds its token
moved.
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
    """The condition by which rows of a table belong to the runs `:ids`; None where they belong to none."""
    if table is runs:
        return "id = ANY (CAST(:ids AS text[]))"
    for key in table.foreign_keys:
        if key.column is runs.c.id:
            return f"{key.parent.name} = ANY (CAST(:ids AS text[]))"
        if key.column is steps.c.id:
            return f"{key.parent.name} IN (SELECT id FROM orchestra.steps WHERE run_id = ANY (CAST(:ids AS text[])))"
    return None


OWNED: Mapping[Table, str] = {
    table: condition
    for table in reversed(metadata.sorted_tables)
    if (condition := _owner(table)) is not None
}
"""The tables whose rows belong to a run, children first, and by what condition."""

RUN_PAYLOADS: Mapping[Table, tuple[str, ...]] = {
    table: columns for table, columns in PAYLOADS.items() if table in OWNED
}
"""The columns with content that belong to a run: a workflow's graph does not, and stays when runs are removed."""

_DELETE = {
    table.name: text(f"DELETE FROM {table.fullname} WHERE {owner}")
    for table, owner in OWNED.items()
}

_DELETE_REQUESTS = text(
    "DELETE FROM orchestra.run_requests WHERE run_id = ANY (CAST(:ids AS text[]))"
)

_ANALYZE = text(
    "ANALYZE "
    + ", ".join(
        table.fullname
        for table in metadata.sorted_tables
        if "workflow_id" in table.c or table in OWNED
    )
)

_FORGET_EXAMPLES = text("""
    UPDATE orchestra_etl.drift SET last_run_id = '' WHERE last_run_id = ANY (CAST(:ids AS text[]))
""")

# A rebuild goes on behind the step before. One that is at it locks in another order: PostgreSQL
# ends one of the two, which is repeated.
_FORGET_POSITION = text("""
    UPDATE orchestra_etl.rebuilds AS b
    SET after_step_id = (
        SELECT max(s.id) FROM orchestra.steps AS s
        WHERE s.id < b.after_step_id AND NOT s.run_id = ANY (CAST(:ids AS text[])))
    WHERE after_step_id IN (SELECT id FROM orchestra.steps WHERE run_id = ANY (CAST(:ids AS text[])))
""")

# What stays: the id and the workflow, so that nothing brings the run back; where the walk of the
# list met it; our own times of first sight and removal. The start is kept of a pruned run only: of
# an erased one it could tell who it was.
_TOMBSTONE = text(f"""
    UPDATE orchestra_etl.run_ledger AS l
    SET {assign(FENCED)}, tracking = :tracking, removed_at = now(), due_at = NULL,
        start_time = CASE WHEN :tracking = 'pruned' THEN start_time END,
        listing = NULL, listing_hash = NULL, read_digest = NULL, run_state = NULL, run_end_time = NULL, last_error = NULL,
        steps_observed_at = NULL, run_observed_at = NULL, not_found_since = NULL, checks = 0, attempts = 0
    WHERE run_id = ANY (CAST(:ids AS text[]))
""")


def holds_payload(table: Table) -> str:
    """The condition by which a row of this table still has a payload."""
    return "(" + " OR ".join(f"{column} IS NOT NULL" for column in RUN_PAYLOADS[table]) + ")"


def batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The values in parts of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


def lock(connection: Connection, run_ids: Sequence[str]) -> None:
    """Lock these runs until the transaction ends, and the rollups.

    A refresh under way could bring back the failures of a step that is being deleted.
    """
    lock_runs(connection, run_ids)
    changed_groups.wait_for_lock(connection)


def remove(connection: Connection, run_ids: Sequence[str], tracking: Removal) -> dict[str, int]:
    """Delete what is stored of these runs, and make their ledger rows tombstones; the rows removed, by table.

    The rows must have been locked by `lock` in this transaction. Dead letters are the caller's to
    decide on.
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
    """Sample the tables anew: the planner's statistics keep frequent values, such as a user's id, after their rows are gone.

    A user who owns neither the tables nor the database is warned by PostgreSQL, and the statistics
    stay until autovacuum.
    """
    allow_long(connection)
    connection.execute(_ANALYZE)

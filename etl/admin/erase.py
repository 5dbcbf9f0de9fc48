"""Erasure: the removal of the runs of a user or organisation, or of named runs.

Tombstones prevent the runs from being loaded again. Derived data is removed with its source. An
organisation's rollup rows are deleted even for hours whose runs were pruned long ago, so the order
of `prune` and `erase` makes no difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, text

from etl.admin import persons
from etl.admin.persons import IN_SCOPE, Hidden, Person
from etl.admin.removal import OWNED, analyze, batches, lock, remove
from etl.analytics import changed_groups, rollups
from etl.database import Database, allow_long
from etl.errors import ConfigurationError
from etl.ledger import dead_letters
from etl.tables.rollups import run_rollup, step_rollup, step_rollup_daily
from etl.transform.redact import Redaction

# Runs in one transaction.
BATCH = 500
# Runs that one statement counts.
COUNT_AT_ONCE = 5000

NO_REDACTION = Redaction()


class Selection(msgspec.Struct, frozen=True):
    """The runs to erase: exactly one of `runs`, `user_id` and `organization_id` is set."""

    runs: tuple[str, ...] = ()
    user_id: str | None = None
    organization_id: str | None = None
    workflow_id: str | None = None
    """Only this workflow's runs; also the workflow of `runs` that are not in the database."""

    def person(self, rules: Redaction) -> Person | None:
        """Return the user or organisation, with its hash by these rules; None if runs are named."""
        field, name = (
            ("user_id", self.user_id)
            if self.user_id is not None
            else ("organization_id", self.organization_id)
        )
        if name is None:
            return None
        hashed = rules.hashed(name)
        return Person(field, (name,) if hashed is None else (name, hashed), self.workflow_id)


class EraseReport(msgspec.Struct, frozen=True):
    """What an erasure removes, and what it may have missed."""

    runs: int
    rows: dict[str, int]
    """Number of removed rows by table; the rows of `run_ledger` stay, as tombstones."""
    not_read: int
    """Unread runs in the selection's scope: their user and organisation are unknown."""
    hidden: Hidden = Hidden()
    """Stored runs in the scope whose user or organisation is hidden."""

    def plus(self, more: EraseReport) -> EraseReport:
        """Return the report with the runs and rows of a second erasure added."""
        rows = {name: rows + more.rows.get(name, 0) for name, rows in self.rows.items()}
        return msgspec.structs.replace(self, runs=self.runs + more.runs, rows=rows)


_KNOWN = text("""
    SELECT run_id AS id, workflow_id, tracking = 'erased' AS erased
    FROM orchestra_etl.run_ledger WHERE run_id = ANY (CAST(:ids AS text[]))
    UNION ALL
    SELECT r.id, r.workflow_id, false FROM orchestra.runs AS r
    WHERE r.id = ANY (CAST(:ids AS text[]))
      AND NOT EXISTS (SELECT FROM orchestra_etl.run_ledger AS l WHERE l.run_id = r.id)
""")

_NOT_READ = text("""
    SELECT count(*) FROM orchestra_etl.run_ledger
    WHERE tracking IN ('open', 'stale', 'gone') AND steps_observed_at IS NULL
      AND (CAST(:workflow_id AS text) IS NULL OR workflow_id = :workflow_id)
""")

# A run without a ledger row gets one, which is locked now and becomes the tombstone.
_ENTER = text("""
    INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source)
    SELECT n.run_id, COALESCE(r.workflow_id, CAST(:workflow_id AS text)), 'request'
    FROM unnest(CAST(:ids AS text[])) AS n (run_id)
    LEFT JOIN orchestra.runs AS r ON r.id = n.run_id
    WHERE COALESCE(r.workflow_id, CAST(:workflow_id AS text)) IS NOT NULL
    ORDER BY n.run_id COLLATE "C"
    ON CONFLICT (run_id) DO NOTHING
""")

_FIND_LETTERS = text(
    "SELECT id FROM orchestra_etl.dead_letters WHERE run_id = ANY (CAST(:ids AS text[]))"
)
_DELETE_LETTERS = text(
    "DELETE FROM orchestra_etl.dead_letters WHERE run_id = ANY (CAST(:ids AS text[]))"
)
_DELETE_LETTERS_NAMING = text(
    "DELETE FROM orchestra_etl.dead_letters WHERE id = ANY (CAST(:ids AS bigint[]))"
)

# The changed groups are queued. A group whose runs are still stored is recomputed from them; a
# group whose runs were pruned keeps the rows of the other organisations.
_DELETE_ROLLUPS = text(
    f"""
    WITH steps AS (
        DELETE FROM orchestra.step_rollup AS t
        WHERE t.organization_id = ANY (CAST(:values AS text[])) AND {IN_SCOPE}
        RETURNING t.workflow_id, t.hour
    ), runs AS (
        DELETE FROM orchestra.run_rollup AS t
        WHERE t.organization_id = ANY (CAST(:values AS text[])) AND {IN_SCOPE}
        RETURNING t.workflow_id, t.hour
    ), days AS (
        DELETE FROM orchestra.step_rollup_daily AS t
        WHERE t.organization_id = ANY (CAST(:values AS text[])) AND {IN_SCOPE}
        RETURNING t.workflow_id, CAST(t.day AS timestamp) AT TIME ZONE 'UTC' AS hour
    ), gone AS (
        SELECT * FROM steps UNION ALL SELECT * FROM runs UNION ALL SELECT * FROM days
    ), queued AS (
        INSERT INTO orchestra_etl.changed_groups (workflow_id, hour)
        SELECT DISTINCT workflow_id, hour FROM gone
    )
    SELECT count(*) FROM gone
"""
)
_COUNT_ROLLUPS = text(
    " UNION ALL ".join(
        f"SELECT count(*) AS n FROM {table.fullname} AS t"
        f" WHERE t.organization_id = ANY (CAST(:values AS text[])) AND {IN_SCOPE}"
        for table in (step_rollup, run_rollup, step_rollup_daily)
    ).join(("SELECT CAST(sum(n) AS bigint) FROM (", ") AS counted"))
)

_COUNT = {
    table.name: text(f"SELECT count(*) FROM {table.fullname} WHERE {owner}")
    for table, owner in OWNED.items()
}
_COUNT |= {
    "run_requests": text(
        "SELECT count(*) FROM orchestra.run_requests WHERE run_id = ANY (CAST(:ids AS text[]))"
    ),
    "run_ledger": text(
        "SELECT count(*) FROM orchestra_etl.run_ledger WHERE run_id = ANY (CAST(:ids AS text[]))"
    ),
}


def find(
    connection: Connection, selection: Selection, rules: Redaction = NO_REDACTION
) -> EraseReport:
    """Count what `erase` would remove, and change nothing.

    Args:
        connection: in a transaction.
        selection: the runs.
        rules: the redaction rules in force, with their key.

    Raises:
        ConfigurationError: an id is masked, or a named run is not in the database and no workflow
            is named.
    """
    person = selection.person(rules)
    ids = _search(connection, selection, person)
    rows = Counter(dict.fromkeys((*_COUNT, "dead_letters", "rollups"), 0))
    letters: set[int] = set()
    for part in batches(ids, COUNT_AT_ONCE):
        for name, statement in _COUNT.items():
            rows[name] += connection.execute(statement, {"ids": list(part)}).scalar_one()
        letters.update(connection.execute(_FIND_LETTERS, {"ids": list(part)}).scalars())
    letters.update(_letters_naming(connection, person, ids))
    if person is not None and person.field == "organization_id":
        rows["rollups"] = connection.execute(_COUNT_ROLLUPS, person.parameters).scalar_one()
    rows["dead_letters"] = len(letters)
    return EraseReport(
        len(ids),
        dict(rows),
        _not_read(connection, selection, person),
        _hidden(connection, person, rules),
    )


def erase(database: Database, selection: Selection, rules: Redaction = NO_REDACTION) -> EraseReport:
    """Remove all stored data of the selection's runs, and return the number of removed rows.

    It is safe to repeat, and while the service is running. Each transaction removes some runs
    completely. The search is repeated until it finds nothing, because runs may be loaded meanwhile.
    Then the rollups and the statistics are refreshed.

    Raises:
        ConfigurationError: as `find`; nothing was removed.
        DatabaseError: the database cannot be used; committed transactions stay.
    """
    person = selection.person(rules)
    runs, rows = 0, Counter(dict.fromkeys((*_COUNT, "dead_letters", "rollups"), 0))
    while ids := database.transaction(lambda c: _search(c, selection, person)):
        for part in batches(ids, BATCH):
            rows.update(database.transaction(_remover(part, selection.workflow_id)))
        runs += len(ids)
    rows["dead_letters"] += database.transaction(
        lambda c: c.execute(_DELETE_LETTERS_NAMING, {"ids": _letters_naming(c, person)}).rowcount
    )
    if person is not None and person.field == "organization_id":
        rows["rollups"] = database.transaction(lambda c: _delete_rollups(c, person))
    rollups.drain(database)
    # Also if nothing was removed now: an erasure that was interrupted may have removed the rows.
    database.transaction(analyze)
    return database.transaction(
        lambda c: EraseReport(
            runs, dict(rows), _not_read(c, selection, person), _hidden(c, person, rules)
        )
    )


def _letters_naming(
    connection: Connection, person: Person | None, run_ids: Sequence[str] = ()
) -> list[int]:
    """Return the dead letters whose bytes name the person, one of these runs or an erased run.

    The bytes are searched because the dead letter of a bad list row has no run id.
    """
    allow_long(connection)
    named = dead_letters.naming_erased(connection, frozenset(run_ids))
    return sorted(
        named if person is None else named.union(persons.dead_letters_of(connection, person))
    )


def _delete_rollups(connection: Connection, person: Person) -> int:
    # Without this lock, a running refresh would write back what it has already read.
    changed_groups.wait_for_lock(connection)
    allow_long(connection)
    return int(connection.execute(_DELETE_ROLLUPS, person.parameters).scalar_one())


def _search(connection: Connection, selection: Selection, person: Person | None) -> list[str]:
    """Return the runs of the selection that are not erased yet, in key order."""
    masked = next(
        (id for id in (*selection.runs, person and person.values[0]) if id and "*" in id), None
    )
    if masked is not None:
        raise ConfigurationError(
            f"{masked} is masked by the API and stands for many people: "
            "name the runs by their ids with --run"
        )
    if person is None:
        return _search_named(connection, selection)
    return sorted(persons.runs_of(connection, person))


def _search_named(connection: Connection, selection: Selection) -> list[str]:
    known = {
        row.id: row.erased for row in connection.execute(_KNOWN, {"ids": list(selection.runs)})
    }
    unknown = sorted(set(selection.runs) - known.keys())
    if unknown and selection.workflow_id is None:
        missing = (
            f"run {unknown[0]} is"
            if len(unknown) == 1
            else f"{len(unknown):,} of the runs, among them {unknown[0]}, are"
        )
        raise ConfigurationError(
            f"{missing} not in the database: add --workflow, so that no load can bring them back; "
            "nothing was removed"
        )
    return sorted({*unknown, *(id for id, erased in known.items() if not erased)})


def _remover(
    run_ids: Sequence[str], workflow_id: str | None
) -> Callable[[Connection], dict[str, int]]:
    def work(connection: Connection) -> dict[str, int]:
        ids = {"ids": list(run_ids)}
        connection.execute(_ENTER, {**ids, "workflow_id": workflow_id})
        lock(connection, run_ids)
        allow_long(connection)
        letters = connection.execute(_DELETE_LETTERS, ids).rowcount
        return {**remove(connection, run_ids, "erased"), "dead_letters": letters}

    return work


def _not_read(connection: Connection, selection: Selection, person: Person | None) -> int:
    if person is None:
        return 0
    return int(connection.execute(_NOT_READ, {"workflow_id": selection.workflow_id}).scalar_one())


def _hidden(connection: Connection, person: Person | None, rules: Redaction) -> Hidden:
    return Hidden() if person is None else persons.hidden(connection, person, rules)

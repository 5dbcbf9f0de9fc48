"""Removal on request: the runs of a user or an organisation, or named ones, with tombstones so that they stay away."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Connection, text

from etl.admin.removal import OWNED, batches, lock, remove
from etl.database import Database, allow_long
from etl.errors import ConfigurationError
from etl.transform.scanner import split

# Runs in one transaction.
BATCH = 500
# Listings decoded, and runs counted, at once.
READ_AT_ONCE = 5000


class Selection(msgspec.Struct, frozen=True):
    """Whose runs are meant: exactly one of `runs`, `user_id` and `organization_id` is given."""

    runs: tuple[str, ...] = ()
    user_id: str | None = None
    organization_id: str | None = None
    workflow_id: str | None = None
    """Only this workflow's runs; of `runs` that are not known here, the workflow they belong to."""

    @property
    def person(self) -> tuple[str, str] | None:
        """The field that names the user or organisation, and its value."""
        if self.user_id is not None:
            return "user_id", self.user_id
        return None if self.organization_id is None else ("organization_id", self.organization_id)


class Found(msgspec.Struct, frozen=True):
    """What an erasure concerns."""

    runs: int
    rows: dict[str, int]
    """Rows that go, by table; those of `run_ledger` stay as tombstones."""
    not_read: int
    """Runs in the selection's scope that have not been read yet: nobody knows whose they are."""


# A value that is no text, or too long for the column, stands in `extra`.
_NAMED_BY = """(t.{field} = :value OR t.extra ->> '{field}' = :value)"""

_OF_PERSON = """
    SELECT t.id FROM orchestra.runs AS t
    WHERE {named} AND (CAST(:workflow_id AS text) IS NULL OR t.workflow_id = :workflow_id)
    UNION
    SELECT t.run_id FROM orchestra.steps AS t
    WHERE {named} AND (CAST(:workflow_id AS text) IS NULL OR t.workflow_id = :workflow_id)
"""
_FIND_OF_PERSON = {
    field: text(_OF_PERSON.format(named=_NAMED_BY.format(field=field))) for field in ("user_id", "organization_id")
}

_LISTINGS = text("""
    SELECT run_id, listing FROM orchestra_etl.run_ledger
    WHERE listing IS NOT NULL AND run_id > :after
      AND (CAST(:workflow_id AS text) IS NULL OR workflow_id = :workflow_id)
    ORDER BY run_id
    LIMIT :limit
""")

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

# Rows of the ledger for runs that have none, so that there is something to lock, and a tombstone.
_ENTER = text("""
    INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source)
    SELECT n.run_id, COALESCE(r.workflow_id, CAST(:workflow_id AS text)), 'request'
    FROM unnest(CAST(:ids AS text[])) AS n (run_id)
    LEFT JOIN orchestra.runs AS r ON r.id = n.run_id
    WHERE COALESCE(r.workflow_id, CAST(:workflow_id AS text)) IS NOT NULL
    ORDER BY n.run_id COLLATE "C"
    ON CONFLICT (run_id) DO NOTHING
""")

# Bad rows of the run list carry no run's id, but their bytes may.
_LETTERS = """
    FROM orchestra_etl.dead_letters AS d
    WHERE d.run_id = ANY (CAST(:ids AS text[]))
       OR (d.run_id = '' AND EXISTS (
              SELECT FROM unnest(CAST(:ids AS text[])) AS n (run_id)
              WHERE position(convert_to(n.run_id, 'UTF8') IN d.body) > 0))
"""
_LETTERS_NAMING = """
    FROM orchestra_etl.dead_letters AS d
    WHERE (position(CAST(:plain AS bytea) IN d.body) > 0 OR position(CAST(:escaped AS bytea) IN d.body) > 0)
      AND (CAST(:workflow_id AS text) IS NULL OR d.workflow_id = :workflow_id)
"""
_FIND_LETTERS = text(f"SELECT d.id {_LETTERS}")
_FIND_LETTERS_NAMING = text(f"SELECT d.id {_LETTERS_NAMING}")
_DELETE_LETTERS = text(f"DELETE {_LETTERS}")
_DELETE_LETTERS_NAMING = text(f"DELETE {_LETTERS_NAMING}")

_COUNT = {table.name: text(f"SELECT count(*) FROM {table.fullname} WHERE {owner}") for table, owner in OWNED.items()}
_COUNT |= {
    "run_requests": text("SELECT count(*) FROM orchestra.run_requests WHERE run_id = ANY (CAST(:ids AS text[]))"),
    "run_ledger": text("SELECT count(*) FROM orchestra_etl.run_ledger WHERE run_id = ANY (CAST(:ids AS text[]))"),
}


def find(connection: Connection, selection: Selection) -> Found:
    """Count what `erase` would remove; changes nothing.

    Raises:
        ConfigurationError: an id is masked, or a named run is not known and no workflow is given.
    """
    ids = _search(connection, selection)
    rows = Counter(dict.fromkeys((*_COUNT, "dead_letters"), 0))
    letters: set[int] = set()
    for part in batches(ids, READ_AT_ONCE):
        for name, statement in _COUNT.items():
            rows[name] += connection.execute(statement, {"ids": list(part)}).scalar_one()
        letters.update(connection.execute(_FIND_LETTERS, {"ids": list(part)}).scalars())
    if selection.person is not None:
        letters.update(connection.execute(_FIND_LETTERS_NAMING, _naming(selection)).scalars())
    rows["dead_letters"] = len(letters)
    return Found(len(ids), dict(rows), _not_read(connection, selection))


def erase(database: Database, selection: Selection) -> Found:
    """Remove all that is stored of the selection's runs; what was removed. Safe to repeat, and beside a running service.

    Each transaction removes some runs whole. The search is repeated until it finds nothing, for what was loaded meanwhile.

    Raises:
        ConfigurationError: as `find`; nothing was removed.
        DatabaseError: the database cannot be used; what was committed stays removed.
    """
    runs, rows = 0, Counter(dict.fromkeys((*_COUNT, "dead_letters"), 0))
    while ids := database.transaction(lambda c: _search(c, selection)):
        for part in batches(ids, BATCH):
            rows.update(database.transaction(_remover(part, selection.workflow_id)))
        runs += len(ids)
    if selection.person is not None:
        rows["dead_letters"] += database.transaction(
            lambda c: c.execute(_DELETE_LETTERS_NAMING, _naming(selection)).rowcount
        )
    return Found(runs, dict(rows), database.transaction(lambda c: _not_read(c, selection)))


def _search(connection: Connection, selection: Selection) -> list[str]:
    """The runs of the selection that are not erased yet, in key order."""
    masked = next((id for id in (*selection.runs, selection.person and selection.person[1]) if id and "*" in id), None)
    if masked is not None:
        raise ConfigurationError(
            f"{masked} is masked by the API and stands for many people: name the runs by their ids with --run"
        )
    if selection.person is None:
        return _search_named(connection, selection)
    field, value = selection.person
    scope = {"workflow_id": selection.workflow_id}
    allow_long(connection)
    found = set(connection.execute(_FIND_OF_PERSON[field], {**scope, "value": value}).scalars())
    after = ""
    while rows := connection.execute(_LISTINGS, {**scope, "after": after, "limit": READ_AT_ONCE}).all():
        found.update(row.run_id for row in rows if _names(bytes(row.listing), field, value))
        after = rows[-1].run_id
    return sorted(found)


def _search_named(connection: Connection, selection: Selection) -> list[str]:
    known = {row.id: row.erased for row in connection.execute(_KNOWN, {"ids": list(selection.runs)})}
    unknown = sorted(set(selection.runs) - known.keys())
    if unknown and selection.workflow_id is None:
        raise ConfigurationError(
            f"{unknown[0]} is not known here ({len(unknown)} such runs): give its --workflow, too, so that it is kept away "
            "when it comes; nothing was removed"
        )
    return sorted({*unknown, *(id for id, erased in known.items() if not erased)})


def _names(listing: bytes, field: str, value: str) -> bool:
    """Whether a run's row as the list gave it names this user or organisation, as a text or as a bare number."""
    parts = split(b"[" + listing + b"]")
    members = parts.elements[0][1] if parts is not None and parts.elements else None
    if members is None:
        return value.encode() in listing
    raw = bytes(members.get(field, b""))
    try:
        return raw.decode() == value or json.loads(raw) == value
    except (ValueError, RecursionError):
        return False


def _remover(run_ids: Sequence[str], workflow_id: str | None) -> Callable[[Connection], dict[str, int]]:
    def work(connection: Connection) -> dict[str, int]:
        ids = {"ids": list(run_ids)}
        connection.execute(_ENTER, {**ids, "workflow_id": workflow_id})
        lock(connection, run_ids)
        allow_long(connection)
        letters = connection.execute(_DELETE_LETTERS, ids).rowcount
        return {**remove(connection, run_ids, "erased"), "dead_letters": letters}

    return work


def _naming(selection: Selection) -> dict[str, object]:
    """The bytes that a letter about this user or organisation holds: as they are, or with what JSON may escape escaped."""
    value = selection.person[1] if selection.person is not None else ""
    escaped = json.dumps(value)[1:-1].encode()
    return {"plain": value.encode(), "escaped": escaped, "workflow_id": selection.workflow_id}


def _not_read(connection: Connection, selection: Selection) -> int:
    if selection.person is None:
        return 0
    return int(connection.execute(_NOT_READ, {"workflow_id": selection.workflow_id}).scalar_one())

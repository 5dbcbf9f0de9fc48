"""Lookup of ids by a whole id or a prefix; workflows also by name."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, TextClause, text

SHORTEST_PREFIX = 4
"""Characters. A shorter text must be a whole id."""
CANDIDATES = 5
"""Maximum number of candidates that a message lists if a prefix fits several ids."""

# In collation "C" a whole id sorts before all ids that begin with it. The primary key serves both
# the condition and the order.
_RUNS = text("""
    SELECT run_id FROM orchestra_etl.run_ledger
    WHERE starts_with(run_id, CAST(:typed AS text)) ORDER BY run_id LIMIT :limit
""")
_STEPS = text("""
    SELECT id FROM orchestra.steps
    WHERE starts_with(id, CAST(:typed AS text)) ORDER BY id LIMIT :limit
""")

_NAMES = text("SELECT id, name FROM orchestra.workflows ORDER BY id")


def runs(connection: Connection, typed: str) -> list[str]:
    """Return the ids of the known runs that `typed` can mean, at most one more than `CANDIDATES`.

    Args:
        connection: in a transaction.
        typed: a whole id, which matches only itself, or at least its first `SHORTEST_PREFIX`
            characters.
    """
    return _matches(typed, _found(connection, _RUNS, typed))


def steps(connection: Connection, typed: str) -> list[str]:
    """Return the ids of the stored steps that `typed` can mean, by the same rules as `runs`."""
    return _matches(typed, _found(connection, _STEPS, typed))


def workflow_names(connection: Connection) -> dict[str, str | None]:
    """Return the names of all stored workflows by id; None for a workflow without a name."""
    return {row.id: row.name for row in connection.execute(_NAMES)}


def workflows(typed: str, names: dict[str, str | None]) -> list[str]:
    """Return the ids that `typed` can mean: a whole id, else a whole name, else a prefix of an id.

    Args:
        typed: the user's input.
        names: names by the ids of the workflows to choose from.
    """
    if typed in names:
        return [typed]
    named = [id for id, name in names.items() if name == typed]
    return named or _matches(typed, sorted(id for id in names if id.startswith(typed)))


def _found(connection: Connection, statement: TextClause, typed: str) -> list[str]:
    # PostgreSQL's text cannot hold a NUL character, so no id contains one.
    if "\0" in typed:
        return []
    limit = CANDIDATES + 1
    return list(connection.execute(statement, {"typed": typed, "limit": limit}).scalars())


def _matches(typed: str, found: Sequence[str]) -> list[str]:
    if typed in found:
        return [typed]
    return list(found) if len(typed) >= SHORTEST_PREFIX else []

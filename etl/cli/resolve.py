"""Find the run, step or workflow for a whole id, a unique prefix or a name.

Commands that read what is stored resolve ids this way. `track`, `untrack` and `erase` take the
whole ids of runs: they also accept runs that are not in this database, so that they could not
distinguish a prefix from an id. An erasure cannot be undone.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from etl.database import Database
from etl.errors import ConfigurationError
from etl.ledger import lookup
from etl.terminal import plain


def run(
    connection: Connection,
    typed: str,
    *,
    otherwise: str = "read it with `orchestra-etl track WORKFLOW RUN`",
) -> str:
    """Return the id of the known run that is meant.

    Args:
        connection: in a transaction.
        typed: an id or prefix from the command line.
        otherwise: the advice in the error for a run that is not in the database.

    Raises:
        ConfigurationError: no run, or more than one, has this id or prefix.
    """
    found = _single("run", typed, lookup.runs(connection, typed))
    if found is None:
        raise ConfigurationError(
            f"run {typed[:80]!r} is not known: give its id or {lookup.SHORTEST_PREFIX} or more of"
            f" its first characters, or {otherwise}"
        )
    return found


def step(connection: Connection, typed: str) -> str:
    """Return the id of the stored step that is meant.

    Raises:
        ConfigurationError: no step, or more than one, has this id or prefix.
    """
    found = _single("step", typed, lookup.steps(connection, typed))
    if found is None:
        raise ConfigurationError(
            f"step {typed[:80]!r} is not known: `orchestra-etl runs show RUN` lists a run's steps"
        )
    return found


def whole_id_notes(connection: Connection, typed: Sequence[str]) -> list[str]:
    """Return a line for each text that is not the id of a known run, but a prefix of one.

    For commands that take whole ids of runs.
    """
    notes = []
    for one in typed:
        found = lookup.runs(connection, one)
        if found and found != [one]:
            notes.append(
                f"run {one[:80]!r} is not known: did you mean {plain(found[0], 80)}?"
                " This takes whole ids."
            )
    return notes


def stored_workflows(database: Database, typed: Sequence[str] | None) -> list[str] | None:
    """Return the ids of the stored workflows with these names, ids or prefixes; None without any.

    Raises:
        ConfigurationError: a text matches no stored workflow, or several.
    """
    from etl.admin import redaction

    if not typed:
        return None
    names = database.transaction(lookup.workflow_names)
    found = [workflow(one, names) for one in typed]
    if None in found:
        # Rows of a workflow can outlive its description.
        for id in database.transaction(redaction.known_workflows):
            names.setdefault(id, None)
        found = [workflow(one, names) for one in typed]
    for one, meant in zip(typed, found, strict=True):
        if meant is None:
            raise ConfigurationError(
                f"nothing is stored of workflow {one[:80]!r}: see `orchestra-etl status`"
            )
    return [meant for meant in found if meant is not None]


def workflow(typed: str, names: dict[str, str | None]) -> str | None:
    """Return the id of the one workflow (names by id) that matches; None if none does.

    Raises:
        ConfigurationError: several match.
    """
    return _single("workflow", typed, lookup.workflows(typed, names))


def _single(noun: str, typed: str, found: Sequence[str]) -> str | None:
    if len(found) > 1:
        shown = ", ".join(plain(one, 80) for one in found[: lookup.CANDIDATES])
        more = ", …" if len(found) > lookup.CANDIDATES else ""
        raise ConfigurationError(
            f"{noun} {typed[:80]!r} is ambiguous: it can mean {shown}{more}; give more characters"
        )
    return found[0] if found else None

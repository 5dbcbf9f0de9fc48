"""Finds the run, step or workflow that a whole id, a unique prefix or a name stands for.

Commands that read stored data resolve ids this way. `track`, `untrack` and `erase` take only whole
ids of runs. They also accept runs that are not in the database, so they could not distinguish a
prefix from an id; and an erasure cannot be undone.
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
    """Return the id of the known run that `typed` stands for.

    Args:
        connection: in a transaction.
        typed: a whole id or a prefix, as the user typed it.
        otherwise: advice about a run that is not known, for the error's text.

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
    """Return the id of the stored step that `typed` stands for.

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
    """Return a note for each id that is only a prefix of a known run's id.

    For commands that take only whole ids of runs.
    """
    notes = []
    for one in typed:
        found = lookup.runs(connection, one)
        if found and found != [one]:
            notes.append(
                f"run {one[:80]!r} is not known: did you mean {plain(found[0], 80)}?"
                " This command takes only whole ids."
            )
    return notes


def stored_workflows(database: Database, typed: Sequence[str] | None) -> list[str] | None:
    """Return the ids of the stored workflows that `typed` names; None if it names none.

    Raises:
        ConfigurationError: nothing is stored for a named workflow, or a name is ambiguous.
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
                f"nothing is stored for workflow {one[:80]!r}: see `orchestra-etl status`"
            )
    return [meant for meant in found if meant is not None]


def workflow(typed: str, names: dict[str, str | None]) -> str | None:
    """Return the id of the workflow that `typed` stands for; None if none fits.

    Args:
        typed: a whole id, a unique prefix of an id, or a name.
        names: the name of each workflow by its id; None: it has no name.

    Raises:
        ConfigurationError: several workflows fit.
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

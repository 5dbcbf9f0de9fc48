"""Reopening: the only way to request a newer read of a run.

It raises the fencing token and clears the lease, so that no read that was requested earlier can
still be loaded (see `claims`). The reason is stored for people, in `reopened_by`; it decides
nothing.
"""

from __future__ import annotations

from typing import Literal

ReopenReason = Literal["list", "config", "track", "reread", "repair", "states"]
"""What requested the newer read.

`list`: the run's row of the run list changed. `config`, `track` (also a retry of a dead letter and
a row of `run_requests`), `reread`: a user. `repair`: the run was missing from the tables.
`states`: the configured states changed.
"""

FENCED = {"fencing_token": "l.fencing_token + 1", "leased_until": "NULL"}
"""The values that void every claim on a row `l` of the ledger, by column."""

# An open run keeps its age, which paces its reads. The results of earlier reads no longer count
# towards the run's end: neither unchanged content nor a 404 response. The count of failed reads in
# a row stays: only a successful read resets it.
_REOPENED = {
    **FENCED,
    "due_at": "now()",
    "tracking": "'open'",
    "opened_at": "CASE WHEN l.tracking = 'open' THEN l.opened_at ELSE now() END",
    "checks": "0",
    "not_found_since": "NULL",
}


def assign(values: dict[str, str], when: str | None = None) -> str:
    """Return the assignments for an UPDATE of the ledger as `l`, or its ON CONFLICT DO UPDATE.

    Args:
        values: an SQL expression by column.
        when: the SQL condition for the rows to change; None: all rows.
    """
    form = (
        "{name} = {value}"
        if when is None
        else "{name} = CASE WHEN {when} THEN {value} ELSE l.{name} END"
    )
    return ", ".join(
        form.format(name=name, value=value, when=when) for name, value in values.items()
    )


def reopen(reason: ReopenReason, when: str | None = None, **more: str) -> str:
    """Return the assignments that reopen a run.

    Args:
        reason: what requests the newer read.
        when: as for `assign`.
        more: further assignments, which take precedence.
    """
    return assign({**_REOPENED, "reopened_by": f"'{reason}'", **more}, when)

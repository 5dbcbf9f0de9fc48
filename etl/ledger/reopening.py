"""Reopening: the one way in which a newer read of a run is asked for.

It raises the fencing token and clears the lease, so that no read that was requested before can
still be loaded (see `claims`). Why a run is reopened decides only about its priority.
"""

from __future__ import annotations

FENCED = {"fencing_token": "l.fencing_token + 1", "leased_until": "NULL"}
"""The values that void every claim on a row `l` of the ledger, by column."""

# An open run keeps its age, which paces its reads. What earlier reads found no longer speaks for
# the run's end: neither that nothing changed nor that the API answered 404. Failed reads in a row
# are still counted: only a read that succeeds ends them.
_REOPENED = {
    **FENCED,
    "due_at": "now()",
    "tracking": "'open'",
    "opened_at": "CASE WHEN l.tracking = 'open' THEN l.opened_at ELSE now() END",
    "checks": "0",
    "not_found_since": "NULL",
}


def assign(values: dict[str, str], when: str | None = None) -> str:
    """Return the assignments of an UPDATE of the ledger as `l`, or of its ON CONFLICT DO UPDATE.

    Args:
        values: an SQL expression by column.
        when: the SQL condition of the rows that are changed; None: all.
    """
    form = (
        "{name} = {value}"
        if when is None
        else "{name} = CASE WHEN {when} THEN {value} ELSE l.{name} END"
    )
    return ", ".join(
        form.format(name=name, value=value, when=when) for name, value in values.items()
    )


def reopen(when: str | None = None, **more: str) -> str:
    """Return the assignments that reopen a run; `when` as for `assign`, `more` are assigned with them."""
    return assign({**_REOPENED, **more}, when)

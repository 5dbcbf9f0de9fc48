"""The last step of `erase` and `redact apply`: the lake follows the database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from etl.cli.display import say
from etl.errors import LakeError
from etl.terminal import counted

if TYPE_CHECKING:
    from etl.database import Database
    from etl.export.erasure import LakeErasure
    from etl.exporting import ExportedLake


class LakeReceipt(msgspec.Struct, frozen=True):
    """What happened in the lake."""

    location: str
    removed: LakeErasure | None
    """None: the lake could not be reached."""
    problem: str | None = None
    """Why the lake could not be reached, in one line."""


def clean(database: Database, lake: ExportedLake, problem: str | None = None) -> LakeReceipt:
    """Export what has changed, and delete the lake's former files.

    Args:
        database: the exported database.
        lake: its lake.
        problem: why the lake cannot be reached, if that is known already.
    """
    if lake.destination is None or problem is not None:
        return LakeReceipt(lake.location, None, problem or lake.problem)
    from etl.export import erasure

    try:
        return LakeReceipt(lake.location, erasure.erase(database, lake.destination))
    except LakeError as error:
        return LakeReceipt(lake.location, None, str(error))


def say_cleaned(found: LakeReceipt | None) -> None:
    """Print what happened in the lake; None: there is none."""
    if found is None:
        return
    if found.removed is None:
        say(f"NOT REACHED: {about(found.location, found.problem)}")
        return
    removed = found.removed
    listed = ", ".join(f"{name} {rows:,}" for name, rows in removed.rows.items() if rows)
    erased = f"{listed} of erased runs removed, " if listed else ""
    say(f"lake at {found.location}: {erased}{counted(removed.files, 'former file')} deleted")


def about(location: str, problem: str | None) -> str:
    """Return a problem of the lake there; many already begin with the lake's name."""
    place = f"the lake at {location}"
    return problem if problem and problem.startswith(place) else f"{place}: {problem}"


def redact(database: Database, lake: ExportedLake) -> tuple[LakeReceipt, int]:
    """Redact the runs that only the lake has, as well; return their number with the receipt.

    Args:
        database: the exported database, whose own rows are redacted.
        lake: its lake.
    """
    if lake.destination is None or lake.destination.redaction is None:
        return clean(database, lake), 0
    from etl.export import redaction

    place, rules = lake.destination, lake.destination.redaction
    remaining = partial(redaction.remaining, destination=place, rules=rules)
    try:
        runs = database.in_one_snapshot(partial(redaction.queue, destination=place, rules=rules))
        receipt = clean(database, lake)
        if receipt.removed is not None and database.in_one_snapshot(remaining):
            raise LakeError(
                "the lake still has runs under other rules: a process with other rules may have"
                " exported them; start every service with the new rules, then repeat this"
            )
    except LakeError as error:
        return LakeReceipt(lake.location, None, str(error)), 0
    return receipt, runs if receipt.removed is not None else 0

"""The end of `erase` and `redact apply`: the lake loses what the database has lost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from etl.cli.display import counted, say
from etl.errors import LakeError

if TYPE_CHECKING:
    from etl.database import Database
    from etl.export.erasure import LakeErasure
    from etl.exporting import ExportedLake
    from etl.transform.redact import Redaction


class LakeReceipt(msgspec.Struct, frozen=True):
    """What happened in the lake."""

    location: str
    removed: LakeErasure | None
    """None: it could not be reached."""
    problem: str | None = None
    """Why it could not be reached, in one line."""


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
        say(f"NOT REACHED: the lake at {found.location}: {found.problem}")
        return
    removed = found.removed
    listed = ", ".join(f"{name} {rows:,}" for name, rows in removed.rows.items() if rows)
    say(
        f"lake at {found.location}: {listed or 'no rows'} of erased runs removed,"
        f" {counted(removed.files, 'former file')} deleted"
    )


def under_other_rules(database: Database, lake: ExportedLake, rules: Redaction) -> list[str]:
    """Return the runs that only the lake has, and that were written under other rules."""
    if lake.destination is None:
        return []
    from etl.export import erasure

    def version(workflow_id: str) -> str | None:
        policy = rules.policy(workflow_id)
        return None if policy is None else policy.version

    find = partial(erasure.runs_under_other_rules, destination=lake.destination, version=version)
    try:
        return database.in_one_snapshot(find)
    except LakeError:
        # The export before it has failed, too, and said why.
        return []

"""Dead letters for people to read, without their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

_STORED = """
    SELECT d.id, d.workflow_id, w.name AS workflow_name, d.run_id, d.step_id, d.reason, d.detail,
           octet_length(d.body) AS size_bytes, d.occurrences, d.first_seen_at, d.last_seen_at,
           d.resolved_at, d.resolution
    FROM orchestra_etl.dead_letters AS d
    LEFT JOIN orchestra.workflows AS w ON w.id = d.workflow_id
"""

_FIND = text(f"""
    {_STORED}
    WHERE (CAST(:workflows AS text[]) IS NULL OR d.workflow_id = ANY (CAST(:workflows AS text[])))
      AND (:resolved OR d.resolved_at IS NULL)
    ORDER BY d.id
""")

_COUNT_RESOLVED = text("""
    SELECT count(*) FROM orchestra_etl.dead_letters
    WHERE resolved_at IS NOT NULL
      AND (CAST(:workflows AS text[]) IS NULL OR workflow_id = ANY (CAST(:workflows AS text[])))
""")

_GET = text(f"{_STORED} WHERE d.id = :id")


class StoredDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter as stored in the ledger, without its body."""

    id: int
    workflow_id: str
    workflow_name: str | None
    run_id: str
    """Empty if the record has no run with a usable id, such as a bad row of the run list."""
    step_id: str | None
    """None if the record is not a single step."""
    reason: str
    detail: str
    size_bytes: int
    occurrences: int
    first_seen_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    """`loaded` or `discarded`; None while the dead letter is open."""


def find(
    connection: Connection, *, workflows: Sequence[str] | None = None, resolved: bool = False
) -> list[StoredDeadLetter]:
    """Return the open dead letters of these workflows (None: of all), oldest first.

    With `resolved`, the resolved ones are included.
    """
    rows = connection.execute(
        _FIND, {"workflows": None if workflows is None else list(workflows), "resolved": resolved}
    )
    return [StoredDeadLetter(**row._mapping) for row in rows]


def count_resolved(connection: Connection, *, workflows: Sequence[str] | None = None) -> int:
    """Return how many dead letters of these workflows (None: of all) are resolved."""
    wanted = {"workflows": None if workflows is None else list(workflows)}
    return int(connection.execute(_COUNT_RESOLVED, wanted).scalar_one())


def get(connection: Connection, letter_id: int) -> StoredDeadLetter | None:
    """Return the dead letter with this number; None if the number is unknown."""
    row = connection.execute(_GET, {"id": letter_id}).one_or_none()
    return None if row is None else StoredDeadLetter(**row._mapping)

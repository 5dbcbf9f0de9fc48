"""Runs whose id another workflow has already: set aside and told, never dropped.

Ids of runs are taken to be unique across workflows, as those of steps are: steps, payloads and
erasure go by them. Where a server breaks that, the run that came first stays, and each other one is
a dead letter of its own workflow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from etl.ledger import dead_letters
from etl.ledger.dead_letters import DeadLetter
from etl.ledger.requests import Conflict, TakenRequests
from etl.records import Rejected

# Of requests that cannot be used so many are kept as examples, each time the queue is emptied.
EXAMPLES = 20

_ELSEWHERE = text("""
    SELECT run_id, workflow_id, removed_at IS NOT NULL AS removed
    FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[])) AND workflow_id <> :workflow_id
""")


def set_listed_aside(
    connection: Connection, workflow_id: str, listings: Mapping[str, bytes], *, since: datetime
) -> int:
    """Keep a letter for each of these runs, by their rows of the list, that another workflow has; how many are new.

    The runs must have been entered into the ledger. What was erased or pruned there keeps no bytes
    here.
    """
    rows = connection.execute(_ELSEWHERE, {"workflow_id": workflow_id, "ids": list(listings)}).all()
    found = [
        Conflict(
            workflow_id, row.run_id, row.workflow_id, b"" if row.removed else listings[row.run_id]
        )
        for row in rows
    ]
    return set_aside(connection, found, since=since)


def set_aside(
    connection: Connection, conflicts: Iterable[Conflict], *, since: datetime | None = None
) -> int:
    """Keep a letter for each of these runs; how many are new. `since` is as for `dead_letters.record`."""
    return dead_letters.record(
        connection,
        [
            DeadLetter(
                one.workflow_id,
                one.run_id,
                Rejected(
                    "id_conflict",
                    f"Workflow {one.owner!a} has a run of this id, and keeps it: this one is not stored.",
                    one.body,
                    # One letter a run, however often its row changes.
                    content_hash=hashlib.blake2b(one.run_id.encode(), digest_size=16).digest(),
                ),
            )
            for one in conflicts
        ],
        since=since,
    )


def set_requests_aside(connection: Connection, taken: TakenRequests) -> int:
    """Keep letters for what the queue held and the ledger cannot take; how many are new."""
    detail = "A request names a workflow or a run whose id cannot stand in a request's path."
    if more := max(len(taken.unusable) - EXAMPLES, 0):
        detail += f" It is one of {EXAMPLES} kept as examples; {more:,} more came with it."
    letters = [
        DeadLetter(workflow_id, "", Rejected("unusable_id", detail, body))
        for workflow_id, body in taken.unusable[:EXAMPLES]
    ]
    return set_aside(connection, taken.tracked.conflicts) + dead_letters.record(connection, letters)

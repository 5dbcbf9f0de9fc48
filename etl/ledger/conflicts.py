"""Conflicting runs: runs with the id of another workflow's run, kept as dead letters.

Run ids must be unique across workflows: steps, payloads and erasure use the run id alone. If a
server breaks this rule, the run that came first stays, and every other one becomes a dead letter of
its own workflow.
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

# Maximum number of unusable requests of one batch that become dead letters, as examples.
EXAMPLES = 20

_ELSEWHERE = text("""
    SELECT run_id, workflow_id, removed_at IS NOT NULL AS removed
    FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[])) AND workflow_id <> :workflow_id
""")


def record_listed(
    connection: Connection, workflow_id: str, listings: Mapping[str, bytes], *, since: datetime
) -> int:
    """Record a dead letter for each listed run that another workflow owns; return how many are new.

    The runs must already be in the ledger. If the other workflow's run was erased or pruned, the
    dead letter keeps no bytes.
    """
    rows = connection.execute(_ELSEWHERE, {"workflow_id": workflow_id, "ids": list(listings)}).all()
    found = [
        Conflict(
            workflow_id, row.run_id, row.workflow_id, b"" if row.removed else listings[row.run_id]
        )
        for row in rows
    ]
    return record(connection, found, since=since)


def record(
    connection: Connection, conflicts: Iterable[Conflict], *, since: datetime | None = None
) -> int:
    """Record a dead letter for each of these conflicting runs; return how many are new.

    `since` has the same meaning as in `dead_letters.record`.
    """
    return dead_letters.record(
        connection,
        [
            DeadLetter(
                one.workflow_id,
                one.run_id,
                Rejected(
                    "id_conflict",
                    f"Workflow {one.owner!a} already has a run with this id, "
                    "so this run is not stored.",
                    one.body,
                    # One dead letter for each run, even if its row changes often.
                    content_hash=hashlib.blake2b(one.run_id.encode(), digest_size=16).digest(),
                ),
            )
            for one in conflicts
        ],
        since=since,
    )


def record_requests(connection: Connection, taken: TakenRequests) -> int:
    """Record dead letters for requests that the ledger does not accept; return how many are new."""
    detail = "A request names a workflow or a run whose id cannot be used in a request path."
    if more := max(len(taken.unusable) - EXAMPLES, 0):
        detail += f" It is one of {EXAMPLES} examples; {more:,} more such requests are not kept."
    letters = [
        DeadLetter(workflow_id, "", Rejected("unusable_id", detail, body))
        for workflow_id, body in taken.unusable[:EXAMPLES]
    ]
    return record(connection, taken.tracked.conflicts) + dead_letters.record(connection, letters)

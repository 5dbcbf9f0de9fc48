"""Redaction of stored data, including data that is never read again.

A new rule reaches a run when the run is read again. Some data is never read again: steps that the
API no longer returns, runs that it has forgotten, resolved dead letters, and hours whose runs were
pruned. So the rules are applied to the stored rows themselves. Each row carries the version of its
rules, so that an interrupted redaction continues where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, TextClause, text

from etl.admin.redacted_rows import redact_runs
from etl.admin.removal import analyze
from etl.analytics import changed_groups, rollups
from etl.database import Database, allow_long
from etl.ledger import dead_letters, redaction
from etl.records import Rejected
from etl.tables.rollups import run_rollup, step_rollup, step_rollup_daily
from etl.transform.redact import Policy, Redaction
from etl.transform.stored import (
    redact_dead_letter,
    redact_listing,
    redact_names,
)

log = structlog.get_logger(__name__)

# Runs in one transaction while their payloads are small: a load of one of them waits for it.
BATCH = 100
# Seconds between two log lines about progress.
LOG_EVERY = 10.0

_WORKFLOWS = text("""
    SELECT id FROM orchestra.workflows
    UNION SELECT workflow_id FROM orchestra_etl.run_ledger
    UNION SELECT workflow_id FROM orchestra_etl.dead_letters
    UNION SELECT workflow_id FROM orchestra.runs
    ORDER BY 1
""")

_FIND_RUNS = text("""
    SELECT r.id FROM orchestra.runs AS r
    WHERE r.workflow_id = :workflow_id
      AND (CAST(:after AS text) IS NULL OR r.id > CAST(:after AS text))
      AND (r.redaction_policy IS DISTINCT FROM CAST(:version AS text)
           OR EXISTS (SELECT FROM orchestra.steps AS s
                      WHERE s.run_id = r.id
                        AND s.redaction_policy IS DISTINCT FROM CAST(:version AS text)))
    ORDER BY r.id
    LIMIT :limit
""")

_FIND_LISTINGS = text("""
    SELECT run_id FROM orchestra_etl.run_ledger
    WHERE workflow_id = :workflow_id AND listing IS NOT NULL
      AND (CAST(:after AS text) IS NULL OR run_id > CAST(:after AS text))
    ORDER BY run_id
    LIMIT :limit
""")
_LISTINGS = text("""
    SELECT run_id, listing FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[])) AND listing IS NOT NULL
    ORDER BY run_id
    FOR UPDATE
""")
_UPDATE_LISTING = text("""
    UPDATE orchestra_etl.run_ledger
    SET listing = :listing, listing_hash = COALESCE(:listing_hash, listing_hash)
    WHERE run_id = :run_id
""")

# A dead letter for an unusable run id or a response that is too large holds only the run id, so it
# is left out.
_FIND_LETTERS = text("""
    SELECT id FROM orchestra_etl.dead_letters
    WHERE workflow_id = :workflow_id AND octet_length(body) > 0
      AND body <> convert_to(run_id, 'UTF8')
      AND (CAST(:after AS bigint) IS NULL OR id > CAST(:after AS bigint))
    ORDER BY id
    LIMIT :limit
""")
# Dead letters are locked in the order in which they are recorded.
_LETTERS = text("""
    SELECT id, step_id, reason, detail, body FROM orchestra_etl.dead_letters
    WHERE id = ANY (CAST(:ids AS bigint[]))
    ORDER BY workflow_id, run_id, reason, content_hash
    FOR UPDATE
""")

_COUNTED = {
    step_rollup: "organization_id, node_id, model, calls > 0 AS is_call",
    step_rollup_daily: "organization_id, node_id, model, calls > 0 AS is_call",
    run_rollup: (
        "organization_id, CAST(NULL AS text) AS node_id, CAST(NULL AS text) AS model, "
        "false AS is_call"
    ),
}
_NAMED = {
    table: text(f"SELECT DISTINCT {names} FROM {table.fullname} WHERE workflow_id = :workflow_id")
    for table, names in _COUNTED.items()
}
# Several rows of a group may have the same names afterwards. They stay separate rows, and their sum
# is still correct.
_RENAME = {
    table: text(f"""
        UPDATE {table.fullname} SET organization_id = :new_organization{model}
        WHERE workflow_id = :workflow_id
          AND organization_id IS NOT DISTINCT FROM CAST(:organization_id AS text) {more}
    """)
    for table in _COUNTED
    for model, more in [("", "") if table is run_rollup else (
        ", model = :new_model",
        "AND node_id IS NOT DISTINCT FROM CAST(:node_id AS text)"
        " AND model IS NOT DISTINCT FROM CAST(:model AS text)"
        " AND (calls > 0) = :is_call",
    )]
}  # fmt: skip


class RedactionReport(msgspec.Struct):
    """The redacted rows: every row written under other rules counts, even if it does not change."""

    runs: int = 0
    steps: int = 0
    changed: int = 0
    """The runs and steps from which something was removed."""
    listings: int = 0
    """Stored rows of the run list, not loaded yet, that changed."""
    dead_letters: int = 0
    """Dead letters that changed."""
    rollups: int = 0
    """Rows of the rollups that changed."""
    complete: bool = True
    """False if the redaction was stopped early: the next call continues from there."""


def redact_stored(
    database: Database,
    rules: Redaction,
    *,
    workflows: Sequence[str] | None = None,
    batch: int = BATCH,
    stopped: Callable[[], bool] = lambda: False,
) -> RedactionReport:
    """Apply the rules in force to all stored data, in small transactions.

    It is safe to repeat, and while the service is running. Content that rules have removed does
    not come back when the rules are deleted. Unless the redaction is stopped, the rollups and the
    statistics are then refreshed.

    Args:
        database: with the current schema.
        rules: the rules in force; processes that load meanwhile must have the same rules.
        workflows: only the data of these workflows; None: of all.
        batch: runs in a transaction.
        stopped: called between two transactions; True ends the redaction.

    Raises:
        DatabaseError: the database cannot be used; committed transactions stay.
    """
    done = RedactionReport()
    logged_at = time.monotonic()
    for workflow_id in database.transaction(known_workflows):
        policy = rules.policy(workflow_id)
        if policy is None or (workflows is not None and workflow_id not in workflows):
            continue
        for _ in _steps_of_work(database, workflow_id, policy=policy, batch=batch, done=done):
            if stopped():
                done.complete = False
                return done
            if time.monotonic() - logged_at >= LOG_EVERY:
                logged_at = time.monotonic()
                log.info(
                    "redaction_progressed",
                    runs=done.runs,
                    steps=done.steps,
                    dead_letters=done.dead_letters,
                )
    rollups.drain(database, stopped=stopped)
    # Also if nothing changed now: a redaction that was interrupted, or the read before this one,
    # may have changed the rows.
    database.transaction(analyze)
    return done


def known_workflows(connection: Connection) -> list[str]:
    """Return the ids of all workflows with stored data."""
    allow_long(connection)
    return list(connection.execute(_WORKFLOWS).scalars())


def _steps_of_work(
    database: Database, workflow_id: str, policy: Policy, batch: int, done: RedactionReport
) -> Iterator[None]:
    """Run one transaction before each yield, and add its result to `done`."""
    database.transaction(lambda c: redaction.record(c, {policy.version: policy.rules_json}))

    def run(work: Callable[..., RedactionReport], *arguments: object) -> None:
        found = database.transaction(lambda c: work(c, *arguments, policy))
        for name in ("runs", "steps", "changed", "listings", "dead_letters", "rollups"):
            setattr(done, name, getattr(done, name) + getattr(found, name))

    for find, work in (
        (_find_runs, _redact_runs),
        (_find_listings, _redact_listings),
        (_find_letters, _redact_letters),
    ):
        scope = {
            "workflow_id": workflow_id,
            "version": policy.version,
            "limit": batch,
            "after": None,
        }
        while ids := database.transaction(
            lambda c, find=find, scope=scope: find(c, scope)  # type: ignore[misc]
        ):
            run(work, ids)
            scope["after"] = ids[-1]
            yield
    run(_rename, workflow_id)
    yield


def _found(statement: TextClause) -> Callable[[Connection, Mapping[str, object]], Sequence[Any]]:
    def find(connection: Connection, scope: Mapping[str, object]) -> Sequence[Any]:
        allow_long(connection)
        return connection.execute(statement, dict(scope)).scalars().all()

    return find


_find_runs, _find_listings, _find_letters = (
    _found(_FIND_RUNS),
    _found(_FIND_LISTINGS),
    _found(_FIND_LETTERS),
)


def _redact_runs(connection: Connection, ids: Sequence[str], policy: Policy) -> RedactionReport:
    found = redact_runs(connection, ids, policy)
    return RedactionReport(runs=found.runs, steps=found.steps, changed=found.changed)


def _redact_listings(connection: Connection, ids: Sequence[str], policy: Policy) -> RedactionReport:
    done = RedactionReport()
    for row in connection.execute(_LISTINGS, {"ids": list(ids)}).all():
        # A listing that cannot be redacted is dropped: the run's own row is requested when the run
        # is read.
        listing, hashed = redact_listing(bytes(row.listing), policy) or (None, None)
        if listing != bytes(row.listing):
            connection.execute(
                _UPDATE_LISTING, {"run_id": row.run_id, "listing": listing, "listing_hash": hashed}
            )
            done.listings += 1
    return done


def _redact_letters(connection: Connection, ids: Sequence[int], policy: Policy) -> RedactionReport:
    done = RedactionReport()
    for row in connection.execute(_LETTERS, {"ids": list(ids)}).all():
        body = bytes(row.body)
        letter = redact_dead_letter(Rejected(row.reason, row.detail, body, row.step_id), policy)
        if letter.body != body:
            dead_letters.rewrite(
                connection, row.id, letter, otherwise=policy.keyed_hash(b"%d\0" % row.id + body)
            )
            done.dead_letters += 1
    return done


def _rename(connection: Connection, workflow_id: str, policy: Policy) -> RedactionReport:
    """Redact the names of organisations and models in the rollups.

    This includes names that no stored step contains any more.
    """
    # Without this lock, a running refresh would write back what it has already read.
    changed_groups.wait_for_lock(connection)
    allow_long(connection)
    done = RedactionReport()
    for table, named in _NAMED.items():
        for row in connection.execute(named, {"workflow_id": workflow_id}).all():
            names = dict(row._mapping)
            organization, model = redact_names(policy, **names)
            if (organization, model) != (row.organization_id, row.model):
                new = {"new_organization": organization, "new_model": model}
                renamed = connection.execute(
                    _RENAME[table], {**names, **new, "workflow_id": workflow_id}
                )
                done.rollups += renamed.rowcount
    return done

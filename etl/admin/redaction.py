"""Redaction of what is stored already, where it may be that nobody can read it again.

A later rule reaches a run when it is read again. Steps that the API no longer gives, runs that it
has let go, settled dead letters and hours whose runs were pruned are never read again: here the
rules go over the rows themselves. Rows carry the version of their rules, so that work that was cut
off goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import structlog
from sqlalchemy import Connection, Row, Table, TextClause, text

from etl.admin.removal import lock
from etl.database import Database, allow_long
from etl.ledger import changed_groups, dead_letters, redaction
from etl.load.staging import column_types, listed
from etl.load.steps import update_payloads
from etl.records import Payload, Rejected
from etl.tables import runs, steps
from etl.tables.rollups import run_rollup, step_rollup, step_rollup_daily
from etl.transform.redact import Policy, Redaction
from etl.transform.stored import (
    RedactedRow,
    StoredPayload,
    StoredRow,
    redact_dead_letter,
    redact_listing,
    redact_names,
    redact_run,
    redact_step,
)
from etl.usage import Usage

log = structlog.get_logger(__name__)

# Runs in one transaction, as long as their payloads are small: a load of one of them waits for it.
BATCH = 100
# Bytes of payloads held in memory at once, unless a single step has more.
HELD = 16 << 20
# Seconds between two lines of progress.
SAY_EVERY = 10.0

_PAYLOADS: tuple[Literal["inputs", "outputs"], ...] = ("inputs", "outputs")
_RUN_COLUMNS = ("user_id", "organization_id", "error", "extra")
_STEP_COLUMNS = (
    *_RUN_COLUMNS, "step_metadata", "request_model", "response_model", "finish_reason", "reported_error",
    *Usage.__struct_fields__,
)  # fmt: skip

_WORKFLOWS = text("""
    SELECT id FROM orchestra.workflows
    UNION SELECT workflow_id FROM orchestra_etl.run_ledger
    UNION SELECT workflow_id FROM orchestra_etl.dead_letters
    UNION SELECT workflow_id FROM orchestra.runs
    ORDER BY 1
""")

_FIND_RUNS = text("""
    SELECT r.id FROM orchestra.runs AS r
    WHERE r.workflow_id = :workflow_id AND (CAST(:after AS text) IS NULL OR r.id > CAST(:after AS text))
      AND (r.redaction_policy IS DISTINCT FROM CAST(:version AS text)
           OR EXISTS (SELECT FROM orchestra.steps AS s
                      WHERE s.run_id = r.id AND s.redaction_policy IS DISTINCT FROM CAST(:version AS text)))
    ORDER BY r.id
    LIMIT :limit
""")

_RUNS = text("""
    SELECT r.id, r.user_id, r.organization_id, r.status, r.start_time, r.end_time, r.api_elapsed_seconds,
           CAST(r.error AS text) AS error, CAST(r.extra AS text) AS extra, p.run_id IS NOT NULL AS has_payloads,
           convert_to(CAST(p.inputs AS text), 'UTF8') AS inputs, convert_to(CAST(p.outputs AS text), 'UTF8') AS outputs,
           p.inputs_raw, p.outputs_raw
    FROM orchestra.runs AS r LEFT JOIN orchestra.run_payloads AS p ON p.run_id = r.id
    WHERE r.id = ANY (CAST(:ids AS text[]))
    ORDER BY r.id
""")

_SIZES = text("""
    SELECT s.id, COALESCE(pg_column_size(i.data), 0) + COALESCE(pg_column_size(o.data), 0)
                 + COALESCE(octet_length(i.raw), 0) + COALESCE(octet_length(o.raw), 0) AS size
    FROM orchestra.steps AS s
    LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id
    LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id
    WHERE s.run_id = ANY (CAST(:run_ids AS text[])) AND s.redaction_policy IS DISTINCT FROM CAST(:version AS text)
    ORDER BY s.id
""")

_STEPS = text(f"""
    SELECT s.id, s.user_id, s.organization_id, s.node_id, s.status, s.start_time, s.end_time, s.api_elapsed_seconds,
           s.api_tokens, CAST(s.error AS text) AS error, CAST(s.step_metadata AS text) AS step_metadata,
           CAST(s.extra AS text) AS extra, s.request_model, s.response_model, s.finish_reason, s.reported_error,
           {listed(Usage.__struct_fields__, "s.")},
           i.step_id IS NOT NULL AS has_inputs, convert_to(CAST(i.data AS text), 'UTF8') AS inputs, i.raw AS inputs_raw,
           o.step_id IS NOT NULL AS has_outputs, convert_to(CAST(o.data AS text), 'UTF8') AS outputs, o.raw AS outputs_raw
    FROM orchestra.steps AS s
    LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id
    LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id
    WHERE s.id = ANY (CAST(:ids AS text[]))
    ORDER BY s.id
""")


def _update(table: Table, columns: tuple[str, ...]) -> TextClause:
    """Rows under other rules get what these leave of them; `updated_at` moves where that is something else."""
    types = column_types(table, ("id", *columns, "content_hash"))
    arrays = ", ".join(
        f"CAST(:{name} AS {'text' if kind == 'JSONB' else kind.split()[0]}[])"
        for name, kind in types.items()
    )
    new = {
        name: f"CAST(n.{name} AS jsonb)" if kind == "JSONB" else f"n.{name}"
        for name, kind in types.items()
    }
    fresh = ", ".join(new[name] for name in columns)
    return text(f"""
        UPDATE {table.fullname} AS t
        SET {", ".join(f"{name} = {new[name]}" for name in columns)}, redaction_policy = :version,
            content_hash = n.content_hash,
            updated_at = CASE WHEN n.touched OR ({listed(columns, "t.")}) IS DISTINCT FROM ({fresh})
                              THEN now() ELSE t.updated_at END
        FROM unnest({arrays}, CAST(:touched AS boolean[])) AS n ({listed(tuple(types))}, touched)
        WHERE t.id = n.id COLLATE "C"
        RETURNING t.id, t.updated_at = now() AS changed
    """)


_UPDATE_RUNS, _UPDATE_STEPS = _update(runs, _RUN_COLUMNS), _update(steps, _STEP_COLUMNS)

_UPDATE_RUN_PAYLOAD = {
    name: text(f"""
        UPDATE orchestra.run_payloads SET {name} = CAST(:data AS jsonb), {name}_raw = NULL,
               note = CASE WHEN CAST(:note AS text) IS NULL THEN note ELSE concat_ws('; ', note, '{name}: ' || :note) END
        WHERE run_id = :run_id
    """)
    for name in _PAYLOADS
}
_DROP_EMPTY = text("""
    DELETE FROM orchestra.run_payloads
    WHERE run_id = ANY (CAST(:ids AS text[])) AND note IS NULL
      AND num_nonnulls(inputs, outputs, inputs_raw, outputs_raw) = 0
""")

# Derived from what has changed; the refresh that the change has queued writes them anew.
_DROP_FAILURES = text(
    "DELETE FROM orchestra.step_failures WHERE step_id = ANY (CAST(:ids AS text[]))"
)

_FIND_LISTINGS = text("""
    SELECT run_id FROM orchestra_etl.run_ledger
    WHERE workflow_id = :workflow_id AND listing IS NOT NULL AND (CAST(:after AS text) IS NULL OR run_id > CAST(:after AS text))
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
    UPDATE orchestra_etl.run_ledger SET listing = :listing, listing_hash = COALESCE(:listing_hash, listing_hash)
    WHERE run_id = :run_id
""")

# A letter about a run whose id cannot be used, or whose answer was too large, holds the id alone.
_FIND_LETTERS = text("""
    SELECT id FROM orchestra_etl.dead_letters
    WHERE workflow_id = :workflow_id AND octet_length(body) > 0 AND body <> convert_to(run_id, 'UTF8')
      AND (CAST(:after AS bigint) IS NULL OR id > CAST(:after AS bigint))
    ORDER BY id
    LIMIT :limit
""")
# In the order in which letters are recorded.
_LETTERS = text("""
    SELECT id, step_id, reason, detail, body FROM orchestra_etl.dead_letters
    WHERE id = ANY (CAST(:ids AS bigint[]))
    ORDER BY workflow_id, run_id, reason, content_hash
    FOR UPDATE
""")

_COUNTED = {
    step_rollup: "organization_id, node_id, model, calls > 0 AS is_call",
    step_rollup_daily: "organization_id, node_id, model, calls > 0 AS is_call",
    run_rollup: "organization_id, CAST(NULL AS text) AS node_id, CAST(NULL AS text) AS model, false AS is_call",
}
_NAMED = {
    table: text(f"SELECT DISTINCT {names} FROM {table.fullname} WHERE workflow_id = :workflow_id")
    for table, names in _COUNTED.items()
}
# Rows of one group may then have the same names: they stay apart, and add up.
_RENAME = {
    table: text(f"""
        UPDATE {table.fullname} SET organization_id = :new_organization{model}
        WHERE workflow_id = :workflow_id AND organization_id IS NOT DISTINCT FROM CAST(:organization_id AS text) {more}
    """)
    for table in _COUNTED
    for model, more in [("", "") if table is run_rollup else (
        ", model = :new_model",
        "AND node_id IS NOT DISTINCT FROM CAST(:node_id AS text) AND model IS NOT DISTINCT FROM CAST(:model AS text)"
        " AND (calls > 0) = :is_call",
    )]
}  # fmt: skip


class RedactionReport(msgspec.Struct):
    """What was redacted where it is stored. Rows that other rules had written count, whether these change them or not."""

    runs: int = 0
    steps: int = 0
    changed: int = 0
    """Of these runs and steps, those of which something was taken away."""
    listings: int = 0
    """Rows of the run list, kept until they are loaded, that changed."""
    dead_letters: int = 0
    """Letters that changed."""
    rollups: int = 0
    """Rows of the rollups that changed."""
    complete: bool = True
    """False where it was stopped early: the next call goes on from there."""


def redact_stored(
    database: Database,
    rules: Redaction,
    *,
    workflows: Sequence[str] | None = None,
    batch: int = BATCH,
    stopped: Callable[[], bool] = lambda: False,
) -> RedactionReport:
    """Bring all that is stored under the rules in force, in small transactions; safe to repeat, and beside a running service.

    What rules have removed does not come back when they are lifted. Afterwards the rollups are to
    be refreshed, and the tables analyzed.

    Args:
        database: with the right schema.
        rules: those in force; whatever loads meanwhile must have them, too.
        workflows: only what belongs to these; None for everything.
        batch: runs in a transaction.
        stopped: asked between two transactions.

    Raises:
        DatabaseError: the database cannot be used; what was committed stays redacted.
    """
    done = RedactionReport()
    said = time.monotonic()
    for workflow_id in database.transaction(known_workflows):
        policy = rules.policy(workflow_id)
        if policy is None or (workflows is not None and workflow_id not in workflows):
            continue
        for _ in _steps_of_work(database, workflow_id, policy=policy, batch=batch, done=done):
            if stopped():
                done.complete = False
                return done
            if time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                log.info(
                    "redaction_progressed",
                    runs=done.runs,
                    steps=done.steps,
                    dead_letters=done.dead_letters,
                )
    return done


def known_workflows(connection: Connection) -> list[str]:
    """The ids of the workflows of which anything is stored."""
    allow_long(connection)
    return list(connection.execute(_WORKFLOWS).scalars())


def _steps_of_work(
    database: Database, workflow_id: str, policy: Policy, batch: int, done: RedactionReport
) -> Iterator[None]:
    """A transaction each; before each pause, `done` is brought up to date."""
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
        while ids := database.transaction(lambda c, find=find, scope=scope: find(c, scope)):  # type: ignore[misc]
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
    lock(connection, ids)
    allow_long(connection)
    left = {
        row.id: redact_run(_stored(row), policy)
        for row in connection.execute(_RUNS, {"ids": list(ids)})
    }
    changed = _write(connection, _UPDATE_RUNS, _RUN_COLUMNS, left=left, policy=policy)
    for run_id, one in left.items():
        for name in _PAYLOADS:
            if name not in one.payloads:
                continue
            gone = one.payloads[name] or Payload(None, 0)
            data = None if gone.data is None else bytes(gone.data).decode()
            connection.execute(
                _UPDATE_RUN_PAYLOAD[name], {"run_id": run_id, "data": data, "note": gone.note}
            )
    connection.execute(
        _DROP_EMPTY, {"ids": [run_id for run_id, one in left.items() if one.payloads]}
    )
    done = RedactionReport(runs=len(left), changed=len(changed))
    sizes = connection.execute(_SIZES, {"run_ids": list(ids), "version": policy.version}).all()
    for part in _parts([(row.id, row.size) for row in sizes]):
        rows = connection.execute(_STEPS, {"ids": part})
        found = {row.id: redact_step(_stored(row), policy) for row in rows}
        changed = _write(connection, _UPDATE_STEPS, _STEP_COLUMNS, left=found, policy=policy)
        for name in _PAYLOADS:
            update_payloads(
                connection,
                name,
                {id: one.payloads[name] for id, one in found.items() if name in one.payloads},
            )
        connection.execute(_DROP_FAILURES, {"ids": changed})
        done.steps += len(found)
        done.changed += len(changed)
    return done


def _parts(sizes: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """The ids in parts whose sizes add up to no more than may be held, or of one."""
    part: list[str] = []
    held = 0
    for id, size in sizes:
        if part and held + size > HELD:
            yield part
            part, held = [], 0
        part.append(id)
        held += size
    if part:
        yield part


def _stored(row: Row[Any]) -> StoredRow:
    columns = dict(row._mapping)
    payloads: dict[str, StoredPayload] = {}
    for name in _PAYLOADS:
        there = columns.pop(f"has_{name}", columns.get("has_payloads"))
        content = StoredPayload(_bytes(columns.pop(name)), _bytes(columns.pop(f"{name}_raw")))
        # A run has one row for both: what is null there was never given, or is gone.
        if there and ("has_payloads" not in columns or content != (None, None)):
            payloads[name] = content
    columns.pop("has_payloads", None)
    return StoredRow(columns, payloads)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _write(
    connection: Connection,
    update: TextClause,
    columns: tuple[str, ...],
    left: Mapping[str, RedactedRow],
    policy: Policy,
) -> list[str]:
    """Write the columns of these rows; the ids of those that changed."""
    values: dict[str, object] = {
        name: [one.columns[name] for one in left.values()] for name in columns
    }
    values |= {"id": list(left), "content_hash": [one.content_hash for one in left.values()]}
    values |= {"touched": [bool(one.payloads) for one in left.values()], "version": policy.version}
    return [row.id for row in connection.execute(update, values) if row.changed]


def _redact_listings(connection: Connection, ids: Sequence[str], policy: Policy) -> RedactionReport:
    done = RedactionReport()
    for row in connection.execute(_LISTINGS, {"ids": list(ids)}).all():
        # What cannot be redacted is not kept: the run's own row is asked for when it is read.
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
    """Take out of the rollups what organisations and models are no longer to be called, where no step is left that tells."""
    # A refresh under way would write back what it has read before.
    changed_groups.wait_for_lock(connection)
    allow_long(connection)
    done = RedactionReport()
    for table, named in _NAMED.items():
        for row in connection.execute(named, {"workflow_id": workflow_id}).all():
            names = dict(row._mapping)
            organization, model = redact_names(policy, **names)
            if (organization, model) != (row.organization_id, row.model):
                left = {"new_organization": organization, "new_model": model}
                renamed = connection.execute(
                    _RENAME[table], {**names, **left, "workflow_id": workflow_id}
                )
                done.rollups += renamed.rowcount
    return done

"""The runs' own rows and payloads. What is stored already with the same hash is not even sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, text

from etl.load.batch import Isolation, RunWrite, Written
from etl.load.staging import assign, column_types, json_text, listed, stage
from etl.records import Payload, Rejected
from etl.tables import run_payloads, runs

_RUN_CONTENT = (
    "workflow_id", "tracking", "state", "organization_id", "user_id", "status", "status_source", "start_time", "end_time",
    "api_elapsed_seconds", "error", "extra", "redaction_policy",
)  # fmt: skip
_RUN_PAYLOADS = ("inputs", "outputs", "inputs_raw", "outputs_raw", "note")
_STAGED_RUNS = column_types(runs, ("id", *_RUN_CONTENT, "content_hash"))
_STAGED_RUN_PAYLOADS = column_types(run_payloads, ("run_id", *_RUN_PAYLOADS))

# What others change without a read is compared by itself: tracking and workflow by the ledger, the state by a new state map.
_STORED_RUNS = text("""
    SELECT id, workflow_id, tracking, state, content_hash
    FROM orchestra.runs
    WHERE id = ANY (CAST(:ids AS text[]))
""")

# The hash covers the payloads, too: it must follow where only they have changed, or come in another spelling.
_UPSERT_RUNS = text(f"""
    INSERT INTO orchestra.runs AS r (id, {listed(_RUN_CONTENT)}, content_hash)
    SELECT id, {listed(_RUN_CONTENT)}, content_hash FROM staged_runs ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {assign(_RUN_CONTENT)}, content_hash = excluded.content_hash,
        updated_at = CASE WHEN ({listed(_RUN_CONTENT, "r.")}) IS DISTINCT FROM ({listed(_RUN_CONTENT, "excluded.")})
                          THEN now() ELSE r.updated_at END
    WHERE ({listed(_RUN_CONTENT, "r.")}, r.content_hash)
          IS DISTINCT FROM ({listed(_RUN_CONTENT, "excluded.")}, excluded.content_hash)
    RETURNING xmax = 0 AS inserted, updated_at = now() AS changed
""")

_UPSERT_RUN_PAYLOADS = text(f"""
    INSERT INTO orchestra.run_payloads AS p (run_id, {listed(_RUN_PAYLOADS)})
    SELECT run_id, {listed(_RUN_PAYLOADS)} FROM staged_run_payloads ORDER BY run_id
    ON CONFLICT (run_id) DO UPDATE SET {assign(_RUN_PAYLOADS)}
    WHERE ({listed(_RUN_PAYLOADS, "p.")}) IS DISTINCT FROM ({listed(_RUN_PAYLOADS, "excluded.")})
""")

# What redaction rules leave nothing of must not stay as an earlier load has stored it.
_DROP_RUN_PAYLOADS = text("""
    DELETE FROM orchestra.run_payloads WHERE run_id = ANY (CAST(:ids AS text[]))
""")

# A run whose API row is stored and was not read anew: only what the ledger knows better may change.
_TOUCH_RUNS = text("""
    UPDATE orchestra.runs AS r
    SET tracking = t.tracking, workflow_id = t.workflow_id, updated_at = now()
    FROM unnest(CAST(:ids AS text[]), CAST(:workflow_ids AS text[]), CAST(:tracking AS text[]))
         AS t (id, workflow_id, tracking)
    WHERE r.id = t.id AND (r.tracking, r.workflow_id) IS DISTINCT FROM (t.tracking, t.workflow_id)
""")


def write_runs(
    connection: Connection, found: Sequence[RunWrite], written: Written, guard: Isolation | None = None
) -> None:
    """Write these runs' own rows and payloads, and count in `written`."""

    def refuse(run: RunWrite, why: str) -> None:
        if run.observed is not None:
            letter = Rejected("rejected", f"the run's own row: {why}", bytes(run.observed.source))
            written.rejected.append((run.workflow_id, run.id, letter))
        # An earlier row of the run stays; without one it is stored by what follows from its steps, so that they can land.
        bare = msgspec.structs.replace(run, observed=None)
        if run.stored:
            kept.append(bare)
        else:
            work([bare])

    def work(some: Sequence[RunWrite]) -> None:
        stage(connection, "staged_runs", _STAGED_RUNS, ((*_run_row(run), _content_hash(run)) for run in some))
        rows = connection.execute(_UPSERT_RUNS).all()
        payloads = [row for run in some if (row := _run_payload_row(run)) is not None]
        if payloads:
            rows_of_json = ((id, json_text(given), json_text(gave), *rest) for id, given, gave, *rest in payloads)
            stage(connection, "staged_run_payloads", _STAGED_RUN_PAYLOADS, rows_of_json)
            connection.execute(_UPSERT_RUN_PAYLOADS)
        emptied = [run.id for run in some if _is_redacted(run) and _run_payload_row(run) is None]
        if emptied:
            connection.execute(_DROP_RUN_PAYLOADS, {"ids": emptied})
        inserted = sum(row.inserted for row in rows)
        written.runs_inserted += inserted
        written.runs_updated += sum(row.changed for row in rows) - inserted

    kept = [run for run in found if run.observed is None and run.stored]
    fresh = _changed(connection, [run for run in found if run.observed is not None or not run.stored])
    if fresh and guard is None:
        work(fresh)
    elif fresh and guard is not None:
        guard(fresh, work, refuse)
    if kept:
        written.runs_updated += connection.execute(
            _TOUCH_RUNS,
            {
                "ids": [run.id for run in kept],
                "workflow_ids": [run.workflow_id for run in kept],
                "tracking": [run.tracking for run in kept],
            },
        ).rowcount


def _changed(connection: Connection, fresh: Sequence[RunWrite]) -> Sequence[RunWrite]:
    """Those that are not stored as they are."""
    if not fresh:
        return fresh
    stored = {
        row.id: (row.workflow_id, row.tracking, row.state, row.content_hash)
        for row in connection.execute(_STORED_RUNS, {"ids": [run.id for run in fresh]}).all()
    }
    return [run for run in fresh if stored.get(run.id) != (*_run_row(run)[1:4], _content_hash(run))]


def _content_hash(run: RunWrite) -> bytes:
    """Hash of all that is stored of the run but what `_STORED_RUNS` compares."""
    content = msgspec.msgpack.encode((_run_row(run)[4:], _run_payload_row(run)))
    return hashlib.blake2b(content, digest_size=16).digest()


def _run_row(run: RunWrite) -> tuple[object, ...]:
    own = run.observed
    if own is None:
        return (
            run.id, run.workflow_id, run.tracking, run.derived_state, run.organization_id, run.user_id, None, "derived",
            run.start_time, run.end_time, None, None, None, next((step.redaction_policy for step in run.steps), None),
        )  # fmt: skip
    return (
        run.id, run.workflow_id, run.tracking, own.state, own.organization_id or run.organization_id,
        own.user_id or run.user_id, own.status, "api", own.start_time, own.end_time, own.api_elapsed_seconds, own.error,
        own.extra, own.redaction_policy,
    )  # fmt: skip


def _is_redacted(run: RunWrite) -> bool:
    return run.observed is not None and run.observed.redaction_policy is not None


_NO_PAYLOAD = Payload(None, 0)


def _run_payload_row(
    run: RunWrite,
) -> tuple[str, bytes | None, bytes | None, bytes | None, bytes | None, str | None] | None:
    own = run.observed
    if own is None or (own.inputs is None and own.outputs is None):
        return None
    given, gave = own.inputs or _NO_PAYLOAD, own.outputs or _NO_PAYLOAD
    note = "; ".join(f"{name}: {p.note}" for name, p in (("inputs", given), ("outputs", gave)) if p.note) or None
    return run.id, given.data, gave.data, given.raw, gave.raw, note

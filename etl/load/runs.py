"""The write of runs' own rows and payloads; rows stored with the same hash are not sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

import msgspec
from msgspec import Raw
from sqlalchemy import Connection, text

from etl.load.batch import Isolation, RunWrite, WriteReport
from etl.load.staging import Staging, assign, column_types, copy, copy_new, listed
from etl.records import Payload, Rejected
from etl.tables import run_payloads, runs


class _RunRow(NamedTuple):
    """A row of `runs` without its `content_hash`; the fields are the columns, in order."""

    id: str
    workflow_id: str
    tracking: str
    state: str
    organization_id: str | None
    user_id: str | None
    status: str | None
    status_source: str
    start_time: datetime | None
    end_time: datetime | None
    api_elapsed_seconds: float | None
    error: str | None
    extra: str | None
    redaction_policy: str | None


class _RunPayloads(NamedTuple):
    """A row of `run_payloads`; the fields are the columns, in order."""

    inputs: Raw | None = None
    outputs: Raw | None = None
    inputs_raw: bytes | None = None
    outputs_raw: bytes | None = None
    note: str | None = None


_RUN_CONTENT = _RunRow._fields[1:]
_RUN_PAYLOADS = _RunPayloads._fields
_RUN_TYPES = column_types(runs, ("id", *_RUN_CONTENT, "content_hash"))
_PAYLOAD_TYPES = column_types(run_payloads, ("run_id", *_RUN_PAYLOADS))
_STAGED_RUNS = Staging("staged_runs", {**_RUN_TYPES, **column_types(run_payloads, _RUN_PAYLOADS)})

# The hash covers only what a read finds. These columns also change without a read, so they are
# compared separately: the ledger changes `tracking` and `workflow_id`, and a new state map changes
# `state`.
_STORED_RUNS = text("""
    SELECT id, workflow_id, tracking, state, content_hash
    FROM orchestra.runs
    WHERE id = ANY (CAST(:ids AS text[]))
""")

# The hash also covers the payloads. If only a payload or its spelling changed, the hash must be
# written, but `updated_at` stays.
_UPSERT_RUNS = text(f"""
    INSERT INTO orchestra.runs AS r (id, {listed(_RUN_CONTENT)}, content_hash)
    SELECT id, {listed(_RUN_CONTENT)}, content_hash FROM {_STAGED_RUNS.name} ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {assign(_RUN_CONTENT)}, content_hash = excluded.content_hash,
        updated_at = CASE WHEN ({listed(_RUN_CONTENT, "r.")})
                               IS DISTINCT FROM ({listed(_RUN_CONTENT, "excluded.")})
                          THEN now() ELSE r.updated_at END
    WHERE ({listed(_RUN_CONTENT, "r.")}, r.content_hash)
          IS DISTINCT FROM ({listed(_RUN_CONTENT, "excluded.")}, excluded.content_hash)
    RETURNING xmax = 0 AS inserted, updated_at = now() AS changed
""")

_UPSERT_RUN_PAYLOADS = text(f"""
    INSERT INTO orchestra.run_payloads AS p (run_id, {listed(_RUN_PAYLOADS)})
    SELECT id, {listed(_RUN_PAYLOADS)} FROM {_STAGED_RUNS.name}
    WHERE inputs IS NOT NULL OR outputs IS NOT NULL OR note IS NOT NULL
    ORDER BY id
    ON CONFLICT (run_id) DO UPDATE SET {assign(_RUN_PAYLOADS)}
    WHERE ({listed(_RUN_PAYLOADS, "p.")}) IS DISTINCT FROM ({listed(_RUN_PAYLOADS, "excluded.")})
""")

# If redaction rules remove payloads completely, those of an earlier load must not stay.
_DROP_RUN_PAYLOADS = text("""
    DELETE FROM orchestra.run_payloads WHERE run_id = ANY (CAST(:ids AS text[]))
""")

# For runs whose stored content stays: only the columns that the ledger decides change.
_TOUCH_RUNS = text("""
    UPDATE orchestra.runs AS r
    SET tracking = t.tracking, workflow_id = t.workflow_id, updated_at = now()
    FROM unnest(CAST(:ids AS text[]), CAST(:workflow_ids AS text[]), CAST(:tracking AS text[]))
         AS t (id, workflow_id, tracking)
    WHERE r.id = t.id AND (r.tracking, r.workflow_id) IS DISTINCT FROM (t.tracking, t.workflow_id)
""")


_NO_PAYLOADS = _RunPayloads()


class _Rows(NamedTuple):
    """A run and the rows that store it."""

    run: RunWrite
    own: _RunRow
    content_hash: bytes
    payloads: _RunPayloads | None
    is_stored: bool = False
    """Whether there is a row already."""


_MEMBERS = msgspec.json.Decoder(dict[str, Raw])


def _identity(source: bytes) -> bytes | None:
    """Return a hash of the row without `elapsed_time`, or None if the row cannot be split.

    `elapsed_time` grows while the run is open: with it, each read would add another dead letter.
    If the hash is None, all bytes of the row identify the dead letter.
    """
    try:
        members = _MEMBERS.decode(source)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    members.pop("elapsed_time", None)
    return hashlib.blake2b(msgspec.json.encode(members), digest_size=16).digest()


def write_runs(
    connection: Connection,
    batch: Sequence[RunWrite],
    written: WriteReport,
    guard: Isolation | None = None,
) -> None:
    """Write these runs' own rows and payloads, and add the counts to `written`."""

    def refuse(one: _Rows, why: str) -> None:
        run = one.run
        if run.observed is not None:
            source = bytes(run.observed.source)
            letter = Rejected(
                "rejected", f"the run's own row: {why}", source, content_hash=_identity(source)
            )
            written.rejected.append((run.workflow_id, run.id, letter))
        # A stored row stays. If there is none, the run is stored from its steps alone, so that
        # the steps can be stored.
        bare = msgspec.structs.replace(run, observed=None)
        if run.stored:
            kept.append(bare)
        else:
            work([_rows(bare)])

    def work(some: Sequence[_Rows]) -> None:
        is_new = guard is None and not any(one.is_stored for one in some)
        if is_new and _insert(connection, some):
            written.runs_inserted += len(some)
            return
        _STAGED_RUNS.fill(
            connection,
            ((*one.own, one.content_hash, *(one.payloads or _NO_PAYLOADS)) for one in some),
        )
        rows = connection.execute(_UPSERT_RUNS).all()
        if any(one.payloads is not None for one in some):
            connection.execute(_UPSERT_RUN_PAYLOADS)
        emptied = [one.run.id for one in some if _is_redacted(one.run) and one.payloads is None]
        if emptied:
            connection.execute(_DROP_RUN_PAYLOADS, {"ids": emptied})
        inserted = sum(row.inserted for row in rows)
        written.runs_inserted += inserted
        written.runs_updated += sum(row.changed for row in rows) - inserted

    kept = [run for run in batch if run.observed is None and run.stored]
    fresh = _changed(
        connection, [run for run in batch if run.observed is not None or not run.stored]
    )
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


def _changed(connection: Connection, fresh: Sequence[RunWrite]) -> list[_Rows]:
    """Return the rows of the runs whose stored row differs or is missing."""
    if not fresh:
        return []
    stored = {
        row.id: (row.workflow_id, row.tracking, row.state, row.content_hash)
        for row in connection.execute(_STORED_RUNS, {"ids": [run.id for run in fresh]}).all()
    }
    return [
        one._replace(is_stored=one.own.id in stored)
        for one in map(_rows, fresh)
        if stored.get(one.own.id) != _compared(one)
    ]


def _insert(connection: Connection, new: Sequence[_Rows]) -> bool:
    """Insert new runs; return False if one of their ids exists already: nothing is written."""
    rows = sorted(((*one.own, one.content_hash) for one in new), key=itemgetter(0))
    if not copy_new(connection, "orchestra.runs", _RUN_TYPES, rows):
        return False
    payloads = [
        (one.own.id, *one.payloads)
        for one in new
        if one.payloads is not None and one.payloads != _NO_PAYLOADS
    ]
    if payloads:
        payloads.sort(key=itemgetter(0))
        copy(connection, "orchestra.run_payloads", _PAYLOAD_TYPES, payloads)
    return True


def _compared(one: _Rows) -> tuple[str, str, str, bytes]:
    return one.own.workflow_id, one.own.tracking, one.own.state, one.content_hash


def _rows(run: RunWrite) -> _Rows:
    own, payloads = _run_row(run), _run_payload_row(run)
    # The hash covers everything that is stored of the run, except the columns that `_STORED_RUNS`
    # compares. The payloads are hashed last and need not be copied; their sizes keep them apart.
    inputs, outputs, *rest = payloads or _NO_PAYLOADS
    sizes = [None if one is None else memoryview(one).nbytes for one in (inputs, outputs)]
    hashed = own[_RunRow._fields.index("state") + 1 :]
    digest = hashlib.blake2b(msgspec.msgpack.encode((hashed, sizes, rest)), digest_size=16)
    for one in (inputs, outputs):
        digest.update(one or b"")
    return _Rows(run, own, digest.digest(), payloads)


def _run_row(run: RunWrite) -> _RunRow:
    own = run.observed
    if own is None:
        return _RunRow(
            id=run.id,
            workflow_id=run.workflow_id,
            tracking=run.tracking,
            state=run.derived_state,
            organization_id=run.organization_id,
            user_id=run.user_id,
            status=None,
            status_source="derived",
            start_time=run.start_time,
            end_time=run.end_time,
            api_elapsed_seconds=None,
            error=None,
            extra=None,
            redaction_policy=next((step.redaction_policy for step in run.steps), None),
        )
    return _RunRow(
        id=run.id,
        workflow_id=run.workflow_id,
        tracking=run.tracking,
        state=own.state,
        organization_id=own.organization_id or run.organization_id,
        user_id=own.user_id or run.user_id,
        status=own.status,
        status_source="api",
        start_time=own.start_time,
        end_time=own.end_time,
        api_elapsed_seconds=own.api_elapsed_seconds,
        error=own.error,
        extra=own.extra,
        redaction_policy=own.redaction_policy,
    )


def _is_redacted(run: RunWrite) -> bool:
    return run.observed is not None and run.observed.redaction_policy is not None


_NO_PAYLOAD = Payload(None, 0)


def _run_payload_row(run: RunWrite) -> _RunPayloads | None:
    own = run.observed
    if own is None or (own.inputs is None and own.outputs is None):
        return None
    inputs, outputs = own.inputs or _NO_PAYLOAD, own.outputs or _NO_PAYLOAD
    note = (
        "; ".join(
            f"{name}: {p.note}" for name, p in (("inputs", inputs), ("outputs", outputs)) if p.note
        )
        or None
    )
    return _RunPayloads(
        inputs=inputs.data,
        outputs=outputs.data,
        inputs_raw=inputs.raw,
        outputs_raw=outputs.raw,
        note=note,
    )

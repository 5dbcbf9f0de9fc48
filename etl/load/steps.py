"""The write of steps with their inputs and outputs.

Steps stored with the same hash are not sent. If all steps of a statement are new, they are copied
directly into `steps`, otherwise they are staged. Payloads of new steps are copied directly into
their tables: the same transaction inserted the row of `steps`, which proves that no payload exists
yet. Other payloads are staged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Literal

import msgspec
from sqlalchemy import Connection, text

from etl.load.batch import Isolation, RunWrite, WriteReport
from etl.load.staging import Staging, assign, column_types, copy, copy_new, listed
from etl.records import Payload, Rejected, RejectionReason, Step
from etl.tables import inputs, steps
from etl.usage import Usage

# All fields of the record, except these, are columns of the same name.
_STEP_FIELDS = tuple(
    name for name in Step.__struct_fields__ if name not in {"usage", "inputs", "outputs", "source"}
)
_STEP_COLUMNS = ("run_id", "workflow_id", *_STEP_FIELDS, *Usage.__struct_fields__)
_STEP_CONTENT = tuple(name for name in _STEP_COLUMNS if name != "id")
_PAYLOAD_CONTENT = Payload.__struct_fields__
_STAGED_STEPS = Staging("staged_steps", column_types(steps, _STEP_COLUMNS))
_fields_of_step = attrgetter(*_STEP_FIELDS)

# Maximum number of steps and bytes that one statement writes, which takes about a second.
_STATEMENT_STEPS = 10_000
_STATEMENT_BYTES = 64 << 20

_STORED_STEPS = text("""
    SELECT id, run_id, workflow_id, content_hash, absent_since IS NOT NULL AS absent
    FROM orchestra.steps
    WHERE run_id = ANY (CAST(:run_ids AS text[]))
""")

# The run that stored a step's id first owns it: steps of other runs with this id are not written.
_UPSERT_STEPS = text(f"""
    INSERT INTO orchestra.steps AS s (id, {listed(_STEP_CONTENT)})
    SELECT id, {listed(_STEP_CONTENT)} FROM {_STAGED_STEPS.name} ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {assign(_STEP_CONTENT)}, absent_since = NULL, updated_at = now()
    WHERE s.run_id = excluded.run_id
""")

_OWNED_BY_OTHERS = text(f"""
    SELECT n.id
    FROM {_STAGED_STEPS.name} AS n JOIN orchestra.steps AS s ON s.id = n.id
    WHERE s.run_id <> n.run_id
""")

_PAYLOADS: tuple[Literal["inputs", "outputs"], ...] = ("inputs", "outputs")
_STAGED_PAYLOADS = {
    name: Staging(f"staged_{name}", column_types(inputs, ("step_id", *_PAYLOAD_CONTENT)))
    for name in _PAYLOADS
}

_UPSERT_PAYLOADS = {
    name: text(f"""
        INSERT INTO orchestra.{name} AS p (step_id, {listed(_PAYLOAD_CONTENT)})
        SELECT step_id, {listed(_PAYLOAD_CONTENT)}
        FROM {_STAGED_PAYLOADS[name].name} ORDER BY step_id
        ON CONFLICT (step_id) DO UPDATE SET {assign(_PAYLOAD_CONTENT)}
        WHERE ({listed(_PAYLOAD_CONTENT, "p.")})
              IS DISTINCT FROM ({listed(_PAYLOAD_CONTENT, "excluded.")})
    """)
    for name in _PAYLOADS
}

# If redaction rules remove payloads completely, those of an earlier load must not stay.
_DROP_PAYLOADS = {
    name: text(f"DELETE FROM orchestra.{name} WHERE step_id = ANY (CAST(:ids AS text[]))")
    for name in _PAYLOADS
}

_MARK_ABSENT = text("""
    UPDATE orchestra.steps AS s
    SET absent_since = now(), updated_at = now()
    FROM (
        SELECT id FROM orchestra.steps
        WHERE id = ANY (CAST(:ids AS text[])) AND absent_since IS NULL
        ORDER BY id FOR UPDATE
    ) AS missing
    WHERE s.id = missing.id
""")

_MOVE_STEPS = text("""
    UPDATE orchestra.steps AS s
    SET workflow_id = r.workflow_id, updated_at = now()
    FROM orchestra.runs AS r
    WHERE r.id = ANY (CAST(:run_ids AS text[]))
      AND s.run_id = r.id AND s.workflow_id <> r.workflow_id
""")


def write_steps(
    connection: Connection,
    batch: Sequence[RunWrite],
    written: WriteReport,
    guard: Isolation | None = None,
) -> None:
    """Write the steps of these runs, and add the counts to `written`.

    The runs' own rows must be stored already. The caller holds the ledger's locks on the runs, so
    no other process writes their steps at the same time.
    """
    workflows = {run.id: run.workflow_id for run in batch}
    # One set for each run: another run of the batch may return the id of a step that its owner no
    # longer returns.
    returned = {run.id: {step.id for step in run.steps} for run in batch if run.complete}
    stored: dict[str, bytes | None] = {}  # Content hash by id; None for a step marked absent.
    owners: dict[str, str] = {}
    missing: list[str] = []
    moved: set[str] = set()
    rows = connection.execute(_STORED_STEPS, {"run_ids": list(workflows)})
    for id, run_id, workflow_id, content_hash, absent in rows.all():
        owners[id] = run_id
        stored[id] = None if absent else content_hash
        if not absent and run_id in returned and id not in returned[run_id]:
            missing.append(id)
        if workflow_id != workflows[run_id]:
            moved.add(run_id)
    for run in batch:
        for step in run.steps:
            owners.setdefault(step.id, run.id)

    def reject(run: RunWrite, step: Step, reason: RejectionReason, why: str) -> None:
        written.rejected.append(
            (run.workflow_id, run.id, Rejected(reason, why, bytes(step.source), step.id))
        )

    def reject_conflict(run: RunWrite, step: Step) -> None:
        reject(run, step, "id_conflict", "another run already owns a step with this id")

    def refuse(one: tuple[RunWrite, Step], why: str) -> None:
        reject(*one, "rejected", why)

    def work(some: Sequence[tuple[RunWrite, Step]]) -> None:
        known = [step for _, step in some if step.id in stored]
        # With a guard, groups are tried until one is accepted: a second savepoint would not pay.
        is_new = guard is None and not known
        taken = set() if is_new and _insert(connection, some) else _upsert(connection, some)
        for run, step in some:
            if step.id in taken:
                reject_conflict(run, step)
        new = [step for _, step in some if step.id not in stored and step.id not in taken]
        _insert_payloads(connection, new)
        _update_payloads(connection, known)
        written.steps_updated += len(known)
        written.steps_inserted += len(new)

    changed: list[tuple[RunWrite, Step]] = []
    for run in batch:
        for step in run.steps:
            if owners[step.id] != run.id:
                reject_conflict(run, step)
            elif stored.get(step.id) != step.content_hash:
                changed.append((run, step))
    # Sorted in the order of the index, so that neighbouring entries are written together.
    changed.sort(key=lambda one: one[1].id)
    for part in _parts(changed):
        if guard is None:
            work(part)
        else:
            guard(part, work, refuse)
    if missing:
        written.steps_absent += connection.execute(_MARK_ABSENT, {"ids": missing}).rowcount
    if moved:
        connection.execute(_MOVE_STEPS, {"run_ids": sorted(moved)})


def _parts(changed: Sequence[tuple[RunWrite, Step]]) -> Iterator[Sequence[tuple[RunWrite, Step]]]:
    """Yield parts small enough for one statement (`_STATEMENT_STEPS`, `_STATEMENT_BYTES`)."""
    first = size = 0
    for index, (_, step) in enumerate(changed):
        size += memoryview(step.source).nbytes
        if size >= _STATEMENT_BYTES or index - first >= _STATEMENT_STEPS - 1:
            yield changed[first : index + 1]
            first, size = index + 1, 0
    if first < len(changed):
        yield changed[first:]


def _insert(connection: Connection, new: Sequence[tuple[RunWrite, Step]]) -> bool:
    """Insert new steps; return False if one of their ids exists already: nothing is written."""
    rows = (_step_row(run, step) for run, step in new)
    return copy_new(connection, "orchestra.steps", _STAGED_STEPS.columns, rows)


def _upsert(connection: Connection, some: Sequence[tuple[RunWrite, Step]]) -> set[str]:
    """Insert or replace steps; return the ids that other runs own: those are not written."""
    _STAGED_STEPS.fill(connection, (_step_row(run, step) for run, step in some))
    if connection.execute(_UPSERT_STEPS).rowcount == len(some):
        return set()
    return set(connection.execute(_OWNED_BY_OTHERS).scalars())


def _insert_payloads(connection: Connection, new: Sequence[Step]) -> None:
    for name in _PAYLOADS:
        rows = [
            (step.id, *msgspec.structs.astuple(payload))
            for step in new
            if (payload := getattr(step, name)) is not None
        ]
        if rows:
            copy(connection, f"orchestra.{name}", _STAGED_PAYLOADS[name].columns, rows)


def _update_payloads(connection: Connection, known: Sequence[Step]) -> None:
    for name in _PAYLOADS:
        found = ((step, getattr(step, name)) for step in known)
        update_payloads(
            connection,
            name,
            {
                step.id: payload
                for step, payload in found
                if payload is not None or step.redaction_policy is not None
            },
        )


def update_payloads(
    connection: Connection,
    name: Literal["inputs", "outputs"],
    payloads: Mapping[str, Payload | None],
) -> None:
    """Store payloads of stored steps, by step id; None removes the stored payload."""
    rows = [
        (id, *msgspec.structs.astuple(payload))
        for id, payload in payloads.items()
        if payload is not None
    ]
    if rows:
        _STAGED_PAYLOADS[name].fill(connection, rows)
        connection.execute(_UPSERT_PAYLOADS[name])
    gone = [id for id, payload in payloads.items() if payload is None]
    if gone:
        connection.execute(_DROP_PAYLOADS[name], {"ids": gone})


def _step_row(run: RunWrite, step: Step) -> tuple[object, ...]:
    """Return the step's values in the order of `_STEP_COLUMNS`."""
    return (run.id, run.workflow_id, *_fields_of_step(step), *msgspec.structs.astuple(step.usage))

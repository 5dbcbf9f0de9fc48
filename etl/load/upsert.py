"""The set-based, idempotent write of runs and steps.

What is already stored with the same hash is not even sent. What is sent goes through COPY into temporary tables
and from there, in key order, into the four tables. The caller holds the ledger's locks on the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, text

from etl.database import is_database_error, is_transient, sqlstate
from etl.load import retention
from etl.load.staging import column_types, stage
from etl.records import Payload, Rejected, Run, Step
from etl.tables import run_payloads, runs, steps

T = TypeVar("T")


class RunWrite(msgspec.Struct, frozen=True):
    """One run as a poll found it, ready to be stored."""

    id: str
    workflow_id: str
    tracking: str
    observed: Run | None
    """The API's own row of the run, where there is one that is newer than what is stored."""
    stored: bool
    """Whether a row made from the API's own is stored already; it then keeps its content."""
    derived_state: str
    """What follows from the steps, for a run of which the API gives no row."""
    start_time: datetime | None
    end_time: datetime | None
    user_id: str | None
    organization_id: str | None
    steps: tuple[Step, ...]
    complete: bool
    """Whether `steps` is all that the run has: stored steps that are not among them are then marked absent."""


class Written(msgspec.Struct):
    """What a write changed."""

    runs_inserted: int = 0
    runs_updated: int = 0
    steps_inserted: int = 0
    steps_updated: int = 0
    steps_absent: int = 0
    rejected: list[tuple[str, str, Rejected]] = []
    """Workflow id, run id and what was set aside."""


_RUN_CONTENT = (
    "workflow_id", "organization_id", "user_id", "status", "state", "status_source", "tracking", "start_time", "end_time",
    "api_elapsed_seconds", "error", "extra", "redaction_policy",
)  # fmt: skip
_STEP_CONTENT = (
    "run_id", "workflow_id", "node_id", "node_type", "position", "user_id", "organization_id", "status", "state",
    "start_time", "end_time", "api_elapsed_seconds", "api_tokens", "request_model", "response_model", "input_tokens",
    "output_tokens", "total_tokens", "cached_input_tokens", "reasoning_tokens", "finish_reason", "error", "reported_error",
    "step_metadata", "extra", "redaction_policy", "content_hash",
)  # fmt: skip
_RUN_PAYLOADS = ("inputs", "outputs", "inputs_raw", "outputs_raw", "note")
_STAGED_RUNS = column_types(runs, ("id", *_RUN_CONTENT))
_STAGED_RUN_PAYLOADS = column_types(run_payloads, ("run_id", *_RUN_PAYLOADS))
_STAGED_STEPS = column_types(steps, ("id", *_STEP_CONTENT)) | {
    f"{name}_{part}": kind
    for name in ("inputs", "outputs")
    for part, kind in (("data", "jsonb"), ("size", "bigint"), ("raw", "bytea"), ("note", "text"))
}


def _list(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(prefix + column for column in columns)


def _assign(columns: Sequence[str]) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns)


_UPSERT_RUNS = text(f"""
    INSERT INTO orchestra.runs AS r (id, {_list(_RUN_CONTENT)})
    SELECT id, {_list(_RUN_CONTENT)} FROM staged_runs ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {_assign(_RUN_CONTENT)}, updated_at = now()
    WHERE ({_list(_RUN_CONTENT, "r.")}) IS DISTINCT FROM ({_list(_RUN_CONTENT, "excluded.")})
    RETURNING xmax = 0 AS inserted
""")

_UPSERT_RUN_PAYLOADS = text(f"""
    INSERT INTO orchestra.run_payloads AS p (run_id, {_list(_RUN_PAYLOADS)})
    SELECT run_id, {_list(_RUN_PAYLOADS)} FROM staged_run_payloads ORDER BY run_id
    ON CONFLICT (run_id) DO UPDATE SET {_assign(_RUN_PAYLOADS)}
    WHERE ({_list(_RUN_PAYLOADS, "p.")}) IS DISTINCT FROM ({_list(_RUN_PAYLOADS, "excluded.")})
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

_KNOWN_STEPS = text("""
    SELECT id, run_id, content_hash, absent_since IS NOT NULL AS absent
    FROM orchestra.steps
    WHERE id = ANY (CAST(:ids AS text[]))
""")

# The owner of a step's id is the run that stored it first.
_UPSERT_STEPS = text(f"""
    INSERT INTO orchestra.steps AS s (id, {_list(_STEP_CONTENT)})
    SELECT id, {_list(_STEP_CONTENT)} FROM staged_steps ORDER BY id
    ON CONFLICT (id) DO UPDATE SET {_assign(_STEP_CONTENT)}, absent_since = NULL, updated_at = now()
    WHERE s.run_id = excluded.run_id
    RETURNING s.id
""")

_DROP_CONFLICTS = text("""
    DELETE FROM staged_steps AS n
    USING orchestra.steps AS s
    WHERE s.id = n.id AND s.run_id <> n.run_id
    RETURNING n.id
""")


def _upsert_payload(name: str) -> str:
    return f"""
        INSERT INTO orchestra.{name} AS p (step_id, data, size_bytes, raw, note)
        SELECT id, {name}_data, {name}_size, {name}_raw, {name}_note
        FROM staged_steps WHERE {name}_size IS NOT NULL ORDER BY id
        ON CONFLICT (step_id) DO UPDATE
        SET data = excluded.data, size_bytes = excluded.size_bytes, raw = excluded.raw, note = excluded.note
        WHERE (p.data, p.size_bytes, p.raw, p.note)
              IS DISTINCT FROM (excluded.data, excluded.size_bytes, excluded.raw, excluded.note)
    """


_UPSERT_PAYLOADS = (text(_upsert_payload("inputs")), text(_upsert_payload("outputs")))

# As _DROP_RUN_PAYLOADS.
_DROP_PAYLOADS = tuple(
    text(f"""
        DELETE FROM orchestra.{name} AS p
        USING staged_steps AS n
        WHERE p.step_id = n.id AND n.{name}_size IS NULL AND n.redaction_policy IS NOT NULL
    """)
    for name in ("inputs", "outputs")
)

# By run, not by id alone: that another run of the batch answers with a step's id does not mean that its owner still does.
_MARK_ABSENT = text("""
    UPDATE orchestra.steps AS s
    SET absent_since = now(), updated_at = now()
    FROM (
        SELECT id FROM orchestra.steps AS stored
        WHERE run_id = ANY (CAST(:run_ids AS text[])) AND absent_since IS NULL
          AND NOT EXISTS (
              SELECT FROM unnest(CAST(:owners AS text[]), CAST(:ids AS text[])) AS answered (run_id, id)
              WHERE answered.id COLLATE "C" = stored.id AND answered.run_id COLLATE "C" = stored.run_id)
        ORDER BY id FOR UPDATE OF stored
    ) AS missing
    WHERE s.id = missing.id
""")

_MOVE_STEPS = text("""
    UPDATE orchestra.steps AS s
    SET workflow_id = r.workflow_id, updated_at = now()
    FROM orchestra.runs AS r
    WHERE r.id = ANY (CAST(:run_ids AS text[])) AND s.run_id = r.id AND s.workflow_id <> r.workflow_id
""")


def write(connection: Connection, found: Sequence[RunWrite], *, isolate: bool = False) -> Written:
    """Store what a poll found; rows that are stored already and unchanged are not written.

    Args:
        connection: in a transaction that holds the ledger's locks on these runs.
        found: the runs, each at most once.
        isolate: find single rows that PostgreSQL refuses by bisection and set them aside, so that the rest lands.
            Without it the error is raised.

    Raises:
        psycopg.Error, sqlalchemy.exc.DBAPIError: the database refuses; nothing of this call may be kept.
    """
    written = Written()
    found = retention.within(connection, found)
    guard = _Isolation(connection) if isolate else None
    _write_runs(connection, found, written, guard)
    _write_steps(connection, found, written, guard)
    return written


class _Isolation:
    """Runs a write of rows inside savepoints, halving the rows until the refused ones stand alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(
        self, rows: Sequence[T], work: Callable[[Sequence[T]], None], refuse: Callable[[T, str], None]
    ) -> None:
        try:
            with self._connection.begin_nested():
                work(rows)
        except Exception as error:
            if not is_database_error(error) or is_transient(error):
                raise
            if len(rows) == 1:
                refuse(rows[0], f"PostgreSQL refuses it with SQLSTATE {sqlstate(error) or type(error).__name__}")
                return
            middle = len(rows) // 2
            self(rows[:middle], work, refuse)
            self(rows[middle:], work, refuse)


def _write_runs(connection: Connection, found: Sequence[RunWrite], written: Written, guard: _Isolation | None) -> None:
    def refuse(run: RunWrite, why: str) -> None:
        body = msgspec.json.encode(run.observed)
        written.rejected.append((run.workflow_id, run.id, Rejected("rejected", f"the run's own row: {why}", body)))
        # An earlier row of the run stays; without one it is stored by what follows from its steps, so that they can land.
        bare = msgspec.structs.replace(run, observed=None)
        if run.stored:
            kept.append(bare)
        else:
            work([bare])

    def work(some: Sequence[RunWrite]) -> None:
        stage(connection, "staged_runs", _STAGED_RUNS, map(_run_row, some))
        rows = connection.execute(_UPSERT_RUNS).all()
        payloads = [row for run in some if (row := _run_payload_row(run)) is not None]
        if payloads:
            stage(connection, "staged_run_payloads", _STAGED_RUN_PAYLOADS, payloads)
            connection.execute(_UPSERT_RUN_PAYLOADS)
        emptied = [run.id for run in some if _is_redacted(run) and _run_payload_row(run) is None]
        if emptied:
            connection.execute(_DROP_RUN_PAYLOADS, {"ids": emptied})
        inserted = sum(row.inserted for row in rows)
        written.runs_inserted += inserted
        written.runs_updated += len(rows) - inserted

    kept = [run for run in found if run.observed is None and run.stored]
    fresh = [run for run in found if run.observed is not None or not run.stored]
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


def _write_steps(connection: Connection, found: Sequence[RunWrite], written: Written, guard: _Isolation | None) -> None:
    owners: dict[str, str] = {}
    for run in found:
        for step in run.steps:
            owners.setdefault(step.id, run.id)
    known = {row.id: row for row in connection.execute(_KNOWN_STEPS, {"ids": list(owners)})} if owners else {}
    owners |= {id: row.run_id for id, row in known.items()}

    def set_aside(run: RunWrite, step: Step, reason: str, why: str) -> None:
        written.rejected.append((run.workflow_id, run.id, Rejected(reason, why, bytes(step.source), step.id)))

    def changed() -> Iterator[tuple[RunWrite, Step]]:
        for run in found:
            for step in run.steps:
                row = known.get(step.id)
                if owners[step.id] != run.id:
                    set_aside(run, step, "id_conflict", "another run already owns a step with this id")
                elif row is None or row.absent or bytes(row.content_hash) != step.content_hash:
                    yield run, step

    def refuse(one: tuple[RunWrite, Step], why: str) -> None:
        set_aside(*one, "rejected", why)

    def work(some: Sequence[tuple[RunWrite, Step]]) -> None:
        stage(connection, "staged_steps", _STAGED_STEPS, (_step_row(run, step) for run, step in some))
        landed = connection.execute(_UPSERT_STEPS).rowcount
        if landed != len(some):
            # Another run took an id between the look-up and the upsert.
            taken = {row.id for row in connection.execute(_DROP_CONFLICTS)}
            for run, step in some:
                if step.id in taken:
                    set_aside(run, step, "id_conflict", "another run already owns a step with this id")
        redacted = any(step.redaction_policy is not None for _, step in some)
        for statement in (*_UPSERT_PAYLOADS, *(_DROP_PAYLOADS if redacted else ())):
            connection.execute(statement)
        updated = sum(step.id in known for _, step in some)
        written.steps_updated += updated
        written.steps_inserted += landed - updated

    pairs = list(changed())
    if pairs and guard is None:
        work(pairs)
    elif pairs and guard is not None:
        guard(pairs, work, refuse)
    reread = [run for run in found if run.complete]
    if reread:
        written.steps_absent += connection.execute(
            _MARK_ABSENT,
            {
                "run_ids": [run.id for run in reread],
                "owners": [run.id for run in reread for _ in run.steps],
                "ids": [step.id for run in reread for step in run.steps],
            },
        ).rowcount
    connection.execute(_MOVE_STEPS, {"run_ids": [run.id for run in found]})


def _run_row(run: RunWrite) -> tuple[object, ...]:
    own = run.observed
    if own is None:
        return (
            run.id, run.workflow_id, run.organization_id, run.user_id, None, run.derived_state, "derived", run.tracking,
            run.start_time, run.end_time, None, None, None, next((step.redaction_policy for step in run.steps), None),
        )  # fmt: skip
    return (
        run.id, run.workflow_id, own.organization_id or run.organization_id, own.user_id or run.user_id, own.status,
        own.state, "api", run.tracking, own.start_time, own.end_time, own.api_elapsed_seconds, own.error, own.extra,
        own.redaction_policy,
    )  # fmt: skip


def _is_redacted(run: RunWrite) -> bool:
    return run.observed is not None and run.observed.redaction_policy is not None


_NO_PAYLOAD = Payload(None, 0)


def _run_payload_row(run: RunWrite) -> tuple[object, ...] | None:
    own = run.observed
    if own is None or (own.inputs is None and own.outputs is None):
        return None
    given, gave = own.inputs or _NO_PAYLOAD, own.outputs or _NO_PAYLOAD
    note = "; ".join(f"{name}: {p.note}" for name, p in (("inputs", given), ("outputs", gave)) if p.note) or None
    return run.id, given.data, gave.data, given.raw, gave.raw, note


def _step_row(run: RunWrite, step: Step) -> tuple[object, ...]:
    return (
        step.id, run.id, run.workflow_id, step.node_id, step.node_type, step.position, step.user_id, step.organization_id,
        step.status, step.state, step.start_time, step.end_time, step.api_elapsed_seconds, step.api_tokens,
        step.request_model, step.response_model, step.input_tokens, step.output_tokens, step.total_tokens,
        step.cached_input_tokens, step.reasoning_tokens, step.finish_reason, step.error, step.reported_error,
        step.step_metadata, step.extra, step.redaction_policy, step.content_hash, *_payload_row(step.inputs),
        *_payload_row(step.outputs),
    )  # fmt: skip


def _payload_row(payload: Payload | None) -> tuple[object, ...]:
    if payload is None:
        return None, None, None, None
    return payload.data, payload.size_bytes, payload.raw, payload.note

"""Stored runs for people to read: the recent ones, and one run with its steps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, text

from etl.ledger.outlook import Entry, Outlook, outlook

_WANTED = """(CAST(:workflows AS text[]) IS NULL OR workflow_id = ANY (CAST(:workflows AS text[])))
             AND (CAST(:state AS text) IS NULL OR state = :state)"""

# `#>> '{}'` returns a JSON string as its own text, any other value as JSON text, and JSON null as
# NULL.
_RECENT = text(f"""
    SELECT r.id, r.workflow_id, w.name AS workflow_name, r.status, r.state, r.tracking,
           r.start_time, r.end_time, r.duration_ms, s.steps, s.total_tokens,
           COALESCE(orchestra.error_message(r.error, NULL), failed.error) AS first_error
    FROM (
        -- A run that has not started is ordered by the time at which it was first seen. No index
        -- serves an order by COALESCE: each part reads its newest runs by an index of its own.
        SELECT * FROM (
            (SELECT * FROM orchestra.runs WHERE start_time IS NOT NULL AND {_WANTED}
             ORDER BY start_time DESC, id LIMIT :limit)
            UNION ALL
            (SELECT * FROM orchestra.runs WHERE start_time IS NULL AND {_WANTED}
             ORDER BY first_seen_at DESC, id LIMIT :limit)
        ) AS newest
        ORDER BY COALESCE(start_time, first_seen_at) DESC, id
        LIMIT :limit
    ) AS r
    LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS steps,
               CAST(sum(orchestra.total_tokens(input_tokens, output_tokens, total_tokens))
                    AS bigint) AS total_tokens
        FROM orchestra.steps WHERE run_id = r.id AND absent_since IS NULL
    ) AS s
    LEFT JOIN LATERAL (
        SELECT orchestra.error_message(error, reported_error) AS error
        FROM orchestra.steps
        WHERE run_id = r.id AND absent_since IS NULL
          AND (error IS NOT NULL OR reported_error IS NOT NULL)
          AND orchestra.error_message(error, reported_error) IS NOT NULL
        ORDER BY position, id
        LIMIT 1
    ) AS failed ON true
    ORDER BY COALESCE(r.start_time, r.first_seen_at) DESC, r.id
""")

_RUN = text("""
    SELECT now() AS at, l.run_id AS id, COALESCE(r.workflow_id, l.workflow_id) AS workflow_id,
           w.name AS workflow_name, r.id IS NOT NULL AS stored, r.status, r.state, r.status_source,
           l.tracking, r.start_time, r.end_time, r.duration_ms, r.error::text AS error,
           r.extra::text AS extra, l.source, l.first_seen_at, r.updated_at, l.steps_observed_at,
           l.due_at, l.attempts, l.last_error, l.priority, l.leased_until, l.fencing_token,
           l.checks, l.not_found_since, l.reopened_by, l.opened_at, l.run_state, l.removed_at
    FROM orchestra_etl.run_ledger AS l
    LEFT JOIN orchestra.runs AS r ON r.id = l.run_id
    LEFT JOIN orchestra.workflows AS w ON w.id = COALESCE(r.workflow_id, l.workflow_id)
    WHERE l.run_id = :id
""")

_STEPS = text("""
    SELECT id, node_id, node_type, position, status, state, start_time, end_time, duration_ms,
           request_model, response_model, input_tokens, output_tokens, total_tokens, finish_reason,
           error::text AS error, reported_error, absent_since
    FROM orchestra.steps
    WHERE run_id = :id
    ORDER BY start_time NULLS LAST, position, id
""")

_STEP_PAYLOADS = text("""
    SELECT s.id AS step_id, p.name, p.data::text AS data, p.size_bytes, p.raw, p.note
    FROM orchestra.steps AS s
    CROSS JOIN LATERAL (
        SELECT 'inputs' AS name, data, size_bytes, raw, note
        FROM orchestra.inputs WHERE step_id = s.id
        UNION ALL
        SELECT 'outputs', data, size_bytes, raw, note
        FROM orchestra.outputs WHERE step_id = s.id
    ) AS p
    WHERE s.run_id = :id
""")

_HAS_CALLS = text("SELECT to_regclass('orchestra.model_calls') IS NOT NULL")

_CALLS = text("""
    SELECT step_id, system, prompt, answer, tools::text AS tools, images, audio,
           parameters::text AS parameters
    FROM orchestra.model_calls
    WHERE run_id = :id
""")

_RUN_PAYLOADS = text("""
    SELECT inputs::text AS inputs, outputs::text AS outputs, inputs_raw, outputs_raw, note
    FROM orchestra.run_payloads
    WHERE run_id = :id
""")


_WORKFLOW = text("SELECT workflow_id FROM orchestra_etl.run_ledger WHERE run_id = :run_id")


class RecentRun(msgspec.Struct, frozen=True):
    """A run in a list of runs."""

    id: str
    workflow_id: str
    workflow_name: str | None
    status: str | None
    state: str
    tracking: str
    start_time: datetime | None
    end_time: datetime | None
    duration_ms: float | None
    steps: int
    total_tokens: int | None
    first_error: str | None
    """The run's own error, otherwise that of its first step with an error; None: no error."""


class StepPayload(msgspec.Struct, frozen=True):
    """A step's inputs or outputs.

    JSON stays text: parsing and printing it would lose digits.
    """

    data: msgspec.Raw | None
    size_bytes: int
    raw: bytes | None
    note: str | None


class RunPayloads(msgspec.Struct, frozen=True):
    """A run's inputs and outputs."""

    inputs: msgspec.Raw | None
    outputs: msgspec.Raw | None
    inputs_raw: bytes | None
    outputs_raw: bytes | None
    note: str | None


class StepDetail(msgspec.Struct, frozen=True):
    """A step of the shown run."""

    id: str
    node_id: str | None
    node_type: str | None
    position: int
    status: str | None
    state: str
    start_time: datetime | None
    end_time: datetime | None
    duration_ms: float | None
    request_model: str | None
    response_model: str | None
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    finish_reason: str | None
    error: msgspec.Raw | None
    reported_error: str | None
    absent_since: datetime | None
    payloads: dict[str, StepPayload] | None = None
    """The stored payloads, by `inputs` and `outputs`; None if they were not requested."""
    system: str | None = None
    """For a call of a model, this and the following fields are the texts of its payloads, as in the
    view `model_calls`; None if they were not requested, or if the payload's shape is not known."""
    prompt: str | None = None
    answer: str | None = None
    tools: msgspec.Raw | None = None
    """The tools that the model called: an array of objects with `name` and `arguments`."""
    images: int | None = None
    """Images in the inputs and outputs."""
    audio: int | None = None
    """Pieces of audio in the inputs and outputs."""
    parameters: msgspec.Raw | None = None
    """The settings of the call, such as `temperature`: an object."""


class RunDetail(msgspec.Struct, frozen=True):
    """One run with its steps, whether it was read or is only known."""

    at: datetime
    """Database time of the query."""
    id: str
    workflow_id: str
    workflow_name: str | None
    stored: bool
    """False if the run was never read: then only the columns of the ledger have values."""
    status: str | None
    state: str | None
    status_source: str | None
    tracking: str
    start_time: datetime | None
    end_time: datetime | None
    duration_ms: float | None
    error: msgspec.Raw | None
    extra: msgspec.Raw | None
    source: str
    first_seen_at: datetime
    updated_at: datetime | None
    steps_observed_at: datetime | None
    due_at: datetime | None
    attempts: int
    """Reads in a row that failed."""
    last_error: str | None
    priority: int
    """0: live, 1: backfill."""
    leased_until: datetime | None
    """End of the claim; None: no process holds a claim."""
    fencing_token: int
    checks: int
    """Reads in a row that found the run finished and unchanged."""
    not_found_since: datetime | None
    reopened_by: str | None
    """What last requested a newer read of the run; None: nothing has."""
    opened_at: datetime
    run_state: str | None
    """The run's state in the API's own row; None if that row was not read."""
    removed_at: datetime | None
    next: Outlook
    steps: tuple[StepDetail, ...]
    payloads: RunPayloads | None = None
    """None if the run has none, or they were not requested."""


def recent(
    connection: Connection,
    *,
    workflows: Sequence[str] | None = None,
    state: str | None = None,
    limit: int = 20,
) -> list[RecentRun]:
    """Return the newest stored runs, newest first.

    Args:
        connection: in a transaction.
        workflows: only runs of these workflows; None: of all.
        state: only runs in this state; None: in any.
        limit: maximum number of runs.
    """
    rows = connection.execute(
        _RECENT,
        {
            "workflows": None if workflows is None else list(workflows),
            "state": state,
            "limit": limit,
        },
    )
    return [RecentRun(**row._mapping) for row in rows]


def get(
    connection: Connection, run_id: str, *, give_up_after: float, payloads: bool = False
) -> RunDetail | None:
    """Return one run with its steps in the order they started; None if the run is unknown.

    Args:
        connection: in a transaction.
        run_id: the whole id.
        give_up_after: the polling setting, in seconds.
        payloads: whether to include the inputs and outputs of the run and its steps, and the texts
            of calls of models.
    """
    row = connection.execute(_RUN, {"id": run_id}).one_or_none()
    if row is None:
        return None
    by_step = _step_payloads(connection, run_id) if payloads else {}
    texts = _call_texts(connection, run_id) if payloads else {}
    steps = tuple(
        StepDetail(
            **_with_json(step, "error"),
            payloads=by_step.get(step.id, {}) if payloads else None,
            **texts.get(step.id, {}),
        )
        for step in connection.execute(_STEPS, {"id": run_id})
    )
    entry = Entry(**{name: row._mapping[name] for name in Entry.__struct_fields__})
    own = connection.execute(_RUN_PAYLOADS, {"id": run_id}).one_or_none() if payloads else None
    return RunDetail(
        **_with_json(row, "error", "extra"),
        next=outlook(entry, row.at, has_steps=bool(steps), give_up_after=give_up_after),
        steps=steps,
        payloads=None if own is None else RunPayloads(**_with_json(own, "inputs", "outputs")),
    )


def workflow_of(connection: Connection, run_id: str) -> str | None:
    """Return the workflow of a run; None if the run is not in the ledger."""
    found: str | None = connection.execute(_WORKFLOW, {"run_id": run_id}).scalar_one_or_none()
    return found


def _step_payloads(connection: Connection, run_id: str) -> dict[str, dict[str, StepPayload]]:
    found: dict[str, dict[str, StepPayload]] = {}
    for row in connection.execute(_STEP_PAYLOADS, {"id": run_id}):
        payload = StepPayload(_json(row.data), row.size_bytes, row.raw, row.note)
        found.setdefault(row.step_id, {})[row.name] = payload
    return found


def _call_texts(connection: Connection, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the texts of the run's calls of models by step.

    There are none if the schema is older than the view. The program may still use such a schema,
    and logs that it needs an upgrade.
    """
    if not connection.execute(_HAS_CALLS).scalar_one():
        return {}
    found = {}
    for row in connection.execute(_CALLS, {"id": run_id}):
        call = _with_json(row, "tools", "parameters")
        found[call.pop("step_id")] = call
    return found


def _with_json(row: Row[Any], *names: str) -> dict[str, Any]:
    return {**row._mapping, **{name: _json(row._mapping[name]) for name in names}}


def _json(value: str | None) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(value)

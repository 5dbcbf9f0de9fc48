"""Redaction of stored runs and their steps, including payloads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, Table, TextClause, text

from etl.admin.removal import lock
from etl.database import allow_long
from etl.load.staging import column_types, listed
from etl.load.steps import update_payloads
from etl.records import Payload
from etl.tables import runs, steps
from etl.transform.redact import Policy
from etl.transform.stored import RedactedRow, StoredPayload, StoredRow, redact_run, redact_step
from etl.usage import Usage

# Bytes of payloads held in memory at once, unless a single step has more.
HELD = 16 << 20

_PAYLOADS: tuple[Literal["inputs", "outputs"], ...] = ("inputs", "outputs")
_RUN_COLUMNS = ("user_id", "organization_id", "error", "extra")
_STEP_COLUMNS = (
    *_RUN_COLUMNS, "step_metadata", "request_model", "response_model", "finish_reason",
    "reported_error", *Usage.__struct_fields__,
)  # fmt: skip

_RUNS = text("""
    SELECT r.id, r.user_id, r.organization_id, r.status, r.start_time, r.end_time,
           r.api_elapsed_seconds, CAST(r.error AS text) AS error, CAST(r.extra AS text) AS extra,
           p.run_id IS NOT NULL AS has_payloads,
           convert_to(CAST(p.inputs AS text), 'UTF8') AS inputs,
           convert_to(CAST(p.outputs AS text), 'UTF8') AS outputs,
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
    WHERE s.run_id = ANY (CAST(:run_ids AS text[]))
      AND s.redaction_policy IS DISTINCT FROM CAST(:version AS text)
    ORDER BY s.id
""")

_STEPS = text(f"""
    SELECT s.id, s.user_id, s.organization_id, s.node_id, s.status, s.start_time, s.end_time,
           s.api_elapsed_seconds, s.api_tokens, CAST(s.error AS text) AS error,
           CAST(s.step_metadata AS text) AS step_metadata, CAST(s.extra AS text) AS extra,
           s.request_model, s.response_model, s.finish_reason, s.reported_error,
           {listed(Usage.__struct_fields__, "s.")},
           i.step_id IS NOT NULL AS has_inputs,
           convert_to(CAST(i.data AS text), 'UTF8') AS inputs, i.raw AS inputs_raw,
           o.step_id IS NOT NULL AS has_outputs,
           convert_to(CAST(o.data AS text), 'UTF8') AS outputs, o.raw AS outputs_raw
    FROM orchestra.steps AS s
    LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id
    LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id
    WHERE s.id = ANY (CAST(:ids AS text[]))
    ORDER BY s.id
""")


def _update(table: Table, columns: tuple[str, ...]) -> TextClause:
    """Build the UPDATE that writes redacted rows; `updated_at` moves only for rows that change."""
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
        UPDATE orchestra.run_payloads
        SET {name} = CAST(:data AS jsonb), {name}_raw = NULL,
            note = CASE WHEN CAST(:note AS text) IS NULL THEN note
                        ELSE concat_ws('; ', note, '{name}: ' || :note) END
        WHERE run_id = :run_id
    """)
    for name in _PAYLOADS
}
_DROP_EMPTY = text("""
    DELETE FROM orchestra.run_payloads
    WHERE run_id = ANY (CAST(:ids AS text[])) AND note IS NULL
      AND num_nonnulls(inputs, outputs, inputs_raw, outputs_raw) = 0
""")

# Failures are derived from steps. The change of the steps queues a refresh, which writes them
# again.
_DROP_FAILURES = text(
    "DELETE FROM orchestra.step_failures WHERE step_id = ANY (CAST(:ids AS text[]))"
)


class Rewritten(msgspec.Struct):
    """The rows that were redacted."""

    runs: int = 0
    steps: int = 0
    changed: int = 0
    """Runs and steps whose content changed."""


def redact_runs(connection: Connection, ids: Sequence[str], policy: Policy) -> Rewritten:
    """Lock these runs, and apply the policy's rules to them and their steps.

    Args:
        connection: in a transaction.
        ids: the runs.
        policy: the rules in force for the runs' workflow.
    """
    lock(connection, ids)
    allow_long(connection)
    redacted = {
        row.id: redact_run(_stored(row), policy)
        for row in connection.execute(_RUNS, {"ids": list(ids)})
    }
    changed = _write(connection, _UPDATE_RUNS, columns=_RUN_COLUMNS, rows=redacted, policy=policy)
    for run_id, one in redacted.items():
        for name in _PAYLOADS:
            if name not in one.payloads:
                continue
            payload = one.payloads[name] or Payload(None, 0)
            data = None if payload.data is None else bytes(payload.data).decode()
            connection.execute(
                _UPDATE_RUN_PAYLOAD[name], {"run_id": run_id, "data": data, "note": payload.note}
            )
    connection.execute(
        _DROP_EMPTY, {"ids": [run_id for run_id, one in redacted.items() if one.payloads]}
    )
    done = Rewritten(runs=len(redacted), changed=len(changed))
    sizes = connection.execute(_SIZES, {"run_ids": list(ids), "version": policy.version}).all()
    for part in _parts([(row.id, row.size) for row in sizes]):
        rows = connection.execute(_STEPS, {"ids": part})
        found = {row.id: redact_step(_stored(row), policy) for row in rows}
        changed = _write(
            connection, _UPDATE_STEPS, columns=_STEP_COLUMNS, rows=found, policy=policy
        )
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
    """Yield the ids in parts of at most `HELD` bytes, or of one id."""
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
        # A run has one row for both payloads: a payload that is null was never stored, or was
        # removed.
        if there and ("has_payloads" not in columns or content != (None, None)):
            payloads[name] = content
    columns.pop("has_payloads", None)
    return StoredRow(columns, payloads)


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _write(
    connection: Connection,
    update: TextClause,
    *,
    columns: tuple[str, ...],
    rows: Mapping[str, RedactedRow],
    policy: Policy,
) -> list[str]:
    """Write the columns of these rows; return the ids of those that changed."""
    values: dict[str, object] = {
        name: [one.columns[name] for one in rows.values()] for name in columns
    }
    values |= {"id": list(rows), "content_hash": [one.content_hash for one in rows.values()]}
    values |= {"touched": [bool(one.payloads) for one in rows.values()], "version": policy.version}
    return [row.id for row in connection.execute(update, values) if row.changed]

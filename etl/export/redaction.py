"""Redaction of what only the lake has: pruned runs, and pruned payloads of stored runs.

Rows of PostgreSQL are redacted where they are stored, and their days are exported again. What the
lake alone has is redacted when its day is exported, unless it was written under the rules in force
already. `queue` queues the days of pruned runs, which nothing else would queue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import compute
from sqlalchemy import Connection, text

from etl.analytics import judged_rows
from etl.database import allow_long
from etl.export import changes
from etl.export.destination import Destination
from etl.export.lake import Lake
from etl.export.lake_rows import row_key, rows_of, run_key
from etl.export.lake_tables import (
    RUN_PAYLOADS,
    RUNS,
    STEP_FAILURES,
    STEP_PAYLOADS,
    STEPS,
    LakeTable,
)
from etl.export.store import reported
from etl.transform.exact_json import same_value
from etl.transform.redact import Policy, Redaction
from etl.transform.stored import RedactedRow, StoredPayload, StoredRow, redact_run, redact_step
from etl.usage import Usage

# Rows that are redacted at once.
_PART = 1000

_PAYLOADS = ("inputs", "outputs")
_PLAIN = (
    "id", "user_id", "organization_id", "status", "start_time", "end_time", "api_elapsed_seconds",
    "error",
)  # fmt: skip
_PLAIN_OF_STEP = (
    "node_id", "api_tokens", "request_model", "response_model", "finish_reason", "reported_error",
    *Usage.__struct_fields__,
)  # fmt: skip

_JSON_COLUMNS = {
    RUNS: ("error",),
    STEPS: ("error",),
    RUN_PAYLOADS: ("extra", "inputs", "outputs"),
    STEP_PAYLOADS: ("step_metadata", "extra", "inputs_data", "outputs_data"),
}

# Rewrites JSON as PostgreSQL prints its `jsonb`, so that it equals exported values.
_AS_STORED = text("""
    SELECT CAST(CAST(v AS jsonb) AS text)
    FROM unnest(CAST(:values AS text[])) WITH ORDINALITY AS u (v, ordinal) ORDER BY ordinal
""")


def _computed(table: LakeTable, alias: str, names: Sequence[str]) -> str:
    """Build the query of columns that follow from the errors, by the table's own expressions."""
    sql = {one.name: one.sql for one in table.columns}
    return f"""
        SELECT {", ".join(f"{sql[name]} AS {name}" for name in names)}
        FROM (SELECT CAST(e AS jsonb) AS error, reported_error, ordinal
              FROM unnest(CAST(:errors AS text[]), CAST(:reported AS text[]))
                  WITH ORDINALITY AS u (e, reported_error, ordinal)) AS {alias}
        ORDER BY {alias}.ordinal
    """


_COMPUTED = {
    RUNS: text(_computed(RUNS, "r", ("error_message", "error_pattern"))),
    STEPS: text(_computed(STEPS, "s", ("error_message",))),
}

_FAILURES = text(
    judged_rows.step_failures("""(
        SELECT id, NULL AS run_id, NULL AS counted_in, NULL AS node_id, organization_id,
               NULL AS time, state, CAST(error AS jsonb) AS error, reported_error,
               CAST(NULL AS timestamptz) AS absent_since
        FROM unnest(CAST(:ids AS text[]), CAST(:organizations AS text[]), CAST(:states AS text[]),
                    CAST(:errors AS text[]), CAST(:reported AS text[]))
            AS u (id, organization_id, state, error, reported_error)
    )""")
)
_OF_FAILURE = ("organization_id", "fingerprint", "pattern", "message")


class LakeRedaction:
    """The redaction of a day's rows, as the lake has them committed."""

    def __init__(self, connection: Connection, lake: Lake, day: date, rules: Redaction) -> None:
        """Read nothing yet.

        Args:
            connection: in the transaction of the export.
            lake: the lake, before the day is replaced.
            day: the day.
            rules: the rules in force.
        """
        self._connection, self._lake, self._day, self._rules = connection, lake, day, rules

    def under_other_rules(self, table: LakeTable, rows: pa.Table) -> pa.Array:
        """Return the keys of those rows that were written under other rules or none."""
        key = row_key(table)
        if table is not STEP_FAILURES:
            return pa.array(_others(rows, key, self._rules), pa.string())
        # A failure was written with its step.
        found: list[str] = []
        wanted = rows[key].combine_chunks()
        columns = ("id", "workflow_id", "redaction_policy")
        for steps in rows_of(self._lake.table(STEPS), self._day, *columns):
            found += _others(steps.filter(compute.is_in(steps["id"], wanted)), "id", self._rules)
        return pa.array(found, pa.string())

    def rows(self, table: LakeTable, keys: pa.Array) -> Iterator[pa.Table]:
        """Yield the rows of a table with these keys, under the rules in force."""
        own, content = (
            (RUNS, RUN_PAYLOADS) if table in (RUNS, RUN_PAYLOADS) else (STEPS, STEP_PAYLOADS)
        )
        opened = self._lake.table(own)
        found = [
            rows.filter(compute.is_in(rows["id"], keys)) for rows in rows_of(opened, self._day)
        ]
        written = pa.concat_tables(found) if found else opened.schema.empty_table()
        for rows, payloads in self._parts(written, content):
            done = [
                _Redacted(row, payload, policy)
                for row, payload in zip(rows, payloads, strict=True)
                if (policy := self._rules.policy(row["workflow_id"])) is not None
            ]
            if table is own:
                yield self._table(table, self._with_computed(table, done))
            elif table is content:
                contents = [one.content for one in done if one.content is not None]
                yield self._table(table, contents)
            else:
                yield self._failures(done)

    def _parts(
        self, written: pa.Table, content: LakeTable
    ) -> Iterator[tuple[list[dict[str, Any]], Sequence[dict[str, Any] | None]]]:
        """Yield rows in parts, each with the rows of their payloads; None: it has none."""
        ids = written["id"].combine_chunks()
        matched: list[str] = []
        if content in self._lake.day_tables():
            key = row_key(content)
            for found in rows_of(self._lake.table(content), self._day):
                wanted = found.filter(compute.is_in(found[key], ids))
                for part in wanted.to_batches(max_chunksize=_PART):
                    matched += part[key].to_pylist()
                    of_part = written.take(compute.index_in(part[key], ids))
                    yield of_part.to_pylist(), part.to_pylist()
        left = compute.invert(compute.is_in(ids, pa.array(matched, pa.string())))
        for part in written.filter(left).to_batches(max_chunksize=_PART):
            yield part.to_pylist(), [None] * part.num_rows

    def _with_computed(self, table: LakeTable, done: Sequence[_Redacted]) -> list[dict[str, Any]]:
        rows = [one.row for one in done]
        errors = {
            "errors": [row["error"] for row in rows],
            "reported": [row.get("reported_error") for row in rows],
        }
        for row, found in zip(
            rows, self._connection.execute(_COMPUTED[table], errors).mappings(), strict=True
        ):
            row.update(found)
        return rows

    def _failures(self, done: Sequence[_Redacted]) -> pa.Table:
        rows = {one.row["id"]: one.row for one in done}
        values = {
            "ids": list(rows),
            "organizations": [row["organization_id"] for row in rows.values()],
            "states": [row["state"] for row in rows.values()],
            "errors": [row["error"] for row in rows.values()],
            "reported": [row["reported_error"] for row in rows.values()],
        }
        found = {row.step_id: row for row in self._connection.execute(_FAILURES, values)}
        failures: list[dict[str, Any]] = []
        for stored in rows_of(self._lake.table(STEP_FAILURES), self._day):
            wanted = compute.is_in(stored["step_id"], pa.array(list(found), pa.string()))
            for row in stored.filter(wanted).to_pylist():
                new = found[row["step_id"]]
                failures.append({**row, **{name: getattr(new, name) for name in _OF_FAILURE}})
        return pa.Table.from_pylist(failures, schema=self._lake.table(STEP_FAILURES).schema)

    def _table(self, table: LakeTable, rows: list[dict[str, Any]]) -> pa.Table:
        for name in _JSON_COLUMNS[table]:
            values = {"values": [row[name] for row in rows]}
            for row, value in zip(
                rows, self._connection.execute(_AS_STORED, values).scalars(), strict=True
            ):
                row[name] = value
        return pa.Table.from_pylist(rows, schema=self._lake.table(table).schema)


class _Redacted:
    """A run or step of the lake after redaction."""

    def __init__(
        self, row: Mapping[str, Any], content: Mapping[str, Any] | None, policy: Policy
    ) -> None:
        is_step = "run_id" in row
        unfit = json.loads(row["out_of_range"] or "{}")
        plain = {name: row[name] for name in (*_PLAIN, *(_PLAIN_OF_STEP if is_step else ()))}
        plain["extra"] = None if content is None else content["extra"]
        if is_step:
            plain["step_metadata"] = None if content is None else content["step_metadata"]
            plain["reported_cost"] = _cost(plain["reported_cost"], unfit)
        payloads = _stored_payloads(content, is_step=is_step)
        found = (redact_step if is_step else redact_run)(StoredRow(plain, payloads), policy)
        columns = {name: value for name, value in found.columns.items() if name in row}
        if "reported_cost" in unfit:
            if columns["reported_cost"] != plain["reported_cost"]:
                del unfit["reported_cost"]
            columns["reported_cost"] = None
        is_changed = bool(found.payloads) or any(
            _differ(name, plain.get(name, row.get(name)), value)
            for name, value in found.columns.items()
        )
        self.row = {
            **row,
            **columns,
            "out_of_range": json.dumps(unfit) if unfit else None,
            "redaction_policy": policy.version,
            "updated_at": datetime.now(UTC) if is_changed else row["updated_at"],
        }
        self.content = (
            None if content is None else _content(content, found, policy, is_step=is_step)
        )


def _differ(name: str, before: Any, after: Any) -> bool:
    if name in ("error", "step_metadata", "extra") and before is not None and after is not None:
        return not same_value(before.encode(), after.encode())
    return bool(before != after)


def _cost(cost: Decimal | None, unfit: Mapping[str, str]) -> Decimal | None:
    return Decimal(unfit["reported_cost"]) if "reported_cost" in unfit else cost


def _stored_payloads(
    content: Mapping[str, Any] | None, *, is_step: bool
) -> dict[str, StoredPayload]:
    data, raw = ("{}_data", "{}_raw") if is_step else ("{}", "{}_raw")
    found = {}
    for name in _PAYLOADS if content is not None else ():
        assert content is not None
        value, exact = content[data.format(name)], content[raw.format(name)]
        payload = StoredPayload(None if value is None else value.encode(), exact)
        if payload != (None, None):
            found[name] = payload
    return found


def _content(
    content: Mapping[str, Any], found: RedactedRow, policy: Policy, *, is_step: bool
) -> dict[str, Any]:
    """Return the row of the payloads, as PostgreSQL would hold it after a redaction."""
    left = {**content, "extra": found.columns["extra"], "redaction_policy": policy.version}
    if is_step:
        left["step_metadata"] = found.columns["step_metadata"]
    for name, payload in found.payloads.items():
        data = None if payload is None or payload.data is None else bytes(payload.data).decode()
        if is_step:
            left[f"{name}_data"] = data
            left[f"{name}_size_bytes"] = None if payload is None else payload.size_bytes
            left[f"{name}_raw"] = None if payload is None else payload.raw
            left[f"{name}_note"] = None if payload is None else payload.note
        else:
            left[name], left[f"{name}_raw"] = data, None
            if payload is not None and payload.note is not None:
                notes = [content["note"], f"{name}: {payload.note}"]
                left["note"] = "; ".join(one for one in notes if one is not None)
    return left


def queue(connection: Connection, destination: Destination, rules: Redaction) -> int:
    """Queue the days of pruned runs that were written under other rules; return their number.

    Args:
        connection: in a transaction with one snapshot.
        destination: where the lake is.
        rules: the rules in force.

    Raises:
        LakeError: the lake cannot be read.
    """
    found = remaining(connection, destination, rules)
    changes.queue(connection, found)
    return sum(map(len, found.values()))


def remaining(
    connection: Connection, destination: Destination, rules: Redaction
) -> dict[date, set[str]]:
    """Return the pruned runs of which the lake has rows that were written under other rules.

    Args:
        connection: in a transaction with one snapshot.
        destination: where the lake is.
        rules: the rules in force.

    Returns:
        The ids of the runs by day.

    Raises:
        LakeError: the lake cannot be read.
    """
    allow_long(connection)
    found: dict[date, set[str]] = {}
    with reported(destination.location):
        lake = Lake(connection, destination)
        tables = [one for one in lake.day_tables() if "redaction_policy" in one.column_names]
        if RUNS not in tables:
            return {}
        archived = _archived(lake)
        for table in tables:
            key = run_key(table)
            columns = ("run_day", key, "workflow_id", "redaction_policy")
            for rows in rows_of(lake.table(table), None, *columns):
                wanted = rows.filter(compute.is_in(rows[key], archived))
                others = pa.array(_others(wanted, key, rules), pa.string())
                left = wanted.filter(compute.is_in(wanted[key], others))
                for day, run_id in zip(
                    left["run_day"].to_pylist(), left[key].to_pylist(), strict=True
                ):
                    found.setdefault(day, set()).add(run_id)
    return found


def _archived(lake: Lake) -> pa.Array:
    found = [
        rows.filter(compute.is_valid(rows["archived_at"]))["id"]
        for rows in rows_of(lake.table(RUNS), None, "id", "archived_at")
    ]
    return pa.array((one for ids in found for one in ids.to_pylist()), pa.string())


def _others(rows: pa.Table, key: str, rules: Redaction) -> Iterable[str]:
    """Yield the keys of the rows that were written under other rules than those in force."""
    versions: dict[str, str | None] = {}
    columns = (rows[name].to_pylist() for name in (key, "workflow_id", "redaction_policy"))
    for one, workflow_id, written in zip(*columns, strict=True):
        if workflow_id not in versions:
            policy = rules.policy(workflow_id)
            versions[workflow_id] = None if policy is None else policy.version
        if versions[workflow_id] not in (None, written):
            yield one

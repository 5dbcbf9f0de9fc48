"""The tables of the lake: their columns, and the queries that fill them.

A table of days has a partition for each `run_day`: the UTC day on which a run started, or was first
seen if it has no start. All rows of a run are in that partition. A whole table has no partitions;
it is replaced when it has changed.

Iceberg's types hold less than PostgreSQL's. A value that does not fit is null in its column;
`out_of_range` holds it as PostgreSQL writes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from etl.analytics import judged_rows
from etl.tables import PRIVATE, inputs, lake, outputs, prices, rollups, run_payloads, runs, steps
from etl.tables.analytics import workflow_versions, workflows

MEANING = 2
"""Raise it when a column of the same name and type, or a digest, is computed differently."""

_TYPES: Mapping[type, str] = {
    Text: "string",
    JSONB: "string",
    LargeBinary: "binary",
    DateTime: "timestamptz",
    Date: "date",
    Double: "double",
    Numeric: "decimal(38, 18)",
    BigInteger: "long",
    Integer: "int",
    SmallInteger: "int",
    Boolean: "boolean",
}
"""Iceberg's type for each type of PostgreSQL. JSON becomes its text."""

_FITS: Mapping[str, str] = {
    # Neither infinite, nor before Christ, nor after the year 9999.
    "timestamptz": "{0} >= '0001-01-01T00:00Z' AND {0} < '10000-01-01T00:00Z'",
    "date": "{0} >= '0001-01-01' AND {0} < '10000-01-01'",
    "decimal(38, 18)": "{0} <> 'NaN' AND abs({0}) < 1e20 AND scale(trim_scale({0})) <= 18",
}
"""The conditions under which a value fits into its type; other types hold every value."""

RUN_DAY = "orchestra_etl.run_day({0}.start_time, {0}.first_seen_at)"

_DAY = "CAST(%(day)s AS date)"


def _runs_of_day(columns: Iterable[str]) -> str:
    """Return the query of a day's runs, sorted, in parentheses.

    The index on start_time finds them; the last condition decides. The sort reads its keys again
    and again: they are the first columns. What is joined to the sorted runs keeps their order, so
    that no wide row is ever sorted.
    """
    listed = ", ".join(dict.fromkeys(("workflow_id", "start_time", "id", *columns)))
    return f"""(
        SELECT {listed}, xmin FROM orchestra.runs AS any_run
        WHERE (start_time >= CAST({_DAY} AS timestamptz)
                AND start_time < CAST({_DAY} + 1 AS timestamptz)
            OR start_time IS NULL
            OR start_time < '0001-01-01T00:00Z' OR start_time >= '10000-01-01T00:00Z')
          AND {RUN_DAY.format("any_run")} = {_DAY}
        ORDER BY workflow_id, start_time, id OFFSET 0
    )"""


_RUNS = _runs_of_day(one.name for one in runs.c)
_STEPS = f"{_runs_of_day(['first_seen_at'])} AS r JOIN orchestra.steps AS s ON s.run_id = r.id"
"""The steps of a day's runs."""

_BY_RUN = "r.workflow_id, r.start_time, r.id"


def _version(*values: str) -> str:
    return f"hash_record_extended(ROW({', '.join(values)}), 0)"


class Column(msgspec.Struct, frozen=True):
    """A column of the lake."""

    name: str
    type: str
    """Iceberg's type."""
    sql: str
    """The expression over `LakeTable.source`."""
    comment: str


class LakeTable(msgspec.Struct, frozen=True):
    """A table of the lake."""

    name: str
    columns: tuple[Column, ...]
    source: str
    """What follows FROM in the query; `%(day)s` is the day."""
    order: str
    comment: str
    has_content: bool = False
    """Whether the table contains what users and models wrote."""
    version: str | None = None
    """A hash of the row's id and version, over `source`; None: its rows follow from others."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(one.name for one in self.columns)

    @property
    def is_by_day(self) -> bool:
        """Whether it has a partition for each day; otherwise it is a whole table."""
        return _DAY in self.source

    @property
    def query(self) -> str:
        """The query of a day's rows, or of all rows, in the order of the columns."""
        return self._query(self._listed)

    @property
    def query_with_version(self) -> str:
        """The same query, with the version of each row in a last column."""
        return self._query(f"{self._listed}, {self.version} AS version")

    @property
    def _listed(self) -> str:
        return ", ".join(f"{one.sql} AS {one.name}" for one in self.columns)

    def _query(self, listed: str) -> str:
        return f"SELECT {listed} FROM {self.source} ORDER BY {self.order}"


def _type(kind: object) -> str:
    return next(_TYPES[one] for one in type(kind).__mro__ if one in _TYPES)


def _copied(table: Table, alias: str, names: Iterable[str], prefix: str = "") -> tuple[Column, ...]:
    """Return columns of PostgreSQL as columns of the lake, and `out_of_range` if one needs it."""
    found = []
    unfit = []
    for name in names:
        column = table.c[name]
        kind, sql = _type(column.type), f"{alias}.{name}"
        if kind in _FITS:
            fits = _FITS[kind].format(sql)
            unfit.append((name, sql, f"NOT ({fits})"))
            sql = f"CASE WHEN {fits} THEN {sql} END"
        elif isinstance(column.type, JSONB):
            sql = f"CAST({sql} AS text)"
        elif isinstance(column.type, LargeBinary):
            sql = f"encode({sql}, 'hex')"
        found.append(Column(f"{prefix}{name}", kind, sql, column.comment or ""))
    if unfit:
        pairs = ", ".join(
            f"'{name}', CASE WHEN {no} THEN CAST({sql} AS text) END" for name, sql, no in unfit
        )
        any_unfit = " OR ".join(no for _, _, no in unfit)
        sql = (
            f"CASE WHEN {any_unfit} THEN CAST(jsonb_strip_nulls(jsonb_build_object({pairs}))"
            " AS text) END"
        )
        found.append(
            Column(
                "out_of_range",
                "string",
                sql,
                "Values that these types cannot hold, such as an infinite time, as PostgreSQL "
                "writes them: a JSON object by column. Null: every value fits.",
            )
        )
    return tuple(found)


def _public(table: Table) -> list[str]:
    return [one.name for one in table.c if one.name not in PRIVATE.get(table, ())]


_RUN_DAY_COLUMN = Column(
    "run_day",
    "date",
    _DAY,
    "The day (UTC) on which the run started; if it has no start, on which it was first seen.",
)
_STEP_OUTCOME = "orchestra.outcome(s.state, s.error, s.reported_error)"


def _error_message(alias: str, reported: str) -> str:
    return (
        f"CASE WHEN {alias}.error IS NOT NULL OR {reported} IS NOT NULL"
        f" THEN left(orchestra.error_message({alias}.error, {reported}), 500) END"
    )


RUNS = LakeTable(
    name="runs",
    columns=(
        _RUN_DAY_COLUMN,
        *_copied(runs, "r", _public(runs)),
        Column(
            "outcome",
            "string",
            f"""CASE WHEN r.state = 'succeeded' AND EXISTS (
                    SELECT FROM orchestra.steps AS s
                    WHERE s.run_id = r.id AND (s.error IS NOT NULL OR s.reported_error IS NOT NULL)
                      AND s.absent_since IS NULL AND {_STEP_OUTCOME} = 'soft_failed')
                THEN 'soft_failed' ELSE orchestra.outcome(r.state, r.error, NULL) END""",
            "How the run ended, as in the view run_summary: the state, or soft_failed.",
        ),
        Column(
            "error_message",
            "string",
            _error_message("r", "CAST(NULL AS text)"),
            "The first 500 characters of the run's own error.",
        ),
        Column(
            "error_pattern",
            "string",
            "CASE WHEN r.error IS NOT NULL"
            " THEN orchestra.failure_pattern(orchestra.error_message(r.error, NULL)) END",
            "The run's own error without the parts that differ within a kind.",
        ),
        Column(
            "archived_at",
            "timestamptz",
            "CAST(NULL AS timestamptz)",
            "When retention removed the run from PostgreSQL; null: it is still there.",
        ),
    ),
    source=f"{_RUNS} AS r",
    order=_BY_RUN,
    comment=runs.comment or "",
    version=_version("r.id", "r.xmin"),
)

STEPS = LakeTable(
    name="steps",
    columns=(
        _RUN_DAY_COLUMN,
        *_copied(steps, "s", _public(steps)),
        Column(
            "outcome", "string", _STEP_OUTCOME, "How the step ended: the state, or soft_failed."
        ),
        Column(
            "error_message",
            "string",
            _error_message("s", "s.reported_error"),
            "The first 500 characters of the step's error.",
        ),
    ),
    source=_STEPS,
    order=_BY_RUN,
    comment=steps.comment or "",
    version=_version("s.id", "s.xmin"),
)

# Computed here, because the rollups' own table follows the steps only after the next refresh. A
# pattern of the same message is taken from there: to compute one takes longer than all other work
# on a step.
_FAILED = f"""(
    SELECT s.*, COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
           CASE WHEN s.start_time IS NULL THEN r.workflow_id ELSE s.workflow_id END AS counted_in
    FROM {_STEPS}
)"""

STEP_FAILURES = LakeTable(
    name="step_failures",
    columns=(
        _RUN_DAY_COLUMN,
        *_copied(rollups.step_failures, "f", judged_rows.FAILURE),
    ),
    source=f"({judged_rows.step_failures(_FAILED, known=True)}) AS f",
    order="f.workflow_id, f.time, f.step_id",
    comment=rollups.step_failures.comment or "",
)

RUN_PAYLOADS = LakeTable(
    name="run_payloads",
    columns=(
        _RUN_DAY_COLUMN,
        Column("workflow_id", "string", "r.workflow_id", "The workflow."),
        Column("run_id", "string", "r.id", "The run."),
        *_copied(runs, "r", ("extra",)),
        *_copied(run_payloads, "p", [one.name for one in run_payloads.c if one.name != "run_id"]),
        *_copied(runs, "r", ("redaction_policy",)),
    ),
    source=f"{_RUNS} AS r LEFT JOIN orchestra.run_payloads AS p ON p.run_id = r.id",
    order=_BY_RUN,
    comment=run_payloads.comment or "",
    has_content=True,
    version=_version("p.run_id", "p.xmin"),
)

_PAYLOAD = [one.name for one in inputs.c if one.name != "step_id"]

STEP_PAYLOADS = LakeTable(
    name="step_payloads",
    columns=(
        _RUN_DAY_COLUMN,
        Column("workflow_id", "string", "s.workflow_id", "The workflow."),
        Column("run_id", "string", "s.run_id", "The run."),
        Column("step_id", "string", "s.id", "The step."),
        *_copied(steps, "s", ("step_metadata", "extra")),
        *_copied(inputs, "i", _PAYLOAD, prefix="inputs_"),
        *_copied(outputs, "o", _PAYLOAD, prefix="outputs_"),
        *_copied(steps, "s", ("redaction_policy",)),
    ),
    source=f"""{_STEPS}
        LEFT JOIN orchestra.inputs AS i ON i.step_id = s.id
        LEFT JOIN orchestra.outputs AS o ON o.step_id = s.id""",
    order=_BY_RUN,
    comment="The inputs and outputs of each step.",
    has_content=True,
    version=_version("s.id", "i.xmin", "o.xmin"),
)


def _whole(table: Table) -> LakeTable:
    names = _public(table)
    return LakeTable(
        name=table.name,
        columns=_copied(table, "t", names),
        source=f"{table.schema}.{table.name} AS t",
        order=", ".join(f"t.{one.name}" for one in table.primary_key),
        comment=table.comment or "",
    )


DAYS = LakeTable(
    name="days",
    columns=_copied(
        lake.export_days,
        "t",
        [one.name for one in lake.export_days.c if one.name != "snapshot_ids"],
    ),
    source="orchestra_etl.export_days AS t",
    order="t.day",
    comment="The days of the lake: how many rows each has, and until when it is complete.",
)

WHOLE_TABLES = (*map(_whole, (workflows, workflow_versions, prices.prices)), DAYS)


def day_tables(*, payloads: bool) -> tuple[LakeTable, ...]:
    """Return the tables of days, with or without those that contain payloads."""
    found = (RUNS, STEPS, STEP_FAILURES, RUN_PAYLOADS, STEP_PAYLOADS)
    return tuple(one for one in found if payloads or not one.has_content)


def definition(*, payloads: bool) -> str:
    """Return the version of these definitions; the lake is exported again when it changes."""
    tables = (*day_tables(payloads=payloads), *WHOLE_TABLES)
    columns = [f"{table.name}.{one.name} {one.type}" for table in tables for one in table.columns]
    return f"{MEANING}-{hashlib.sha256(' '.join(columns).encode()).hexdigest()[:16]}"

"""The verification of the rollups: recompute everything from the runs and steps, and compare."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import Connection, TextClause, text

from etl.analytics import changed_groups, judged_rows, uncounted
from etl.analytics.changed_groups import Stuck
from etl.analytics.rollups import DAILY, RUNS, STEPS
from etl.database import allow_long
from etl.database_errors import is_database_error, is_transient, sqlstate
from etl.tables.rollups import UNCOUNTED


def _differing(name: str, when: str, columns: tuple[str, ...], everything: str) -> str:
    shown = ", ".join(columns)
    stored = f"orchestra.{name}" + (" WHERE ordinal > 0" if "ordinal" in columns else "")
    return f"""
        SELECT DISTINCT workflow_id, {when} AS at, '{name}' AS what
        FROM (
            (SELECT {shown} FROM ({everything}) AS computed EXCEPT SELECT {shown} FROM {stored})
            UNION ALL
            (SELECT {shown} FROM {stored} EXCEPT SELECT {shown} FROM ({everything}) AS computed)
        ) AS differing
    """


_OTHER_HOURLY_DIFFERENCES = " UNION ALL ".join(
    (
        _differing("run_rollup", RUNS.when, RUNS.columns, RUNS.everything),
        _differing(
            "step_failures",
            "time",
            judged_rows.FAILURE,
            judged_rows.step_failures(judged_rows.EVERY_STEP),
        ),
    )
)
_DAILY_DIFFERENCES = _differing("step_rollup_daily", DAILY.when, DAILY.columns, DAILY.everything)


# One statement, so that the rollups, the runs and the queue are read in one snapshot. Groups that
# wait for a refresh are left out, because they are expected to differ.
def _verify(responses: bool) -> TextClause:
    steps = STEPS[responses].rollup
    counted = f"""
        AND NOT EXISTS (
            SELECT FROM orchestra.step_rollup AS u
            WHERE u.workflow_id = d.workflow_id AND u.hour = date_trunc('hour', d.at, 'UTC')
              AND {UNCOUNTED})
    """
    return text(f"""
        SELECT workflow_id, at, string_agg(what, ', ' ORDER BY what) AS what
        FROM (
            SELECT DISTINCT d.workflow_id, date_trunc('hour', d.at, 'UTC') AS at, d.what
            FROM (
                {_differing("step_rollup", steps.when, steps.columns, steps.everything)}
                UNION ALL
                {_OTHER_HOURLY_DIFFERENCES}
            ) AS d
            WHERE NOT EXISTS (
                SELECT FROM orchestra_etl.changed_groups AS q
                WHERE q.workflow_id = d.workflow_id AND q.hour = date_trunc('hour', d.at, 'UTC'))
            {counted if responses else ""}
            UNION ALL
            SELECT workflow_id, CAST(at AS timestamp) AT TIME ZONE 'UTC', what
            FROM ({_DAILY_DIFFERENCES}) AS d
        ) AS found
        WHERE NOT EXISTS (SELECT FROM orchestra_etl.changed_groups AS q WHERE q.workflow_id IS NULL)
        GROUP BY workflow_id, at
        ORDER BY workflow_id, at
    """)


_VERIFY = {responses: _verify(responses) for responses in (True, False)}


class Difference(msgspec.Struct, frozen=True):
    """A group or day whose rollups differ from its runs and steps."""

    workflow_id: str
    at: datetime
    """The hour, or the start of the day."""
    what: str
    """The tables that differ."""


class VerificationReport(msgspec.Struct, frozen=True):
    """The result of a verification."""

    differences: list[Difference]
    stuck: list[Stuck]
    """Groups that cannot be computed: their rollups are outdated."""
    waiting: int
    """Queue rows that a refresh can take now, and groups whose responses are not counted.

    None of these groups was compared.
    """
    overdue: int
    """Rows of `waiting` that have been queued for longer than `changed_groups.RETRY`."""
    failure: str | None = None
    """SQLSTATE of the comparison's own failure; None: it did not fail."""

    @property
    def ok(self) -> bool:
        """Whether everything compared is equal, and nothing is stuck, overdue or failed."""
        return not (self.differences or self.stuck or self.overdue or self.failure)


def verify(connection: Connection) -> VerificationReport:
    """Recompute all that does not wait for a refresh, and compare it with the stored rollups.

    Nothing is written.
    """
    allow_long(connection)
    queue = (
        changed_groups.stuck(connection),
        changed_groups.waiting(connection) + uncounted.waiting(connection),
        changed_groups.overdue(connection),
    )
    responses = uncounted.exist(connection)
    try:
        with connection.begin_nested():
            rows = connection.execute(_VERIFY[responses]).all()
    except Exception as error:
        if not is_database_error(error) or is_transient(error):
            raise
        return VerificationReport([], *queue, sqlstate(error))
    return VerificationReport(
        [Difference(row.workflow_id, row.at, row.what) for row in rows], *queue
    )

"""What the history adds to an alert: the most frequent failure, example runs, and a cost's causes.

Only rows of the alert's window and of the time before it are read, by index, and never a payload.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import structlog
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from etl.alerts import completeness
from etl.alerts.content import EXAMPLES, Content, Evidence
from etl.analytics.explanation import Calls, first_lines
from etl.errors import SchemaMismatch

T = TypeVar("T")
log = structlog.get_logger(__name__)


SECONDS = 5.0
"""The statement timeout. If it is exceeded, the message is sent without evidence."""

_LIMIT = text("SELECT set_config('statement_timeout', :milliseconds, true)")

_PATTERN = text("""
    SELECT min(pattern) AS pattern, count(DISTINCT run_id) AS runs
    FROM orchestra.step_failures
    WHERE workflow_id = :workflow_id AND time >= :begin AND time < :end
      AND (CAST(:node AS text) IS NULL OR node_id = :node)
      AND (CAST(:organisation AS text) IS NULL OR organization_id = :organisation)
    GROUP BY fingerprint
    ORDER BY count(DISTINCT run_id) DESC, max(time) DESC, fingerprint
    LIMIT 1
""")

_OF_WINDOW = """r.workflow_id = :workflow_id
          AND r.start_time >= :begin AND r.start_time < :end
          AND (CAST(:organisation AS text) IS NULL OR r.organization_id = :organisation)"""

_STEPS = """
        SELECT s.run_id, max(s.duration_ms) AS duration_ms, sum(s.total_tokens) AS tokens
        FROM orchestra.steps AS s
        WHERE s.workflow_id = :workflow_id AND s.start_time >= :begin AND s.start_time < :end
          AND s.absent_since IS NULL
          AND (CAST(:node AS text) IS NULL OR s.node_id = :node)
          AND (CAST(:model AS text) IS NULL
               OR COALESCE(s.response_model, s.request_model) = :model)
          AND (CAST(:organisation AS text) IS NULL OR s.organization_id = :organisation)
        GROUP BY s.run_id"""

_FAILED = text(f"""
    SELECT r.id
    FROM orchestra.runs AS r
    LEFT JOIN (
        SELECT run_id, max(time) AS time FROM orchestra.step_failures
        WHERE workflow_id = :workflow_id AND time >= :begin
          AND (CAST(:node AS text) IS NULL OR node_id = :node)
        GROUP BY run_id
    ) AS f ON f.run_id = r.id
    WHERE {_OF_WINDOW} AND (f.run_id IS NOT NULL
                            OR (r.state = 'failed' AND CAST(:node AS text) IS NULL))
    ORDER BY r.start_time DESC, r.id
    LIMIT :limit
""")

_SLOWEST = text(f"""
    SELECT r.id
    FROM orchestra.runs AS r
    LEFT JOIN ({_STEPS}
    ) AS s ON s.run_id = r.id
    WHERE {_OF_WINDOW} AND (CAST(:node AS text) IS NULL OR s.run_id IS NOT NULL)
    ORDER BY CASE WHEN CAST(:node AS text) IS NULL THEN r.duration_ms ELSE s.duration_ms END
             DESC NULLS LAST, r.id
    LIMIT :limit
""")

_MOST_TOKENS = text(f"""
    SELECT s.run_id AS id
    FROM ({_STEPS}
    ) AS s
    ORDER BY s.tokens DESC NULLS LAST, s.run_id
    LIMIT :limit
""")

_OLDEST = text("""
    SELECT r.id
    FROM orchestra.runs AS r
    WHERE r.workflow_id = :workflow_id AND r.state IN ('pending', 'running', 'unknown')
      AND r.tracking NOT IN ('final', 'gone')
    ORDER BY COALESCE(r.start_time, r.first_seen_at), r.id
    LIMIT :limit
""")

_NEWEST = text("""
    SELECT r.id
    FROM orchestra.runs AS r
    WHERE r.workflow_id = :workflow_id AND r.start_time < :end
      AND (CAST(:organisation AS text) IS NULL OR r.organization_id = :organisation)
    ORDER BY r.start_time DESC
    LIMIT :limit
""")

_RUNS = {
    "failure_rate": _FAILED,
    "soft_failure_rate": _FAILED,
    "failures": _FAILED,
    "duration_p50": _SLOWEST,
    "duration_p95": _SLOWEST,
    "cost": _MOST_TOKENS,
    "tokens": _MOST_TOKENS,
    "unpriced_calls": _MOST_TOKENS,
    "overdue_runs": _OLDEST,
    "runs": _NEWEST,
}


def evidence_for(connection: Connection, content: Content) -> Evidence:
    """Return what the history adds to an alert; empty if it cannot be read in time.

    Args:
        connection: in a transaction.
        content: what the evaluation knows.
    """
    statement = _RUNS.get(content.metric)
    if content.workflow_id is None or (content.window_begin is None and statement is not _OLDEST):
        return Evidence()
    parameters = {
        "workflow_id": content.workflow_id,
        "begin": content.window_begin,
        "end": content.window_end,
        "node": content.node,
        "model": content.model,
        "organisation": content.organisation,
    }
    found = _attempted(connection, lambda: _cause(connection, statement, parameters)) or Evidence()
    if content.metric == "cost":
        lines = _attempted(connection, lambda: _explanation(connection, content)) or ()
        found = msgspec.structs.replace(found, explanation=lines)
    return found


def _cause(
    connection: Connection, statement: TextClause | None, parameters: Mapping[str, object]
) -> Evidence:
    pattern = connection.execute(_PATTERN, parameters).one_or_none()
    runs = (
        ()
        if statement is None
        else connection.execute(statement, {**parameters, "limit": EXAMPLES}).scalars()
    )
    return Evidence(
        pattern=None if pattern is None else pattern.pattern,
        pattern_runs=0 if pattern is None else pattern.runs,
        runs=tuple(runs),
    )


def _explanation(connection: Connection, content: Content) -> tuple[str, ...]:
    """Return why what the rule measures differs from the same hours a week earlier."""
    if content.workflow_id is None or content.periods is None:
        return ()
    calls = Calls(content.organisation, content.node, content.model)
    lines = first_lines(
        connection,
        content.workflow_id,
        *content.periods,
        calls=calls,
    )
    for name, period in zip(("window", "time before"), content.periods, strict=True):
        for problem in completeness.problems(connection, content.workflow_id, *period):
            lines.append(f"the {name} may be incomplete: {problem}")
    return tuple(lines)


def _attempted(connection: Connection, read: Callable[[], T]) -> T | None:
    """Return what `read` returns; None if it cannot be read in time."""
    try:
        with connection.begin_nested():
            connection.execute(_LIMIT, {"milliseconds": str(round(SECONDS * 1000))})
            return read()
    except SchemaMismatch:
        return None
    except SQLAlchemyError as error:
        if connection.invalidated or connection.closed:
            raise
        log.warning("evidence_missing", problem=type(error).__name__)
        return None

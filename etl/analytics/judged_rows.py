"""The queries of the runs and steps that the figures count: when, in which group, and as what.

A group is an hour (UTC) of a workflow: the runs and the steps that started in it. A run without a
start counts in the hour in which it was first seen. A step without a start counts in the group of
its run: the step then stays in this group when the run is pruned, and a backfill does not count
last year's skipped steps today.

The SQL function `outcome` says how a step or run ended. A successful run with a soft-failed step is
also a soft failure. Absent steps are left out.
"""

from __future__ import annotations

from etl.tables import rollups
from etl.usage import KINDS

FAILURE = tuple(rollups.step_failures.c.keys())

_USAGE = f"CAST(ROW({', '.join(f's.{kind.name}' for kind in KINDS)}) AS orchestra.usage)"

EVERY_STEP = """(
    SELECT s.*, COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
           CASE WHEN s.start_time IS NULL THEN r.workflow_id ELSE s.workflow_id END AS counted_in
    FROM orchestra.steps AS s
    JOIN orchestra.runs AS r ON r.id = s.run_id
)"""
"""All steps, with the time and the workflow that determine their group."""


HOUR_OF_GROUP = ("g.hour", "g.hour + interval '1 hour'")


def runs_of(groups: str, time: tuple[str, str] = HOUR_OF_GROUP) -> str:
    """Return the query, in parentheses, of the runs of some groups.

    Two queries with one index condition each, because no index serves a condition on COALESCE.

    Args:
        groups: a FROM item named `g` with the column `workflow_id`, without overlapping times.
        time: SQL for the start and the end of the time of `g`.
    """
    begin, end = time
    return f"""(
    SELECT found.*
    FROM {groups}
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.runs
        WHERE workflow_id = g.workflow_id AND start_time >= {begin} AND start_time < {end}
        UNION ALL
        SELECT * FROM orchestra.runs
        WHERE workflow_id = g.workflow_id AND start_time IS NULL
          AND first_seen_at >= {begin} AND first_seen_at < {end}
    ) AS found
)"""


def steps_of(groups: str, time: tuple[str, str] = HOUR_OF_GROUP) -> str:
    """Return the query, in parentheses, of the steps of some groups; columns as `EVERY_STEP`.

    OFFSET 0 makes the planner go from each hour, and from each run, to its steps by an index. The
    planner does not know the hours, and would otherwise read all steps: 32 s instead of 1 s for a
    batch in a history of ten million steps.

    Args:
        groups: as for `runs_of`.
        time: as for `runs_of`.
    """
    begin, end = time
    return f"""(
    SELECT s.*, s.start_time AS time, s.workflow_id AS counted_in
    FROM {groups}
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.steps
        WHERE workflow_id = g.workflow_id AND start_time >= {begin} AND start_time < {end}
        OFFSET 0
    ) AS s
    UNION ALL
    SELECT s.*, COALESCE(r.start_time, r.first_seen_at), r.workflow_id
    FROM {runs_of(groups, time)} AS r
    CROSS JOIN LATERAL (
        SELECT * FROM orchestra.steps WHERE run_id = r.id AND start_time IS NULL OFFSET 0
    ) AS s
)"""


def judged_steps(steps: str) -> str:
    """Return the query of what the rollups count of each step, with its time and its hour.

    Args:
        steps: a query in parentheses, with the columns of `EVERY_STEP`.
    """
    return f"""
        SELECT counted_in AS workflow_id, time, date_trunc('hour', time, 'UTC') AS hour,
               organization_id, node_id, node_type, model, outcome, duration_ms, is_call,
               orchestra.is_unmetered(outcome, is_call, has_usage, used) AS is_unmetered,
               orchestra.is_untotalled(outcome, is_call, has_usage, used, total_tokens)
                   AS is_untotalled,
               CASE WHEN is_call THEN service_tier END AS service_tier,
               CASE WHEN is_call THEN orchestra.context_tier((used).input_tokens) END
                   AS context_tier,
               CASE WHEN is_call THEN orchestra.kinds_of(used) END AS usage_kinds,
               {", ".join(f"(used).{kind.name}" for kind in KINDS)}, total_tokens, reported_cost,
               finish_reason
        FROM (
            SELECT s.counted_in, s.time, s.organization_id, s.node_id, s.node_type,
                   s.duration_ms, s.service_tier, s.reported_cost, s.finish_reason, u.*,
                   orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason,
                                     u.has_usage) AS is_call
            FROM {steps} AS s
            CROSS JOIN LATERAL (
                SELECT COALESCE(s.response_model, s.request_model) AS model,
                       orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                       orchestra.plausible_usage(raw.used) AS used,
                       orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost)
                           AS has_usage,
                       orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens)
                           AS total_tokens
                FROM (SELECT {_USAGE} AS used) AS raw
                OFFSET 0  -- without OFFSET, each value is computed again for each use
            ) AS u
            WHERE s.absent_since IS NULL
        ) AS called
    """


def judged_runs(runs: str) -> str:
    """Return the query of what the rollups count of each run, with its time and its hour.

    Args:
        runs: a table, or a query in parentheses.
    """
    return f"""
        SELECT r.workflow_id, COALESCE(r.start_time, r.first_seen_at) AS time,
               date_trunc('hour', COALESCE(r.start_time, r.first_seen_at), 'UTC') AS hour,
               r.organization_id, r.duration_ms,
               CASE WHEN r.state = 'succeeded' AND EXISTS (
                        SELECT FROM orchestra.steps AS s
                        WHERE s.run_id = r.id
                          AND (s.error IS NOT NULL OR s.reported_error IS NOT NULL)
                          AND s.absent_since IS NULL
                          AND orchestra.outcome(s.state, s.error, s.reported_error)
                              = 'soft_failed'
                        OFFSET 0)  -- without OFFSET, the errors of the whole history are hashed
                    THEN 'soft_failed' ELSE orchestra.outcome(r.state, r.error, NULL)
               END AS outcome
        FROM {runs} AS r
        OFFSET 0  -- without OFFSET, the steps are re-read for each outcome
    """


def step_failures(steps: str, *, known: bool = False) -> str:
    """Return the query of `step_failures` over these steps.

    Args:
        steps: a query in parentheses, with the columns of `EVERY_STEP`.
        known: take the pattern of a step from the table, if its message is the same.
    """
    pattern = "orchestra.failure_pattern(m.message)"
    join = ""
    if known:
        pattern = f"CASE WHEN k.message = m.message THEN k.pattern ELSE {pattern} END"
        join = "LEFT JOIN orchestra.step_failures AS k ON k.step_id = s.id"
    return f"""
        SELECT id AS step_id, run_id, workflow_id, node_id, organization_id, time, outcome,
               left(encode(sha256(convert_to(pattern, 'UTF8')), 'hex'), 32) AS fingerprint, pattern,
               left(message, 500) AS message
        FROM (
            SELECT s.id, s.run_id, s.counted_in AS workflow_id, s.node_id, s.organization_id,
                   s.time, o.outcome, m.message, {pattern} AS pattern
            FROM {steps} AS s
            CROSS JOIN LATERAL (
                SELECT orchestra.outcome(s.state, s.error, s.reported_error) AS outcome OFFSET 0
            ) AS o
            CROSS JOIN LATERAL (
                SELECT COALESCE(orchestra.error_message(s.error, s.reported_error), '') AS message
                OFFSET 0
            ) AS m
            {join}
            WHERE s.absent_since IS NULL
              AND (s.state = 'failed' OR s.error IS NOT NULL OR s.reported_error IS NOT NULL)
              AND o.outcome IN ('failed', 'soft_failed')
        ) AS failed
    """

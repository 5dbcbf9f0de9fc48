"""What the rollups must be: the queries that compute them from the runs and steps, without writing anything.

A group is a workflow's hour (UTC): the runs that started in it, and the steps that did. A run without a start counts in the hour
in which it was first seen, a step without one where its run counts: it stays there when the run is pruned, and a backfill of
old runs does not enter last year's skipped steps under today. A run is a soft failure where it succeeded although one of its
steps is one. Steps marked absent are left out.
"""

from __future__ import annotations

from etl.tables import rollups

STEP_COUNTS = tuple(name for name, _ in rollups.STEP_COUNTS)
RUN_COUNTS = tuple(name for name, _ in rollups.RUN_COUNTS)
NODE = rollups.NODE
FAILURE = tuple(rollups.step_failures.c.keys())

EVERY_STEP = """(
    SELECT s.*, COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time,
           CASE WHEN s.start_time IS NULL THEN r.workflow_id ELSE s.workflow_id END AS counted_in
    FROM orchestra.steps AS s
    JOIN orchestra.runs AS r ON r.id = s.run_id
)"""
"""All steps, with the time and the workflow that say in which group they count."""

_OUTCOMES = """
    count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed,
    count(*) FILTER (WHERE outcome = 'failed') AS failed,
    count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE outcome = 'skipped') AS skipped,
    count(*) FILTER (WHERE outcome NOT IN ('succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped')) AS unfinished
"""


def _gathered(counted: str, when: str, names: tuple[str, ...], counts: tuple[str, ...]) -> str:
    """A row a group and names, with its histogram, from `counted`, which has a row for each of their buckets."""
    # Byte order, so that a group's rows have the same places whatever the database's collation.
    order = ", ".join(f'{name} COLLATE "C"' for name in names)
    keys = ", ".join(("workflow_id", when, *names))
    sums = ", ".join(f"CAST(COALESCE(sum({count}), 0) AS bigint) AS {count}" for count in counts)
    return f"""
        SELECT workflow_id, {when},
               CAST(row_number() OVER (PARTITION BY workflow_id, {when} ORDER BY {order}) AS integer) AS place,
               {", ".join(names)}, {sums},
               COALESCE(array_agg(CAST(bucket AS smallint) ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{{}}') AS buckets,
               COALESCE(array_agg(CAST(durations AS integer) ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL), '{{}}') AS counts
        FROM ({counted}) AS counted
        GROUP BY {keys}
    """


def step_rollup(steps: str) -> str:
    """The query of `step_rollup` over these steps: a query in parentheses, with the columns of `EVERY_STEP`."""
    return _gathered(
        f"""
        SELECT workflow_id, hour, organization_id, node_id, node_type, model, bucket, count(*) AS durations, {_OUTCOMES},
               count(*) FILTER (WHERE is_call) AS calls, count(*) FILTER (WHERE is_unmetered) AS unmetered_calls,
               sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
               sum(cached_input_tokens) AS cached_input_tokens, sum(reasoning_tokens) AS reasoning_tokens,
               sum(total_tokens) AS total_tokens
        FROM (
            SELECT s.counted_in AS workflow_id, date_trunc('hour', s.time, 'UTC') AS hour,
                   s.organization_id, s.node_id, s.node_type, m.model,
                   orchestra.outcome(s.state, s.reported_error) AS outcome,
                   orchestra.duration_bucket(s.duration_ms) AS bucket,
                   orchestra.is_call(s.state, s.node_type, m.model, s.input_tokens, s.output_tokens, s.total_tokens) AS is_call,
                   orchestra.is_unmetered(s.state, s.node_type, m.model, s.input_tokens, s.output_tokens, s.total_tokens)
                       AS is_unmetered,
                   s.input_tokens, s.output_tokens, s.reasoning_tokens, s.total_tokens,
                   -- A part of the input: else the cost of a sum would not be the sum of the costs.
                   LEAST(COALESCE(s.cached_input_tokens, 0), COALESCE(s.input_tokens, 0)) AS cached_input_tokens
            FROM {steps} AS s
            CROSS JOIN LATERAL (SELECT COALESCE(s.response_model, s.request_model) AS model) AS m
            WHERE s.absent_since IS NULL
        ) AS judged
        GROUP BY workflow_id, hour, organization_id, node_id, node_type, model, bucket
        """,
        "hour",
        NODE,
        STEP_COUNTS,
    )


def step_rollup_daily(rollup: str) -> str:
    """The query of `step_rollup_daily` over these rows of `step_rollup`."""
    # A row comes once for each of its buckets: what it counts is taken from the first.
    sums = ", ".join(f"sum({count}) FILTER (WHERE COALESCE(place, 1) = 1) AS {count}" for count in STEP_COUNTS)
    return _gathered(
        f"""
        SELECT workflow_id, day, organization_id, node_id, node_type, model, bucket, sum(durations) AS durations, {sums}
        FROM (
            SELECT r.workflow_id, CAST(r.hour AT TIME ZONE 'UTC' AS date) AS day, r.organization_id, r.node_id, r.node_type,
                   r.model, h.bucket, h.durations, h.place, {", ".join("r." + count for count in STEP_COUNTS)}
            FROM {rollup} AS r
            LEFT JOIN LATERAL unnest(r.buckets, r.counts) WITH ORDINALITY AS h (bucket, durations, place) ON true
        ) AS entries
        GROUP BY workflow_id, day, organization_id, node_id, node_type, model, bucket
        """,
        "day",
        NODE,
        STEP_COUNTS,
    )


def run_rollup(runs: str) -> str:
    """The query of `run_rollup` over these runs: a table, or a query in parentheses."""
    return _gathered(
        f"""
        SELECT workflow_id, hour, organization_id, bucket, count(*) AS durations, count(*) AS runs, {_OUTCOMES}
        FROM (
            SELECT r.workflow_id, date_trunc('hour', COALESCE(r.start_time, r.first_seen_at), 'UTC') AS hour,
                   r.organization_id, orchestra.duration_bucket(r.duration_ms) AS bucket,
                   CASE WHEN r.state = 'succeeded' AND EXISTS (
                            SELECT FROM orchestra.steps AS s
                            WHERE s.run_id = r.id AND s.state = 'succeeded' AND s.reported_error IS NOT NULL
                              AND s.absent_since IS NULL)
                        THEN 'soft_failed' ELSE r.state END AS outcome
            FROM {runs} AS r
            OFFSET 0  -- or the steps would be asked once for each of the outcomes
        ) AS judged
        GROUP BY workflow_id, hour, organization_id, bucket
        """,
        "hour",
        ("organization_id",),
        RUN_COUNTS,
    )


def step_failures(steps: str) -> str:
    """The query of `step_failures` over these steps: a query in parentheses, with the columns of `EVERY_STEP`."""
    return f"""
        SELECT id AS step_id, run_id, workflow_id, node_id, organization_id, time, outcome,
               left(encode(sha256(convert_to(pattern, 'UTF8')), 'hex'), 32) AS fingerprint, pattern,
               left(message, 500) AS message
        FROM (
            SELECT s.id, s.run_id, s.counted_in AS workflow_id, s.node_id, s.organization_id, s.time,
                   orchestra.outcome(s.state, s.reported_error) AS outcome,
                   m.message, orchestra.failure_pattern(m.message) AS pattern
            FROM {steps} AS s
            CROSS JOIN LATERAL (
                SELECT COALESCE(orchestra.error_message(s.error, s.reported_error), '') AS message OFFSET 0
            ) AS m
            WHERE s.absent_since IS NULL
              AND (s.state = 'failed' OR (s.state = 'succeeded' AND s.reported_error IS NOT NULL))
        ) AS failed
    """

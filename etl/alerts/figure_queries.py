"""The SQL of the figures of windows: one statement for the runs, and one for the steps.

A statement returns a row for each window and part of a workflow. Whole hours come from the rollup.
An hour that lies only partly in a window, or that waits in the queue of the rollups, is counted
from its runs or steps. A statement reads the rollup, its queue and the rows in one snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from etl.analytics import changed_groups, judged_rows
from etl.usage import KINDS

_OUTCOMES = ("succeeded", "soft_failed", "failed", "unfinished")

# `pieces`: the parts of hours to count from the rows, at most one for each hour. A queued hour is
# one piece. `of_pieces`: the windows that each piece is for. OFFSET 0 makes the planner go from
# each window to its hours by the key of the rollup.
# `found`: what is in each window, a row for each row of the rollup and for each run or step.
# `parts`: the parts of a workflow that rules look at. A row belongs to a part if it has the names
# that the part has. `masks` are the combinations of names that occur in parts. With one of them,
# the parts of a row are found by a hash of the names, so that many parts cost little.
_STATEMENT = """
    WITH windows AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:numbers AS int[]), CAST(:workflow_ids AS text[]),
            CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[])
        ) AS w (number, workflow_id, begun, ended)
    ), pieces AS MATERIALIZED (
        SELECT workflow_id, hour, min(begun) AS begun, max(ended) AS ended,
               bool_or(is_queued) AS is_queued
        FROM (
            SELECT workflow_id, hour, begun, ended, false AS is_queued
            FROM unnest(
                CAST(:piece_workflow_ids AS text[]), CAST(:piece_hours AS timestamptz[]),
                CAST(:piece_begins AS timestamptz[]), CAST(:piece_ends AS timestamptz[])
            ) AS p (workflow_id, hour, begun, ended)
            UNION ALL
            SELECT q.workflow_id, q.hour, q.hour, q.hour + interval '1 hour', true
            FROM orchestra_etl.changed_groups AS q
            WHERE {countable} AND q.workflow_id = ANY (CAST(:workflow_ids AS text[]))
              AND EXISTS (
                  SELECT FROM windows AS w
                  WHERE w.workflow_id = q.workflow_id
                    AND q.hour > w.begun - interval '1 hour' AND q.hour < w.ended)
        ) AS p
        GROUP BY workflow_id, hour
    ), of_pieces AS MATERIALIZED (
        SELECT w.number, w.begun, w.ended, g.workflow_id, g.hour
        FROM pieces AS g
        JOIN windows AS w
          ON w.workflow_id = g.workflow_id
         AND g.hour > w.begun - interval '1 hour' AND g.hour < w.ended
         AND (g.is_queued OR g.hour < w.begun OR g.hour > w.ended - interval '1 hour')
    ), hours AS NOT MATERIALIZED (
        SELECT w.number, r.*
        FROM windows AS w
        CROSS JOIN LATERAL (
            SELECT * FROM orchestra.{rollup}
            WHERE workflow_id = w.workflow_id
              AND hour >= w.begun AND hour <= w.ended - interval '1 hour'
            OFFSET 0
        ) AS r
        -- Counts of pruned runs (ordinal < 0) are not in the rows.
        WHERE r.ordinal < 0 OR NOT EXISTS (
            SELECT FROM pieces AS g
            WHERE g.workflow_id = r.workflow_id AND g.hour = r.hour AND g.is_queued)
    ), found AS MATERIALIZED (
        {from_hours}
        UNION ALL
        {from_rows}
    ), parts AS MATERIALIZED (
        SELECT *, organisation IS NOT NULL AS by_organisation, node IS NOT NULL AS by_node,
               model IS NOT NULL AS by_model
        FROM unnest(
            CAST(:parts AS int[]), CAST(:organisations AS text[]), CAST(:nodes AS text[]),
            CAST(:models AS text[]), CAST(:timed AS boolean[])
        ) AS p (part, organisation, node, model, timed)
    ), masks AS MATERIALIZED (
        SELECT by_organisation, by_node, by_model, bool_or(timed) AS timed
        FROM parts
        GROUP BY by_organisation, by_node, by_model
    ), durations AS (
        SELECT number, part, array_agg(bucket) AS buckets, array_agg(durations) AS counts
        FROM (
            SELECT f.number, p.part, CAST(b.bucket AS int) AS bucket,
                   CAST(sum(b.durations) AS bigint) AS durations
            FROM found AS f
            {of_parts} AND p.timed
            CROSS JOIN LATERAL unnest(f.buckets, f.counts) AS b (bucket, durations)
            WHERE f.number = ANY (CAST(:with_durations AS int[])) AND m.timed
              AND b.bucket IS NOT NULL
            GROUP BY f.number, p.part, b.bucket
        ) AS d
        GROUP BY number, part
    ), figures AS (
        SELECT f.number, p.part, {sums},
               min(f.currency) AS currency, max(f.currency) AS other_currency, sum(f.cost) AS cost
        FROM found AS f
        {of_parts}
        GROUP BY f.number, p.part
    )
    SELECT number, part, f.total, f.succeeded, f.soft_failed, f.failed, f.unfinished, f.unpriced,
           f.tokens, f.untotalled, f.currency, f.other_currency, f.cost, d.buckets, d.counts
    FROM figures AS f
    LEFT JOIN durations AS d USING (number, part)
"""
_OF_PARTS = """
            CROSS JOIN masks AS m
            JOIN parts AS p
              ON p.by_organisation = m.by_organisation AND p.by_node = m.by_node
             AND p.by_model = m.by_model
             AND COALESCE(p.organisation, '')
                 = CASE WHEN m.by_organisation THEN f.organization_id ELSE '' END
             AND COALESCE(p.node, '') = CASE WHEN m.by_node THEN f.node_id ELSE '' END
             AND COALESCE(p.model, '') = CASE WHEN m.by_model THEN f.model ELSE '' END"""
_SUMS = ", ".join(
    f"CAST(COALESCE(sum(f.{name}), 0) AS bigint) AS {name}"
    for name in (*_OUTCOMES, "total", "unpriced", "tokens", "untotalled")
)
_GROUPS = "pieces AS g"
_TIME = ("g.begun", "g.ended")
_NUMBERS = ", ".join(f"CAST(outcome = '{one}' AS int)" for one in _OUTCOMES[:3]) + (
    ", CAST(outcome NOT IN ('succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped') AS int)"
)
_DURATION = """CASE WHEN outcome = 'succeeded'
                    THEN ARRAY[CAST(orchestra.duration_bucket(duration_ms) AS smallint)] END,
               ARRAY[1]"""
_OF_PIECES = """
        JOIN of_pieces AS g
          ON g.workflow_id = j.workflow_id AND g.hour = j.hour
         AND j.time >= g.begun AND j.time < g.ended"""


def _statement(rollup: str, from_hours: str, from_rows: str) -> str:
    return _STATEMENT.format(
        countable=changed_groups.COUNTABLE,
        rollup=rollup,
        from_hours=from_hours,
        from_rows=from_rows,
        of_parts=_OF_PARTS,
        sums=_SUMS,
    )


RUNS = text(
    _statement(
        "run_rollup",
        f"""
        SELECT number, organization_id, CAST(NULL AS text) AS node_id, CAST(NULL AS text) AS model,
               runs AS total, {", ".join(_OUTCOMES)}, CAST(NULL AS text) AS currency,
               CAST(NULL AS numeric) AS cost, 0 AS unpriced, 0 AS tokens, 0 AS untotalled,
               buckets, counts
        FROM hours""",
        f"""
        SELECT g.number, organization_id, NULL, NULL, 1, {_NUMBERS}, NULL, NULL, 0, 0, 0,
               {_DURATION}
        FROM ({judged_rows.judged_runs(judged_rows.runs_of(_GROUPS, _TIME))}) AS j
        {_OF_PIECES}""",
    )
)
"""The figures of runs."""


# The costs are those of the view `model_usage`: the price of a day applies to its hours.
def _cost(usage: Sequence[str], calls: str, at: str) -> str:
    """Return the join that prices calls; `k.cost` is null without a price."""
    return f"""
        LEFT JOIN LATERAL (
            SELECT p.currency,
                   orchestra.call_cost(
                       CAST(ROW({", ".join("j." + name for name in usage)}) AS orchestra.usage),
                       {calls}, p) AS cost
            FROM orchestra.prices AS p
            WHERE p.model = j.model AND {calls} > 0
              AND orchestra.price_applies(p, j.service_tier, j.context_tier, {at})
            OFFSET 0
        ) AS k ON k.cost IS NOT NULL"""


_USED = tuple(kind.name for kind in KINDS)
_EVERY_OUTCOME = (*_OUTCOMES, "cancelled", "skipped")

STEPS = text(
    _statement(
        "step_rollup",
        f"""
        SELECT number, organization_id, node_id, j.model, {" + ".join(_EVERY_OUTCOME)} AS total,
               {", ".join(_OUTCOMES)}, k.currency, k.cost,
               CASE WHEN k.cost IS NULL THEN calls ELSE unmetered_calls END AS unpriced,
               total_tokens AS tokens, untotalled_calls AS untotalled, buckets, counts
        FROM hours AS j
        {_cost(_USED, "(j.calls - j.unmetered_calls)", "j.hour")}""",
        f"""
        SELECT g.number, organization_id, node_id, j.model, 1, {_NUMBERS}, k.currency, k.cost,
               CAST(CASE WHEN k.cost IS NULL THEN is_call ELSE is_unmetered END AS int),
               total_tokens, CAST(is_untotalled AS int), {_DURATION}
        FROM ({judged_rows.judged_steps(judged_rows.steps_of(_GROUPS, _TIME))}) AS j
        {_OF_PIECES}
        {_cost(_USED, "CAST(j.is_call AND NOT j.is_unmetered AS int)", "j.time")}""",
    )
)
"""The figures of steps."""

CREATE FUNCTION orchestra.explain_failures(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz
) RETURNS TABLE (
    part text, outcome text, node_id text, fingerprint text, pattern text, before bigint,
    after bigint, amount numeric
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100
AS $$
    WITH periods AS MATERIALIZED (
        SELECT * FROM orchestra.explained_periods(
            workflow, since, until, against_since, against_until)
    ), failed AS MATERIALIZED (
        SELECT s.side, f.outcome, f.node_id, f.fingerprint, min(f.pattern) AS pattern,
               count(*) AS steps
        FROM (VALUES (0, against_since, against_until), (1, since, until))
            AS s (side, begins, ends)
        JOIN orchestra.step_failures AS f
          ON f.workflow_id = workflow AND f.time >= s.begins AND f.time < s.ends
        GROUP BY s.side, f.outcome, f.node_id, f.fingerprint
        UNION ALL
        -- Of failures of pruned runs, only the number is known.
        SELECT p.side, n.outcome, r.node_id, NULL, NULL, sum(n.steps)
        FROM periods AS p
        JOIN orchestra.step_rollup AS r
          ON r.workflow_id = workflow AND r.hour >= p.begins AND r.hour < p.ends
         AND r.hour <= p.period_ends - interval '1 hour' AND r.ordinal < 0
        CROSS JOIN LATERAL (VALUES ('failed', r.failed), ('soft_failed', r.soft_failed))
            AS n (outcome, steps)
        WHERE n.steps > 0
        GROUP BY p.side, n.outcome, r.node_id
    ), totals AS (
        -- Failures in a period in which no run started belong to earlier runs, which count as one.
        SELECT GREATEST(COALESCE(r.runs_0, 0), LEAST(f.steps_0, 1)) AS runs_0,
               GREATEST(COALESCE(r.runs_1, 0), LEAST(f.steps_1, 1)) AS runs_1,
               f.steps_0, f.steps_1
        FROM (SELECT sum(p.runs) FILTER (WHERE p.side = 0) AS runs_0,
                     sum(p.runs) FILTER (WHERE p.side = 1) AS runs_1
              FROM periods AS p) AS r
        CROSS JOIN (SELECT COALESCE(sum(f.steps) FILTER (WHERE f.side = 0), 0) AS steps_0,
                           COALESCE(sum(f.steps) FILTER (WHERE f.side = 1), 0) AS steps_1
                    FROM failed AS f) AS f
    ), groups AS (
        SELECT f.outcome, f.node_id, f.fingerprint, min(f.pattern) AS pattern,
               COALESCE(sum(f.steps) FILTER (WHERE f.side = 0), 0) AS steps_0,
               COALESCE(sum(f.steps) FILTER (WHERE f.side = 1), 0) AS steps_1
        FROM failed AS f
        GROUP BY f.outcome, f.node_id, f.fingerprint
    ), rated AS (
        -- Failures a run. Without runs in a period, the rate is that of the other.
        SELECT g.*, t.runs_0, t.runs_1,
               COALESCE(orchestra.ratio(g.steps_0, t.runs_0), orchestra.ratio(g.steps_1, t.runs_1))
                   AS rate_0,
               COALESCE(orchestra.ratio(g.steps_1, t.runs_1), orchestra.ratio(g.steps_0, t.runs_0))
                   AS rate_1
        FROM groups AS g
        CROSS JOIN totals AS t
    ), effects AS (
        SELECT 'runs' AS part, NULL AS outcome, NULL AS node_id, NULL AS fingerprint,
               NULL AS pattern, max(r.runs_0) AS before, max(r.runs_1) AS after,
               round(sum((r.runs_1 - r.runs_0) * orchestra.midpoint(r.rate_0, r.rate_1)), 6)
                   AS amount
        FROM rated AS r
        UNION ALL
        SELECT CASE WHEN r.fingerprint IS NULL THEN 'pruned' WHEN r.rate_0 = 0 THEN 'new'
                    WHEN r.rate_1 = 0 THEN 'gone' WHEN r.rate_1 > r.rate_0 THEN 'grown'
                    ELSE 'shrunk' END,
               r.outcome, r.node_id, r.fingerprint, r.pattern, r.steps_0, r.steps_1,
               round(orchestra.midpoint(r.runs_0, r.runs_1) * (r.rate_1 - r.rate_0), 6)
        FROM rated AS r
    ), ranked AS (
        SELECT e.*, t.steps_1 - t.steps_0 - sum(e.amount) OVER () AS rounding,
               row_number() OVER (ORDER BY abs(e.amount) DESC, e.part, e.outcome, e.node_id,
                   e.fingerprint) AS rank
        FROM effects AS e
        CROSS JOIN totals AS t
        WHERE e.amount <> 0
    )
    SELECT 'baseline', NULL, NULL, NULL, NULL, NULL, NULL, t.steps_0
    FROM totals AS t
    UNION ALL
    SELECT r.part, r.outcome, r.node_id, r.fingerprint, r.pattern, CAST(r.before AS bigint),
           CAST(r.after AS bigint),
           CASE WHEN r.rank = 1 THEN r.amount + r.rounding ELSE r.amount END
    FROM ranked AS r
$$;

COMMENT ON FUNCTION orchestra.explain_failures(
    text, timestamptz, timestamptz, timestamptz, timestamptz) IS
    'Why the number of failed and soft-failed steps of a workflow differs between two periods: a '
    'row baseline with the number against which it is compared, and the parts of the difference, '
    'which add up to it exactly: runs, and failures a run by node and pattern. before and after '
    'are runs, or steps.';

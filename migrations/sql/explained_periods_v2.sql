-- The rollups hold whole hours. The rest of a period is read from the runs and steps.
CREATE OR REPLACE FUNCTION orchestra.partial_hours(INOUT begins timestamptz, INOUT ends timestamptz)
    RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE ROWS 2
AS $$
    SELECT begins, LEAST(ends, first.hour)
    FROM (SELECT date_trunc('hour', begins + interval '1 hour' - interval '1 microsecond', 'UTC')
              AS hour) AS first
    WHERE begins < LEAST(ends, first.hour)
    UNION ALL
    SELECT last.hour, ends
    FROM (SELECT date_trunc('hour', ends, 'UTC') AS hour) AS last
    WHERE begins <= last.hour AND last.hour < ends
$$;

COMMENT ON FUNCTION orchestra.partial_hours(timestamptz, timestamptz) IS
    'The parts of a period that are no whole hours (UTC): at most one at its begin and one at its '
    'end.';

-- A version that started no run in a period has calls there only of runs that an earlier version
-- started. Its stretch counts to the version before it.
CREATE FUNCTION orchestra.explained_periods(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz,
    only_organisation text
) RETURNS TABLE (
    side integer, version text, begins timestamptz, ends timestamptz, period_ends timestamptz,
    runs bigint
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 4
AS $$
    WITH versions AS (
        SELECT v.version, v.since, lead(v.since, 1, 'infinity') OVER (ORDER BY v.since) AS ends
        FROM (
            SELECT b.version, b.since, row_number() OVER (ORDER BY b.since) > 1
                   AND b.version IS NOT DISTINCT FROM lag(b.version) OVER (ORDER BY b.since)
                       AS is_same
            FROM (
                SELECT CAST(NULL AS text) AS version, CAST('-infinity' AS timestamptz) AS since
                UNION ALL
                -- The rule of run_summary.
                SELECT seen.version,
                       CASE WHEN seen.api_updated_at < seen.first_seen_at
                             AND (seen.before <= seen.api_updated_at OR seen.before IS NULL)
                           THEN seen.api_updated_at ELSE seen.first_seen_at END
                FROM (SELECT w.version, w.first_seen_at, w.api_updated_at,
                             lag(w.first_seen_at) OVER (ORDER BY w.first_seen_at) AS before
                      FROM orchestra.workflow_versions AS w
                      WHERE w.workflow_id = workflow) AS seen
            ) AS b
        ) AS v
        WHERE NOT v.is_same
    ), stretches AS (
        SELECT p.side, v.version, GREATEST(p.begins, v.since) AS begins,
               LEAST(p.ends, v.ends) AS ends, p.ends AS period_ends
        FROM (VALUES (0, against_since, against_until), (1, since, until))
            AS p (side, begins, ends)
        JOIN versions AS v ON GREATEST(p.begins, v.since) < LEAST(p.ends, v.ends)
    ), counted AS (
        SELECT s.*, rolled.runs + partial.runs AS runs
        FROM stretches AS s
        CROSS JOIN LATERAL (
            SELECT COALESCE(sum(r.runs), 0) AS runs
            FROM orchestra.run_rollup AS r
            WHERE r.workflow_id = workflow AND r.hour >= s.begins AND r.hour < s.ends
              AND r.hour <= s.period_ends - interval '1 hour'
              AND (r.ordinal < 0 OR r.hour <= s.ends - interval '1 hour')
              AND (only_organisation IS NULL OR r.organization_id = only_organisation)
        ) AS rolled
        CROSS JOIN LATERAL (
            SELECT count(*) AS runs
            FROM orchestra.partial_hours(s.begins, s.ends) AS part
            CROSS JOIN LATERAL (
                SELECT FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow
                  AND r.start_time >= part.begins AND r.start_time < part.ends
                  AND (only_organisation IS NULL OR r.organization_id = only_organisation)
                UNION ALL
                SELECT FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow AND r.start_time IS NULL
                  AND r.first_seen_at >= part.begins AND r.first_seen_at < part.ends
                  AND (only_organisation IS NULL OR r.organization_id = only_organisation)
            ) AS found
        ) AS partial
    )
    SELECT c.side, other.version, c.begins, c.ends, c.period_ends, CAST(c.runs AS bigint)
    FROM counted AS c
    CROSS JOIN LATERAL (
        SELECT o.version
        FROM counted AS o
        WHERE o.side = c.side
        ORDER BY o.runs > 0 DESC, o.runs > 0 AND o.begins <= c.begins DESC,
                 CASE WHEN o.runs > 0 AND o.begins <= c.begins THEN o.begins END DESC, o.begins
        LIMIT 1
    ) AS other
$$;

COMMENT ON FUNCTION orchestra.explained_periods(
    text, timestamptz, timestamptz, timestamptz, timestamptz, text) IS
    'As explained_periods with five arguments, with the runs of one organisation; null: of all.';

CREATE OR REPLACE FUNCTION orchestra.explained_periods(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz
) RETURNS TABLE (
    side integer, version text, begins timestamptz, ends timestamptz, period_ends timestamptz,
    runs bigint
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 4
AS $$
    SELECT * FROM orchestra.explained_periods(
        workflow, since, until, against_since, against_until, NULL)
$$;

COMMENT ON FUNCTION orchestra.explained_periods(
    text, timestamptz, timestamptz, timestamptz, timestamptz) IS
    'The stretches of two periods of a workflow in which one version was in force, with the runs '
    'that started in them: side 1 is the period since/until, side 0 the baseline. Their whole '
    'hours are counted by the rollups, the rest by the runs.';

-- A loop, because each step of the path depends on the one after it.
CREATE FUNCTION orchestra.critical_path(
    starts timestamptz[], ends timestamptz[], run_starts timestamptz, run_ends timestamptz,
    OUT took bigint[], OUT waited bigint[], OUT waited_at_end bigint
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    steps integer := COALESCE(cardinality(ends), 0);
    later integer := 0;
    at timestamptz := run_ends;
    ends_at timestamptz;
    gap bigint;
BEGIN
    took := array_fill(NULL::bigint, ARRAY[steps]);
    waited := took;
    FOR ordinal IN 1 .. steps LOOP
        ends_at := LEAST(ends[ordinal], run_ends);
        IF ends_at <= at AND ends_at >= run_starts THEN
            gap := extract(epoch FROM at - ends_at) * 1000000;
            IF later = 0 THEN
                waited_at_end := gap;
            ELSE
                waited[later] := gap;
            END IF;
            at := GREATEST(LEAST(starts[ordinal], ends_at), run_starts);
            took[ordinal] := extract(epoch FROM ends_at - at) * 1000000;
            later := ordinal;
        END IF;
    END LOOP;
    gap := extract(epoch FROM at - run_starts) * 1000000;
    IF later = 0 THEN
        waited_at_end := gap;
    ELSE
        waited[later] := gap;
    END IF;
END
$$;

COMMENT ON FUNCTION orchestra.critical_path(
    timestamptz[], timestamptz[], timestamptz, timestamptz) IS
    'The steps that a run waited for, found from its end: the step that ended last, before it the '
    'step that ended last before that one started, and so on. The steps must be in the order of '
    'their ends, the last first. took: microseconds of each step on the path; waited: from the end '
    'of the one before it to its start; null: not on the path. With waited_at_end, they add up to '
    'the duration of the run.';

CREATE FUNCTION orchestra.explain_duration(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz
) RETURNS TABLE (part text, node_id text, before numeric, after numeric, amount numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100
AS $$
    WITH runs AS (
        SELECT s.side, r.id, r.start_time, r.end_time
        FROM (VALUES (0, against_since, against_until), (1, since, until))
            AS s (side, begins, ends)
        JOIN orchestra.runs AS r
          ON r.workflow_id = workflow AND r.start_time >= s.begins AND r.start_time < s.ends
        WHERE r.state = 'succeeded' AND r.end_time >= r.start_time
          AND orchestra.outcome(r.state, r.error, NULL) = 'succeeded'
    ), paths AS MATERIALIZED (
        SELECT r.side, r.start_time, r.end_time, s.nodes,
               orchestra.critical_path(s.starts, s.ends, r.start_time, r.end_time) AS path
        FROM runs AS r
        CROSS JOIN LATERAL (
            SELECT array_agg(s.node_id ORDER BY s.end_time DESC, s.start_time, s.position, s.id)
                       FILTER (WHERE s.end_time >= s.start_time) AS nodes,
                   array_agg(s.start_time ORDER BY s.end_time DESC, s.start_time, s.position, s.id)
                       FILTER (WHERE s.end_time >= s.start_time) AS starts,
                   array_agg(s.end_time ORDER BY s.end_time DESC, s.start_time, s.position, s.id)
                       FILTER (WHERE s.end_time >= s.start_time) AS ends,
                   bool_or(orchestra.outcome(s.state, s.error, s.reported_error) = 'soft_failed')
                       AS soft_failed
            FROM orchestra.steps AS s
            WHERE s.run_id = r.id AND s.absent_since IS NULL
            OFFSET 0  -- a look-up for each run, or the planner may read all steps
        ) AS s
        WHERE s.soft_failed IS NOT TRUE
    ), totals AS (
        SELECT count(*) FILTER (WHERE p.side = 0) AS runs_0,
               count(*) FILTER (WHERE p.side = 1) AS runs_1,
               sum(extract(epoch FROM p.end_time - p.start_time) * 1000)
                   FILTER (WHERE p.side = 0) AS ms_0,
               sum(extract(epoch FROM p.end_time - p.start_time) * 1000)
                   FILTER (WHERE p.side = 1) AS ms_1
        FROM paths AS p
    ), means AS (
        SELECT t.runs_0, t.runs_1, round(orchestra.ratio(t.ms_0, t.runs_0), 6) AS mean_0,
               round(orchestra.ratio(t.ms_1, t.runs_1), 6) AS mean_1
        FROM totals AS t
        WHERE t.runs_0 > 0 AND t.runs_1 > 0
    ), on_path AS (
        SELECT p.side, s.node_id, s.took, s.waited, s.took IS NOT NULL AS is_step
        FROM paths AS p
        CROSS JOIN LATERAL unnest(p.nodes, (p.path).took, (p.path).waited)
            AS s (node_id, took, waited)
        WHERE s.took IS NOT NULL
        UNION ALL
        SELECT p.side, NULL, NULL, (p.path).waited_at_end, false
        FROM paths AS p
    ), nodes AS (
        SELECT n.node_id, n.is_step, m.runs_0, m.runs_1,
               COALESCE(sum(n.steps) FILTER (WHERE n.side = 0), 0) AS steps_0,
               COALESCE(sum(n.steps) FILTER (WHERE n.side = 1), 0) AS steps_1,
               COALESCE(sum(n.took) FILTER (WHERE n.side = 0), 0) * 0.001 AS took_0,
               COALESCE(sum(n.took) FILTER (WHERE n.side = 1), 0) * 0.001 AS took_1,
               COALESCE(sum(n.waited) FILTER (WHERE n.side = 0), 0) * 0.001 AS waited_0,
               COALESCE(sum(n.waited) FILTER (WHERE n.side = 1), 0) * 0.001 AS waited_1
        FROM (
            SELECT o.side, o.node_id, o.is_step, count(o.took) AS steps, sum(o.took) AS took,
                   sum(o.waited) AS waited
            FROM on_path AS o
            GROUP BY o.side, o.node_id, o.is_step
        ) AS n
        CROSS JOIN means AS m
        GROUP BY n.node_id, n.is_step, m.runs_0, m.runs_1
    ), factors AS (
        -- A node that is on the path in one period only takes as long in the other.
        SELECT n.node_id, n.is_step, orchestra.ratio(n.steps_0, n.runs_0) AS often_0,
               orchestra.ratio(n.steps_1, n.runs_1) AS often_1,
               COALESCE(orchestra.ratio(n.took_0, n.steps_0), orchestra.ratio(n.took_1, n.steps_1))
                   AS ms_0,
               COALESCE(orchestra.ratio(n.took_1, n.steps_1), orchestra.ratio(n.took_0, n.steps_0))
                   AS ms_1,
               orchestra.ratio(n.waited_0, n.runs_0) AS waited_0,
               orchestra.ratio(n.waited_1, n.runs_1) AS waited_1
        FROM nodes AS n
    ), effects AS (
        SELECT e.part, f.node_id, e.before, e.after, round(e.amount, 6) AS amount
        FROM factors AS f
        CROSS JOIN LATERAL (
            VALUES
                (CASE WHEN f.often_0 = 0 OR f.often_1 = 0 THEN 'nodes' ELSE 'executions' END,
                 f.often_0, f.often_1,
                 (f.often_1 - f.often_0) * orchestra.midpoint(f.ms_0, f.ms_1)),
                ('time', f.ms_0, f.ms_1,
                 orchestra.midpoint(f.often_0, f.often_1) * (f.ms_1 - f.ms_0)),
                (CASE WHEN f.is_step THEN 'waiting' ELSE 'waiting_at_end' END,
                 f.waited_0, f.waited_1, f.waited_1 - f.waited_0)
        ) AS e (part, before, after, amount)
        WHERE round(e.amount, 6) <> 0
    ), ranked AS (
        SELECT e.*, m.mean_1 - m.mean_0 - sum(e.amount) OVER () AS rounding,
               row_number() OVER (ORDER BY abs(e.amount) DESC, e.part, e.node_id) AS rank
        FROM effects AS e
        CROSS JOIN means AS m
    )
    SELECT 'baseline', NULL, NULL, NULL, m.mean_0
    FROM means AS m
    UNION ALL
    SELECT r.part, r.node_id, trim_scale(round(r.before, 6)), trim_scale(round(r.after, 6)),
           CASE WHEN r.rank = 1 THEN r.amount + r.rounding ELSE r.amount END
    FROM ranked AS r
$$;

COMMENT ON FUNCTION orchestra.explain_duration(
    text, timestamptz, timestamptz, timestamptz, timestamptz) IS
    'Why the mean duration of the successful runs of a workflow differs between two periods, in '
    'milliseconds: a row baseline with the mean against which it is compared, and the parts of the '
    'difference, which add up to it exactly: by node on the critical path (see critical_path) and '
    'waiting. No row if a period has no such run.';

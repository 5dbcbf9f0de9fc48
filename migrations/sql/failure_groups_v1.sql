CREATE VIEW orchestra.failure_groups AS
SELECT g.workflow_id,
       COALESCE(w.name, g.workflow_id) AS workflow_name,
       g.node_id,
       g.outcome,
       g.fingerprint,
       g.pattern,
       (SELECT f.message
        FROM orchestra.step_failures AS f
        WHERE f.workflow_id = g.workflow_id AND f.time = g.last_time
            AND f.fingerprint = g.fingerprint
          AND f.node_id IS NOT DISTINCT FROM g.node_id AND f.outcome = g.outcome
        ORDER BY f.step_id DESC
        LIMIT 1) AS example,
       g.first_time,
       g.last_time,
       g.steps,
       g.runs
FROM (
    -- Grouping by run first hashes twice, which is faster than the one sort that count(DISTINCT
    -- run_id) needs.
    SELECT workflow_id, node_id, outcome, fingerprint, min(pattern) AS pattern,
           min(first_time) AS first_time,
           max(last_time) AS last_time, CAST(sum(steps) AS bigint) AS steps, count(*) AS runs
    FROM (
        SELECT workflow_id, node_id, outcome, fingerprint, run_id, min(pattern) AS pattern,
               min(time) AS first_time,
               max(time) AS last_time, count(*) AS steps
        FROM orchestra.step_failures
        GROUP BY workflow_id, node_id, outcome, fingerprint, run_id
    ) AS of_runs
    GROUP BY workflow_id, node_id, outcome, fingerprint
) AS g
LEFT JOIN orchestra.workflows AS w ON w.id = g.workflow_id;

COMMENT ON VIEW orchestra.failure_groups IS
    'Kinds of failures by workflow and node, over all stored runs. For another period, group the '
    'view failures.';
COMMENT ON COLUMN orchestra.failure_groups.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.failure_groups.workflow_name IS
    'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.failure_groups.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.failure_groups.outcome IS 'failed or soft_failed.';
COMMENT ON COLUMN orchestra.failure_groups.fingerprint IS 'Hash of the pattern.';
COMMENT ON COLUMN orchestra.failure_groups.pattern IS
    'The message with its numbers, ids and quoted texts replaced.';
COMMENT ON COLUMN orchestra.failure_groups.example IS
    'The first 500 characters of the latest error of this kind.';
COMMENT ON COLUMN orchestra.failure_groups.first_time IS 'When the first of these steps started.';
COMMENT ON COLUMN orchestra.failure_groups.last_time IS 'When the last of them started.';
COMMENT ON COLUMN orchestra.failure_groups.steps IS 'Steps that failed in this way.';
COMMENT ON COLUMN orchestra.failure_groups.runs IS 'Runs that have such a step.';

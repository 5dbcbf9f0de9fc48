CREATE VIEW orchestra.failures AS
SELECT f.time,
       f.workflow_id,
       COALESCE(w.name, f.workflow_id) AS workflow_name,
       f.organization_id,
       f.run_id,
       f.step_id,
       f.node_id,
       f.outcome,
       f.fingerprint,
       f.pattern,
       f.message
FROM orchestra.step_failures AS f
LEFT JOIN orchestra.workflows AS w ON w.id = f.workflow_id;

COMMENT ON VIEW orchestra.failures IS
    'One row per step that failed or soft-failed, with the kind of failure.';
COMMENT ON COLUMN orchestra.failures.time IS
    'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.failures.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.failures.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.failures.organization_id IS
    'The organisation; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.failures.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.failures.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.failures.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.failures.outcome IS 'failed or soft_failed.';
COMMENT ON COLUMN orchestra.failures.fingerprint IS
    'Hash of the pattern: the same for failures of one kind.';
COMMENT ON COLUMN orchestra.failures.pattern IS
    'The message with its numbers, ids and quoted texts replaced.';
COMMENT ON COLUMN orchestra.failures.message IS 'The first 500 characters of the error.';

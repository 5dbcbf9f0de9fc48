CREATE VIEW orchestra.removed_runs AS
SELECT run_id, workflow_id, tracking, removed_at
FROM orchestra_etl.run_ledger
WHERE removed_at IS NOT NULL;

COMMENT ON VIEW orchestra.removed_runs IS
    'Runs that were erased or pruned here. Copies of runs and steps must remove them, too.';
COMMENT ON COLUMN orchestra.removed_runs.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.removed_runs.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.removed_runs.tracking IS 'erased: on request; pruned: by retention.';
COMMENT ON COLUMN orchestra.removed_runs.removed_at IS
    'When it was removed. A run that retention kept from being loaded has only this row.';

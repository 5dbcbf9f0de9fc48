CREATE VIEW orchestra.alerts AS
SELECT e.rule,
       e.workflow_id,
       COALESCE(w.name, e.workflow_id) AS workflow_name,
       e.node,
       e.model,
       e.organisation,
       e.label,
       e.metric,
       CASE WHEN e.resolved_at IS NULL THEN 'firing' ELSE 'resolved' END AS state,
       e.fired_at,
       e.resolved_at,
       e.value,
       e.threshold
FROM orchestra_etl.alert_episodes AS e
LEFT JOIN orchestra.workflows AS w ON w.id = e.workflow_id;

COMMENT ON VIEW orchestra.alerts IS
    'One row for each time that an alert fired, also if it was muted.';
COMMENT ON COLUMN orchestra.alerts.rule IS 'Name of the rule in the configuration.';
COMMENT ON COLUMN orchestra.alerts.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.alerts.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.alerts.node IS 'The node that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.model IS 'The model that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.organisation IS
    'The organisation that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.label IS 'The label that the rule names; null: none.';
COMMENT ON COLUMN orchestra.alerts.metric IS 'The metric.';
COMMENT ON COLUMN orchestra.alerts.state IS 'firing or resolved.';
COMMENT ON COLUMN orchestra.alerts.fired_at IS 'When it fired.';
COMMENT ON COLUMN orchestra.alerts.resolved_at IS 'When it was resolved; null: it fires.';
COMMENT ON COLUMN orchestra.alerts.value IS
    'The metric when it fired, in seconds for durations.';
COMMENT ON COLUMN orchestra.alerts.threshold IS 'The threshold when it fired.';

-- For one run at a time: everything is computed run by run, once a condition on run_id has chosen the run.
CREATE VIEW orchestra.step_timeline AS
SELECT r.id AS run_id,
       r.workflow_id,
       COALESCE(w.name, r.workflow_id) AS workflow_name,
       s.id AS step_id,
       s.position,
       s.node_id,
       s.node_type,
       s.model,
       s.state,
       s.outcome,
       s.start_time,
       s.end_time,
       CAST(extract(epoch FROM s.start_time - s.run_begun) * 1000 AS double precision) AS offset_ms,
       s.duration_ms,
       CAST(extract(epoch FROM s.start_time - COALESCE(s.waited_since, s.run_begun)) * 1000 AS double precision) AS wait_ms,
       s.lane,
       s.execution,
       s.executions,
       s.error,
       s.calls,
       s.input_tokens,
       s.output_tokens,
       s.total_tokens,
       orchestra.call_cost(s.input_tokens, s.cached_input_tokens, s.output_tokens,
                           p.input_per_million, p.cached_input_per_million, p.output_per_million) AS cost,
       p.currency
FROM orchestra.runs AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
CROSS JOIN LATERAL (
    WITH RECURSIVE ordered AS (
        SELECT s.id, s.position, s.node_id, s.node_type, COALESCE(s.response_model, s.request_model) AS model, s.state,
               orchestra.outcome(s.state, s.reported_error) AS outcome, s.start_time, s.end_time, s.duration_ms,
               s.first_seen_at, orchestra.error_message(s.error, s.reported_error) AS error,
               CASE WHEN num_nonnulls(s.response_model, s.request_model, s.input_tokens, s.output_tokens, s.total_tokens) > 0
                    THEN 1 ELSE 0 END AS calls,
               s.input_tokens, s.cached_input_tokens, s.output_tokens, s.total_tokens,
               LEAST(r.start_time, min(s.start_time) OVER ()) AS run_begun,
               row_number() OVER (ORDER BY s.start_time, s.position, s.id) AS place,
               row_number() OVER (PARTITION BY s.node_id ORDER BY s.start_time, s.position, s.id) AS execution,
               count(*) OVER (PARTITION BY s.node_id) AS executions
        FROM orchestra.steps AS s
        WHERE s.run_id = r.id AND s.absent_since IS NULL
    ), placed (place, lane, free_at) AS (
        -- One after the other, each into the first lane that is free by then: no lane holds two steps at a time, and there
        -- are no more lanes than steps that overlap. free_at: when each lane is.
        SELECT CAST(0 AS bigint), CAST(NULL AS integer), CAST('{}' AS timestamptz[])
        UNION ALL
        SELECT s.place, l.lane,
               p.free_at[: l.lane - 1]
               || CASE WHEN s.end_time IS NULL THEN 'infinity' ELSE GREATEST(s.start_time, s.end_time) END
               || p.free_at[l.lane + 1 :]
        FROM placed AS p
        JOIN ordered AS s ON s.place = p.place + 1 AND s.start_time IS NOT NULL
        CROSS JOIN LATERAL (
            SELECT CAST(COALESCE(min(f.lane), cardinality(p.free_at) + 1) AS integer) AS lane
            FROM unnest(p.free_at) WITH ORDINALITY AS f (at, lane)
            WHERE f.at <= s.start_time
        ) AS l
    )
    SELECT o.id, o.position, o.node_id, o.node_type, o.model, o.state, o.outcome, o.start_time, o.end_time, o.duration_ms,
           o.first_seen_at, o.error, o.calls, o.input_tokens, o.cached_input_tokens, o.output_tokens, o.total_tokens,
           o.run_begun, o.execution, o.executions, placed.lane,
           (SELECT max(e.end_time) FROM ordered AS e WHERE e.end_time <= o.start_time AND e.id <> o.id) AS waited_since
    FROM ordered AS o
    LEFT JOIN placed ON placed.place = o.place
) AS s
LEFT JOIN orchestra.prices AS p
  ON p.model = s.model
 AND p.valid_from <= CAST(COALESCE(s.start_time, s.first_seen_at) AT TIME ZONE 'UTC' AS date)
 AND (p.valid_until > CAST(COALESCE(s.start_time, s.first_seen_at) AT TIME ZONE 'UTC' AS date) OR p.valid_until IS NULL);

COMMENT ON VIEW orchestra.step_timeline IS
    'One row a step, placed in its run: offset, wait, lane, execution. For one run at a time: give run_id.';
COMMENT ON COLUMN orchestra.step_timeline.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.step_timeline.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.step_timeline.workflow_name IS 'The workflow''s name, or its id where it has none.';
COMMENT ON COLUMN orchestra.step_timeline.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.step_timeline.position IS 'Place in the API''s answer, from 0.';
COMMENT ON COLUMN orchestra.step_timeline.node_id IS 'The node that it executed.';
COMMENT ON COLUMN orchestra.step_timeline.node_type IS 'The node''s type.';
COMMENT ON COLUMN orchestra.step_timeline.model IS 'The model that answered, else the one that was asked for; null: no model.';
COMMENT ON COLUMN orchestra.step_timeline.state IS 'The status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.step_timeline.outcome IS 'The state, but soft_failed where it succeeded and an integration reported an error.';
COMMENT ON COLUMN orchestra.step_timeline.start_time IS 'When it started.';
COMMENT ON COLUMN orchestra.step_timeline.end_time IS 'When it ended; null while it runs.';
COMMENT ON COLUMN orchestra.step_timeline.offset_ms IS 'Milliseconds from the beginning of the run, or of its first step where that is earlier.';
COMMENT ON COLUMN orchestra.step_timeline.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.step_timeline.wait_ms IS 'Milliseconds before it started in which no other step ended: since the last that had ended by then, else since the beginning of the run.';
COMMENT ON COLUMN orchestra.step_timeline.lane IS 'The row to draw it in, from 1: the first that is free when it starts, so that no two steps of a lane overlap; null where it has not started.';
COMMENT ON COLUMN orchestra.step_timeline.execution IS 'Which execution of its node within the run this is, from 1.';
COMMENT ON COLUMN orchestra.step_timeline.executions IS 'How often the run executed the node.';
COMMENT ON COLUMN orchestra.step_timeline.error IS 'What its error says: the API''s own, else what an integration reported.';
COMMENT ON COLUMN orchestra.step_timeline.calls IS '1 where it names a model or reports tokens, else 0.';
COMMENT ON COLUMN orchestra.step_timeline.input_tokens IS 'Prompt tokens.';
COMMENT ON COLUMN orchestra.step_timeline.output_tokens IS 'Completion tokens.';
COMMENT ON COLUMN orchestra.step_timeline.total_tokens IS 'Total tokens.';
COMMENT ON COLUMN orchestra.step_timeline.cost IS 'What it cost by the price of its day (UTC); null where the model has none.';
COMMENT ON COLUMN orchestra.step_timeline.currency IS 'The currency of cost.';

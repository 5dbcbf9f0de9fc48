-- For lists of runs: what is computed from steps is computed run by run, after conditions on the run itself and LIMIT have
-- chosen the runs. A condition on the outcome chooses, too: its subquery asks an index of its own. OFFSET 0 keeps the planner
-- from collecting the soft failures of all runs first.
CREATE OR REPLACE VIEW orchestra.run_summary AS
SELECT r.id AS run_id,
       r.workflow_id,
       COALESCE(w.name, r.workflow_id) AS workflow_name,
       COALESCE(w.labels, '{}') AS labels,
       -- The next version was in force already where it says so, unless the one before it was seen in force since.
       (SELECT CASE WHEN next.updated_at <= begun.time AND (last.observed_at <= next.updated_at OR last.observed_at IS NULL)
               THEN next.version ELSE last.version END
        FROM (SELECT COALESCE(r.start_time, r.first_seen_at) AS time) AS begun
        LEFT JOIN LATERAL (
            SELECT v.version, v.observed_at
            FROM orchestra.workflow_versions AS v
            WHERE v.workflow_id = r.workflow_id AND v.observed_at <= begun.time
            ORDER BY v.observed_at DESC
            LIMIT 1) AS last ON true
        LEFT JOIN LATERAL (
            SELECT v.version, v.updated_at
            FROM orchestra.workflow_versions AS v
            WHERE v.workflow_id = r.workflow_id AND v.observed_at > begun.time
            ORDER BY v.observed_at
            LIMIT 1) AS next ON true) AS workflow_version,
       r.organization_id,
       r.user_id,
       r.state,
       CASE WHEN r.state = 'succeeded' AND EXISTS (
                SELECT FROM orchestra.steps AS f
                WHERE f.run_id = r.id AND (f.error IS NOT NULL OR f.reported_error IS NOT NULL) AND f.absent_since IS NULL
                  AND orchestra.outcome(f.state, f.error, f.reported_error) = 'soft_failed'
                OFFSET 0)
            THEN 'soft_failed' ELSE orchestra.outcome(r.state, r.error, NULL) END AS outcome,
       r.tracking,
       r.start_time,
       r.end_time,
       r.duration_ms,
       s.steps,
       s.succeeded_steps,
       s.soft_failed_steps,
       s.failed_steps,
       s.first_failed_node,
       left(COALESCE(s.first_error, orchestra.error_message(r.error, NULL)), 500) AS first_error,
       s.calls,
       s.input_tokens,
       s.output_tokens,
       s.cached_input_tokens,
       s.reasoning_tokens,
       s.total_tokens,
       CASE WHEN s.one_currency THEN s.cost END AS cost,
       CASE WHEN s.one_currency THEN s.currency END AS currency,
       CASE WHEN s.one_currency THEN s.calls - s.priced_calls ELSE s.calls END AS unpriced_calls,
       r.first_seen_at,
       r.updated_at,
       s.untotalled_calls
FROM orchestra.runs AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
LEFT JOIN LATERAL (
    SELECT count(*) AS steps,
           count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded_steps,
           count(*) FILTER (WHERE outcome = 'soft_failed') AS soft_failed_steps,
           count(*) FILTER (WHERE outcome = 'failed') AS failed_steps,
           (array_agg(node_id ORDER BY outcome = 'failed' DESC, start_time, position, id)
                FILTER (WHERE outcome IN ('failed', 'soft_failed')))[1] AS first_failed_node,
           (array_agg(error ORDER BY outcome = 'failed' DESC, start_time, position, id)
                FILTER (WHERE outcome IN ('failed', 'soft_failed')))[1] AS first_error,
           count(*) FILTER (WHERE is_call) AS calls,
           CAST(COALESCE(sum(input_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END) AS bigint) AS input_tokens,
           CAST(COALESCE(sum(output_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END) AS bigint) AS output_tokens,
           CAST(COALESCE(sum(cached_input_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END) AS bigint) AS cached_input_tokens,
           CAST(COALESCE(sum(reasoning_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END) AS bigint) AS reasoning_tokens,
           CAST(COALESCE(sum(total_tokens), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END) AS bigint) AS total_tokens,
           sum(cost) AS cost,
           min(currency) AS currency,
           COALESCE(min(currency) = max(currency), false) AS one_currency,
           count(cost) AS priced_calls,
           count(*) FILTER (WHERE is_untotalled) AS untotalled_calls
    FROM (
        SELECT s.id, s.node_id, s.position, s.start_time,
               j.outcome,
               orchestra.error_message(s.error, s.reported_error) AS error,
               orchestra.is_call(s.state, s.node_type, COALESCE(s.response_model, s.request_model), s.input_tokens,
                                 s.output_tokens, s.total_tokens) AS is_call,
               orchestra.is_untotalled(j.outcome, s.node_type, COALESCE(s.response_model, s.request_model), s.input_tokens,
                                       s.output_tokens, s.total_tokens) AS is_untotalled,
               t.input_tokens, t.output_tokens, t.cached_input_tokens, t.reasoning_tokens, t.total_tokens,
               p.currency,
               orchestra.call_cost(t.input_tokens, t.cached_input_tokens, t.output_tokens,
                                   p.input_per_million, p.cached_input_per_million, p.output_per_million) AS cost
        FROM orchestra.steps AS s
        CROSS JOIN LATERAL (SELECT orchestra.outcome(s.state, s.error, s.reported_error) AS outcome) AS j
        CROSS JOIN LATERAL (
            SELECT orchestra.token_count(s.input_tokens) AS input_tokens, orchestra.token_count(s.output_tokens) AS output_tokens,
                   orchestra.token_count(s.cached_input_tokens) AS cached_input_tokens,
                   orchestra.token_count(s.reasoning_tokens) AS reasoning_tokens,
                   orchestra.total_tokens(s.input_tokens, s.output_tokens, s.total_tokens) AS total_tokens) AS t
        LEFT JOIN orchestra.prices AS p
          ON p.model = COALESCE(s.response_model, s.request_model)
         AND orchestra.is_call(s.state, s.node_type, p.model, s.input_tokens, s.output_tokens, s.total_tokens)
         AND NOT orchestra.is_unmetered(j.outcome, s.node_type, p.model, s.input_tokens, s.output_tokens, s.total_tokens)
         AND p.valid_from <= CAST(COALESCE(s.start_time, r.start_time, r.first_seen_at) AT TIME ZONE 'UTC' AS date)
         AND (p.valid_until > CAST(COALESCE(s.start_time, r.start_time, r.first_seen_at) AT TIME ZONE 'UTC' AS date)
              OR p.valid_until IS NULL)
        WHERE s.run_id = r.id AND s.absent_since IS NULL
    ) AS judged
) AS s ON true;

COMMENT ON VIEW orchestra.run_summary IS
    'One row a run with what its steps add up to: outcome, failures, tokens, cost. For lists: ask for a time, a workflow or a number of runs.';
COMMENT ON COLUMN orchestra.run_summary.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.run_summary.workflow_id IS 'Its workflow.';
COMMENT ON COLUMN orchestra.run_summary.workflow_name IS 'The workflow''s name, or its id where it has none.';
COMMENT ON COLUMN orchestra.run_summary.labels IS 'The workflow''s labels, from the configuration.';
COMMENT ON COLUMN orchestra.run_summary.workflow_version IS 'The version of the workflow in force when the run started. A version begins when it was first observed, or, where the API dates it, when the workflow was last changed before that; null before the first one.';
COMMENT ON COLUMN orchestra.run_summary.organization_id IS 'The organisation, as given; may be masked.';
COMMENT ON COLUMN orchestra.run_summary.user_id IS 'The user, as given; may be masked.';
COMMENT ON COLUMN orchestra.run_summary.state IS 'The run''s own status normalised: pending, running, succeeded, failed, cancelled, skipped or unknown.';
COMMENT ON COLUMN orchestra.run_summary.outcome IS 'The state, but soft_failed where that is a success and the run carries an error, or one of its steps failed softly (see outcome). Success rate: succeeded / (succeeded + soft_failed + failed).';
COMMENT ON COLUMN orchestra.run_summary.tracking IS 'open: still polled; final: will not change; stale: given up as open; gone: the API no longer has it.';
COMMENT ON COLUMN orchestra.run_summary.start_time IS 'When it started.';
COMMENT ON COLUMN orchestra.run_summary.end_time IS 'When it ended; null while it runs.';
COMMENT ON COLUMN orchestra.run_summary.duration_ms IS 'end_time minus start_time, in milliseconds.';
COMMENT ON COLUMN orchestra.run_summary.steps IS 'Steps.';
COMMENT ON COLUMN orchestra.run_summary.succeeded_steps IS 'Steps that succeeded.';
COMMENT ON COLUMN orchestra.run_summary.soft_failed_steps IS 'Steps whose status is a success and that carry an error (see outcome).';
COMMENT ON COLUMN orchestra.run_summary.failed_steps IS 'Steps that failed.';
COMMENT ON COLUMN orchestra.run_summary.first_failed_node IS 'Node of the first step that failed; where none did, of the first that failed softly.';
COMMENT ON COLUMN orchestra.run_summary.first_error IS 'The first 500 characters of that step''s error, else of the run''s own.';
COMMENT ON COLUMN orchestra.run_summary.calls IS 'Calls of a model (see is_call).';
COMMENT ON COLUMN orchestra.run_summary.input_tokens IS 'Prompt tokens of the calls that tell them; null where there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.output_tokens IS 'Completion tokens of the calls that tell them; null where there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.cached_input_tokens IS 'Prompt tokens served from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.run_summary.reasoning_tokens IS 'Reasoning tokens, part of output_tokens.';
COMMENT ON COLUMN orchestra.run_summary.total_tokens IS 'Total tokens of the calls that tell them; null where there are calls and none does.';
COMMENT ON COLUMN orchestra.run_summary.cost IS 'What the calls with a price cost, by the prices of their days; null where no call has one, or says how many tokens it took, or where prices are in several currencies.';
COMMENT ON COLUMN orchestra.run_summary.currency IS 'The currency of cost.';
COMMENT ON COLUMN orchestra.run_summary.unpriced_calls IS 'Calls that cost does not hold: without a price, or succeeded without saying how many tokens they took; all of them where prices are in several currencies.';
COMMENT ON COLUMN orchestra.run_summary.first_seen_at IS 'When the run was first loaded.';
COMMENT ON COLUMN orchestra.run_summary.updated_at IS 'When the content of its own row last changed.';
COMMENT ON COLUMN orchestra.run_summary.untotalled_calls IS 'Calls that total_tokens does not hold: they do not say how many tokens they took.';

-- The price of a day holds for its hours: costs follow prices that become known, or are corrected, later.
CREATE OR REPLACE VIEW orchestra.model_usage AS
SELECT used.hour,
       used.workflow_id,
       used.workflow_name,
       used.organization_id,
       used.node_id,
       used.model,
       used.provider,
       used.calls,
       used.input_tokens,
       used.output_tokens,
       used.cached_input_tokens,
       used.reasoning_tokens,
       used.total_tokens,
       used.cost,
       used.currency,
       CASE WHEN used.cost IS NULL THEN used.calls ELSE used.unmetered_calls END AS unpriced_calls,
       used.untotalled_calls
FROM (
    SELECT s.hour, s.workflow_id, COALESCE(w.name, s.workflow_id) AS workflow_name, s.organization_id, s.node_id, s.model,
           p.provider, s.calls, s.input_tokens, s.output_tokens, s.cached_input_tokens, s.reasoning_tokens, s.total_tokens,
           s.unmetered_calls, s.untotalled_calls,
           orchestra.call_cost(s.input_tokens, s.cached_input_tokens, s.output_tokens,
                               p.input_per_million, p.cached_input_per_million, p.output_per_million) AS cost,
           p.currency
    FROM orchestra.step_rollup AS s
    LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
    LEFT JOIN orchestra.prices AS p
      ON p.model = s.model AND s.calls > s.unmetered_calls
     AND p.valid_from <= CAST(s.hour AT TIME ZONE 'UTC' AS date)
     AND (p.valid_until > CAST(s.hour AT TIME ZONE 'UTC' AS date) OR p.valid_until IS NULL)
    WHERE s.calls > 0
) AS used;

COMMENT ON VIEW orchestra.model_usage IS
    'Calls of models by hour, workflow, organisation, node and model: tokens and cost.';
COMMENT ON COLUMN orchestra.model_usage.hour IS 'The hour (UTC) in which the steps started; of those not started, the hour of their run.';
COMMENT ON COLUMN orchestra.model_usage.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.model_usage.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.model_usage.organization_id IS 'The organisation; null where no step names one.';
COMMENT ON COLUMN orchestra.model_usage.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.model_usage.model IS 'The model that answered, else the one that was asked for; null where tokens are reported without a model.';
COMMENT ON COLUMN orchestra.model_usage.provider IS 'Whose price the cost is by; null where there is none.';
COMMENT ON COLUMN orchestra.model_usage.calls IS 'Calls (see is_call).';
COMMENT ON COLUMN orchestra.model_usage.input_tokens IS 'Prompt tokens of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.output_tokens IS 'Completion tokens of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_input_tokens IS 'Prompt tokens served from a cache, part of input_tokens.';
COMMENT ON COLUMN orchestra.model_usage.reasoning_tokens IS 'Reasoning tokens, part of output_tokens.';
COMMENT ON COLUMN orchestra.model_usage.total_tokens IS 'Total tokens of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cost IS 'What the calls cost by the price of the day (UTC); null where the model has none, or no call says how many tokens it took. Add up within one currency only.';
COMMENT ON COLUMN orchestra.model_usage.currency IS 'The currency of cost.';
COMMENT ON COLUMN orchestra.model_usage.unpriced_calls IS 'Calls that cost does not hold: without a price, or succeeded without saying how many tokens they took.';
COMMENT ON COLUMN orchestra.model_usage.untotalled_calls IS 'Calls that total_tokens does not hold: they do not say how many tokens they took.';

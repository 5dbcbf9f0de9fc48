-- An index covers the steps that report a cost.
CREATE VIEW orchestra.cost_differences AS
SELECT called.time,
       called.workflow_id,
       COALESCE(w.name, called.workflow_id) AS workflow_name,
       called.organization_id,
       called.run_id,
       called.step_id,
       called.node_id,
       called.model,
       p.provider,
       called.service_tier,
       called.usage_kinds,
       k.cost,
       CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
       called.reported_cost,
       CASE WHEN p.currency = 'USD' THEN k.cost - called.reported_cost END AS difference,
       CASE WHEN p.currency = 'USD' AND called.reported_cost > 0
           THEN k.cost / called.reported_cost END AS ratio
FROM (
    SELECT s.id AS step_id, s.run_id, s.workflow_id, s.organization_id, s.node_id, u.model,
           s.service_tier, s.reported_cost,
           COALESCE(s.start_time, r.start_time, r.first_seen_at) AS time, u.used, u.outcome,
           orchestra.kinds_of(u.used) AS usage_kinds
    FROM orchestra.steps AS s
    JOIN orchestra.runs AS r ON r.id = s.run_id
    CROSS JOIN LATERAL (
        SELECT COALESCE(s.response_model, s.request_model) AS model,
               orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
               orchestra.plausible_usage(CAST(ROW(
                    s.input_tokens, s.cached_input_tokens, s.cache_write_tokens,
                    s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens,
                    s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens,
                    s.output_tokens, s.reasoning_tokens, s.output_audio_tokens,
                    s.output_image_tokens, s.output_video_tokens, s.citation_tokens, s.other_tokens,
                    s.web_searches, s.file_searches, s.tool_uses, s.audio_ms, s.document_pages,
                    s.search_units,
                    s.unread_quantities
                ) AS orchestra.usage)) AS used
        OFFSET 0
    ) AS u
    WHERE s.reported_cost IS NOT NULL AND s.absent_since IS NULL
) AS called
LEFT JOIN orchestra.workflows AS w ON w.id = called.workflow_id
LEFT JOIN orchestra.prices AS p
  ON p.model = called.model AND NOT orchestra.is_unmetered(called.outcome, true, true, called.used)
 AND orchestra.price_applies(p, called.service_tier,
     orchestra.context_tier((called.used).input_tokens), called.time)
CROSS JOIN LATERAL (SELECT orchestra.call_cost(called.used, 1, p) AS cost OFFSET 0) AS k;

COMMENT ON VIEW orchestra.cost_differences IS
    'Calls whose provider reports their cost, compared with their cost by the known prices. A '
    'ratio far from 1 means a wrong price, a discount, or usage that was read wrongly.';
COMMENT ON COLUMN orchestra.cost_differences.time IS
    'When the step started; without a start, when its run started or was first seen.';
COMMENT ON COLUMN orchestra.cost_differences.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.cost_differences.workflow_name IS
    'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.cost_differences.organization_id IS
    'The organisation; null if the step names none.';
COMMENT ON COLUMN orchestra.cost_differences.run_id IS 'The run.';
COMMENT ON COLUMN orchestra.cost_differences.step_id IS 'The step.';
COMMENT ON COLUMN orchestra.cost_differences.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.cost_differences.model IS
    'The model that responded, else the requested one; null if none is named.';
COMMENT ON COLUMN orchestra.cost_differences.provider IS
    'The provider whose price applies; null if there is none.';
COMMENT ON COLUMN orchestra.cost_differences.service_tier IS
    'The provider''s service tier; null if the call names none; the price of standard then '
    'applies.';
COMMENT ON COLUMN orchestra.cost_differences.usage_kinds IS
    'Bit mask of the kinds of usage charged at a price of their own (see usage_kinds).';
COMMENT ON COLUMN orchestra.cost_differences.cost IS
    'Cost by the prices of its day (UTC); null if any part of its usage has no price.';
COMMENT ON COLUMN orchestra.cost_differences.currency IS 'The currency of cost; null without cost.';
COMMENT ON COLUMN orchestra.cost_differences.reported_cost IS
    'The cost in US dollars, as the provider reports it.';
COMMENT ON COLUMN orchestra.cost_differences.difference IS
    'cost minus reported_cost; null without a cost in US dollars.';
COMMENT ON COLUMN orchestra.cost_differences.ratio IS
    'cost divided by reported_cost; null without a cost in US dollars, or if reported_cost is 0.';

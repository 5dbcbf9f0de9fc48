-- The price of a day holds for its hours: costs follow prices that become known, or are corrected, later. The calls of a row of
-- step_rollup have the same tier, length of the input and kinds of usage, so that they have a price together, or none has.
CREATE VIEW orchestra.model_usage AS
SELECT s.hour,
       s.workflow_id,
       COALESCE(w.name, s.workflow_id) AS workflow_name,
       s.organization_id,
       s.node_id,
       s.model,
       p.provider,
       s.calls,
       s.input_tokens,
       s.output_tokens,
       s.cached_input_tokens,
       s.reasoning_tokens,
       s.total_tokens,
       k.cost,
       CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
       CASE WHEN k.cost IS NULL THEN s.calls ELSE s.unmetered_calls END AS unpriced_calls,
       s.untotalled_calls,
       s.service_tier,
       s.context_tier,
       s.usage_kinds,
       s.cache_write_tokens,
       s.cache_write_1h_tokens,
       s.input_audio_tokens,
       s.cached_audio_tokens,
       s.input_image_tokens,
       s.cached_image_tokens,
       s.input_video_tokens,
       s.output_audio_tokens,
       s.output_image_tokens,
       s.output_video_tokens,
       s.citation_tokens,
       s.other_tokens,
       s.web_searches,
       s.file_searches,
       s.tool_uses,
       s.audio_ms,
       s.document_pages,
       s.search_units,
       s.unread_quantities,
       s.reported_cost,
       s.reported_calls
FROM orchestra.step_rollup AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
LEFT JOIN orchestra.prices AS p
  ON p.model = s.model AND s.calls > s.unmetered_calls AND orchestra.price_applies(p, s.service_tier, s.context_tier, s.hour)
CROSS JOIN LATERAL (
    SELECT orchestra.call_cost(CAST(ROW(
            s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens, s.input_audio_tokens,
            s.cached_audio_tokens, s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens, s.output_tokens,
            s.reasoning_tokens, s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens, s.citation_tokens,
            s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms, s.document_pages, s.search_units,
            s.unread_quantities
        ) AS orchestra.usage), s.calls - s.unmetered_calls, p) AS cost
    OFFSET 0  -- or it would be worked out once for each of its uses
) AS k
WHERE s.calls > 0;

COMMENT ON VIEW orchestra.model_usage IS
    'Calls of models by hour, workflow, organisation, node, model, tier of service, length of the input and kinds of usage: quantities and cost.';
COMMENT ON COLUMN orchestra.model_usage.hour IS 'The hour (UTC) in which the steps started; of those not started, the hour of their run.';
COMMENT ON COLUMN orchestra.model_usage.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.model_usage.workflow_name IS 'Its name, or its id where it has none.';
COMMENT ON COLUMN orchestra.model_usage.organization_id IS 'The organisation; null where no step names one.';
COMMENT ON COLUMN orchestra.model_usage.node_id IS 'The node.';
COMMENT ON COLUMN orchestra.model_usage.model IS 'The model that answered, else the one that was asked for; null where tokens are reported without a model.';
COMMENT ON COLUMN orchestra.model_usage.provider IS 'Whose price the cost is by; null where there is none.';
COMMENT ON COLUMN orchestra.model_usage.calls IS 'Calls (see is_call).';
COMMENT ON COLUMN orchestra.model_usage.input_tokens IS 'Input tokens: all that the model read, cached and written to a cache included: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.output_tokens IS 'Output tokens: all that the model wrote, reasoning included: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_input_tokens IS 'Input tokens read from a cache, part of input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.reasoning_tokens IS 'Output tokens of reasoning, part of output_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.total_tokens IS 'Total tokens of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cost IS 'What the calls cost by the prices of the day (UTC) for their tier and length of the input; null where the model has none, where a kind of usage that they have has none, or where no call says what it used. Add up within one currency only.';
COMMENT ON COLUMN orchestra.model_usage.currency IS 'The currency of cost; null without cost.';
COMMENT ON COLUMN orchestra.model_usage.unpriced_calls IS 'Calls that cost does not hold: without a price for all that they used, or succeeded without saying what they used.';
COMMENT ON COLUMN orchestra.model_usage.untotalled_calls IS 'Calls that total_tokens does not hold: they do not say how many tokens they took.';
COMMENT ON COLUMN orchestra.model_usage.service_tier IS 'The provider''s tier of service; null where the calls name none, and the price is that of standard.';
COMMENT ON COLUMN orchestra.model_usage.context_tier IS 'The length of the input: the largest of the numbers above which prices may change that the input tokens exceed, else 0; null where they are not known.';
COMMENT ON COLUMN orchestra.model_usage.usage_kinds IS 'The kinds of usage that are charged at a price of their own, a bit each (see usage_kinds).';
COMMENT ON COLUMN orchestra.model_usage.cache_write_tokens IS 'Input tokens written to a cache, part of input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cache_write_1h_tokens IS 'Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.input_audio_tokens IS 'Input tokens of audio, part of input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_audio_tokens IS 'Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.input_image_tokens IS 'Input tokens of images, part of input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.cached_image_tokens IS 'Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.input_video_tokens IS 'Input tokens of video, part of input_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.output_audio_tokens IS 'Output tokens of audio, part of output_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.output_image_tokens IS 'Output tokens of images, part of output_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.output_video_tokens IS 'Output tokens of video, part of output_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.citation_tokens IS 'Output tokens of citations, part of output_tokens: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.other_tokens IS 'Tokens that the reported total holds beyond input and output: what they are is not known: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.web_searches IS 'Searches of the web by the provider: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.file_searches IS 'Searches of stored files by the provider: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.tool_uses IS 'Uses of the provider''s other tools that are charged by the use: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.audio_ms IS 'Audio that is charged by its duration, in milliseconds: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.document_pages IS 'Pages of documents that were read: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.search_units IS 'Search units of a reranking model: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.unread_quantities IS 'Quantities of usage that calls state and that cannot be read: of the calls that tell them; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.reported_cost IS 'What providers themselves say that the calls cost, in US dollars, of the calls that tell it; null where none does.';
COMMENT ON COLUMN orchestra.model_usage.reported_calls IS 'Calls whose provider itself says what they cost.';

CREATE FUNCTION orchestra.usage_of(calls orchestra.model_usage) RETURNS orchestra.usage
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CAST(ROW(
        calls.input_tokens, calls.cached_input_tokens, calls.cache_write_tokens, calls.cache_write_1h_tokens,
        calls.input_audio_tokens, calls.cached_audio_tokens, calls.input_image_tokens, calls.cached_image_tokens,
        calls.input_video_tokens, calls.output_tokens, calls.reasoning_tokens, calls.output_audio_tokens,
        calls.output_image_tokens, calls.output_video_tokens, calls.citation_tokens, calls.other_tokens, calls.web_searches,
        calls.file_searches, calls.tool_uses, calls.audio_ms, calls.document_pages, calls.search_units, calls.unread_quantities
    ) AS orchestra.usage)
$$;

COMMENT ON FUNCTION orchestra.usage_of(orchestra.model_usage) IS
    'The usage in a row of model_usage as one value, for cost_parts and call_cost.';

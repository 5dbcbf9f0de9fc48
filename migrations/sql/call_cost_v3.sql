CREATE OR REPLACE FUNCTION orchestra.call_cost(
    input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
    input_per_million numeric, cached_input_per_million numeric, output_per_million numeric
) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    -- Cached tokens are a part of the input: no more of them than that is billed, or the rest would be less than nothing.
    -- In numeric, which does not overflow.
    SELECT (GREATEST(COALESCE(input_tokens, 0)::numeric - GREATEST(COALESCE(cached_input_tokens, 0), 0), 0) * input_per_million
            + LEAST(GREATEST(COALESCE(cached_input_tokens, 0), 0), GREATEST(COALESCE(input_tokens, 0), 0))
              * COALESCE(cached_input_per_million, input_per_million)
            + GREATEST(COALESCE(output_tokens, 0), 0) * output_per_million) * 0.000001
$$;

COMMENT ON FUNCTION orchestra.call_cost(bigint, bigint, bigint, numeric, numeric, numeric) IS
    'What tokens cost at prices per million: cached input tokens at their own price, or at that of input where there is none. Tokens not reported count as 0; null where there is no price.';

-- Published prices change above these numbers of input tokens.
CREATE OR REPLACE FUNCTION orchestra.context_tier(input_tokens bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN input_tokens <= 32000 THEN 0
                WHEN input_tokens <= 100000 THEN 32000
                WHEN input_tokens <= 128000 THEN 100000
                WHEN input_tokens <= 199999 THEN 128000
                WHEN input_tokens <= 200000 THEN 199999
                WHEN input_tokens <= 256000 THEN 200000
                WHEN input_tokens <= 272000 THEN 256000
                WHEN input_tokens <= 512000 THEN 272000
                WHEN input_tokens <= 524288 THEN 512000
                WHEN input_tokens > 524288 THEN 524288
           END
$$;

COMMENT ON FUNCTION orchestra.context_tier(bigint) IS
    'The largest of the numbers of input tokens above which published prices change that a call exceeds, or 0; null for null.';

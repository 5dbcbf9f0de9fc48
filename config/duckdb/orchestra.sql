-- Views and macros for DuckDB over an exported lake. They have the names and the columns of the
-- views in PostgreSQL, and give the same results: docs/how-to/read-the-lake.md shows how to use
-- them, and lists what differs. First name the folder of the tables:
--
--     SET VARIABLE lake = 's3://bucket/history/orchestra';
--     .read config/duckdb/orchestra.sql
--
-- The views read the whole lake, unless you set the first day (UTC) to read, at any time:
--
--     SET VARIABLE since = DATE '2026-11-01';
--
-- Runs that were pruned from PostgreSQL stay in the lake, so these views include them.
SET TimeZone = 'UTC';
CREATE SCHEMA IF NOT EXISTS orchestra;

-- The tables.

CREATE OR REPLACE VIEW orchestra.runs AS
FROM iceberg_scan(getvariable('lake') || '/runs')
WHERE run_day >= coalesce(CAST(getvariable('since') AS DATE), DATE '0001-01-01');

CREATE OR REPLACE VIEW orchestra.steps AS
FROM iceberg_scan(getvariable('lake') || '/steps')
WHERE run_day >= coalesce(CAST(getvariable('since') AS DATE), DATE '0001-01-01');

CREATE OR REPLACE VIEW orchestra.step_failures AS
FROM iceberg_scan(getvariable('lake') || '/step_failures')
WHERE run_day >= coalesce(CAST(getvariable('since') AS DATE), DATE '0001-01-01');

CREATE OR REPLACE VIEW orchestra.days AS FROM iceberg_scan(getvariable('lake') || '/days');

CREATE OR REPLACE VIEW orchestra.prices AS FROM iceberg_scan(getvariable('lake') || '/prices');

CREATE OR REPLACE VIEW orchestra.workflows AS
FROM iceberg_scan(getvariable('lake') || '/workflows');

CREATE OR REPLACE VIEW orchestra.workflow_versions AS
FROM iceberg_scan(getvariable('lake') || '/workflow_versions');

-- Durations and their histograms.

CREATE OR REPLACE MACRO orchestra.duration_bucket(ms) AS
    CASE WHEN ms >= 1 AND ms < CAST('Infinity' AS DOUBLE)
         THEN CAST(floor(ln(ms) / 0.03922071315328133) + 1 AS INTEGER)
         WHEN ms >= 0 AND ms < 1 THEN 0 END;

CREATE OR REPLACE MACRO orchestra.bucket_duration(bucket) AS
    CASE WHEN bucket IS NULL THEN NULL
         WHEN bucket > 0 THEN exp((least(bucket, 18096) - 0.5) * 0.03922071315328133)
         ELSE 0.5 END;

-- A part of duration_quantile. `entries` holds buckets and their counts, sorted by bucket.
CREATE OR REPLACE MACRO orchestra.quantile_of(entries, q) AS orchestra.bucket_duration(
    list_reduce(nullif(entries, []), lambda passed, entry:
        CASE WHEN passed[2] >= q * list_sum(list_transform(entries, lambda one: one[2]))
             THEN passed ELSE row(entry[1], passed[2] + entry[2]) END)[1]);

-- Aggregates, although they are macros: FILTER is not possible, so put CASE around `buckets`.
CREATE OR REPLACE MACRO orchestra.duration_quantile
    (buckets BIGINT[], counts BIGINT[], q DOUBLE) AS orchestra.quantile_of(
        list_sort(list_filter(flatten(list(list_zip(buckets, counts))),
                              lambda entry: entry[1] >= 0 AND entry[2] > 0)), q),
    (bucket BIGINT, count BIGINT, q DOUBLE) AS orchestra.quantile_of(
        list_sort(list_filter(list(row(bucket, count)),
                              lambda entry: entry[1] >= 0 AND entry[2] > 0)), q);

-- Calls of models, their usage and their cost.

CREATE OR REPLACE MACRO orchestra.token_count(tokens) AS
    CASE WHEN tokens BETWEEN 0 AND 1000000000000 THEN tokens END;

CREATE OR REPLACE MACRO orchestra.context_tier(input_tokens) AS
    CASE WHEN input_tokens <= 32000 THEN 0
         WHEN input_tokens <= 100000 THEN 32000
         WHEN input_tokens <= 128000 THEN 100000
         WHEN input_tokens <= 199999 THEN 128000
         WHEN input_tokens <= 200000 THEN 199999
         WHEN input_tokens <= 256000 THEN 200000
         WHEN input_tokens <= 272000 THEN 256000
         WHEN input_tokens <= 512000 THEN 272000
         WHEN input_tokens <= 524288 THEN 512000
         WHEN input_tokens > 524288 THEN 524288 END;

CREATE OR REPLACE MACRO orchestra.is_cut_off(finish_reason) AS
    regexp_matches(
        regexp_replace(lower(finish_reason), '[^a-z]', '', 'g'),
        '^(finishreason|stopreason|reason)?('
        || 'length|maxlength|maxlen|modellength|maxcontext|errorlimit'
        || '|max(imum)?(new|output|completion|prompt)?tokens(reached|exceeded)?'
        || '|tokenlimit(reached|exceeded)?'
        || '|(model)?(context)(window|length)(reached|exceeded)?)$');

-- The quantity of each kind that is charged at a price of its own.
CREATE OR REPLACE MACRO orchestra.charged(used) AS {
    input_tokens: greatest(
        coalesce(used.input_tokens, 0) - coalesce(used.cached_input_tokens, 0)
        - coalesce(used.cache_write_tokens, 0) - coalesce(used.input_audio_tokens, 0)
        - coalesce(used.input_image_tokens, 0) - coalesce(used.input_video_tokens, 0)
        + coalesce(used.cached_audio_tokens, 0) + coalesce(used.cached_image_tokens, 0), 0),
    cached_input_tokens: greatest(
        least(coalesce(used.cached_input_tokens, 0), coalesce(used.input_tokens, 0))
        - coalesce(used.cached_audio_tokens, 0) - coalesce(used.cached_image_tokens, 0), 0),
    cache_write_tokens: greatest(
        coalesce(used.cache_write_tokens, 0) - coalesce(used.cache_write_1h_tokens, 0), 0),
    cache_write_1h_tokens: used.cache_write_1h_tokens,
    input_audio_tokens: greatest(
        coalesce(used.input_audio_tokens, 0) - coalesce(used.cached_audio_tokens, 0), 0),
    cached_audio_tokens: used.cached_audio_tokens,
    input_image_tokens: greatest(
        coalesce(used.input_image_tokens, 0) - coalesce(used.cached_image_tokens, 0), 0),
    cached_image_tokens: used.cached_image_tokens,
    input_video_tokens: used.input_video_tokens,
    output_tokens: greatest(
        coalesce(used.output_tokens, 0) - coalesce(used.reasoning_tokens, 0)
        - coalesce(used.output_audio_tokens, 0) - coalesce(used.output_image_tokens, 0)
        - coalesce(used.output_video_tokens, 0) - coalesce(used.citation_tokens, 0), 0),
    reasoning_tokens: least(coalesce(used.reasoning_tokens, 0), coalesce(used.output_tokens, 0)),
    output_audio_tokens: used.output_audio_tokens,
    output_image_tokens: used.output_image_tokens,
    output_video_tokens: used.output_video_tokens,
    citation_tokens: used.citation_tokens,
    other_tokens: used.other_tokens,
    web_searches: used.web_searches,
    file_searches: used.file_searches,
    tool_uses: used.tool_uses,
    audio_ms: used.audio_ms,
    document_pages: used.document_pages,
    search_units: used.search_units,
    unread_quantities: used.unread_quantities
};

-- A list of the parts of a cost: what is charged, its price, the number of units of that price.
-- A lambda over a list of one element computes its argument once. A macro would repeat it.
CREATE OR REPLACE MACRO orchestra.charged_parts(used, prices) AS
list_transform([orchestra.charged(used)], lambda charged: list_filter([
    {kind: 'input_tokens', quantity: charged.input_tokens,
     price: prices.input_per_million, per: 1000000},
    {kind: 'cached_input_tokens', quantity: charged.cached_input_tokens,
     price: prices.cached_input_per_million, per: 1000000},
    {kind: 'cache_write_tokens', quantity: charged.cache_write_tokens,
     price: prices.cache_write_per_million, per: 1000000},
    {kind: 'cache_write_1h_tokens', quantity: charged.cache_write_1h_tokens,
     price: prices.cache_write_1h_per_million, per: 1000000},
    {kind: 'input_audio_tokens', quantity: charged.input_audio_tokens,
     price: prices.input_audio_per_million, per: 1000000},
    {kind: 'cached_audio_tokens', quantity: charged.cached_audio_tokens,
     price: prices.cached_audio_per_million, per: 1000000},
    {kind: 'input_image_tokens', quantity: charged.input_image_tokens,
     price: prices.input_image_per_million, per: 1000000},
    {kind: 'cached_image_tokens', quantity: charged.cached_image_tokens,
     price: prices.cached_image_per_million, per: 1000000},
    {kind: 'input_video_tokens', quantity: charged.input_video_tokens,
     price: prices.input_video_per_million, per: 1000000},
    {kind: 'output_tokens', quantity: charged.output_tokens,
     price: prices.output_per_million, per: 1000000},
    {kind: 'reasoning_tokens', quantity: charged.reasoning_tokens,
     price: prices.reasoning_per_million, per: 1000000},
    {kind: 'output_audio_tokens', quantity: charged.output_audio_tokens,
     price: prices.output_audio_per_million, per: 1000000},
    {kind: 'output_image_tokens', quantity: charged.output_image_tokens,
     price: prices.output_image_per_million, per: 1000000},
    {kind: 'output_video_tokens', quantity: charged.output_video_tokens,
     price: prices.output_video_per_million, per: 1000000},
    {kind: 'citation_tokens', quantity: charged.citation_tokens,
     price: prices.citation_per_million, per: 1000000},
    {kind: 'other_tokens', quantity: charged.other_tokens,
     price: prices.other_per_million, per: 1000000},
    {kind: 'web_searches', quantity: charged.web_searches,
     price: prices.web_searches_per_thousand, per: 1000},
    {kind: 'file_searches', quantity: charged.file_searches,
     price: prices.file_searches_per_thousand, per: 1000},
    {kind: 'tool_uses', quantity: charged.tool_uses,
     price: prices.tool_uses_per_thousand, per: 1000},
    {kind: 'audio_ms', quantity: charged.audio_ms,
     price: prices.audio_per_hour, per: 3600000},
    {kind: 'document_pages', quantity: charged.document_pages,
     price: prices.document_pages_per_thousand, per: 1000},
    {kind: 'search_units', quantity: charged.search_units,
     price: prices.search_units_per_thousand, per: 1000},
    {kind: 'unread_quantities', quantity: charged.unread_quantities,
     price: prices.unread_per_thousand, per: 1000}
], lambda part: part.quantity > 0))[1];

-- There may also be a fee for the call itself, if the call used anything.
CREATE OR REPLACE MACRO orchestra.charges(used, calls, prices) AS
list_transform([orchestra.charged_parts(used, prices)], lambda parts:
    CASE WHEN calls > 0 AND prices.calls_per_thousand > 0 AND len(parts) > 0
         THEN list_append(parts, {kind: 'calls', quantity: calls,
                                  price: prices.calls_per_thousand, per: 1000})
         ELSE parts END)[1];

-- Exact, except for a price per hour.
CREATE OR REPLACE MACRO orchestra.part_cost(quantity, price, per) AS
    CASE per WHEN 1000000 THEN quantity * price * 0.000001
             WHEN 1000 THEN quantity * price * 0.001
             ELSE CAST(quantity * price / per AS DECIMAL(38, 18)) END;

-- A bit mask of the kinds that are charged.
CREATE OR REPLACE MACRO orchestra.kinds_of(used) AS
list_transform([orchestra.charged(used)], lambda charged: CAST(
    (CASE WHEN charged.input_tokens > 0 THEN 1 ELSE 0 END)
    + (CASE WHEN charged.cached_input_tokens > 0 THEN 2 ELSE 0 END)
    + (CASE WHEN charged.cache_write_tokens > 0 THEN 4 ELSE 0 END)
    + (CASE WHEN charged.cache_write_1h_tokens > 0 THEN 8 ELSE 0 END)
    + (CASE WHEN charged.input_audio_tokens > 0 THEN 16 ELSE 0 END)
    + (CASE WHEN charged.cached_audio_tokens > 0 THEN 32 ELSE 0 END)
    + (CASE WHEN charged.input_image_tokens > 0 THEN 64 ELSE 0 END)
    + (CASE WHEN charged.cached_image_tokens > 0 THEN 128 ELSE 0 END)
    + (CASE WHEN charged.input_video_tokens > 0 THEN 256 ELSE 0 END)
    + (CASE WHEN charged.output_tokens > 0 THEN 512 ELSE 0 END)
    + (CASE WHEN charged.reasoning_tokens > 0 THEN 1024 ELSE 0 END)
    + (CASE WHEN charged.output_audio_tokens > 0 THEN 2048 ELSE 0 END)
    + (CASE WHEN charged.output_image_tokens > 0 THEN 4096 ELSE 0 END)
    + (CASE WHEN charged.output_video_tokens > 0 THEN 8192 ELSE 0 END)
    + (CASE WHEN charged.citation_tokens > 0 THEN 16384 ELSE 0 END)
    + (CASE WHEN charged.other_tokens > 0 THEN 32768 ELSE 0 END)
    + (CASE WHEN charged.web_searches > 0 THEN 65536 ELSE 0 END)
    + (CASE WHEN charged.file_searches > 0 THEN 131072 ELSE 0 END)
    + (CASE WHEN charged.tool_uses > 0 THEN 262144 ELSE 0 END)
    + (CASE WHEN charged.audio_ms > 0 THEN 524288 ELSE 0 END)
    + (CASE WHEN charged.document_pages > 0 THEN 1048576 ELSE 0 END)
    + (CASE WHEN charged.search_units > 0 THEN 2097152 ELSE 0 END)
    + (CASE WHEN charged.unread_quantities > 0 THEN 4194304 ELSE 0 END) AS INTEGER))[1];

-- Null without prices, or if a used kind has no price.
CREATE OR REPLACE MACRO orchestra.call_cost(used, calls, prices) AS
list_transform([orchestra.charges(used, calls, prices)], lambda parts:
    CASE WHEN prices.currency IS NOT NULL
          AND len(list_filter(parts, lambda part: part.price IS NULL)) = 0
         THEN coalesce(list_sum(list_transform(parts, lambda part:
                  orchestra.part_cost(part.quantity, part.price, part.per))), 0) END)[1];

CREATE OR REPLACE MACRO orchestra.cost_parts(used, calls, prices) AS TABLE
    SELECT part.kind, part.quantity, part.price, part.per,
           orchestra.part_cost(part.quantity, part.price, part.per) AS cost
    FROM (SELECT unnest(orchestra.charges(used, calls, prices)) AS part);

CREATE OR REPLACE MACRO orchestra.price_applies(prices, service_tier, context_tier, moment) AS
    prices.service_tier = coalesce(service_tier, 'standard')
    AND prices.above_input_tokens <= coalesce(context_tier, 0)
    AND (prices.up_to_input_tokens > coalesce(context_tier, 0)
         OR prices.up_to_input_tokens IS NULL)
    AND prices.valid_from <= CAST(moment AT TIME ZONE 'UTC' AS DATE)
    AND (prices.valid_until > CAST(moment AT TIME ZONE 'UTC' AS DATE) OR prices.valid_until IS NULL);

CREATE OR REPLACE MACRO orchestra.usage_of(calls) AS calls;

-- The steps that the API still shows, with what they used. The other views read from this one.
CREATE OR REPLACE VIEW orchestra.step_usage AS
SELECT called.*,
       coalesce(is_call AND (outcome = 'succeeded' OR has_usage) AND NOT has_plausible_usage,
                false) AS is_unmetered,
       coalesce(is_call AND (outcome = 'succeeded' OR has_usage) AND total_tokens IS NULL
                AND (coalesce(used.audio_ms, used.document_pages, used.search_units) IS NULL
                     OR coalesce(used.input_tokens, used.output_tokens) IS NOT NULL),
                false) AS is_untotalled
FROM (
    SELECT counted.*,
           coalesce(has_usage OR finish_reason IS NOT NULL
                    OR (model IS NOT NULL
                        AND coalesce(node_type, '') NOT IN ('code', 'integration')
                        AND state NOT IN ('pending', 'skipped')), false) AS is_call,
           orchestra.context_tier(used.input_tokens) AS context_tier,
           orchestra.kinds_of(used) AS usage_kinds,
           coalesce(
               used.input_tokens, used.cached_input_tokens, used.cache_write_tokens,
               used.cache_write_1h_tokens, used.input_audio_tokens, used.cached_audio_tokens,
               used.input_image_tokens, used.cached_image_tokens, used.input_video_tokens,
               used.output_tokens, used.reasoning_tokens, used.output_audio_tokens,
               used.output_image_tokens, used.output_video_tokens, used.citation_tokens,
               used.other_tokens, used.web_searches, used.file_searches, used.tool_uses,
               used.audio_ms, used.document_pages, used.search_units, used.unread_quantities
           ) IS NOT NULL AS has_plausible_usage
    FROM (
        SELECT s.id, s.run_id, s.workflow_id, s.organization_id, s.node_id, s.node_type,
               s."position", s.state, s.outcome, s.start_time, s.duration_ms, s.error_message,
               s.finish_reason, s.service_tier, s.reported_cost, s.updated_at,
               coalesce(s.start_time, r.start_time, r.first_seen_at) AS time,
               CASE WHEN s.start_time IS NULL THEN r.workflow_id ELSE s.workflow_id END
                   AS counted_in,
               coalesce(s.response_model, s.request_model) AS model,
               coalesce(orchestra.token_count(s.total_tokens),
                        orchestra.token_count(s.input_tokens)
                        + orchestra.token_count(s.output_tokens)) AS total_tokens,
               coalesce(
                   s.input_tokens, s.cached_input_tokens, s.cache_write_tokens,
                   s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens,
                   s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens,
                   s.output_tokens, s.reasoning_tokens, s.output_audio_tokens,
                   s.output_image_tokens, s.output_video_tokens, s.citation_tokens,
                   s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms,
                   s.document_pages, s.search_units, s.unread_quantities, s.total_tokens
               ) IS NOT NULL OR s.reported_cost IS NOT NULL AS has_usage,
               {
                   input_tokens: orchestra.token_count(s.input_tokens),
                   cached_input_tokens:
                       CASE WHEN orchestra.token_count(s.cached_input_tokens) IS NOT NULL
                             AND orchestra.token_count(s.input_tokens) IS NOT NULL
                            THEN least(s.cached_input_tokens, s.input_tokens) END,
                   cache_write_tokens: orchestra.token_count(s.cache_write_tokens),
                   cache_write_1h_tokens: orchestra.token_count(s.cache_write_1h_tokens),
                   input_audio_tokens: orchestra.token_count(s.input_audio_tokens),
                   cached_audio_tokens: orchestra.token_count(s.cached_audio_tokens),
                   input_image_tokens: orchestra.token_count(s.input_image_tokens),
                   cached_image_tokens: orchestra.token_count(s.cached_image_tokens),
                   input_video_tokens: orchestra.token_count(s.input_video_tokens),
                   output_tokens: orchestra.token_count(s.output_tokens),
                   reasoning_tokens:
                       CASE WHEN orchestra.token_count(s.reasoning_tokens) IS NOT NULL
                             AND orchestra.token_count(s.output_tokens) IS NOT NULL
                            THEN least(s.reasoning_tokens, s.output_tokens) END,
                   output_audio_tokens: orchestra.token_count(s.output_audio_tokens),
                   output_image_tokens: orchestra.token_count(s.output_image_tokens),
                   output_video_tokens: orchestra.token_count(s.output_video_tokens),
                   citation_tokens: orchestra.token_count(s.citation_tokens),
                   other_tokens: orchestra.token_count(s.other_tokens),
                   web_searches: orchestra.token_count(s.web_searches),
                   file_searches: orchestra.token_count(s.file_searches),
                   tool_uses: orchestra.token_count(s.tool_uses),
                   audio_ms: orchestra.token_count(s.audio_ms),
                   document_pages: orchestra.token_count(s.document_pages),
                   search_units: orchestra.token_count(s.search_units),
                   unread_quantities: orchestra.token_count(s.unread_quantities)
               } AS used
        FROM orchestra.steps AS s
        JOIN orchestra.runs AS r ON r.id = s.run_id AND r.run_day = s.run_day
        WHERE s.absent_since IS NULL
    ) AS counted
) AS called;

CREATE OR REPLACE VIEW orchestra.model_usage AS
SELECT u.hour, u.workflow_id, coalesce(w.name, u.workflow_id) AS workflow_name,
       u.organization_id, u.node_id, u.model, p.provider, u.calls,
       u.input_tokens, u.output_tokens, u.cached_input_tokens, u.reasoning_tokens,
       u.total_tokens,
       k.cost, CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency,
       CASE WHEN k.cost IS NULL THEN u.calls ELSE u.unmetered_calls END AS unpriced_calls,
       u.untotalled_calls, u.service_tier, u.context_tier, u.usage_kinds,
       u.cache_write_tokens, u.cache_write_1h_tokens, u.input_audio_tokens,
       u.cached_audio_tokens, u.input_image_tokens, u.cached_image_tokens,
       u.input_video_tokens, u.output_audio_tokens, u.output_image_tokens,
       u.output_video_tokens, u.citation_tokens, u.other_tokens, u.web_searches,
       u.file_searches, u.tool_uses, u.audio_ms, u.document_pages, u.search_units,
       u.unread_quantities, u.reported_cost, u.reported_calls
FROM (
    SELECT counted_in AS workflow_id, date_trunc('hour', time) AS hour, organization_id, node_id,
           node_type, model, service_tier, context_tier, usage_kinds, count(*) AS calls,
           count_if(is_unmetered) AS unmetered_calls, count_if(is_untotalled) AS untotalled_calls,
           CAST(sum(total_tokens) AS BIGINT) AS total_tokens,
           CAST(sum(used.input_tokens) AS BIGINT) AS input_tokens,
           CAST(sum(used.cached_input_tokens) AS BIGINT) AS cached_input_tokens,
           CAST(sum(used.cache_write_tokens) AS BIGINT) AS cache_write_tokens,
           CAST(sum(used.cache_write_1h_tokens) AS BIGINT) AS cache_write_1h_tokens,
           CAST(sum(used.input_audio_tokens) AS BIGINT) AS input_audio_tokens,
           CAST(sum(used.cached_audio_tokens) AS BIGINT) AS cached_audio_tokens,
           CAST(sum(used.input_image_tokens) AS BIGINT) AS input_image_tokens,
           CAST(sum(used.cached_image_tokens) AS BIGINT) AS cached_image_tokens,
           CAST(sum(used.input_video_tokens) AS BIGINT) AS input_video_tokens,
           CAST(sum(used.output_tokens) AS BIGINT) AS output_tokens,
           CAST(sum(used.reasoning_tokens) AS BIGINT) AS reasoning_tokens,
           CAST(sum(used.output_audio_tokens) AS BIGINT) AS output_audio_tokens,
           CAST(sum(used.output_image_tokens) AS BIGINT) AS output_image_tokens,
           CAST(sum(used.output_video_tokens) AS BIGINT) AS output_video_tokens,
           CAST(sum(used.citation_tokens) AS BIGINT) AS citation_tokens,
           CAST(sum(used.other_tokens) AS BIGINT) AS other_tokens,
           CAST(sum(used.web_searches) AS BIGINT) AS web_searches,
           CAST(sum(used.file_searches) AS BIGINT) AS file_searches,
           CAST(sum(used.tool_uses) AS BIGINT) AS tool_uses,
           CAST(sum(used.audio_ms) AS BIGINT) AS audio_ms,
           CAST(sum(used.document_pages) AS BIGINT) AS document_pages,
           CAST(sum(used.search_units) AS BIGINT) AS search_units,
           CAST(sum(used.unread_quantities) AS BIGINT) AS unread_quantities,
           sum(reported_cost) AS reported_cost, count(reported_cost) AS reported_calls
    FROM orchestra.step_usage
    WHERE is_call
    GROUP BY ALL
) AS u
LEFT JOIN orchestra.workflows AS w ON w.id = u.workflow_id
LEFT JOIN orchestra.prices AS p
  ON p.model = u.model AND u.calls > u.unmetered_calls
 AND orchestra.price_applies(p, u.service_tier, u.context_tier, u.hour)
CROSS JOIN LATERAL (
    SELECT orchestra.call_cost(u, u.calls - u.unmetered_calls, p) AS cost
) AS k;

CREATE OR REPLACE VIEW orchestra.cost_differences AS
SELECT s.time, s.workflow_id, coalesce(w.name, s.workflow_id) AS workflow_name,
       s.organization_id, s.run_id, s.id AS step_id, s.node_id, s.model, p.provider,
       s.service_tier, s.usage_kinds,
       k.cost, CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency, s.reported_cost,
       CASE WHEN p.currency = 'USD' THEN k.cost - s.reported_cost END AS difference,
       CASE WHEN p.currency = 'USD' AND s.reported_cost > 0
            THEN k.cost / s.reported_cost END AS ratio
FROM orchestra.step_usage AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id
LEFT JOIN orchestra.prices AS p
  ON p.model = s.model AND s.has_plausible_usage
 AND orchestra.price_applies(p, s.service_tier, s.context_tier, s.time)
CROSS JOIN LATERAL (SELECT orchestra.call_cost(s.used, 1, p) AS cost) AS k
WHERE s.reported_cost IS NOT NULL;

-- Runs and steps.

CREATE OR REPLACE VIEW orchestra.run_summary AS
SELECT r.id AS run_id, r.workflow_id, coalesce(w.name, r.workflow_id) AS workflow_name,
       coalesce(w.labels, '{}') AS labels,
       -- The next version was already in force if its date says so, unless the one before it was
       -- seen since that date.
       CASE WHEN next.api_updated_at <= coalesce(r.start_time, r.first_seen_at)
             AND (last.first_seen_at <= next.api_updated_at OR last.first_seen_at IS NULL)
            THEN next.version ELSE last.version END AS workflow_version,
       r.organization_id, r.user_id, r.state, r.outcome, r.tracking, r.start_time, r.end_time,
       r.duration_ms,
       coalesce(s.steps, 0) AS steps,
       coalesce(s.succeeded_steps, 0) AS succeeded_steps,
       coalesce(s.soft_failed_steps, 0) AS soft_failed_steps,
       coalesce(s.failed_steps, 0) AS failed_steps,
       s.first_failed_node,
       coalesce(s.first_error, r.error_message) AS first_error,
       coalesce(s.calls, 0) AS calls,
       CASE WHEN s.calls > 0 THEN s.input_tokens ELSE 0 END AS input_tokens,
       CASE WHEN s.calls > 0 THEN s.output_tokens ELSE 0 END AS output_tokens,
       CASE WHEN s.calls > 0 THEN s.cached_input_tokens ELSE 0 END AS cached_input_tokens,
       CASE WHEN s.calls > 0 THEN s.reasoning_tokens ELSE 0 END AS reasoning_tokens,
       CASE WHEN s.calls > 0 THEN s.total_tokens ELSE 0 END AS total_tokens,
       CASE WHEN s.one_currency THEN s.cost END AS cost,
       CASE WHEN s.one_currency THEN s.currency END AS currency,
       coalesce(CASE WHEN s.one_currency THEN s.calls - s.priced_calls ELSE s.calls END, 0)
           AS unpriced_calls,
       r.first_seen_at, r.updated_at,
       coalesce(s.untotalled_calls, 0) AS untotalled_calls,
       s.cache_write_tokens, s.reported_cost, coalesce(s.reported_calls, 0) AS reported_calls,
       -- A read that finds nothing new writes nothing to the lake. So this is the last change.
       greatest(r.updated_at, s.updated_at) AS observed_at
FROM orchestra.runs AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
ASOF LEFT JOIN orchestra.workflow_versions AS last
  ON last.workflow_id = r.workflow_id
 AND last.first_seen_at <= coalesce(r.start_time, r.first_seen_at)
ASOF LEFT JOIN orchestra.workflow_versions AS next
  ON next.workflow_id = r.workflow_id
 AND next.first_seen_at > coalesce(r.start_time, r.first_seen_at)
LEFT JOIN (
    SELECT u.run_id, count(*) AS steps,
           count_if(outcome = 'succeeded') AS succeeded_steps,
           count_if(outcome = 'soft_failed') AS soft_failed_steps,
           count_if(outcome = 'failed') AS failed_steps,
           first(node_id ORDER BY outcome = 'failed' DESC, start_time NULLS LAST, "position", id)
               FILTER (WHERE outcome IN ('failed', 'soft_failed')) AS first_failed_node,
           first(error_message
                 ORDER BY outcome = 'failed' DESC, start_time NULLS LAST, "position", id)
               FILTER (WHERE outcome IN ('failed', 'soft_failed')) AS first_error,
           count_if(is_call) AS calls,
           CAST(sum(used.input_tokens) AS BIGINT) AS input_tokens,
           CAST(sum(used.output_tokens) AS BIGINT) AS output_tokens,
           CAST(sum(used.cached_input_tokens) AS BIGINT) AS cached_input_tokens,
           CAST(sum(used.reasoning_tokens) AS BIGINT) AS reasoning_tokens,
           CAST(sum(u.total_tokens) AS BIGINT) AS total_tokens,
           sum(u.cost) AS cost, min(u.currency) AS currency,
           coalesce(min(u.currency) = max(u.currency), false) AS one_currency,
           count(u.cost) AS priced_calls,
           count_if(is_untotalled) AS untotalled_calls,
           CAST(sum(used.cache_write_tokens) AS BIGINT) AS cache_write_tokens,
           sum(u.reported_cost) AS reported_cost, count(u.reported_cost) AS reported_calls,
           max(u.updated_at) AS updated_at
    FROM (
        SELECT s.*, k.cost, CASE WHEN k.cost IS NOT NULL THEN p.currency END AS currency
        FROM orchestra.step_usage AS s
        LEFT JOIN orchestra.prices AS p
          ON p.model = s.model AND s.is_call AND NOT s.is_unmetered
         AND orchestra.price_applies(p, s.service_tier, s.context_tier, s.time)
        CROSS JOIN LATERAL (SELECT orchestra.call_cost(s.used, 1, p) AS cost) AS k
    ) AS u
    GROUP BY u.run_id
) AS s ON s.run_id = r.id;

CREATE OR REPLACE VIEW orchestra.failures AS
SELECT f.time, f.workflow_id, coalesce(w.name, f.workflow_id) AS workflow_name,
       f.organization_id, f.run_id, f.step_id, f.node_id, f.outcome, f.fingerprint, f.pattern,
       f.message
FROM orchestra.step_failures AS f
LEFT JOIN orchestra.workflows AS w ON w.id = f.workflow_id;

CREATE OR REPLACE VIEW orchestra.workflow_hourly AS
SELECT r.* EXCLUDE (durations, failed_durations),
       coalesce(w.name, r.workflow_id) AS workflow_name
FROM (
    SELECT date_trunc('hour', coalesce(start_time, first_seen_at)) AS hour, workflow_id,
           organization_id, count(*) AS runs,
           count_if(outcome = 'succeeded') AS succeeded,
           count_if(outcome = 'soft_failed') AS soft_failed,
           count_if(outcome = 'failed') AS failed,
           count_if(outcome = 'cancelled') AS cancelled,
           count_if(outcome = 'skipped') AS skipped,
           count_if(outcome NOT IN ('succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped'))
               AS unfinished,
           histogram(orchestra.duration_bucket(duration_ms)) FILTER (WHERE outcome = 'succeeded')
               AS durations,
           histogram(orchestra.duration_bucket(duration_ms))
               FILTER (WHERE outcome IN ('soft_failed', 'failed')) AS failed_durations,
           CAST(coalesce(map_keys(durations), []) AS BIGINT[]) AS buckets,
           CAST(coalesce(map_values(durations), []) AS BIGINT[]) AS counts,
           CAST(coalesce(map_keys(failed_durations), []) AS BIGINT[]) AS failed_buckets,
           CAST(coalesce(map_values(failed_durations), []) AS BIGINT[]) AS failed_counts
    FROM orchestra.runs
    GROUP BY ALL
) AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id;

CREATE OR REPLACE VIEW orchestra.node_daily AS
SELECT s.* EXCLUDE (durations, failed_durations),
       coalesce(w.name, s.workflow_id) AS workflow_name
FROM (
    SELECT CAST(time AT TIME ZONE 'UTC' AS DATE) AS day, counted_in AS workflow_id,
           organization_id, node_id, node_type, model, count(*) AS steps,
           count_if(outcome = 'succeeded') AS succeeded,
           count_if(outcome = 'soft_failed') AS soft_failed,
           count_if(outcome = 'failed') AS failed,
           count_if(outcome = 'cancelled') AS cancelled,
           count_if(outcome = 'skipped') AS skipped,
           count_if(outcome NOT IN ('succeeded', 'soft_failed', 'failed', 'cancelled', 'skipped'))
               AS unfinished,
           count_if(is_call) AS calls,
           CASE WHEN calls = 0 THEN 0 ELSE CAST(sum(total_tokens) AS BIGINT) END AS total_tokens,
           histogram(orchestra.duration_bucket(duration_ms)) FILTER (WHERE outcome = 'succeeded')
               AS durations,
           histogram(orchestra.duration_bucket(duration_ms))
               FILTER (WHERE outcome IN ('soft_failed', 'failed')) AS failed_durations,
           CAST(coalesce(map_keys(durations), []) AS BIGINT[]) AS buckets,
           CAST(coalesce(map_values(durations), []) AS BIGINT[]) AS counts,
           CAST(coalesce(map_keys(failed_durations), []) AS BIGINT[]) AS failed_buckets,
           CAST(coalesce(map_values(failed_durations), []) AS BIGINT[]) AS failed_counts,
           count_if(is_untotalled) AS untotalled_calls
    FROM orchestra.step_usage
    GROUP BY ALL
) AS s
LEFT JOIN orchestra.workflows AS w ON w.id = s.workflow_id;

CREATE OR REPLACE VIEW orchestra.open_runs AS
SELECT r.id AS run_id, r.workflow_id, coalesce(w.name, r.workflow_id) AS workflow_name,
       r.organization_id, r.user_id, r.state, r.tracking, r.start_time,
       greatest(extract(epoch FROM greatest(r.updated_at, s.updated_at)
                                   - coalesce(r.start_time, r.first_seen_at)) * 1000, 0) AS age_ms,
       usual.p95_ms AS usual_p95_ms,
       coalesce(age_ms > usual.p95_ms, false) AS overdue,
       coalesce(s.steps, 0) AS steps, coalesce(s.finished_steps, 0) AS finished_steps,
       s.running_node, greatest(r.updated_at, s.updated_at) AS observed_at
FROM orchestra.runs AS r
LEFT JOIN orchestra.workflows AS w ON w.id = r.workflow_id
LEFT JOIN (
    SELECT workflow_id,
           coalesce(orchestra.duration_quantile(buckets, counts, 0.95),
                    orchestra.duration_quantile(failed_buckets, failed_counts, 0.95)) AS p95_ms
    FROM orchestra.workflow_hourly
    WHERE hour >= now() - INTERVAL 30 DAY
    GROUP BY workflow_id
) AS usual ON usual.workflow_id = r.workflow_id
LEFT JOIN (
    SELECT run_id, count(*) AS steps,
           count_if(state IN ('succeeded', 'failed', 'cancelled', 'skipped')) AS finished_steps,
           first(node_id ORDER BY start_time NULLS LAST, "position", id)
               FILTER (WHERE state = 'running') AS running_node,
           max(updated_at) AS updated_at
    FROM orchestra.step_usage
    GROUP BY run_id
) AS s ON s.run_id = r.id
WHERE r.state IN ('pending', 'running', 'unknown') AND r.tracking NOT IN ('final', 'gone');

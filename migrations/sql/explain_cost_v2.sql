CREATE FUNCTION orchestra.explained_calls(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz,
    only_organisation text, only_node text, only_model text
) RETURNS TABLE (
    side integer, version text, node_id text, model text, service_tier text, context_tier integer,
    usage_kinds integer, at timestamptz, calls bigint, unmetered_calls bigint,
    used orchestra.usage
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10000
AS $$
    WITH periods AS MATERIALIZED (
        SELECT * FROM orchestra.explained_periods(
            workflow, since, until, against_since, against_until, only_organisation)
    )
    SELECT p.side, p.version, s.node_id, s.model, s.service_tier, s.context_tier, s.usage_kinds,
           s.hour, s.calls, s.unmetered_calls,
           CAST(ROW(
               s.input_tokens, s.cached_input_tokens, s.cache_write_tokens, s.cache_write_1h_tokens,
               s.input_audio_tokens, s.cached_audio_tokens, s.input_image_tokens,
               s.cached_image_tokens, s.input_video_tokens, s.output_tokens, s.reasoning_tokens,
               s.output_audio_tokens, s.output_image_tokens, s.output_video_tokens,
               s.citation_tokens, s.other_tokens, s.web_searches, s.file_searches, s.tool_uses,
               s.audio_ms, s.document_pages, s.search_units, s.unread_quantities
           ) AS orchestra.usage)
    FROM periods AS p
    JOIN orchestra.step_rollup AS s
      ON s.workflow_id = workflow AND s.hour >= p.begins AND s.hour < p.ends
     AND s.hour <= p.period_ends - interval '1 hour'
     AND (s.ordinal < 0 OR s.hour <= p.ends - interval '1 hour')
    WHERE s.calls > 0
      AND (only_organisation IS NULL OR s.organization_id = only_organisation)
      AND (only_node IS NULL OR s.node_id = only_node)
      AND (only_model IS NULL OR s.model = only_model)
    UNION ALL
    SELECT c.side, c.version, c.node_id, c.model, c.service_tier,
           orchestra.context_tier((c.used).input_tokens), orchestra.kinds_of(c.used), c.time, 1,
           CASE WHEN orchestra.is_unmetered(c.outcome, true, c.has_usage, c.used)
               THEN 1 ELSE 0 END,
           c.used
    FROM (
        SELECT p.side, p.version, s.node_id, s.service_tier, found.time, u.model, u.outcome, u.used,
               u.has_usage,
               orchestra.is_call(s.state, s.node_type, u.model, s.finish_reason, u.has_usage)
                   AS is_call
        FROM periods AS p
        CROSS JOIN LATERAL orchestra.partial_hours(p.begins, p.ends) AS part
        CROSS JOIN LATERAL (
            SELECT s.start_time AS time, s.id
            FROM orchestra.steps AS s
            WHERE s.workflow_id = workflow
              AND s.start_time >= part.begins AND s.start_time < part.ends
            UNION ALL
            SELECT r.time, s.id
            FROM (
                SELECT r.id, r.start_time AS time
                FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow
                  AND r.start_time >= part.begins AND r.start_time < part.ends
                UNION ALL
                SELECT r.id, r.first_seen_at
                FROM orchestra.runs AS r
                WHERE r.workflow_id = workflow AND r.start_time IS NULL
                  AND r.first_seen_at >= part.begins AND r.first_seen_at < part.ends
            ) AS r
            JOIN orchestra.steps AS s ON s.run_id = r.id AND s.start_time IS NULL
        ) AS found
        JOIN orchestra.steps AS s ON s.id = found.id AND s.absent_since IS NULL
         AND (only_organisation IS NULL OR s.organization_id = only_organisation)
         AND (only_node IS NULL OR s.node_id = only_node)
        CROSS JOIN LATERAL (
            SELECT COALESCE(s.response_model, s.request_model) AS model,
                   orchestra.outcome(s.state, s.error, s.reported_error) AS outcome,
                   orchestra.plausible_usage(raw.used) AS used,
                   orchestra.has_usage(raw.used, s.total_tokens, s.reported_cost) AS has_usage
            FROM (SELECT CAST(ROW(
                    s.input_tokens, s.cached_input_tokens, s.cache_write_tokens,
                    s.cache_write_1h_tokens, s.input_audio_tokens, s.cached_audio_tokens,
                    s.input_image_tokens, s.cached_image_tokens, s.input_video_tokens,
                    s.output_tokens, s.reasoning_tokens, s.output_audio_tokens,
                    s.output_image_tokens, s.output_video_tokens, s.citation_tokens,
                    s.other_tokens, s.web_searches, s.file_searches, s.tool_uses, s.audio_ms,
                    s.document_pages, s.search_units, s.unread_quantities
                ) AS orchestra.usage) AS used) AS raw
            OFFSET 0
        ) AS u
    ) AS c
    WHERE c.is_call AND (only_model IS NULL OR c.model = only_model)
$$;

COMMENT ON FUNCTION orchestra.explained_calls(
    text, timestamptz, timestamptz, timestamptz, timestamptz, text, text, text) IS
    'As explained_calls with five arguments, only those of an organisation, a node or a model; '
    'null: all.';

CREATE OR REPLACE FUNCTION orchestra.explained_calls(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz
) RETURNS TABLE (
    side integer, version text, node_id text, model text, service_tier text, context_tier integer,
    usage_kinds integer, at timestamptz, calls bigint, unmetered_calls bigint,
    used orchestra.usage
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10000
AS $$
    SELECT * FROM orchestra.explained_calls(
        workflow, since, until, against_since, against_until, NULL, NULL, NULL)
$$;

COMMENT ON FUNCTION orchestra.explained_calls(
    text, timestamptz, timestamptz, timestamptz, timestamptz) IS
    'The calls of models in two periods of a workflow, side 1 being since/until and side 0 the '
    'baseline: in whole hours from step_rollup, in the rest from the steps.';

-- 24 decimals, so that the parts differ from the whole by less than a unit of the last of the 12
-- decimals that are shown.
CREATE OR REPLACE FUNCTION orchestra.ratio(count numeric, total numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT count * 1.000000000000000000000000 / NULLIF(total, 0) $$;

COMMENT ON FUNCTION orchestra.ratio(numeric, numeric) IS
    'A count divided by its total, to 24 decimals; null if the total is 0 or null.';

CREATE OR REPLACE FUNCTION orchestra.midpoint(before numeric, after numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (before + after) * 0.5 $$;

COMMENT ON FUNCTION orchestra.midpoint(numeric, numeric) IS 'The mean of two numbers.';

-- The rollups limit their sums in the same way.
CREATE OR REPLACE FUNCTION orchestra.bounded(total numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN total > 1000000000000000000 THEN 1000000000000000000
                ELSE CAST(total AS bigint) END
$$;

COMMENT ON FUNCTION orchestra.bounded(numeric) IS
    'A sum of quantities as a bigint, at most 10^18, so that an absurd number does no harm.';

-- A cost is a product along the levels of a tree: runs; the share of a version in the runs; calls of
-- a node in a run; the share of the calls with a cost; the share of a model in those; the quantity
-- of a kind in a call; its price. At each level, the difference of the product of a factor x and
-- what lies below, y, is split exactly: d(xy) = dx * mean(y) + mean(x) * dy. Where a period has no
-- calls below a place in the tree, its factor there is 0, and those below are the other period's, so
-- that they do not differ.
CREATE FUNCTION orchestra.explain_cost(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz,
    only_organisation text, only_node text, only_model text
) RETURNS TABLE (
    currency text, part text, version text, node_id text, model text, service_tier text,
    context_tier integer, kind text, before numeric, after numeric, amount numeric
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100
AS $$
    WITH used AS MATERIALIZED (
        -- Calls with the same price and the same kinds of usage, of which either all have a cost or
        -- none has.
        SELECT c.side, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
               c.usage_kinds, p.valid_from, min(c.at) AS at,
               CAST(sum(c.calls) AS bigint) AS calls,
               CAST(sum(c.unmetered_calls) AS bigint) AS unmetered,
               CAST(ROW(
                   orchestra.bounded(sum((c.used).input_tokens)),
                   orchestra.bounded(sum((c.used).cached_input_tokens)),
                   orchestra.bounded(sum((c.used).cache_write_tokens)),
                   orchestra.bounded(sum((c.used).cache_write_1h_tokens)),
                   orchestra.bounded(sum((c.used).input_audio_tokens)),
                   orchestra.bounded(sum((c.used).cached_audio_tokens)),
                   orchestra.bounded(sum((c.used).input_image_tokens)),
                   orchestra.bounded(sum((c.used).cached_image_tokens)),
                   orchestra.bounded(sum((c.used).input_video_tokens)),
                   orchestra.bounded(sum((c.used).output_tokens)),
                   orchestra.bounded(sum((c.used).reasoning_tokens)),
                   orchestra.bounded(sum((c.used).output_audio_tokens)),
                   orchestra.bounded(sum((c.used).output_image_tokens)),
                   orchestra.bounded(sum((c.used).output_video_tokens)),
                   orchestra.bounded(sum((c.used).citation_tokens)),
                   orchestra.bounded(sum((c.used).other_tokens)),
                   orchestra.bounded(sum((c.used).web_searches)),
                   orchestra.bounded(sum((c.used).file_searches)),
                   orchestra.bounded(sum((c.used).tool_uses)),
                   orchestra.bounded(sum((c.used).audio_ms)),
                   orchestra.bounded(sum((c.used).document_pages)),
                   orchestra.bounded(sum((c.used).search_units)),
                   orchestra.bounded(sum((c.used).unread_quantities))
               ) AS orchestra.usage) AS used
        FROM orchestra.explained_calls(
            workflow, since, until, against_since, against_until,
            only_organisation, only_node, only_model) AS c
        LEFT JOIN orchestra.prices AS p
          ON p.model = c.model
         AND orchestra.price_applies(p, c.service_tier, c.context_tier, c.at)
        GROUP BY c.side, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
                 c.usage_kinds, p.valid_from
    ), calls AS MATERIALIZED (
        SELECT u.side, u.version, u.node_id, u.model, u.service_tier, u.context_tier, u.calls,
               u.unmetered, u.calls - u.unmetered AS metered, u.used, p AS prices,
               CASE WHEN orchestra.call_cost(u.used, u.calls - u.unmetered, p) IS NOT NULL
                   THEN p.currency END AS currency
        FROM used AS u
        LEFT JOIN orchestra.prices AS p
          ON p.model = u.model AND p.valid_from = u.valid_from AND u.calls > u.unmetered
         AND orchestra.price_applies(p, u.service_tier, u.context_tier, u.at)
    ), periods AS (
        SELECT p.side, p.version, sum(p.runs) AS runs
        FROM orchestra.explained_periods(
            workflow, since, until, against_since, against_until, only_organisation) AS p
        GROUP BY p.side, p.version
    ), versions AS (
        -- Without a run that started in a period, its calls belong to earlier runs: these count as
        -- one run.
        SELECT v.version, v.runs_0, v.runs_1, sum(v.runs_0) OVER () AS all_0,
               sum(v.runs_1) OVER () AS all_1
        FROM (
            SELECT p.version,
                   COALESCE(sum(GREATEST(p.runs, s.least)) FILTER (WHERE p.side = 0), 0) AS runs_0,
                   COALESCE(sum(GREATEST(p.runs, s.least)) FILTER (WHERE p.side = 1), 0) AS runs_1
            FROM periods AS p
            CROSS JOIN LATERAL (
                SELECT CASE WHEN EXISTS (SELECT FROM calls AS c WHERE c.side = p.side)
                    THEN 1 ELSE 0 END AS least
            ) AS s
            GROUP BY p.version
        ) AS v
    ), nodes AS (
        SELECT c.version, c.node_id,
               COALESCE(sum(c.calls) FILTER (WHERE c.side = 0), 0) AS calls_0,
               COALESCE(sum(c.calls) FILTER (WHERE c.side = 1), 0) AS calls_1,
               COALESCE(sum(c.unmetered) FILTER (WHERE c.side = 0), 0) AS unmetered_0,
               COALESCE(sum(c.unmetered) FILTER (WHERE c.side = 1), 0) AS unmetered_1,
               COALESCE(sum(c.metered) FILTER (WHERE c.side = 0 AND c.currency IS NULL), 0)
                   AS unpriced_0,
               COALESCE(sum(c.metered) FILTER (WHERE c.side = 1 AND c.currency IS NULL), 0)
                   AS unpriced_1
        FROM calls AS c
        GROUP BY c.version, c.node_id
    ), models AS (
        SELECT m.*, sum(m.calls_0) OVER node AS priced_0, sum(m.calls_1) OVER node AS priced_1
        FROM (
            SELECT c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
                   COALESCE(sum(c.metered) FILTER (WHERE c.side = 0), 0) AS calls_0,
                   COALESCE(sum(c.metered) FILTER (WHERE c.side = 1), 0) AS calls_1
            FROM calls AS c
            WHERE c.currency IS NOT NULL
            GROUP BY c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier
        ) AS m
        WINDOW node AS (PARTITION BY m.currency, m.version, m.node_id)
    ), kinds AS (
        SELECT c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
               part.kind, part.per,
               COALESCE(sum(part.quantity) FILTER (WHERE c.side = 0), 0) AS used_0,
               COALESCE(sum(part.quantity) FILTER (WHERE c.side = 1), 0) AS used_1,
               COALESCE(sum(part.quantity * part.price) FILTER (WHERE c.side = 0), 0) AS charged_0,
               COALESCE(sum(part.quantity * part.price) FILTER (WHERE c.side = 1), 0) AS charged_1
        FROM calls AS c
        CROSS JOIN LATERAL orchestra.cost_parts(c.used, c.metered, c.prices) AS part
        WHERE c.currency IS NOT NULL
        GROUP BY c.currency, c.version, c.node_id, c.model, c.service_tier, c.context_tier,
                 part.kind, part.per
    ), costs AS (
        SELECT c.currency,
               round(COALESCE(sum(orchestra.ratio(k.charged_0, k.per)), 0), 12) AS cost_0,
               round(COALESCE(sum(orchestra.ratio(k.charged_1, k.per)), 0), 12) AS cost_1
        FROM (SELECT DISTINCT m.currency FROM models AS m) AS c
        LEFT JOIN kinds AS k ON k.currency = c.currency
        GROUP BY c.currency
    ), priced AS (
        -- A price is not the workflow's own: if a node lacks it in a period, it is that of other
        -- nodes and versions.
        SELECT k.*,
               orchestra.ratio(sum(k.charged_0) OVER everywhere, sum(k.used_0) OVER everywhere)
                   AS usual_0,
               orchestra.ratio(sum(k.charged_1) OVER everywhere, sum(k.used_1) OVER everywhere)
                   AS usual_1
        FROM kinds AS k
        WINDOW everywhere AS (
            PARTITION BY k.currency, k.model, k.service_tier, k.context_tier, k.kind)
    ), known AS (
        -- Null: the period has no calls below this place.
        SELECT k.currency, k.version, k.node_id, k.model, k.service_tier, k.context_tier, k.kind,
               k.per, v.all_0 AS runs_0, v.all_1 AS runs_1,
               orchestra.ratio(v.runs_0, v.all_0) AS version_0,
               orchestra.ratio(v.runs_1, v.all_1) AS version_1,
               orchestra.ratio(n.calls_0, v.runs_0) AS calls_0,
               orchestra.ratio(n.calls_1, v.runs_1) AS calls_1,
               orchestra.ratio(m.priced_0, n.calls_0) AS priced_0,
               orchestra.ratio(m.priced_1, n.calls_1) AS priced_1,
               orchestra.ratio(n.unpriced_0, n.calls_0) AS unpriced_0,
               orchestra.ratio(n.unpriced_1, n.calls_1) AS unpriced_1,
               orchestra.ratio(n.unmetered_0, n.calls_0) AS unmetered_0,
               orchestra.ratio(n.unmetered_1, n.calls_1) AS unmetered_1,
               orchestra.ratio(m.calls_0, m.priced_0) AS model_0,
               orchestra.ratio(m.calls_1, m.priced_1) AS model_1,
               orchestra.ratio(k.used_0, m.calls_0) AS used_0,
               orchestra.ratio(k.used_1, m.calls_1) AS used_1,
               COALESCE(orchestra.ratio(k.charged_0, k.used_0), k.usual_0, k.usual_1) AS price_0,
               COALESCE(orchestra.ratio(k.charged_1, k.used_1), k.usual_1, k.usual_0) AS price_1
        FROM priced AS k
        -- Arrays, because nulls in them are equal, and a join can hash them.
        JOIN versions AS v ON ARRAY[v.version] = ARRAY[k.version]
        JOIN nodes AS n ON ARRAY[n.version, n.node_id] = ARRAY[k.version, k.node_id]
        JOIN models AS m
          ON m.currency = k.currency AND m.model = k.model
         AND ARRAY[m.version, m.node_id, m.service_tier, CAST(m.context_tier AS text)]
           = ARRAY[k.version, k.node_id, k.service_tier, CAST(k.context_tier AS text)]
    ), factors AS (
        SELECT k.currency, k.version, k.node_id, k.model, k.service_tier, k.context_tier, k.kind,
               k.per, k.runs_0, k.runs_1,
               COALESCE(k.version_0, k.version_1) AS version_0,
               COALESCE(k.version_1, k.version_0) AS version_1,
               COALESCE(k.calls_0, k.calls_1) AS calls_0,
               COALESCE(k.calls_1, k.calls_0) AS calls_1,
               COALESCE(k.priced_0, k.priced_1) AS priced_0,
               COALESCE(k.priced_1, k.priced_0) AS priced_1,
               COALESCE(k.unpriced_0, k.unpriced_1) AS unpriced_0,
               COALESCE(k.unpriced_1, k.unpriced_0) AS unpriced_1,
               COALESCE(k.unmetered_0, k.unmetered_1) AS unmetered_0,
               COALESCE(k.unmetered_1, k.unmetered_0) AS unmetered_1,
               COALESCE(k.model_0, k.model_1) AS model_0,
               COALESCE(k.model_1, k.model_0) AS model_1,
               COALESCE(k.used_0, k.used_1) AS used_0,
               COALESCE(k.used_1, k.used_0) AS used_1,
               k.price_0 / k.per AS price_0, k.price_1 / k.per AS price_1
        FROM known AS k
    ), effects AS (
        SELECT f.currency, e.*,
               CASE WHEN e.depth >= 3 THEN f.version END AS version,
               CASE WHEN e.depth >= 2 THEN f.node_id END AS node_id,
               CASE WHEN e.depth >= 4 THEN f.model END AS model,
               CASE WHEN e.depth >= 4 THEN f.service_tier END AS service_tier,
               CASE WHEN e.depth >= 4 THEN f.context_tier END AS context_tier,
               CASE WHEN e.depth >= 5 THEN f.kind END AS kind
        FROM factors AS f
        -- What lies below each level: y of the formula.
        CROSS JOIN LATERAL (SELECT f.price_0 AS y_0, f.price_1 AS y_1) AS used
        CROSS JOIN LATERAL (SELECT f.used_0 * used.y_0 AS y_0, f.used_1 * used.y_1 AS y_1) AS model
        CROSS JOIN LATERAL (
            SELECT f.model_0 * model.y_0 AS y_0, f.model_1 * model.y_1 AS y_1) AS priced
        CROSS JOIN LATERAL (
            SELECT f.priced_0 * priced.y_0 AS y_0, f.priced_1 * priced.y_1 AS y_1) AS calls
        CROSS JOIN LATERAL (
            SELECT f.calls_0 * calls.y_0 AS y_0, f.calls_1 * calls.y_1 AS y_1) AS version
        CROSS JOIN LATERAL (
            SELECT f.version_0 * version.y_0 AS y_0, f.version_1 * version.y_1 AS y_1) AS runs
        -- The product of the means of the factors above each level.
        CROSS JOIN LATERAL (SELECT orchestra.midpoint(f.runs_0, f.runs_1) AS x) AS below_runs
        CROSS JOIN LATERAL (
            SELECT below_runs.x * orchestra.midpoint(f.version_0, f.version_1) AS x
        ) AS below_version
        CROSS JOIN LATERAL (
            SELECT below_version.x * orchestra.midpoint(f.calls_0, f.calls_1) AS x
        ) AS below_calls
        CROSS JOIN LATERAL (
            SELECT below_calls.x * orchestra.midpoint(f.priced_0, f.priced_1) AS x
        ) AS below_priced
        CROSS JOIN LATERAL (
            SELECT below_priced.x * orchestra.midpoint(f.model_0, f.model_1) AS x
        ) AS below_model
        CROSS JOIN LATERAL (
            SELECT below_model.x * orchestra.midpoint(f.used_0, f.used_1) AS x
        ) AS below_used
        CROSS JOIN LATERAL (
            SELECT (f.unpriced_1 - f.unpriced_0) AS unpriced,
                   (f.unmetered_1 - f.unmetered_0) AS unmetered,
                   below_calls.x * orchestra.midpoint(priced.y_0, priced.y_1) AS weight
        ) AS without
        CROSS JOIN LATERAL (
            VALUES
                (1, 'runs', f.runs_0, f.runs_1,
                 (f.runs_1 - f.runs_0) * orchestra.midpoint(runs.y_0, runs.y_1)),
                (2, 'version', NULL, NULL,
                 below_runs.x * (f.version_1 - f.version_0)
                     * orchestra.midpoint(version.y_0, version.y_1)),
                (3, CASE WHEN f.calls_0 = 0 OR f.calls_1 = 0 THEN 'nodes' ELSE 'calls' END,
                 f.calls_0, f.calls_1,
                 below_version.x * (f.calls_1 - f.calls_0)
                     * orchestra.midpoint(calls.y_0, calls.y_1)),
                (3, 'unpriced', f.unpriced_0, f.unpriced_1, -without.unpriced * without.weight),
                (3, 'unmetered', f.unmetered_0, f.unmetered_1, -without.unmetered * without.weight),
                (3, 'currencies', 1 - f.priced_0 - f.unpriced_0 - f.unmetered_0,
                 1 - f.priced_1 - f.unpriced_1 - f.unmetered_1,
                 (f.priced_1 - f.priced_0 + without.unpriced + without.unmetered) * without.weight),
                (4, 'models', f.model_0, f.model_1,
                 below_priced.x * (f.model_1 - f.model_0)
                     * orchestra.midpoint(model.y_0, model.y_1)),
                (5, 'usage', f.used_0, f.used_1,
                 below_model.x * (f.used_1 - f.used_0) * orchestra.midpoint(used.y_0, used.y_1)),
                (5, 'prices', f.price_0 * f.per, f.price_1 * f.per,
                 below_used.x * (f.price_1 - f.price_0))
        ) AS e (depth, part, before, after, amount)
    ), summed AS (
        SELECT e.currency, e.part, e.version, e.node_id, e.model, e.service_tier, e.context_tier,
               e.kind, max(e.before) AS before, max(e.after) AS after,
               round(sum(e.amount), 12) AS amount
        FROM effects AS e
        GROUP BY e.currency, e.part, e.version, e.node_id, e.model, e.service_tier, e.context_tier,
                 e.kind
        HAVING round(sum(e.amount), 12) <> 0
    ), ranked AS (
        SELECT s.*,
               c.cost_1 - c.cost_0 - sum(s.amount) OVER (PARTITION BY s.currency) AS rounding,
               row_number() OVER (
                   PARTITION BY s.currency
                   ORDER BY abs(s.amount) DESC, s.part, s.version, s.node_id, s.model,
                            s.service_tier, s.context_tier, s.kind
               ) AS rank
        FROM summed AS s
        JOIN costs AS c ON c.currency = s.currency
    )
    SELECT c.currency, 'baseline', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, c.cost_0
    FROM costs AS c
    UNION ALL
    SELECT r.currency, r.part, r.version, r.node_id, r.model, r.service_tier, r.context_tier,
           r.kind, trim_scale(round(r.before, 12)), trim_scale(round(r.after, 12)),
           CASE WHEN r.rank = 1 THEN r.amount + r.rounding ELSE r.amount END
    FROM ranked AS r
$$;

COMMENT ON FUNCTION orchestra.explain_cost(
    text, timestamptz, timestamptz, timestamptz, timestamptz, text, text, text) IS
    'As explain_cost with five arguments, only of the calls of an organisation, a node or a model; '
    'null: of all. With an organisation, only its runs count.';

CREATE OR REPLACE FUNCTION orchestra.explain_cost(
    workflow text, since timestamptz, until timestamptz,
    against_since timestamptz, against_until timestamptz
) RETURNS TABLE (
    currency text, part text, version text, node_id text, model text, service_tier text,
    context_tier integer, kind text, before numeric, after numeric, amount numeric
)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100
AS $$
    SELECT * FROM orchestra.explain_cost(
        workflow, since, until, against_since, against_until, NULL, NULL, NULL)
$$;

COMMENT ON FUNCTION orchestra.explain_cost(
    text, timestamptz, timestamptz, timestamptz, timestamptz) IS
    'Why the cost of a workflow differs between two periods: a row baseline with the cost against '
    'which it is compared, and the parts of the difference, which add up to it exactly, for each '
    'currency. before and after are the factor in the baseline and in the period.';

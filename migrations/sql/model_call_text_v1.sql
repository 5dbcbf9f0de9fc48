-- The functions below read requests and responses of models by the table content_shapes. No value
-- raises an error, and none takes more than a few passes: paths are `lax`, arrays are read up to
-- 10,000 elements, texts are parsed as JSON up to 2^20 characters and 100 levels. The result for a
-- value beyond a bound is null, never a part of it.

-- PostgreSQL 15 can only try to parse a text, and an exception block is not parallel safe. So this
-- checks the text first: it replaces strings and numbers by one letter each, and then the innermost
-- lists and objects, until one letter is left.
CREATE FUNCTION orchestra.parsed_json(said text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000
AS $$
DECLARE
    skeleton text;
    before text;
BEGIN
    IF said IS NULL OR length(said) > 1048576 OR said !~ '^[ \t\n\r]*[[{"0-9tfn-]' THEN
        RETURN NULL;
    END IF;
    -- jsonb has neither NUL nor lone surrogates.
    skeleton := replace(said, '\\', '');
    IF skeleton ~ '\\u' THEN
        IF regexp_replace(skeleton, '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '',
                          'g') ~ '\\u(?:0000|[dD][89a-fA-F])' THEN
            RETURN NULL;
        END IF;
    END IF;
    skeleton := regexp_replace(skeleton,
        '"(?:[^"\\\u0001-\u001f]|\\["/bfnrt]|\\u[0-9a-fA-F]{4})*"', 's', 'g');
    -- A longer number may be beyond numeric.
    skeleton := regexp_replace(skeleton,
        '-?(?:0|[1-9][0-9]{0,250})(?:\.[0-9]{1,250})?(?:[eE][-+]?[0-9]{1,3})?(?![0-9.eE+-])', 'v', 'g');
    skeleton := regexp_replace(skeleton, 'true|false|null', 'v', 'g');
    IF skeleton ~ '[^][{}:,sv \t\n\r]' OR skeleton ~ '[sv][ \t\n\r]*[sv]' THEN
        RETURN NULL;
    END IF;
    skeleton := regexp_replace(skeleton, '[ \t\n\r]+', '', 'g');
    FOR depth IN 0 .. 100 LOOP
        IF skeleton IN ('s', 'v') THEN
            RETURN said::jsonb;
        END IF;
        before := skeleton;
        skeleton := regexp_replace(skeleton,
            '\[(?:[sv](?:,[sv])*)?\]|\{(?:s:[sv](?:,s:[sv])*)?\}', 'v', 'g');
        EXIT WHEN skeleton = before;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION orchestra.parsed_json(text) IS
    'The value of a JSON text; null if the text is not JSON, if jsonb cannot hold it, or if it has '
    'more than 2^20 characters, 100 levels, or a number of more than 250 digits.';

-- Some integrations return the response as a JSON text.
CREATE FUNCTION orchestra.opened(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 100
AS $$
    SELECT CASE WHEN jsonb_typeof(payload) <> 'string' THEN payload
                WHEN payload #>> '{}' ~ '^[ \t\n\r]*[[{]' THEN orchestra.parsed_json(payload #>> '{}')
           END
$$;

COMMENT ON FUNCTION orchestra.opened(jsonb) IS
    'A payload; that of a JSON text with an object or an array; null for any other text.';

CREATE FUNCTION orchestra.model_bodies(payload jsonb, direction text)
RETURNS TABLE (place integer[], streamed boolean, body jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 ROWS 2
AS $$
    WITH RECURSIVE looked (place, streamed, value, is_body) AS (
        SELECT CAST('{}' AS integer[]), false, o.value, k.is_body
        FROM (SELECT orchestra.opened(payload) OFFSET 0) AS o (value)
        CROSS JOIN LATERAL (
            SELECT EXISTS (SELECT FROM orchestra.content_shapes() AS s
                           WHERE s.direction = model_bodies.direction
                             AND jsonb_typeof(o.value) = 'object'
                             AND (s.member IS NULL OR o.value ? s.member)
                             AND jsonb_path_exists(o.value, s.whole, '{}', true))
        ) AS k (is_body)
        UNION ALL
        SELECT l.place || CAST(i.ordinal AS integer), l.streamed OR i.is_event, i.value, k.is_body
        FROM looked AS l
        CROSS JOIN LATERAL (
            SELECT e.ordinal, true, e.value
            FROM jsonb_array_elements(
                CASE WHEN jsonb_typeof(l.value) = 'array' THEN
                    CASE WHEN jsonb_array_length(l.value) <= 10000 THEN l.value END
                END) WITH ORDINALITY AS e (value, ordinal)
            WHERE jsonb_typeof(e.value) = 'object'
            UNION ALL
            SELECT c.ordinal, false, orchestra.opened(l.value -> c.member)
            FROM orchestra.content_shapes() AS c
            WHERE c.part = model_bodies.direction || '_container'
              AND jsonb_typeof(l.value) = 'object' AND l.value ? c.member
        ) AS i (ordinal, is_event, value)
        CROSS JOIN LATERAL (
            SELECT EXISTS (SELECT FROM orchestra.content_shapes() AS s
                           WHERE s.direction = model_bodies.direction
                             AND jsonb_typeof(i.value) = 'object'
                             AND (s.member IS NULL OR i.value ? s.member)
                             AND jsonb_path_exists(i.value, s.whole, '{}', true))
        ) AS k (is_body)
        WHERE NOT l.is_body AND cardinality(l.place) < 5
          AND jsonb_typeof(i.value) IN ('object', 'array')
    )
    SELECT place, streamed, value FROM looked WHERE is_body
$$;

COMMENT ON FUNCTION orchestra.model_bodies(jsonb, text) IS
    'The requests or responses (direction) in a payload: the objects that have a place of '
    'content_shapes, with their position, and whether an array contains them. Searched are the '
    'payload, the containers of content_shapes and elements of arrays of at most 10,000, to a depth '
    'of 5.';

CREATE FUNCTION orchestra.content_text(content jsonb, separator text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
AS $$
    SELECT string_agg(said.text, separator ORDER BY p.ordinal, said.ordinal)
    FROM jsonb_path_query(content, 'lax $[*][*]', '{}', true) WITH ORDINALITY AS p (part, ordinal)
    CROSS JOIN LATERAL (
        SELECT 0 AS ordinal, (
            SELECT t.said #>> '{}'
            FROM orchestra.content_shapes() AS s
            CROSS JOIN LATERAL jsonb_path_query_first(p.part, s.path, '{}', true) AS t (said)
            WHERE s.part = 'text' AND t.said IS NOT NULL
            ORDER BY s.ordinal LIMIT 1
        ) AS text
        UNION ALL
        SELECT n.ordinal, n.said #>> '{}'
        FROM orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query(p.part, s.path, '{}', true)
            WITH ORDINALITY AS i (inside, ordinal)
        CROSS JOIN LATERAL (
            SELECT i.ordinal, COALESCE(
                jsonb_path_query_first(i.inside, 'lax $ ? (@.type() == "string")', '{}', true),
                jsonb_path_query_first(i.inside, 'lax $.text ? (@.type() == "string")', '{}', true))
        ) AS n (ordinal, said)
        WHERE s.part = 'nested'
    ) AS said
    WHERE said.text <> ''
$$;

COMMENT ON FUNCTION orchestra.content_text(jsonb, text) IS
    'The text of a message''s content, be it a text or a list of parts, without reasoning; several '
    'texts joined with the separator; null if there is none.';

CREATE FUNCTION orchestra.request_messages(inputs jsonb)
RETURNS TABLE (ordinal bigint, role text, text text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 ROWS 4
AS $$
    WITH written AS (
        SELECT b.place, s.api, min(s.ordinal) OVER (PARTITION BY b.place, s.api) AS api_ordinal,
               s.ordinal, m.ordinal AS number,
               COALESCE((SELECT lower(t.said #>> '{}')
                         FROM orchestra.content_shapes() AS r
                         CROSS JOIN LATERAL jsonb_path_query_first(m.message, r.path, '{}', true)
                             AS t (said)
                         WHERE r.part = 'role' AND length(t.said #>> '{}') <= 100
                         ORDER BY r.ordinal LIMIT 1), 'user') AS role,
               CASE WHEN jsonb_typeof(m.message) = 'string' THEN NULLIF(m.message #>> '{}', '')
                    ELSE (SELECT t.text
                          FROM orchestra.content_shapes() AS c
                          CROSS JOIN LATERAL jsonb_path_query_first(m.message, c.path, '{}', true)
                              AS q (content)
                          CROSS JOIN LATERAL (
                              SELECT orchestra.content_text(q.content, E'\n') OFFSET 0) AS t (text)
                          WHERE c.part = 'content' AND t.text IS NOT NULL
                          ORDER BY c.ordinal LIMIT 1)
               END AS text
        FROM orchestra.model_bodies(inputs, 'request') AS b
        CROSS JOIN orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query(b.body, s.path, '{}', true)
            WITH ORDINALITY AS m (message, ordinal)
        WHERE s.part = 'prompt' AND (s.member IS NULL OR b.body ? s.member)
    ), first AS (
        SELECT w.*, min(w.api_ordinal) OVER (PARTITION BY w.place) AS first_ordinal,
               count(*) OVER () AS messages
        FROM written AS w WHERE w.text IS NOT NULL
    )
    SELECT row_number() OVER (ORDER BY f.place, f.ordinal, f.number), f.role, f.text
    FROM first AS f WHERE f.api_ordinal = f.first_ordinal AND f.messages <= 10000
$$;

COMMENT ON FUNCTION orchestra.request_messages(jsonb) IS
    'The messages of a model''s request that have text, in their order, with the role that wrote '
    'them; a prompt without a role is the user''s. No row for an unknown shape, and for more than '
    '10,000 messages.';

CREATE FUNCTION orchestra.prompt_text(inputs jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$
    SELECT CASE WHEN count(*) = 1 THEN min(m.text)
                ELSE string_agg(m.role || ': ' || m.text, E'\n\n' ORDER BY m.ordinal) END
    FROM orchestra.request_messages(inputs) AS m
    WHERE m.role NOT IN ('system', 'developer')
$$;

COMMENT ON FUNCTION orchestra.prompt_text(jsonb) IS
    'What a step''s inputs ask a model, without the system text: the text of the only message, or '
    'each message as "role: text" with a blank line between; null for an unknown shape, for a '
    'request without text, and for more than 10,000 messages.';

CREATE FUNCTION orchestra.system_text(inputs jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$
    SELECT string_agg(t.text, E'\n\n' ORDER BY t.own, t.place, t.ordinal)
    FROM (
        SELECT 0 AS own, b.place, s.ordinal,
               COALESCE(orchestra.content_text(q.said -> 'parts', E'\n'),
                        orchestra.content_text(q.said, E'\n')) AS text
        FROM orchestra.model_bodies(inputs, 'request') AS b
        CROSS JOIN orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query_array(b.body, s.path, '{}', true) AS a (said)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN jsonb_array_length(a.said) = 1 THEN a.said -> 0 ELSE a.said END
        ) AS q (said)
        WHERE s.part = 'system' AND b.body ? s.member
        UNION ALL
        SELECT 1, '{}', m.ordinal, m.text
        FROM orchestra.request_messages(inputs) AS m WHERE m.role IN ('system', 'developer')
    ) AS t
    WHERE t.text IS NOT NULL
$$;

COMMENT ON FUNCTION orchestra.system_text(jsonb) IS
    'The system text in a step''s inputs: that of the request, and its system and developer '
    'messages, with a blank line between; null if there is none, or for an unknown shape.';

CREATE FUNCTION orchestra.answer_text(outputs jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$
    WITH said AS (
        SELECT DISTINCT ON (b.place, CAST(s.each_path AS text), a.ordinal)
               b.place, b.streamed, s.kind, a.ordinal,
               COALESCE(b.body ->> 'responseId', b.body ->> 'id') AS response_id,
               a.value -> 'index' AS number, t.text
        FROM orchestra.model_bodies(outputs, 'response') AS b
        CROSS JOIN orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query(b.body, s.each_path, '{}', true)
            WITH ORDINALITY AS a (value, ordinal)
        CROSS JOIN LATERAL (
            SELECT orchestra.content_text(jsonb_path_query_array(a.value, s.path, '{}', true), '')
            OFFSET 0
        ) AS t (text)
        WHERE s.part = 'answer' AND (s.member IS NULL OR b.body ? s.member) AND t.text IS NOT NULL
        ORDER BY b.place, CAST(s.each_path AS text), a.ordinal, s.ordinal
    ), pieces AS (
        SELECT s.*, bool_or(s.is_whole) OVER () AS any_whole
        FROM (SELECT said.*, kind = 'whole' OR (kind = 'either' AND NOT streamed) AS is_whole
              FROM said) AS s
    ), answers AS (
        SELECT min(p.place) AS place, min(p.ordinal) AS ordinal,
               string_agg(p.text, '' ORDER BY p.place, p.ordinal) AS text
        FROM pieces AS p
        WHERE p.is_whole OR NOT p.any_whole
        GROUP BY CASE WHEN p.is_whole THEN p.place END, CASE WHEN p.is_whole THEN p.ordinal END,
                 CASE WHEN NOT p.is_whole THEN p.response_id END,
                 CASE WHEN NOT p.is_whole THEN p.number END
    )
    SELECT string_agg(text, E'\n\n' ORDER BY place, ordinal) FROM answers
$$;

COMMENT ON FUNCTION orchestra.answer_text(jsonb) IS
    'The visible answer in a step''s outputs, without reasoning: the parts of a message and the '
    'events of a stream joined without anything between, several choices with a blank line between; '
    'null for an unknown shape, for an answer without text, and for more than 10,000 events.';

CREATE FUNCTION orchestra.called_tools(outputs jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$
    WITH found AS (
        SELECT b.place, s.api, s.kind, min(s.ordinal) OVER (PARTITION BY b.place, s.api) AS api_ordinal,
               a.ordinal AS choice, t.ordinal, t.tool,
               COALESCE(t.tool -> 'index', b.body -> 'index', b.body -> 'output_index',
                        jsonb_path_query_first(b.body, 'lax $.*.contentBlockIndex', '{}', true))
                   AS number,
               COALESCE(a.value -> 'index', 'null') AS choice_number
        FROM orchestra.model_bodies(outputs, 'response') AS b
        CROSS JOIN orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query(b.body, s.each_path, '{}', true)
            WITH ORDINALITY AS a (value, ordinal)
        CROSS JOIN LATERAL jsonb_path_query(a.value, s.path, '{}', true)
            WITH ORDINALITY AS t (tool, ordinal)
        WHERE s.part = 'tool' AND (s.member IS NULL OR b.body ? s.member)
          AND jsonb_typeof(t.tool) = 'object'
    ), read AS (
        SELECT f.*, n.name, g.arguments,
               bool_or(f.kind <> 'delta' AND n.name IS NOT NULL) OVER () AS any_whole,
               min(f.api_ordinal) OVER (PARTITION BY f.place) AS first_ordinal
        FROM found AS f
        CROSS JOIN LATERAL (
            SELECT (SELECT q.said #>> '{}'
                    FROM orchestra.content_shapes() AS s
                    CROSS JOIN LATERAL jsonb_path_query_first(f.tool, s.path, '{}', true)
                        AS q (said)
                    WHERE s.part = 'tool_name' AND q.said IS NOT NULL
                    ORDER BY s.ordinal LIMIT 1)
        ) AS n (name)
        CROSS JOIN LATERAL (
            SELECT (SELECT q.said
                    FROM orchestra.content_shapes() AS s
                    CROSS JOIN LATERAL jsonb_path_query_first(f.tool, s.path, '{}', true)
                        AS q (said)
                    WHERE s.part = 'tool_arguments' AND q.said IS NOT NULL
                    ORDER BY s.ordinal LIMIT 1)
        ) AS g (arguments)
    ), merged AS (
        SELECT min(r.place) AS place, min(r.choice) AS choice, min(r.ordinal) AS ordinal,
               max(r.name) AS name,
               string_agg(r.arguments #>> '{}', '' ORDER BY r.place, r.ordinal)
                   FILTER (WHERE jsonb_typeof(r.arguments) = 'string') AS said,
               jsonb_agg(r.arguments ORDER BY r.place, r.ordinal)
                   FILTER (WHERE jsonb_typeof(r.arguments) <> 'string') -> 0 AS arguments
        FROM read AS r
        WHERE r.api_ordinal = r.first_ordinal AND (r.kind <> 'delta' OR NOT r.any_whole)
        GROUP BY CASE WHEN r.kind <> 'delta' THEN r.place END,
                 CASE WHEN r.kind <> 'delta' THEN r.choice END,
                 CASE WHEN r.kind <> 'delta' THEN r.ordinal END,
                 CASE WHEN r.kind = 'delta' THEN r.choice_number END,
                 CASE WHEN r.kind = 'delta' THEN r.number END
    )
    SELECT jsonb_agg(jsonb_build_object('name', m.name, 'arguments', COALESCE(
               orchestra.parsed_json(NULLIF(m.said, '')), to_jsonb(NULLIF(m.said, '')), m.arguments))
               ORDER BY m.place, m.choice, m.ordinal)
    FROM merged AS m WHERE m.name IS NOT NULL
$$;

COMMENT ON FUNCTION orchestra.called_tools(jsonb) IS
    'The tools that a model calls in a step''s outputs, in their order, as objects with name and '
    'arguments; arguments that are a JSON text are parsed. Null if it calls none, or for an '
    'unknown shape.';

CREATE FUNCTION orchestra.media_count(payload jsonb, kind text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$
    WITH bodies AS (
        SELECT body, place FROM orchestra.model_bodies(payload, 'request')
    ), chosen AS MATERIALIZED (
        SELECT body, place FROM bodies
        UNION ALL
        SELECT body, place FROM orchestra.model_bodies(payload, 'response')
        WHERE NOT EXISTS (SELECT FROM bodies)
    ), parts AS (
        SELECT p.part
        FROM chosen AS b
        CROSS JOIN orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query(b.body, s.each_path, '{}', true) AS a (value)
        CROSS JOIN LATERAL jsonb_path_query(a.value, s.path, '{}', true) AS m (message)
        CROSS JOIN LATERAL (
            SELECT COALESCE(
                jsonb_path_query_array(m.message, 'lax $.content[*]', '{}', true)
                || jsonb_path_query_array(m.message, 'lax $.parts[*]', '{}', true), '[]')
        ) AS c (contents)
        CROSS JOIN LATERAL jsonb_path_query(
            CASE WHEN s.part = 'prompt' THEN c.contents ELSE m.message END, 'lax $[*]', '{}', true)
            AS p (part)
        WHERE s.part IN ('prompt', 'answer') AND (s.member IS NULL OR b.body ? s.member)
          AND jsonb_typeof(p.part) = 'object'
    ), nested AS (
        SELECT part FROM parts
        UNION ALL
        SELECT i.inside
        FROM parts AS p
        CROSS JOIN orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_path_query(p.part, s.path, '{}', true) AS i (inside)
        WHERE s.part = 'nested'
    )
    SELECT CASE WHEN EXISTS (SELECT FROM chosen) THEN CAST(
        (SELECT count(*) FROM nested AS n
         WHERE EXISTS (SELECT FROM orchestra.content_shapes() AS s
                       WHERE s.part = kind || '_part'
                         AND jsonb_path_exists(n.part, s.path, '{}', true)))
        + (SELECT count(*)
           FROM chosen AS b
           CROSS JOIN orchestra.content_shapes() AS s
           CROSS JOIN LATERAL jsonb_path_query(b.body, s.path, '{}', true) AS m (medium)
           WHERE s.part IN (kind, kind || '_input') AND b.body ? s.member
             AND jsonb_typeof(m.medium) <> 'null')
        AS integer) END
$$;

COMMENT ON FUNCTION orchestra.media_count(jsonb, text) IS
    'The number of media of a kind (image or audio) in a step''s inputs or outputs; null for an '
    'unknown shape.';

CREATE FUNCTION orchestra.image_count(payload jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$ SELECT orchestra.media_count(payload, 'image') $$;

COMMENT ON FUNCTION orchestra.image_count(jsonb) IS
    'The number of images in the inputs or outputs of a step that called a model; null for an '
    'unknown shape.';

CREATE FUNCTION orchestra.audio_count(payload jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$ SELECT orchestra.media_count(payload, 'audio') $$;

COMMENT ON FUNCTION orchestra.audio_count(jsonb) IS
    'The number of pieces of audio in the inputs or outputs of a step that called a model; null '
    'for an unknown shape.';

CREATE FUNCTION orchestra.call_parameters(inputs jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 10000
AS $$
    SELECT COALESCE(jsonb_object_agg(e.name, e.value ORDER BY e.own)
                        FILTER (WHERE jsonb_typeof(e.value) IN ('number', 'boolean')
                                   OR EXISTS (SELECT FROM orchestra.content_shapes() AS s
                                              WHERE s.part = 'parameter' AND s.member = e.name)),
                    '{}')
    FROM (
        SELECT b.body
        FROM orchestra.model_bodies(inputs, 'request') AS b
        ORDER BY b.place LIMIT 1
    ) AS b
    CROSS JOIN LATERAL (
        SELECT 1 AS own, o.name, o.value FROM jsonb_each(b.body) AS o (name, value)
        UNION ALL
        SELECT 0, o.name, o.value
        FROM orchestra.content_shapes() AS s
        CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(b.body -> s.member) = 'object'
            THEN b.body -> s.member END) AS o (name, value)
        WHERE s.part = 'settings'
    ) AS e
    WHERE e.value <> 'null' AND e.name !~ '(^|_)id$|Id$'
    HAVING count(*) > 0
$$;

COMMENT ON FUNCTION orchestra.call_parameters(jsonb) IS
    'The settings in a step''s inputs, such as temperature and max_tokens: those of the known names '
    '(see content_shapes), and other numbers and booleans that are no ids; null for an unknown '
    'shape.';

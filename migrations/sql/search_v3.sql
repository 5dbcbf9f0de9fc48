-- Case is ignored by the same rules in every database, whatever its locale: the collation is the
-- best that the server has. PostgreSQL 17 brings pg_c_utf8; before, ICU is usual, which makes two
-- characters of İ. A function that exists stays, because the indexes hold its results.
DO $do$
DECLARE
    folding text := (
        SELECT format(' COLLATE pg_catalog.%I', c.collname)
        FROM pg_catalog.pg_collation AS c
        WHERE c.collnamespace = 'pg_catalog'::regnamespace
          AND c.collencoding IN (-1, pg_char_to_encoding('UTF8'))
          AND c.collname IN ('pg_c_utf8', 'und-x-icu', 'C.utf8', 'C.UTF-8', 'en_US.utf8')
        ORDER BY array_position(
            ARRAY['pg_c_utf8', 'und-x-icu', 'C.utf8', 'C.UTF-8', 'en_US.utf8'],
            CAST(c.collname AS text))
        LIMIT 1
    );
BEGIN
    IF to_regprocedure('orchestra.search_fold(text)') IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format($create$
CREATE OR REPLACE FUNCTION orchestra.search_fold(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT replace(replace(lower(said%s), 'ς', 'σ'), E'i\u0307', 'i') COLLATE "C"
$$
$create$, folding);
END
$do$;

COMMENT ON FUNCTION orchestra.search_fold(text) IS
    'The text in lower case, in which a search compares it.';

-- Trigrams of pg_trgm consist of letters and digits of the database's locale, which may be those of
-- ASCII alone. So the bytes of other characters become letters and digits, in words behind the text
-- of ASCII. Different words can have the same key: a search also compares the text itself. The most
-- frequent bytes come first, because translate() looks for a byte in this order.
CREATE OR REPLACE FUNCTION orchestra.search_key(said text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN octet_length(said) = length(said) THEN lower(said COLLATE "C")
           ELSE regexp_replace(orchestra.search_fold(said), '[^\u0001-\u007f]+', E'\x01', 'g')
                || E'\n'
                || translate(
                    convert_from(convert_to(
                        regexp_replace(orchestra.search_fold(said), '[\u0001-\u007f]+', ' ', 'g'),
                        'UTF8'), 'LATIN1'),
                    E'\u00e4\u00e5\u00e6\u00e7\u00e8\u00e9\u00d0\u00d1\u00d8\u00d9\u00da\u00db\u00e2'
                    '\u00e3\u00ef\u00f0\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089'
                    '\u008a\u008b\u008c\u008d\u008e\u008f\u0090\u0091\u0092\u0093\u0094\u0095\u0096'
                    '\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u00a0\u00a1\u00a2\u00a3'
                    '\u00a4\u00a5\u00a6\u00a7\u00a8\u00a9\u00aa\u00ab\u00ac\u00ad\u00ae\u00af\u00b0'
                    '\u00b1\u00b2\u00b3\u00b4\u00b5\u00b6\u00b7\u00b8\u00b9\u00ba\u00bb\u00bc\u00bd'
                    '\u00be\u00bf\u00c0\u00c1\u00c2\u00c3\u00c4\u00c5\u00c6\u00c7\u00c8\u00c9\u00ca'
                    '\u00cb\u00cc\u00cd\u00ce\u00cf\u00d2\u00d3\u00d4\u00d5\u00d6\u00d7\u00dc\u00dd'
                    '\u00de\u00df\u00e0\u00e1\u00ea\u00eb\u00ec\u00ed\u00ee\u00f1\u00f2\u00f3\u00f4',
                    repeat('abcdefghijklmnopqrstuvwxyz0123456789', 4))
           END COLLATE "C"
$$;

COMMENT ON FUNCTION orchestra.search_key(text) IS
    'The text as the index of the search holds it: lower case, and ASCII alone.';

-- Base64 is long and nobody searches it; 1,000 characters without a blank are no text. The limit
-- bounds the work for one row.
CREATE OR REPLACE FUNCTION orchestra.search_text(data jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
AS $$
    SELECT left(string_agg(t.said, E'\n'), 1000000)
    FROM (SELECT found.value #>> '{}' AS said
          FROM jsonb_path_query(data, 'strict $.** ? (@.type() == "string")') AS found (value)
         ) AS t
    WHERE t.said !~ '^data:[^,]{0,200};base64,'
      AND NOT (octet_length(t.said) >= 1000 AND left(t.said, 1000) !~ '[^A-Za-z0-9+/_=-]')
$$;

COMMENT ON FUNCTION orchestra.search_text(jsonb) IS
    'The text that a search reads in a value: its strings, each on lines of its own, without '
    'images and other base64, up to 1,000,000 characters.';

-- A phrase of a streamed answer is spread over the chunks of a list: their text is in members of
-- these names, whatever the provider.
CREATE OR REPLACE FUNCTION orchestra.search_output(data jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
AS $$
    SELECT concat_ws(E'\n', orchestra.search_text(data),
        CASE WHEN jsonb_path_exists(data, 'strict $.** ? (@.type() == "array" && @.size() > 1)')
        THEN (
            SELECT CASE WHEN count(*) > 1 THEN left(string_agg(chunk.said #>> '{}', ''), 1000000) END
            FROM jsonb_path_query(data, 'strict $.** ? (@.type() == "object").keyvalue() ? ('
                '@.key == "content" || @.key == "text" || @.key == "delta" || @.key == "response" '
                '|| @.key == "completion" || @.key == "generation" || @.key == "outputText"'
                ').value ? (@.type() == "string")') AS chunk (said)
        ) END)
$$;

COMMENT ON FUNCTION orchestra.search_output(jsonb) IS
    'The text that a search reads in an output: search_text, and the chunks of a streamed answer, '
    'joined.';

CREATE OR REPLACE FUNCTION orchestra.search_prompt(data jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT concat_ws(E'\n\n', orchestra.system_text(data), orchestra.prompt_text(data)) $$;

COMMENT ON FUNCTION orchestra.search_prompt(jsonb) IS
    'What a model was asked, with its system text before it.';

CREATE OR REPLACE FUNCTION orchestra.search_error(error jsonb, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000
AS $$ SELECT concat_ws(E'\n', orchestra.search_text(error), reported_error) $$;

COMMENT ON FUNCTION orchestra.search_error(jsonb, text) IS
    'The text that a search reads in an error: the API''s own, and the one that the payload reports.';

-- Lower case can have another length than the text in some collations, such as that of Turkish İ.
CREATE OR REPLACE FUNCTION orchestra.search_snippet(said text, folded text, OUT snippet text,
    OUT hit_start integer, OUT hit_length integer)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT p.before || '«' || p.hit || '»' || p.after, length(p.before) + 2, length(p.hit)
    FROM (
        SELECT CASE WHEN c.place > 41 THEN '…' ELSE '' END
               || substr(c.said, GREATEST(c.place - 40, 1), LEAST(c.place - 1, 40)) AS before,
               substr(c.said, c.place, length(folded)) AS hit,
               substr(c.said, c.place + length(folded), 40)
               || CASE WHEN length(c.said) >= c.place + length(folded) + 40 THEN '…' ELSE '' END
               AS after
        FROM (
            SELECT translate(CASE WHEN length(f.text) = length(f.said) THEN f.said ELSE f.text END,
                             E'\n\r\t', '   ') AS said,
                   strpos(f.text, folded) AS place
            FROM (SELECT search_snippet.said, orchestra.search_fold(search_snippet.said) AS text
                  OFFSET 0) AS f
            OFFSET 0
        ) AS c
        OFFSET 0
    ) AS p
$$;

COMMENT ON FUNCTION orchestra.search_snippet(text, text) IS
    'The first place of a folded phrase in a text: the hit between « and », 40 characters on each '
    'side, and its place in the snippet.';

-- The beginning of a phrase is enough for the index, and bounds its work.
CREATE OR REPLACE FUNCTION orchestra.search_pattern(query text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '%' || replace(
        regexp_replace(orchestra.search_key(left(orchestra.search_fold(query), 100)),
                       '([\\%_])', '\\\1', 'g'),
        E'\n', '%') || '%'
$$;

COMMENT ON FUNCTION orchestra.search_pattern(text) IS
    'The pattern of LIKE that the key (search_key) of every text with the phrase matches.';

-- Without three letters or digits in a row there is no trigram to look for.
CREATE OR REPLACE FUNCTION orchestra.search_is_indexed(query text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT orchestra.search_pattern(query) ~ '[a-z0-9]{3}' AND (
        SELECT count(*) = 5
        FROM unnest(ARRAY['inputs', 'outputs', 'run_payloads', 'steps', 'runs']) AS t (name)
        JOIN pg_catalog.pg_index AS i
          ON i.indexrelid = to_regclass(format('orchestra.%I', t.name || '_search_idx'))
        WHERE i.indisvalid)
$$;

COMMENT ON FUNCTION orchestra.search_is_indexed(text) IS
    'Whether an index serves a search for the phrase: `orchestra-etl db index-search` builds it, '
    'and the phrase needs a word of three letters or digits, or a character beyond ASCII.';

-- The text of a jsonb value holds each string as it is, except that quotation marks, backslashes and
-- control characters are escaped. So a phrase in a string is found in that text too, if it has none
-- of these.
CREATE OR REPLACE FUNCTION orchestra.search_part(folded text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT part FROM regexp_split_to_table(folded, '[\u0001-\u001f"\\]+') AS part
    ORDER BY length(part) DESC LIMIT 1
$$;

COMMENT ON FUNCTION orchestra.search_part(text) IS
    'The longest part of a folded phrase that JSON does not escape.';

-- Reading the strings of a value takes several times as long as its whole text. The chunks of a
-- stream are joined, so a phrase can be in an output whose text does not have it: if two strings
-- have the name of a chunk. Each replace() takes a byte from each of them.
CREATE OR REPLACE FUNCTION orchestra.search_may_contain(data jsonb, part text, is_output boolean)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 250
AS $$
DECLARE
    said CONSTANT text := orchestra.search_fold(CAST(data AS text));
BEGIN
    RETURN strpos(said, part) > 0 OR is_output AND octet_length(said) - octet_length(
        replace(replace(replace(replace(replace(replace(replace(said,
            '"content": "', '"content": '), '"text": "', '"text": '), '"delta": "', '"delta": '),
            '"response": "', '"response": '), '"completion": "', '"completion": '),
            '"generation": "', '"generation": '), '"outputtext": "', '"outputtext": ')) > 1;
END
$$;

COMMENT ON FUNCTION orchestra.search_may_contain(jsonb, text, boolean) IS
    'False only if search_text, or search_output of an output, cannot contain a folded phrase with '
    'this part (search_part).';

CREATE OR REPLACE FUNCTION orchestra.search_frequency(folded text) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    WITH sizes AS (
        SELECT c.relname, c.reltuples AS rows,
               CASE WHEN c.reltuples > 0 THEN LEAST(100000 / c.reltuples, 100) ELSE 0 END AS percent
        FROM pg_catalog.pg_class AS c
        WHERE c.oid IN ('orchestra.inputs'::regclass, 'orchestra.outputs'::regclass)
    ), sampled AS (
        SELECT 'inputs' AS relname,
               strpos(orchestra.search_fold(orchestra.search_text(p.data)), folded) > 0 AS has_it
        FROM orchestra.inputs AS p
        TABLESAMPLE SYSTEM ((SELECT percent FROM sizes WHERE relname = 'inputs'))
        UNION ALL
        SELECT 'outputs',
               strpos(orchestra.search_fold(orchestra.search_output(p.data)), folded) > 0
        FROM orchestra.outputs AS p
        TABLESAMPLE SYSTEM ((SELECT percent FROM sizes WHERE relname = 'outputs'))
    )
    SELECT COALESCE(sum(t.frequency), 0)
    FROM (
        SELECT max(z.rows) * count(*) FILTER (WHERE s.has_it) / count(*) AS frequency
        FROM sampled AS s JOIN sizes AS z USING (relname) GROUP BY s.relname
    ) AS t
$$;

COMMENT ON FUNCTION orchestra.search_frequency(text) IS
    'About how many inputs and outputs contain a folded phrase, by 1,000 rows of each; 0 before the '
    'first ANALYZE.';

-- Newest first, in slices that grow while they are quick. If the slices would have to read more than
-- about 4,000 runs, the index finds the rest. It finds all places, whatever their time: if these are
-- more than the rows that the slices have read, the slices go on.
CREATE OR REPLACE FUNCTION orchestra.search(query text, workflow text DEFAULT NULL, node text DEFAULT NULL,
    since timestamptz DEFAULT now() - interval '7 days', until timestamptz DEFAULT NULL,
    within text DEFAULT 'all', max_hits integer DEFAULT 100)
RETURNS TABLE ("time" timestamptz, workflow_id text, run_id text, step_id text, node_id text,
    place text, snippet text, hit_start integer, hit_length integer)
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    folded CONSTANT text := orchestra.search_fold(query);
    pattern CONSTANT text := orchestra.search_pattern(query);
    part CONSTANT text := orchestra.search_part(folded);
    is_indexed CONSTANT boolean := orchestra.search_is_indexed(query);
    first CONSTANT timestamptz := COALESCE(since, '-infinity');
    slice_start timestamptz;
    slice_end timestamptz := COALESCE(until, 'infinity');
    slice_began timestamptz;
    slice_runs bigint := 200;
    runs bigint := 0;
    uses_index boolean := false;
    frequency bigint;
    hits integer := 0;
    added integer;
    statement CONSTANT text := $sql$
        SELECT h.time, h.workflow_id, h.run_id, h.step_id, h.node_id,
               CASE WHEN NOT m.has_it THEN h.place WHEN h.place = 'input' THEN 'prompt'
                    ELSE 'answer' END,
               f.snippet, f.hit_start, f.hit_length
        FROM (SELECT * FROM (%s) AS found
              ORDER BY time DESC, run_id, start_time DESC NULLS LAST, step_id, place LIMIT $7) AS h
        CROSS JOIN LATERAL (
            SELECT CASE WHEN h.step_id IS NULL THEN NULL
                        WHEN h.place = 'input' THEN orchestra.search_prompt(h.data)
                        WHEN h.place = 'output' THEN orchestra.answer_text(h.data) END AS said
            OFFSET 0
        ) AS own
        CROSS JOIN LATERAL (
            SELECT COALESCE(strpos(orchestra.search_fold(own.said), $1) > 0, false) AS has_it
            OFFSET 0
        ) AS m
        CROSS JOIN LATERAL orchestra.search_snippet(
            CASE WHEN m.has_it THEN own.said WHEN h.place = 'output'
                 THEN orchestra.search_output(h.data) ELSE COALESCE(orchestra.search_text(h.data), h.said) END,
            $1) AS f
        ORDER BY h.time DESC, h.run_id, h.start_time DESC NULLS LAST, h.step_id, h.place
    $sql$;
BEGIN
    IF query !~ '[^[:space:]]' OR length(query) > 1000 THEN
        RAISE 'a search needs a phrase of 1 to 1,000 characters, not only blanks'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF within NOT IN ('prompts', 'answers', 'errors', 'all') THEN
        RAISE 'a search is within prompts, answers, errors or all'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WHILE hits < max_hits AND slice_end > first LOOP
        slice_began := clock_timestamp();
        uses_index := is_indexed AND runs >= 200 AND runs * max_hits > hits * 4000;
        IF uses_index THEN
            frequency := COALESCE(frequency, orchestra.search_frequency(folded));
            uses_index := runs * 10 >= frequency;
        END IF;
        slice_start := first;
        IF NOT uses_index THEN
            SELECT COALESCE(min(newest.start_time), first) INTO slice_start
            FROM (
                SELECT r.start_time FROM orchestra.runs AS r
                WHERE r.start_time >= first AND r.start_time < slice_end
                  AND (workflow IS NULL OR r.workflow_id = workflow)
                ORDER BY r.start_time DESC LIMIT slice_runs
            ) AS newest;
        END IF;
        RETURN QUERY EXECUTE format(statement, (
            SELECT string_agg(format($sql$
                SELECT COALESCE(r.start_time, r.first_seen_at) AS time, r.workflow_id,
                       r.id AS run_id, %s, %L AS place, %s
                FROM orchestra.runs AS r %s
                WHERE (r.start_time >= $3 AND r.start_time < $4
                       OR r.start_time IS NULL AND r.first_seen_at >= $3 AND r.first_seen_at < $4)
                  AND ($5 IS NULL OR r.workflow_id = $5) AND %s
                  AND %s %s strpos(orchestra.search_fold(%s), $1) > 0
                $sql$,
                CASE WHEN b.of_steps THEN 's.id AS step_id, s.node_id, s.start_time'
                     ELSE 'NULL AS step_id, NULL AS node_id, NULL::timestamptz AS start_time' END,
                b.place,
                CASE WHEN b.content IS NULL THEN format('NULL::jsonb AS data, %s AS said', b.said)
                     ELSE format('%s AS data, NULL AS said', b.content) END,
                CASE WHEN b.of_steps THEN 'JOIN orchestra.steps AS s ON s.run_id = r.id ' ELSE ''
                END || b.joined,
                CASE WHEN b.of_steps
                     THEN 's.absent_since IS NULL AND ($6 IS NULL OR s.node_id = $6)'
                     ELSE '$6 IS NULL' END || b.condition,
                CASE WHEN uses_index THEN format('orchestra.search_key(%s) LIKE $2 AND', b.said)
                     ELSE '' END,
                CASE WHEN b.content IS NOT NULL
                     THEN format('orchestra.search_may_contain(%s, $8, %L) AND',
                                 b.content, b.of_steps AND b.place = 'output') END,
                b.said
            ), ' UNION ALL ')
            FROM (VALUES
                ('prompts', true, 'input', 'JOIN orchestra.inputs AS p ON p.step_id = s.id',
                 'p.data', 'orchestra.search_text(p.data)',
                 CASE within WHEN 'prompts'
                 THEN ' AND strpos(orchestra.search_fold(orchestra.search_prompt(p.data)), $1) > 0'
                 ELSE '' END),
                ('answers', true, 'output', 'JOIN orchestra.outputs AS p ON p.step_id = s.id',
                 'p.data', 'orchestra.search_output(p.data)',
                 CASE within WHEN 'answers'
                 THEN ' AND strpos(orchestra.search_fold(orchestra.answer_text(p.data)), $1) > 0'
                 ELSE '' END),
                ('errors', true, 'error', '', NULL,
                 'orchestra.search_error(s.error, s.reported_error)',
                 ' AND (s.error IS NOT NULL OR s.reported_error IS NOT NULL)'),
                ('errors', false, 'error', '', NULL, 'orchestra.search_error(r.error, NULL)',
                 ' AND r.error IS NOT NULL'),
                ('all', false, 'input', 'JOIN orchestra.run_payloads AS p ON p.run_id = r.id',
                 'p.inputs', 'orchestra.search_text(p.inputs)', ''),
                ('all', false, 'output', 'JOIN orchestra.run_payloads AS p ON p.run_id = r.id',
                 'p.outputs', 'orchestra.search_text(p.outputs)', '')
            ) AS b (part, of_steps, place, joined, content, said, condition)
            WHERE within IN ('all', b.part)
        ))
            USING folded, pattern, slice_start, slice_end, workflow, node, max_hits - hits,
                part;
        GET DIAGNOSTICS added = ROW_COUNT;
        hits := hits + added;
        slice_end := slice_start;
        runs := runs + slice_runs;
        IF clock_timestamp() - slice_began < interval '0.2 s' THEN
            slice_runs := slice_runs * 2;
        ELSIF clock_timestamp() - slice_began > interval '1 s' THEN
            slice_runs := GREATEST(slice_runs / 2, 50);
        END IF;
    END LOOP;
END
$$;

COMMENT ON FUNCTION orchestra.search(text, text, text, timestamptz, timestamptz, text, integer) IS
    'Payloads and errors that contain a phrase, newest run first: at most max_hits. Case is ignored. '
    'workflow and node: only these; since, until: only runs that started at or after since and '
    'before until; within: prompts, answers, errors or all, which is these and every other string of '
    'inputs and outputs. Only members of orchestra_payload_analyst may use it.';

-- Placeholders that programs write instead of an error are not errors. Blanks are listed one by
-- one, and letters are compared in collation C, because the database's locale decides which other
-- characters are blank and what the upper case of i is.
CREATE FUNCTION orchestra.is_error_text(said text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT said COLLATE "C" !~* ('^[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"'']*'
        || '(none|null|nil|<nil>|undefined|nan|n/?a|-+|0|false|no errors?|ok|success|\{[[:space:]]*\}|\[[[:space:]]*\])?'
        || '[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"''.]*$')
$$;

COMMENT ON FUNCTION orchestra.is_error_text(text) IS
    'Whether a text in an error field is an error: neither blank nor a placeholder such as None '
    'or null; null for null.';

-- `strict` visits each nested value once.
CREATE FUNCTION orchestra.is_error(value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_exists(value,
            'strict $.** ? (@.type() == "number" && @ != 0 || @.type() == "boolean" && @ == true)')
        OR EXISTS (SELECT FROM jsonb_path_query(value, 'strict $.** ? (@.type() == "string")')
            AS t (said)
                   WHERE orchestra.is_error_text(said #>> '{}')),
        false)
$$;

COMMENT ON FUNCTION orchestra.is_error(jsonb) IS
    'Whether a value in an error field is an error: not null, false, 0, a text without an error '
    '(see is_error_text), or a list or object of nothing else.';

-- The planner can inline this function. to_jsonb would prevent that.
CREATE FUNCTION orchestra.outcome(state text, error jsonb, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN state = 'succeeded' AND (error IS NOT NULL OR reported_error IS NOT NULL)
                 AND (orchestra.is_error(error) OR orchestra.is_error_text(reported_error))
           THEN 'soft_failed' ELSE state END
$$;

COMMENT ON FUNCTION orchestra.outcome(text, jsonb, text) IS
    'How a step or run ended: its state, but soft_failed if the state is a success and it carries '
    'an error, its own or one that its payload reports. Success rate: succeeded / (succeeded + '
    'soft_failed + failed).';

-- A negative number, or more tokens than any call takes, is wrong and would spoil every sum.
CREATE FUNCTION orchestra.token_count(tokens bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN tokens BETWEEN 0 AND 1000000000000 THEN tokens END $$;

COMMENT ON FUNCTION orchestra.token_count(bigint) IS
    'A number of tokens, as reported; null if it is not plausible: below 0, or above 10^12.';

CREATE FUNCTION orchestra.total_tokens(input_tokens bigint, output_tokens bigint,
    total_tokens bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(orchestra.token_count(total_tokens),
                    orchestra.token_count(input_tokens) + orchestra.token_count(output_tokens))
$$;

COMMENT ON FUNCTION orchestra.total_tokens(bigint, bigint, bigint) IS
    'The total tokens of a call: as reported, else the sum of input and output if both are known, '
    'else null.';

-- The first candidate that is an error.
CREATE FUNCTION orchestra.error_message(error jsonb, reported_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN orchestra.is_error(error) THEN COALESCE(
            (SELECT said #>> '{}'
             FROM unnest(ARRAY[
                 error -> 'message', error #> '{error,message}', error -> 'detail',
                 error #> '{error,detail}', error -> 'error'
             ]) WITH ORDINALITY AS m (said, ordinal)
             WHERE orchestra.is_error(said)
             ORDER BY ordinal
             LIMIT 1),
            error #>> '{}')
        WHEN orchestra.is_error_text(reported_error) THEN reported_error
    END
$$;

COMMENT ON FUNCTION orchestra.error_message(jsonb, text) IS
    'The message of an error as plain text: the API''s own error, else the one that the step''s '
    'payload reports; null if there is neither.';

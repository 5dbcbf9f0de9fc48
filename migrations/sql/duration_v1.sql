CREATE FUNCTION orchestra.duration_bucket(ms double precision) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN ms >= 1 AND ms < 'Infinity' THEN (floor(ln(ms) / 0.03922071315328133) + 1)::integer
        WHEN ms >= 0 AND ms < 1 THEN 0
    END
$$;

COMMENT ON FUNCTION orchestra.duration_bucket(double precision) IS
    'The bucket of a duration in milliseconds: 0 below 1 ms, then each 4 % wider than the one '
    'before; null for null and for negative durations.';

CREATE FUNCTION orchestra.bucket_duration(bucket integer) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN bucket > 0
           THEN exp((LEAST(bucket, 18096) - 0.5::double precision) * 0.03922071315328133)
           ELSE 0.5 END
$$;

COMMENT ON FUNCTION orchestra.bucket_duration(integer) IS
    'The geometric middle of a bucket in milliseconds: at most 2 % off every duration in it. Half '
    'a millisecond for bucket 0.';

-- The state: element 0 is the wanted quantile, element n + 1 the number of durations in bucket n.
CREATE FUNCTION orchestra.duration_quantile_add(
    state double precision[], bucket integer, count bigint, q double precision
) RETURNS double precision[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF state[0] IS NULL THEN
        IF NOT q BETWEEN 0 AND 1 THEN
            RAISE numeric_value_out_of_range USING MESSAGE = 'a quantile lies between 0 and 1';
        END IF;
        state[0] := q;
    END IF;
    -- There are no buckets below 0, and no double above bucket 18096.
    IF bucket >= 0 AND count > 0 THEN
        bucket := LEAST(bucket, 18096);
        state[bucket + 1] := COALESCE(state[bucket + 1], 0) + count;
    END IF;
    RETURN state;
END
$$;

COMMENT ON FUNCTION orchestra.duration_quantile_add(double precision[], integer, bigint,
    double precision) IS
    'A part of the aggregate duration_quantile: adds a bucket.';

CREATE FUNCTION orchestra.duration_quantile_merge(one double precision[], other double precision[])
RETURNS double precision[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    one[0] := COALESCE(one[0], other[0]);
    FOR n IN 1 .. COALESCE(array_upper(other, 1), 0) LOOP
        IF other[n] > 0 THEN
            one[n] := COALESCE(one[n], 0) + other[n];
        END IF;
    END LOOP;
    RETURN one;
END
$$;

COMMENT ON FUNCTION orchestra.duration_quantile_merge(double precision[], double precision[]) IS
    'A part of the aggregate duration_quantile: merges the counts of parallel workers.';

CREATE FUNCTION orchestra.duration_quantile_end(state double precision[]) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    total double precision := 0;
    up_to double precision := 0;
BEGIN
    FOR n IN 1 .. COALESCE(array_upper(state, 1), 0) LOOP
        total := total + COALESCE(state[n], 0);
    END LOOP;
    FOR n IN 1 .. COALESCE(array_upper(state, 1), 0) LOOP
        up_to := up_to + COALESCE(state[n], 0);
        IF state[n] > 0 AND up_to >= state[0] * total THEN
            RETURN orchestra.bucket_duration(n - 1);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION orchestra.duration_quantile_end(double precision[]) IS
    'A part of the aggregate duration_quantile: the duration at the quantile.';

CREATE AGGREGATE orchestra.duration_quantile(bucket integer, count bigint, q double precision) (
    SFUNC = orchestra.duration_quantile_add,
    STYPE = double precision[],
    INITCOND = '[0:0]={NULL}',
    COMBINEFUNC = orchestra.duration_quantile_merge,
    FINALFUNC = orchestra.duration_quantile_end,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE orchestra.duration_quantile(integer, bigint, double precision) IS
    'A quantile of durations in milliseconds, from counts by bucket, at most 2 % off. Right over '
    'any grouping: never average percentiles, merge the counts.';

CREATE FUNCTION orchestra.duration_quantile_add(
    state double precision[], buckets smallint[], counts integer[], q double precision
) RETURNS double precision[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    IF state[0] IS NULL THEN
        IF NOT q BETWEEN 0 AND 1 THEN
            RAISE numeric_value_out_of_range USING MESSAGE = 'a quantile lies between 0 and 1';
        END IF;
        state[0] := q;
    END IF;
    FOR ordinal IN 1 .. COALESCE(cardinality(buckets), 0) LOOP
        IF buckets[ordinal] >= 0 AND counts[ordinal] > 0 THEN
            state[buckets[ordinal] + 1] := COALESCE(state[buckets[ordinal] + 1], 0)
                + counts[ordinal];
        END IF;
    END LOOP;
    RETURN state;
END
$$;

COMMENT ON FUNCTION orchestra.duration_quantile_add(double precision[], smallint[], integer[],
    double precision) IS
    'A part of the aggregate duration_quantile: adds a stored histogram.';

CREATE AGGREGATE orchestra.duration_quantile(buckets smallint[], counts integer[],
    q double precision) (
    SFUNC = orchestra.duration_quantile_add,
    STYPE = double precision[],
    INITCOND = '[0:0]={NULL}',
    COMBINEFUNC = orchestra.duration_quantile_merge,
    FINALFUNC = orchestra.duration_quantile_end,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE orchestra.duration_quantile(smallint[], integer[], double precision) IS
    'A quantile of durations in milliseconds, from stored histograms, at most 2 % off. Right over '
    'any grouping: never average percentiles, merge the histograms.';

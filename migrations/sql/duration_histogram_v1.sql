-- For several percentiles of the same rows: PostgreSQL merges the rows once for all calls with the
-- same arguments. The state is the result: element n is the number of durations in bucket n, or
-- null.
CREATE FUNCTION orchestra.duration_histogram_add(state bigint[], buckets smallint[],
    counts integer[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    FOR ordinal IN 1 .. COALESCE(cardinality(buckets), 0) LOOP
        IF buckets[ordinal] >= 0 AND counts[ordinal] > 0 THEN
            state[buckets[ordinal]] := COALESCE(state[buckets[ordinal]], 0) + counts[ordinal];
        END IF;
    END LOOP;
    RETURN state;
END
$$;

COMMENT ON FUNCTION orchestra.duration_histogram_add(bigint[], smallint[], integer[]) IS
    'A part of the aggregate duration_histogram: adds a stored histogram.';

CREATE FUNCTION orchestra.duration_histogram_merge(one bigint[], other bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    FOR bucket IN COALESCE(array_lower(other, 1), 0) .. COALESCE(array_upper(other, 1), -1) LOOP
        IF other[bucket] > 0 THEN
            one[bucket] := COALESCE(one[bucket], 0) + other[bucket];
        END IF;
    END LOOP;
    RETURN one;
END
$$;

COMMENT ON FUNCTION orchestra.duration_histogram_merge(bigint[], bigint[]) IS
    'A part of the aggregate duration_histogram: merges the counts of parallel workers.';

CREATE AGGREGATE orchestra.duration_histogram(buckets smallint[], counts integer[]) (
    SFUNC = orchestra.duration_histogram_add,
    STYPE = bigint[],
    INITCOND = '{}',
    COMBINEFUNC = orchestra.duration_histogram_merge,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE orchestra.duration_histogram(smallint[], integer[]) IS
    'Merges stored histograms of durations: the number of durations in each bucket, by the '
    'bucket''s number. For histogram_quantile.';

CREATE FUNCTION orchestra.histogram_quantile(histogram bigint[], q double precision)
    RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    wanted double precision := 0;
    up_to bigint := 0;
    durations bigint;
BEGIN
    IF NOT q BETWEEN 0 AND 1 THEN
        RAISE numeric_value_out_of_range USING MESSAGE = 'a quantile lies between 0 and 1';
    END IF;
    FOREACH durations IN ARRAY histogram LOOP
        wanted := wanted + COALESCE(durations, 0);
    END LOOP;
    wanted := wanted * q;
    FOR bucket IN COALESCE(array_lower(histogram, 1), 0)
        .. COALESCE(array_upper(histogram, 1), -1) LOOP
        up_to := up_to + COALESCE(histogram[bucket], 0);
        IF histogram[bucket] > 0 AND up_to >= wanted THEN
            RETURN orchestra.bucket_duration(bucket);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION orchestra.histogram_quantile(bigint[], double precision) IS
    'A quantile in milliseconds of a histogram merged by duration_histogram: the same as '
    'duration_quantile, but several quantiles share one merge.';

{{ config(enabled=var('orchestra_time_spine')) }}

SELECT CAST(day AS date) AS date_day
FROM generate_series(
    timestamp '2015-01-01', date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 year',
    interval '1 day'
) AS day

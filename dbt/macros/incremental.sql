{# The time from which an incremental model copies rows again.

   `updated_at` is the start of the transaction that wrote a row, and the row is visible only after
   its commit. So the newest time in the copy proves nothing about rows that are a little older. #}
{% macro orchestra_copied_until() -%}
    (SELECT COALESCE(max(changed_at) - interval '{{ var("orchestra_lookback") }}', '-infinity')
     FROM {{ this }})
{%- endmacro %}


{# Deletes the copied rows of runs that were erased or pruned. It runs before the new rows are
   copied, while the newest time is still that of the last build. #}
{% macro orchestra_delete_removed() %}
    {% if is_incremental() %}
        DELETE FROM {{ this }}
        WHERE run_id IN (SELECT run_id FROM {{ ref('stg_orchestra__removed_runs') }}
                         WHERE removed_at >= {{ orchestra.orchestra_copied_until() }})
    {% endif %}
{% endmacro %}


{# Deletes the copied runs that are no longer stored: erased, pruned, or requested by mistake and
   withdrawn before they had a step. Only the first two kinds are in removed_runs. #}
{% macro orchestra_delete_missing_runs() %}
    {% if is_incremental() %}
        DELETE FROM {{ this }} AS copied
        WHERE NOT EXISTS (SELECT FROM {{ ref('stg_orchestra__runs') }} AS r
                          WHERE r.run_id = copied.run_id)
    {% endif %}
{% endmacro %}


{# The days of workflows whose rows differ from those that were last added up, with their state.

   A state names the number of rows, the newest build that wrote one of them, and the number of
   pruned rows. A day whose last row was deleted has a state of zeros. #}
{% macro orchestra_changed_days(rows, pruned, number) %}
    SELECT workflow_id, day, now_.state
    FROM (
        SELECT workflow_id, day,
               concat_ws('/', sum(rows), extract(epoch FROM max(built_at)), sum(pruned))
                   AS state
        FROM (
            SELECT workflow_id, day, count(*) AS rows, max(built_at) AS built_at, 0 AS pruned
            FROM {{ rows }}
            GROUP BY workflow_id, day
            UNION ALL
            SELECT workflow_id, day, 0, NULL, sum({{ number }}) FROM {{ pruned }}
            GROUP BY workflow_id, day
        ) AS parts
        GROUP BY workflow_id, day
    ) AS now_
    {% if is_incremental() %}
        FULL JOIN (SELECT DISTINCT workflow_id, day, state FROM {{ this }}) AS before
            USING (workflow_id, day)
        WHERE COALESCE(now_.state, '') <> COALESCE(before.state, '')
    {% endif %}
{% endmacro %}

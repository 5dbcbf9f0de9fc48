{{ config(materialized='table') }}

-- A version begins when it was first seen. If the API dates the workflow's last change earlier, and
-- the previous version was not seen since that date, the version begins at the date. A later version
-- can move the end of the one before it, so the few rows are built as a whole.
WITH begun AS (
    SELECT workflow_id, version, first_seen_at, api_updated_at,
           CASE WHEN api_updated_at < first_seen_at
                 AND COALESCE(lag(first_seen_at) OVER versions <= api_updated_at, true)
                THEN api_updated_at ELSE first_seen_at END AS valid_from
    FROM {{ ref('stg_orchestra__workflow_versions') }}
    WINDOW versions AS (PARTITION BY workflow_id ORDER BY first_seen_at)
)
SELECT md5(concat_ws('/', b.workflow_id, extract(epoch FROM b.first_seen_at)))
           AS workflow_version_id,
       b.workflow_id,
       COALESCE(w.workflow_name, b.workflow_id) AS workflow_name,
       b.version,
       row_number() OVER versions AS ordinal,
       b.valid_from,
       lead(b.valid_from) OVER versions AS valid_until,
       lead(b.valid_from) OVER versions IS NULL AS is_current,
       b.first_seen_at,
       b.api_updated_at
FROM begun AS b
LEFT JOIN {{ ref('stg_orchestra__workflows') }} AS w ON w.workflow_id = b.workflow_id
WINDOW versions AS (PARTITION BY b.workflow_id ORDER BY b.first_seen_at)

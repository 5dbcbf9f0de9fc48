SELECT workflow_id,
       version,
       first_seen_at,
       api_updated_at
FROM {{ source('orchestra', 'workflow_versions') }}

{{ config(enabled=var('orchestra_payloads')) }}

-- Content is never copied: erasure, redaction and retention take effect here at once.
SELECT step_id,
       run_id,
       workflow_id,
       node_id,
       time,
       model,
       system,
       prompt,
       answer,
       tools,
       images,
       audio,
       parameters,
       redaction_policy
FROM {{ source('orchestra', 'model_calls') }}

CREATE OR REPLACE VIEW orchestra.coverage AS
WITH counted AS (
    SELECT workflow_id,
           count(*) AS known,
           count(*) FILTER (WHERE tracking = 'open') AS open,
           count(*) FILTER (WHERE tracking = 'final') AS final,
           count(*) FILTER (WHERE tracking = 'stale') AS stale,
           count(*) FILTER (WHERE tracking = 'gone') AS gone,
           count(*) FILTER (WHERE tracking IN ('erased', 'pruned')) AS removed
    FROM orchestra_etl.run_ledger
    GROUP BY workflow_id
), conflicting AS (
    -- A dead letter without a step is about the run itself. Discarding it changes nothing.
    SELECT workflow_id, count(*) AS runs
    FROM orchestra_etl.dead_letters AS d
    WHERE reason = 'id_conflict' AND step_id IS NULL
      AND NOT EXISTS (SELECT FROM orchestra_etl.run_ledger AS l
                      WHERE l.run_id = d.run_id AND l.workflow_id = d.workflow_id)
    GROUP BY workflow_id
), relevant AS (
    SELECT workflow_id FROM counted
    UNION SELECT workflow_id FROM orchestra_etl.sweeps
    UNION SELECT workflow_id FROM conflicting
)
SELECT relevant.workflow_id,
       w.name AS workflow_name,
       oldest.start_time AS complete_since,
       -- A sweep covers every run that started before the sweep began. Of a sweep that completed
       -- before revision 0004, the begin is known only if no later sweep has begun; otherwise its
       -- end takes the place of its begin.
       CASE WHEN s.watermark > 0
           THEN COALESCE(s.complete_until, LEAST(s.started_at, s.swept_at)) END AS complete_until,
       gaps.all AS gaps,
       gaps.unacknowledged AS unacknowledged_gaps,
       COALESCE(counted.known, 0) AS known_runs,
       COALESCE(counted.known, 0) - unsettled.unread - unsettled.gone_unread
           - COALESCE(counted.removed, 0) AS read_runs,
       unsettled.unread AS unread_runs,
       unsettled.gone_unread AS lost_runs,
       COALESCE(counted.open, 0) AS open_runs,
       COALESCE(counted.final, 0) AS final_runs,
       COALESCE(counted.stale, 0) AS stale_runs,
       COALESCE(counted.gone, 0) AS gone_runs,
       COALESCE(counted.removed, 0) AS removed_runs,
       s.swept_at,
       s.reconciled_at AS reconciled_at,
       s.repaired_runs AS repaired_runs,
       s.new_runs AS new_runs,
       s.listed_runs AS listed_runs,
       -- If the list showed fewer runs than were known, new runs push old ones out of it.
       COALESCE(s.known_runs > s.listed_runs, false) AS window_full,
       COALESCE(conflicting.runs, 0) AS conflicting_runs
FROM relevant
LEFT JOIN orchestra.workflows AS w ON w.id = relevant.workflow_id
LEFT JOIN counted ON counted.workflow_id = relevant.workflow_id
LEFT JOIN conflicting ON conflicting.workflow_id = relevant.workflow_id
LEFT JOIN orchestra_etl.sweeps AS s ON s.workflow_id = relevant.workflow_id
LEFT JOIN LATERAL (
    SELECT r.start_time
    FROM orchestra.runs AS r
    JOIN orchestra_etl.run_ledger AS l ON l.run_id = r.id
    WHERE r.workflow_id = relevant.workflow_id AND r.start_time IS NOT NULL
        AND l.listed_sweep <= s.watermark
    ORDER BY r.start_time
    LIMIT 1
) AS oldest ON true
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE steps_observed_at IS NULL AND tracking <> 'gone') AS unread,
           count(*) FILTER (WHERE steps_observed_at IS NULL AND tracking = 'gone') AS gone_unread
    FROM orchestra_etl.run_ledger AS l
    WHERE l.workflow_id = relevant.workflow_id AND l.tracking IN ('open', 'stale', 'gone')
) AS unsettled
CROSS JOIN LATERAL (
    SELECT count(*) AS all, count(*) FILTER (WHERE acknowledged_at IS NULL) AS unacknowledged
    FROM orchestra_etl.gaps AS g
    WHERE g.workflow_id = relevant.workflow_id
) AS gaps;

COMMENT ON VIEW orchestra.coverage IS
    'Per workflow: the period in which every run is known, and its gaps; how many runs are read; '
    'how near the list is to missing runs.';
COMMENT ON COLUMN orchestra.coverage.workflow_id IS 'The workflow.';
COMMENT ON COLUMN orchestra.coverage.workflow_name IS 'Its name.';
COMMENT ON COLUMN orchestra.coverage.complete_since IS
    'Start of the oldest stored run that a complete sweep listed.';
COMMENT ON COLUMN orchestra.coverage.complete_until IS
    'When the last complete sweep began: every run from complete_since to this time is known, '
    'except in gaps and except conflicting_runs.';
COMMENT ON COLUMN orchestra.coverage.gaps IS
    'Periods in which runs may have appeared and disappeared without being listed.';
COMMENT ON COLUMN orchestra.coverage.unacknowledged_gaps IS 'Gaps that no user has acknowledged.';
COMMENT ON COLUMN orchestra.coverage.known_runs IS 'Runs in the ledger.';
COMMENT ON COLUMN orchestra.coverage.read_runs IS 'Runs whose steps have been read at least once.';
COMMENT ON COLUMN orchestra.coverage.unread_runs IS 'Known runs that were never read.';
COMMENT ON COLUMN orchestra.coverage.lost_runs IS
    'Runs that the API forgot before they were ever read.';
COMMENT ON COLUMN orchestra.coverage.open_runs IS 'Runs that are still polled.';
COMMENT ON COLUMN orchestra.coverage.final_runs IS 'Runs that are not read again.';
COMMENT ON COLUMN orchestra.coverage.stale_runs IS
    'Runs that were open for too long; they are read once a day.';
COMMENT ON COLUMN orchestra.coverage.gone_runs IS 'Runs that the API no longer has.';
COMMENT ON COLUMN orchestra.coverage.removed_runs IS 'Runs that were erased or pruned here.';
COMMENT ON COLUMN orchestra.coverage.swept_at IS 'When a sweep was last complete.';
COMMENT ON COLUMN orchestra.coverage.reconciled_at IS
    'When the last complete walk of the whole list began.';
COMMENT ON COLUMN orchestra.coverage.repaired_runs IS
    'Runs that this walk found missing from the tables and queued for a re-read.';
COMMENT ON COLUMN orchestra.coverage.new_runs IS 'Runs that the last complete sweep found new.';
COMMENT ON COLUMN orchestra.coverage.listed_runs IS
    'Rows of the run list at the last walk of the whole list.';
COMMENT ON COLUMN orchestra.coverage.window_full IS
    'Whether the last walk of the whole list saw fewer runs than were known: new runs then push '
    'old ones out of the list.';
COMMENT ON COLUMN orchestra.coverage.conflicting_runs IS
    'Runs that were set aside because another workflow has a run of the same id.';

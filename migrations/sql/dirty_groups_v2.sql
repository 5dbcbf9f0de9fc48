-- What changed_groups stands in place of.
DROP FUNCTION IF EXISTS orchestra_etl.mark_old_steps(), orchestra_etl.mark_new_steps(), orchestra_etl.mark_changed_steps(),
    orchestra_etl.mark_old_runs(), orchestra_etl.mark_new_runs(), orchestra_etl.mark_changed_runs();

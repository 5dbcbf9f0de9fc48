-- By triggers, whoever writes: a load, an erasure, a changed state map, a person, a release from before this one.
-- As the owner: what may change steps and runs need not be allowed to write here.
-- A group is a workflow's hour. A step counts in the hour of its start, a run in that of its own; a step that reports an error
-- also makes its run a soft failure, so that the run's hour is queued, too.
CREATE FUNCTION orchestra_etl.mark_old_steps() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour)
    SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM before
    UNION
    SELECT r.workflow_id, date_trunc('hour', COALESCE(r.start_time, r.first_seen_at), 'UTC')
    FROM before AS s JOIN orchestra.runs AS r ON r.id = s.run_id
    WHERE s.reported_error IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE FUNCTION orchestra_etl.mark_new_steps() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour)
    SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM after
    UNION
    SELECT r.workflow_id, date_trunc('hour', COALESCE(r.start_time, r.first_seen_at), 'UTC')
    FROM after AS s JOIN orchestra.runs AS r ON r.id = s.run_id
    WHERE s.reported_error IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE FUNCTION orchestra_etl.mark_changed_steps() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour)
    SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM before
    UNION
    SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM after
    UNION
    SELECT r.workflow_id, date_trunc('hour', COALESCE(r.start_time, r.first_seen_at), 'UTC')
    FROM (SELECT run_id FROM before WHERE reported_error IS NOT NULL
          UNION SELECT run_id FROM after WHERE reported_error IS NOT NULL) AS s
    JOIN orchestra.runs AS r ON r.id = s.run_id;
    RETURN NULL;
END
$$;

CREATE FUNCTION orchestra_etl.mark_old_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour)
    SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM before;
    RETURN NULL;
END
$$;

CREATE FUNCTION orchestra_etl.mark_new_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour)
    SELECT DISTINCT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM after;
    RETURN NULL;
END
$$;

CREATE FUNCTION orchestra_etl.mark_changed_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO orchestra_etl.dirty_groups (workflow_id, hour)
    SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM before
    UNION
    SELECT workflow_id, date_trunc('hour', COALESCE(start_time, first_seen_at), 'UTC') FROM after;
    RETURN NULL;
END
$$;

CREATE TRIGGER mark_inserted AFTER INSERT ON orchestra.steps
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_new_steps();
CREATE TRIGGER mark_updated AFTER UPDATE ON orchestra.steps
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_changed_steps();
CREATE TRIGGER mark_deleted AFTER DELETE ON orchestra.steps
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_old_steps();
CREATE TRIGGER mark_inserted AFTER INSERT ON orchestra.runs
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_new_runs();
CREATE TRIGGER mark_updated AFTER UPDATE ON orchestra.runs
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_changed_runs();
CREATE TRIGGER mark_deleted AFTER DELETE ON orchestra.runs
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestra_etl.mark_old_runs();

COMMENT ON FUNCTION orchestra_etl.mark_old_steps() IS 'Queues the rollup groups of steps that are deleted.';
COMMENT ON FUNCTION orchestra_etl.mark_new_steps() IS 'Queues the rollup groups of steps that are inserted.';
COMMENT ON FUNCTION orchestra_etl.mark_changed_steps() IS 'Queues the rollup groups of steps that change, before and after.';
COMMENT ON FUNCTION orchestra_etl.mark_old_runs() IS 'Queues the rollup groups of runs that are deleted.';
COMMENT ON FUNCTION orchestra_etl.mark_new_runs() IS 'Queues the rollup groups of runs that are inserted.';
COMMENT ON FUNCTION orchestra_etl.mark_changed_runs() IS 'Queues the rollup groups of runs that change, before and after.';
COMMENT ON TRIGGER mark_inserted ON orchestra.steps IS 'Queues the rollup groups of steps that are inserted.';
COMMENT ON TRIGGER mark_updated ON orchestra.steps IS 'Queues the rollup groups of steps that change.';
COMMENT ON TRIGGER mark_deleted ON orchestra.steps IS 'Queues the rollup groups of steps that are deleted.';
COMMENT ON TRIGGER mark_inserted ON orchestra.runs IS 'Queues the rollup groups of runs that are inserted.';
COMMENT ON TRIGGER mark_updated ON orchestra.runs IS 'Queues the rollup groups of runs that change.';
COMMENT ON TRIGGER mark_deleted ON orchestra.runs IS 'Queues the rollup groups of runs that are deleted.';

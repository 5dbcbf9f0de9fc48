"""Database triggers that record every movement backwards that no load should cause.

A comparison at the end sees the final state; these triggers see every state before it.
"""

from __future__ import annotations

from tests.support import query

# A claim may be released and taken again, and a listing may reopen a run. None of this moves an
# observation, a token or a watermark to an earlier one. No run or step that the API called over
# runs again, unless the test reopens runs.
_INSTALL = """
    CREATE SCHEMA watch;
    CREATE TABLE watch.moved (id bigserial, subject text, key text, before text, after text);

    CREATE FUNCTION watch.write_down() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        was jsonb := to_jsonb(OLD);
        is_now jsonb := to_jsonb(NEW);
    BEGIN
        INSERT INTO watch.moved (subject, key, before, after)
        VALUES (TG_TABLE_NAME || '.' || TG_ARGV[1], was ->> TG_ARGV[0], was ->> TG_ARGV[1],
                is_now ->> TG_ARGV[1]);
        RETURN NULL;
    END $$;
"""

_ENDED = "('succeeded', 'failed', 'cancelled', 'skipped')"
_BACK_TO_LIFE = f"OLD.state IN {_ENDED} AND NEW.state NOT IN {_ENDED}"
_WATCHED = (
    # table, key, column, condition
    ("orchestra_etl.run_ledger", "run_id", "steps_observed_at",
     "NEW.steps_observed_at < OLD.steps_observed_at"),
    ("orchestra_etl.run_ledger", "run_id", "run_observed_at",
     "NEW.run_observed_at < OLD.run_observed_at"),
    ("orchestra_etl.run_ledger", "run_id", "fencing_token",
     "NEW.fencing_token < OLD.fencing_token"),
    # W: final only by a read at this very moment.
    ("orchestra_etl.run_ledger", "run_id", "tracking",
     "NEW.tracking = 'final' AND OLD.tracking <> 'final'"
      " AND NEW.steps_observed_at IS NOT DISTINCT FROM OLD.steps_observed_at"),
    ("orchestra_etl.sweeps", "workflow_id", "watermark", "NEW.watermark < OLD.watermark"),
    ("orchestra_etl.sweeps", "workflow_id", "fencing_token",
     "NEW.fencing_token < OLD.fencing_token"),
)  # fmt: skip
_LIVES = (
    ("orchestra.runs", "id", "state", _BACK_TO_LIFE),
    ("orchestra.steps", "id", "state", _BACK_TO_LIFE),
)


def install(url: str, *, reopens: bool = False) -> None:
    """Watch this database from now on.

    Args:
        url: the database's URL.
        reopens: whether the test lets finished runs run again; this is then no movement backwards.
    """
    statements = [_INSTALL]
    for number, (table, key, column, when) in enumerate(
        _WATCHED if reopens else (*_WATCHED, *_LIVES)
    ):
        statements.append(
            f"CREATE TRIGGER watch_{number} AFTER UPDATE ON {table} FOR EACH ROW WHEN ({when})"
            f" EXECUTE FUNCTION watch.write_down('{key}', '{column}')"
        )
    query(url, ";".join(statements))


def moved_back(url: str) -> list[str]:
    """Return the violations of M: what has moved back since `install`."""
    rows = query(url, "SELECT subject, key, before, after FROM watch.moved ORDER BY id LIMIT 20")
    return [
        f"{row['subject']} of {row['key']} went from {row['before']} to {row['after']}"
        for row in rows
    ]

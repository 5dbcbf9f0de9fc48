"""The privileges of the group roles, derived from the tables and their payload columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, Table, text

from etl.database import Database
from etl.errors import DatabaseError
from etl.privileges import ANALYST, LOADER, MIGRATOR, PAYLOAD_ANALYST, lacks, quoted
from etl.tables import (
    ANALYTICS,
    OPERATIONS,
    PRIVATE,
    alerts,
    analytics,
    lake,
    metadata,
    operations,
    prices,
    rollups,
)

_READ = "SELECT"
_APPENDED = "SELECT, INSERT"
_UPSERTED = "SELECT, INSERT, UPDATE"
_REDACTED = "SELECT, INSERT, UPDATE, DELETE"
"""DELETE, because a later redaction rule may remove a whole payload, and then deletes its row."""

_REWRITTEN = "SELECT, INSERT, UPDATE, DELETE"

LOADED: Mapping[Table, str] = {
    analytics.workflows: _UPSERTED,
    analytics.workflow_versions: _APPENDED,
    analytics.runs: _UPSERTED,
    analytics.run_payloads: _REDACTED,
    analytics.steps: _UPSERTED,
    analytics.inputs: _REDACTED,
    analytics.outputs: _REDACTED,
    # Whole groups are recomputed; later redaction rules remove names.
    rollups.step_rollup: "SELECT, INSERT, DELETE, UPDATE (organization_id, model)",
    rollups.step_rollup_daily: "SELECT, INSERT, DELETE, UPDATE (organization_id, model)",
    rollups.run_rollup: "SELECT, INSERT, DELETE, UPDATE (organization_id)",
    rollups.step_failures: _REDACTED,
    prices.prices: _REDACTED,
    prices.price_rules: _REDACTED,
    prices.resolved_prices: _UPSERTED,
    # Rows are taken from the queues, and the map is replaced.
    rollups.changed_groups: "SELECT, INSERT, DELETE",
    # The lock on a row requires the UPDATE privilege.
    operations.locks: "SELECT, UPDATE",
    analytics.run_requests: "SELECT, DELETE",
    operations.state_map: "SELECT, INSERT, DELETE",
    operations.run_ledger: _UPSERTED,
    operations.sweeps: _UPSERTED,
    operations.gaps: _UPSERTED,
    operations.dead_letters: _UPSERTED,
    operations.drift: _UPSERTED,
    operations.request_budget: _UPSERTED,
    operations.workflow_refresh: _UPSERTED,
    operations.redaction_policies: _APPENDED,
    operations.retention: _READ,
    operations.rebuilds: "SELECT, UPDATE",
    alerts.alerts: _REDACTED,
    alerts.alert_episodes: _UPSERTED,
    alerts.alert_notifications: _REDACTED,
    alerts.alert_mutes: _REDACTED,
    alerts.alert_evaluation: "SELECT, UPDATE",
    # Days are replaced one by one, or all at once; the catalog's rows follow the lake's tables.
    lake.changed_days: "SELECT, INSERT, DELETE",
    lake.export_days: _REWRITTEN,
    lake.export_state: _REWRITTEN,
    lake.iceberg_tables: _REWRITTEN,
    lake.iceberg_namespace_properties: _REWRITTEN,
}
"""The loader's privileges on each table."""

PAYLOAD_ROUTINES = ("search", "search_frequency")
"""Functions for analysts that read payloads, which the system catalog does not show."""

SCHEMAS = [ANALYTICS, OPERATIONS]
_BOTH = ", ".join(SCHEMAS)

# Views run with the privileges of their owner, who reads everything. A view that reads a payload
# column, itself or through another view, reveals payloads. The system catalog does not
# show which columns a view reads if it uses a whole row as one value, so no view of this schema may
# do that.
_VIEWS = text("""
    WITH RECURSIVE revealing AS (
        SELECT w.ev_class
        FROM unnest(CAST(:tables AS text[]), CAST(:columns AS text[]))
             AS p (table_name, column_name)
        JOIN pg_attribute AS a
          ON a.attrelid = to_regclass(p.table_name) AND a.attname = p.column_name
        JOIN pg_depend AS d
          ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
         AND d.refobjsubid = a.attnum
        JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
        UNION
        SELECT w.ev_class
        FROM revealing AS v
        JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.ev_class
        JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    )
    SELECT format('%I.%I', n.nspname, c.relname) AS name,
           c.oid IN (SELECT ev_class FROM revealing) AS reveals
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relkind IN ('v', 'm')
    ORDER BY 1
""")

_LACKING = text("""
    SELECT CASE WHEN w.privilege = 'USAGE' THEN 'USAGE on schema '
                ELSE w.privilege || ' on ' END || w.name
    FROM (
        SELECT 0 AS rank, s AS name, 'USAGE' AS privilege, has_schema_privilege(s, 'USAGE') AS has
        FROM unnest(CAST(:schemas AS text[])) AS s
        UNION ALL
        SELECT 1, t.name, t.privilege,
               CASE WHEN NOT has_schema_privilege(split_part(t.name, '.', 1), 'USAGE') THEN false
                    WHEN t.column_name <> ''
                    THEN has_column_privilege(t.name, t.column_name, t.privilege)
                    ELSE has_table_privilege(t.name, t.privilege) END
        FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[]),
                    CAST(:columns AS text[])) AS t (name, privilege, column_name)
    ) AS w
    WHERE NOT w.has ORDER BY w.rank, w.name, w.privilege
""")

_IN_USE = text(f"""
    SELECT pg_get_userbyid(nspowner) = '{MIGRATOR}' AND pg_has_role(nspowner, 'USAGE')
    FROM pg_namespace WHERE nspname = '{ANALYTICS}'
""")


def refresh(database: Database) -> bool:
    """Bring the grants up to date after an upgrade; return whether that was done.

    Nothing changes if this database does not use the roles, or if the user is not a member of the
    migrator, and so cannot have upgraded the schema.
    """
    return database.transaction(_refresh)


def check_loader(database: Database) -> None:
    """Check that this user has all privileges of the loader.

    Args:
        database: with the current schema.

    Raises:
        DatabaseError: the user lacks a privilege; the message names it, and the role that has it.
    """
    if (problem := database.transaction(_lacking)) is not None:
        raise DatabaseError(problem)


def _lacking(connection: Connection) -> str | None:
    wanted = [
        (table.fullname, privilege, column)
        for table, privileges in LOADED.items()
        for privilege, columns in re.findall(r"(\w+)(?: \(([\w, ]+)\))?(?:, |$)", privileges)
        for column in columns.split(", ")
    ]
    tables, names, columns = zip(*wanted, strict=True)
    found = connection.execute(
        _LACKING,
        {
            "tables": list(tables),
            "privileges": list(names),
            "columns": list(columns),
            "schemas": SCHEMAS,
        },
    )
    missing = found.scalars().all()
    if not missing:
        return None
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return lacks(connection, f"{missing[0]}{more}", LOADER)


def _refresh(connection: Connection) -> bool:
    if not connection.execute(_IN_USE).scalar_one_or_none():
        return False
    wait_for_upgrades(connection)
    renew(connection)
    return True


def wait_for_upgrades(connection: Connection) -> None:
    """Wait until no upgrade and no other change of grants is in progress.

    These change the same rows of the system catalog, so concurrent changes would fail.
    """
    connection.exec_driver_sql(
        f"LOCK TABLE {OPERATIONS}.alembic_version IN SHARE ROW EXCLUSIVE MODE"
    )


def renew(connection: Connection) -> None:
    """Replace all grants of the roles by those of this version, as the migrator."""
    # Granted as the owner, so that a later run by any user can revoke what this one grants.
    connection.exec_driver_sql(f"SET LOCAL ROLE {MIGRATOR}")
    hidden = [(table.fullname, column) for table, columns in PRIVATE.items() for column in columns]
    views = connection.execute(
        _VIEWS,
        {
            "schema": ANALYTICS,
            "tables": [one[0] for one in hidden],
            "columns": [one[1] for one in hidden],
        },
    ).all()
    for statement in (
        *_revocations(),
        *_grants(),
        *_view_grants({row.name: row.reveals for row in views}),
    ):
        run(connection, statement)


def _revocations() -> Iterator[str]:
    everybody = f"PUBLIC, {LOADER}, {ANALYST}, {PAYLOAD_ANALYST}"
    for kind in ("TABLES", "SEQUENCES", "ROUTINES"):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA {_BOTH} FROM {everybody}"
    yield f"REVOKE ALL ON SCHEMA {_BOTH} FROM {everybody}"


def _grants() -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {_BOTH} TO {LOADER}"
    yield f"GRANT USAGE ON SCHEMA {ANALYTICS} TO {ANALYST}"
    yield f"GRANT SELECT ON {OPERATIONS}.alembic_version TO {LOADER}"
    yield f"GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {_BOTH} TO {LOADER}"
    yield f"GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {ANALYTICS} TO {ANALYST}"
    for routine in PAYLOAD_ROUTINES:
        yield f"REVOKE EXECUTE ON ROUTINE {ANALYTICS}.{routine} FROM {ANALYST}"
        yield f"GRANT EXECUTE ON ROUTINE {ANALYTICS}.{routine} TO {PAYLOAD_ANALYST}"
    for table, privileges in LOADED.items():
        yield f"GRANT {privileges} ON {table.fullname} TO {LOADER}"
    for table in metadata.sorted_tables:
        if table.schema != ANALYTICS:
            continue
        private = PRIVATE.get(table)
        if private is None:
            yield f"GRANT SELECT ON {table.fullname} TO {ANALYST}"
        else:
            open_to_all = [column.name for column in table.columns if column.name not in private]
            yield (
                f"GRANT SELECT ({', '.join(map(quoted, open_to_all))})"
                f" ON {table.fullname} TO {ANALYST}"
            )
            yield (
                f"GRANT SELECT ({', '.join(map(quoted, private))})"
                f" ON {table.fullname} TO {PAYLOAD_ANALYST}"
            )


def _view_grants(reveals: Mapping[str, bool]) -> Iterator[str]:
    for view, reveals_payloads in reveals.items():
        analysts = PAYLOAD_ANALYST if reveals_payloads else ANALYST
        yield f"GRANT SELECT ON {view} TO {analysts}, {LOADER}"


def run(connection: Connection, statement: str) -> None:
    """Run a statement without parameters, so that a % in a name stays a %."""
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

"""Group roles with least privileges, derived from the tables and their payload columns.

The roles belong to the whole cluster, their privileges to one database. No role is ever dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from psycopg.sql import Identifier
from sqlalchemy import Connection, Row, Table, text

from etl.database import Database
from etl.errors import DatabaseError
from etl.privileges import ANALYST as ANALYST
from etl.privileges import LOADER as LOADER
from etl.privileges import MIGRATOR as MIGRATOR
from etl.privileges import PAYLOAD_ANALYST as PAYLOAD_ANALYST
from etl.privileges import lacks, membership, quoted
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

PURPOSES: Mapping[str, str] = {
    MIGRATOR: "owns both schemas: db upgrade, prune, erase, untrack",
    LOADER: "may do what sync, serve, backfill, track, status, dead-letters, gaps and rebuild need",
    ANALYST: "reads everything in orchestra except payloads and their hashes",
    PAYLOAD_ANALYST: "also reads payloads",
}

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

_SCHEMAS = f"{ANALYTICS}, {OPERATIONS}"


class RolesReport(msgspec.Struct, frozen=True):
    """The changes that `apply` made."""

    created: tuple[str, ...]
    """Roles that did not exist before."""
    former_owners: tuple[str, ...]
    """Users, except superusers and the current user, who owned a part of the schema.

    They are now members of the migrator and the loader.
    """
    kept: tuple[str, ...]
    """Users with a session of orchestra-etl who would have lost required privileges.

    They are now members of the loader.
    """


_MAY_CREATE = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")

_EXISTING = text("SELECT rolname FROM pg_roles WHERE rolname = ANY (CAST(:names AS text[]))")

# A superuser counts as a member of all roles.
_IS_MEMBER = text("SELECT pg_has_role(CAST(:member AS name), CAST(:role AS name), 'USAGE')")

# Before PostgreSQL 16, CREATEROLE is sufficient.
_MAY_GRANT = text("""
    SELECT pg_has_role(r.oid, 'USAGE WITH ADMIN OPTION') OR me.rolsuper
        OR (me.rolcreaterole AND current_setting('server_version_num')::integer < 160000)
    FROM pg_roles AS r, pg_roles AS me WHERE r.rolname = :role AND me.rolname = current_user
""")

# Users with an open session of this program who may already write to the ledger.
_LIVE = text(f"""
    SELECT DISTINCT usename FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'orchestra-etl%'
      AND usename IS NOT NULL
      AND has_schema_privilege(usesysid, '{OPERATIONS}', 'USAGE')
      AND has_table_privilege(usesysid, '{OPERATIONS}.run_ledger', 'UPDATE')
""")

_DATABASE = text("""
    SELECT datname AS name, pg_has_role(datdba, 'USAGE') AS mine
    FROM pg_database WHERE datname = current_database()
""")

_MAY_WORK = text("""
    SELECT bool_and(has_database_privilege(w.role, current_database(), w.privilege))
    FROM unnest(CAST(:roles AS text[]), CAST(:privileges AS text[])) AS w (role, privilege)
""")

# The sequence of an identity column (deptype i) follows its table.
_OBJECTS = """
    SELECT 'SCHEMA' AS kind, quote_ident(nspname) AS name, nspowner AS owner, 0 AS ordinal
    FROM pg_namespace WHERE nspname = ANY (CAST(:schemas AS text[]))
    UNION ALL
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                          WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
           format('%I.%I', n.nspname, c.relname), c.relowner, 1
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend AS d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND d.deptype = 'i' AND c.relkind = 'S')
    UNION ALL
    SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, 1
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = ANY (CAST(:schemas AS text[]))
    UNION ALL
    SELECT 'TYPE', format('%I.%I', n.nspname, c.relname), c.relowner, 1
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind = 'c'
"""

_OWNED = text(f"""
    SELECT o.kind, o.name, r.rolname AS owner, r.rolsuper OR r.rolname = current_user AS keeps_all,
           pg_has_role(r.oid, 'USAGE') AS may_alter
    FROM ({_OBJECTS}) AS o JOIN pg_roles AS r ON r.oid = o.owner
    WHERE r.rolname <> :migrator
    ORDER BY o.ordinal, o.name
""")

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

_BOTH = [ANALYTICS, OPERATIONS]

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


def apply(database: Database) -> RolesReport:
    """Create the roles, or bring them up to date, in one transaction.

    Users who work with the schema keep their access.

    Args:
        database: with the current schema; the user owns the schema and has CREATEROLE, or is a
            superuser.

    Raises:
        DatabaseError: the user lacks the privilege; nothing was changed.
    """
    return database.transaction(_apply)


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
            "schemas": _BOTH,
        },
    )
    missing = found.scalars().all()
    if not missing:
        return None
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return lacks(connection, f"{missing[0]}{more}", LOADER)


def _apply(connection: Connection) -> RolesReport:
    _wait_for_upgrades(connection)
    existing = set(connection.execute(_EXISTING, {"names": list(PURPOSES)}).scalars())
    missing = [role for role in PURPOSES if role not in existing]
    if missing and not connection.execute(_MAY_CREATE).scalar_one():
        raise DatabaseError(
            "this database user may not create roles: run `orchestra-etl db roles` once "
            "as a user with CREATEROLE, such as the server's administrator"
        )
    owned = _owned(connection)
    if foreign := sorted({one.owner for one in owned if not one.may_alter}):
        raise DatabaseError(
            f"the schema belongs to {', '.join(map(quoted, foreign))}: run `orchestra-etl db "
            "roles` as its owner with CREATEROLE, or as a superuser; nothing was changed"
        )
    live = connection.execute(_LIVE).scalars().all()
    for role in missing:
        _run(connection, f"CREATE ROLE {role} NOLOGIN")
        _run(connection, f"COMMENT ON ROLE {role} IS 'orchestra-etl: {PURPOSES[role]}'")
    me = connection.exec_driver_sql("SELECT current_user").scalar_one()
    # The user who creates the roles must be able to transfer ownership to the migrator, and to
    # upgrade later.
    former_owners = tuple(sorted({one.owner for one in owned if not one.keeps_all}))
    for member, role in (
        (PAYLOAD_ANALYST, ANALYST),
        (me, MIGRATOR),
        *((owner, role) for owner in former_owners for role in (MIGRATOR, LOADER)),
    ):
        _enter(connection, member, role)
    _open_database(connection)
    _hand_over(connection)
    _grant(connection)
    connection.exec_driver_sql("RESET ROLE")
    still = set(connection.execute(_LIVE).scalars())
    kept = tuple(sorted(user for user in live if user not in still))
    for user in kept:
        _enter(connection, user, LOADER)
    return RolesReport(tuple(missing), former_owners, kept)


def _enter(connection: Connection, member: str, role: str) -> None:
    """Make a user a member of a role, with all its privileges, if the user is not a member yet."""
    if connection.execute(_IS_MEMBER, {"member": member, "role": role}).scalar_one():
        return
    grant = membership(connection, role, member)
    if not connection.execute(_MAY_GRANT, {"role": role}).scalar_one():
        raise DatabaseError(
            f"this user may not grant {role}: let a superuser first run {grant}; "
            "nothing was changed"
        )
    _run(connection, grant)
    if not connection.execute(_IS_MEMBER, {"member": member, "role": role}).scalar_one():
        raise DatabaseError(
            f"{quoted(member)} does not inherit from the roles it is a member of: "
            f"first run ALTER ROLE {quoted(member)} INHERIT; nothing was changed"
        )


def _run(connection: Connection, statement: str) -> None:
    """Run a statement without parameters, so that a % in a name stays a %."""
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _refresh(connection: Connection) -> bool:
    if not connection.execute(_IN_USE).scalar_one_or_none():
        return False
    _wait_for_upgrades(connection)
    _grant(connection)
    return True


def _wait_for_upgrades(connection: Connection) -> None:
    """Wait until no upgrade and no other change of grants is in progress.

    These change the same rows of the system catalog, so concurrent changes would fail.
    """
    connection.exec_driver_sql(
        f"LOCK TABLE {OPERATIONS}.alembic_version IN SHARE ROW EXCLUSIVE MODE"
    )


def _open_database(connection: Connection) -> None:
    database = connection.execute(_DATABASE).one()
    name = Identifier(database.name).as_string()
    wanted = {
        MIGRATOR: ("CONNECT", "TEMPORARY"),
        LOADER: ("CONNECT", "TEMPORARY"),
        ANALYST: ("CONNECT",),
    }
    grants = [
        f"GRANT {', '.join(privileges)} ON DATABASE {name} TO {role}"
        for role, privileges in wanted.items()
    ]
    if database.mine:
        for grant in grants:
            _run(connection, grant)
    pairs = [(role, privilege) for role, privileges in wanted.items() for privilege in privileges]
    roles, names = zip(*pairs, strict=True)
    if not connection.execute(
        _MAY_WORK, {"roles": list(roles), "privileges": list(names)}
    ).scalar_one():
        raise DatabaseError(
            f"this user does not own the database: its owner must first run {'; '.join(grants)}"
        )


def _owned(connection: Connection) -> Sequence[Row[Any]]:
    """Return the objects that the migrator does not own, in the order of their transfer."""
    return connection.execute(_OWNED, {"schemas": _BOTH, "migrator": MIGRATOR}).all()


def _hand_over(connection: Connection) -> None:
    """Make the migrator the owner of everything."""
    for one in _owned(connection):
        _run(connection, f"ALTER {one.kind} {one.name} OWNER TO {MIGRATOR}")


def _grant(connection: Connection) -> None:
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
        _run(connection, statement)


def _revocations() -> Iterator[str]:
    everybody = f"PUBLIC, {LOADER}, {ANALYST}, {PAYLOAD_ANALYST}"
    for kind in ("TABLES", "SEQUENCES", "ROUTINES"):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA {_SCHEMAS} FROM {everybody}"
    yield f"REVOKE ALL ON SCHEMA {_SCHEMAS} FROM {everybody}"


def _grants() -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {_SCHEMAS} TO {LOADER}"
    yield f"GRANT USAGE ON SCHEMA {ANALYTICS} TO {ANALYST}"
    yield f"GRANT SELECT ON {OPERATIONS}.alembic_version TO {LOADER}"
    yield f"GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {_SCHEMAS} TO {LOADER}"
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

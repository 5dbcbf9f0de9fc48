"""The group roles: their creation, their members, and the transfer of the schema to one of them.

The roles belong to the whole cluster, their privileges to one database. No role is ever dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from psycopg.sql import Identifier
from sqlalchemy import Connection, Row, text

from etl.admin import grants
from etl.database import Database
from etl.errors import DatabaseError
from etl.privileges import ANALYST, LOADER, MIGRATOR, PAYLOAD_ANALYST, membership, quoted
from etl.tables import OPERATIONS

PURPOSES: Mapping[str, str] = {
    MIGRATOR: "owns both schemas: db upgrade, prune, erase, untrack",
    LOADER: "may do what sync, serve, backfill, track, status, dead-letters, gaps and rebuild need",
    ANALYST: "reads everything in orchestra except payloads and their hashes",
    PAYLOAD_ANALYST: "also reads payloads",
}


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


def _apply(connection: Connection) -> RolesReport:
    grants.wait_for_upgrades(connection)
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
        grants.run(connection, f"CREATE ROLE {role} NOLOGIN")
        grants.run(connection, f"COMMENT ON ROLE {role} IS 'orchestra-etl: {PURPOSES[role]}'")
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
    grants.renew(connection)
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
    grants.run(connection, grant)
    if not connection.execute(_IS_MEMBER, {"member": member, "role": role}).scalar_one():
        raise DatabaseError(
            f"{quoted(member)} does not inherit from the roles it is a member of: "
            f"first run ALTER ROLE {quoted(member)} INHERIT; nothing was changed"
        )


def _open_database(connection: Connection) -> None:
    database = connection.execute(_DATABASE).one()
    name = Identifier(database.name).as_string()
    wanted = {
        MIGRATOR: ("CONNECT", "TEMPORARY"),
        LOADER: ("CONNECT", "TEMPORARY"),
        ANALYST: ("CONNECT",),
    }
    statements = [
        f"GRANT {', '.join(privileges)} ON DATABASE {name} TO {role}"
        for role, privileges in wanted.items()
    ]
    if database.mine:
        for statement in statements:
            grants.run(connection, statement)
    pairs = [(role, privilege) for role, privileges in wanted.items() for privilege in privileges]
    roles, names = zip(*pairs, strict=True)
    if not connection.execute(
        _MAY_WORK, {"roles": list(roles), "privileges": list(names)}
    ).scalar_one():
        raise DatabaseError(
            f"this user does not own the database: its owner must first run {'; '.join(statements)}"
        )


def _owned(connection: Connection) -> Sequence[Row[Any]]:
    """Return the objects that the migrator does not own, in the order of their transfer."""
    return connection.execute(_OWNED, {"schemas": grants.SCHEMAS, "migrator": MIGRATOR}).all()


def _hand_over(connection: Connection) -> None:
    """Make the migrator the owner of everything."""
    for one in _owned(connection):
        grants.run(connection, f"ALTER {one.kind} {one.name} OWNER TO {MIGRATOR}")

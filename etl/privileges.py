"""The group roles, and which of them a user needs after a refused statement (SQLSTATE 42501)."""

from __future__ import annotations

import re

from psycopg.sql import Identifier
from sqlalchemy import Connection, text

from etl.tables import ANALYTICS, OPERATIONS

MIGRATOR = "orchestra_migrator"
LOADER = "orchestra_loader"
ANALYST = "orchestra_analyst"
PAYLOAD_ANALYST = "orchestra_payload_analyst"

# PostgreSQL writes its message in any language. Only words that name an object of the two schemas
# count.
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_WORDS = 200

# The first object that the message names, and the privileges on it that the loader has and this
# user lacks.
_OBJECTS = text("""
    WITH object AS (
        SELECT 1 AS rank, c.relname AS word, format('%I.%I', n.nspname, c.relname) AS name,
               c.relowner AS owner,
               (SELECT string_agg(p, ', ') FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p
                WHERE NOT has_table_privilege(c.oid, p)
                  AND (has_table_privilege(l.oid, c.oid, p)
                       OR (p <> 'DELETE' AND has_any_column_privilege(l.oid, c.oid, p)))
               ) AS missing
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_roles AS l ON l.rolname = :loader
        WHERE n.nspname = ANY (CAST(:schemas AS text[])) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        UNION ALL
        SELECT 2, p.proname, format('%I.%I', n.nspname, p.proname), p.proowner,
               CASE WHEN NOT has_function_privilege(p.oid, 'EXECUTE')
                     AND has_function_privilege(l.oid, p.oid, 'EXECUTE')
                    THEN 'EXECUTE' END
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        LEFT JOIN pg_roles AS l ON l.rolname = :loader
        WHERE n.nspname = ANY (CAST(:schemas AS text[]))
        UNION ALL
        SELECT 3, n.nspname, format('schema %I', n.nspname), n.nspowner,
               CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE')
                     AND has_schema_privilege(l.oid, n.oid, 'USAGE')
                    THEN 'USAGE' END
        FROM pg_namespace AS n LEFT JOIN pg_roles AS l ON l.rolname = :loader
        WHERE n.nspname = ANY (CAST(:schemas AS text[]))
    )
    SELECT name, missing, pg_get_userbyid(owner) AS owner FROM object
    WHERE word = ANY (CAST(:words AS text[])) ORDER BY rank, name LIMIT 1
""")

_USER = text("""
    SELECT current_user AS name, pg_has_role(r.oid, 'MEMBER') AS is_member,
           pg_has_role(r.oid, 'USAGE') AS inherits,
           (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = :schema) AS owner
    FROM (SELECT) AS one LEFT JOIN pg_roles AS r ON r.rolname = :role
""")


def quoted(name: str) -> str:
    """Return the name as an SQL identifier, with `?` for each unprintable character."""
    shown = "".join(one if one.isprintable() else "?" for one in name)
    return shown if re.fullmatch(r"[a-z_][a-z0-9_]*", shown) else Identifier(shown).as_string()


def membership(connection: Connection, role: str, member: str) -> str:
    """Return the GRANT that makes `member` a member of `role` and lets it inherit its privileges.

    Since PostgreSQL 16 the grant says whether the member inherits. Before, the member's own INHERIT
    attribute decides.
    """
    since_16 = connection.execute(
        text("SELECT current_setting('server_version_num')::integer >= 160000")
    ).scalar_one()
    return f"GRANT {role} TO {quoted(member)}" + (
        " WITH INHERIT TRUE, SET TRUE" if since_16 else ""
    )


def explain(connection: Connection, message: str, *, changes_schema: bool = False) -> str:
    """Return the error text: which privilege the user lacks, and which role has it.

    Args:
        connection: a connection of the same user, in a transaction that has not failed.
        message: PostgreSQL's message, in any language. Of its words, only names of objects in the
            two schemas are shown.
        changes_schema: whether the statement was part of an upgrade, which only the owner may run.
    """
    words = list(dict.fromkeys(_WORD.findall(message)))[:_WORDS]
    found = connection.execute(
        _OBJECTS, {"words": words, "schemas": [ANALYTICS, OPERATIONS], "loader": LOADER}
    ).one_or_none()
    if found is None:
        return lacks(
            connection, f"a privilege in the schemas {ANALYTICS} and {OPERATIONS}", MIGRATOR
        )
    if changes_schema:
        return lacks(connection, f"a privilege on {found.name}", MIGRATOR, found.owner)
    if found.missing is None:
        more = f"; if {LOADER} should have it too, run `orchestra-etl db roles` again"
        return lacks(connection, f"a privilege on {found.name}", MIGRATOR, found.owner) + more
    return lacks(connection, f"{found.missing} on {found.name}", LOADER, found.owner)


def lacks(connection: Connection, what: str, role: str, owner: str | None = None) -> str:
    """Return the error text for a missing privilege, with advice.

    Args:
        connection: a connection of this user.
        what: the privilege, such as `INSERT on orchestra.runs`.
        role: the group role that has it.
        owner: the object's owner; None: the schema's.
    """
    user = connection.execute(_USER, {"schema": OPERATIONS, "role": role}).one()
    name, owner = quoted(user.name), owner or user.owner
    as_owner = (
        f"connect as {quoted(owner)}, who owns it" if owner else "connect as the database's owner"
    )
    if user.is_member is None:
        advice = (
            f"{as_owner}, or let an administrator run `orchestra-etl db roles`, "
            f"then GRANT {role} TO {name}"
        )
    elif user.inherits:
        advice = (
            f"{name} is a member of it, but the role's privileges were changed by hand: "
            "run `orchestra-etl db roles` again"
        )
    elif user.is_member:
        statement = membership(connection, role, user.name)
        if "INHERIT" not in statement:
            statement = f"ALTER ROLE {name} INHERIT"
        advice = (
            f"{name} is a member of it that does not inherit: let an administrator run {statement}"
        )
    else:
        advice = f"let an administrator run GRANT {role} TO {name}, or {as_owner}"
    return (
        f"the database user {name} lacks {what}, which the role {role} has (SQLSTATE 42501): "
        f"{advice}"
    )

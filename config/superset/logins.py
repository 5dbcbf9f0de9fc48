"""The database users that Superset signs in as."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from etl import privileges
from etl.errors import DatabaseError

STATEMENT_SECONDS = 55
"""Less than Superset's own timeout, so that the server also ends a slow query."""


class Login(NamedTuple):
    """A database user of Superset, and the role that it is a member of."""

    name: str
    role: str
    purpose: str


ANALYST = Login("orchestra_dashboards", privileges.ANALYST, "the login of the dashboards")
PAYLOAD_ANALYST = Login(
    "orchestra_dashboards_payloads",
    privileges.PAYLOAD_ANALYST,
    "the login of the dashboards for prompts and answers",
)
"""Exists only while the dashboards show prompts and answers."""


def make(url: str, login: Login, password: str) -> None:
    """Create or update a login.

    Raises:
        DatabaseError: the database user may not do that.
    """
    name = sql.Identifier(login.name)
    try:
        with psycopg.connect(url) as connection:
            # Only a hash goes to the server, whose log can contain the statement.
            digest = connection.pgconn.encrypt_password(
                password.encode(), login.name.encode(), b"scram-sha-256"
            ).decode()
            if not _exists(connection, login):
                connection.execute(sql.SQL("CREATE ROLE {}").format(name))
            for statement in (
                sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(digest)),
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(login.role), name),
                sql.SQL("ALTER ROLE {} SET search_path = orchestra").format(name),
                sql.SQL("ALTER ROLE {} SET timezone = 'UTC'").format(name),
                sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name),
                sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(
                    name, sql.Literal(f"{STATEMENT_SECONDS}s")
                ),
                sql.SQL("ALTER ROLE {} SET idle_in_transaction_session_timeout = {}").format(
                    name, sql.Literal(f"{STATEMENT_SECONDS}s")
                ),
                sql.SQL("COMMENT ON ROLE {} IS {}").format(
                    name, sql.Literal(f"orchestra-etl: {login.purpose}")
                ),
            ):
                connection.execute(statement)
    except psycopg.Error as error:
        raise DatabaseError(
            f"this user of the database cannot create the login {login.name} "
            f"(SQLSTATE {error.sqlstate}): it needs CREATEROLE, and the right to grant "
            f"{login.role}"
        ) from None


def drop(url: str, login: Login) -> None:
    """Drop a login, if it exists.

    Raises:
        DatabaseError: the database user may not do that.
    """
    try:
        with psycopg.connect(url) as connection:
            if _exists(connection, login):
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login.name)))
    except psycopg.Error as error:
        raise DatabaseError(
            f"this user of the database cannot drop the login {login.name} "
            f"(SQLSTATE {error.sqlstate}): let the user who created it run DROP ROLE {login.name}"
        ) from None


def sqlalchemy_uri(url: str, login: Login, password: str) -> str:
    """Return the address with which Superset connects as this login."""
    parameters = conninfo_to_dict(url)
    database = quote(str(parameters.pop("dbname", "")), safe="")
    names = ("host", "hostaddr", "port", "sslmode", "sslrootcert")
    query = urlencode([(name, str(parameters[name])) for name in names if name in parameters])
    return f"postgresql+psycopg2://{login.name}:{quote(password, safe='')}@/{database}?{query}"


def _exists(connection: psycopg.Connection, login: Login) -> bool:
    found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [login.name])
    return found.fetchone() is not None

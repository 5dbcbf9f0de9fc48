"""The kinds of errors of the database and its driver."""

from __future__ import annotations

import re

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# SQLSTATE classes and codes after which a retry of the whole unit of work may succeed.
# Class 57 includes 57014 (statement_timeout): the retry may time out again, but on a less busy
# server it usually does not. The caller's patience bounds the retries.
_TRANSIENT_CLASSES = ("08", "40", "53", "55", "57")
# Read-only (a replica during failover), idle and transaction timeouts, I/O errors.
_TRANSIENT_CODES = frozenset({"25006", "25P03", "25P04", "58030"})
# lock_timeout; transient by its class.
LOCK_NOT_AVAILABLE = "55P03"

BY_THE_SERVER = re.compile(r" failed: \w+:  ")
"""The part of libpq's message that precedes the reason that the server itself sent."""


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error of psycopg or SQLAlchemy; None if it has none."""
    error = cause(error)
    return error.sqlstate if isinstance(error, psycopg.Error) else None


def message(error: BaseException) -> str:
    """Return the server's own message, without the statement; never show it, it may hold data."""
    error = cause(error)
    return (error.diag.message_primary or "") if isinstance(error, psycopg.Error) else ""


def is_database_error(error: BaseException) -> bool:
    """Return whether the error comes from the database or its driver."""
    return isinstance(error, psycopg.Error | SQLAlchemyError)


def is_from_server(error: BaseException) -> bool:
    """Return whether the server itself sent the error, and therefore responds."""
    return sqlstate(error) is not None or BY_THE_SERVER.search(str(cause(error))) is not None


def is_transient(error: BaseException) -> bool:
    """Return whether a retry of the whole unit of work may succeed.

    An operational error without a SQLSTATE means that a connection broke or could not be opened.
    """
    if isinstance(error, PoolTimeout):
        return True
    code = sqlstate(error)
    if code is None:
        return isinstance(cause(error), psycopg.OperationalError | psycopg.InterfaceError)
    return code.startswith(_TRANSIENT_CLASSES) or code in _TRANSIENT_CODES


def cause(error: BaseException) -> BaseException:
    """Return the driver's error for an error of SQLAlchemy; else the error itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error

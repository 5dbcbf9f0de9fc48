"""The revision of the database schema: which programs may use it, and how to upgrade it.

A program is identified by its head, the newest revision that it contains. Revisions are numbered
in order with four digits, and so are their files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psycopg
import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from etl import logs, tables
from etl.database import INTERACTIVE, Database
from etl.database_errors import is_transient, sqlstate
from etl.errors import ConnectionRefused, DatabaseError, DatabaseUnavailable, SchemaMismatch

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger(__name__)

# The oldest revision that has everything that this program's statements use. Raise it together with
# the first statement that needs a newer one.
REQUIRED_REVISION = "0001"

# Seconds for which an upgrade waits for a lock, and for another upgrade to finish.
LOCK_PATIENCE = 300.0

_EXISTS = text(f"SELECT to_regclass('{tables.OPERATIONS}.alembic_version') IS NOT NULL")
_VERSION = text(f"""
    SELECT version_num AS revision, oldest_program FROM {tables.OPERATIONS}.alembic_version
""")


class Schema(msgspec.Struct, frozen=True):
    """The schema of a database, and whether this program may use it."""

    revision: str | None
    """The schema's revision; None: there is no schema yet."""
    oldest_program: str | None
    """Head of the oldest program that may use the schema; None: there is no schema yet."""
    head: str
    """Head of this program."""
    known: bool
    """Whether this program contains the revision; if not, a later program created it."""

    @property
    def is_current(self) -> bool:
        """Whether this program was written for exactly this revision."""
        return self.revision == self.head

    @property
    def is_newer(self) -> bool:
        """Whether a later program created this revision."""
        return self.revision is not None and not self.known

    @property
    def difference(self) -> str:
        """How the schema differs from this program, for a schema that is not current."""
        relation = "newer" if self.is_newer else "older"
        return f"the schema ({self.revision}) is {relation} than this program ({self.head})"

    @property
    def advice(self) -> str:
        """What to do about the difference."""
        return "upgrade orchestra-etl" if self.is_newer else "run `orchestra-etl db upgrade`"

    def check(self) -> None:
        """Check that this program may use the schema.

        Raises:
            SchemaMismatch: it may not.
        """
        if self.revision is None:
            raise SchemaMismatch(
                "the database has no orchestra schema yet: run `orchestra-etl db upgrade`"
            )
        usable = (
            self.oldest_program is not None and self.oldest_program <= self.head < self.revision
        )
        if (self.is_newer and not usable) or (
            not self.is_newer and self.revision < REQUIRED_REVISION
        ):
            raise SchemaMismatch(f"{self.difference}: {self.advice}")


def read(database: Database) -> Schema:
    """Read the database's revision.

    Raises:
        DatabaseError: the database cannot be read.
    """
    return database.transaction(_read)


def check(database: Database) -> None:
    """Check that this program may use the schema; log a warning if the schema is not current.

    Raises:
        DatabaseError: the database cannot be read.
        SchemaMismatch: the schema is missing, too old or too new.
    """
    found = read(database)
    found.check()
    if not found.is_current:
        log.warning(
            "schema_mismatch_found",
            problem=f"{found.difference}, which may use it for now: {found.advice}",
        )


def has(database: Database, revision: str) -> bool:
    """Return whether the schema has at least this revision.

    Raises:
        DatabaseError: the database cannot be read.
    """
    found = read(database)
    return found.revision is not None and found.revision >= revision


def require(database: Database, revision: str) -> None:
    """Check that the schema has at least this revision.

    Raises:
        DatabaseError: the database cannot be read.
        SchemaMismatch: it is older.
    """
    found = read(database)
    found.check()
    if found.revision is None or found.revision < revision:
        raise SchemaMismatch(f"{found.difference}, and too old for this command: {found.advice}")


def check_current(database: Database) -> None:
    """Check that this program was written for exactly this schema.

    Raises:
        DatabaseError: the database cannot be read.
        SchemaMismatch: the schema is missing, older or newer.
    """
    found = read(database)
    found.check()
    if not found.is_current:
        raise SchemaMismatch(
            f"{found.difference}, which may use it, but not for this command: {found.advice}"
        )


def upgrade(url: str, *, revision: str = "head") -> bool:
    """Upgrade the schema to `revision`. Several processes may call this at once.

    A newer schema that this program may use stays unchanged: a replica of the old version that
    restarts during a roll-out must find nothing to do.

    Args:
        url: a libpq URI.
        revision: the target; `head` is this program's newest.

    Returns:
        Whether the schema is now at this program's head; False if it is newer.

    Raises:
        DatabaseUnavailable: there is no connection or it was lost, or a lock or another upgrade
            took too long.
        DatabaseError: the user may not change the schema, or a revision failed.
        SchemaMismatch: the schema is newer, and this program may not use it.
    """
    database = Database(url, patience=10.0, outage_patience=INTERACTIVE)
    try:
        found = read(database)
        if found.is_newer:
            found.check()
            return False
        if found.is_current:
            return True
        from alembic import command  # the import takes 0.25 s, which other commands save

        with (
            translated(database, "the upgrade failed, and its revision was rolled back"),
            _alembic(url, database) as config,
        ):
            command.upgrade(config, revision)
    finally:
        database.close()
    return True


def check_drift(url: str) -> None:
    """Compare the database's tables with `etl.tables`.

    Raises:
        alembic.util.exc.AutogenerateDiffsDetected: they differ.
        DatabaseError: they cannot be compared.
    """
    from alembic import command

    database = Database(url, patience=10.0, outage_patience=INTERACTIVE)
    try:
        with (
            translated(database, "the tables could not be compared"),
            _alembic(url, database, reads_only=True) as config,
        ):
            command.check(config)
    finally:
        database.close()


def head() -> str:
    """Return the revision that this program was written for."""
    return max(_revisions())


@contextmanager
def translated(database: Database, failure: str) -> Iterator[None]:
    """Turn errors of Alembic and the database into `EtlError`s that say `failure` and its cause.

    Raises:
        DatabaseUnavailable: the database does not respond, or failed for a transient reason.
        DatabaseError: another error of Alembic or the database.
        alembic.util.exc.AutogenerateDiffsDetected: the tables differ from `etl.tables`.
    """
    from alembic.util.exc import AutogenerateDiffsDetected, CommandError

    try:
        yield
    except AutogenerateDiffsDetected:
        raise
    except CommandError as error:
        # Its text comes from `migrations/env.py` or Alembic, and contains no data.
        raise DatabaseError(str(error)) from None
    except (SQLAlchemyError, psycopg.Error) as error:
        code = sqlstate(error)
        if code == "42501":
            reason = database.denied(error, changes_schema=True)
            raise DatabaseError(f"this database user may not change the schema: {reason}") from None
        found = database.diagnose(error)
        if found.permanent or is_transient(error):
            kind = ConnectionRefused if found.permanent else DatabaseUnavailable
            raise kind(f"{failure}: {found.problem}: {found.advice}") from None
        logs.log_traceback(error)
        raise DatabaseError(
            f"{failure} (SQLSTATE {code}): ORCHESTRA_ETL_LOGS__LEVEL=debug shows where"
        ) from None


def _read(connection: Connection) -> Schema:
    revision = oldest_program = None
    if connection.execute(_EXISTS).scalar_one():
        row = connection.execute(_VERSION).one_or_none()
        if row is not None:
            revision, oldest_program = row.revision, row.oldest_program
    return Schema(revision, oldest_program, head(), revision in _revisions())


def _revisions() -> set[str]:
    """Return this program's revisions, from their file names.

    Alembic takes longer to load them than most commands take to run.
    """
    return {
        file.name[:4] for file in (_migrations() / "versions").glob("[0-9][0-9][0-9][0-9]_*.py")
    }


@contextmanager
def _alembic(url: str, database: Database, *, reads_only: bool = False) -> Iterator[Config]:
    """Provide the configuration for Alembic and `migrations/env.py`.

    Until the block ends, a watchdog monitors the waits of their sessions.
    """
    from alembic.config import Config

    # Alembic would print to standard output, which is reserved for the command's results.
    config = Config(stdout=io.StringIO())
    # ConfigParser would read a % in the path as the start of an interpolation.
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    watchdog = database.watchdog(LOCK_PATIENCE)
    config.attributes.update(
        url=url, reads_only=reads_only, watchdog=watchdog, patience=LOCK_PATIENCE
    )
    try:
        yield config
    finally:
        watchdog.close()


def _migrations() -> Path:
    """Return the revisions' folder: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"

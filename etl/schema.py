"""The schema's revision: which program it is for, which others may use it meanwhile, and the way from one to the next.

A program is known by its head, the newest revision that it brings. Revisions are numbered in order,
with four digits, and so are their files.
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

# The oldest revision that has everything this program's statements use. Raise it together with the
# first statement that needs a newer one.
REQUIRED_REVISION = "0001"

# Seconds for which an upgrade tries to get a lock that others hold, and to get its turn among
# upgrades.
LOCK_PATIENCE = 300.0

_EXISTS = text(f"SELECT to_regclass('{tables.OPERATIONS}.alembic_version') IS NOT NULL")
_VERSION = text(f"""
    SELECT version_num AS revision, oldest_program FROM {tables.OPERATIONS}.alembic_version
""")


class Schema(msgspec.Struct, frozen=True):
    """What a database holds, and whether this program may use it."""

    revision: str | None
    """None: there is no schema yet."""
    oldest_program: str | None
    """Head of the oldest program that may use it; None: there is no schema yet."""
    head: str
    """This program's."""
    known: bool
    """Whether the revision is one of this program's own; one that is not can only be of a later program."""

    @property
    def is_current(self) -> bool:
        """Whether it is the one that this program was written for."""
        return self.revision == self.head

    @property
    def is_newer(self) -> bool:
        """Whether a later program has made it."""
        return self.revision is not None and not self.known

    @property
    def difference(self) -> str:
        """What is so of a schema that is not the current one, in a few words."""
        return f"the schema ({self.revision}) is {'newer' if self.is_newer else 'older'} than this program ({self.head})"

    @property
    def advice(self) -> str:
        """What to do about the difference."""
        return "upgrade orchestra-etl" if self.is_newer else "run `orchestra-etl db upgrade`"

    def check(self) -> None:
        """Make sure that this program may use it.

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
    """What the database holds.

    Raises:
        DatabaseError: it cannot be read.
    """
    return database.transaction(_read)


def check(database: Database) -> None:
    """Make sure that this program may use the schema; one that is not its own is worth a warning.

    Raises:
        DatabaseError: it cannot be read.
        SchemaMismatch: it is missing, too old or too new.
    """
    found = read(database)
    found.check()
    if not found.is_current:
        log.warning(
            "schema_mismatch_found",
            problem=f"{found.difference}, which may use it for now: {found.advice}",
        )


def check_current(database: Database) -> None:
    """Make sure that the schema is the very one this program was written for.

    Raises:
        DatabaseError: it cannot be read.
        SchemaMismatch: it is missing, older or newer.
    """
    found = read(database)
    found.check()
    if not found.is_current:
        raise SchemaMismatch(
            f"{found.difference}, which may use it, but not do this: {found.advice}"
        )


def upgrade(url: str, *, revision: str = "head") -> bool:
    """Bring the schema up to `revision`; safe to call from several processes at once.

    A newer schema that this program may use is left as it is: a replica of the old version that
    starts once more in the middle of a roll-out must find nothing to do. Whether the schema is this
    program's own now.

    Args:
        url: a libpq URI.

    Raises:
        DatabaseUnavailable: no connection, or it was lost; a lock, or another upgrade, was waited for in vain.
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
        from alembic import command  # a quarter of a second, which no other command needs to wait

        with (
            _told(database, "the upgrade failed, and its revision was rolled back"),
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
            _told(database, "the tables could not be compared"),
            _alembic(url, database, reads_only=True) as config,
        ):
            command.check(config)
    finally:
        database.close()


def head() -> str:
    """The revision this program was written for."""
    return max(_revisions())


@contextmanager
def _told(database: Database, failure: str) -> Iterator[None]:
    """Turn what Alembic and the database raise into errors of ours: `failure`, and its cause."""
    from alembic.util.exc import AutogenerateDiffsDetected, CommandError

    try:
        yield
    except AutogenerateDiffsDetected:
        raise
    except CommandError as error:
        # Its text is `migrations/env.py`'s or Alembic's own, and quotes nobody.
        raise DatabaseError(str(error)) from None
    except (SQLAlchemyError, psycopg.Error) as error:
        code = sqlstate(error)
        if code == "42501":
            raise DatabaseError(
                f"this database user may not change the schema: {database.denied(error, changes_schema=True)}"
            ) from None
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
    """By the names of their files: to have Alembic load them takes longer than most commands."""
    return {
        file.name[:4] for file in (_migrations() / "versions").glob("[0-9][0-9][0-9][0-9]_*.py")
    }


@contextmanager
def _alembic(url: str, database: Database, *, reads_only: bool = False) -> Iterator[Config]:
    """What Alembic and `migrations/env.py` are told; the waits of their sessions are looked after until the block ends."""
    from alembic.config import Config

    # Alembic reports to standard output, which belongs to the commands' own results.
    config = Config(stdout=io.StringIO())
    # ConfigParser would take a % in the path for the begin of a reference.
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
    """In a wheel the revisions lie inside the package, in a checkout beside it."""
    package = Path(__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"

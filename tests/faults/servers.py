"""PostgreSQL servers for single faults: they can crash, fill up or refuse without other tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
from psycopg import sql

from etl.embedded import cluster
from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from tests.faults.canaries import Canaries
from tests.postgres_fixture import new_home

_numbers = itertools.count(1)
_TEMPLATE = "template_orchestra"


class OwnServer:
    """A running server, and databases in it with the current schema."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.home = home
        self.settings = dict(settings)
        self._uses = contextlib.ExitStack()
        self.use = self._joined()

    def _joined(self) -> EmbeddedPostgres:
        return self._uses.enter_context(EmbeddedPostgres(self.home, settings=self.settings))

    @property
    def socket(self) -> Path:
        """The server's Unix socket."""
        return self.use.socket_directory / ".s.PGSQL.5432"

    def url_for(self, database: str) -> str:
        """Return a database's URL."""
        return self.use.url_for(database)

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser, outside a transaction."""
        with psycopg.connect(self.url_for("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def fresh(self) -> str:
        """Return the URL of a new database with the current schema and no rows."""
        with psycopg.connect(self.url_for("postgres"), autocommit=True) as connection:
            known = connection.execute(
                "SELECT FROM pg_database WHERE datname = %s", [_TEMPLATE]
            ).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
                upgrade(self.url_for(_TEMPLATE))
            name = f"fault_{next(_numbers)}"
            names = sql.Identifier(name), sql.Identifier(_TEMPLATE)
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*names)
            )
        return self.url_for(name)

    def crash(self) -> None:
        """Shut the server down like `pg_ctl -m immediate`, without a flush or an orderly end."""
        postmaster = int(cluster.postmaster_pid(self.use.data)[0])
        os.kill(postmaster, signal.SIGQUIT)
        while _lives(postmaster):
            time.sleep(0.005)

    def restart(self) -> None:
        """Start the server again after a crash; it recovers from its write-ahead log."""
        self.use = self._joined()

    def stop(self) -> None:
        """Stop the server normally."""
        self._uses.close()


@contextlib.contextmanager
def own_server(
    canaries: Canaries, *, home: Path | None = None, **settings: str
) -> Iterator[OwnServer]:
    """Provide a server with these settings; its log is copied to the canaries' folder."""
    # The slowest part of a start is the flush of a thousand files to the disk. `cluster.create`
    # does not flush with fsync=off.
    folder = home or new_home()
    try:
        server = OwnServer(folder, {"fsync": "off", "max_connections": "100", **settings})
        try:
            yield server
        finally:
            server.stop()
            for log in folder.glob("postgres-*.log*"):
                shutil.copy(log, canaries.folder / f"{folder.name}-{log.name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

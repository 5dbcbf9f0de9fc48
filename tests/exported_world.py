"""A history and the lake that holds it, for the tests of what happens to both afterwards."""

from __future__ import annotations

import asyncio
import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from etl.admin import expired, retention
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.export import exporter
from etl.export.destination import Destination
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests import lake_reader as lake
from tests.command_line import Command, command_line
from tests.conftest import fresh_database
from tests.support import configuration, environment, load, query, sync

TABLES = ("runs", "steps", "step_failures", "run_payloads", "step_payloads")


class ExportedWorld:
    """Loaded runs, one a day, and a lake that holds them."""

    def __init__(self, folder: Path, url: str, *, runs: int) -> None:
        self.url = url
        history = History(
            seed=5, workflows=1, runs_per_workflow=runs, live=0, arrivals_per_minute=0,
            spacing=timedelta(days=1),
        )  # fmt: skip
        [self.workflow] = history.workflow_ids
        with Simulator(history).in_thread() as simulator:
            variables = environment(url, simulator.base_url)
            asyncio.run(sync(load(folder, configuration(self.workflow), variables)))
        self.database = Database(url, patience=5)
        self.location = folder / "lake"
        # The newest first; number n ended n + 0.2 to n + 1 days ago.
        self.run_ids = history.run_ids(self.workflow)

    def command(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        *,
        more: str = "payloads = true",
    ) -> Command:
        """Return the command line with the lake in its configuration, and `more` after it."""
        section = f'[export]\nlocation = "{self.location}"\n{more}\n'
        toml = configuration(self.workflow, more=section)
        variables = environment(self.url, "http://127.0.0.1:9")
        return command_line(folder, monkeypatch, capsys, toml, **variables)

    def export(self, *, full: bool = False) -> exporter.ExportReport:
        """Bring the lake up to date."""
        return exporter.run(
            self.database, Destination(str(self.location), payloads=True), full=full
        )

    def prune(self, *, payloads: float | None = None, runs: float | None = None) -> None:
        """Prune what is older than these days."""
        wanted = self.database.transaction(
            lambda c: expired.horizons(
                c, payloads=payloads and payloads * 86400, runs=runs and runs * 86400
            )
        )
        retention.prune(self.database, wanted)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return all rows of the lake by table, without `archived_at`."""
        found = {name: lake.rows(self.location, name) for name in TABLES}
        for row in found["runs"]:
            del row["archived_at"]
        return found

    def archived(self) -> set[str]:
        """Return the runs that the lake marks as archived."""
        return {row["id"] for row in lake.rows(self.location, "runs") if row["archived_at"]}


Copies = Callable[[], AbstractContextManager[ExportedWorld]]
"""Provides a copy of a world: its database, and its lake in the original's folder."""


@contextmanager
def exported(
    server: EmbeddedPostgres,
    template: str,
    folder: Path,
    *,
    runs: int,
    prepare: Callable[[ExportedWorld], None] = lambda world: None,
) -> Iterator[Copies]:
    """Provide copies of a world with runs, one a day, in PostgreSQL and in the lake.

    The first export costs more than most tests, so it is made once. There is one copy at a time:
    a lake's files name their own folder.

    Args:
        server: the PostgreSQL server.
        template: the name of the database with the schema.
        folder: for the lake.
        runs: the number of finished runs.
        prepare: changes the rows before the export, in a session that it closes.
    """
    with fresh_database(server, template) as kept_url:
        made = ExportedWorld(folder, kept_url, runs=runs)
        prepare(made)
        assert made.export().complete
        made.database.close()
        kept_lake = made.location.rename(folder / "kept")

        @contextmanager
        def copied() -> Iterator[ExportedWorld]:
            shutil.rmtree(made.location, ignore_errors=True)
            shutil.copytree(kept_lake, made.location)
            with fresh_database(server, str(conninfo_to_dict(kept_url)["dbname"])) as url:
                # The export notices that this is another database.
                query(
                    url,
                    "UPDATE orchestra_etl.export_state SET database_oid ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())",
                )
                own = copy.copy(made)
                own.url, own.database = url, Database(url, patience=5)
                yield own
                own.database.close()

        yield copied

"""A history and the command that exports it to a lake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import lake_reader
from tests.faults import workers
from tests.support import environment, query

GUARDS = "tests.faults.lake_guards"


class Exporter:
    """A database with some days of runs, and the command that exports them."""

    def __init__(self, url: str, location: str, folder: Path, log: Path, **variables: str) -> None:
        config = folder / "export.toml"
        config.write_text(f'[export]\nlocation = "{location}"\n')
        self.url, self.location, self.log = url, Path(location), log
        self.variables = environment(
            url, "http://127.0.0.1:9", ORCHESTRA_ETL_CONFIG=str(config), **variables
        )
        self.add_runs(40)

    def __call__(
        self,
        *arguments: str,
        without: Sequence[str] = (),
        install: str = "",
        seconds: float = workers.PATIENCE,
        **variables: str,
    ) -> int:
        """Run a command of `export`, and return its exit status.

        Args:
            arguments: of the command.
            without: guards of `lake_guards` to switch off.
            install: what else the worker calls first, as `module:function`.
            seconds: within which the command must end.
            variables: for the worker's environment.
        """
        return workers.run(
            "export",
            *arguments,
            variables={**self.variables, **variables},
            log=self.log,
            without=[*(f"{GUARDS}:{one}" for one in without), *([install] if install else [])],
            seconds=seconds,
        )

    @contextmanager
    def started(self, *arguments: str, without: Sequence[str] = ()) -> Iterator[workers.Worker]:
        """Run a command of `export` beside the test."""
        with workers.started(
            "export",
            *arguments,
            variables=self.variables,
            log=self.log,
            without=[f"{GUARDS}:{one}" for one in without],
        ) as worker:
            yield worker

    def add_runs(self, count: int) -> None:
        """Store new runs with three steps each, on four days, in one transaction."""
        query(
            self.url,
            """WITH added AS (
                   INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking,
                                               start_time)
                   SELECT gen_random_uuid(), 'w', 'succeeded', 'api', 'final',
                          TIMESTAMPTZ '2026-01-01 10:00Z' + n %% 4 * interval '1 day'
                   FROM generate_series(1, %s) AS n
                   RETURNING id, start_time)
               INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, start_time,
                                            content_hash)
               SELECT gen_random_uuid(), id, 'w', n, 'succeeded', start_time, '\\x00'
               FROM added CROSS JOIN generate_series(1, 3) AS n""",
            count,
        )

    def runs(self) -> tuple[int, int]:
        """Return the number of runs in PostgreSQL, and in the lake as a reader by path sees it."""
        [row] = query(self.url, "SELECT count(*) AS runs FROM orchestra.runs")
        return row["runs"], len(lake_reader.arrow(self.location, "runs"))

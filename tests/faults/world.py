"""A server, a database and workers between them, with the invariants as checks of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.faults import workers
from tests.faults.canaries import API_KEY, PAYLOAD, with_password
from tests.faults.workers import Worker
from tests.oracle import differences
from tests.support import configuration, environment, query


@dataclass
class World:
    """The system into which a fault is injected."""

    history: History
    simulator: Simulator
    url: str
    """The database URL without the password that the workers' own URL has."""
    variables: dict[str, str]
    log: Path

    def sync(
        self,
        *arguments: str,
        without: Sequence[str] = (),
        seconds: float = workers.PATIENCE,
        **more: str,
    ) -> int:
        """Run one `sync` in its own process to its end, and return its exit status."""
        return workers.run(
            "sync",
            *arguments,
            variables={**self.variables, **more},
            log=self.log,
            without=without,
            seconds=seconds,
        )

    @contextmanager
    def started(
        self, *arguments: str, without: Sequence[str] = (), **more: str
    ) -> Iterator[Worker]:
        """Run a command beside the test."""
        with workers.started(
            *arguments, variables={**self.variables, **more}, log=self.log, without=without
        ) as worker:
            yield worker

    def swept_every(self, interval: str) -> None:
        """Make services that start later sweep each workflow at an interval such as `500ms`."""
        config = Path(self.variables["ORCHESTRA_ETL_CONFIG"])
        lines = [
            line for line in config.read_text().splitlines() if not line.startswith("interval")
        ]
        config.write_text(
            "\n".join(lines).replace("discover = true", f'discover = true\ninterval = "{interval}"')
        )

    def complete(self) -> list[str]:
        """Return the violations of C: the differences between the history and the tables."""
        return differences(self.url, self.history)

    def witnessed(self) -> list[str]:
        """Return the violations of W.

        These are runs that are not in the ledger, or that left `open` without a final read.
        """
        known = {
            row["run_id"]: row for row in query(self.url, "SELECT * FROM orchestra_etl.run_ledger")
        }
        listed = {row["id"] for one in self.history.workflow_ids for row in self.history.runs(one)}
        problems = [f"run {one} is not in the ledger" for one in sorted(listed - known.keys())]
        return problems + [
            f"run {one} is {row['tracking']} without a final read"
            for one, row in known.items()
            if row["tracking"] == "final"
            and (row["steps_observed_at"] is None or row["run_state"] is None)
        ]


@contextmanager
def world(
    url: str,
    folder: Path,
    log: Path,
    *,
    more: str = "",
    variables: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[World]:
    """Provide a history behind a simulator, and settings that connect workers to it.

    Args:
        url: the database's URL.
        folder: for the configuration.
        log: for the workers' output.
        more: TOML before the workflows.
        variables: added to the workers' environment.
        options: of `History`. By default there are three workflows with 40 finished runs each, and
            nothing changes. Every run's inputs hold the canary of payloads.
    """
    history = History(
        seed=7,
        **{"workflows": 3, "runs_per_workflow": 40, "live": 0, "arrivals_per_minute": 0, **options},
    )
    for workflow_id in history.workflow_ids:
        for run_id in history.run_ids(workflow_id, limit=1):
            history.change_run(run_id, inputs={"text": PAYLOAD})
            for step in history.steps(run_id)[:1]:
                history.change_step(
                    run_id, step["id"], inputs={"text": PAYLOAD}, outputs={"text": PAYLOAD}
                )
    config = folder / "etl.toml"
    config.write_text(configuration(*history.workflow_ids, more=more))
    with Simulator(history, api_key=API_KEY).in_thread() as simulator:
        own = environment(
            with_password(url),
            simulator.base_url,
            key=API_KEY,
            ORCHESTRA_ETL_CONFIG=str(config),
            ORCHESTRA_ETL_POLLING__LEASE="2s",
            ORCHESTRA_ETL_SERVICE__PORT="0",
            **(variables or {}),
        )
        yield World(history, simulator, url, own, log)

"""Several services that share the work through the database."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.embedded.postgres import EmbeddedPostgres
from tests.benchmarks.contenders import OURS
from tests.benchmarks.recorded import Api, Corpus, served
from tests.postgres_fixture import new_home
from tests.support import query


def replicas(runs: int, latency: float) -> dict[int, float]:
    """Return the seconds in which 1, 2 and 4 services load a history from an API.

    Args:
        runs: of the history.
        latency: of the API, in seconds.
    """
    found = {}
    home = new_home()
    folder = home / "work"
    try:
        with EmbeddedPostgres(home) as server, served(Corpus(runs, step_bytes=3000)) as api:
            for count in (1, 2, 4):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                OURS.prepare(server.url)
                api.delay(latency)
                with _services(count, api, server.url, folder):
                    begun = 0.0
                    while True:
                        [row] = query(server.url, "SELECT count(*) AS runs FROM orchestra.runs")
                        if row["runs"] and not begun:
                            # Only the load is timed; a single service does the start and the sweep
                            # before it.
                            begun, first = time.perf_counter(), row["runs"]
                        if row["runs"] == runs:
                            break
                        time.sleep(0.05)
                    # A tiny history may be loaded at the first look.
                    found[count] = (time.perf_counter() - begun) * runs / max(runs - first, 1)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return found


def budgeted(runs: int, rate: int, count: int = 4) -> float:
    """Return the requests per second of `count` services under one budget of `rate`."""
    home = new_home()
    folder = home / "work"
    folder.mkdir()
    try:
        with EmbeddedPostgres(home) as server, served(Corpus(runs, step_bytes=3000)) as api:
            OURS.prepare(server.url)
            with _services(count, api, server.url, folder, requests_per_second=rate):
                while api.requests() == 0:
                    time.sleep(0.01)
                begun = time.perf_counter()
                while api.requests() < runs:
                    time.sleep(0.01)
                return api.requests() / (time.perf_counter() - begun)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _services(
    count: int, api: Api, url: str, folder: Path, requests_per_second: int = 0
) -> Iterator[None]:
    _, variables = OURS.command(api, url, folder)
    more = {
        "ORCHESTRA_ETL_SERVICE__PORT": "0",
        "ORCHESTRA_ETL_API__REQUESTS_PER_SECOND": str(requests_per_second),
    }
    command = [sys.executable, "-m", "etl", "serve"]
    started = [
        subprocess.Popen(
            command, env={**os.environ, **variables, **more}, stderr=subprocess.DEVNULL
        )
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()

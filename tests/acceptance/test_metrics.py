"""Metrics agree with what happened, and include all that alerts and panels query."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests.conftest import ROOT
from tests.processes import started
from tests.support import configuration, environment, free_port, query, wait_until

NAME = re.compile(r"\borchestra_etl_\w+")
ALERTS = ROOT / "config" / "prometheus" / "alerts.yml"
PANELS = ROOT / "config" / "grafana" / "orchestra-etl.json"

Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


class Exposition:
    """The content of `/metrics`."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples: Samples = {}
        for family in self.families:
            for sample in family.samples:
                self.samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = (
                    sample.value
                )

    def value(self, name: str, **labels: str) -> float:
        """Return one sample."""
        return self.samples[f"orchestra_etl_{name}"][tuple(sorted(labels.items()))]

    def total(self, name: str) -> float:
        """Return the sum of all samples of a name."""
        return sum(self.samples.get(f"orchestra_etl_{name}", {}).values())


def scrape(port: int) -> Exposition:
    """Request the service's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        return Exposition(response.read().decode())


@pytest.fixture(scope="module")
def history() -> History:
    """Provide two workflows with 30 finished runs each."""
    return History(seed=9, workflows=2, runs_per_workflow=30, live=0, arrivals_per_minute=0)


@pytest.fixture
def scraped(
    history: History, database_url: str, tmp_path: Path
) -> Iterator[tuple[Exposition, Simulator]]:
    """Provide the metrics of a service that has loaded everything, and its server."""
    config = tmp_path / "etl.toml"
    config.write_text(configuration(*history.workflow_ids))
    port = free_port()
    with Simulator(history).in_thread() as simulator:
        variables = environment(
            database_url, simulator.base_url, ORCHESTRA_ETL_SERVICE__PORT=str(port)
        )
        with started("--config", str(config), "serve", variables=variables):
            final = "SELECT count(*) AS n FROM orchestra.runs WHERE tracking = 'final'"
            wait_until(lambda: query(database_url, final) == [{"n": 60}])
            wait_until(
                lambda: (
                    scrape(port).total("due_runs") == 0
                    and scrape(port).total("newest_run_start_timestamp_seconds") > 0
                )
            )
            yield scrape(port), simulator


def test_metrics_agree_with_the_database_and_the_server(
    scraped: tuple[Exposition, Simulator], history: History, database_url: str
) -> None:
    """Steps, runs, sweeps, batches and requests agree with the tables and the server's counts."""
    found, simulator = scraped
    [stored] = query(database_url, "SELECT count(*) AS steps FROM orchestra.steps")
    assert found.value("steps_total", change="inserted") == stored["steps"]
    assert found.value("load_batch_steps_sum") == found.total("steps_total")
    assert found.value("runs_read_total") >= 60
    assert found.total("runs_found_total") == 60
    assert found.value("load_batch_steps_count") == found.value("load_duration_seconds_count")
    for endpoint in ("steps", "runs", "workflows"):
        answered = found.value("requests_total", endpoint=endpoint, status="200")
        assert 0 < answered <= simulator.requests[endpoint]
        assert found.value("request_duration_seconds_count", endpoint=endpoint) == answered
    for workflow_id in history.workflow_ids:
        [newest] = query(
            database_url,
            "SELECT extract(epoch FROM max(start_time))::float AS at FROM orchestra.runs"
            " WHERE workflow_id = %s",
            workflow_id,
        )
        assert found.value(
            "newest_run_start_timestamp_seconds", workflow=workflow_id
        ) == pytest.approx(newest["at"])
        assert found.value("verdict", workflow=workflow_id) == 0
        assert found.value("sweeps_total", workflow=workflow_id, complete="true") >= 1
        for name in ("dead_letters", "gaps", "failing_runs", "stale_runs", "lag_seconds"):
            assert found.value(name, workflow=workflow_id) == 0
    assert found.value("ready") == 1


@pytest.mark.slow
def test_alerts_and_panels_query_exported_metrics(scraped: tuple[Exposition, Simulator]) -> None:
    """Every metric that an alert or a panel queries is exported.

    Every exported metric has a help text.
    """
    found, _ = scraped
    exported = set(found.samples) | {family.name for family in found.families}
    panels = json.loads(PANELS.read_text())["panels"]
    expressions = {target["expr"] for panel in panels for target in panel["targets"]}
    expressions |= set(re.findall(r"^\s+expr: (.+)$", ALERTS.read_text(), re.MULTILINE))
    assert len(expressions) > 20
    for expression in expressions:
        assert expression.count("(") == expression.count(")")
        assert set(NAME.findall(expression)) <= exported
    assert all(family.documentation for family in found.families)
    assert len({panel["id"] for panel in panels}) == len(panels)

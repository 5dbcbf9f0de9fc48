"""The commands of the export, and the export on a schedule."""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl import app, settings
from etl.reports import status
from etl.service.metrics import Metrics
from etl.simulator.history import History
from etl.simulator.server import Simulator
from tests import lake_reader
from tests.command_line import Command, command_line
from tests.processes import environment_of, started
from tests.support import configuration, environment, query, wait_until


@pytest.fixture
def command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
) -> Command:
    """Provide the command line with a lake in a folder, and one stored run."""
    query(
        database_url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)"
        " VALUES ('r', 'w', 'succeeded', 'api', 'final', '2026-11-03 12:00Z')",
    )
    toml = '[export]\nlocation = "lake"\n'
    return command_line(tmp_path, monkeypatch, capsys, toml, DATABASE_URL=database_url)


def test_a_lake_beside_the_configuration(command: Command, tmp_path: Path) -> None:
    """The folder is relative to the configuration file; each command reports what it did."""
    assert command("export", "status").out.startswith("nothing is exported yet")
    assert "1 day exported: runs 1" in command("export", "run").out
    assert "nothing to do" in command("export", "run").out
    assert [row["id"] for row in lake_reader.rows(tmp_path / "lake", "runs")] == ["r"]
    shown = command("export", "status", "--json").json
    assert (shown["location"], shown["days"], shown["waiting"]) == (str(tmp_path / "lake"), 1, 0)
    [runs] = [one for one in shown["tables"] if one["name"] == "runs"]
    assert (runs["rows"], runs["files"], runs["snapshots"]) == (1, 1, 1)
    assert Path(runs["metadata"]).exists()
    assert "1, 0 waiting" in command("export", "status").out
    assert command("export", "gc", "--json").json == {"files": 0, "bytes": 0}


def test_status_and_metrics_show_what_waits(
    command: Command, tmp_path: Path, database_url: str
) -> None:
    """`status` and `/metrics` show how many days wait, since when, and when all was exported."""
    assert command("status", "--json").json["lake"] is None
    command("export", "run")
    shown = command("status", "--json").json["lake"]
    exported = datetime.fromisoformat(shown["exported_at"])
    assert (shown["waiting"], shown["waiting_since"]) == (0, None)
    query(database_url, "UPDATE orchestra.runs SET status = 'other'")
    query(
        database_url,
        "UPDATE orchestra_etl.changed_days SET queued_at = queued_at - interval '1 hour'",
    )
    query(database_url, "UPDATE orchestra.runs SET status = 'another'")
    assert command("status", "--json").json["lake"]["waiting"] == 1
    assert "1 day waiting, the first since" in " ".join(command("status").out.split())
    metrics = Metrics()
    with app.open_database(
        settings.load(tmp_path / "etl.toml", {"DATABASE_URL": database_url})
    ) as database:
        found = database.transaction(
            lambda c: status.read(c, (), all_workflows=False, max_age=60.0)
        )
    metrics.set_status(found)
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics.exposition(ready=True).decode())
        for sample in family.samples
        if sample.labels == {"namespace": "orchestra"}
    }
    assert samples.pop("orchestra_etl_lake_days_waiting") == 1
    assert 3600 <= samples.pop("orchestra_etl_lake_oldest_wait_seconds") < 4200
    assert samples == {"orchestra_etl_lake_exported_timestamp_seconds": exported.timestamp()}
    metrics.set_status(None)
    assert "lake_days_waiting{" not in metrics.exposition(ready=True).decode()


def test_days_before_since_and_payloads_wait(command: Command) -> None:
    """`--since` and `--without-payloads` leave days to a later export, and `run` says so."""
    assert "nothing to do" in command("export", "run", "--since", "2026-11-04").out
    assert command("export", "status", "--json").json["waiting"] == 1
    assert command("export", "run", "--since", "2026-11-03", "--json").json["days"] == 1
    printed = command("export", "run", "--full", "--without-payloads", "--json")
    assert (printed.json["days"], printed.json["waiting_for_payloads"]) == (1, 0)
    assert command("export", "run", "--since", "yesterday-ish").status == 2


def test_a_second_exporter_says_so(command: Command, database_url: str) -> None:
    """`run` and `gc` beside another export do nothing, say why, and are no failure."""
    command("export", "run")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM orchestra_etl.export_state FOR UPDATE")
        for name in ("run", "gc"):
            printed = command("export", name)
            assert printed.status == 0
            assert printed.out.startswith("another process is exporting")
        assert command("export", "run", "--json").json["busy"] is True
        assert command("export", "gc", "--json").json["busy"] is True


def test_before_the_first_export(command: Command) -> None:
    """Commands that need an export say that there is none."""
    assert command("export", "gc", "--json").json == {"files": 0, "bytes": 0}
    printed = command("prune", "--exported", "--runs-older-than", "1d", "--yes")
    assert (printed.status, printed.out) == (10, "")
    assert "nothing was removed: nothing has been exported yet" in printed.err


def test_damaged_metadata_is_an_error_of_the_lake(command: Command, tmp_path: Path) -> None:
    """A table's metadata that is not JSON is reported as a damaged lake, by each command."""
    command("export", "run")
    [runs] = [
        one for one in command("export", "status", "--json").json["tables"] if one["name"] == "runs"
    ]
    Path(runs["metadata"]).write_text('{"broken')
    for arguments in ("status",), ("verify",), ("run", "--full"), ("gc",):
        printed = command("export", *arguments)
        assert (printed.status, printed.out) == (10, "")
        assert "is damaged" in printed.err


def test_without_a_lake_or_its_packages(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which setting is missing, or how to install the extra packages."""
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    printed = command("export", "run")
    assert (printed.status, printed.out) == (2, "")
    assert "install 'orchestra-etl[export]'" in printed.err
    (tmp_path / "etl.toml").write_text("")
    printed = command("export", "run")
    assert printed.status == 2
    assert "set location under [export]" in printed.err


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('location = "ftp://host/lake"', "must be a folder, or begin with s3://"),
        ('location = "s3://key:secret@bucket/lake"', "must hold only letters"),
        ('location = "s3://key@bucket/lake"', "must not hold a user or password"),
        ('location = " "', "is not the name of a folder"),
        ('every = "1h"', "every needs location"),
        ('location = "lake"\nnamespace = "A-b"', "must be a name of lower-case letters"),
        ('location = "lake"\nfile_bytes = 1', "greater than or equal to 1048576"),
    ],
)
def test_wrong_settings(command: Command, tmp_path: Path, toml: str, problem: str) -> None:
    """A wrong setting of the export is named, and no secret is shown."""
    (tmp_path / "etl.toml").write_text(f"[export]\n{toml}\n")
    printed = command("export", "run")
    assert printed.status == 2
    assert problem in printed.err
    assert "secret" not in printed.err


def test_a_schema_without_the_export(command: Command, database_url: str) -> None:
    """An older schema is named with the command that upgrades it."""
    query(database_url, "UPDATE orchestra_etl.alembic_version SET version_num = '0002'")
    printed = command("export", "run")
    assert printed.status == 4
    assert "orchestra-etl db upgrade" in printed.err


@pytest.mark.slow
def test_the_service_exports_on_schedule(tmp_path: Path, database_url: str) -> None:
    """With `[export] every`, `serve` exports what it has loaded, and ends within its time."""
    history = History(seed=5, workflows=1, runs_per_workflow=5, live=0, arrivals_per_minute=0)
    with Simulator(history).in_thread() as simulator:
        config = tmp_path / "etl.toml"
        config.write_text(
            configuration(
                *history.workflow_ids,
                more='[service]\nport = 0\n[export]\nlocation = "lake"\nevery = "1s"',
            )
        )
        variables = environment_of(environment(database_url, simulator.base_url))

        def exported() -> bool:
            hint = tmp_path / "lake/orchestra/runs/metadata/version-hint.text"
            return hint.exists() and len(lake_reader.arrow(tmp_path / "lake", "runs")) == 5

        with started("--config", str(config), "serve", variables=variables) as process:
            wait_until(exported)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0

"""The command as users run it: a process with signals, exit statuses and output."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.simulator.folder import Folder
from etl.simulator.history import History
from etl.simulator.misbehaviour import Misbehaviour
from etl.simulator.server import Simulator
from tests.oracle import differences
from tests.processes import run, started
from tests.support import configuration, environment, free_port, query, slow, wait_until, writes


@pytest.fixture
def history() -> History:
    """Provide three workflows with 40 finished runs each; nothing changes."""
    return History(seed=7, runs_per_workflow=40, live=0, arrivals_per_minute=0)


@pytest.fixture
def simulator(history: History) -> Iterator[Simulator]:
    """Start a server of that history."""
    with Simulator(history).in_thread() as serving:
        yield serving


@pytest.fixture
def variables(
    simulator: Simulator, history: History, database_url: str, tmp_path: Path
) -> dict[str, str]:
    """Provide an environment with the server and a database whose schema is empty."""
    config = tmp_path / "etl.toml"
    config.write_text(configuration(*history.workflow_ids))
    return environment(
        database_url,
        simulator.base_url,
        ORCHESTRA_ETL_CONFIG=str(config),
        ORCHESTRA_ETL_POLLING__LEASE="2s",
        ORCHESTRA_ETL_SERVICE__PORT="0",
    )


def test_a_second_sync_requests_only_the_heads_of_the_lists(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """The first sync reads each run once; the second makes three requests and writes nothing."""
    first = run("sync", "--json", variables=variables, fresh=True)
    assert first.returncode == 0, first.stderr
    url = variables["DATABASE_URL"]
    assert differences(url, history) == []
    assert set(simulator.steps_requests.values()) == {1}
    assert len(simulator.steps_requests) == 120
    before = writes(url)
    second = run("sync", "--json", variables=variables)
    figures = json.loads(second.stdout)
    assert (second.returncode, figures["requests"]) == (0, 3)
    assert writes(url) == before


def test_a_failed_refresh_does_not_hide_the_load(
    variables: dict[str, str],
) -> None:
    """If the rollups cannot be refreshed, `sync` reports what it stored and exits with 4.

    The next `sync` counts the stored runs.
    """
    url = variables["DATABASE_URL"]
    query(url, "ALTER TABLE orchestra.run_rollup RENAME TO elsewhere")
    done = run("sync", "--json", variables=variables)
    report = json.loads(done.stdout)
    assert (
        done.returncode,
        report["exit_status"],
        report["load"]["runs"],
        len(report["errors"]),
    ) == (4, 4, 120, 1)
    query(url, "ALTER TABLE orchestra.elsewhere RENAME TO run_rollup")
    assert run("sync", variables=variables).returncode == 0
    assert run("rollups", "verify", variables=variables).returncode == 0
    [counted] = query(url, "SELECT sum(runs) AS runs FROM orchestra.workflow_hourly")
    assert counted["runs"] == 120


def test_the_next_sync_completes_a_killed_one(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """After SIGKILL at random moments, one sync completes the history, without duplicates."""
    seed = random.SystemRandom().randrange(1 << 32)
    moments = random.Random(seed)
    simulator.misbehave(Misbehaviour(delay=0.03))
    for _ in range(4):
        limit = sum(simulator.requests.values()) + moments.randrange(40)
        with started("sync", variables=variables) as process:

            def is_over(process=process, limit=limit) -> bool:  # type: ignore[no-untyped-def]
                return sum(simulator.requests.values()) >= limit or process.poll() is not None

            wait_until(is_over)
            process.kill()
    done = run("sync", variables=variables)
    assert done.returncode == 0, (seed, done.stderr)
    assert differences(variables["DATABASE_URL"], history) == [], seed


def test_two_syncs_and_a_service_at_once(history: History, variables: dict[str, str]) -> None:
    """Two syncs and a service on one database load the history without a deadlock."""
    url = variables["DATABASE_URL"]
    with started("serve", variables=variables) as service:
        with (
            started("sync", variables=variables) as one,
            started("sync", variables=variables) as two,
        ):
            assert one.wait(300) == 0, one.stderr and one.stderr.read()
            assert two.wait(300) == 0, two.stderr and two.stderr.read()
        assert differences(url, history) == []
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
    assert query(
        url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [{"deadlocks": 0}]


@pytest.mark.parametrize("number", [signal.SIGTERM, *slow(signal.SIGINT, signal.SIGHUP)])
def test_a_signal_ends_the_service_cleanly(
    history: History, simulator: Simulator, variables: dict[str, str], number: signal.Signals
) -> None:
    """A service loads the history; a signal ends it with 0 and releases every claim."""
    url = variables["DATABASE_URL"]
    # A new interpreter would inherit an ignored SIGHUP of tests that run under nohup.
    fresh = number != signal.SIGHUP
    with started("serve", variables=variables, fresh=fresh) as service:
        wait_until(
            lambda: (
                query(url, "SELECT count(*) AS n FROM orchestra.runs WHERE tracking = 'final'")
                == [{"n": 120}]
            )
        )
        assert differences(url, history) == []
        simulator.misbehave(Misbehaviour(delay=600.0, endpoints=("steps",)))
        query(url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
        wait_until(
            lambda: (
                query(
                    url, "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE leased_until > now()"
                )
                != []
            )
        )
        service.send_signal(number)
        assert service.wait(120) == 0
    assert query(
        url, "SELECT count(*) AS n FROM orchestra_etl.run_ledger WHERE leased_until IS NOT NULL"
    ) == [{"n": 0}]


def test_a_second_signal_ends_at_once(simulator: Simulator, variables: dict[str, str]) -> None:
    """A second SIGTERM ends the service with 143 without waiting."""
    with started("serve", variables=variables, fresh=True) as service:
        simulator.misbehave(Misbehaviour(delay=600.0))
        url = variables["DATABASE_URL"]
        wait_until(lambda: query(url, "SELECT 1 AS one FROM orchestra_etl.sweeps") != [])
        service.send_signal(signal.SIGTERM)
        service.send_signal(signal.SIGTERM)
        status = service.wait(120)
    # The first signal may have ended the service already, as both arrive within microseconds.
    assert status in (143, 0)


def test_health_and_metrics(history: History, variables: dict[str, str]) -> None:
    """/readyz returns ok, or 503 and the reason if the key is refused.

    /metrics counts the loaded runs.
    """
    port = free_port()
    variables["ORCHESTRA_ETL_SERVICE__PORT"] = str(port)
    url = variables["DATABASE_URL"]

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    with started("serve", variables=variables):
        wait_until(
            lambda: (
                query(url, "SELECT count(*) AS n FROM orchestra.runs WHERE tracking = 'final'")
                == [{"n": 120}]
            )
        )
        wait_until(lambda: "orchestra_etl_runs_read_total 120.0" in get("/metrics")[1])
        assert get("/livez") == (200, "ok\n")
        assert get("/readyz") == (200, "ok\n")
    variables["ORCHESTRA_API_KEY"] = "wrong"
    with started("serve", variables=variables):
        wait_until(lambda: _reachable(get) and get("/readyz")[0] == 503)
        assert "header_name" in get("/readyz")[1]
        assert get("/livez")[0] == 200


def _reachable(get: Callable[[str], Any]) -> bool:
    try:
        get("/livez")
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"ORCHESTRA_API_KEY": "wrong"}, 3, "header_name"),
        ({"ORCHESTRA_API_KEY": ""}, 2, "ORCHESTRA_API_KEY"),
        ({"ORCHESTRA_BASE_URL": "http://127.0.0.1:9/api"}, 5, "refused"),
        ({"ORCHESTRA_BASE_URL": "ftp://x"}, 2, "base_url"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/x"}, 4, "DATABASE_URL"),
        ({"ORCHESTRA_ETL_POLLING__LAESE": "1s"}, 2, "lease"),
    ],
)
def test_errors_have_one_line_and_their_own_status(
    variables: dict[str, str], change: dict[str, str], status: int, words: str
) -> None:
    """Each kind of error exits with its own status and one line that says what to do."""
    variables.update(change, ORCHESTRA_ETL_DATABASE__PATIENCE="1s", ORCHESTRA_ETL_API__ATTEMPTS="2")
    done = run("sync", variables=variables)
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, words.lower() in last.lower()) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_api_with_all_workflows_is_an_error(variables: dict[str, str]) -> None:
    """With `api.all_workflows`, an unreachable API exits with 5 and an unlisted id with 2."""
    Path(variables["ORCHESTRA_ETL_CONFIG"]).write_text("[api]\nall_workflows = true\n")
    unknown = run("sync", "--workflow", "typo", variables=variables)
    assert (unknown.returncode, unknown.stdout, "workflow typo" in unknown.stderr) == (2, "", True)
    variables.update(ORCHESTRA_BASE_URL="http://127.0.0.1:9/api", ORCHESTRA_ETL_API__ATTEMPTS="1")
    for command in ("sync", "backfill"):
        done = run(command, variables=variables)
        assert (done.returncode, done.stdout, "refused" in done.stderr) == (5, "", True), (
            done.stderr
        )


def test_a_missing_or_newer_schema_is_named(
    variables: dict[str, str], empty_database_url: str
) -> None:
    """A missing schema exits with 4 and names `db upgrade`; a newer one exits with 4, too."""
    variables["DATABASE_URL"] = empty_database_url
    without = run("sync", variables=variables)
    assert (without.returncode, "db upgrade" in without.stderr) == (4, True)
    assert run("db", "upgrade", variables=variables).returncode == 0
    assert run("sync", variables=variables).returncode == 0
    query(
        empty_database_url,
        "UPDATE orchestra_etl.alembic_version SET version_num = '9999', oldest_program = '9999'",
    )
    newer = run("sync", variables=variables)
    assert (newer.returncode, "newer" in newer.stderr) == (4, True)


def test_a_broken_response_is_reported_once_and_loses_nothing(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """Two broken responses end one sync with 6; the other runs are loaded, and later those two."""
    html, cut = history.run_ids(history.workflow_ids[0])[:2]
    good = simulator.steps_bodies.copy()
    simulator.steps_bodies[html] = b"<html>sorry</html>"
    simulator.steps_bodies[cut] = b'[{"id": "x", "status": "comp'
    first = run("sync", variables=variables)
    assert first.returncode == 6, first.stderr
    assert "dead letters" in first.stdout
    url = variables["DATABASE_URL"]
    assert query(url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": 118}]
    query(url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")
    assert run("sync", variables=variables).returncode == 0
    simulator.steps_bodies.clear()
    simulator.steps_bodies.update(good)
    query(url, "UPDATE orchestra_etl.run_ledger SET due_at = now() WHERE due_at IS NOT NULL")
    assert run("sync", variables=variables).returncode == 0
    assert differences(url, history) == []
    assert query(url, "SELECT DISTINCT resolution FROM orchestra_etl.dead_letters") == [
        {"resolution": "loaded"}
    ]


def test_more_new_runs_than_the_list_shows_are_a_recorded_gap(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """More new runs than the list shows end the sync with 6 and one gap; the next exits with 0."""
    simulator.misbehave(Misbehaviour(list_cap=30, endpoints=("runs",)))
    assert run("sync", variables=variables).returncode == 0
    history.add_runs(history.workflow_ids[0], 35)
    gap = run("sync", variables=variables)
    assert (gap.returncode, "gap" in gap.stdout) == (6, True)
    assert run("sync", variables=variables).returncode == 0
    url = variables["DATABASE_URL"]
    gaps = query(url, "SELECT workflow_id, after_time IS NOT NULL AS known FROM orchestra_etl.gaps")
    assert gaps == [{"workflow_id": history.workflow_ids[0], "known": True}]


def test_track_reads_the_response_of_execute(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """`track` reads ids from Execute's response; a list corrects a wrong workflow."""
    wrong, right = history.workflow_ids[:2]
    run_id = history.run_ids(right)[0]
    response = json.dumps({"message": "Workflow execution started", "run_id": run_id})
    tracked = run("track", wrong, "-", variables=variables, input=f"{response}\n")
    assert (tracked.returncode, "1 new run and 0 known runs will be read" in tracked.stdout) == (
        0,
        True,
    ), tracked.stderr
    assert run("sync", variables=variables).returncode == 0
    assert differences(variables["DATABASE_URL"], history) == []


def test_a_sync_survives_cut_connections(
    history: History, simulator: Simulator, variables: dict[str, str]
) -> None:
    """A sync completes although all its database connections are cut repeatedly."""
    simulator.misbehave(Misbehaviour(delay=0.05))
    url = variables["DATABASE_URL"]
    with started("sync", variables=variables) as process:
        cut = 0
        while process.poll() is None and cut < 30:
            time.sleep(0.1)
            with psycopg.connect(url, autocommit=True) as connection:
                cut += connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                ).fetchall()[0][0]
        assert process.wait(240) == 0, process.stderr and process.stderr.read()
    assert cut > 0
    assert differences(url, history) == []


@pytest.mark.parametrize("command", ["sync", "serve"])
def test_the_sample_by_the_command(
    command: str, tmp_path: Path, database_url: str, sample_steps: bytes, variables: dict[str, str]
) -> None:
    """`sync` and `serve` load the real response of a tracked run; a second poll writes nothing."""
    workflow, run_id = (
        "1234f567-bb12-1234-b7cd-f7a71a98cd24",
        "5b69669f-975a-49af-a33a-61ff9ae5a20f",
    )
    folder = tmp_path / "served" / workflow / run_id
    folder.mkdir(parents=True)
    (folder / "steps.json").write_bytes(sample_steps)
    Path(variables["ORCHESTRA_ETL_CONFIG"]).write_text(configuration(workflow, discover=False))
    with Simulator(Folder(tmp_path / "served")).in_thread() as server:
        variables["ORCHESTRA_BASE_URL"] = server.base_url
        assert run("track", workflow, run_id, variables=variables).returncode == 0

        def polled(times: int) -> bool:
            consumed = (
                "SELECT 1 AS one FROM orchestra_etl.run_ledger WHERE checks > 0"
                " AND leased_until IS NULL"
            )
            return server.steps_requests[run_id] >= times and query(database_url, consumed) != []

        def poll(times: int) -> None:
            query(database_url, "UPDATE orchestra_etl.run_ledger SET due_at = now()")
            if command == "sync":
                assert run("sync", variables=variables).returncode == 0
            else:
                with started("serve", variables=variables) as service:
                    wait_until(lambda: polled(times))
                    service.send_signal(signal.SIGTERM)
                    assert service.wait(120) == 0
            assert polled(times)

        poll(1)
        before = writes(database_url)
        assert before == {
            "runs": (1, 0, 0),
            "run_payloads": (0, 0, 0),
            "steps": (2, 0, 0),
            "inputs": (2, 0, 0),
            "outputs": (2, 0, 0),
        }
        poll(2)
        assert writes(database_url) == before
    steps = query(
        database_url,
        "SELECT id, duration_ms, response_model, total_tokens FROM orchestra.steps"
        " ORDER BY position",
    )
    assert [tuple(step.values()) for step in steps] == [
        ("b2acc986-af06-418a-bf71-c730d5ghaf0b", 2237.692, "virtuoso-medium", 84),
        ("ad6edfea-bf1c-4639-9d9f-b53c9ad60bgg", 1775.644, None, None),
    ]


def test_a_backfill_with_reread_reads_final_runs_again(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """`backfill --reread --since` reads the final runs of that time again, and writes no row."""
    assert run("sync", variables=variables).returncode == 0
    url = variables["DATABASE_URL"]
    newest = query(
        url, "SELECT id, start_time FROM orchestra.runs ORDER BY start_time DESC LIMIT 5"
    )
    before = writes(url)
    simulator.reset_counts()
    since = newest[-1]["start_time"].strftime("%Y-%m-%dT%H:%M:%S")
    done = run("backfill", "--reread", "--since", since, "--json", variables=variables)
    assert (done.returncode, json.loads(done.stdout)["load"]["runs"]) == (0, 5), done.stderr
    assert set(simulator.steps_requests) == {row["id"] for row in newest}
    assert writes(url) == before


def test_a_backfill_of_a_time_reads_that_time_only(
    simulator: Simulator, history: History, variables: dict[str, str]
) -> None:
    """`backfill --since --until` lists all runs, reads those of that time, and leaves the others.

    The next sync reads the others.
    """
    starts = sorted(row["start_time"] for one in history.workflow_ids for row in history.runs(one))
    since, until = (start.rstrip("Z").partition(".")[0] for start in (starts[30], starts[50]))
    done = run("backfill", "--since", since, "--until", until, "--json", variables=variables)
    assert done.returncode == 0, done.stderr
    wanted = sum(since <= start < until for start in starts)
    assert 15 < wanted < 25
    url = variables["DATABASE_URL"]
    counts = "SELECT count(*) AS n FROM orchestra.runs WHERE start_time >= %s AND start_time < %s"
    assert query(url, counts, since, until) == [{"n": wanted}]
    assert query(url, "SELECT count(*) AS n FROM orchestra.runs") == [{"n": wanted}]
    assert query(url, "SELECT count(*) AS n FROM orchestra_etl.run_ledger") == [{"n": 120}]
    assert run("sync", variables=variables).returncode == 0
    assert differences(url, history) == []

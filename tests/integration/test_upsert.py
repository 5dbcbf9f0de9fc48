"""The write of a batch, with a real PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import event

from etl.database import Database
from etl.load.batch import RunWrite, WriteReport
from etl.load.upsert import write
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_run
from etl.transform.states import StateMap
from tests.support import query, wait_until

STATES = StateMap()


def found(run_id: str = "r", *, steps: str = "[]", **row: Any) -> RunWrite:
    """Return a finished run as the API shows it: fields of its row, and its steps."""
    content = {
        "id": run_id,
        "status": "completed",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": None,
        **row,
    }
    decoded = decode_run(msgspec.json.encode(content), states=STATES)
    return RunWrite(
        id=run_id,
        workflow_id="w",
        tracking="open",
        observed=decoded.run,
        stored=False,
        derived_state="succeeded",
        start_time=None,
        end_time=None,
        user_id=None,
        organization_id=None,
        steps=decode_steps(steps.encode(), workflow_id="w", run_id=run_id, states=STATES).steps,
        complete=True,
    )


def written(database: Database, *runs: RunWrite) -> WriteReport:
    """Write a batch and return what it changed."""
    return database.transaction(lambda connection: write(connection, runs))


def outputs(url: str) -> list[Any]:
    """Return the stored outputs of all runs."""
    return [
        row["outputs"]
        for row in query(url, "SELECT outputs FROM orchestra.run_payloads ORDER BY run_id")
    ]


def test_the_last_of_changing_payloads_is_stored(database: Database, database_url: str) -> None:
    """If only payloads change, and change back, the last ones are stored.

    The run itself counts as unchanged.
    """
    for value in ("first", "second", "first", "second"):
        done = written(database, found(outputs=value, inputs={"a": 1}))
        assert outputs(database_url) == [value]
        assert done.runs_updated == 0
    [run] = query(database_url, "SELECT first_seen_at, updated_at FROM orchestra.runs")
    assert run["first_seen_at"] == run["updated_at"]


def test_the_next_read_corrects_manual_changes(database: Database, database_url: str) -> None:
    """A state, tracking or workflow changed by hand is corrected by the next equal response."""
    written(database, found())
    for change in ("state = 'failed'", "tracking = 'stale'", "workflow_id = 'elsewhere'"):
        query(database_url, f"UPDATE orchestra.runs SET {change}")
        assert written(database, found()).runs_updated == 1
        [run] = query(database_url, "SELECT state, tracking, workflow_id FROM orchestra.runs")
        assert run == {"state": "succeeded", "tracking": "open", "workflow_id": "w"}


def test_an_unchanged_batch_sends_no_rows(database: Database) -> None:
    """A batch without changes sends no rows through COPY and creates no table for them."""
    steps = '[{"id": "s", "status": "completed", "inputs": {"a": 1}, "outputs": null}]'
    batch = [found(run, steps=steps.replace('"s"', f'"{run}s"'), outputs=1) for run in ("a", "b")]
    assert written(database, *batch).steps_inserted == 2
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        statements.append(statement)

    event.listen(database._engine, "before_cursor_execute", note)
    done = written(database, *batch)
    assert (done.runs_inserted, done.runs_updated, done.steps_inserted, done.steps_updated) == (
        0,
        0,
        0,
        0,
    )
    assert statements
    assert not [statement for statement in statements if "TEMPORARY" in statement]


@pytest.mark.parametrize("member", ["inputs", "outputs"])
def test_payloads_of_new_and_of_changed_steps(
    database: Database, database_url: str, member: str
) -> None:
    """One batch can insert a new step's payload, replace a changed one and add a late one."""
    steps = [{"id": "a", "status": "running", member: {"n": 1}}, {"id": "b", "status": "pending"}]
    written(database, found(steps=msgspec.json.encode(steps).decode()))
    steps = [
        {"id": "a", "status": "completed", member: {"n": 2}},
        {"id": "b", "status": "completed", member: None},
        {"id": "c", "status": "completed", member: [3]},
    ]
    done = written(database, found(steps=msgspec.json.encode(steps).decode()))
    assert (done.steps_inserted, done.steps_updated) == (1, 2)
    stored = query(database_url, f"SELECT step_id, data FROM orchestra.{member} ORDER BY step_id")
    assert [(row["step_id"], row["data"]) for row in stored] == [
        ("a", {"n": 2}),
        ("b", None),
        ("c", [3]),
    ]


def test_a_step_keeps_the_payload_of_its_owner(database: Database, database_url: str) -> None:
    """A step keeps its owner's payload if a run of the same or a later batch claims its id."""
    step = '[{"id": "s", "status": "completed", "outputs": "OWNER"}]'
    newcomer = step.replace("OWNER", "newcomer")
    done = written(database, found("a", steps=step), found("b", steps=newcomer))
    done.rejected += written(database, found("c", steps=newcomer)).rejected
    assert [(run, one.reason) for _, run, one in done.rejected] == [
        ("b", "id_conflict"),
        ("c", "id_conflict"),
    ]
    stored = query(
        database_url,
        "SELECT run_id, data FROM orchestra.steps JOIN orchestra.outputs ON step_id = id",
    )
    assert stored == [{"run_id": "a", "data": "OWNER"}]


def test_new_rows_are_not_staged(database: Database, database_url: str) -> None:
    """A batch of new runs is copied directly into the tables; a changed one is staged."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        statements.append(statement)

    event.listen(database._engine, "before_cursor_execute", note)
    steps = '[{"id": "s", "status": "running", "outputs": 1}]'
    done = written(database, found(steps=steps, outputs=2))
    assert (done.runs_inserted, done.steps_inserted) == (1, 1)
    assert not [one for one in statements if "staged" in one]
    assert outputs(database_url) == [2]
    done = written(database, found(steps=steps.replace("running", "completed"), outputs=3))
    assert (done.runs_updated, done.steps_updated) == (0, 1)
    assert [one for one in statements if "staged_runs" in one]
    assert [one for one in statements if "staged_steps" in one]


def test_a_key_that_appears_during_a_copy_is_replaced(
    database: Database, database_url: str
) -> None:
    """If another transaction has inserted a new run or step in the meantime, the batch is staged.

    Only a load without the ledger's locks can meet this.
    """
    steps = '[{"id": "a", "status": "completed"}, {"id": "b", "status": "completed"}]'
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute(
            "INSERT INTO orchestra.runs (id, workflow_id, tracking, state, status_source,"
            " content_hash) VALUES ('r', 'w', 'open', 'running', 'api', '')"
        )
        other.execute(
            "INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)"
            " VALUES ('b', 'r', 'w', 0, 'running', '')"
        )
        done = pool.submit(written, database, found(steps=steps, outputs=1))
        waiting = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        wait_until(lambda: bool(query(database_url, waiting)))
        other.commit()
        report = done.result(60)
    assert (report.runs_inserted, report.runs_updated) == (0, 1)
    assert (report.steps_inserted, report.steps_updated) == (1, 1)
    stored = query(database_url, "SELECT id, state FROM orchestra.steps ORDER BY id")
    assert [(row["id"], row["state"]) for row in stored] == [("a", "succeeded"), ("b", "succeeded")]
    [run] = query(database_url, "SELECT state FROM orchestra.runs")
    assert run["state"] == "succeeded"
    assert outputs(database_url) == [1]

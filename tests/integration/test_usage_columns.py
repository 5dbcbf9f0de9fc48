"""Usage in responses of every provider, as stored in the columns of their steps."""

from __future__ import annotations

import json

import msgspec

from etl.database import Database
from etl.load.batch import RunWrite
from etl.load.upsert import write
from etl.transform.decode import decode_steps
from etl.transform.runs import decode_run
from etl.transform.states import StateMap
from etl.usage import Usage
from tests.provider_bodies import SAMPLES
from tests.support import query

STATES = StateMap()


def test_every_field_has_its_column(database_url: str) -> None:
    """Each field of a response's usage is in its column, beside the model and finish reason."""
    response = [
        {"id": f"s{index:03}", "status": "completed", "outputs": one.body}
        for index, one in enumerate(SAMPLES)
    ]
    decoded = decode_steps(
        json.dumps(response).encode(), workflow_id="w", run_id="r", states=STATES
    )
    assert decoded.drift == ()
    run = decode_run(b'{"id": "r", "status": "completed"}', states=STATES).run
    found = RunWrite(
        id="r", workflow_id="w", tracking="open", observed=run, stored=False,
        derived_state="succeeded", start_time=None,
        end_time=None, user_id=None, organization_id=None, steps=decoded.steps, complete=True,
    )  # fmt: skip
    database = Database(database_url)
    try:
        database.transaction(lambda connection: write(connection, [found]))
    finally:
        database.close()
    rows = query(database_url, "SELECT * FROM orchestra.steps ORDER BY id")
    for row, step, sample in zip(rows, decoded.steps, SAMPLES, strict=True):
        assert {name: row[name] for name in Usage.__struct_fields__} == msgspec.structs.asdict(
            step.usage
        ), sample.name
        assert {name: row[name] for name in sample.usage} == sample.usage
        assert (row["response_model"], row["finish_reason"]) == (sample.model, sample.finish_reason)

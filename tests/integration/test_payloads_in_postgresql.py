"""PostgreSQL accepts every value that the transform stage produces."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal

import psycopg
import pytest
from msgspec import Raw

from etl.records import Step
from etl.transform.decode import decode_steps
from etl.transform.payloads import payload
from etl.transform.states import StateMap
from tests.hostile import CLEAN_VALUES, READABLE_TIMES, REFUSED_VALUES, USABLE_IDS, step_with
from tests.support import query, slow

_MAX_JSON_LEVELS = 300  # the depth that Python's own parser can read
SHORT = [value for value in (*REFUSED_VALUES, *CLEAN_VALUES) if len(value) < 1_000]
LONG = [value for value in REFUSED_VALUES if len(value) >= 1_000]


def _stored(
    connection: psycopg.Connection[tuple[object, ...]], values: Iterable[str], as_type: str
) -> list[object]:
    """Return the values after a round trip through a column of the type.

    Raise the error that the load would raise if the column refuses a value.
    """
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS held_{as_type} (value {as_type})".encode())
    with connection.cursor().copy(f"COPY held_{as_type} FROM STDIN".encode()) as copy:
        for value in values:
            copy.write_row([value])
    return [
        row[0]
        for row in connection.execute(f"DELETE FROM held_{as_type} RETURNING value::text".encode())
    ]


def test_every_payload_is_accepted(empty_database_url: str) -> None:
    """jsonb accepts `data` of every value in the corpus; `data` or `raw` holds the exact bytes."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for value in CLEAN_VALUES + REFUSED_VALUES:
            held = payload(Raw(value), suspect=True)
            assert held.data is not None
            data = bytes(held.data)
            (back,) = _stored(connection, [data.decode()], "jsonb")
            assert (data if held.raw is None else held.raw) == value
            if len(value) < 10_000 and value.count(b"[") < _MAX_JSON_LEVELS:
                assert isinstance(back, str)
                assert _parsed(back) == _parsed(data.decode())


def test_every_refused_value_is_really_refused(empty_database_url: str) -> None:
    """jsonb refuses the original form of each value, so that none is rewritten without need."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for value in REFUSED_VALUES:
            if value.count(b"[") + value.count(b"{") in range(5_001, 14_000):
                # Between the program's limit and the server's, which depends on its settings.
                continue
            with pytest.raises((psycopg.Error, UnicodeError)):
                _stored(connection, [value.decode()], "jsonb")


@pytest.mark.parametrize("values", [SHORT, *slow(LONG)], ids=["short", "long"])
def test_every_column_of_a_hostile_step_is_accepted(
    empty_database_url: str, values: list[bytes]
) -> None:
    """Hostile text in any field of a step reaches its column in a form that it accepts."""
    names = (
        "user_id",
        "node_id",
        "status",
        "error",
        "step_metadata",
        "inputs",
        "elapsed_time",
        "tokens",
        "end_time",
    )
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for value in values:
            members = b", ".join(
                b'"%s": %s' % (name.encode(), value) for name in (*names, "unheard_of")
            )
            decoded = decode_steps(
                b'[{"id": "s", ' + members + b"}]", workflow_id="w", run_id="r", states=StateMap()
            )
            (step,) = decoded.steps
            texts = [
                *_texts(step),
                *(drift.field for drift in decoded.drift),
                *(drift.found for drift in decoded.drift),
            ]
            _stored(connection, texts, "text")
            documents = (step.error, step.step_metadata, step.extra)
            _stored(
                connection, [document for document in documents if document is not None], "jsonb"
            )


def test_model_columns_of_hostile_payloads_are_accepted(empty_database_url: str) -> None:
    """Text columns accept model names, finish reasons and errors that held NUL or surrogates."""
    hostile = rb'"a\u0000b\ud800c"'
    outputs = (
        b'{"object": "chat.completion", "model": %b, "choices": [{"finish_reason": %b}], "usage":'
        b" {}}" % (hostile, hostile),
        b'{"result": {"successful": false, "error": %b}}' % hostile,
        b'{"result": {"successful": false, "error": {"why": %b}}}' % hostile,
    )
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for value in outputs:
            (step,) = decode_steps(
                b"[" + step_with(value) + b"]", workflow_id="w", run_id="r", states=StateMap()
            ).steps
            texts = [text for text in _texts(step) if "\ufffd" in text or "ufffd" in text]
            assert texts
            _stored(connection, texts, "text")


def test_ids_and_times_are_held_exactly(empty_database_url: str) -> None:
    """Usable ids and readable times are the same after a round trip through the database."""
    with psycopg.connect(
        empty_database_url, autocommit=True, options="-c timezone=UTC"
    ) as connection:
        for raw, _ in USABLE_IDS:
            body = b"[" + step_with(b"{}", raw) + b"]"
            (step,) = decode_steps(body, workflow_id="w", run_id="r", states=StateMap()).steps
            assert _stored(connection, [step.id], "text") == [step.id]
        for text, expected in READABLE_TIMES:
            body = json.dumps([{"id": "s", "start_time": text}]).encode()
            (step,) = decode_steps(body, workflow_id="w", run_id="r", states=StateMap()).steps
            row = connection.execute("SELECT %s::timestamptz", [step.start_time]).fetchone()
            assert row is not None
            assert row[0] == step.start_time
            assert row[0].isoformat() == expected


def _parsed(text: str) -> object:
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def _texts(step: Step) -> list[str]:
    columns = (
        step.id,
        step.node_id,
        step.node_type,
        step.user_id,
        step.status,
        step.request_model,
        step.response_model,
    )
    return [
        text for text in (*columns, step.finish_reason, step.reported_error) if text is not None
    ]


def test_payloads_are_compressed_by_lz4_where_the_server_has_it(
    read_only_database_url: str,
) -> None:
    """The columns of payloads use lz4 if the server is built with it, else its default."""
    [server] = query(
        read_only_database_url,
        "SELECT 'lz4' = ANY (enumvals) AS has_lz4 FROM pg_settings "
        "WHERE name = 'default_toast_compression'",
    )
    columns = query(
        read_only_database_url,
        """SELECT attrelid::regclass::text AS table, attname AS column, attcompression AS by
           FROM pg_attribute
           WHERE attrelid IN ('orchestra.run_payloads'::regclass, 'orchestra.inputs'::regclass,
                              'orchestra.outputs'::regclass)
             AND atttypid IN ('jsonb'::regtype, 'bytea'::regtype)""",
    )
    assert len(columns) == 8
    assert {one["by"] for one in columns} == {"l" if server["has_lz4"] else ""}

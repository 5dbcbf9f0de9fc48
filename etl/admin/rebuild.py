"""Rebuild: stored steps are read again by newer rules, from the payloads in the database, without asking the API.

`content_hash` stays. It covers the element's own bytes, which the database does not have, and the
version of the rules: the next read of such a step from the API writes it once more, whole, and the
one after that finds it unchanged. An older program that still runs takes it for unchanged, and does
not write its own reading back.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
import structlog
from psycopg.rows import dict_row
from sqlalchemy import Connection, text

from etl.analytics import rollups
from etl.database import Database, allow_long
from etl.database_errors import sqlstate
from etl.errors import SchemaMismatch
from etl.ledger import rebuilds, workflows
from etl.ledger.run_locks import lock_runs
from etl.load.staging import Staging, column_types, listed
from etl.tables import steps
from etl.transform.decode import TRANSFORM_VERSION
from etl.transform.reread import COLUMNS, read_again
from etl.transform.workflows import node_types_of

log = structlog.get_logger(__name__)

# Steps in one transaction, as long as their payloads are small: a load of one of their runs waits
# for it.
BATCH = 1000
# Bytes of payloads, as they came, that are read in one transaction, unless a single step has more.
BATCH_BYTES = 16 << 20
# A payload whose text is longer is not read: a short one may hold numbers of a hundred thousand
# digits each.
MAX_BYTES = 320 << 20
# Seconds between two lines of progress.
SAY_EVERY = 10.0

# PostgreSQL cannot write the text of a value: it is too long, takes too much memory or time, or is
# damaged.
_TOO_MUCH = ("54000", "53200", "57014", "XX000", "XX001")

_WANTED = "(CAST(:workflows AS text[]) IS NULL OR s.workflow_id = ANY (CAST(:workflows AS text[])))"

_COUNT = text(f"""
    SELECT count(*) FROM orchestra.steps AS s
    WHERE s.id > COALESCE(CAST(:after AS text), '') COLLATE "C" AND {_WANTED}
""")


def _size(name: str) -> str:
    return f"COALESCE((SELECT p.size_bytes FROM orchestra.{name} AS p WHERE p.step_id = s.id AND p.data IS NOT NULL), 0)"


_FIND = text(f"""
    SELECT id, run_id
    FROM (SELECT s.id, s.run_id, sum(s.size) OVER (ORDER BY s.id) - s.size AS before
          FROM (SELECT s.id, s.run_id, {_size("inputs")} + {_size("outputs")} AS size
                FROM orchestra.steps AS s
                WHERE s.id > COALESCE(CAST(:after AS text), '') COLLATE "C" AND {_WANTED}
                ORDER BY s.id LIMIT :limit) AS s) AS found
    WHERE before < {BATCH_BYTES}
    ORDER BY id
""")


def _payload(name: str) -> str:
    return f"""
        LEFT JOIN LATERAL (
            SELECT p.data IS NULL AS gone, convert_to(CAST(p.data AS text), 'UTF8') AS json
            FROM orchestra.{name} AS p WHERE p.step_id = s.id
            OFFSET 0  -- or the text would be made once for each of its uses
        ) AS {name} ON true"""


# For the driver itself, which gives the rows one by one, as they come: not sorted, for which the
# server would gather all texts.
_READ = f"""
    SELECT s.id, s.workflow_id, s.node_id, s.redaction_policy, {listed(COLUMNS, "s.")},
           COALESCE(inputs.gone, false) OR COALESCE(outputs.gone, false) AS gone,
           GREATEST(octet_length(inputs.json), octet_length(outputs.json)) > {MAX_BYTES} AS too_long,
           CASE WHEN octet_length(inputs.json) <= {MAX_BYTES} THEN inputs.json END AS inputs,
           CASE WHEN octet_length(outputs.json) <= {MAX_BYTES} THEN outputs.json END AS outputs
    FROM orchestra.steps AS s {_payload("inputs")} {_payload("outputs")}
    WHERE s.id = ANY (%s)
"""

_STAGED = Staging("steps_read_again", column_types(steps, ("id", *COLUMNS)))

_UPDATE = text(f"""
    UPDATE orchestra.steps AS s
    SET {", ".join(f"{name} = n.{name}" for name in COLUMNS)}, updated_at = now()
    FROM {_STAGED.name} AS n
    WHERE s.id = n.id
""")

NodeTypes = Mapping[str, Mapping[str, str]]
"""Node id to type, by workflow."""


class RebuildReport(msgspec.Struct):
    """What was read again."""

    steps: int = 0
    changed: int = 0
    """Of these steps, those of which a column changed."""
    without_payload: int = 0
    """Of these, those that keep what they have, because a payload of theirs is gone: what one says depends on the other."""
    unreadable: int = 0
    """Of these, those that keep what they have, because PostgreSQL cannot give a payload of theirs."""
    complete: bool = True
    """False where it was stopped early: the next call goes on from there."""


class _Part(msgspec.Struct):
    """What one transaction did."""

    after: str | None
    """The last step; None where there was none left."""
    done: RebuildReport


class _TooMuch(Exception):
    """PostgreSQL cannot give the payloads of these steps, or not so many at once."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self.ids = ids


def rebuild(
    database: Database,
    *,
    only: Sequence[str] | None = None,
    batch: int = BATCH,
    stopped: Callable[[], bool] = lambda: False,
) -> RebuildReport:
    """Read all stored steps again that were not read by the newest rules, in small transactions; safe beside a running service.

    How far it is, is kept with the rows: whoever calls it next goes on from there, and several may
    do so at once, by turns. The rollups are refreshed at the end.

    Args:
        database: with the right schema.
        only: the steps of these workflows alone, from the first one, whatever was done before; how far that is, is not kept.
        batch: steps in a transaction.
        stopped: asked between two transactions.

    Raises:
        DatabaseError: the database cannot be used; what was committed stays so.
        SchemaMismatch: another version of the program brings the newest rules.
    """
    done = RebuildReport()
    types, left = database.transaction(functools.partial(_begin, only=only))
    if left is None:
        return done
    began = said = time.monotonic()
    size, after, too_much = batch, None, None
    while not stopped():
        try:
            part = database.transaction(
                functools.partial(
                    _step, after=after, only=only, limit=size, too_much=too_much, types=types
                )
            )
        except _TooMuch as found:
            # Smaller and smaller, until the step is found that is the cause.
            too_much = found.ids[0] if len(found.ids) == 1 else None
            size = max(size // 8, 1)
            continue
        if part.after is None:
            rollups.drain(database, stopped=stopped)
            return done
        size, after = min(size * 2, batch), part.after
        for name in ("steps", "changed", "without_payload", "unreadable"):
            setattr(done, name, getattr(done, name) + getattr(part.done, name))
        now = time.monotonic()
        if now - said >= SAY_EVERY:
            said = now
            log.info(
                "rebuild_progressed",
                steps=done.steps,
                of=max(left, done.steps),
                percent=100 * done.steps // max(left, done.steps),
                changed=done.changed,
                steps_per_second=round(done.steps / (now - began)),
            )
    done.complete = False
    return done


def _begin(connection: Connection, *, only: Sequence[str] | None) -> tuple[NodeTypes, int | None]:
    """The types of nodes, and how many steps are left; None: nothing is to be done."""
    allow_long(connection)
    known = _newest(rebuilds.read(connection))
    if known.finished and only is None:
        return {}, None
    types: dict[str, dict[str, str]] = {}
    for workflow_id, graph in workflows.all_graphs(connection):
        # Of nodes that the newest graph no longer has, an older one tells.
        types.setdefault(workflow_id, {}).update(node_types_of(graph))
    after = known.after if only is None else None
    return types, connection.execute(_COUNT, {"after": after, "workflows": only}).scalar_one()


def _newest(known: rebuilds.Rebuild | None) -> rebuilds.Rebuild:
    """Raises SchemaMismatch where these are not this program's own rules."""
    if known is None or known.version < TRANSFORM_VERSION:
        raise SchemaMismatch(
            "the schema does not know the rules of this program: run `orchestra-etl db upgrade`"
        )
    if known.version > TRANSFORM_VERSION:
        raise SchemaMismatch(
            "a later version of this program brings newer rules: run `rebuild` with that version, or upgrade orchestra-etl"
        )
    return known


def _step(
    connection: Connection,
    *,
    after: str | None,
    only: Sequence[str] | None,
    limit: int,
    too_much: str | None,
    types: NodeTypes,
) -> _Part:
    """One transaction; `too_much` is a step that PostgreSQL could not give, not even alone."""
    if only is None:
        known = _newest(rebuilds.hold(connection))
        if known.finished:
            return _Part(None, RebuildReport())
        after = known.after
    else:
        # There is no index of a workflow's steps in the order of their ids.
        allow_long(connection)
    found = connection.execute(_FIND, {"after": after, "workflows": only, "limit": limit}).all()
    if not found:
        if only is None:
            rebuilds.finish(connection, TRANSFORM_VERSION)
        return _Part(None, RebuildReport())
    ids = [row.id for row in found]
    if ids == [too_much]:
        done = RebuildReport(steps=1, unreadable=1)
    else:
        if len(ids) == 1:
            allow_long(connection)
        # As a load does, so that nobody else writes these steps: what is read now is what is
        # written on.
        lock_runs(connection, [row.run_id for row in found])
        done = _read_again(connection, ids, types)
    if only is None:
        rebuilds.advance(
            connection, TRANSFORM_VERSION, after=ids[-1], steps=done.steps, changed=done.changed
        )
    return _Part(ids[-1], done)


def _read_again(connection: Connection, ids: Sequence[str], types: NodeTypes) -> RebuildReport:
    done = RebuildReport()
    changed: list[tuple[Any, ...]] = []
    for row in _rows(connection, ids):
        done.steps += 1
        if row["gone"]:
            done.without_payload += 1
        elif row["too_long"]:
            done.unreadable += 1
        else:
            node_type = types.get(row["workflow_id"], {}).get(row["node_id"])
            columns = read_again(row, row["inputs"], row["outputs"], node_type=node_type)
            if columns is not None:
                changed.append((row["id"], *(columns[name] for name in COLUMNS)))
    if changed:
        _STAGED.fill(connection, changed)
        connection.execute(_UPDATE)
    done.changed = len(changed)
    return done


def _rows(connection: Connection, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """These steps with their payloads, one in memory at a time. Raises _TooMuch."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor(row_factory=dict_row) as cursor:
        try:
            yield from cursor.stream(_READ, [list(ids)], binary=True)
        except psycopg.Error as error:
            if sqlstate(error) in _TOO_MUCH:
                raise _TooMuch(ids) from None
            raise

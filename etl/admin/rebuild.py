"""Rebuild: newer rules are applied to stored steps, without a request to the API.

The payloads come from the database. `content_hash` does not change: it covers the bytes of the
step in the API's response, which the database does not have, and the version of the rules. So the
next read of such a step from the API writes the whole step once more, and the read after that finds
the step unchanged. An older program version that still runs finds the step unchanged, too, and does
not overwrite the new values.
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

# Steps in one transaction while their payloads are small: a load of one of their runs waits for it.
BATCH = 1000
# Bytes of payloads, as received, that one transaction reads, unless a single step has more.
BATCH_BYTES = 16 << 20
# Bytes. A payload with a longer text is not read. Even a short `jsonb` value can have such a text:
# its numbers may have a hundred thousand digits each.
MAX_BYTES = 320 << 20
# Seconds between two log lines about progress.
LOG_EVERY = 10.0

# SQLSTATEs of a payload that PostgreSQL cannot return: its text is too long or takes too much
# memory or time, or the value is damaged.
_UNREADABLE = ("54000", "53200", "57014", "XX000", "XX001")

_WANTED = "(CAST(:workflows AS text[]) IS NULL OR s.workflow_id = ANY (CAST(:workflows AS text[])))"

_COUNT = text(f"""
    SELECT count(*) FROM orchestra.steps AS s
    WHERE s.id > COALESCE(CAST(:after AS text), '') COLLATE "C" AND {_WANTED}
""")


def _size(name: str) -> str:
    return (
        f"COALESCE((SELECT p.size_bytes FROM orchestra.{name} AS p"
        " WHERE p.step_id = s.id AND p.data IS NOT NULL), 0)"
    )


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
            OFFSET 0  -- otherwise PostgreSQL computes the text once for each use
        ) AS {name} ON true"""


# The driver itself executes this statement, because it streams the rows. They are not sorted: to
# sort them, the server would have to collect all texts.
_READ = f"""
    SELECT s.id, s.workflow_id, s.node_id, s.redaction_policy, {listed(COLUMNS, "s.")},
           COALESCE(inputs.gone, false) OR COALESCE(outputs.gone, false) AS gone,
           GREATEST(octet_length(inputs.json), octet_length(outputs.json)) > {MAX_BYTES}
               AS too_long,
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
"""Node types by node id, by workflow id."""


class RebuildReport(msgspec.Struct):
    """The steps that were read again."""

    steps: int = 0
    changed: int = 0
    """The steps of which a column changed."""
    without_payload: int = 0
    """The steps that keep their columns because one of their payloads is gone.

    The columns depend on both payloads together.
    """
    unreadable: int = 0
    """The steps that keep their columns because PostgreSQL cannot return a payload."""
    complete: bool = True
    """False if the rebuild was stopped early: the next call continues from there."""


class _Part(msgspec.Struct):
    """The result of one transaction."""

    after: str | None
    """Id of the last step; None if no step was left."""
    done: RebuildReport


class _Unreadable(Exception):
    """PostgreSQL cannot return the payloads of these steps, or not of so many at once."""

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
    """Apply the newest rules to the stored steps that they have not read, in small transactions.

    It is safe while the service is running. The database stores the position, so the next call
    continues from there, and several calls may run at once, taking turns. At the end, the rollups
    are refreshed.

    Args:
        database: with the current schema.
        only: read only the steps of these workflows, from the first one, even if they were read
            before; the position is not stored.
        batch: steps in a transaction.
        stopped: called between two transactions; True ends the rebuild.

    Raises:
        DatabaseError: the database cannot be used; committed transactions stay.
        SchemaMismatch: the newest rules are those of another version of the program.
    """
    done = RebuildReport()
    types, left = database.transaction(functools.partial(_begin, only=only))
    if left is None:
        return done
    began = logged_at = time.monotonic()
    size, after, unreadable = batch, None, None
    while not stopped():
        try:
            part = database.transaction(
                functools.partial(
                    _step, after=after, only=only, limit=size, unreadable=unreadable, types=types
                )
            )
        except _Unreadable as found:
            # The batches become smaller until the step that causes the error is alone.
            unreadable = found.ids[0] if len(found.ids) == 1 else None
            size = max(size // 8, 1)
            continue
        if part.after is None:
            rollups.drain(database, stopped=stopped)
            return done
        size, after = min(size * 2, batch), part.after
        for name in ("steps", "changed", "without_payload", "unreadable"):
            setattr(done, name, getattr(done, name) + getattr(part.done, name))
        now = time.monotonic()
        if now - logged_at >= LOG_EVERY:
            logged_at = now
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
    """Return the node types, and how many steps are left; None: there is nothing to do."""
    allow_long(connection)
    known = _newest(rebuilds.read(connection))
    if known.finished and only is None:
        return {}, None
    types: dict[str, dict[str, str]] = {}
    for workflow_id, graph in workflows.all_graphs(connection):
        # An older graph has the types of nodes that the newest graph no longer contains.
        types.setdefault(workflow_id, {}).update(node_types_of(graph))
    after = known.after if only is None else None
    return types, connection.execute(_COUNT, {"after": after, "workflows": only}).scalar_one()


def _newest(known: rebuilds.Rebuild | None) -> rebuilds.Rebuild:
    """Return the newest rules; raise SchemaMismatch if they are not those of this program."""
    if known is None or known.version < TRANSFORM_VERSION:
        raise SchemaMismatch(
            "the schema is older than the rules of this program: run `orchestra-etl db upgrade`"
        )
    if known.version > TRANSFORM_VERSION:
        raise SchemaMismatch(
            "a later version of this program has newer rules: run `rebuild` with that version, "
            "or upgrade orchestra-etl"
        )
    return known


def _step(
    connection: Connection,
    *,
    after: str | None,
    only: Sequence[str] | None,
    limit: int,
    unreadable: str | None,
    types: NodeTypes,
) -> _Part:
    """Read one batch; `unreadable` is a step that PostgreSQL cannot return even alone."""
    if only is None:
        known = _newest(rebuilds.hold(connection))
        if known.finished:
            return _Part(None, RebuildReport())
        after = known.after
    else:
        # No index lists a workflow's steps in the order of their ids.
        allow_long(connection)
    found = connection.execute(_FIND, {"after": after, "workflows": only, "limit": limit}).all()
    if not found:
        if only is None:
            rebuilds.finish(connection, TRANSFORM_VERSION)
        return _Part(None, RebuildReport())
    ids = [row.id for row in found]
    if ids == [unreadable]:
        done = RebuildReport(steps=1, unreadable=1)
    else:
        if len(ids) == 1:
            allow_long(connection)
        # A load takes the same lock, so no other process writes these steps between the read and
        # the update.
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
    """Yield these steps with their payloads, one in memory at a time; raise _Unreadable."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor(row_factory=dict_row) as cursor:
        try:
            yield from cursor.stream(_READ, [list(ids)], binary=True)
        except psycopg.Error as error:
            if sqlstate(error) in _UNREADABLE:
                raise _Unreadable(ids) from None
            raise

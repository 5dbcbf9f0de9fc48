"""Dead letters: records that could not be loaded, kept with their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate

import msgspec
from sqlalchemy import Connection, text

from etl.ledger import requests
from etl.ledger.named_runs import naming
from etl.ledger.run_locks import lock_runs
from etl.records import Rejected, RejectionReason

# The ledger row of another workflow's run with the same id does not count.
_REMOVED = """EXISTS (
        SELECT FROM orchestra_etl.run_ledger AS l
        WHERE l.run_id = {letter}.run_id AND l.workflow_id = {letter}.workflow_id
          AND l.removed_at IS NOT NULL)"""

# The dead letter of a conflicting run. Reading the other workflow's run, which has the same id,
# does not resolve it.
_OF_CONFLICTING_RUN = """(d.reason = 'id_conflict' AND d.step_id IS NULL AND EXISTS (
        SELECT FROM orchestra_etl.run_ledger AS l
        WHERE l.run_id = d.run_id AND l.workflow_id <> d.workflow_id))"""

_RECORD = text(f"""
    INSERT INTO orchestra_etl.dead_letters AS d
        (workflow_id, run_id, step_id, reason, detail, content_hash, body)
    SELECT n.workflow_id, n.run_id, n.step_id, n.reason, n.detail, n.content_hash,
           substring(CAST(:bodies AS bytea) FROM n.first FOR n.size)
    FROM unnest(CAST(:workflow_ids AS text[]), CAST(:run_ids AS text[]), CAST(:step_ids AS text[]),
                CAST(:reasons AS text[]), CAST(:details AS text[]), CAST(:hashes AS bytea[]),
                CAST(:firsts AS int[]), CAST(:sizes AS int[]))
         AS n (workflow_id, run_id, step_id, reason, detail, content_hash, first, size)
    WHERE NOT {_REMOVED.format(letter="n")}
    ORDER BY n.workflow_id COLLATE "C", n.run_id COLLATE "C", n.reason, n.content_hash
    ON CONFLICT (workflow_id, run_id, reason, content_hash) DO UPDATE
    SET occurrences = d.occurrences
            + CASE WHEN d.last_seen_at >= CAST(:since AS timestamptz) THEN 0 ELSE 1 END,
        last_seen_at = now(),
        resolved_at = CASE WHEN d.resolution = 'discarded' THEN d.resolved_at END,
        resolution = CASE WHEN d.resolution = 'discarded' THEN d.resolution END
    RETURNING xmax = 0 OR COALESCE(first_seen_at >= CAST(:since AS timestamptz), false) AS inserted
""")

_COUNT_NEW = text("""
    SELECT count(*)
    FROM orchestra_etl.dead_letters AS d
    JOIN unnest(CAST(:run_ids AS text[]), CAST(:since AS timestamptz[])) AS read (run_id, since)
      ON d.run_id = read.run_id COLLATE "C" AND d.first_seen_at >= read.since
""")

_TOMBSTONES = text("""
    SELECT run_id FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[])) AND removed_at IS NOT NULL
""")

_ANY_TOMBSTONE = text(
    "SELECT EXISTS (SELECT FROM orchestra_etl.run_ledger WHERE removed_at IS NOT NULL)"
)

_ERASED = text("""
    SELECT run_id FROM orchestra_etl.run_ledger
    WHERE run_id = ANY (CAST(:ids AS text[])) AND tracking = 'erased'
""")

_WITHOUT_RUN = text(
    "SELECT id FROM orchestra_etl.dead_letters"
    " WHERE run_id = '' AND octet_length(body) > 0 ORDER BY id"
)

# Once the bodies in a statement have this many bytes, the next dead letters go into another one.
_BYTES_AT_ONCE = 16 << 20

# The body is a whole response of the steps endpoint, an array of steps, or a whole step.
_HOLDS_STEPS = """(reason = 'not_an_array' OR (reason IN ('rejected', 'id_conflict')
           AND (step_id IS NOT NULL OR substring(body FROM 1 FOR 1) = CAST('[' AS bytea))))"""

_OPEN_BODIES = text(f"""
    SELECT run_id, step_id, body
    FROM orchestra_etl.dead_letters
    WHERE run_id = ANY (CAST(:run_ids AS text[])) AND resolved_at IS NULL
      AND octet_length(body) > 0 AND {_HOLDS_STEPS}
    ORDER BY last_seen_at, id
""")

# When a run has been read without the problem, its open dead letters are resolved, except those
# that this transaction has recorded.
_RESOLVE = text(f"""
    UPDATE orchestra_etl.dead_letters AS d
    SET resolved_at = now(), resolution = 'loaded'
    WHERE run_id = ANY (CAST(:run_ids AS text[])) AND resolved_at IS NULL AND last_seen_at <> now()
      AND NOT {_OF_CONFLICTING_RUN}
      AND (NOT CAST(:steps_only AS boolean) OR {_HOLDS_STEPS})
""")

_BODY = text("SELECT body FROM orchestra_etl.dead_letters WHERE id = :id")

_KNOWN = text("SELECT id FROM orchestra_etl.dead_letters WHERE id = ANY (CAST(:ids AS bigint[]))")

# Dead letters chosen by number include resolved ones; without numbers, all open ones are chosen.
_CHOOSE = text("""
    SELECT id, run_id
    FROM orchestra_etl.dead_letters
    WHERE id = ANY (CAST(:ids AS bigint[]))
       OR (CAST(:ids AS bigint[]) IS NULL AND resolved_at IS NULL)
""")

# Dead letters are locked in the order in which `record` locks them. For dead letters without a run
# id, only this order prevents deadlocks, because no ledger row is locked for them.
_IN_ORDER = """
    SELECT id FROM orchestra_etl.dead_letters AS d
    WHERE id = ANY (CAST(:ids AS bigint[])) AND {condition}
    ORDER BY workflow_id, run_id, reason, content_hash
    FOR UPDATE
"""

# Dead letters of erased and pruned runs stay unchanged: these runs cannot be read again.
_REOPEN = text(f"""
    WITH chosen AS ({_IN_ORDER.format(condition="NOT " + _REMOVED.format(letter="d"))})
    UPDATE orchestra_etl.dead_letters AS d
    SET resolved_at = NULL, resolution = NULL
    FROM chosen WHERE d.id = chosen.id
    RETURNING d.id, d.workflow_id, d.run_id
""")

_DISCARD = text(f"""
    WITH chosen AS ({_IN_ORDER.format(condition="resolved_at IS NULL")})
    UPDATE orchestra_etl.dead_letters AS d
    SET resolved_at = now(), resolution = 'discarded'
    FROM chosen WHERE d.id = chosen.id
""")


# Another dead letter of the run may already have the hash of the redacted content. Then this one
# needs a different hash, because the hash is part of the key.
_REWRITE = text("""
    UPDATE orchestra_etl.dead_letters AS d
    SET body = :body, detail = :detail,
        content_hash = CASE WHEN EXISTS (
            SELECT FROM orchestra_etl.dead_letters AS other
            WHERE (other.workflow_id, other.run_id, other.reason, other.content_hash)
                  = (d.workflow_id, d.run_id, d.reason, CAST(:hash AS bytea)) AND other.id <> d.id)
        THEN CAST(:otherwise AS bytea) ELSE CAST(:hash AS bytea) END
    WHERE d.id = :id
""")
_Key = tuple[str, str, RejectionReason, bytes]


class DeadLetter(msgspec.Struct, frozen=True):
    """A rejected record, with its workflow and run."""

    workflow_id: str
    """Empty for an entry of `GET /workflows` without a usable id."""
    run_id: str
    """Empty if the record has no run with a usable id, such as a bad row of the run list."""
    rejected: Rejected


def record(
    connection: Connection, letters: Sequence[DeadLetter], *, since: datetime | None = None
) -> int:
    """Record dead letters, and return how many are new; a repetition only raises `occurrences`.

    Nothing is recorded for a run that was erased or pruned. A bad row of the run list that names
    such a run is recorded without its bytes.

    Args:
        connection: in a transaction.
        letters: the rejected records, with their workflows and runs.
        since: database time at which the response that holds them was requested. Pass it if no
            fence prevents this unit of work from being repeated: a dead letter seen since then
            comes from the same unit, and is not counted again.
    """
    unique = {
        (letter.workflow_id, letter.run_id, letter.rejected.reason, _hash(letter.rejected)): letter
        for letter in letters
    }
    if not unique:
        return 0
    withheld = _withheld(connection, unique)
    # Rows are locked in key order across all parts.
    ordered = sorted(
        unique.items(), key=lambda one: [value.encode() for value in one[0][:3]] + [one[0][3]]
    )
    new = 0
    while ordered:
        part, size = [], 0
        while ordered and size < _BYTES_AT_ONCE:
            part.append(ordered.pop(0))
            size += len(part[-1][1].rejected.body)
        bodies = [b"" if key in withheld else letter.rejected.body for key, letter in part]
        sizes = [len(body) for body in bodies]
        rows = connection.execute(
            _RECORD,
            {
                "workflow_ids": [key[0] for key, _ in part],
                "run_ids": [key[1] for key, _ in part],
                "step_ids": [letter.rejected.step_id for _, letter in part],
                "reasons": [key[2] for key, _ in part],
                "details": [letter.rejected.detail for _, letter in part],
                "hashes": [key[3] for key, _ in part],
                # One value and the offsets of its parts: the driver would escape an array byte by
                # byte.
                "bodies": b"".join(bodies),
                "firsts": list(accumulate(sizes[:-1], initial=1)),
                "sizes": sizes,
                "since": since,
            },
        )
        new += sum(row.inserted for row in rows)
    return new


def _withheld(connection: Connection, letters: Mapping[_Key, DeadLetter]) -> set[_Key]:
    """Return the keys of dead letters without a run id whose bytes name a removed run."""
    bodies = [(key, letter.rejected.body) for key, letter in letters.items() if not letter.run_id]
    if not bodies or not connection.execute(_ANY_TOMBSTONE).scalar_one():
        return set()
    return naming(bodies, lambda ids: set(connection.execute(_TOMBSTONES, {"ids": ids}).scalars()))


def naming_erased(connection: Connection, ids: frozenset[str] = frozenset()) -> set[int]:
    """Find dead letters without a run id whose bytes name an erased run or one of `ids`.

    Returns their numbers. The bodies are read one by one, so the time grows with the number of such
    dead letters.
    """
    numbers = connection.execute(_WITHOUT_RUN).scalars().all()
    bodies = ((number, found) for number in numbers if (found := body(connection, number)))
    return naming(
        bodies,
        lambda some: {
            *ids.intersection(some),
            *connection.execute(_ERASED, {"ids": some}).scalars(),
        },
    )


def count_new(connection: Connection, reads: Sequence[tuple[str, datetime]]) -> int:
    """Return how many dead letters of these runs are new.

    Args:
        connection: in a transaction.
        reads: run ids, each with the database time from which on a dead letter counts as new.
    """
    wanted = {"run_ids": [run_id for run_id, _ in reads], "since": [since for _, since in reads]}
    return int(connection.execute(_COUNT_NEW, wanted).scalar_one())


def open_bodies(connection: Connection, run_ids: Sequence[str]) -> dict[str, list[bytes]]:
    """Return the steps in these runs' open dead letters, oldest first.

    Each body has the form of a response of the steps endpoint. Other dead letters hold a run's own
    row, a single member, or a step's earlier version: they must not be read as steps.
    """
    found: dict[str, list[bytes]] = {}
    for row in connection.execute(_OPEN_BODIES, {"run_ids": list(run_ids)}):
        body = bytes(row.body)
        found.setdefault(row.run_id, []).append(
            body if body.startswith(b"[") or row.step_id is None else b"[" + body + b"]"
        )
    return found


def resolve(connection: Connection, run_ids: Sequence[str], *, steps_only: bool = False) -> None:
    """Resolve the open dead letters of runs that have just been read.

    Dead letters recorded in this transaction stay open. With `steps_only`, only the dead letters
    that `open_bodies` returns are resolved.
    """
    connection.execute(_RESOLVE, {"run_ids": list(run_ids), "steps_only": steps_only})


class RetryReport(msgspec.Struct, frozen=True):
    """The effect of a retry."""

    dead_letters: int
    runs: int
    """Runs that will be read again."""
    without_run: tuple[int, ...]
    """Dead letters without a run to read: bad list rows, which the next sweep sees again."""
    conflicts: int = 0
    """Runs that belong to other workflows: they are not read under the dead letters' workflows."""
    removed: int = 0
    """Requested dead letters whose runs were erased or pruned: they stay unchanged."""


def body(connection: Connection, letter_id: int) -> bytes | None:
    """Return a dead letter's bytes as the API sent them; None if the number is unknown."""
    found = connection.execute(_BODY, {"id": letter_id}).scalar_one_or_none()
    return None if found is None else bytes(found)


def rewrite(
    connection: Connection, letter_id: int, rejected: Rejected, *, otherwise: bytes
) -> None:
    """Replace a dead letter's bytes, detail and hash by their redacted form.

    Args:
        connection: in a transaction that has locked the dead letter.
        letter_id: its number.
        rejected: the redacted form.
        otherwise: the hash to store if another dead letter of the run already has the content's
            hash.
    """
    values = {
        "body": rejected.body,
        "detail": rejected.detail,
        "hash": _hash(rejected),
        "otherwise": otherwise,
    }
    connection.execute(_REWRITE, {"id": letter_id, **values})


def unknown(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Return those of these numbers that belong to no dead letter."""
    known = set(connection.execute(_KNOWN, {"ids": list(ids)}).scalars())
    return [number for number in ids if number not in known]


def retry(connection: Connection, ids: Sequence[int] | None) -> RetryReport:
    """Request a new read of the runs of these dead letters (None: of all open ones).

    The request has the effect of `track`. A dead letter stays open until its run has been read
    without the problem. A discarded one is reopened.
    """
    rows = connection.execute(_REOPEN, {"ids": _chosen(connection, ids)}).all()
    runs: dict[str, set[str]] = {}
    for row in rows:
        if row.run_id:
            runs.setdefault(row.workflow_id, set()).add(row.run_id)
    tracked = [
        requests.track(connection, workflow_id, sorted(runs[workflow_id]))
        for workflow_id in sorted(runs)
    ]
    return RetryReport(
        dead_letters=len(rows),
        runs=sum(one.new + one.known for one in tracked),
        conflicts=sum(len(one.conflicts) for one in tracked),
        without_run=tuple(sorted(row.id for row in rows if not row.run_id)),
        removed=0 if ids is None else len(set(ids)) - len(rows),
    )


def discard(connection: Connection, ids: Sequence[int] | None) -> int:
    """Discard these open dead letters (None: all), and return how many; their bytes are kept."""
    return connection.execute(_DISCARD, {"ids": _chosen(connection, ids)}).rowcount


def _chosen(connection: Connection, ids: Sequence[int] | None) -> list[int]:
    """Lock the runs of these dead letters (None: of all open ones), and return the numbers.

    A load locks in the same order: runs first, dead letters second.
    """
    rows = connection.execute(_CHOOSE, {"ids": None if ids is None else list(ids)}).all()
    lock_runs(connection, list({row.run_id for row in rows}))
    return [row.id for row in rows]


def _hash(rejected: Rejected) -> bytes:
    return rejected.content_hash or hashlib.blake2b(rejected.body, digest_size=16).digest()

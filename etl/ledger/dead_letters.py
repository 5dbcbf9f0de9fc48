"""What could not be loaded, kept with its bytes."""

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

# Of a run whose id another workflow has, the other one's row says nothing.
_REMOVED = """EXISTS (
        SELECT FROM orchestra_etl.run_ledger AS l
        WHERE l.run_id = {letter}.run_id AND l.workflow_id = {letter}.workflow_id AND l.removed_at IS NOT NULL)"""

# The run that was read has the same id as the one that was set aside.
_OF_ANOTHER_RUN = """(d.reason = 'id_conflict' AND d.step_id IS NULL AND EXISTS (
        SELECT FROM orchestra_etl.run_ledger AS l WHERE l.run_id = d.run_id AND l.workflow_id <> d.workflow_id))"""

_RECORD = text(f"""
    INSERT INTO orchestra_etl.dead_letters AS d
        (workflow_id, run_id, step_id, reason, detail, content_hash, body)
    SELECT n.workflow_id, n.run_id, n.step_id, n.reason, n.detail, n.content_hash,
           substring(CAST(:bodies AS bytea) FROM n.first FOR n.size)
    FROM unnest(CAST(:workflow_ids AS text[]), CAST(:run_ids AS text[]), CAST(:step_ids AS text[]),
                CAST(:reasons AS text[]), CAST(:details AS text[]), CAST(:hashes AS bytea[]), CAST(:firsts AS int[]),
                CAST(:sizes AS int[]))
         AS n (workflow_id, run_id, step_id, reason, detail, content_hash, first, size)
    WHERE NOT {_REMOVED.format(letter="n")}
    ORDER BY n.workflow_id COLLATE "C", n.run_id COLLATE "C", n.reason, n.content_hash
    ON CONFLICT (workflow_id, run_id, reason, content_hash) DO UPDATE
    SET occurrences = d.occurrences + CASE WHEN d.last_seen_at >= CAST(:since AS timestamptz) THEN 0 ELSE 1 END,
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
    SELECT run_id FROM orchestra_etl.run_ledger WHERE run_id = ANY (CAST(:ids AS text[])) AND removed_at IS NOT NULL
""")

_ANY_TOMBSTONE = text(
    "SELECT EXISTS (SELECT FROM orchestra_etl.run_ledger WHERE removed_at IS NOT NULL)"
)

_ERASED = text("""
    SELECT run_id FROM orchestra_etl.run_ledger WHERE run_id = ANY (CAST(:ids AS text[])) AND tracking = 'erased'
""")

_OF_NO_RUN = text(
    "SELECT id FROM orchestra_etl.dead_letters WHERE run_id = '' AND octet_length(body) > 0 ORDER BY id"
)

# So many bytes of letters are recorded at once.
_BYTES_AT_ONCE = 16 << 20

# A whole answer, or a step that was refused as it is.
_HOLDS_STEPS = """(reason = 'not_an_array' OR (reason IN ('rejected', 'id_conflict')
           AND (step_id IS NOT NULL OR substring(body FROM 1 FOR 1) = CAST('[' AS bytea))))"""

_OPEN_BODIES = text(f"""
    SELECT run_id, step_id, body
    FROM orchestra_etl.dead_letters
    WHERE run_id = ANY (CAST(:run_ids AS text[])) AND resolved_at IS NULL
      AND octet_length(body) > 0 AND {_HOLDS_STEPS}
    ORDER BY last_seen_at, id
""")

# A run that was read without the trouble recurring: its open letters are settled.
_RESOLVE = text(f"""
    UPDATE orchestra_etl.dead_letters AS d
    SET resolved_at = now(), resolution = 'loaded'
    WHERE run_id = ANY (CAST(:run_ids AS text[])) AND resolved_at IS NULL AND last_seen_at < now()
      AND NOT {_OF_ANOTHER_RUN}
      AND (NOT CAST(:steps_only AS boolean) OR {_HOLDS_STEPS})
""")

_BODY = text("SELECT body FROM orchestra_etl.dead_letters WHERE id = :id")

_KNOWN = text("SELECT id FROM orchestra_etl.dead_letters WHERE id = ANY (CAST(:ids AS bigint[]))")

# Named letters are taken whatever became of them; without names, those that are open.
_CHOOSE = text("""
    SELECT id, run_id
    FROM orchestra_etl.dead_letters
    WHERE id = ANY (CAST(:ids AS bigint[])) OR (CAST(:ids AS bigint[]) IS NULL AND resolved_at IS NULL)
""")

# In the order in which they are recorded: of the letters of no run, no row of the ledger is locked.
_IN_ORDER = """
    SELECT id FROM orchestra_etl.dead_letters AS d
    WHERE id = ANY (CAST(:ids AS bigint[])) AND {condition}
    ORDER BY workflow_id, run_id, reason, content_hash
    FOR UPDATE
"""

# Where the run was erased or pruned there is nothing to be read again.
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


# A letter with the same content may have been recorded under the rules already: then this one needs
# another hash.
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
    """Something rejected, and whose it is."""

    workflow_id: str
    run_id: str
    """Empty for a row of the run list that has no usable id."""
    rejected: Rejected


def record(
    connection: Connection, letters: Sequence[DeadLetter], *, since: datetime | None = None
) -> int:
    """Set aside; how many of them are new (the others are counted on the letter they repeat).

    Nothing is set aside of a run that was erased or pruned; a bad row of the run list that names
    one is, without its bytes.

    Args:
        connection: in a transaction.
        letters: what is bad, and whose it is.
        since: database time at which the answer that holds them was requested, where no fence keeps a repetition of this
            unit of work off: a letter seen since then is this very one, and is not counted again.
    """
    unique = {
        (letter.workflow_id, letter.run_id, letter.rejected.reason, _hash(letter.rejected)): letter
        for letter in letters
    }
    if not unique:
        return 0
    withheld = _withheld(connection, unique)
    # Rows are locked in key order, over all parts.
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
                # As one value and its parts' places: as an array, they would be quoted byte by
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
    """Of the letters of no run, those whose bytes name a run that was removed."""
    bodies = [(key, letter.rejected.body) for key, letter in letters.items() if not letter.run_id]
    if not bodies or not connection.execute(_ANY_TOMBSTONE).scalar_one():
        return set()
    return naming(bodies, lambda ids: set(connection.execute(_TOMBSTONES, {"ids": ids}).scalars()))


def naming_erased(connection: Connection, ids: frozenset[str] = frozenset()) -> set[int]:
    """The numbers of the letters of no run whose bytes name one of these runs, or one that was erased.

    Their bytes are read one after the other: it takes as long as there are such letters.
    """
    numbers = connection.execute(_OF_NO_RUN).scalars().all()
    bodies = ((number, found) for number in numbers if (found := body(connection, number)))
    return naming(
        bodies,
        lambda some: {
            *ids.intersection(some),
            *connection.execute(_ERASED, {"ids": some}).scalars(),
        },
    )


def count_new(connection: Connection, reads: Sequence[tuple[str, datetime]]) -> int:
    """How many letters of these runs were first set aside at or after the database time that goes with each."""
    wanted = {"run_ids": [run_id for run_id, _ in reads], "since": [since for _, since in reads]}
    return int(connection.execute(_COUNT_NEW, wanted).scalar_one())


def open_bodies(connection: Connection, run_ids: Sequence[str]) -> dict[str, list[bytes]]:
    """What these runs' open letters hold of steps, each as an answer of the steps endpoint, oldest first.

    Other letters hold a run's own row, a single member, or a step's earlier version: they must not
    be taken for steps.
    """
    found: dict[str, list[bytes]] = {}
    for row in connection.execute(_OPEN_BODIES, {"run_ids": list(run_ids)}):
        body = bytes(row.body)
        found.setdefault(row.run_id, []).append(
            body if body.startswith(b"[") or row.step_id is None else b"[" + body + b"]"
        )
    return found


def resolve(connection: Connection, run_ids: Sequence[str], *, steps_only: bool = False) -> None:
    """Settle the open letters of runs that have just been read, except those recorded in this transaction.

    With `steps_only`, only the letters whose bytes `open_bodies` gave.
    """
    connection.execute(_RESOLVE, {"run_ids": list(run_ids), "steps_only": steps_only})


class RetryReport(msgspec.Struct, frozen=True):
    """What a retry asked for."""

    dead_letters: int
    runs: int
    """Runs that will be read again."""
    without_run: tuple[int, ...]
    """Letters that no run can be read for: bad rows of the run list, which the next sweep sees again by itself."""
    conflicts: int = 0
    """Runs that other workflows have: they are not read under these."""
    removed: int = 0
    """Letters named whose runs were erased or pruned: they stay as they are."""


def body(connection: Connection, letter_id: int) -> bytes | None:
    """A letter's bytes as the API sent them; None where there is no such number."""
    found = connection.execute(_BODY, {"id": letter_id}).scalar_one_or_none()
    return None if found is None else bytes(found)


def rewrite(
    connection: Connection, letter_id: int, rejected: Rejected, *, otherwise: bytes
) -> None:
    """Put what redaction has left in the place of a letter's bytes, sentence and hash.

    Args:
        connection: in a transaction that has locked the letter.
        letter_id: its number.
        rejected: what is left.
        otherwise: a hash in place of the content's own, where another letter of the run has that.
    """
    values = {
        "body": rejected.body,
        "detail": rejected.detail,
        "hash": _hash(rejected),
        "otherwise": otherwise,
    }
    connection.execute(_REWRITE, {"id": letter_id, **values})


def unknown(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Which of these numbers no letter has."""
    known = set(connection.execute(_KNOWN, {"ids": list(ids)}).scalars())
    return [number for number in ids if number not in known]


def retry(connection: Connection, ids: Sequence[int] | None) -> RetryReport:
    """Have the runs of these letters (None: of all open ones) read again, as `track` does.

    A letter stays open until its run has been read without the trouble; one that was discarded is
    open again.
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
    """Settle these open letters (None: all) without their content being loaded; how many. Their bytes are kept."""
    return connection.execute(_DISCARD, {"ids": _chosen(connection, ids)}).rowcount


def _chosen(connection: Connection, ids: Sequence[int] | None) -> list[int]:
    """The numbers of these letters (None: of all open ones), their runs locked: a load, too, locks runs first, then letters."""
    rows = connection.execute(_CHOOSE, {"ids": None if ids is None else list(ids)}).all()
    lock_runs(connection, list({row.run_id for row in rows}))
    return [row.id for row in rows]


def _hash(rejected: Rejected) -> bytes:
    return rejected.content_hash or hashlib.blake2b(rejected.body, digest_size=16).digest()

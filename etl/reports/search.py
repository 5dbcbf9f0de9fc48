"""A search for a phrase in payloads and errors, newest run first, in slices of the window."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial

import msgspec
from sqlalchemy import Connection, text

from etl.database import Database, allow_long
from etl.errors import ConfigurationError, SchemaMismatch
from etl.records import SearchPlace

LONGEST_PHRASE = 1000
"""Maximum number of characters of a phrase."""

# The first slice, and the seconds that a slice should take: hits are shown, and the search can be
# stopped, between two slices.
FIRST_SLICE = timedelta(hours=1)
SHORT, LONG = 0.5, 2.0

_EXISTS = text(
    "SELECT EXISTS (SELECT FROM pg_proc AS p"
    " WHERE p.pronamespace = 'orchestra'::regnamespace AND p.proname = 'search')"
)

# A run without a start counts from when it was first seen.
_OLDEST = text("""
    SELECT now() AS now, LEAST(
        (SELECT min(start_time) FROM orchestra.runs),
        (SELECT min(first_seen_at) FROM orchestra.runs WHERE start_time IS NULL)) AS oldest
""")

_IS_INDEXED = text("SELECT orchestra.search_is_indexed(:phrase)")

_SEARCH = text("""
    SELECT time, workflow_id, run_id, step_id, node_id, place, snippet, hit_start, hit_length
    FROM orchestra.search(:phrase, workflow => :workflow, node => :node, since => :since,
                          until => :until, within => :within, max_hits => :limit)
""")


class Wanted(msgspec.Struct, frozen=True):
    """What to search, and where."""

    phrase: str
    since: datetime
    """Only runs that started at or after this time."""
    until: datetime | None = None
    """Only runs that started before this time; None: no limit."""
    workflow: str | None = None
    node: str | None = None
    within: SearchPlace = "all"
    limit: int = 100


class Hit(msgspec.Struct, frozen=True):
    """A payload or an error that contains the phrase."""

    time: datetime
    """The run's start; without one, when the run was first seen."""
    workflow_id: str
    run_id: str
    step_id: str | None
    """None: the run's own inputs, outputs or error."""
    node_id: str | None
    place: str
    """prompt, answer, error, input or output."""
    snippet: str
    """The first hit between « and », and the text around it."""
    hit_start: int
    """Place of the hit's first character in the snippet; the first has 1."""
    hit_length: int


class Slice(msgspec.Struct, frozen=True):
    """A part of the window that has been searched."""

    since: datetime
    share: float
    """How much of the window is done, from 0 to 1."""
    hits: list[Hit]


def check_phrase(phrase: str) -> None:
    """Check that the phrase can be searched.

    Raises:
        ConfigurationError: it is too long, or contains NUL.
    """
    if len(phrase) > LONGEST_PHRASE:
        raise ConfigurationError(
            f"the phrase has {len(phrase):,} characters: at most {LONGEST_PHRASE:,} are allowed"
        )
    if "\0" in phrase:
        raise ConfigurationError("the phrase contains NUL, which no stored text can contain")


def slices(database: Database, wanted: Wanted) -> Iterator[Slice]:
    """Yield the parts of the window, the newest first, until the limit is reached.

    With an index it is a single part.

    Raises:
        DatabaseError: the database cannot be used, or has no search yet.
    """
    indexed, now, oldest = database.transaction(lambda c: _prepare(c, wanted.phrase))
    until, left = wanted.until, wanted.limit
    newest = now if until is None else min(until, now)
    first = wanted.since if oldest is None else max(wanted.since, oldest)
    width, start = FIRST_SLICE, newest
    while left > 0 and (until is None or until > wanted.since):
        try:
            start = first if indexed else max(first, start - width)
        except OverflowError:
            start = first
        begun = time.monotonic()
        bounds = msgspec.structs.replace(wanted, since=start, until=until, limit=left)
        hits = database.transaction(partial(_search, wanted=bounds))
        took = time.monotonic() - begun
        left -= len(hits)
        share = 1.0 if start <= first else (newest - start) / (newest - first)
        yield Slice(since=start, share=share, hits=hits)
        if start <= first:
            return
        until = start
        if took < SHORT:
            width *= 2
        elif took > LONG:
            width = max(width / 2, timedelta(seconds=1))


def _prepare(connection: Connection, phrase: str) -> tuple[bool, datetime, datetime | None]:
    if not connection.execute(_EXISTS).scalar_one():
        raise SchemaMismatch("the schema has no search yet: run `orchestra-etl db upgrade`")
    row = connection.execute(_OLDEST).one()
    indexed = connection.execute(_IS_INDEXED, {"phrase": phrase}).scalar_one()
    return indexed, row.now, row.oldest


def _search(connection: Connection, wanted: Wanted) -> list[Hit]:
    allow_long(connection)
    rows = connection.execute(_SEARCH, msgspec.structs.asdict(wanted))
    return [Hit(**row._mapping) for row in rows]

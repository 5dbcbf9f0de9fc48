"""Typed reading of one object's members: what does not fit its column is gathered, never lost and never an error."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, TypeVar

import msgspec
from msgspec import Raw

from etl.dead_letter_buffer import DeadLetterBuffer
from etl.records import MAX_ID_BYTES, Drift, DriftKind, Payload, Rejected, RejectionReason
from etl.transform.payloads import payload, storable
from etl.transform.scanner import REFUSALS, Members

MAX_TEXT_CHARACTERS = 512
"""Longer texts do not go into plain text columns, which may be indexed: 512 characters are 2,048 bytes at most."""

_MAX_LABEL_CHARACTERS = 100
_MAX_DRIFT_KINDS = 100  # an object keyed by data (ids as field names) must not fill the drift table
MAX_BIGINT = 2**63 - 1

# Programs write the start of an epoch, or the last day that they can, where they have no time: of
# these starts (the years 1, 1601, 1753, 1900, 1904, 1970, 1980, 2000, 2001) the last is 1 January
# 2001, wherever it begins.
EARLIEST = datetime(2001, 1, 2, 12, tzinfo=UTC)
LATEST = datetime(2099, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=31)
"""A time so far after the one at which it was read is none that has happened: more than clocks and time zones are wrong."""

MAX_TOKENS = 10**12
"""What a step's count of tokens may be: no step has a millionth of it, and nine million of them still add up to a bigint."""
MAX_ELAPSED_SECONDS = 10 * 366 * 86_400.0

_Number = TypeVar("_Number", int, float)

_TEXT: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_NUMBER: msgspec.json.Decoder[float | None] = msgspec.json.Decoder(float | None)
_INTEGER: msgspec.json.Decoder[int | None] = msgspec.json.Decoder(int | None)

_KINDS = {
    ord('"'): "string",
    ord("{"): "object",
    ord("["): "array",
    ord("t"): "boolean",
    ord("f"): "boolean",
    ord("n"): "null",
}

# More than six digits of a second the decoder rounds, into the year 10000 if need be; here they are
# cut off.
_LONGEST_IN_MICROSECONDS = len("2025-03-13T02:41:15.144470Z")

# The library alone would take more, and something else in each version: bare digits, letters before
# the zone, hour 24.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ]((?:[01]\d|2[0-3]):\d\d(?::\d\d(?:\.\d+)?)?)(?: ?([Zz]|[+-]\d\d(?::?\d\d)?))?)?",
    re.ASCII,
)
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")

Subject = Literal["step", "run", "workflow"]


class Findings:
    """What is gathered beside the records while one answer is decoded."""

    def __init__(self, subject: Subject, *, now: datetime | None = None) -> None:
        """`now`: about when the answer was made, by which its times are judged; None where that is not known."""
        self._subject: Subject = subject
        self.latest = LATEST if now is None else min(LATEST, now + AHEAD)
        """Times from here on are implausible."""
        self.dead_letters = DeadLetterBuffer()
        self._drift: Counter[tuple[str, DriftKind, str]] = Counter()

    def reject(
        self, reason: RejectionReason, detail: str, body: bytes, step_id: str | None = None
    ) -> None:
        """Set something aside with its bytes; `detail` is one sentence without payload text."""
        self.dead_letters.add(Rejected(reason, detail, body, step_id))

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """What was set aside."""
        return self.dead_letters.letters()

    def add_drift(self, field: str, kind: DriftKind, found: str) -> None:
        """Count one deviation from the API's description."""
        key = (_label(field), kind, _label(found))
        if key in self._drift or len(self._drift) < _MAX_DRIFT_KINDS:
            self._drift[key] += 1

    @property
    def drift(self) -> tuple[Drift, ...]:
        """The deviations, counted by field, kind and what was found."""
        return tuple(Drift(self._subject, *key, count) for key, count in self._drift.items())


class Fields:
    """The members of one step or run, read into columns. What does not fit is kept for `extra`.

    `suspect` says that the values are not known to be what jsonb and text columns take; `keep_raw`,
    whether the exact bytes are kept of a payload that jsonb cannot hold.
    """

    __slots__ = ("_extra", "_findings", "_id", "_keep_raw", "_members", "_suspect")

    def __init__(
        self, id: str, members: Members, findings: Findings, *, suspect: bool, keep_raw: bool = True
    ) -> None:
        self._id = id
        self._members = members
        self._findings = findings
        self._suspect = suspect
        self._keep_raw = keep_raw
        self._extra: Members = {}

    def text(self, name: str) -> str | None:
        """A text column; None where missing, null, no string, too long, or with characters that PostgreSQL refuses."""
        raw = self._members.get(name)
        if raw is None:
            return None
        try:
            value = _TEXT.decode(raw)
        except REFUSALS:
            self._misfit(name, raw, expected="string")
            return None
        if value is not None and (len(value) > MAX_TEXT_CHARACTERS or "\0" in value):
            self._extra[name] = raw
            return None
        return value

    def time(self, name: str) -> datetime | None:
        """A time in UTC; one without a zone is taken as UTC. None where missing, null, empty, unreadable or implausible."""
        raw = self._members.get(name)
        if raw is None:
            return None
        try:
            text = _TEXT.decode(raw)
        except REFUSALS:
            self._misfit(name, raw, expected="string")
            return None
        if not text:
            return None
        time = parse_time(text)
        if time is None:
            self._extra[name] = raw
            self._findings.add_drift(name, "unreadable_time", "string")
            return None
        if time.tzinfo is None:
            self._findings.add_drift(name, "time_without_zone", "string")
            time = time.replace(tzinfo=UTC)
        if not EARLIEST <= time < self._findings.latest:
            self._implausible(name, raw, "implausible_time")
            return None
        return time

    def number(self, name: str, *, most: float) -> float | None:
        """A number from 0 to `most`; None where missing, null, beyond that or anything else."""
        return self._counted(name, _NUMBER, most)

    def integer(self, name: str, *, most: int) -> int | None:
        """A whole number from 0 to `most`; None where missing, null, beyond that or anything else."""
        return self._counted(name, _INTEGER, most)

    def _counted(
        self, name: str, decoder: msgspec.json.Decoder[_Number | None], most: _Number
    ) -> _Number | None:
        raw = self._members.get(name)
        if raw is None:
            return None
        try:
            value = decoder.decode(raw)
        except REFUSALS:
            self._misfit(name, raw)
            return None
        if value is None or 0 <= value <= most:
            return value
        self._implausible(name, raw, "implausible_number")
        return None

    def json(self, name: str) -> str | None:
        """A jsonb column that has no raw bytes beside it: what jsonb cannot hold exactly is also set aside."""
        raw = self._members.get(name)
        if raw is None:
            return None
        value = bytes(raw)
        return None if value == b"null" else self._jsonb(name, value)

    def payload(self, name: str) -> Payload | None:
        """A payload column; None where the member is missing (null is a value)."""
        raw = self._members.get(name)
        return None if raw is None else payload(raw, suspect=self._suspect, keep_raw=self._keep_raw)

    def rest(self, known: frozenset[str]) -> str | None:
        """JSON text of an object for `extra`: the members outside `known`, and those that did not fit; None if none.

        To be asked for last.
        """
        if not known.issuperset(self._members):
            for name, raw in self._members.items():
                if name not in known:
                    self._extra[name] = raw
                    self._findings.add_drift(name, "unknown_field", _kind(raw))
        return self._jsonb("extra", object_of(self._extra)) if self._extra else None

    def _jsonb(self, name: str, value: bytes) -> str | None:
        if not self._suspect:
            return value.decode()
        data, note = storable(value)
        if note is not None:
            self._findings.reject("not_storable", f"{name}: {note}", value, self._id)
        return None if data is None else data.decode()

    def _implausible(self, name: str, raw: Raw, kind: DriftKind) -> None:
        self._extra[name] = raw
        self._findings.add_drift(name, kind, _kind(raw))

    def _misfit(self, name: str, raw: Raw, expected: str | None = None) -> None:
        self._extra[name] = raw
        kind = _kind(raw)
        # a string that only holds characters which no text column takes is no drift
        if kind != expected:
            self._findings.add_drift(name, "wrong_type", kind)


def text_of(raw: Raw | None) -> str | None:
    """The text that a JSON value is; None where it is missing, null or anything but a string."""
    if raw is None:
        return None
    try:
        return _TEXT.decode(raw)
    except REFUSALS:
        return None


def time_of(raw: Raw | None, *, latest: datetime = LATEST) -> datetime | None:
    """The time that a JSON value names, in UTC; None where it is missing, null, unreadable or implausible."""
    time = parse_time(text_of(raw) or "")
    if time is not None and time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return time if time is not None and EARLIEST <= time < latest else None


def usable_id(raw: Raw | None) -> str | None:
    """The id that a JSON value gives: a string of 1 to 512 bytes in UTF-8 that PostgreSQL can hold; else None."""
    value = text_of(raw)
    if (
        not value
        or "\0" in value
        or (len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES)
    ):
        return None
    return value


def pieces_of(members: Members) -> Iterator[bytes | Raw]:
    """JSON of an object with these members, their values as they came, in pieces."""
    before = b"{"
    for name, raw in members.items():
        yield before + (_key(name) if len(name) <= MAX_TEXT_CHARACTERS else _key.__wrapped__(name))
        yield raw
        before = b","
    yield b"}" if members else b"{}"


def object_of(members: Members) -> bytes:
    """JSON of an object with these members, their values as they came."""
    return b"".join(pieces_of(members))


@lru_cache(maxsize=256)  # nearly all are the API's own field names
def _key(name: str) -> bytes:
    return json.dumps(name).encode() + b":"


def parse_time(text: str) -> datetime | None:
    """The time that an ISO 8601 text names, to the microsecond: in UTC, or without a zone where the text has none.

    Takes `T` or a space before the time, `Z`, offsets with or without minutes, and a date alone;
    None where unreadable or outside the years 1 to 9999 in UTC.
    """
    if len(text) <= _LONGEST_IN_MICROSECONDS:
        # the form that the API sends, at a tenth of the cost of the reading below, which takes more
        # forms
        try:
            usual = msgspec.convert(text, datetime)
            if usual.tzinfo is UTC:
                return usual
        except msgspec.ValidationError:
            pass
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    date, clock, zone = match.groups()
    try:
        time = datetime.fromisoformat(f"{date}T{clock or '00:00'}{(zone or '').upper()}")
        return time if time.tzinfo is UTC or time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _kind(raw: Raw) -> str:
    return _KINDS.get(bytes(raw)[0], "number")


def _label(text: str) -> str:
    """A text as it may stand in a column: short, without NUL and lone surrogates."""
    return _UNPRINTABLE.sub("\ufffd", text[:_MAX_LABEL_CHARACTERS])

"""Typed reading of an object's members into columns.

A value that does not fit its column goes into `extra`. No value is lost, and none raises an error.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, TypeVar

import msgspec
from msgspec import Raw

from etl.dead_letter_buffer import DeadLetterBuffer
from etl.records import MAX_ID_BYTES, Drift, DriftKind, Payload, Rejected, RejectionReason
from etl.transform.payloads import payload, storable
from etl.transform.scanner import REFUSALS
from etl.transform.tolerant_json import Members

MAX_TEXT_CHARACTERS = 512
"""The longest text in a plain text column, which may be indexed: at most 2,048 bytes."""

_MAX_LABEL_CHARACTERS = 100
# An object keyed by data, such as ids as field names, must not fill the drift table.
_MAX_DRIFT_KINDS = 100

# Programs that have no time write the start of an epoch (the years 1, 1601, 1753, 1900, 1904, 1970,
# 1980, 2000, 2001) or the last day that they know. The latest of these starts is 1 January 2001, in
# any time zone.
EARLIEST = datetime(2001, 1, 2, 12, tzinfo=UTC)
LATEST = datetime(2099, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=31)
"""How far after the response a time is implausible: no clock or time zone is this wrong."""

MAX_TOKENS = 10**12
"""The largest plausible number of tokens of a step.

Real steps have less than a millionth of it, and the sum of nine million such steps still fits a
bigint.
"""
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

LONGEST_USUAL_TIME = len("2025-03-13T02:41:15.144470Z")
"""The length of a time that the decoder reads exactly.

It rounds a second with more than six decimal digits, which can lead to the year 10000.
`parse_time` therefore does not pass longer texts to the decoder, and cuts these digits off.
"""

# `datetime.fromisoformat` alone accepts more forms, which differ between versions of Python: bare
# digits, letters before the zone, hour 24.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[Tt ]((?:[01]\d|2[0-3]):\d\d(?::\d\d(?:\.\d+)?)?)(?: ?([Zz]|[+-]\d\d(?::?\d\d)?))?)?",
    re.ASCII,
)
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")

Subject = Literal["step", "run", "workflow"]


class Findings:
    """Dead letters and drift that are collected while one response is decoded."""

    def __init__(self, subject: Subject, *, now: datetime | None = None) -> None:
        """Start empty; `now` is about the time of the response, None if unknown."""
        self._subject: Subject = subject
        self.latest = LATEST if now is None else min(LATEST, now + AHEAD)
        """Times at or after this time are implausible."""
        self.dead_letters = DeadLetterBuffer()
        self._drift: dict[tuple[str, DriftKind, str], int] = {}

    def reject(
        self, reason: RejectionReason, detail: str, body: bytes, step_id: str | None = None
    ) -> None:
        """Add a dead letter; `detail` is one sentence without content of payloads."""
        self.dead_letters.add(Rejected(reason, detail, body, step_id))

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The dead letters."""
        return self.dead_letters.letters()

    def add_drift(self, field: str, kind: DriftKind, found: str) -> None:
        """Count one deviation from the API's description."""
        key = (_label(field), kind, _label(found))
        if key in self._drift or len(self._drift) < _MAX_DRIFT_KINDS:
            self._drift[key] = self._drift.get(key, 0) + 1

    @property
    def drift(self) -> tuple[Drift, ...]:
        """The deviations, counted by field, kind and what was found."""
        return tuple(Drift(self._subject, *key, count) for key, count in self._drift.items())


class Fields:
    """The members of one step or run, read into columns. Values that do not fit go into `extra`.

    `step_id` is named in dead letters; None for the members of a run. If `suspect`, the values may
    contain what jsonb and text columns refuse. If `keep_raw`, the exact bytes of a payload that
    jsonb cannot hold are kept.
    """

    __slots__ = ("_extra", "_findings", "_keep_raw", "_members", "_step_id", "_suspect")

    def __init__(
        self,
        step_id: str | None,
        members: Members,
        findings: Findings,
        *,
        suspect: bool,
        keep_raw: bool = True,
    ) -> None:
        self._step_id = step_id
        self._members = members
        self._findings = findings
        self._suspect = suspect
        self._keep_raw = keep_raw
        self._extra: Members = {}

    def text(self, name: str) -> str | None:
        """Return the value of a text column; None if it is missing, null or does not fit.

        Other types, longer texts and characters that PostgreSQL refuses do not fit.
        """
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
        """Return a time in UTC; a time without a zone is read as UTC.

        None if it is missing, null, empty, unreadable or implausible.
        """
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
        """Return a number from 0 to `most`; None if it is missing, null or anything else."""
        return self._counted(name, _NUMBER, most)

    def integer(self, name: str, *, most: int) -> int | None:
        """Return a whole number from 0 to `most`; None if it is missing, null or anything else."""
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
        """Return the JSON text of a jsonb column that has no column for raw bytes.

        A value that jsonb cannot hold exactly also becomes a dead letter. None if the member is
        missing or null, or if jsonb cannot hold any form of it.
        """
        raw = self._members.get(name)
        if raw is None:
            return None
        value = bytes(raw)
        return None if value == b"null" else self._jsonb(name, value)

    def payload(self, name: str) -> Payload | None:
        """Return a payload; None if the member is missing. A null is a value."""
        raw = self._members.get(name)
        return None if raw is None else payload(raw, suspect=self._suspect, keep_raw=self._keep_raw)

    def rest(self, known: frozenset[str]) -> str | None:
        """Return the JSON object for `extra`: members outside `known`, and values that did not fit.

        None if there are none. Call it last, after all columns are read.
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
            self._findings.reject("not_storable", f"{name}: {note}", value, self._step_id)
        return None if data is None else data.decode()

    def _implausible(self, name: str, raw: Raw, kind: DriftKind) -> None:
        self._extra[name] = raw
        self._findings.add_drift(name, kind, _kind(raw))

    def _misfit(self, name: str, raw: Raw, expected: str | None = None) -> None:
        self._extra[name] = raw
        kind = _kind(raw)
        # A string whose only problem is characters that no text column accepts is not drift.
        if kind != expected:
            self._findings.add_drift(name, "wrong_type", kind)


def text_of(raw: Raw | None) -> str | None:
    """Return the text of a JSON string; None if it is missing, null or of another type."""
    if raw is None:
        return None
    try:
        return _TEXT.decode(raw)
    except REFUSALS:
        return None


def time_of(raw: Raw | None, *, latest: datetime = LATEST) -> datetime | None:
    """Return the time in a JSON string, in UTC.

    None if it is missing, null, unreadable or implausible.
    """
    time = parse_time(text_of(raw) or "")
    if time is not None and time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return time if time is not None and EARLIEST <= time < latest else None


def usable_id(raw: Raw | None) -> str | None:
    """Return the id in a JSON string; None if it is not 1 to 512 bytes that PostgreSQL can hold."""
    value = text_of(raw)
    if (
        not value
        or "\0" in value
        or (len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES)
    ):
        return None
    return value


def object_of(members: Members) -> bytes:
    """Return a JSON object with these members; values stay byte for byte."""
    pieces: list[bytes | Raw] = []
    before = b"{"
    for name, raw in members.items():
        key = _key(name) if len(name) <= MAX_TEXT_CHARACTERS else _key.__wrapped__(name)
        pieces += (before, key, raw)
        before = b","
    pieces.append(b"}" if members else b"{}")
    return b"".join(pieces)


@lru_cache(maxsize=256)  # Nearly all names are the API's own field names.
def _key(name: str) -> bytes:
    return json.dumps(name).encode() + b":"


def parse_time(text: str) -> datetime | None:
    """Return the time in an ISO 8601 text, to the microsecond.

    It is in UTC, or without a zone if the text has none. Accepted are `T` or a space before the
    time, `Z`, offsets with or without minutes, and a date alone. None if the text is unreadable or
    outside the years 1 to 9999 in UTC.
    """
    if len(text) <= LONGEST_USUAL_TIME:
        # The decoder accepts the form that the API sends, at a tenth of the cost of the code below,
        # which accepts more forms.
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
    """Return a text that fits a column: cut off, without NUL and lone surrogates."""
    return _UNPRINTABLE.sub("\ufffd", text[:_MAX_LABEL_CHARACTERS])

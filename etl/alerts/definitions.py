"""The definitions of rules that all processes evaluated recently.

Replicas can have different settings for a while, such as during a rolling deployment. A rule that a
process does not have, or has in another form, may be another process's. Its alerts must not end
because of that. They end once no other definition of the rule has been evaluated for a while. An
evaluation of other rules by another process does not count as an evaluation of this process's
rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from etl.alerts.knowledge import Pauses
from etl.alerts.rules import Rule

KEPT = 900.0
"""Seconds for which a recorded evaluation of a definition counts."""
RENEWED_AFTER = 300.0
"""Seconds after which an evaluation is recorded again. Most evaluations then write nothing."""

# No rule has this name. Its entry is the `digest` of the last evaluation.
_LAST = ""

_Times = Mapping[str, Mapping[str, float]]
"""By rule and definition: when it was recorded, in seconds since 1970 of the database's clock."""

# Revision 0003 has no column `definitions`.
_READ = text("SELECT to_jsonb(e) -> 'definitions' FROM orchestra_etl.alert_evaluation AS e")
_WRITE = text("UPDATE orchestra_etl.alert_evaluation SET definitions = CAST(:times AS jsonb)")


class Definitions(msgspec.Struct, frozen=True):
    """The definitions that were evaluated recently, and this process's own."""

    own: Mapping[str, str]
    """By rule."""
    recent: _Times | None
    """None: the schema cannot store them."""
    last: str | None = None
    """The `digest` of the last evaluation; None: unknown."""

    @property
    def digest(self) -> str:
        """A hash that is equal in processes with the same definitions."""
        return _hash(sorted(self.own.items()))

    @property
    def are_those_of_the_last_evaluation(self) -> bool:
        """Whether the last evaluation was of the same definitions; true if it is unknown."""
        return self.last in (None, self.digest)

    @property
    def contested(self) -> frozenset[str]:
        """The rules of which another definition was evaluated recently."""
        return frozenset(
            name
            for name, times in (self.recent or {}).items()
            if any(definition != self.own.get(name) for definition in times)
        )

    def write(self, connection: Connection, at: datetime) -> None:
        """Record that this process's definitions were evaluated at this time, if that is due."""
        if self.recent is None:
            return
        now = at.timestamp()
        times = {name: dict(found) for name, found in self.recent.items()}
        due = [
            (name, definition)
            for name, definition in self.own.items()
            if now - times.get(name, {}).get(definition, 0.0) >= RENEWED_AFTER
        ]
        if not due and self.last == self.digest:
            return
        for name, definition in due:
            times.setdefault(name, {})[definition] = now
        times[_LAST] = {self.digest: now}
        connection.execute(_WRITE, {"times": msgspec.json.encode(times).decode()})


def read(
    connection: Connection, rules: Sequence[Rule], pauses: Pauses, at: datetime
) -> Definitions:
    """Return the definitions of the rules, and those recorded in the `KEPT` seconds before `at`.

    A later time than `at` shows that the database's clock was set back; it does not count.
    """
    own = {rule.name: _definition(rule, pauses) for rule in rules}
    stored: dict[str, Mapping[str, float]] | None = connection.execute(_READ).scalar_one_or_none()
    if stored is None:
        return Definitions(own, None)
    now = at.timestamp()
    last = next(iter(stored.pop(_LAST, {})), None)
    recent = {
        name: {key: time for key, time in times.items() if 0 <= now - time < KEPT}
        for name, times in stored.items()
    }
    return Definitions(own, {name: times for name, times in recent.items() if times}, last)


def _definition(rule: Rule, pauses: Pauses) -> str:
    """Return a hash of what decides whether the rule is breached, and of its workflows."""
    decides = msgspec.structs.replace(rule, notify=(), repeat=None)
    return _hash((decides, sorted(pauses.configured), pauses.others is not None))


def _hash(parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]

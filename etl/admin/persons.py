"""Search for a person's runs: by name, and by the hash that a `hash` rule makes of the name.

If a rule or the API itself hides the name, the search cannot find it. Such runs are counted, so
that an erasure can report that it may have missed some.
"""

from __future__ import annotations

import json
import re
from datetime import datetime

import msgspec
from sqlalchemy import Connection, text

from etl.database import allow_long
from etl.ledger import redaction
from etl.ledger.redaction import RecordedPolicy
from etl.transform.exact_json import texts_of
from etl.transform.redact import IDENTIFIERS, Policy, Redaction, RedactionRule
from etl.transform.scanner import split

# Number of list rows that are read at once.
READ_AT_ONCE = 5000


class Person(msgspec.Struct, frozen=True):
    """A user or an organisation."""

    field: str
    """`user_id` or `organization_id`."""
    values: tuple[str, ...]
    """The values that a row may hold: the name, then its hash under the current key, if any."""
    workflow_id: str | None
    """Only this workflow's runs; None: all."""

    @property
    def parameters(self) -> dict[str, object]:
        """Parameters for the SQL statements of this module and of its callers."""
        return {
            "name": self.values[0],
            "values": list(self.values),
            "workflow_id": self.workflow_id,
        }


class Hidden(msgspec.Struct, frozen=True):
    """Runs whose user or organisation is hidden. Some may belong to the person."""

    masked: int = 0
    """Stored with asterisks that fit the name, by a `mask` rule or by the API."""
    dropped: int = 0
    """Stored without the name, by a `drop` rule."""
    hashed: int = 0
    """Hashed, possibly with another key than the current one."""

    @property
    def any(self) -> bool:
        """Whether there is at least one such run."""
        return bool(self.masked or self.dropped or self.hashed)


IN_SCOPE = "(CAST(:workflow_id AS text) IS NULL OR t.workflow_id = :workflow_id)"
"""The condition (SQL) that a row `t` belongs to the workflow of the search, if one is named."""

# A value that is not text, or that is too long for the column, is stored in `extra`. There it may
# be an object that holds the name at any depth.
_OF_PERSON = f"""
    SELECT t.id FROM orchestra.runs AS t WHERE {{named}} AND {IN_SCOPE}
    UNION
    SELECT t.run_id FROM orchestra.steps AS t WHERE {{named}} AND {IN_SCOPE}
"""
_NAMED = """(t.{field} = ANY (CAST(:values AS text[]))
             OR t.extra ->> '{field}' = ANY (CAST(:values AS text[]))
             OR jsonb_path_exists(t.extra -> '{field}', '$.** ? (@ == $values[*])',
                                  (SELECT jsonb_build_object('values',
                                                             CAST(:values AS text[])))))"""
_FIND = {field: text(_OF_PERSON.format(named=_NAMED.format(field=field))) for field in IDENTIFIERS}

_LISTINGS = text(f"""
    SELECT t.run_id, t.listing FROM orchestra_etl.run_ledger AS t
    WHERE t.listing IS NOT NULL AND t.run_id > :after AND {IN_SCOPE}
    ORDER BY t.run_id
    LIMIT :limit
""")

# Any character of a name may be written as an escape. So the statement returns all dead letters
# whose bytes contain a backslash or the name.
_LETTERS = text(f"""
    SELECT t.id FROM orchestra_etl.dead_letters AS t
    WHERE {IN_SCOPE}
      AND (position(CAST('\\x5c' AS bytea) IN t.body) > 0
           OR EXISTS (SELECT FROM unnest(CAST(:values AS text[])) AS n (value)
                      WHERE position(convert_to(n.value, 'UTF8') IN t.body) > 0))
    ORDER BY t.id
""")
_BODY = text("SELECT body FROM orchestra_etl.dead_letters WHERE id = :id")
_PLAIN = {character: character for character in '"\\/'}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)

# A sequence of asterisks matches any characters, in the API's masks and in those of this program.
_WHY_HIDDEN = r"""
    CASE WHEN t.{field} = ANY (CAST(:values AS text[])) THEN NULL
         WHEN t.{field} LIKE 'hmac-sha256:%' THEN
             CASE WHEN t.redaction_policy IS NULL THEN NULL
                  WHEN t.redaction_policy = ANY (CAST(:current AS text[]))
                       AND t.first_seen_at >= CAST(:since AS timestamptz)
                  THEN NULL ELSE 'hashed' END
         WHEN position('*' IN t.{field}) > 0
              AND :name LIKE regexp_replace(
                      regexp_replace(t.{field}, '([\\%_])', '\\\1', 'g'), '\*+', '%', 'g')
         THEN 'masked'
         WHEN t.{field} IS NULL AND t.redaction_policy = ANY (CAST(:dropping AS text[]))
         THEN 'dropped' END"""
_HIDDEN = {
    field: text(f"""
        SELECT why, count(DISTINCT run_id) AS runs
        FROM (SELECT t.id AS run_id, {_WHY_HIDDEN.format(field=field)} AS why
              FROM orchestra.runs AS t WHERE {IN_SCOPE}
              UNION ALL
              SELECT t.run_id, {_WHY_HIDDEN.format(field=field)}
              FROM orchestra.steps AS t WHERE {IN_SCOPE}) AS found
        WHERE why IS NOT NULL
        GROUP BY why
    """)
    for field in IDENTIFIERS
}


def runs_of(connection: Connection, person: Person) -> set[str]:
    """Return the ids of the runs that name the person.

    The name is in the run's own row, in a step, or in a listing that is not loaded yet.
    """
    allow_long(connection)
    found = set(connection.execute(_FIND[person.field], person.parameters).scalars())
    after = ""
    while rows := connection.execute(
        _LISTINGS, {"workflow_id": person.workflow_id, "after": after, "limit": READ_AT_ONCE}
    ).all():
        found.update(row.run_id for row in rows if _names(bytes(row.listing), person))
        after = rows[-1].run_id
    return found


def dead_letters_of(connection: Connection, person: Person) -> list[int]:
    """Return the numbers of the dead letters whose bytes name the person, in any JSON spelling.

    Because the bytes may not be JSON, the name counts wherever it is not part of a longer word or
    number. A name of only symbols or blanks can occur anywhere, so it counts only as a whole
    string.
    """
    allow_long(connection)
    patterns = (
        rf"(?<!\w){re.escape(value)}(?!\w)" if re.search(r"\w", value) else f'"{re.escape(value)}"'
        for value in person.values
    )
    name = re.compile("|".join(patterns))
    return [
        id
        for id in connection.execute(_LETTERS, person.parameters).scalars().all()
        if (body := connection.execute(_BODY, {"id": id}).scalar_one_or_none())
        and _mentions(bytes(body), name)
    ]


def hidden(connection: Connection, person: Person, rules: Redaction) -> Hidden:
    """Count the stored runs that may belong to the person, but hide the name."""
    allow_long(connection)
    recorded = redaction.recorded(connection)
    current = [one for one in recorded if rules.has_made(one.version, _rules(one))]
    parameters = {
        **person.parameters,
        "current": [one.version for one in current],
        # A hash does not change when its row is redacted again. So a row that was first seen before
        # the current rules may hold the hash of an earlier key.
        "since": min((one.first_used_at for one in current), default=None)
        if len(current) < len(recorded)
        else datetime.min,
        "dropping": [
            one.version for one in recorded if "drop" in _policy(one).effects(person.field)
        ],
    }
    return Hidden(
        **{row.why: row.runs for row in connection.execute(_HIDDEN[person.field], parameters)}
    )


def _policy(recorded: RecordedPolicy) -> Policy:
    return Policy(_rules(recorded), b"no hash of this is kept")


def _rules(recorded: RecordedPolicy) -> list[RedactionRule]:
    return [RedactionRule(one.path, one.action, node=one.node) for one in recorded.rules]


def _mentions(body: bytes, name: re.Pattern[str]) -> bool:
    """Return whether the name occurs in these bytes, as it is or with escaped characters."""
    found = body.decode(errors="replace")
    if name.search(found) is not None:
        return True
    if b"\\" not in body:
        return False
    plain = _ESCAPE.sub(
        lambda one: chr(int(one[1], 16)) if one[1] else _PLAIN.get(one[2], " "), found
    )
    # Characters beyond U+FFFF are escaped as two surrogates.
    return (
        name.search(plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        is not None
    )


def _names(listing: bytes, person: Person) -> bool:
    """Return whether a list row names the person: as text, as a number, or inside an object."""
    parts = split(b"[" + listing + b"]")
    members = parts.elements[0][1] if parts is not None and parts.elements else None
    if members is None:
        return any(value.encode() in listing for value in person.values)
    raw = bytes(members.get(person.field, b""))
    if raw.decode(errors="replace") in person.values:
        return True
    try:
        return any(value in person.values for value in texts_of(json.loads(raw)))
    except (ValueError, RecursionError):
        return False

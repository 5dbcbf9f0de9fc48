"""The redaction rules under which stored rows were written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection, text

_RECORD = text("""
    INSERT INTO orchestra_etl.redaction_policies (version, rules)
    SELECT n.version, CAST(n.rules AS jsonb)
    FROM unnest(CAST(:versions AS text[]), CAST(:rules AS text[])) AS n (version, rules)
    ORDER BY n.version COLLATE "C"
    ON CONFLICT (version) DO NOTHING
""")

_RECORDED = text(
    "SELECT version, rules, first_used_at FROM orchestra_etl.redaction_policies ORDER BY version"
)

_OTHERS = text("""
    SELECT count(*) FROM orchestra.steps
    WHERE workflow_id = :workflow_id AND redaction_policy IS DISTINCT FROM CAST(:version AS text)
""")


def record(connection: Connection, policies: Mapping[str, str]) -> None:
    """Record the rules in force (JSON by version); a version is recorded once."""
    if policies:
        versions = sorted(policies)
        rules = [policies[version] for version in versions]
        connection.execute(_RECORD, {"versions": versions, "rules": rules})


class RecordedRule(msgspec.Struct, frozen=True):
    """A rule that is or was in force, by its normalised path."""

    path: str
    action: Literal["drop", "mask", "hash"]
    node: str | None = None


class RecordedPolicy(msgspec.Struct, frozen=True):
    """A set of rules that is or was in force."""

    version: str
    rules: list[RecordedRule]
    first_used_at: datetime


def recorded(connection: Connection) -> list[RecordedPolicy]:
    """Return all rule sets that were ever in force."""
    return [
        RecordedPolicy(
            row.version, msgspec.convert(row.rules, list[RecordedRule]), row.first_used_at
        )
        for row in connection.execute(_RECORDED)
    ]


def steps_under_others(connection: Connection, workflow_id: str, version: str) -> int:
    """Return how many stored steps of a workflow were written under other rules, or under none."""
    found: int = connection.execute(
        _OTHERS, {"workflow_id": workflow_id, "version": version}
    ).scalar_one()
    return found

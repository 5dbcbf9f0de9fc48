"""Where a text that the rules remove from one place of a run still stands in another.

A rule names a place, not a text. What a model answers is the next node's input, and the run's own
output: a rule for one of these leaves the others. The search is bounded in work, and says when it
was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from etl.transform.fields import text_of
from etl.transform.redact import UNTOUCHED, NotRedactable, Policy
from etl.transform.scanner import Members

LEAST_CHARACTERS = 4
"""Shorter texts stand everywhere by chance."""
LEAST_PART = 20
"""Characters that a part of a removed text must have."""
MAX_WORK = 200_000_000
"""Characters compared, which takes a second or less; from then on only whole texts are found."""
_LEAST_WORK = 50  # a call costs as much as so many characters
MAX_FOUND = 100

# Members whose values are words of the protocol: the same in every message, whoever wrote it.
_NO_CONTENT = frozenset({"role", "type", "object", "finish_reason", "model", "status"})

Element = tuple[Raw, Members, bool]
"""A step, or a run's own row: then the last is true."""


class FoundCopy(NamedTuple):
    """A place that keeps a removed text, or a long part of one, alone or inside another text."""

    rule: int
    """Place of the rule that removes it elsewhere."""
    step_id: str | None
    """None: the run's own row."""
    node_id: str | None
    path: str
    """The normalised path."""


class FoundCopies(NamedTuple):
    """What was found, and whether all was looked at."""

    found: tuple[FoundCopy, ...]
    complete: bool


def find_copies(policy: Policy, run_id: str, elements: Sequence[Element]) -> FoundCopies:
    """Look for what the rules remove from these elements of one run in what they leave of them.

    Elements that cannot be redacted are left out: nothing is kept of them.
    """
    removed: dict[str, int] = {}
    left: list[tuple[str | None, str | None, Any]] = []
    for own, members, of_run in elements:
        try:
            values = policy.removed(own, members, of_run=of_run)
            kept = (policy.run if of_run else policy.step)(own, members)
            document = {
                name: value
                for name, value in json.loads(bytes(kept.own)).items()
                if name not in UNTOUCHED or isinstance(value, (dict, list))
            }
        except (NotRedactable, ValueError, RecursionError):
            continue
        for rule, value in values:
            for text in _contents(value):
                removed.setdefault(text, rule)
        step = (
            (None, None)
            if of_run
            else (text_of(members.get("id")), text_of(members.get("node_id")))
        )
        left.append((*step, document))
    # Ids are no content: they stand in many places by nature.
    removed.pop(run_id, None)
    for _, members, _ in elements:
        for name in ("id", "node_id"):
            removed.pop(text_of(members.get(name)) or "", None)
    return _search(removed, left)


def _search(
    removed: dict[str, int], left: Sequence[tuple[str | None, str | None, Any]]
) -> FoundCopies:
    # In another text, as a tool's arguments are, it may stand as JSON writes it.
    needles = {form: rule for text, rule in removed.items() for form in (text, json.dumps(text)[1:-1],
               json.dumps(text, ensure_ascii=False)[1:-1])}  # fmt: skip
    reach = sum(map(len, needles))
    found: dict[FoundCopy, None] = {}
    work = 0
    for step_id, node_id, document in left:
        for path, text in _places(document, "$"):
            if len(found) >= MAX_FOUND:
                return FoundCopies(tuple(found), complete=False)
            rule = needles.get(text)
            if rule is None and work <= MAX_WORK:
                part = len(text) >= LEAST_PART
                work += max(len(text), _LEAST_WORK) * len(needles) + (reach if part else 0)
                rule = next(
                    (
                        rule
                        for one, rule in needles.items()
                        if one in text or (part and text in one)
                    ),
                    None,
                )
            if rule is not None:
                found[FoundCopy(rule, step_id, node_id, path)] = None
    return FoundCopies(tuple(found), complete=work <= MAX_WORK)


def _contents(value: Any) -> Iterator[str]:
    """The texts in a removed value that are worth a search."""
    if isinstance(value, str):
        if len(value) >= LEAST_CHARACTERS:
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in _NO_CONTENT or not isinstance(inner, str):
                yield from _contents(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _contents(inner)


def _places(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a document, names of members among them, behind its normalised path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            quoted = (
                json.dumps(name, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
            )
            # else the field's own name, which no one has said
            if not name.replace("_", "").isalpha():
                yield f"{path}['{quoted}']", name
            yield from _places(inner, f"{path}['{quoted}']")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _places(inner, f"{path}[{place}]")

"""Search for removed texts that another place of the same run still contains.

A rule names a place, not a text. A model's response is also the input of the next node and the
output of the run: a rule for one of these places does not remove the others. The work of the search
is bounded, and the result says whether the search was complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from etl.transform.fields import text_of
from etl.transform.redact import UNTOUCHED, NotRedactable, Policy
from etl.transform.tolerant_json import Members

LEAST_CHARACTERS = 4
"""The shortest removed text to search for: shorter texts occur everywhere by chance."""
LEAST_PART = 20
"""The shortest part of a removed text that counts as a copy, in characters."""
MAX_WORK = 200_000_000
"""The number of compared characters after which a search finds only values equal to a removed text.

Comparing this many takes at most a second.
"""
# A comparison costs at least as much as this many characters.
_LEAST_WORK = 50
MAX_FOUND = 100
"""Maximum number of places that a search returns; the search then ends, and is not complete."""

# Members whose values are words of the protocol, the same in every message.
_NO_CONTENT = frozenset({"role", "type", "object", "finish_reason", "model", "status"})

Element = tuple[Raw, Members, bool]
"""Bytes and members of a step or of a run's own row, and whether it is a run's row."""


class FoundCopy(NamedTuple):
    """A place that still contains a removed text or a long part of it."""

    rule: int
    """Index of the rule that removes the text elsewhere."""
    step_id: str | None
    """The step that contains the copy; None: the run's own row."""
    node_id: str | None
    path: str
    """The normalised path of the place."""


class FoundCopies(NamedTuple):
    """The places that were found, and whether the search was complete."""

    found: tuple[FoundCopy, ...]
    complete: bool


def find_copies(policy: Policy, run_id: str, elements: Sequence[Element]) -> FoundCopies:
    """Search the redacted elements of one run for the texts that the rules remove from them.

    Elements that cannot be redacted are skipped, because nothing of them is kept.
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
    # Ids are not content: they occur in many places by nature.
    removed.pop(run_id, None)
    for _, members, _ in elements:
        for name in ("id", "node_id"):
            removed.pop(text_of(members.get(name)) or "", None)
    return _search(removed, left)


def _search(
    removed: dict[str, int], left: Sequence[tuple[str | None, str | None, Any]]
) -> FoundCopies:
    # Inside another text, such as the arguments of a tool, the text may be escaped as JSON.
    needles = {
        form: rule
        for text, rule in removed.items()
        for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    }
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
    """Yield the texts in a removed value that are searched for."""
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
    """Yield every text in a document, including names of members, after its normalised path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            quoted = (
                json.dumps(name, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
            )
            # A name of letters and underscores is a field name, not content.
            if not name.replace("_", "").isalpha():
                yield f"{path}['{quoted}']", name
            yield from _places(inner, f"{path}['{quoted}']")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, f"{path}[{index}]")

"""Redaction: rules that remove content from a step or a run before it is processed further.

An element enters and leaves as bytes. Everything derived from it (columns, hashes, the ledger's
listing, dead letters) is therefore derived from redacted content. A value that no rule matches
stays the same JSON value to the last digit. An element that cannot be read cannot be redacted: its
bytes are not kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from msgspec import Raw

from etl.records import Rejected, RejectionReason
from etl.transform.exact_json import kind_of, parse, written
from etl.transform.fields import text_of
from etl.transform.generation import REMOVED_ERROR, is_error
from etl.transform.payloads import may_be_refused
from etl.transform.scanner import split
from etl.transform.tolerant_json import Members

if TYPE_CHECKING:
    from jsonpath_rfc9535 import JSONPathQuery

MASK = "********"
_HASHED = re.compile("hmac-sha256:[0-9a-f]{64}")

UNTOUCHED = frozenset(
    {"id", "node_id", "status", "start_time", "end_time", "elapsed_time", "tokens"}
)
"""Members that the row depends on: no rule changes them, unless they are an array or an object."""

IDENTIFIERS = ("user_id", "organization_id")
"""Members that name the user and the organisation of a step or run."""

Location = tuple[int | str, ...]
Action = Literal["drop", "mask", "hash"]


class RedactionRule(msgspec.Struct, frozen=True):
    """One rule: a place, and what happens to the values there."""

    path: str
    """JSONPath (RFC 9535) in the step, or in the run's own row, as the API sends it."""
    action: Action
    workflow: str | None = None
    """The workflow that the rule applies to; None: every workflow."""
    node: str | None = None
    """The node whose steps the rule applies to; None: every step, and the run's own row."""


class NotRedactable(ValueError):
    """The element cannot be redacted. The text names the kind of error, without content."""


class RedactedElement(NamedTuple):
    """An element after redaction, as it may be kept."""

    own: Raw
    members: Members
    suspect: bool
    """Whether jsonb might refuse a value in the element."""


class Match(NamedTuple):
    """One value in an element that a rule matches."""

    rule: int
    """Index of the rule in the policy."""
    path: str
    """The normalised path of the value."""
    kind: str
    """The JSON type."""
    size: int
    """Length of the value's JSON, in bytes."""
    applied: bool
    """Whether the rule changes the value.

    False if another rule for the same place or a match around the value takes precedence, if no
    rule changes the member (`UNTOUCHED`), or if the value `_stays`.
    """


def _is_empty(value: Any) -> bool:
    """Return whether the value has no content: null, or an empty string, array or object."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


def _stays(action: Action, location: Location, value: Any) -> bool:
    """Return whether a value stays although a rule matches it.

    An empty value stays: a mask would show content where there was none, such as an error. An
    identifier that the API itself has masked (`2*****1`) is not hashed: `erase` could not compare
    the hash with a name, and would not report the run as hidden.
    """
    if action == "drop":
        return False
    is_identifier = len(location) == 1 and location[0] in IDENTIFIERS
    is_masked = is_identifier and isinstance(value, str) and "*" in value
    return _is_empty(value) or (action == "hash" and is_masked)


class _Compiled(NamedTuple):
    place: int
    node: str | None
    action: Action
    query: JSONPathQuery


class Redaction:
    """The rules of all workflows."""

    def __init__(self, rules: Sequence[RedactionRule] = (), key: str = "") -> None:
        """Compile the rules; `key` is for the hashes, and may be empty if there are no rules.

        Raises:
            ValueError: there are rules, but no key.
        """
        if rules and not key:
            raise ValueError("redaction rules need a key")
        self._key = key.encode()
        self._named = {
            workflow: self._policy([rule for rule in rules if rule.workflow in (None, workflow)])
            for workflow in {rule.workflow for rule in rules if rule.workflow is not None}
        }
        self._common = self._policy([rule for rule in rules if rule.workflow is None])

    def _policy(self, rules: Sequence[RedactionRule]) -> Policy | None:
        return Policy(rules, self._key) if rules else None

    def policy(self, workflow_id: str) -> Policy | None:
        """Return the workflow's policy; None if no rule applies to it."""
        return self._named.get(workflow_id, self._common)

    def hashed(self, text: str) -> str | None:
        """Return what a `hash` rule puts in place of this text; None without a key."""
        return _hash(text, self._key) if self._key else None

    def has_made(self, version: str, rules: Sequence[RedactionRule]) -> bool:
        """Return whether the policy of this version, with these rules, used the current key."""
        return bool(self._key) and _version(_rules_json(rules), self._key) == version

    @property
    def policies(self) -> dict[str, Policy]:
        """All policies, of any workflow, by version."""
        found = [*self._named.values(), self._common]
        return {policy.version: policy for policy in found if policy is not None}


class Policy:
    """The rules that apply to one workflow. Several threads may use it at once.

    Attributes:
        version: depends only on the effect of the rules and on the key.
        rules: the rules in the order of the configuration.
    """

    def __init__(self, rules: Sequence[RedactionRule], key: bytes) -> None:
        # Imported here, because the import takes 35 ms and most configurations have no rules.
        from jsonpath_rfc9535 import JSONPathEnvironment

        class Environment(JSONPathEnvironment):
            # At the library's default of 100 levels, `..` fails on real payloads. Python's own
            # limit applies instead.
            max_recursion_depth = 1_000_000

        environment = Environment()
        self.rules = tuple(rules)
        self._key = key
        compiled = [
            _Compiled(index, rule.node, rule.action, environment.compile(rule.path))
            for index, rule in enumerate(rules)
        ]
        self._everywhere = tuple(rule for rule in compiled if rule.node is None)
        self._of_node = {
            node: tuple(rule for rule in compiled if rule.node in (None, node))
            for node in {rule.node for rule in compiled if rule.node is not None}
        }
        # The workflow is left out: a rule has the same effect for one workflow as for all.
        self.rules_json = _rules_json(
            [RedactionRule(str(rule.query), rule.action, node=rule.node) for rule in compiled]
        )
        self.version = _version(self.rules_json, key)

    def step(self, own: Raw, members: Members) -> RedactedElement:
        """Redact a step.

        Raises:
            NotRedactable: the step cannot be redacted.
        """
        return self._redacted(own, members, self._rules_for(members))

    def run(self, own: Raw, members: Members) -> RedactedElement:
        """Redact a run's own row.

        Raises:
            NotRedactable: the row cannot be redacted.
        """
        return self._redacted(own, members, self._everywhere)

    def matches(self, own: Raw, members: Members, *, of_run: bool = False) -> list[Match]:
        """Return what each rule matches in a step, or in a run's own row, without changing it.

        Raises:
            NotRedactable: the element cannot be redacted.
        """
        rules = self._everywhere if of_run else self._rules_for(members)
        try:
            document = parse(own)
            found = [(rule, node) for rule in rules for node in rule.query.finditer(document)]
            taken = _outermost(found)
            return [
                Match(
                    rule.place,
                    node.path(),
                    kind_of(node.value),
                    len(written(node.value)),
                    applied=taken.get(node.location) is rule
                    and not _stays(rule.action, node.location, node.value),
                )
                for rule, node in found
            ]
        except Exception as error:
            raise NotRedactable(type(error).__name__) from None

    def removed(self, own: Raw, members: Members, *, of_run: bool = False) -> list[tuple[int, Any]]:
        """Return the values that the rules change, each after the index of its rule.

        Raises:
            NotRedactable: the element cannot be redacted.
        """
        rules = self._everywhere if of_run else self._rules_for(members)
        try:
            document = parse(own)
            nodes = [(rule, node) for rule in rules for node in rule.query.finditer(document)]
            values = {node.location: node.value for _, node in nodes}
            return [
                (rule.place, values[location])
                for location, rule in _outermost(nodes).items()
                if not _stays(rule.action, location, values[location])
            ]
        except Exception as error:
            raise NotRedactable(type(error).__name__) from None

    def effects(self, field: str) -> frozenset[Action]:
        """Return the actions that the rules may apply to this member, found with a sample value."""
        found: set[Action] = set()
        for node in (None, *self._of_node):
            document = Raw(written({"node_id": node, field: "x"}))
            parts = split(b"[" + document + b"]")
            for own, members in parts.elements if parts is not None else ():
                applied = self.matches(own, members or {})
                found.update(
                    self.rules[match.rule].action
                    for match in applied
                    if match.applied and match.path == f"$['{field}']"
                )
        return frozenset(found)

    def withhold(
        self, reason: RejectionReason, detail: str, body: bytes, step_id: str | None = None
    ) -> Rejected:
        """Return a dead letter without its bytes, which may contain what must not be kept.

        The keyed hash still identifies a repetition, but reveals nothing without the key.
        """
        return Rejected(
            reason,
            f"{detail} Its {len(body):,} bytes are not kept: the workflow has redaction rules.",
            b"",
            step_id,
            content_hash=self.keyed_hash(body),
        )

    def withhold_unredactable(
        self, error: NotRedactable, own: Raw | bytes, step_id: str | None = None
    ) -> Rejected:
        """Return a dead letter of an element that cannot be redacted, without its bytes."""
        detail = f"Python cannot read this element, so it cannot be redacted ({error})."
        return self.withhold("not_redactable", detail, bytes(own), step_id)

    def _rules_for(self, members: Members) -> tuple[_Compiled, ...]:
        node_id = text_of(members.get("node_id")) if self._of_node else None
        return self._everywhere if node_id is None else self._of_node.get(node_id, self._everywhere)

    def _redacted(
        self, own: Raw, members: Members, rules: tuple[_Compiled, ...]
    ) -> RedactedElement:
        if rules:
            # Rewrite the element even if nothing matches: an earlier value of a duplicate name may
            # be content that must not be kept.
            own = self._rewritten(own, rules)
        parts = split(b"[" + own + b"]")
        if parts is None or len(parts.elements) != 1 or parts.elements[0][1] is None:
            raise NotRedactable("not an object")
        return RedactedElement(
            own, parts.elements[0][1], not parts.strict or may_be_refused(bytes(own))
        )

    def _rewritten(self, own: Raw, rules: tuple[_Compiled, ...]) -> Raw:
        try:
            document = parse(own)
            taken = _outermost(
                [(rule, node) for rule in rules for node in rule.query.finditer(document)]
            )
            was_error = is_error(document.get("error"))
            for location, rule in taken.items():
                self._apply(rule.action, document, location)
            # Whether there was an error is a fact: removing the error must not change it, and
            # neither must masking the text `None`.
            if is_error(document.get("error")) != was_error:
                document["error"] = REMOVED_ERROR if was_error else None
            return Raw(written(document))
        except Exception as error:
            # Catches every error, such as nesting beyond Python's limit or a path that the library
            # cannot evaluate, because unredacted content must not be passed on.
            raise NotRedactable(type(error).__name__) from None

    def _apply(self, action: Action, document: Any, location: Location) -> None:
        holder = document
        for name in location[:-1]:
            holder = holder[name]
        last = location[-1]
        if action == "drop":
            if isinstance(holder, list):
                holder[int(last)] = None  # The elements after it keep their indexes.
            else:
                del holder[last]
        elif not _stays(action, location, holder[last]):
            holder[last] = MASK if action == "mask" else _hash(holder[last], self._key)

    def keyed_hash(self, content: bytes) -> bytes:
        """Return a 16-byte hash that reveals nothing about the content without the key."""
        return hmac.digest(self._key, content, "sha256")[:16]


def _version(rules_json: str, key: bytes) -> str:
    canonical = f"{rules_json}\0{_hmac(b'the key of the redaction policy', key)}"
    return hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()


def _rules_json(rules: Sequence[RedactionRule]) -> str:
    return json.dumps(
        [{"node": rule.node, "path": rule.path, "action": rule.action} for rule in rules]
    )


def _hash(value: Any, key: bytes) -> str:
    if not isinstance(value, str):
        return f"hmac-sha256:{_hmac(written(value, ordered=True), key)}"
    # A row may be redacted twice: the ledger stores the redacted listing, and the listing is
    # redacted again when it is read. A hash is not hashed again.
    return (
        value
        if _HASHED.fullmatch(value)
        else f"hmac-sha256:{_hmac(value.encode(errors='surrogatepass'), key)}"
    )


def _hmac(content: bytes, key: bytes) -> str:
    return hmac.digest(key, content, "sha256").hex()


def _outermost(found: Sequence[tuple[_Compiled, Any]]) -> dict[Location, _Compiled]:
    """Return the rule to apply at each location.

    Of nested matches, the outermost counts. Of several rules at one location, the first counts.
    """
    places: dict[Location, _Compiled] = {}
    for rule, node in found:
        holds_together = node.location[0] in UNTOUCHED and not isinstance(node.value, (dict, list))
        if len(node.location) > 1 or not holds_together:
            places.setdefault(node.location, rule)
    return {
        location: rule
        for location, rule in places.items()
        if not any(location[:length] in places for length in range(1, len(location)))
    }

"""Redaction: rules that remove payload from a step or a run before anything else sees its bytes.

One element comes as bytes and leaves as bytes, so that everything made from it (columns, hashes,
the ledger's listing, dead letters) is made from what may be kept. What no rule touches stays the
same JSON value to the last digit. What cannot be read cannot be redacted either: its bytes are not
kept at all.
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
from etl.transform.scanner import Members, split

if TYPE_CHECKING:
    from jsonpath_rfc9535 import JSONPathQuery

MASK = "********"
_HASHED = re.compile("hmac-sha256:[0-9a-f]{64}")

UNTOUCHED = frozenset(
    {"id", "node_id", "status", "start_time", "end_time", "elapsed_time", "tokens"}
)
"""Members that hold the row together: they stay whatever a path matches, unless they hold an array or an object."""

Location = tuple[int | str, ...]
Action = Literal["drop", "mask", "hash"]


class RedactionRule(msgspec.Struct, frozen=True):
    """One thing to remove."""

    path: str
    """JSONPath by RFC 9535, on the step or the run's own row as the API gives it."""
    action: Action
    workflow: str | None = None
    """None: every workflow."""
    node: str | None = None
    """None: the steps of every node, and the run's own row."""


class NotRedactable(ValueError):
    """The element cannot be read as far as it takes to redact it; the text names the kind of trouble, without payload."""


class RedactedElement(NamedTuple):
    """An element as it may be kept."""

    own: Raw
    members: Members
    suspect: bool
    """Whether jsonb might refuse a value in it."""


class Match(NamedTuple):
    """What a rule finds in an element."""

    rule: int
    """Place of the rule in the policy."""
    path: str
    """The normalised path."""
    kind: str
    """The JSON type."""
    size: int
    """Length of the value's JSON, in bytes."""
    applied: bool
    """False where the match lies in another one, holds nothing, or is a member that holds the row together."""


def _is_empty(value: Any) -> bool:
    """Whether the value holds nothing that could be hidden: null, or an empty string, array or object."""
    return value is None or (isinstance(value, (str, list, dict)) and not value)


class _Compiled(NamedTuple):
    place: int
    node: str | None
    action: Action
    query: JSONPathQuery


class Redaction:
    """The rules of all workflows."""

    def __init__(self, rules: Sequence[RedactionRule] = (), key: str = "") -> None:
        """`key` makes the hashes; it may be empty where there are no rules.

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
        """The workflow's policy; None where no rule applies to it."""
        return self._named.get(workflow_id, self._common)

    def hashed(self, text: str) -> str | None:
        """What a `hash` rule makes of this text; None without a key."""
        return _hash(text, self._key) if self._key else None

    def has_made(self, version: str, rules: Sequence[RedactionRule]) -> bool:
        """Whether a policy of this version, with these recorded rules, had today's key."""
        return bool(self._key) and _version(_rules_json(rules), self._key) == version

    @property
    def policies(self) -> dict[str, Policy]:
        """Every policy that there is for any workflow, by version."""
        found = [*self._named.values(), self._common]
        return {policy.version: policy for policy in found if policy is not None}


class Policy:
    """The rules that apply to one workflow. May be used by several threads at once.

    Attributes:
        version: follows from what the rules do and from the key; the same after every start.
        rules: the rules in the order of the configuration.
    """

    def __init__(self, rules: Sequence[RedactionRule], key: bytes) -> None:
        # 35 ms, and most configurations have no rules
        from jsonpath_rfc9535 import JSONPathEnvironment

        class Environment(JSONPathEnvironment):
            # Python's own limit comes first; at the library's 100 levels, `..` would give up on
            # honest payloads.
            max_recursion_depth = 1_000_000

        environment = Environment()
        self.rules = tuple(rules)
        self._key = key
        compiled = [
            _Compiled(place, rule.node, rule.action, environment.compile(rule.path))
            for place, rule in enumerate(rules)
        ]
        self._everywhere = tuple(rule for rule in compiled if rule.node is None)
        self._of_node = {
            node: tuple(rule for rule in compiled if rule.node in (None, node))
            for node in {rule.node for rule in compiled if rule.node is not None}
        }
        # Not the workflow: a rule does the same whether it was given for this one or for all.
        self.rules_json = _rules_json(
            [RedactionRule(str(rule.query), rule.action, node=rule.node) for rule in compiled]
        )
        self.version = _version(self.rules_json, key)

    def step(self, own: Raw, members: Members) -> RedactedElement:
        """Redact a step. Raises NotRedactable."""
        return self._redacted(own, members, self._rules_for(members))

    def run(self, own: Raw, members: Members) -> RedactedElement:
        """Redact a run's own row. Raises NotRedactable."""
        return self._redacted(own, members, self._everywhere)

    def matches(self, own: Raw, members: Members, *, of_run: bool = False) -> list[Match]:
        """What each rule finds in a step, or in a run's own row; an element stays as it is. Raises NotRedactable."""
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
                    and (rule.action == "drop" or not _is_empty(node.value)),
                )
                for rule, node in found
            ]
        except Exception as error:
            raise NotRedactable(type(error).__name__) from None

    def removed(self, own: Raw, members: Members, *, of_run: bool = False) -> list[tuple[int, Any]]:
        """The values that go from a step, or from a run's own row, each behind its rule's place. Raises NotRedactable."""
        rules = self._everywhere if of_run else self._rules_for(members)
        try:
            document = parse(own)
            nodes = [(rule, node) for rule in rules for node in rule.query.finditer(document)]
            values = {node.location: node.value for _, node in nodes}
            return [(rule.place, values[location]) for location, rule in _outermost(nodes).items()]
        except Exception as error:
            raise NotRedactable(type(error).__name__) from None

    def effects(self, field: str) -> frozenset[Action]:
        """What the rules may do to this member of a step or a run, tried on one that has nothing else."""
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
        """Set something aside without its bytes: what cannot be read may hold what must not be kept.

        The keyed hash still tells whether the same comes again, and tells nobody without the key
        what it was.
        """
        return Rejected(
            reason,
            f"{detail} Its {len(body):,} bytes are not kept: the workflow has redaction rules.",
            b"",
            step_id,
            content_hash=self.keyed_hash(body),
        )

    def withhold_unredactable(
        self, trouble: NotRedactable, own: Raw | bytes, step_id: str | None = None
    ) -> Rejected:
        """Set an element aside that cannot be redacted."""
        detail = f"Python cannot read this element, so that it cannot be redacted ({trouble})."
        return self.withhold("not_redactable", detail, bytes(own), step_id)

    def _rules_for(self, members: Members) -> tuple[_Compiled, ...]:
        node_id = text_of(members.get("node_id")) if self._of_node else None
        return self._everywhere if node_id is None else self._of_node.get(node_id, self._everywhere)

    def _redacted(
        self, own: Raw, members: Members, rules: tuple[_Compiled, ...]
    ) -> RedactedElement:
        if rules:
            # Also where nothing matches: of duplicate names, an earlier value may be what must not
            # be kept.
            own = self._rewritten(own, rules)
        parts = split(b"[" + own + b"]")
        if parts is None or len(parts.elements) != 1 or parts.elements[0][1] is None:
            raise NotRedactable("no object")
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
            # Whether there was an error is a fact: no rule takes it away, and no mask of `None`
            # makes one.
            if is_error(document.get("error")) != was_error:
                document["error"] = REMOVED_ERROR if was_error else None
            return Raw(written(document))
        except Exception as error:
            # Whatever it is (nesting beyond Python's limit, a path that the library cannot evaluate
            # here): what was not redacted must not go on.
            raise NotRedactable(type(error).__name__) from None

    def _apply(self, action: Action, document: Any, location: Location) -> None:
        holder = document
        for name in location[:-1]:
            holder = holder[name]
        last = location[-1]
        if action == "drop":
            if isinstance(holder, list):
                holder[int(last)] = None  # the elements after it keep their places
            else:
                del holder[last]
        elif not _is_empty(holder[last]):
            # An empty value stays: a mask in its place would say that there was something, such as
            # an error.
            holder[last] = MASK if action == "mask" else _hash(holder[last], self._key)

    def keyed_hash(self, content: bytes) -> bytes:
        """16 bytes that tell nobody without the key what was hashed."""
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
    # A row may come by here twice: the ledger keeps its listing redacted, and the listing is
    # redacted as it is read.
    return (
        value
        if _HASHED.fullmatch(value)
        else f"hmac-sha256:{_hmac(value.encode(errors='surrogatepass'), key)}"
    )


def _hmac(content: bytes, key: bytes) -> str:
    return hmac.digest(key, content, "sha256").hex()


def _outermost(found: Sequence[tuple[_Compiled, Any]]) -> dict[Location, _Compiled]:
    """What is to be done where: of matches in one another the outer one, of matches at one place the first rule's."""
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

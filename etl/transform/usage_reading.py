"""Reading of the quantities of usage in a response body, by the names in `usage_names`.

`usage_parts` combines the quantities into one `Usage`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from msgspec import Struct

from etl.records import DriftKind
from etl.transform.fields import MAX_TOKENS
from etl.transform.usage_quantities import (
    FLAGS,
    MONEY,
    SECONDS,
    SUMMED,
    WHOLE,
    WORDS,
    ZERO,
)
from etl.transform.usage_tree import NameTree, tree

MAX_COST = 10**6
"""The largest plausible cost of a call, in US dollars."""
MAX_DEVIATIONS = 20
"""Maximum number of deviations of one body: each can become a row in the drift table."""
_MAX_DEPTH = 4
_MAX_ELEMENTS = 1_000

# Quantities that the cost depends on: if any of these cannot be read, the cost is unknown.
_CHARGED = (WHOLE | SECONDS) - {"total", "cost_ticks"}

NAMES = tree()
"""All names, as a tree of the members of a response body."""

# Numbers that are sent as strings, such as "100" and "100.0".
_WHOLE = re.compile(r"([0-9]{1,16})(?:\.0+)?", re.ASCII)
_MONEY = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,30})?(?:[eE]-?[0-9]{1,2})?", re.ASCII)
_TOKENS = re.compile("token|usage", re.IGNORECASE)
_NO_TOKENS = re.compile("cost|price|limit|max|min", re.IGNORECASE)

UNREAD = "unread"
"""The key in `Found` for the number of quantities that are reported, but cannot be read."""

Found = dict[str, Any]
"""The values found, by quantity: whole numbers, seconds, money as Decimal, words, flags."""


INPUTS, OUTPUTS = "inputs", "outputs"
"""The first part of a deviation's path."""


class Deviation(Struct, frozen=True, gc=False):
    """A member that should report usage, but could not be read."""

    path: str
    """The path of the member, from the step's payload on (`outputs.usage.…`)."""
    kind: DriftKind
    found: str
    """The JSON type of its value."""


class Deviations(list[Deviation]):
    """The deviations of one body, bounded in number."""

    def note(self, path: str, kind: DriftKind, value: object) -> None:
        """Add a deviation, unless there are too many already."""
        if len(self) < MAX_DEVIATIONS:
            self.append(Deviation(path, kind, type_of(value)))


def gather(
    node: NameTree, value: dict[str, Any], found: Found, deviations: Deviations, path: str
) -> None:
    """Add the quantities in the object at `path` to `found`, and unreadable ones to `deviations`.

    No content raises an error.
    """
    members = node.members
    for name, one in value.items():
        if one is None:
            continue
        rule = members.get(name)
        if rule is None:
            note_unknown(name, one, deviations, path)
            continue
        quantity = rule.quantity
        if type(one) is dict:
            if rule.members:
                gather(rule, one, found, deviations=deviations, path=f"{path}.{name}")
            elif one and quantity is not None:
                _note_unread(quantity, found)
                deviations.note(f"{path}.{name}", "wrong_type", one)
        elif type(one) is list:
            if rule.elements:
                _gather_elements(rule, one, found, deviations=deviations, path=f"{path}.{name}")
            elif quantity is not None or rule.members:
                _note_unread(quantity, found)
                deviations.note(f"{path}.{name}", "wrong_type", one)
        elif quantity is None:
            if rule.members:
                deviations.note(f"{path}.{name}", "wrong_type", one)
        elif (
            type(one) is int
            and 0 <= one <= MAX_TOKENS
            and quantity in WHOLE
            and quantity not in found
        ):
            if one or quantity in ZERO:
                found[quantity] = one
        else:
            _put(quantity, one, found, deviations=deviations, path=path, name=name)


def whole_number(value: object) -> int | None:
    """Return the whole number from 0 to `MAX_TOKENS` in a value such as 100, 100.0 or "100".

    None if there is none.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    elif type(value) is str and (match := _WHOLE.fullmatch(value)) is not None:
        value = int(match[1])
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def money(value: object) -> Decimal | None:
    """Return the amount from 0 to `MAX_COST` in a value; None if there is none."""
    text = str(value) if type(value) in (int, float) else value
    if not isinstance(text, str) or _MONEY.fullmatch(text) is None:
        return None
    amount = Decimal(text)
    return amount if amount <= MAX_COST else None


def looks_like_usage(name: str) -> bool:
    """Return whether a member with this name may report usage."""
    return _TOKENS.search(name) is not None and _NO_TOKENS.search(name) is None


def type_of(value: object) -> str:
    """Return the JSON type of a decoded value."""
    if isinstance(value, bool):
        return "boolean"
    for kind, name in (dict, "object"), (list, "array"), (str, "string"), ((int, float), "number"):
        if isinstance(value, kind):
            return name
    return "null"


def note_unknown(
    name: str, value: object, deviations: Deviations, path: str, depth: int = 0
) -> None:
    """Add a deviation for each number that looks like usage under an unknown name."""
    if type(value) is int or type(value) is float:
        if value > 0 and looks_like_usage(name):
            deviations.note(f"{path}.{name}", "unknown_usage", value)
    elif depth < _MAX_DEPTH and len(deviations) < MAX_DEVIATIONS:
        inside = f"{path}.{name}" if name else path
        if type(value) is dict:
            for key, one in list(value.items())[:_MAX_ELEMENTS]:
                note_unknown(key, one, deviations, path=inside, depth=depth + 1)
        elif type(value) is list:
            for one in value[:_MAX_ELEMENTS]:
                note_unknown("", one, deviations, path=f"{inside}[]", depth=depth + 1)


def _put(
    quantity: str, value: Any, found: Found, deviations: Deviations, path: str, name: str
) -> None:
    read: Any
    if quantity in WHOLE:
        read = whole_number(value)
    elif quantity in MONEY:
        read = money(value)
    elif quantity in SECONDS:
        seconds = value if type(value) is float else whole_number(value)
        read = seconds if seconds is not None and 0 <= seconds <= MAX_TOKENS / 1000 else None
    elif quantity in WORDS:
        read = value if isinstance(value, str) else None
    else:
        read = value if isinstance(value, bool) else None
    if read is None:
        is_number = type(value) in (int, float) or (
            isinstance(value, str) and _WHOLE.fullmatch(value) is not None
        )
        _note_unread(quantity, found)
        deviations.note(
            f"{path}.{name}", "implausible_number" if is_number else "wrong_type", value
        )
        return
    before = found.get(quantity)
    if before is None or quantity in WORDS or quantity in FLAGS:
        found[quantity] = read
    else:
        found[quantity] = before + read if quantity in SUMMED else max(before, read)


def _note_unread(quantity: str | None, found: Found) -> None:
    """Count an unreadable quantity, if it is charged: the cost of the call is then unknown."""
    if quantity in _CHARGED:
        found[UNREAD] = found.get(UNREAD, 0) + 1


def _gather_elements(
    rule: NameTree, elements: list[Any], found: Found, deviations: Deviations, path: str
) -> None:
    added: Found = {}
    for element in elements[:_MAX_ELEMENTS]:
        if type(element) is not dict:
            continue
        by = None if rule.by is None else element.get(rule.by)
        node = rule.elements.get(by) if by is None or isinstance(by, str) else None
        if node is None:
            note_unknown("", element, deviations, f"{path}[]")
            continue
        if not node.members:
            continue
        one: Found = {}
        gather(
            node,
            {name: value for name, value in element.items() if name != rule.by},
            one,
            deviations=deviations,
            path=f"{path}[]",
        )
        if UNREAD in one:
            found[UNREAD] = found.get(UNREAD, 0) + one.pop(UNREAD)
        for quantity, value in one.items():
            added[quantity] = (
                added[quantity] + value if quantity in added and quantity in WHOLE else value
            )
    for quantity, value in added.items():
        _put(quantity, value, found, deviations=deviations, path=path, name="[]")

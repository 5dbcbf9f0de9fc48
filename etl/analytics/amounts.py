"""What the kinds of usage cost, by the names of their prices (`Kind.price`), and what follows where a price is missing."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from etl.usage import CALLS, KINDS

Amounts = Mapping[str, Decimal]
"""Prices by the names of the kinds; one that is not in it is not known."""

PARTS = tuple(kind.price for kind in (*KINDS, CALLS))
"""The names of the kinds that have prices, in the order of their columns."""

# In this order, as one may follow from another. What models write other than text has no place
# here: its price is its own, or unknown, for it is many times that of text.
_AS = {
    "cached_input": "input",
    "cache_write": "input",
    "input_audio": "input",
    "input_image": "input",
    "input_video": "input",
    "reasoning": "output",
    "citation": "output",
}
# What is kept for an hour costs more than what is kept for minutes; what is cached of audio, less
# than audio and more than cached text: as the other only where that has no price of its own.
_AS_UNLESS_PRICED = {
    "cache_write_1h": ("cache_write", "cache_write"),
    "cached_audio": ("cached_input", "input_audio"),
    "cached_image": ("cached_input", "input_image"),
}


def complete(amounts: Amounts) -> dict[str, Decimal]:
    """These prices, and those that follow from them: a kind without a price of its own costs what contains it.

    A call as such costs nothing where that is not said.
    """
    known = dict(amounts)
    for part, other in _AS.items():
        if other in amounts:
            known.setdefault(part, amounts[other])
    for part, (other, priced) in _AS_UNLESS_PRICED.items():
        if priced not in amounts and other in known:
            known.setdefault(part, known[other])
    known.setdefault("calls", Decimal(0))
    return {part: known[part] for part in PARTS if part in known}


def own(amounts: Amounts) -> dict[str, Decimal]:
    """Those of them that do not follow from the others, in the order of their columns."""
    kept = dict(amounts)
    whole = complete(kept)
    while follows := next(
        (one for one in reversed(kept) if complete(_without(kept, one)) == whole), None
    ):
        kept = _without(kept, follows)
    return kept


def _without(amounts: Amounts, part: str) -> dict[str, Decimal]:
    return {name: amount for name, amount in amounts.items() if name != part}

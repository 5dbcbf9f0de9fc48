"""The prices of one model by kind of usage, and the rules that fill in missing prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from etl.usage import CALLS, KINDS

Amounts = Mapping[str, Decimal]
"""Prices by `Kind.price`; a missing key is an unknown price."""

PARTS = tuple(kind.price for kind in (*KINDS, CALLS))
"""The names of all prices, in the order of their columns."""

# A kind without a price of its own costs as much as the kind that includes it. Output other than
# text is not here: it costs many times as much as text, so without a price of its own, its price is
# unknown.
_AS = {
    "cached_input": "input",
    "cache_write": "input",
    "input_audio": "input",
    "input_image": "input",
    "input_video": "input",
    "reasoning": "output",
    "citation": "output",
}
# {kind: (fallback, priced)}: the kind costs as much as the fallback, whose own price may follow
# from `_AS`. If `priced` has a price of its own, the fallback would be wrong, and the kind's price
# is unknown: a cache write for an hour costs more than a cache write for minutes; cached audio
# costs less than audio and more than cached text.
_AS_UNLESS_PRICED = {
    "cache_write_1h": ("cache_write", "cache_write"),
    "cached_audio": ("cached_input", "input_audio"),
    "cached_image": ("cached_input", "input_image"),
}


def complete(amounts: Amounts) -> dict[str, Decimal]:
    """Return these prices and those that follow from them.

    A kind without a price of its own takes the price of another kind, by `_AS` and then by
    `_AS_UNLESS_PRICED`. The price of a call itself is 0 if none is given.
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
    """Return the prices that do not follow from the others (see `complete`), in the given order."""
    kept = dict(amounts)
    whole = complete(kept)
    while follows := next(
        (one for one in reversed(kept) if complete(_without(kept, one)) == whole), None
    ):
        kept = _without(kept, follows)
    return kept


def _without(amounts: Amounts, part: str) -> dict[str, Decimal]:
    return {name: amount for name, amount in amounts.items() if name != part}

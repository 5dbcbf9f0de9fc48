"""What a model costs by the rules and the defaults. Pure functions.

Each price is for a tier of service, a length of the input, and from one day to another. The rules
of the configuration come first, in its order; then those set by command, an exact name before a
pattern and a longer pattern before a shorter one; then the defaults. Rules for the same models with
different first days follow one another; the days before the first of them keep what held without
it. Likewise a rule for long inputs leaves shorter ones alone, and a rule for one tier of service
the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise

import msgspec

from etl.analytics.amounts import complete
from etl.analytics.default_prices import CURRENCY, default_prices
from etl.usage import STANDARD

ALWAYS = date.min
"""First day of a price that always held."""


class PriceRule(msgspec.Struct, frozen=True):
    """What some models cost from some day on."""

    model: str
    """A name in which `*` stands for any characters; upper and lower case are the same."""
    currency: str
    amounts: dict[str, Decimal]
    """By the names of the kinds; what it does not say follows from the others (`complete`), or is not known."""
    provider: str | None = None
    """None: as the defaults say."""
    valid_from: date = ALWAYS
    service_tier: str = STANDARD
    above_input_tokens: int = 0
    """For calls with more input tokens than this; up to the next rule for the same models."""
    set_at: datetime | None = None
    """When it was set by command."""


class Price(msgspec.Struct, frozen=True):
    """What a model costs, for a tier of service and a length of the input, from one day to another."""

    model: str
    service_tier: str
    above_input_tokens: int
    up_to_input_tokens: int | None
    """None: no limit."""
    valid_from: date
    valid_until: date | None
    """The first day on which it holds no longer; None: open."""
    provider: str | None
    currency: str
    amounts: dict[str, Decimal]
    """By the names of the kinds, with what follows; those that are not in it are not known."""
    source: str
    """config, set, default (the package), or added (in part not from the package)."""


def price_list(
    model: str, configured: Iterable[PriceRule], ordered: Iterable[PriceRule]
) -> list[Price]:
    """What a model costs, by tier of service, length of the input and day; `ordered` are the rules set by command."""
    defaults = [
        Price(
            model=model,
            service_tier=one.service_tier,
            above_input_tokens=one.above_input_tokens,
            up_to_input_tokens=one.up_to_input_tokens,
            valid_from=one.valid_from,
            valid_until=one.valid_until,
            provider=one.provider,
            currency=CURRENCY,
            amounts=one.amounts,
            source="added" if one.added else "default",
        )
        for one in default_prices(model)
    ]
    provider = defaults[0].provider if defaults else None
    lists = [
        *_by_pattern(model, provider, configured, "config"),
        *_by_pattern(model, provider, ordered, "set"),
        defaults,
    ]
    tiers = dict.fromkeys(price.service_tier for prices in lists for price in prices)
    return [
        price
        for tier in sorted(tiers, key=lambda one: (one != STANDARD, one))
        for price in _of_tier(tier, lists)
    ]


def _of_tier(tier: str, lists: Iterable[Sequence[Price]]) -> list[Price]:
    candidates = [[price for price in prices if price.service_tier == tier] for prices in lists]
    prices = [price for candidate in candidates for price in candidate]
    days = sorted(
        {day for one in prices for day in (one.valid_from, one.valid_until) if day is not None}
    )
    lengths = sorted(
        {
            0,
            *(
                end
                for one in prices
                for end in (one.above_input_tokens, one.up_to_input_tokens)
                if end
            ),
        }
    )
    done: list[Price] = []
    begun: dict[tuple[int, int | None], Price] = {}
    for day in days:
        held = {
            (one.above_input_tokens, one.up_to_input_tokens): one
            for one in _on(day, lengths, candidates)
        }
        for length, price in list(begun.items()):
            if length not in held or not _is_same(held[length], price):
                done.append(msgspec.structs.replace(begun.pop(length), valid_until=day))
        begun = {length: begun.get(length, price) for length, price in held.items()}
    return sorted(
        [*done, *begun.values()], key=lambda one: (one.above_input_tokens, one.valid_from)
    )


def _on(day: date, lengths: Sequence[int], candidates: Iterable[Sequence[Price]]) -> list[Price]:
    """What holds on that day, by length; where the price is the same, a length at which it could have changed is none."""
    held: list[Price] = []
    for above, up_to in pairwise([*lengths, None]):
        assert above is not None
        price = _holding(day, above, candidates)
        if (
            price is not None
            and held
            and held[-1].up_to_input_tokens == above
            and _is_same(held[-1], price)
        ):
            held[-1] = msgspec.structs.replace(held[-1], up_to_input_tokens=up_to)
        elif price is not None:
            held.append(
                msgspec.structs.replace(
                    price,
                    above_input_tokens=above,
                    up_to_input_tokens=up_to,
                    valid_from=day,
                    valid_until=None,
                )
            )
    return held


def _holding(day: date, above: int, candidates: Iterable[Sequence[Price]]) -> Price | None:
    """Of the first candidate that has a price then: that for the longest input, and of these the newest."""
    for candidate in candidates:
        fitting = [
            one
            for one in candidate
            if one.above_input_tokens <= above
            and (one.up_to_input_tokens is None or above < one.up_to_input_tokens)
            if one.valid_from <= day and (one.valid_until is None or day < one.valid_until)
        ]
        if fitting:
            return max(fitting, key=lambda one: (one.above_input_tokens, one.valid_from))
    return None


def _is_same(one: Price, other: Price) -> bool:
    return (one.provider, one.currency, one.amounts, one.source) == (
        other.provider, other.currency, other.amounts, other.source,
    )  # fmt: skip


def _by_pattern(
    model: str, provider: str | None, rules: Iterable[PriceRule], source: str
) -> Iterable[Sequence[Price]]:
    """For each pattern that matches, in the order of the rules, its prices."""
    found: dict[str, list[Price]] = {}
    for rule in rules:
        if _matches(rule.model, model):
            found.setdefault(rule.model, []).append(
                Price(
                    model=model,
                    service_tier=rule.service_tier,
                    above_input_tokens=rule.above_input_tokens,
                    up_to_input_tokens=None,
                    valid_from=rule.valid_from,
                    valid_until=None,
                    provider=rule.provider or provider,
                    currency=rule.currency,
                    amounts=complete(rule.amounts),
                    source=source,
                )
            )
    return found.values()


def _matches(pattern: str, model: str) -> bool:
    """Whether the whole name fits. Each part between two stars is looked for where it first can be: a regular expression would
    try every way to divide the name, which takes hours with many stars."""
    first, *others = pattern.casefold().split("*")
    name = model.casefold()
    if not others:
        return name == first
    *middle, last = others
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for part in middle:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True

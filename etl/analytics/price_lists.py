"""The prices of a model by the rules and the published defaults, as pure functions.

Each price holds for a service tier, a range of input lengths and a span of days. For each
combination of these, the first source that has a price wins:

1. the rules of the configuration, in its order;
2. the rules set by command: an exact name before a pattern, a longer pattern before a shorter one;
3. the published defaults.

Each rule holds from its first day until the first day of the next rule for the same models. Earlier
days, shorter inputs and other service tiers keep the price that they would have without the rule.
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
"""First day of a price that has always held."""


class PriceRule(msgspec.Struct, frozen=True):
    """The prices of some models from a first day on."""

    model: str
    """A name or pattern; `*` stands for any characters, and case is ignored."""
    currency: str
    amounts: dict[str, Decimal]
    """Prices by `Kind.price`; a missing price follows from others (`complete`), or is unknown."""
    provider: str | None = None
    """The provider that is paid; None: the provider of the published prices."""
    valid_from: date = ALWAYS
    service_tier: str = STANDARD
    above_input_tokens: int = 0
    """The rule is for calls with more input tokens than this, up to the next rule's limit."""
    set_at: datetime | None = None
    """When a command set it; None: it is from the configuration."""


class Price(msgspec.Struct, frozen=True):
    """The prices of a model for a service tier, a range of input lengths and a span of days."""

    model: str
    service_tier: str
    above_input_tokens: int
    up_to_input_tokens: int | None
    """None: no limit."""
    valid_from: date
    valid_until: date | None
    """The first day on which the price no longer holds; None: its end is not known."""
    provider: str | None
    currency: str
    amounts: dict[str, Decimal]
    """Prices by `Kind.price`, with those that follow (`complete`); a missing price is unknown."""
    source: str
    """`config`, `set` (by command), `default` (the package), or `added` (partly `ADDED`)."""


def price_list(
    model: str, configured: Iterable[PriceRule], by_command: Iterable[PriceRule]
) -> list[Price]:
    """Return the prices of a model by service tier, input length and day.

    Args:
        model: its name.
        configured: the rules of the configuration, in its order.
        by_command: the rules set by command, in the order in which they are tried.
    """
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
        *_by_pattern(model, provider, by_command, "set"),
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
    """Return the prices that hold on that day, by input length.

    Neighbouring ranges with the same price are merged.
    """
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
    """Return the price for inputs just above `above` on that day.

    The first candidate with such a price decides. Of several prices in it, the price for the
    longest inputs wins, then the newest. None if no candidate has a price.
    """
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
    """Return the prices of each matching pattern, in the order of the rules."""
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
    """Return whether the pattern matches the whole name.

    Each part between two stars is matched at its first possible place. A regular expression would
    try every way to divide the name, which takes hours with many stars.
    """
    first, *others = pattern.casefold().split("*")
    name = model.casefold()
    if not others:
        return name == first
    *middle, last = others
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True

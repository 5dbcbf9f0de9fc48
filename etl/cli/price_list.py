"""`prices list`: the models in the stored steps, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import amount as amount_of
from etl.cli.display import listing, say
from etl.terminal import counted, first_plain, plain
from etl.usage import STANDARD

if TYPE_CHECKING:
    from etl.analytics.price_lists import Price, PriceRule
    from etl.analytics.price_publication import Publication
    from etl.analytics.priced_calls import ModelUsage, UnpricedReason


class PricedModel(msgspec.Struct, frozen=True):
    """A model, how often it was called, and what it costs."""

    model: str | None
    calls: int
    unpriced_calls: int
    unpriced_reasons: list[UnpricedReason]
    prices: list[Price]


def list_prices(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models in the stored steps, with their prices.

    Also shows where prices come from, how old they are, and how many calls have no price. A price
    is for a million tokens; for a thousand searches, tool uses, pages, search units or calls; or
    for an hour of audio. Parts of input and output are named if their price differs. If a price
    changes during the day, the price at noon (UTC) is used.
    """
    from etl.analytics import priced_calls, prices
    from etl.analytics.price_publication import publication

    with invocation(context).database() as database:
        rules, stored, usage, (more, calls) = database.transaction(
            lambda c: (
                prices.set_rules(c),
                prices.stored(c),
                priced_calls.usage(c),
                priced_calls.beyond(c),
            )
        )
    seen = _seen(stored, usage)
    published = publication(datetime.now(UTC).date())
    if as_json:
        print_json(
            {
                "published": published,
                "models": seen,
                "set": rules,
                "more_models": more,
                "calls_of_more_models": calls,
            }
        )
        return
    if not seen:
        say("no stored step names a model yet")
    else:
        listing(
            console(),
            ("model", "calls", "without a cost"),
            [
                (
                    (
                        first_plain(one.model, "(no name)", length=50),
                        f"{one.calls:,}",
                        f"{one.unpriced_calls:,}",
                    ),
                    _lines(one, published),
                )
                for one in seen
            ],
            numbers=("calls", "without a cost"),
        )
    if more:
        say(
            f"\n{counted(more, 'more model')} with {counted(calls, 'call')} without a price: only"
            f" the {prices.MODELS:,} most called models have prices"
        )
    if rules:
        say("\nset by command:")
        for rule in rules:
            when = "" if rule.set_at is None else f" (set on {rule.set_at:%Y-%m-%d})"
            say(f"  {plain(rule.model)}: {_what(rule)}{_described(rule, rule.amounts)}{when}")
    if seen:
        say(f"\npublished prices: {published.text}")


def _seen(stored: Iterable[Price], usage: Iterable[ModelUsage]) -> list[PricedModel]:
    by_model: dict[str | None, list[Price]] = {}
    for price in stored:
        by_model.setdefault(price.model, []).append(price)
    called = [
        PricedModel(
            model=one.model,
            calls=one.calls,
            unpriced_calls=one.unpriced_calls,
            unpriced_reasons=one.unpriced_reasons,
            prices=by_model.pop(one.model, []),
        )
        for one in usage
    ]
    return [
        *called,
        *(
            PricedModel(model=model, calls=0, unpriced_calls=0, unpriced_reasons=[], prices=prices)
            for model, prices in by_model.items()
        ),
    ]


def _lines(one: PricedModel, published: Publication) -> list[str]:
    lines = []
    for price in one.prices:
        source = published.source if price.source in ("default", "added") else price.source
        origin = [
            price.provider,
            source,
            "in part added by orchestra-etl" if price.source == "added" else None,
        ]
        lines.append(_what(price) + _described(price, _own(price), origin))
    for unpriced in one.unpriced_reasons:
        if unpriced.reason == "usage":
            lines.append(f"no usage reported: {counted(unpriced.calls, 'call')}")
        elif unpriced.reason != "model":
            lines.append(
                f"no price for {plain(unpriced.reason, 60)}: {counted(unpriced.calls, 'call')}"
            )
    if not one.prices:
        lines.append(_advice(one))
    return lines


def _advice(one: PricedModel) -> str:
    from etl.analytics.default_prices import why_none

    if one.model is None:
        return "no price: these calls name no model"
    return f"no price ({plain(why_none(one.model), 200)}): set one with `orchestra-etl prices set`"


def _own(price: Price) -> dict[str, Decimal]:
    from etl.analytics.amounts import own

    return own(price.amounts)


def _what(price: Price | PriceRule) -> str:
    """Return the calls that the price is for, as a prefix; empty for all calls."""
    until = getattr(price, "up_to_input_tokens", None)
    tier = "" if price.service_tier == STANDARD else plain(price.service_tier, 50)
    above = f"above {price.above_input_tokens:,}" if price.above_input_tokens else ""
    up_to = f"up to {until:,}" if until is not None else ""
    length = " ".join(filter(None, (above, up_to)))
    text = ", ".join(filter(None, (tier, length and f"{length} input tokens")))
    return f"{text}: " if text else ""


def _described(
    price: Price | PriceRule, amounts: Mapping[str, Decimal], origin: Iterable[str | None] = ()
) -> str:
    until: date | None = getattr(price, "valid_until", None)
    since = "" if price.valid_from == date.min else f" from {price.valid_from}"
    end = "" if until is None else f" until {until}"
    names = ", ".join(plain(one, 60) for one in origin if one)
    # A price of 0 per call is not shown.
    priced = {part: amount for part, amount in amounts.items() if part != "calls" or amount}
    if priced and not any(priced.values()):
        text = "free"
    else:
        text = (
            ", ".join(f"{part} {amount_of(amount)}" for part, amount in priced.items())
            + f" {price.currency}"
        )
    return f"{text}{since}{end}" + (f" ({names})" if names else "")

"""`prices`: shows and sets what models cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, console, examples, invocation, print_json
from etl.cli.display import amount as amount_of
from etl.cli.display import counted, listing, say
from etl.cli.price_explanations import explain
from etl.errors import ConfigurationError
from etl.terminal import first_plain, plain
from etl.usage import CALLS, KINDS, STANDARD

if TYPE_CHECKING:
    from etl.analytics.default_prices import Publication
    from etl.analytics.price_lists import Price, PriceRule
    from etl.analytics.priced_calls import ModelUsage, UnpricedReason
    from etl.settings.prices import PriceSettings

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name; * matches any characters.")
]
ServiceTier = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Only for this service tier: batch, flex, priority, ... Default: standard.",
    ),
]
Above = Annotated[
    str | None,
    typer.Option(
        "--above",
        metavar="TOKENS",
        help="Only for calls with more input tokens than this, such as 200000.",
    ),
]

# Options whose names differ from the settings' names.
_OPTIONS = {"model": "MODEL", "valid_from": "--from", "above_input_tokens": "--above"}
_PARTS = tuple(kind.price for kind in (*KINDS, CALLS))
_OPTION_PARTS = ("input", "output", "cached_input")


class PricedModel(msgspec.Struct, frozen=True):
    """A model, how often it was called, and what it costs."""

    model: str | None
    calls: int
    unpriced_calls: int
    unpriced_reasons: list[UnpricedReason]
    prices: list[Price]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="prices",
        help="Show and set what models cost.\n\nA price is taken from [[prices]] in the"
        " configuration, else from `prices set`, else from the installed genai-prices package.",
        no_args_is_help=True,
    )
    group.command("list")(list_prices)
    group.command("explain", epilog=examples("prices explain 3fc6af38"))(explain)
    group.command(
        "set",
        epilog=examples(
            "prices set gpt-4o-mini --input 0.15 --output 0.60",
            "prices set 'virtuoso-*' --input 0.5 --output 0.8",
        ),
    )(set_price)
    group.command("unset")(unset_price)
    app.add_typer(group)


def list_prices(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models in the stored steps, with their prices.

    Also shows where prices come from, how old they are, and how many calls have no price. A price
    is for a million tokens; for a thousand searches, tool uses, pages, search units or calls; or
    for an hour of audio. Parts of input and output are named if their price differs. If a price
    changes during the day, the price at noon (UTC) is used.
    """
    from etl.analytics import priced_calls, prices
    from etl.analytics.default_prices import publication

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


def set_price(
    context: typer.Context,
    model: Model,
    input: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="AMOUNT", help="Price of a million input tokens, such as 0.15."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="AMOUNT", help="Price of a million output tokens."),
    ] = None,
    cached_input: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="Price of a million input tokens from a cache. Default: as --input.",
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AMOUNT",
            help="Price of another part, such as cache_write=3.75 or output_audio=80 (a million"
            " tokens), web_searches=10 (a thousand) or audio=0.36 (an hour). Repeatable.",
        ),
    ] = None,
    service_tier: ServiceTier = None,
    above: Above = None,
    currency: Annotated[
        str, typer.Option(metavar="CODE", help="The currency, in three letters.")
    ] = "USD",
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The provider that is paid. Default: as published."),
    ] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DATE",
            help="First day (UTC); earlier days keep their price. Default: all days.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set the price of a model, or of all that a pattern matches.

    Past costs are recalculated, too. An exact name wins over a pattern, a longer pattern over a
    shorter one, and [[prices]] of the configuration over both.
    """
    from etl import app, maintenance
    from etl.analytics import prices

    settings = invocation(context).settings()
    amounts = _named({"input": input, "output": output, "cached_input": cached_input}, part or ())
    wanted = _checked(
        model=model,
        **amounts,
        service_tier=service_tier,
        above_input_tokens=above,
        currency=currency,
        provider=provider,
        valid_from=valid_from,
    )
    with app.open_database(settings) as database:
        database.transaction(lambda c: prices.set_rule(c, maintenance.price_rule(wanted)))
        changed = maintenance.resolve_prices(settings, database)
    if as_json:
        print_json({"changed": changed})
    else:
        say(f"set; {_effect(changed)}")


def unset_price(
    context: typer.Context,
    model: Model,
    valid_from: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="Only the price with this first day (UTC)."),
    ] = None,
    service_tier: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the price for this service tier.")
    ] = None,
    above: Annotated[
        str | None,
        typer.Option(
            "--above",
            metavar="TOKENS",
            help="Only the price for calls with more input tokens than this.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove prices that `prices set` set for a name or pattern.

    The remaining prices then apply.
    """
    from etl import app, maintenance
    from etl.analytics import prices

    settings = invocation(context).settings()
    wanted = _checked(
        model=model,
        input="0",
        output="0",
        valid_from=valid_from,
        service_tier=service_tier,
        above_input_tokens=above,
    )
    tier = None if service_tier is None else wanted.service_tier
    length = None if above is None else wanted.above_input_tokens
    with app.open_database(settings) as database:
        removed = database.transaction(
            lambda c: prices.unset_rules(
                c, model, valid_from=wanted.valid_from, service_tier=tier, above_input_tokens=length
            )
        )
        if not removed:
            which = (
                f" for {tier}" if tier else "",
                f" above {length} input tokens" if length else "",
                f" from {wanted.valid_from} on" if wanted.valid_from else "",
            )
            raise ConfigurationError(
                f"`prices set` set no price of {plain(model, 100)}{''.join(which)}:"
                " see `prices list`"
            )
        changed = maintenance.resolve_prices(settings, database)
    if as_json:
        print_json({"removed": removed, "changed": changed})
    else:
        say(f"{counted(removed, 'price')} removed; {_effect(changed)}")


def _named(options: Mapping[str, str | None], parts: Iterable[str]) -> dict[str, str]:
    """Return the amounts by the name of the part that they are for.

    Raises:
        ConfigurationError: a part is invalid, or is named twice.
    """
    found = {name: amount for name, amount in options.items() if amount is not None}
    for one in parts:
        name, equals, amount = one.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in _PARTS:
            raise ConfigurationError(
                f"--part: {plain(one, 60)!r} is not NAME=AMOUNT with one of {', '.join(_PARTS)}"
            )
        if name in found:
            raise ConfigurationError(f"--part: the price of {name} is given twice")
        found[name] = amount.strip()
    return found


def _checked(**values: str | None) -> PriceSettings:
    from pydantic import ValidationError

    from etl.settings.prices import PriceSettings

    try:
        return PriceSettings.model_validate(
            {name: value for name, value in values.items() if value is not None}
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = str(problem["loc"][0])
        what = (
            str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
        )
        if problem["type"] == "missing":
            what = (
                "is missing: give --input and --output, or --part for what is not sold by the token"
            )
        option = (
            f"--{name.replace('_', '-')}"
            if name not in _PARTS or name in _OPTION_PARTS
            else f"--part {name}"
        )
        raise ConfigurationError(f"{_OPTIONS.get(name, option)}: {what}") from None


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


def _effect(changed: int) -> str:
    return (
        f"{counted(changed, 'price')} changed"
        if changed
        else "nothing changes for the models seen so far"
    )

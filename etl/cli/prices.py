"""`prices`: what models cost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import counted, listing
from etl.errors import ConfigurationError
from etl.terminal import plain

if TYPE_CHECKING:
    from etl.analytics.prices import Price, Rule, Usage
    from etl.settings.prices import ModelPrice

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name; * in it stands for any characters.")]

# Where the settings' names are not the options'.
_OPTIONS = {"model": "MODEL", "valid_from": "--from"}


class Seen(msgspec.Struct, frozen=True):
    """A model, how much it was called, and what it costs by day."""

    model: str | None
    calls: int
    unpriced_calls: int
    prices: list[Price]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="prices",
        help="What models cost: [[prices]] in the configuration, else set here, else as published with genai-prices.",
        no_args_is_help=True,
    )
    group.command("list")(list_prices)
    group.command("set")(set_price)
    group.command("unset")(unset_price)
    app.add_typer(group)


def list_prices(context: typer.Context, as_json: AsJson = False) -> None:
    """The models seen, their prices for a million tokens, where these are from, and how many calls have none.

    Published prices are those of a short prompt, without batch discounts, at noon (UTC) where they change over the day.
    """
    from etl.analytics import prices

    with invocation(context).database() as database:
        rules, stored, usage = database.transaction(lambda c: (prices.set_rules(c), prices.stored(c), prices.usage(c)))
    seen = _seen(stored, usage)
    if as_json:
        print_json({"models": seen, "set": rules})
        return
    if not seen:
        typer.echo("no model has been seen yet")
    else:
        listing(
            console(),
            ("model", "calls", "without a price"),
            [
                (
                    (plain(one.model or "(no name)", 50), f"{one.calls:,}", f"{one.unpriced_calls:,}"),
                    "; ".join(_described(price, price.valid_until, price.source) for price in one.prices)
                    or _advice(one),
                )
                for one in seen
            ],
            numbers=("calls", "without a price"),
        )
    if rules:
        typer.echo("\nset by command:")
        for rule in rules:
            typer.echo(f"  {plain(rule.model)}: {_described(rule)}")


def set_price(
    context: typer.Context,
    model: Model,
    input: Annotated[str, typer.Option("--input", metavar="AMOUNT", help="For a million prompt tokens, such as 0.15.")],
    output: Annotated[str, typer.Option("--output", metavar="AMOUNT", help="For a million completion tokens.")],
    cached_input: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="For a million prompt tokens from a cache; else as --input."),
    ] = None,
    currency: Annotated[str, typer.Option(help="Three letters.")] = "USD",
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Who is paid; else as published.")] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DATE", help="First day (UTC); days before keep their price. Else: it always held."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set what a model costs, or all that a pattern matches; costs of the past are corrected, too.

    An exact name goes before a pattern, a longer pattern before a shorter one, and [[prices]] of the configuration before all.
    For example: orchestra-etl prices set 'virtuoso-*' --input 0.50 --output 0.80 --from 2026-01-01
    """
    from etl import app
    from etl.analytics import prices

    settings = invocation(context).settings()
    wanted = _checked(
        model=model, input=input, output=output, cached_input=cached_input, currency=currency, provider=provider,
        valid_from=valid_from,
    )  # fmt: skip
    with app.open_database(settings) as database:
        database.transaction(lambda c: prices.set_rule(c, app.price_rule(wanted)))
        changed = app.resolve_prices(settings, database)
    if as_json:
        print_json({"changed": changed})
    else:
        typer.echo(f"set; {_effect(changed)}")


def unset_price(
    context: typer.Context,
    model: Model,
    valid_from: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Only the price that holds from this day on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what `prices set` set for this name or pattern; what held without it holds again."""
    from etl import app
    from etl.analytics import prices

    settings = invocation(context).settings()
    day = _checked(model=model, input="0", output="0", valid_from=valid_from).valid_from
    with app.open_database(settings) as database:
        removed = database.transaction(lambda c: prices.unset_rules(c, model, day))
        if not removed:
            since = f" from {day} on" if day else ""
            raise ConfigurationError(f"no price of {plain(model, 100)}{since} was set by command: see `prices list`")
        changed = app.resolve_prices(settings, database)
    if as_json:
        print_json({"removed": removed, "changed": changed})
    else:
        typer.echo(f"{counted(removed, 'price')} removed; {_effect(changed)}")


def _checked(**values: str | None) -> ModelPrice:
    from pydantic import ValidationError

    from etl.settings.prices import ModelPrice

    try:
        return ModelPrice.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = str(problem["loc"][0])
        what = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
        raise ConfigurationError(f"{_OPTIONS.get(name, '--' + name.replace('_', '-'))}: {what}") from None


def _seen(stored: Iterable[Price], usage: Iterable[Usage]) -> list[Seen]:
    by_model: dict[str | None, list[Price]] = {}
    for price in stored:
        by_model.setdefault(price.model, []).append(price)
    called = [Seen(one.model, one.calls, one.unpriced_calls, by_model.pop(one.model, [])) for one in usage]
    return [*called, *(Seen(model, 0, 0, prices) for model, prices in by_model.items())]


def _advice(one: Seen) -> str:
    if one.model is None:
        return "no price: these calls name no model"
    return "no price: set one with `orchestra-etl prices set`"


def _described(price: Price | Rule, until: date | None = None, source: str | None = None) -> str:
    cached = "" if price.cached_input is None else f", cached {_amount(price.cached_input)}"
    since = "" if price.valid_from == date.min else f" from {price.valid_from}"
    end = "" if until is None else f" until {until}"
    origin = ", ".join(plain(one, 40) for one in (price.provider, source) if one)
    amounts = f"input {_amount(price.input)}{cached}, output {_amount(price.output)} {price.currency}"
    return f"{amounts}{since}{end}" + (f" ({origin})" if origin else "")


def _amount(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _effect(changed: int) -> str:
    return f"{counted(changed, 'price')} changed" if changed else "nothing changes for the models seen so far"

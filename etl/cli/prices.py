"""`prices`: shows and sets what models cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, examples, invocation, print_json
from etl.cli.display import say
from etl.cli.price_explanations import explain
from etl.cli.price_list import list_prices
from etl.errors import ConfigurationError
from etl.terminal import counted, plain
from etl.usage import CALLS, KINDS

if TYPE_CHECKING:
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
                f"there is no price of {plain(model, 100)}{''.join(which)} from `prices set`:"
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
            raise ConfigurationError(f"--part: the price of {name} is set twice")
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


def _effect(changed: int) -> str:
    return (
        f"{counted(changed, 'price')} changed"
        if changed
        else "nothing changes for the models seen so far"
    )

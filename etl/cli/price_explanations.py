"""`prices explain`: shows how a step's cost is calculated."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from etl.cli.context import AsJson, console, invocation, print_json
from etl.cli.display import amount, fields, styled
from etl.cli.ids import bare_id
from etl.errors import ConfigurationError
from etl.terminal import counted, plain
from etl.usage import HOUR_MS, MILLION, THOUSAND

if TYPE_CHECKING:
    from rich.text import Text

    from etl.analytics.price_lists import Price
    from etl.analytics.priced_calls import CostExplanation, CostPart

_UNITS = {MILLION: "a million", THOUSAND: "a thousand", HOUR_MS: "an hour (3,600,000 ms)"}


def explain(
    context: typer.Context,
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="The step's id, or a unique prefix of it. `runs show RUN --json` prints ids.",
            callback=bare_id,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show how the cost of a step is calculated.

    Shows what the step used and the price of each part, or why it has no cost.
    """
    from etl.analytics import priced_calls
    from etl.cli import resolve

    with invocation(context).database() as database:
        found = database.transaction(lambda c: priced_calls.explain(c, resolve.step(c, step)))
    if found is None:
        raise ConfigurationError(f"step {plain(step, 80)!r} was removed a moment ago")
    if as_json:
        print_json(found)
        return
    out = console()
    fields(out, _head(found))
    if found.parts:
        out.print()
        for line in _lines(found.parts):
            out.print(line, soft_wrap=True)
    out.print()
    fields(out, _result(found))


def _head(found: CostExplanation) -> list[tuple[str, str | Text]]:
    read = "" if found.input_tokens is None else f", {counted(found.input_tokens, 'input token')}"
    node = f" (node {plain(found.node_id, 60)})" if found.node_id else ""
    rows: list[tuple[str, str | Text]] = [
        ("step", f"{plain(found.step_id, 80)}{node} of run {plain(found.run_id, 80)}"),
        ("model", plain(found.model, 200) if found.model else "(no name)"),
        ("call", f"on {found.day}, service tier {plain(found.service_tier, 50)}{read}"),
    ]
    if found.price is not None:
        rows.append(("price", _price(found.price)))
    if found.is_absent:
        rows.append(("note", "the API no longer returns this step, so no sum includes it"))
    return rows


def _price(price: Price) -> str:
    from etl.analytics.price_publication import publication

    published = publication(datetime.now(UTC).date())
    source = {
        "config": "[[prices]] of the configuration",
        "set": "`prices set`",
        "added": f"{published.source}, in part added by orchestra-etl",
    }.get(price.source, published.source)
    above = f" above {price.above_input_tokens:,}" if price.above_input_tokens else ""
    up_to = f" up to {price.up_to_input_tokens:,}" if price.up_to_input_tokens is not None else ""
    length = f"{above}{up_to} input tokens" if above or up_to else " any number of input tokens"
    since = "" if price.valid_from == date.min else f" from {price.valid_from}"
    until = "" if price.valid_until is None else f" until {price.valid_until}"
    days = since + until or " on all days"
    paid = "" if price.provider is None else f", paid to {plain(price.provider, 60)}"
    return f"{plain(price.service_tier, 50)},{length},{days}{paid}; by {plain(source, 80)}"


def _lines(parts: list[CostPart]) -> list[Text]:
    rows = [("part", "quantity", "", "price", "cost")]
    for part in parts:
        price = "not known" if part.price is None else amount(part.price)
        cost = "not known" if part.cost is None else amount(part.cost)
        rows.append((part.kind, f"{part.quantity:,}", f"for {_UNITS[part.per]}", price, cost))
    name, quantity, unit, price_of_one, whole = (
        max(len(row[column]) for row in rows) for column in range(5)
    )
    return [
        styled(
            f"{row[0]:<{name}}  {row[1]:>{quantity}}  x  {row[3]:>{price_of_one}} {row[2]:<{unit}}"
            f"  =  {row[4]:>{whole}}",
            "dim" if number == 0 else None,
        )
        for number, row in enumerate(rows)
    ]


def _result(found: CostExplanation) -> list[tuple[str, str | Text]]:
    if found.cost is None:
        rows: list[tuple[str, str | Text]] = [
            ("cost", f"none: {plain('; '.join(found.why_none), 300)}")
        ]
    else:
        rows = [("cost", f"{amount(found.cost)} {found.currency}")]
    if found.reported_cost is not None:
        difference = ""
        if found.difference is not None:
            more = "more" if found.difference > 0 else "less"
            difference = (
                f"; the cost is {amount(abs(found.difference))} USD {more}"
                if found.difference
                else ", too"
            )
        rows.append(
            ("reported", f"{amount(found.reported_cost)} USD by the provider itself{difference}")
        )
    return rows

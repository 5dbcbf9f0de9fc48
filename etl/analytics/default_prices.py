"""The prices that models are sold at, from the data of the package genai-prices: as published with it, never from the network."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider, TieredPrices

CURRENCY = "USD"

# The API that is read is Arcee's: what its own list names exactly is sold by it.
_HOST = "arcee"
# Off-peak prices depend on the time of day, ours on the day: the price is that of noon.
_NOON = time(12, tzinfo=UTC)


class Default(msgspec.Struct, frozen=True):
    """A published price, in US dollars for a million tokens."""

    provider: str
    """The package's id of the provider, such as `openai`."""
    input: Decimal
    cached_input: Decimal | None
    output: Decimal


@cache
def version() -> str:
    """The version of the data."""
    return installed("genai-prices")


@lru_cache(maxsize=10_000)  # names are whatever a payload says
def default_prices(model: str) -> dict[date, Default | None]:
    """What this model costs, by the first day (UTC) of the price, from the first day of all; empty where it is not known.

    None: from that day on it is not sold by the token. Prices that rise with the length of the prompt are given as for a short
    one; batch and other tiers of service are left out.
    """
    found = _find(model)
    if found is None:
        return {}
    provider, info = found
    return {day: _price(provider, info, day) for day in _first_days(info)}


def _find(model: str) -> tuple[Provider, ModelInfo] | None:
    # 100 ms and 30 MB, needed only when a new model or rule is seen.
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    data = get_snapshot()
    host = find_provider_by_id(data.providers, _HOST)
    if host is not None and (info := host.find_model(model)) is not None:
        return host, info
    try:
        return data.find_provider_model(model, None, None, None)
    except LookupError:
        pass
    # As gateways name it: openai/gpt-4o.
    prefix, _, name = model.partition("/")
    provider = next((one for one in data.providers if one.id == prefix.lower()), None)
    info = provider.find_model(name, all_providers=data.providers) if provider is not None and name else None
    return None if provider is None or info is None else (provider, info)


def _first_days(info: ModelInfo) -> list[date]:
    from genai_prices.types import ModelPrice, StartDateConstraint

    constraints = [] if isinstance(info.prices, ModelPrice) else [one.constraint for one in info.prices]
    return sorted({date.min, *(one.start_date for one in constraints if isinstance(one, StartDateConstraint))})


def _price(provider: Provider, info: ModelInfo, day: date) -> Default | None:
    price = info.get_prices(datetime.combine(day, _NOON))
    base = _base(price.input_mtok)
    if base is None:
        return None
    # What only reads, such as an embedding, has no price for what it writes.
    return Default(provider.id, base, _base(price.cache_read_mtok), _base(price.output_mtok) or Decimal(0))


def _base(price: Decimal | TieredPrices | None) -> Decimal | None:
    return price if price is None or isinstance(price, Decimal) else price.base

"""Published prices of models, from the data in the package genai-prices, never from the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from etl.analytics.amounts import PARTS, complete
from etl.analytics.model_names import OPENROUTER, CatalogEntry, find
from etl.analytics.price_publication import PACKAGE
from etl.usage import CONTEXT_TIERS, STANDARD

if TYPE_CHECKING:
    from genai_prices.types import (
        ModelInfo,
        ModelPrice,
        StartDateConstraint,
        TieredPrices,
        TimeOfDateConstraint,
    )

CURRENCY = "USD"

# The package's off-peak prices depend on the time of day. `Price` knows only days, so the price at
# noon counts.
_NOON = time(12, tzinfo=UTC)
_PARTS = {
    "input_mtok": "input",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "input_audio",
    "cache_audio_read_mtok": "cached_audio",
    "input_image_mtok": "input_image",
    "cache_image_read_mtok": "cached_image",
    "input_video_mtok": "input_video",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "output_audio_mtok": "output_audio",
    "output_image_mtok": "output_image",
    "output_video_mtok": "output_video",
    "output_citation_mtok": "citation",
    "web_searches_kcount": "web_searches",
    "storage_searches_kcount": "file_searches",
    "audio_hours": "audio",
    "input_audio_hours": "audio",
    "input_document_kpages": "document_pages",
    "rerank_searches_kcount": "search_units",
    "requests_kcount": "calls",
}
"""The package's names of prices, and the `Kind.price` of each."""
# The price of annotated pages, which replaces the price of plain pages. It is ignored, because
# calls do not say which pages were annotated.
_LEFT_OUT = "input_annotated_document_kpages"
_CONTEXTS: Mapping[str, Mapping[str, str]] = {
    STANDARD: {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
"""Service tiers, and the package's context for each."""
# (a part of the model's id, the only kind of output of such models). That kind costs as much as the
# model's output.
_WRITE_ONLY = (
    ("tts", "output_audio"),
    ("gpt-image", "output_image"),
    ("chatgpt-image", "output_image"),
)
# The package omits OpenRouter's prices of audio. They differ from those of text, and are unknown.
_UNLISTED = ("input_audio", "cached_audio")
# OpenRouter's suffix for models that cost nothing:
# https://openrouter.ai/docs/guides/routing/model-variants/free
_FREE = ":free"


class DefaultPrice(msgspec.Struct, frozen=True):
    """Published prices in US dollars, for a service tier, input length and span of days."""

    provider: str
    """The package's id of the provider, such as `openai`."""
    amounts: dict[str, Decimal]
    """Prices by `Kind.price`; a missing key is an unknown price."""
    service_tier: str = STANDARD
    above_input_tokens: int = 0
    up_to_input_tokens: int | None = None
    valid_from: date = date.min
    valid_until: date | None = None
    added: bool = False
    """Whether some of the prices come from `ADDED`, not from the package."""


class AddedPrice(msgspec.Struct, frozen=True):
    """Prices that the package lacks."""

    provider: str
    model: str
    """The package's id of the model."""
    valid_from: date
    amounts: dict[str, Decimal]
    source: str
    """URL of the provider's page with these prices."""
    excepted: tuple[str, ...] = ()
    """Names of the same model to which these prices do not apply."""


def _audio(read: int, written: int) -> dict[str, Decimal]:
    return {"input_audio": Decimal(read), "output_audio": Decimal(written)}


_AUDIO_PREVIEW = "https://platform.openai.com/docs/models/gpt-4o-audio-preview"
_MINI_AUDIO_PREVIEW = "https://platform.openai.com/docs/models/gpt-4o-mini-audio-preview"
ADDED = (
    AddedPrice(
        provider="openai",
        model="gpt-4o-audio-preview",
        valid_from=date.min,
        amounts=_audio(100, 200),
        source=_AUDIO_PREVIEW,
    ),
    AddedPrice(
        provider="openai",
        model="gpt-4o-audio-preview",
        valid_from=date(2024, 12, 17),
        amounts=_audio(40, 80),
        source=_AUDIO_PREVIEW,
        excepted=("gpt-4o-audio-preview-2024-10-01",),
    ),
    AddedPrice(
        provider="openai",
        model="gpt-4o-mini-audio-preview",
        valid_from=date.min,
        amounts=_audio(10, 20),
        source=_MINI_AUDIO_PREVIEW,
    ),
)
"""The added prices, in the order of their first days."""


@lru_cache(maxsize=10_000)  # Bounded, because payloads can contain any names.
def default_prices(model: str) -> tuple[DefaultPrice, ...]:
    """Return the published prices of this model; unknown prices are missing.

    The days before the first known price of a service tier are missing too. For most tiers other
    than `standard`, the package's first day is in 2026.
    """
    entry = find(model)
    free = model.strip().lower().endswith(_FREE)
    if entry is None:
        return (DefaultPrice(OPENROUTER, _nothing()),) if free else ()
    if free and _is_empty(entry.model):
        return (DefaultPrice(entry.provider.id, _nothing()),)
    return tuple(one for tier in _CONTEXTS for one in _of_tier(entry, model, tier))


def why_none(model: str) -> str:
    """Return why this model has no published price, in words."""
    entry = find(model)
    if entry is None:
        return f"{PACKAGE} does not list it, or several providers sell it at different prices"
    unknown = sorted(
        {key for price in _prices(entry.model) for key in _keys(price) if key not in _PARTS}
    )
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        return f"{entry.provider.id} sells it by {', '.join(unknown)}, which {verb} not counted"
    return f"{PACKAGE} lists it without a price"


def _of_tier(entry: CatalogEntry, name: str, tier: str) -> Iterator[DefaultPrice]:
    info = entry.model
    if tier != STANDARD and not (entry.is_own and _variants(info, tier)):
        return
    days = sorted(
        {
            date.min,
            *(one.start_date for one in _starts(info)),
            *(one.valid_from for one in _added(entry, name)),
        }
    )
    lengths = _lengths(_thresholds(info))
    for day, until in pairwise([*days, None]):
        assert day is not None
        moment = datetime.combine(day, _NOON)
        if tier != STANDARD and not any(
            one.active(moment) if one else True for one in _variants(info, tier)
        ):
            continue  # The price of this tier on this day is unknown.
        price = info.get_prices(moment, _CONTEXTS[tier])
        added = {} if tier != STANDARD else _amounts_added(entry, name, day)
        for above, up_to in pairwise([*lengths, None]):
            assert above is not None
            amounts = _amounts(price, above, up_to, entry=entry, added=added)
            if amounts:
                yield DefaultPrice(
                    provider=entry.provider.id,
                    amounts=amounts,
                    service_tier=tier,
                    above_input_tokens=above,
                    up_to_input_tokens=up_to,
                    valid_from=day,
                    valid_until=until,
                    added=bool(added),
                )


def _amounts(
    price: ModelPrice,
    above: int,
    up_to: int | None,
    entry: CatalogEntry,
    added: Mapping[str, Decimal],
) -> dict[str, Decimal]:
    """Return the prices that hold for all inputs of more than `above` and at most `up_to` tokens.

    A price that changes within this range is left out, because the rollups do not know the exact
    length.
    """
    tokens = [
        above + 1,
        *(one + 1 for one in _steps(price) if one > above and (up_to is None or one < up_to)),
    ]
    first, *others = (_at(price, one, entry, added) for one in tokens)
    return {
        part: amount
        for part, amount in first.items()
        if all(one.get(part) == amount for one in others)
    }


def _at(
    price: ModelPrice, tokens: int, entry: CatalogEntry, added: Mapping[str, Decimal]
) -> dict[str, Decimal]:
    """Return all prices of a call with this many input tokens.

    The result is empty if the model also has a price for something that is not counted, or has two
    different prices for one kind.
    """
    model, unlisted = entry.model.id, _UNLISTED if entry.provider.id == OPENROUTER else ()
    known: dict[str, Decimal] = {}
    for key, value in _keys(price).items():
        if key == _LEFT_OUT:
            continue
        amount = (
            value
            if isinstance(value, Decimal)
            else next(
                (tier.price for tier in reversed(value.tiers) if tokens > tier.start), value.base
            )
        )
        if key not in _PARTS or known.setdefault(_PARTS[key], amount) != amount:
            return {}
    known = {**added, **known}
    for word, part in _WRITE_ONLY:
        if word in model and "output" in known:
            known.setdefault(part, known["output"])
    following = complete(known) if known else {}
    return {
        part: amount for part, amount in following.items() if part in known or part not in unlisted
    }


def _lengths(thresholds: Iterable[int]) -> list[int]:
    """Return the input lengths at which the prices may change, sorted, from 0.

    The rollups know only `CONTEXT_TIERS`. A threshold that is not among them is replaced by its
    neighbours below and above.
    """
    ends = {0}
    for one in thresholds:
        ends.update(([0] + [tier for tier in CONTEXT_TIERS if tier <= one])[-1:])
        if one not in CONTEXT_TIERS:
            ends.update([tier for tier in CONTEXT_TIERS if tier > one][:1])
    return sorted(ends)


def _thresholds(info: ModelInfo) -> set[int]:
    return {step for price in _prices(info) for step in _steps(price)}


def _steps(price: ModelPrice) -> list[int]:
    """Return the numbers of input tokens above which one of these prices changes."""
    return sorted(
        {
            tier.start
            for one in _keys(price).values()
            if not isinstance(one, Decimal)
            for tier in one.tiers
        }
    )


def _keys(price: ModelPrice) -> dict[str, Decimal | TieredPrices]:
    return {
        key: value
        for key, value in price.__dict__.items()
        if value is not None and not key.startswith("_")
    }


def _prices(info: ModelInfo) -> Iterator[ModelPrice]:
    from genai_prices.types import ModelPrice

    if isinstance(info.prices, ModelPrice):
        yield info.prices
    else:
        yield from (one.prices for one in info.prices)
    yield from (one.prices for one in info.price_variants or ())


def _is_empty(info: ModelInfo) -> bool:
    return not any(_keys(price) for price in _prices(info))


def _starts(info: ModelInfo) -> Iterator[StartDateConstraint]:
    from genai_prices.types import ModelPrice, StartDateConstraint

    constraints = (
        [] if isinstance(info.prices, ModelPrice) else [one.constraint for one in info.prices]
    )
    constraints += [one.constraint for one in info.price_variants or ()]
    yield from (one for one in constraints if isinstance(one, StartDateConstraint))


def _variants(
    info: ModelInfo, tier: str
) -> list[StartDateConstraint | TimeOfDateConstraint | None]:
    """Return the constraints under which the package has prices of this tier; None: always."""
    context = _CONTEXTS[tier].items()
    return [one.constraint for one in info.price_variants or () if one.when.items() <= context]


def _added(entry: CatalogEntry, name: str) -> list[AddedPrice]:
    return [
        one
        for one in ADDED
        if (one.provider, one.model) == (entry.provider.id, entry.model.id)
        and name.strip().lower().rpartition("/")[2] not in one.excepted
    ]


def _amounts_added(entry: CatalogEntry, name: str, day: date) -> dict[str, Decimal]:
    return {
        part: amount
        for one in _added(entry, name)
        if one.valid_from <= day
        for part, amount in one.amounts.items()
    }


def _nothing() -> dict[str, Decimal]:
    return dict.fromkeys(PARTS, Decimal(0))

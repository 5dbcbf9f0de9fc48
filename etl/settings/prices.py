"""The prices of models that differ from the published ones."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from etl.settings.section import Section
from etl.settings.values import Name, at_most

_LONGEST_NAME = 500
_LONGEST_TIER = 50
_LARGEST_AMOUNT = 1_000_000_000
_STANDARD = "standard"


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _day(value: object) -> object:
    # Pydantic would read a number as seconds since 1970.
    if (
        value is not None
        and not isinstance(value, date)
        and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value))
    ):
        raise ValueError("must be a day, such as 2026-01-31")
    return value


def _tier(text: str) -> str:
    lower = text.lower()
    if len(lower) > _LONGEST_TIER:
        raise ValueError(f"must be a name of at most {_LONGEST_TIER} characters")
    return _STANDARD if lower in ("default", "auto", "on_demand") else lower


def _length(tokens: int) -> int:
    from etl.usage import CONTEXT_TIERS  # imports msgspec, which only prices need

    if tokens not in (0, *CONTEXT_TIERS):
        raise ValueError(
            f"must be 0 or one of {', '.join(map(str, CONTEXT_TIERS))}: prices change there"
        )
    return tokens


# Accepts what `Decimal` accepts: underscores, and a sign before zero.
_WRITTEN_AMOUNT = (
    r"^\s*(?:\+|-(?![^Ee]*[1-9]))?_*(?:\d[\d_]*\.?[\d_]*|\._*\d[\d_]*)(?:[Ee][+-]?[\d_]+)?\s*$"
)
Amount = Annotated[
    Decimal,
    BeforeValidator(_number),
    Field(ge=0, le=_LARGEST_AMOUNT, decimal_places=12, allow_inf_nan=False),
    WithJsonSchema(
        {
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": _LARGEST_AMOUNT,
            "pattern": _WRITTEN_AMOUNT,
        }
    ),
]
"""A price per million tokens, per thousand uses, or per hour."""
LongName = Annotated[Name, Field(max_length=_LONGEST_NAME), at_most(_LONGEST_NAME)]


class PriceSettings(Section):
    """What a model, or every model that a pattern matches, costs.

    Prices of tokens are per million tokens. Parts of the input and output can have prices of their
    own. Without one, `cached_input`, `cache_write`, `input_audio`, `input_image` and `input_video`
    cost as much as `input`; `reasoning` and `citation` cost as much as `output`. Every other part
    without a price is unknown: a call that uses it has no cost.
    """

    # The JSON Schema requires only `model`: `_without_tokens` decides when `input` and `output` may
    # be left out.
    model_config = ConfigDict(json_schema_extra={"required": ["model"]})

    model: LongName
    """Name of the model; `*` stands for any characters, and case does not matter."""
    input: Amount | None
    """Input tokens, which the model reads. `input` and `output` are optional if no price of tokens
    is given."""
    output: Amount | None
    """Output tokens, which the model writes."""
    cached_input: Amount | None = None
    """Input tokens read from a cache; none: as `input`."""
    cache_write: Amount | None = None
    """Input tokens written to a cache; none: as `input`."""
    cache_write_1h: Amount | None = None
    """Input tokens written to a cache for an hour; none: unknown if `cache_write` is set, else as
    `input`."""
    input_audio: Amount | None = None
    """Input tokens of audio; none: as `input`."""
    cached_audio: Amount | None = None
    """Audio input read from a cache; none: unknown if `input_audio` is set, else as
    `cached_input`."""
    input_image: Amount | None = None
    """Input tokens of images; none: as `input`."""
    cached_image: Amount | None = None
    """Image input read from a cache; none: unknown if `input_image` is set, else as
    `cached_input`."""
    input_video: Amount | None = None
    """Input tokens of video; none: as `input`."""
    reasoning: Amount | None = None
    """Output tokens of reasoning; none: as `output`."""
    output_audio: Amount | None = None
    """Output tokens of audio; none: unknown."""
    output_image: Amount | None = None
    """Output tokens of images; none: unknown."""
    output_video: Amount | None = None
    """Output tokens of video; none: unknown."""
    citation: Amount | None = None
    """Output tokens of citations; none: as `output`."""
    other: Amount | None = None
    """Tokens of the reported total beyond input and output; none: unknown."""
    web_searches: Amount | None = None
    """A thousand web searches; none: unknown."""
    file_searches: Amount | None = None
    """A thousand searches of stored files; none: unknown."""
    tool_uses: Amount | None = None
    """A thousand uses of the provider's other tools; none: unknown."""
    audio: Amount | None = None
    """An hour of audio that is charged by its duration; none: unknown."""
    document_pages: Amount | None = None
    """A thousand pages of documents; none: unknown."""
    search_units: Amount | None = None
    """A thousand search units of a reranking model; none: unknown."""
    unread: Amount | None = None
    """A thousand quantities of usage that cannot be read; none: unknown."""
    calls: Amount | None = None
    """A thousand calls, in addition to what they use; none: free."""
    service_tier: Annotated[Name, AfterValidator(_tier), at_most(_LONGEST_TIER)] = _STANDARD
    """The provider's service tier: standard, batch, flex, priority, fast, or another name."""
    above_input_tokens: Annotated[int, AfterValidator(_length)] = 0
    """Only for calls with more input tokens than this; 0: all calls that no other table covers."""
    currency: str = Field(default="USD", json_schema_extra={"pattern": "^[A-Za-z]{3}$"})
    """The currency, in three letters."""
    provider: LongName | None = None
    """The provider; none: as in the published prices."""
    valid_from: Annotated[date, BeforeValidator(_day)] | None = Field(
        default=None, json_schema_extra={"pattern": r"^\d{4}-\d\d-\d\d$"}
    )
    """First day (UTC) of the price; none: it has always applied."""

    @model_validator(mode="before")
    @classmethod
    def _without_tokens(cls, values: object) -> object:
        """Make `input` and `output` optional if no price of tokens is given."""
        from etl.usage import CALLS, KINDS, MILLION

        if isinstance(values, dict):
            named = [kind for kind in (*KINDS, CALLS) if kind.price in values]
            if named and all(kind.per != MILLION for kind in named):
                return {"input": None, "output": None, **values}
        return values

    @field_validator("currency")
    @classmethod
    def _usable_currency(cls, currency: str) -> str:
        if not re.fullmatch(r"[A-Za-z]{3}", currency):
            raise ValueError("must be three letters, such as USD")
        return currency.upper()

    @property
    def amounts(self) -> dict[str, Decimal]:
        """The prices that are set, by the name of what they are for."""
        from etl.usage import CALLS, KINDS

        given = {kind.price: getattr(self, kind.price) for kind in (*KINDS, CALLS)}
        return {part: amount for part, amount in given.items() if amount is not None}

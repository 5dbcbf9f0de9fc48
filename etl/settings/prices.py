"""What models cost where the published prices are not what is paid."""

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

_LONGEST_NAME = 500
_LARGEST_AMOUNT = 1_000_000_000
_STANDARD = "standard"


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _day(value: object) -> object:
    # Anything else would be taken for seconds since 1970.
    if (
        value is not None
        and not isinstance(value, date)
        and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value))
    ):
        raise ValueError("must be a day, such as 2026-01-31")
    return value


def _name(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("must be a name without line breaks and outer spaces")
    return text


def _tier(text: str) -> str:
    lower = text.lower()
    if len(lower) > 50:
        raise ValueError("must be a name of at most 50 characters")
    return _STANDARD if lower in ("default", "auto", "on_demand") else lower


def _length(tokens: int) -> int:
    from etl.usage import CONTEXT_TIERS  # with msgspec, which settings without prices do not need

    if tokens not in (0, *CONTEXT_TIERS):
        raise ValueError(
            f"must be 0 or one of {', '.join(map(str, CONTEXT_TIERS))}: prices change there"
        )
    return tokens


Amount = Annotated[
    Decimal,
    BeforeValidator(_number),
    Field(ge=0, le=_LARGEST_AMOUNT, decimal_places=12, allow_inf_nan=False),
    WithJsonSchema({"type": ["number", "string"], "minimum": 0, "maximum": _LARGEST_AMOUNT}),
]
"""Money for a million tokens, a thousand uses, or an hour."""
Name = Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_name)]


class PriceSettings(Section):
    """What a model, or all that a pattern matches, costs: for a million tokens, or for what else is charged.

    Part of `input` and `output` may have prices of their own. Without one, `cached_input`,
    `cache_write` and what is read as audio, images and video cost as `input`, `reasoning` and
    `citation` as `output`. Other parts have no price unless it is given: a call that has them has
    no cost then.
    """

    # Editors ask for no more: `_without_tokens` says when `input` and `output` may be left out.
    model_config = ConfigDict(json_schema_extra={"required": ["model"]})

    model: Name
    """In it `*` stands for any characters."""
    input: Amount | None
    """For a million tokens that the model reads. It may be left out with `output` where no price of tokens is given."""
    output: Amount | None
    """For a million tokens that the model writes."""
    cached_input: Amount | None = None
    """Input tokens from a cache; None: as `input`."""
    cache_write: Amount | None = None
    """Input tokens that are written to a cache; None: as `input`."""
    cache_write_1h: Amount | None = None
    """Of these, those that are kept for an hour; None: as `input` without a price of `cache_write`, else not known."""
    input_audio: Amount | None = None
    """Input tokens of audio; None: as `input`."""
    cached_audio: Amount | None = None
    """Input tokens of audio from a cache; None: as `cached_input` without a price of `input_audio`, else not known."""
    input_image: Amount | None = None
    """Input tokens of images; None: as `input`."""
    cached_image: Amount | None = None
    """Input tokens of images from a cache; None: as `cached_input` without a price of `input_image`, else not known."""
    input_video: Amount | None = None
    """Input tokens of video; None: as `input`."""
    reasoning: Amount | None = None
    """Output tokens of reasoning; None: as `output`."""
    output_audio: Amount | None = None
    """Output tokens of audio; None: not known."""
    output_image: Amount | None = None
    """Output tokens of images; None: not known."""
    output_video: Amount | None = None
    """Output tokens of video; None: not known."""
    citation: Amount | None = None
    """Output tokens of citations; None: as `output`."""
    other: Amount | None = None
    """Tokens that the reported total holds beyond input and output; None: not known."""
    web_searches: Amount | None = None
    """For a thousand searches of the web; None: not known."""
    file_searches: Amount | None = None
    """For a thousand searches of stored files; None: not known."""
    tool_uses: Amount | None = None
    """For a thousand uses of the provider's other tools; None: not known."""
    audio: Amount | None = None
    """For an hour of audio that is charged by its duration; None: not known."""
    document_pages: Amount | None = None
    """For a thousand pages of documents; None: not known."""
    search_units: Amount | None = None
    """For a thousand search units of a reranking model; None: not known."""
    unread: Amount | None = None
    """For a thousand quantities of usage that cannot be read; None: not known."""
    calls: Amount | None = None
    """For a thousand calls, beside what they use; None: nothing."""
    service_tier: Annotated[Name, AfterValidator(_tier)] = _STANDARD
    """The provider's tier of service: standard, batch, flex, priority, fast, or as the provider names it."""
    above_input_tokens: Annotated[int, AfterValidator(_length)] = 0
    """For calls with more input tokens than this; 0: of any length for which there is no other table."""
    currency: str = "USD"
    """Three letters."""
    provider: Name | None = None
    """Who is paid; None: as the published prices say."""
    valid_from: Annotated[date, BeforeValidator(_day)] | None = None
    """First day (UTC); None: it always held."""

    @model_validator(mode="before")
    @classmethod
    def _without_tokens(cls, values: object) -> object:
        """What is not sold by the token has no price of input and output."""
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
        """The prices that are given, by the names of the kinds."""
        from etl.usage import CALLS, KINDS

        given = {kind.price: getattr(self, kind.price) for kind in (*KINDS, CALLS)}
        return {part: amount for part, amount in given.items() if amount is not None}

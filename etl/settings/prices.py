"""What models cost where the published prices are not what is paid."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

_LONGEST_NAME = 500


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _day(value: object) -> object:
    # Anything else would be taken for seconds since 1970.
    if value is not None and not isinstance(value, date) and not re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)):
        raise ValueError("must be a day, such as 2026-01-31")
    return value


def _name(text: str) -> str:
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError("must be a name without line breaks and outer spaces")
    return text


Amount = Annotated[
    Decimal, BeforeValidator(_number), Field(ge=0, le=1_000_000_000, decimal_places=12, allow_inf_nan=False)
]
"""Money for a million tokens."""
Name = Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_name)]


class ModelPrice(BaseModel):
    """What a model, or all that a pattern matches, costs for a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model: Name
    """In it `*` stands for any characters."""
    input: Amount
    """For a million prompt tokens."""
    output: Amount
    """For a million tokens of answers."""
    cached_input: Amount | None = None
    """Prompt tokens served from a cache; None: as `input`."""
    currency: str = "USD"
    """Three letters."""
    provider: Name | None = None
    """Who is paid; None: as the published prices say."""
    valid_from: Annotated[date, BeforeValidator(_day)] | None = None
    """First day (UTC); None: it always held."""

    @field_validator("currency")
    @classmethod
    def _usable_currency(cls, currency: str) -> str:
        if not re.fullmatch(r"[A-Za-z]{3}", currency):
            raise ValueError("must be three letters, such as USD")
        return currency.upper()

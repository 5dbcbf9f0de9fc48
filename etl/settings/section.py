"""The base class of all sections of the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _texts(value: object) -> Iterator[str]:
    """Yield a text, or the names and texts of a table; lists contain ids, which have a check."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (one for pair in value.items() for one in pair if isinstance(one, str))


class Section(BaseModel):
    """A section: frozen, without unknown keys, and with errors that quote no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError("must be a number")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: object, info: ValidationInfo) -> object:
        # TOML and JSON can contain what neither PostgreSQL, a file name nor a host name can. A
        # section within this one checks its own values, so that the error names the setting.
        is_section = isinstance(cls.model_fields[info.field_name or ""].annotation, type)
        if is_section and isinstance(value, Mapping):
            return value
        if any(_NO_TEXT.search(text) for text in _texts(value)):
            raise ValueError("must not contain NUL or half of a surrogate pair")
        return value

"""A simulated call of a model, and the meaning of its response."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from etl.usage import Usage

Payload = dict[str, Any]

End = Literal["done", "cut_off", "tool"]


class Call(NamedTuple):
    """The content of a call of a model, and how its response ends."""

    topic: str
    """The query of a tool call."""
    text: str
    """The text that the model writes."""
    written: int
    """The number of tokens of the text."""
    tokens: int
    """The number of input tokens, without those that the provider's form adds."""
    end: End
    """`tool`: the model calls a tool instead of writing the text."""
    media: str
    """Media that the input can include: AUDIO, IMAGE or empty."""
    created: int
    """Time of the response, in seconds since 1970."""


class Expected(NamedTuple):
    """What a response means. Its generator sets this; it is never read from the response.

    Counts of audio, images and video are None if the call has none.
    """

    usage: Usage
    model: str | None = None
    """The model that the response names."""
    finish_reason: str | None = None
    """The reason as the provider spells it."""
    cut_off: bool = False
    """Whether the text was cut off at its maximum length."""


class ModelResponse(NamedTuple):
    """A response and its meaning."""

    outputs: Payload
    expected: Expected

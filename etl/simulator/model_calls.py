"""What a simulated call of a model is about, and what the answer to it means."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from etl.usage import Usage

Payload = dict[str, Any]

End = Literal["done", "cut_off", "tool"]


class Call(NamedTuple):
    """What a model is asked, and how its answer ends."""

    topic: str
    """What tools are asked about."""
    text: str
    """What it writes."""
    written: int
    """The tokens of the text."""
    tokens: int
    """Of what it reads, without what the provider's own form adds to it."""
    end: End
    """`tool`: it asks for a tool in place of an answer."""
    media: str
    """Whether audio or images may come with what it reads: AUDIO, IMAGE or nothing."""
    created: int
    """Unix time in seconds."""


class Expected(NamedTuple):
    """What an answer says of its call. It is stated by the author of the answer, and never read back from it.

    Of audio, images and video of which there are none nothing is stated.
    """

    usage: Usage
    model: str | None = None
    """The model that the answer names."""
    finish_reason: str | None = None
    """In the provider's words."""
    cut_off: bool = False
    """Whether the answer reached its greatest length."""


class ModelResponse(NamedTuple):
    """An answer and its meaning."""

    outputs: Payload
    expected: Expected

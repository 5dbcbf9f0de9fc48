"""The usage of most responses, read in one step.

A response with any other name is read by the whole table of names.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from etl.transform.fields import MAX_TOKENS
from etl.transform.scanner import REFUSALS
from etl.transform.usage_parts import plain_usage
from etl.usage import STANDARD, Usage

_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None


class _UsualDetails(Struct, gc=False, forbid_unknown_fields=True):
    cached_tokens: _Count = None
    reasoning_tokens: _Count = None
    audio_tokens: _Count = None
    image_tokens: _Count = None
    video_tokens: _Count = None
    text_tokens: _Count = None
    accepted_prediction_tokens: _Count = None
    rejected_prediction_tokens: _Count = None


class _UsualUsage(Struct, gc=False, forbid_unknown_fields=True):
    """The names of `usage_names` that nearly all responses use."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _UsualDetails | None = None
    completion_tokens_details: _UsualDetails | None = None
    queue_time: Any = None
    prompt_time: Any = None
    completion_time: Any = None
    total_time: Any = None


_USUAL = msgspec.json.Decoder(_UsualUsage)
_NO_DETAILS = _UsualDetails()


def usual_usage(usage: Raw, service_tier: object, response_cost: object) -> Usage | None:
    """Return the same as `usage_of` for the usual names; None if only `usage_of` can decide.

    Args:
        usage: the member of a response by OpenAI's chat API.
        service_tier: the response's member; None if it has none.
        response_cost: the response's member; None if it has none.
    """
    try:
        used = _USUAL.decode(usage)
    except REFUSALS:
        return None
    of_input, of_output = (
        used.prompt_tokens_details or _NO_DETAILS,
        used.completion_tokens_details or _NO_DETAILS,
    )
    read, wrote, cached, reasoning = (
        used.prompt_tokens,
        used.completion_tokens,
        of_input.cached_tokens,
        of_output.reasoning_tokens,
    )
    if (
        read is None
        or wrote is None
        or (used.total_tokens is not None and used.total_tokens != read + wrote)
        or (cached is not None and cached > read)
        or (reasoning is not None and reasoning > wrote)
        or of_input.audio_tokens
        or of_input.image_tokens
        or of_input.video_tokens
        or of_output.audio_tokens
        or of_output.image_tokens
        or of_output.video_tokens
        or of_input.reasoning_tokens
        or of_output.cached_tokens
        or service_tier not in (None, "default")
        or response_cost is not None
    ):
        return None
    return plain_usage(
        read=read,
        wrote=wrote,
        cached=cached,
        reasoning=reasoning,
        service_tier=None if service_tier is None else STANDARD,
    )

"""The quantities of usage that names in response bodies can mean."""

from __future__ import annotations

WHOLE = frozenset(
    {
        *("prompt", "input", "tool_input", "output", "total", "uncached", "other"),
        *("cached", "cached_beside", "written", "written_beside", "written_5m", "written_1h"),
        *("reasoning", "reasoning_beside", "citation"),
        *("input_audio", "input_image", "input_video", "tool_audio", "tool_image", "tool_video"),
        *("cached_audio", "cached_image", "cached_video"),
        *("output_audio", "output_image", "output_video"),
        *("billed_input", "billed_output", "billed_image"),
        *("web_searches", "file_searches", "tool_uses", "executed_tools", "sources", "tools"),
        *("document_pages", "search_units", "cost_ticks"),
    }
)
"""Quantities in whole numbers.

`prompt` and `input` both report the input. `cached_beside` and `written_beside` are added to
`input`; they are added to `prompt` only if the total or their size shows that it does not include
them. `reasoning` is part of the output, unless the total or its size shows that the output does not
include it. `reasoning_beside` and `citation` are always added to the output.
"""
ZERO = WHOLE - {name for name in WHOLE if name.endswith(("_audio", "_image", "_video"))}
"""Quantities whose 0 is kept.

Many providers report 0 audio, image or video tokens for every call, even of models that have none.
"""
SECONDS = frozenset({"audio_seconds"})
MONEY = frozenset({"cost", "upstream_cost", "gateway_cost"})
"""Amounts in US dollars. `upstream_cost` is added to `cost` if the customer uses an `own_key`."""
WORDS = frozenset({"tier", "traffic", "geo", "speed"})
FLAGS = frozenset({"own_key"})
SUMMED = frozenset({"other", "tool_uses", "file_searches"})
"""Quantities of which several names report parts; the parts are added.

If several names report any other quantity, they report the same number, and the largest counts.
"""
ALL = WHOLE | SECONDS | MONEY | WORDS | FLAGS

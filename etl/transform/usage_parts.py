"""Combination of the quantities in a response into one `Usage`, whose parts never exceed the whole.

Providers differ in what their numbers include. If a name alone does not show this, the reported
total decides.
"""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

from etl.transform.usage_reading import UNREAD, Found
from etl.usage import BITS, STANDARD, Usage, kinds_of

MAX_TIER_CHARACTERS = 50
_STANDARD = frozenset({"standard", "default", "auto", "on_demand"})
_NO_TIER = frozenset({"", "unspecified", "traffic_type_unspecified", "service_tier_unspecified"})
_TRAFFIC = {"on_demand_priority": "priority", "on_demand_flex": "flex"}
_ANYWHERE = frozenset({"", "global", "not_available"})
_TICK = -10  # The decimal exponent of xAI's unit of cost, in US dollars.
_MS = 1000
_BILLED = frozenset({"billed_input", "billed_output", "billed_image", "search_units"})
_MARKUPS = frozenset({"tier", "traffic", "speed", "geo", "batch"})
_XAI = frozenset({"sources", "cost_ticks"})
_TOOLS = frozenset({"tool_uses", "web_searches", "file_searches"})
_OUTPUT_PARTS = (
    "output_audio_tokens", "output_image_tokens", "output_video_tokens", "citation_tokens",
    "reasoning_tokens",
)  # fmt: skip
_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")

_PLAIN = frozenset({"prompt", "input", "output", "total", "cached", "reasoning", "tier"})
_BIT_INPUT, _BIT_CACHED = BITS["input_tokens"], BITS["cached_input_tokens"]
_BIT_OUTPUT, _BIT_REASONING = BITS["output_tokens"], BITS["reasoning_tokens"]

Parts = dict[str, int | None]
"""Parts of the input or of the output, by their names in `Usage`."""


def usage_of(found: Found) -> tuple[Usage, tuple[str, ...]]:
    """Combine the quantities of a response; return the usage and the names of parts left out.

    Parts that do not fit are left out: no part exceeds its whole, no charge is negative, and
    `charged` adds up to the tokens of input and output.
    """
    return _plain(found) or _worked_out(found)


def _plain(found: Found) -> tuple[Usage, tuple[str, ...]] | None:
    """Combine the usual quantities: input, output and total, with at most one part of each.

    None if there are other quantities, or if they do not fit.
    """
    if not _PLAIN.issuperset(found):
        return None
    get = found.get
    read, wrote, cached, reasoning = get("prompt"), get("output"), get("cached"), get("reasoning")
    if (
        read is None
        or wrote is None
        or (cached or 0) > read
        or (reasoning or 0) > wrote
        or "input" in found
    ):
        return None
    if get("total", read + wrote) != read + wrote:
        return None
    return plain_usage(
        read=read,
        wrote=wrote,
        cached=cached,
        reasoning=reasoning,
        service_tier=_tier(found) if "tier" in found else None,
    ), ()


def plain_usage(
    read: int,
    wrote: int,
    cached: int | None,
    reasoning: int | None,
    service_tier: str | None = None,
) -> Usage:
    """Return the usage of a call with text only, in tokens; its parts are known to fit."""
    return Usage(
        input_tokens=read,
        cached_input_tokens=cached,
        output_tokens=wrote,
        reasoning_tokens=reasoning,
        total_tokens=read + wrote,
        usage_kinds=(
            (_BIT_INPUT if read > (cached or 0) else 0)
            | (_BIT_CACHED if cached else 0)
            | (_BIT_OUTPUT if wrote > (reasoning or 0) else 0)
            | (_BIT_REASONING if reasoning else 0)
        ),
        service_tier=service_tier,
    )


def _worked_out(found: Found) -> tuple[Usage, tuple[str, ...]]:
    get = found.get
    parts: Parts = {}
    if _BILLED.isdisjoint(found):
        read = _input(found, parts)
        wrote = _output(found, parts, read)
    else:
        # Cohere charges only the billed tokens, which exclude its own preambles that the model also
        # reads.
        read, wrote = _sum(get("billed_input"), get("billed_image")), get("billed_output")
        parts["input_image_tokens"] = get("billed_image")
    dropped = _fit_input(read, parts) + _fit_output(wrote, parts)

    known = (read or 0) + (wrote or 0)
    other, total = get("other") or 0, get("total")
    if total is not None and total >= known and _BILLED.isdisjoint(found):
        # The total also includes tokens of audio that is charged by duration.
        if "audio_seconds" not in found and (read is not None or wrote is not None):
            other = max(other, total - known)
        total = max(total, known + other)
    else:
        total = None if read is None or wrote is None else known + other
    seconds = get("audio_seconds")
    used = Usage(
        input_tokens=read,
        output_tokens=wrote,
        other_tokens=other or None,
        web_searches=get("web_searches"),
        file_searches=get("file_searches"),
        tool_uses=_tool_uses(found),
        audio_ms=None if seconds is None else round(seconds * _MS),
        document_pages=get("document_pages"),
        search_units=get("search_units"),
        unread_quantities=_sum(get(UNREAD), len(dropped) or None),
        total_tokens=total,
        service_tier=_tier(found),
        reported_cost=_cost(found),
    )
    used = msgspec.structs.replace(used, **parts)
    return msgspec.structs.replace(used, usage_kinds=kinds_of(used)), dropped


def _input(found: Found, parts: Parts) -> int | None:
    """Return the whole input, and add its parts to `parts`."""
    get = found.get
    read, cached, written = _most(get("prompt"), get("input")), get("cached"), get("written")
    if read is None and "uncached" in found:
        read = found["uncached"] + (cached or 0)
    cached_beside, written_beside = get("cached_beside"), get("written_beside")
    by_age = _sum(get("written_5m"), get("written_1h"))
    if written is None:
        written_beside = _most(written_beside, by_age)
    beside = (cached_beside or 0) + (written_beside or 0)
    if read is not None and beside:
        may_include = "prompt" in found or bool(cached or written)
        total = get("total")
        total_has_room = total is not None and total >= read + (get("output") or 0) + beside
        if not may_include or beside > read or total_has_room:
            read += beside
    parts["cached_input_tokens"] = _most(cached, cached_beside)
    parts["cache_write_tokens"] = _most(written, written_beside)
    parts["cache_write_1h_tokens"] = get("written_1h")
    parts["input_audio_tokens"] = _sum(get("input_audio"), get("tool_audio"))
    parts["input_image_tokens"] = _sum(get("input_image"), get("tool_image"))
    video = _sum(get("input_video"), get("tool_video"))
    # Video from a cache has no column. It is only part of the cached tokens, so that it is not
    # charged twice.
    parts["input_video_tokens"] = (
        None if video is None else max(video - (get("cached_video") or 0), 0)
    )
    parts["cached_audio_tokens"] = get("cached_audio")
    parts["cached_image_tokens"] = get("cached_image")
    return _sum(read, get("tool_input"))


def _output(found: Found, parts: Parts, read: int | None) -> int | None:
    """Return the whole output, and add its parts to `parts`."""
    get = found.get
    wrote, reasoning, citation = get("output"), get("reasoning"), get("citation")
    if "reasoning_beside" in found:
        reasoning = found["reasoning_beside"]
        wrote = (wrote or 0) + reasoning
    elif reasoning and wrote is not None:
        total = get("total")
        if total is None or read is None:
            # Only xAI uses these names, and its completion tokens do not include the reasoning.
            beside = "prompt" in found and not _XAI.isdisjoint(found)
        else:
            beside = total - read - wrote >= reasoning
        if beside or reasoning > wrote or citation is not None:
            wrote += reasoning
    if citation is not None and wrote is not None:
        wrote += citation
    parts["reasoning_tokens"] = reasoning
    parts["citation_tokens"] = citation
    parts["output_audio_tokens"] = get("output_audio")
    parts["output_image_tokens"] = get("output_image")
    parts["output_video_tokens"] = get("output_video")
    return wrote


def _fit_input(read: int | None, parts: Parts) -> tuple[str, ...]:
    """Remove the parts of the input that do not fit, and return their names.

    The most expensive parts are fitted first.
    """
    left = read or 0
    dropped: list[str] = []

    def fits(name: str, most: int) -> int:
        """Return the part if it is at most `most`; else remove it and return 0."""
        part = parts.get(name)
        if part is None or (part <= most and read is not None):
            return part or 0
        parts[name] = None
        if part:
            dropped.append(name)
        return 0

    written = fits("cache_write_tokens", left)
    fits("cache_write_1h_tokens", written)
    left -= written
    cached = fits("cached_input_tokens", left)
    left -= cached
    # Tokens that are both audio (or image) and cached count once.
    in_both = cached
    for whole, both in (
        ("input_audio_tokens", "cached_audio_tokens"),
        ("input_image_tokens", "cached_image_tokens"),
    ):
        if parts.get(whole) is None and parts.get(both):
            parts[whole] = parts[both]
        part = fits(whole, left + in_both)
        shared = fits(both, min(part, in_both))
        if part - shared > left and parts.get(both) is None:
            # The shared part is not reported, but at least this much must be cached.
            shared = parts[both] = part - left
        if part - shared > left:
            parts[whole] = parts[both] = None
            dropped.append(whole)
            continue
        left -= part - shared
        in_both -= shared
    fits("input_video_tokens", left)
    return tuple(dropped)


def _fit_output(wrote: int | None, parts: Parts) -> tuple[str, ...]:
    """Remove the parts of the output that do not fit, and return their names."""
    left = -1 if wrote is None else wrote
    dropped: list[str] = []
    for name in _OUTPUT_PARTS:
        part = parts.get(name)
        if part is None:
            continue
        if part <= left:
            left -= part
            continue
        parts[name] = None
        if part:
            dropped.append(name)
    return tuple(dropped)


def _tool_uses(found: Found) -> int | None:
    get = found.get
    uses = _sum(get("tool_uses"), get("sources"))
    if "executed_tools" in found:
        uses = _sum(uses, max(found["executed_tools"] - (get("web_searches") or 0), 0))
    if "tools" in found and _TOOLS.isdisjoint(found):
        uses = _most(uses, found["tools"])
    return uses


def _cost(found: Found) -> Decimal | None:
    """Return the cost of the call that the provider reports, in US dollars."""
    get = found.get
    cost: Decimal | None = get("cost")
    upstream = get("upstream_cost")
    if get("own_key") and upstream is not None:
        cost = (cost or Decimal(0)) + upstream
    if cost is None and "cost_ticks" in found:
        cost = Decimal(found["cost_ticks"]).scaleb(_TICK)
    return get("gateway_cost") if cost is None else cost


def _tier(found: Found) -> str | None:
    """Return the service tier, followed by the speed and region that change the price of the call.

    None if the response names none of these.
    """
    if _MARKUPS.isdisjoint(found):
        return None
    get = found.get
    words = [word.strip().casefold() for word in (get("tier"), get("traffic")) if word is not None]
    words = [_TRAFFIC.get(word, word) for word in words if word not in _NO_TIER]
    named = [word for word in words if word not in _STANDARD]
    tiers = ["batch"] if "batch" in found else named[:1]
    if (speed := (get("speed") or "").strip().casefold()) and speed not in _STANDARD:
        tiers.append(speed)
    if (geo := (get("geo") or "").strip().casefold()) not in _ANYWHERE:
        tiers.append(geo)
    if tiers:
        return _UNPRINTABLE.sub("\ufffd", " ".join(dict.fromkeys(tiers)))[:MAX_TIER_CHARACTERS]
    return STANDARD if words else None


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


def _most(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)

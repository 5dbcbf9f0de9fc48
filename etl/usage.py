"""The kinds of usage that providers price apart: tokens, and what is charged by the use.

One table of them serves the records, the tables, the prices and the tests. Every quantity is a
whole number. A kind that is part of another one is contained in it: cached input tokens are counted
in the input tokens, too.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

MILLION = 1_000_000
THOUSAND = 1_000
HOUR_MS = 3_600_000


class Kind(msgspec.Struct, frozen=True):
    """A quantity of a model call with a price of its own."""

    name: str
    """Its column in `steps` and in the rollups, and its field in `Usage`."""
    comment: str
    price: str
    """The name of its price in rules, such as `cached_input`."""
    per: int = MILLION
    """How many units the price is for."""
    part_of: tuple[str, ...] = ()
    """The kinds that contain it."""

    @property
    def price_column(self) -> str:
        """Its column in `prices`, such as `cached_input_per_million`."""
        return (
            self.price
            + {MILLION: "_per_million", THOUSAND: "_per_thousand", HOUR_MS: "_per_hour"}[self.per]
        )


KINDS = (
    Kind(
        "input_tokens",
        "Input tokens, including those read from and written to a cache.",
        "input",
    ),
    Kind(
        "cached_input_tokens",
        "Input tokens read from a cache, part of input_tokens.",
        "cached_input",
        part_of=("input_tokens",),
    ),
    Kind(
        "cache_write_tokens",
        "Input tokens written to a cache, part of input_tokens.",
        "cache_write",
        part_of=("input_tokens",),
    ),
    Kind(
        "cache_write_1h_tokens",
        "Input tokens written to a cache that keeps them for an hour, part of cache_write_tokens.",
        "cache_write_1h",
        part_of=("input_tokens", "cache_write_tokens"),
    ),
    Kind(
        "input_audio_tokens",
        "Input tokens of audio, part of input_tokens.",
        "input_audio",
        part_of=("input_tokens",),
    ),
    Kind(
        "cached_audio_tokens",
        "Input tokens of audio read from a cache, part of input_audio_tokens and of cached_input_tokens.",
        "cached_audio",
        part_of=("input_tokens", "cached_input_tokens", "input_audio_tokens"),
    ),
    Kind(
        "input_image_tokens",
        "Input tokens of images, part of input_tokens.",
        "input_image",
        part_of=("input_tokens",),
    ),
    Kind(
        "cached_image_tokens",
        "Input tokens of images read from a cache, part of input_image_tokens and of cached_input_tokens.",
        "cached_image",
        part_of=("input_tokens", "cached_input_tokens", "input_image_tokens"),
    ),
    Kind(
        "input_video_tokens",
        "Input tokens of video, part of input_tokens.",
        "input_video",
        part_of=("input_tokens",),
    ),
    Kind("output_tokens", "Output tokens, including reasoning.", "output"),
    Kind(
        "reasoning_tokens",
        "Output tokens of reasoning, part of output_tokens.",
        "reasoning",
        part_of=("output_tokens",),
    ),
    Kind(
        "output_audio_tokens",
        "Output tokens of audio, part of output_tokens.",
        "output_audio",
        part_of=("output_tokens",),
    ),
    Kind(
        "output_image_tokens",
        "Output tokens of images, part of output_tokens.",
        "output_image",
        part_of=("output_tokens",),
    ),
    Kind(
        "output_video_tokens",
        "Output tokens of video, part of output_tokens.",
        "output_video",
        part_of=("output_tokens",),
    ),
    Kind(
        "citation_tokens",
        "Output tokens of citations, part of output_tokens.",
        "citation",
        part_of=("output_tokens",),
    ),
    Kind(
        "other_tokens",
        "Tokens of unknown kind: those in the reported total beyond input and output.",
        "other",
    ),
    Kind("web_searches", "Web searches by the provider.", "web_searches", THOUSAND),
    Kind("file_searches", "File searches by the provider.", "file_searches", THOUSAND),
    Kind(
        "tool_uses",
        "Uses of other tools that the provider charges by use.",
        "tool_uses",
        THOUSAND,
    ),
    Kind("audio_ms", "Audio charged by duration, in milliseconds.", "audio", HOUR_MS),
    Kind("document_pages", "Document pages read.", "document_pages", THOUSAND),
    Kind("search_units", "Search units of a reranking model.", "search_units", THOUSAND),
    Kind(
        "unread_quantities",
        "Reported quantities of usage that could not be read: their cost is unknown.",
        "unread",
        THOUSAND,
    ),
)
"""In the order of their columns and of their bits in `usage_kinds`."""

CALLS = Kind("calls", "Calls.", "calls", THOUSAND)
"""What some providers charge for a call as such: a price, but no quantity of its own."""

BITS = {kind.name: 1 << bit for bit, kind in enumerate(KINDS)}
"""The bit of a kind in `usage_kinds`."""

STANDARD = "standard"
"""The service tier of calls that name none."""

CONTEXT_TIERS = (32_000, 100_000, 128_000, 199_999, 200_000, 256_000, 272_000, 512_000, 524_288)
"""Numbers of input tokens above which published prices change. A price that changes elsewhere cannot be told from the rollups."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """How much a call of a model used; None where it does not tell. Parts never exceed what contains them."""

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    input_audio_tokens: int | None = None
    cached_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    cached_image_tokens: int | None = None
    input_video_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    output_video_tokens: int | None = None
    citation_tokens: int | None = None
    other_tokens: int | None = None
    web_searches: int | None = None
    file_searches: int | None = None
    tool_uses: int | None = None
    audio_ms: int | None = None
    document_pages: int | None = None
    search_units: int | None = None
    unread_quantities: int | None = None
    total_tokens: int | None = None
    """As reported where that holds at least input and output, else their sum; None where not both are known."""
    usage_kinds: int = 0
    """The bits (`BITS`) of the kinds of which something is charged at their own price: with which the others' parts are not."""
    service_tier: str | None = None
    """standard, batch, flex, priority, fast, or as the provider names it, in lower case; None where it names none."""
    reported_cost: Decimal | None = None
    """The cost in US dollars, as the provider reports it."""


NO_USAGE = Usage()
"""Of a step that tells nothing."""


# Parts stand behind what contains them.
_WHOLES = tuple(
    (
        kind.name,
        Usage.__struct_fields__.index(kind.name),
        tuple(one.name for one in KINDS if kind.name in one.part_of),
    )
    for kind in reversed(KINDS)
)


def charged(usage: Usage) -> dict[str, int]:
    """What is charged at the price of each kind: its quantity without its parts that have prices of their own.

    Adds up to the whole: nothing is counted twice. Below 0 where parts exceed what contains them.
    """
    left: dict[str, int] = {}
    told = msgspec.structs.astuple(usage)
    for name, place, parts in _WHOLES:
        quantity = told[place]
        if quantity is not None:
            for part in parts:
                quantity -= left.get(part, 0)
            left[name] = quantity
    return {name: left[name] for name in reversed(left) if left[name]}


def kinds_of(usage: Usage) -> int:
    """The bits of the kinds of which something is charged at their own price: the value of `usage_kinds`."""
    return sum(BITS[name] for name, quantity in charged(usage).items() if quantity > 0)

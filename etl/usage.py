"""The kinds of usage that providers price separately: tokens, and charges per use.

The records, the tables, the prices and the tests all use this list. Every quantity is a whole
number. A kind that is part of another kind is included in it: input tokens include cached input
tokens.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

MILLION = 1_000_000
THOUSAND = 1_000
HOUR_MS = 3_600_000


class Kind(msgspec.Struct, frozen=True):
    """A quantity of a model call that has its own price."""

    name: str
    """The column in `steps` and in the rollups, and the field in `Usage`."""
    comment: str
    """The comment of the column in the database."""
    price: str
    """The name of its price in price rules, such as `cached_input`."""
    per: int = MILLION
    """The number of units that the price is for."""
    part_of: tuple[str, ...] = ()
    """The kinds that include it."""

    @property
    def price_column(self) -> str:
        """The column in `prices`, such as `cached_input_per_million`."""
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
        "Input tokens of audio read from a cache, "
        "part of input_audio_tokens and of cached_input_tokens.",
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
        "Input tokens of images read from a cache, "
        "part of input_image_tokens and of cached_input_tokens.",
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
"""All kinds, in the order of their columns and of their bits in `usage_kinds`."""

CALLS = Kind("calls", "Calls.", "calls", THOUSAND)
"""The kind for the price that some providers charge for each call; `Usage` has no field for it."""

BITS = {kind.name: 1 << bit for bit, kind in enumerate(KINDS)}
"""Each kind's bit in `usage_kinds`."""

STANDARD = "standard"
"""The service tier of calls that do not name a tier."""

CONTEXT_TIERS = (32_000, 100_000, 128_000, 199_999, 200_000, 256_000, 272_000, 512_000, 524_288)
"""Numbers of input tokens above which published prices change.

The rollups distinguish only these tiers, so they cannot apply a price that changes elsewhere.
"""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """The usage that one model call reports; a field is None if the call does not report it.

    A part never exceeds the quantity that includes it.
    """

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
    """The reported total if it is at least input plus output, else input plus output.

    None if neither can be determined.
    """
    usage_kinds: int = 0
    """The bits (`BITS`) of the kinds that are charged at their own price (see `charged`)."""
    service_tier: str | None = None
    """standard, batch, flex, priority, fast or the provider's own name, in lower case.

    None if the response names no tier.
    """
    reported_cost: Decimal | None = None
    """The cost that the provider reports, in US dollars."""


NO_USAGE = Usage()
"""The usage of a step that reports none."""


# In the reverse order of KINDS, parts come before the kinds that include them.
_WHOLES = tuple(
    (
        kind.name,
        Usage.__struct_fields__.index(kind.name),
        tuple(one.name for one in KINDS if kind.name in one.part_of),
    )
    for kind in reversed(KINDS)
)


def charged(usage: Usage) -> dict[str, int]:
    """Return the quantity charged at each kind's own price: its quantity without its parts.

    The values add up to the whole: nothing is counted twice. A value is negative if the parts
    exceed the quantity that includes them. Kinds whose value is 0 are missing.
    """
    left: dict[str, int] = {}
    quantities = msgspec.structs.astuple(usage)
    for name, place, parts in _WHOLES:
        quantity = quantities[place]
        if quantity is not None:
            for part in parts:
                quantity -= left.get(part, 0)
            left[name] = quantity
    return {name: left[name] for name in reversed(left) if left[name]}


def kinds_of(usage: Usage) -> int:
    """Return the value of `usage_kinds`: the bits of the kinds charged at their own price."""
    return sum(BITS[name] for name, quantity in charged(usage).items() if quantity > 0)

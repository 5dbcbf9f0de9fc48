"""Published prices: each kind, service tier and input length has its own price or none."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
)
from genai_prices.units import _get_registry

from etl.analytics import default_prices, model_names, price_publication
from etl.analytics.amounts import PARTS, complete, own
from etl.analytics.default_prices import DefaultPrice, why_none
from etl.usage import CONTEXT_TIERS, KINDS, STANDARD

TODAY = date(2026, 11, 28)


def sold(
    model: str, tier: str = STANDARD, tokens: int = 1, day: date = TODAY
) -> dict[str, str] | None:
    """Return the prices of a call without derived ones, or None if there are none."""
    length = max((one for one in (0, *CONTEXT_TIERS) if tokens > one), default=0)
    found = [
        one
        for one in default_prices.default_prices(model)
        if one.service_tier == tier
        and one.valid_from <= day
        and (one.valid_until is None or day < one.valid_until)
        if one.above_input_tokens <= length
        and (one.up_to_input_tokens is None or length < one.up_to_input_tokens)
    ]
    assert len(found) <= 1
    return (
        {part: f"{amount.normalize():f}" for part, amount in own(found[0].amounts).items()}
        if found
        else None
    )


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Provide a function that replaces all published prices by these, for the model `made-up`."""

    def become(prices: ModelPrice | list[ConditionalPrice], **others: Any) -> None:
        model = ModelInfo("made-up", ClauseEquals("made-up"), prices=prices, **others)
        provider = Provider("maker", "Maker", "", models=[model])
        monkeypatch.setattr(model_names, "providers", lambda: [provider])
        for cached in (model_names._index, default_prices.default_prices):
            cached.cache_clear()

    yield become
    monkeypatch.undo()
    for cached in (model_names._index, default_prices.default_prices):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("model", "prices"),
    [
        ("gpt-4o", {"input": "2.5", "cached_input": "1.25", "output": "10", "web_searches": "10",
                    "file_searches": "2.5"}),
        (
            "claude-sonnet-4-5-20250929",
            {
                "input": "3", "cached_input": "0.3", "cache_write": "3.75", "cache_write_1h": "6",
                "output": "15",
                "web_searches": "10",
            },
        ),
        ("gpt-audio", {"input": "2.5", "input_audio": "32", "output": "10", "output_audio": "64"}),
        ("text-embedding-3-small", {"input": "0.02"}),
        ("text-embedding-3-large", {"input": "0.13"}),
        ("whisper-1", {"audio": "0.36"}),
        ("mistral-ocr-2503", {"document_pages": "1"}),
        ("sonar-pro", {"input": "3", "output": "15", "calls": "14"}),
        ("deepseek-chat", {"input": "0.27", "cached_input": "0.07", "output": "1.1"}),
    ],
)  # fmt: skip
def test_every_part_has_its_own_price(model: str, prices: dict[str, str]) -> None:
    """Kinds that providers price separately have separate prices.

    A model that writes nothing has no price for output.
    """
    assert sold(model) == prices


def test_added_prices_of_audio_output() -> None:
    """Prices that the package lacks come from the provider's page, each from its first day."""
    assert sold("gpt-4o-audio-preview") == {
        "input": "2.5",
        "input_audio": "40",
        "output": "10",
        "output_audio": "80",
    }
    assert sold("gpt-4o-audio-preview", day=date(2024, 11, 1)) == {
        "input": "2.5", "input_audio": "100", "output": "10", "output_audio": "200",
    }  # fmt: skip
    assert sold("gpt-4o-audio-preview-2024-10-01") == sold(
        "gpt-4o-audio-preview", day=date(2024, 11, 1)
    )
    assert sold("openai/gpt-4o-mini-audio-preview") == {
        "input": "0.15", "input_audio": "10", "output": "0.6", "output_audio": "20",
    }  # fmt: skip


def test_added_prices_are_missing_in_the_package() -> None:
    """A price that the package has now is no longer added to it."""
    for one in default_prices.ADDED:
        [provider] = [
            provider for provider in get_snapshot().providers if provider.id == one.provider
        ]
        [model] = [model for model in provider.models if model.id == one.model]
        keys = {
            key for price in default_prices._prices(model) for key in default_prices._keys(price)
        }
        assert not keys & {
            key for key, part in default_prices._PARTS.items() if part in one.amounts
        }
        assert one.source.startswith("https://")


def test_audio_and_images_are_not_sold_as_text(publish: Any) -> None:
    """Audio and images that a model writes have their own price or none.

    What it reads costs as much as text unless there is another price.
    """
    publish(ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2)))
    [price] = default_prices.default_prices("made-up")
    assert price.amounts == {
        **dict.fromkeys(
            (
                "input",
                "cached_input",
                "cache_write",
                "cache_write_1h",
                "input_audio",
                "cached_audio",
            ),
            1,
        ),
        **dict.fromkeys(("input_image", "cached_image", "input_video"), 1),
        **dict.fromkeys(("output", "reasoning", "citation"), 2),
        "calls": 0,
    }


def test_models_that_write_only_audio_or_images() -> None:
    """The output price of a speech or image model is the price of its audio or images."""
    assert (sold("gpt-4o-mini-tts") or {})["output_audio"] == "12"
    assert (sold("gemini-2.5-flash-preview-tts") or {})["output_audio"] == "10"
    assert (sold("gpt-image-1") or {})["output_image"] == "40"


def test_an_hour_in_a_cache_is_not_priced_as_minutes(publish: Any) -> None:
    """If cache writes have a price, a write for an hour needs its own, and so does cached audio."""
    publish(
        ModelPrice(
            input_mtok=Decimal(1), cache_write_mtok=Decimal("1.25"), cache_read_mtok=Decimal("0.1"),
            input_audio_mtok=Decimal(9),
        )
    )  # fmt: skip
    [price] = default_prices.default_prices("made-up")
    assert not {"cache_write_1h", "cached_audio", "output"} & price.amounts.keys()
    assert price.amounts["cached_image"] == Decimal("0.1")


def test_tiers_of_service() -> None:
    """Batch, flex, priority and fast have their own prices from the day on which they are known."""
    assert sold("gpt-5", "flex") == {
        "input": "0.625", "cached_input": "0.0625", "output": "5", "web_searches": "10",
        "file_searches": "2.5",
    }  # fmt: skip
    assert (sold("gpt-4o", "batch") or {})["input"] == "1.25"
    assert (sold("gpt-4o", "priority") or {})["output"] == "17"
    assert (sold("claude-opus-4-8", "fast") or {})["output"] == "50"
    assert sold("gpt-4o", "batch", day=date(2026, 10, 13)) is None
    assert sold("gpt-4o", "flex") is None
    assert sold("gpt-4o", "us") is None


def test_long_inputs() -> None:
    """Above a threshold all tokens have the higher price; each service tier has its own."""
    prices = [
        (sold("gpt-5.4", tokens=tokens) or {})["input"]
        for tokens in (1, 272_000, 272_001, 10_000_000)
    ]
    assert prices == ["2.5", "2.5", "5", "5"]
    assert (sold("gpt-5.4", "batch", 300_000) or {})["output"] == "11.25"
    # Since a day in March the length makes no difference.
    assert (sold("claude-opus-4-6", tokens=300_000, day=date(2026, 3, 12)) or {})["input"] == "10"
    assert (sold("claude-opus-4-6", tokens=300_000, day=date(2026, 3, 13)) or {})["input"] == "5"


def test_the_thresholds_of_the_package_are_known() -> None:
    """The rollups know every input length at which a published price changes."""
    found = {
        step
        for provider in get_snapshot().providers
        for model in provider.models
        for step in default_prices._thresholds(model)
    }
    assert found <= set(CONTEXT_TIERS)


@pytest.mark.parametrize(
    ("start", "missing"),
    [(150_000, (128_000, 199_999)), (1_000, (0, 32_000)), (600_000, (524_288, None))],
)
def test_an_unknown_threshold(publish: Any, start: int, missing: tuple[int, int | None]) -> None:
    """A price that changes at a threshold unknown to the rollups is missing around it.

    All other prices stay.
    """
    publish(
        ModelPrice(
            input_mtok=TieredPrices(Decimal(1), [Tier(start, Decimal(2))]), output_mtok=Decimal(5),
            cache_read_mtok=Decimal("0.5"),
        )
    )  # fmt: skip
    found = {
        (one.above_input_tokens, one.up_to_input_tokens): one
        for one in default_prices.default_prices("made-up")
    }
    between = found.pop(missing)
    assert own(between.amounts) == {"cached_input": Decimal("0.5"), "output": Decimal(5)}
    for (above, _), price in found.items():
        assert price.amounts["input"] == (2 if above > start else 1)


def test_free_models() -> None:
    """A model called free costs nothing; another entry without a price is unknown."""
    for model in (
        "deepseek/deepseek-r1:free",
        "openrouter/deepseek/deepseek-r1:free",
        "somebody/something:free",
    ):
        [price] = default_prices.default_prices(model)
        assert price.provider == "openrouter"
        assert price.amounts == dict.fromkeys(PARTS, 0)
    for model in ("qwen-3-coder-480b", "google/lyria-3-pro-preview"):
        assert default_prices.default_prices(model) == ()
        assert why_none(model) == "genai-prices lists it without a price"


def test_a_model_sold_by_an_uncounted_unit() -> None:
    """A model sold by a unit that is not counted has no price, and the unit is named."""
    assert default_prices.default_prices("tts-1") == ()
    assert why_none("tts-1") == "openai sells it by input_mchars, which is not counted"
    assert default_prices.default_prices("grok-voice-latest") == ()
    assert "input_text_messages_kcount" in why_none("grok-voice-latest")


def test_every_unit_of_the_package_is_decided() -> None:
    """Each price key in the data is a known kind or known to be none.

    A new key makes its models unpriced, and fails here.
    """
    keys = {
        key
        for provider in get_snapshot().providers
        for model in provider.models
        for price in default_prices._prices(model)
        for key in default_prices._keys(price)
    }
    not_counted = {"input_mchars", "input_text_messages_kcount", "input_annotated_document_kpages"}
    assert keys - default_prices._PARTS.keys() == not_counted
    assert set(default_prices._PARTS.values()) <= set(PARTS)
    assert default_prices._PARTS.keys() <= _get_registry()._all_price_keys


def test_every_published_price_is_what_the_package_computes() -> None:
    """A call of text costs what the package computes, for all models of five providers."""
    compared = 0
    for provider in get_snapshot().providers:
        if provider.id not in ("openai", "anthropic", "google", "mistral", "x-ai"):
            continue
        for model in provider.models:
            for one in default_prices._of_tier(
                model_names.CatalogEntry(provider, model), model.id, STANDARD
            ):
                past = one.valid_until is not None and one.valid_until <= TODAY
                if past or one.valid_from > TODAY or "output" not in one.amounts or one.added:
                    continue
                tokens = one.above_input_tokens + 1_000
                usage = Usage(input_tokens=tokens, output_tokens=700, cache_read_tokens=300)
                expected = model.calc_price(
                    usage,
                    provider,
                    genai_request_timestamp=datetime.combine(TODAY, time(12), tzinfo=UTC),
                ).total_price
                cost = (
                    (tokens - 300) * one.amounts["input"]
                    + 300 * one.amounts["cached_input"]
                    + 700 * one.amounts["output"]
                ) / 1_000_000 + one.amounts["calls"] / 1_000
                assert cost == expected, (provider.id, model.id)
                compared += 1
    assert compared > 200


def test_a_future_change_has_its_day(publish: Any) -> None:
    """A price that begins on a day holds from that day on, and the earlier price before it."""
    later = ConditionalPrice(
        StartDateConstraint(date(2030, 1, 1)), prices=ModelPrice(input_mtok=Decimal(2))
    )
    publish([ConditionalPrice(prices=ModelPrice(input_mtok=Decimal(1))), later])
    first, second = default_prices.default_prices("made-up")
    assert (first.amounts["input"], second.amounts["input"]) == (Decimal(1), Decimal(2))
    assert (first.valid_from, first.valid_until) == (date.min, date(2030, 1, 1))
    assert (second.valid_from, second.valid_until) == (date(2030, 1, 1), None)


def test_old_data_is_reported_as_old() -> None:
    """The newest price that is not in the future dates the data; a year later they are old."""
    now, later = (
        price_publication.publication(TODAY),
        price_publication.publication(date(2027, 11, 28)),
    )
    assert (now.is_old, later.is_old) == (False, True)
    assert now.newest_price is not None
    assert now.newest_price <= TODAY
    assert "old" in later.text
    assert "old" not in now.text
    assert now.source == f"genai-prices {price_publication.version()}"


def test_the_age_is_read_off_the_data() -> None:
    """The days read without importing the package are those of its prices."""
    starts = {
        one.start_date
        for provider in get_snapshot().providers
        for model in provider.models
        for one in default_prices._starts(model)
    }
    assert set(price_publication._days()) == starts


def test_parts_that_follow_from_others() -> None:
    """Derived prices and given prices follow from each other, and no price is invented."""
    given = {"input": Decimal(3), "output": Decimal(15), "cache_write": Decimal("3.75")}
    whole = complete(given)
    assert own(whole) == given
    assert "cache_write_1h" not in whole
    assert "output_audio" not in whole
    assert complete({}) == {"calls": 0}
    assert complete({"calls": Decimal(5)}) == {"calls": 5}
    assert {kind.price for kind in KINDS} | {"calls"} == set(PARTS)


def test_a_default_is_a_price_of_one_provider() -> None:
    """All prices of a model come from one provider and do not overlap."""
    for provider in get_snapshot().providers[:12]:
        for model in provider.models:
            seen: set[tuple[str, int, date]] = set()
            found: tuple[DefaultPrice, ...] = default_prices.default_prices(model.id)
            assert len({one.provider for one in found}) <= 1
            for one in found:
                key = (one.service_tier, one.above_input_tokens, one.valid_from)
                assert key not in seen
                seen.add(key)

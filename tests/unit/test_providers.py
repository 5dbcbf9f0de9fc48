"""The responses of simulated models, and what they are meant to mean."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
import pytest
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from msgspec.structs import replace

from etl.simulator.history import History
from etl.simulator.model_calls import Expected
from etl.simulator.providers import MODELS
from etl.transform.decode import decode_steps
from etl.transform.states import StateMap
from etl.usage import BITS, NO_USAGE, charged

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)

# The quantities' names in genai-prices, whose extractors read the same formats independently.
WITNESSED = {
    "input_tokens": "input_tokens",
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "input_image_tokens": "input_image_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "output_audio_tokens": "output_audio_tokens",
}


def a_history(**options: Any) -> History:
    """Return a history in which nothing moves."""
    return History(runs_per_workflow=700, live=0, arrivals_per_minute=0, epoch=EPOCH, **options)


@cache
def answers() -> dict[str, list[tuple[dict[str, Any], Expected]]]:
    """Return each requested model's responses without failures, with their meanings."""
    history = a_history(failure_rate=0)
    found = defaultdict(list)
    for workflow_id in history.workflow_ids:
        for run_id in history.run_ids(workflow_id):
            expected = history.expected(run_id)
            for step in history.steps(run_id):
                if step["node_id"] == "check_supplier":
                    found["sonar"].append(
                        (step["outputs"]["result"]["data"], expected.pop(step["id"]))
                    )
                elif "model" in step["inputs"]:
                    found[step["inputs"]["model"]].append(
                        (step["outputs"], expected.pop(step["id"]))
                    )
            assert expected == {}
    return found


def test_every_model_responds() -> None:
    """Each text model responds, an embedding is made, and an integration calls a model."""
    assert answers().keys() == {*MODELS, "text-embedding-3-small", "sonar"}


@pytest.mark.parametrize(
    ("model", "provider", "flavor"),
    [
        ("gpt-4o", "openai", "chat"),
        ("o3-mini", "openai", "chat"),
        ("gpt-5-mini", "openai", "responses"),
        ("text-embedding-3-small", "openai", "embeddings"),
        ("claude-sonnet-4-5", "anthropic", "default"),
        ("gemini-2.5-flash", "google", "default"),
        ("gemini-2.5-pro", "google", "default"),
        ("amazon.nova-lite-v1:0", "aws", "default"),
        ("openai/gpt-4o", "openrouter", "chat"),
        ("sonar", "perplexity", "default"),
    ],
)
def test_genai_prices_reads_the_responses_as_meant(model: str, provider: str, flavor: str) -> None:
    """The extractors of genai-prices find in each response what it is meant to mean.

    They do not know the simulator.
    """
    reader = find_provider_by_id(get_snapshot().providers, provider)
    assert reader is not None
    for outputs, expected in answers()[model]:
        name, read = reader.extract_usage(outputs, api_flavor=flavor)
        assert name == expected.model
        for ours, theirs in WITNESSED.items():
            assert (getattr(expected.usage, ours) or 0) == (getattr(read, theirs, None) or 0), (
                ours,
                outputs,
            )


def test_the_reader_finds_the_meaning() -> None:
    """Each step is read as meant, with quantities, tier, cost, model and finish reason."""
    history = a_history()
    for workflow_id in history.workflow_ids:
        for run_id in history.run_ids(workflow_id, 300):
            steps, expected = history.steps(run_id), history.expected(run_id)
            found = decode_steps(
                msgspec.json.encode(steps),
                workflow_id=workflow_id,
                run_id=run_id,
                states=StateMap(),
                node_types={},
            )
            assert found.drift == ()
            for step, shown in zip(found.steps, steps, strict=True):
                meant = expected.get(step.id, Expected(NO_USAGE))
                assert replace(step.usage, usage_kinds=0) == meant.usage, shown["outputs"]
                assert step.usage.usage_kinds == sum(BITS[name] for name in charged(meant.usage))
                assert (step.response_model, step.finish_reason) == (
                    meant.model,
                    meant.finish_reason,
                ), shown["outputs"]
                if step.id in expected:
                    assert step.node_type == (
                        "integration" if "app_name" in shown["inputs"] else "model"
                    )


def test_optional_parts_of_responses() -> None:
    """Web searches, service tiers, costs and finish reasons are read from the response."""
    for outputs, expected in answers()["gpt-5-mini"]:
        searches = [item for item in outputs["output"] if item["type"] == "web_search_call"]
        assert (expected.usage.web_searches or 0) == len(searches)
        assert expected.cut_off == (outputs["status"] == "incomplete")
    for outputs, expected in answers()["claude-sonnet-4-5"]:
        assert (
            expected.usage.web_searches
            == outputs["usage"]["server_tool_use"]["web_search_requests"]
        )
        assert expected.cut_off == (
            outputs["stop_reason"] == expected.finish_reason == "max_tokens"
        )
    for outputs, expected in answers()["openai/gpt-4o"]:
        usage = outputs["usage"]
        upstream = usage["cost_details"]["upstream_inference_cost"] if usage["is_byok"] else 0
        assert expected.usage.reported_cost == Decimal(str(usage["cost"])) + Decimal(str(upstream))
    for outputs, expected in answers()["sonar"]:
        assert expected.usage.reported_cost == Decimal(str(outputs["usage"]["cost"]["total_cost"]))


def test_every_kind_and_tier_occurs() -> None:
    """The history has each kind of usage that is charged separately.

    It also has service tiers, long inputs and truncated responses.
    """
    expected = [one for found in answers().values() for _, one in found]
    kinds = {name for one in expected for name in charged(one.usage)}
    assert kinds == {
        "input_tokens", "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens",
        "input_audio_tokens",
        "input_image_tokens", "output_tokens", "reasoning_tokens", "web_searches",
    }  # fmt: skip
    assert {one.usage.service_tier for one in expected} == {None, "standard", "batch", "flex"}
    assert {one.finish_reason for one in expected if one.cut_off} == {
        "length", "max_output_tokens", "max_tokens", "MAX_TOKENS",
    }  # fmt: skip
    assert any(one.usage.reported_cost for one in expected)
    long = [one for one in expected if (one.usage.input_tokens or 0) > 200_000]
    assert {one.model for one in long} == {"claude-sonnet-4-5-20250929", "gemini-2.5-pro"}
    assert len(long) < len(expected) / 50


def test_parts_add_up() -> None:
    """No part is larger than its whole, and the total is the sum of input and output."""
    for found in answers().values():
        for _, expected in found:
            usage = expected.usage
            assert all(quantity > 0 for quantity in charged(usage).values())
            assert usage.total_tokens == (usage.input_tokens or 0) + (usage.output_tokens or 0)

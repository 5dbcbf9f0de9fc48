"""The published price of a model by its name, as providers, gateways and clouds write it."""

from __future__ import annotations

import pytest

from etl.analytics.default_prices import default_prices
from etl.analytics.model_names import find


@pytest.mark.parametrize(
    ("name", "provider", "entry"),
    [
        # As the provider writes it, dated or not.
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("GPT-4o-Mini", "openai", "gpt-4o-mini"),
        (" gpt-4o-mini ", "openai", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "openai", "gpt-4o-mini"),
        ("gpt-4o-mini-2031-01-31", "openai", "gpt-4o-mini"),
        ("gpt-4o-2024-05-13", "openai", "gpt-4o-2024-05-13"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("text-embedding-3-small", "openai", "text-embedding-3-small"),
        ("text-embedding-3-large", "openai", "text-embedding-3-large"),
        ("davinci-002", "openai", "davinci-002"),
        ("claude-sonnet-4-5-20250929", "anthropic", "claude-sonnet-4-5"),
        ("claude-3-7-sonnet", "anthropic", "claude-3-7-sonnet-latest"),
        ("codestral-2501", "mistral", "codestral"),
        ("sonar-pro", "perplexity", "sonar-pro"),
        ("llama-3.3-70b-versatile", "groq", "llama-3.3-70b-versatile"),
        ("trinity-large-thinking", "arcee", "trinity-large-thinking"),
        # Google's paths, and Vertex AI's dates.
        ("models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("publishers/google/models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        (
            "projects/p/locations/eu/publishers/anthropic/models/claude-sonnet-4-5@20250929",
            "google",
            "claude-sonnet-4-5",
        ),
        ("claude-sonnet-4-5@20250929", "google", "claude-sonnet-4-5"),
        ("vertex_ai/claude-sonnet-4-5@20250929", "google", "claude-sonnet-4-5"),
        ("vertex_ai/gemini-1.5-pro", "google", "gemini-1.5-pro"),
        ("gemini/gemini-2.0-flash", "google", "gemini-2.0-flash"),
        # Bedrock, where regions differ in price.
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws",
            "regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "aws",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        (
            "anthropic.claude-3-5-sonnet-20241022-v2:0",
            "aws",
            "regional.anthropic.claude-3-5-sonnet-20241022-v2:0",
        ),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
            "aws",
            "regional.anthropic.claude-sonnet-4-20250514-v1:0",
        ),
        (
            "bedrock/us-east-1/anthropic.claude-3-haiku-20240307-v1:0",
            "aws",
            "regional.anthropic.claude-3-haiku-20240307-v1:0",
        ),
        ("bedrock/converse/us.amazon.nova-pro-v1:0", "aws", "amazon.nova-pro-v1:0"),
        ("openai.gpt-oss-120b", "aws", "openai.gpt-oss-120b-1:0"),
        # Gateways.
        ("azure/gpt-4o", "azure", "gpt-4o"),
        ("groq/llama-3.3-70b-versatile", "groq", "llama-3.3-70b-versatile"),
        ("openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("openrouter/deepseek/deepseek-r1:free", "openrouter", "deepseek/deepseek-r1:free"),
        # LiteLLM's maker/model, or the maker's own entry at the same price; otherwise OpenRouter's
        # entry of this very name.
        ("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("anthropic/claude-sonnet-4.5", "anthropic", "claude-sonnet-4-5"),
        ("x-ai/grok-4", "x-ai", "grok-4-0709"),
        ("deepseek/deepseek-r1:free", "openrouter", "deepseek/deepseek-r1:free"),
        ("mistralai/pixtral-12b", "openrouter", "mistralai/pixtral-12b"),
        ("deepseek/deepseek-chat", "deepseek", "deepseek-chat"),
        ("perplexity/sonar", "perplexity", "sonar"),
        ("xai/grok-4", "x-ai", "grok-4-0709"),
        ("openai/gpt-oss-120b", "openrouter", "openai/gpt-oss-120b"),
        ("anthropic/claude-4.6-sonnet-20260217", "openrouter", "anthropic/claude-sonnet-4.6"),
        ("anthropic/claude-3.7-sonnet:thinking", "openrouter", "anthropic/claude-3.7-sonnet"),
        ("openai/text-embedding-3-large", "openai", "text-embedding-3-large"),
        # In a spelling of its own.
        (
            "meta-llama/Llama-4-Scout-17B-16E-Instruct",
            "together",
            "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        ),
        ("@cf/meta/llama-3.1-8b-instruct", "cloudflare", "@cf/meta/llama-3.1-8b-instruct"),
        # Fine-tuned models have their own prices.
        ("ft:gpt-4o-mini-2024-07-18:org::id", "openai", "ft:gpt-4o-mini"),
        ("openai/ft:gpt-4o-mini-2024-07-18:org::id", "openai", "ft:gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18.ft-1234", "openai", "gpt-4o-mini-2024-07-18.ft-"),
    ],
)
def test_names(name: str, provider: str, entry: str) -> None:
    """A name stands for the paid provider's entry; exact names precede prefixes and patterns."""
    found = find(name)
    assert found is not None
    assert (found.provider.id, found.model.id) == (provider, entry)


@pytest.mark.parametrize(
    "name",
    [
        "", "x", "nobody-knows-this", "a/b", "/", "gpt-4o/", "somewhere/gpt-4o",
        "azure/my-deployment", "ollama/llama3.1",
        "ollama/gpt-4o", "llama3.2:latest", "qwen3:0.6b", "hosted_vllm/meta-llama/Llama-3.1-8B",
        "openai/gpt-4o:online", "ft:gpt-4.1-2025-04-14:org::id", "ft:gpt-4o:org::id",
        "ft:claude-3-opus:x",
        # These are derived from the model whose pattern they match, and sold by several providers
        # at different prices.
        "deepseek-r1-distill-llama-70b", "gpt-oss-120b",
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "gpt-4o-mini-20240718-own",
    ],
)  # fmt: skip
def test_names_without_a_price(name: str) -> None:
    """A name without a known seller, or with several sellers at different prices, has no price."""
    assert find(name) is None
    assert default_prices(name) == ()


@pytest.mark.parametrize(
    "name",
    [
        "/" * 500,
        "a/" * 250,
        ":" * 500,
        "ft:" * 160,
        "us." * 160 + "amazon.x",
        "-2024" * 100,
        "@" * 500,
    ],
)
def test_hostile_names(name: str) -> None:
    """Hostile names of the greatest length are looked up at once."""
    assert find(name) is None

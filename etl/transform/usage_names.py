"""The names under which providers report usage, each with the public page that documents it.

The reader, the documentation and the tests all use this table. A path starts at the response body.
`[x=Y]` selects the elements of an array whose member `x` is Y; the quantities of several selected
elements are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from etl.transform.provider_pages import (
    AI_SDK,
    ANTHROPIC,
    COHERE,
    CONVERSE,
    DEEPSEEK,
    GATEWAY,
    GEMINI,
    INVOKE,
    LANGCHAIN,
    LITELLM,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENROUTER,
    PERPLEXITY,
    VERTEX,
    XAI,
)


class Name(NamedTuple):
    """A path in a response body, and the quantity at that path."""

    path: str
    quantity: str | None
    """One of `usage_quantities.ALL`.

    None if nothing is charged for it, or another name includes it.
    """
    source: str
    """The public page that documents the name."""


def _of(source: str, quantity: str | None, *paths: str) -> Iterator[Name]:
    return (Name(path, quantity, source) for path in paths)


def _modalities(array: str, count: str, prefix: str, source: str) -> Iterator[Name]:
    # A page of a document is charged as an image:
    # https://ai.google.dev/gemini-api/docs/document-processing
    for modality, kind in (
        ("AUDIO", "audio"),
        ("IMAGE", "image"),
        ("DOCUMENT", "image"),
        ("VIDEO", "video"),
        ("TEXT", None),
    ):
        yield Name(
            f"{array}[modality={modality}].{count}",
            None if kind is None else f"{prefix}_{kind}",
            source,
        )


def _gemini() -> Iterator[Name]:
    body = "usageMetadata"
    yield from _of(GEMINI, "prompt", f"{body}.promptTokenCount")
    yield from _of(GEMINI, "output", f"{body}.candidatesTokenCount", f"{body}.responseTokenCount")
    yield from _of(GEMINI, "tool_input", f"{body}.toolUsePromptTokenCount")
    yield from _of(GEMINI, "reasoning_beside", f"{body}.thoughtsTokenCount")
    yield from _of(GEMINI, "cached", f"{body}.cachedContentTokenCount")
    yield from _of(GEMINI, "total", f"{body}.totalTokenCount")
    yield from _of(GEMINI, "tier", f"{body}.serviceTier")
    yield from _of(VERTEX, "traffic", f"{body}.trafficType")
    for array, prefix in (
        ("promptTokensDetails", "input"),
        ("promptTokenDetails", "input"),
        ("toolUsePromptTokensDetails", "tool"),
        ("cacheTokensDetails", "cached"),
        ("candidatesTokensDetails", "output"),
        ("responseTokensDetails", "output"),
    ):
        yield from _modalities(f"{body}.{array}", "tokenCount", prefix, GEMINI)


def _gemini_of_python() -> Iterator[Name]:
    source = (
        "https://googleapis.github.io/python-genai/genai.html"
        "#genai.types.GenerateContentResponseUsageMetadata"
    )
    body = "usage_metadata"
    yield from _of(source, "prompt", f"{body}.prompt_token_count")
    yield from _of(
        source, "output", f"{body}.candidates_token_count", f"{body}.response_token_count"
    )
    yield from _of(source, "tool_input", f"{body}.tool_use_prompt_token_count")
    yield from _of(source, "reasoning_beside", f"{body}.thoughts_token_count")
    yield from _of(source, "cached", f"{body}.cached_content_token_count")
    yield from _of(source, "total", f"{body}.total_token_count")
    yield from _of(source, "tier", f"{body}.service_tier")
    yield from _of(source, "traffic", f"{body}.traffic_type")
    for array, prefix in (
        ("prompt_tokens_details", "input"),
        ("tool_use_prompt_tokens_details", "tool"),
        ("cache_tokens_details", "cached"),
        ("candidates_tokens_details", "output"),
        ("response_tokens_details", "output"),
    ):
        yield from _modalities(f"{body}.{array}", "token_count", prefix, source)
    # LangChain's record has the same name. Its input and output include their parts.
    yield from _of(LANGCHAIN, "prompt", f"{body}.input_tokens")
    yield from _of(LANGCHAIN, "output", f"{body}.output_tokens")
    yield from _of(LANGCHAIN, "total", f"{body}.total_tokens")
    yield from _of(LANGCHAIN, "cached", f"{body}.input_token_details.cache_read")
    yield from _of(LANGCHAIN, "written", f"{body}.input_token_details.cache_creation")
    yield from _of(LANGCHAIN, "input_audio", f"{body}.input_token_details.audio")
    yield from _of(LANGCHAIN, "output_audio", f"{body}.output_token_details.audio")
    yield from _of(LANGCHAIN, "reasoning", f"{body}.output_token_details.reasoning")


def _openai() -> Iterator[Name]:
    chat, responses = f"{OPENAI}/chat/object", f"{OPENAI}/responses/object"
    yield from _of(chat, "prompt", "usage.prompt_tokens")
    yield from _of(chat, "output", "usage.completion_tokens")
    yield from _of(chat, "total", "usage.total_tokens")
    yield from _of(chat, "tier", "service_tier")
    yield from _of(responses, "input", "usage.input_tokens")
    yield from _of(responses, "output", "usage.output_tokens")
    realtime = f"{OPENAI}/realtime-server-events/response/done"
    for details, source in (
        ("prompt_tokens_details", chat),
        ("input_tokens_details", responses),
        ("input_token_details", realtime),
    ):
        yield from _of(source, "cached", f"usage.{details}.cached_tokens")
        yield from _of(source, "written", f"usage.{details}.cache_write_tokens")
        yield from _of(source, "input_audio", f"usage.{details}.audio_tokens")
        yield from _of(source, "input_image", f"usage.{details}.image_tokens")
        yield from _of(source, None, f"usage.{details}.text_tokens")
        yield from _of(
            source, "cached_audio", f"usage.{details}.cached_tokens_details.audio_tokens"
        )
        yield from _of(
            source, "cached_image", f"usage.{details}.cached_tokens_details.image_tokens"
        )
        yield from _of(source, None, f"usage.{details}.cached_tokens_details.text_tokens")
    for details, source in (
        ("completion_tokens_details", chat),
        ("output_tokens_details", responses),
        ("output_token_details", realtime),
    ):
        yield from _of(source, "reasoning", f"usage.{details}.reasoning_tokens")
        yield from _of(source, "output_audio", f"usage.{details}.audio_tokens")
        yield from _of(source, "output_image", f"usage.{details}.image_tokens")
        yield from _of(source, None, f"usage.{details}.text_tokens")
        yield from _of(source, None, f"usage.{details}.accepted_prediction_tokens")
        yield from _of(source, None, f"usage.{details}.rejected_prediction_tokens")
    yield from _of(f"{OPENAI}/audio/json-object", "audio_seconds", "usage.seconds")


def _anthropic() -> Iterator[Name]:
    yield from _of(ANTHROPIC, "cached_beside", "usage.cache_read_input_tokens")
    yield from _of(ANTHROPIC, "written_beside", "usage.cache_creation_input_tokens")
    yield from _of(ANTHROPIC, "written_5m", "usage.cache_creation.ephemeral_5m_input_tokens")
    yield from _of(ANTHROPIC, "written_1h", "usage.cache_creation.ephemeral_1h_input_tokens")
    yield from _of(ANTHROPIC, "reasoning", "usage.output_tokens_details.thinking_tokens")
    yield from _of(ANTHROPIC, "web_searches", "usage.server_tool_use.web_search_requests")
    yield from _of(ANTHROPIC, None, "usage.server_tool_use.web_fetch_requests")
    yield from _of("https://docs.claude.com/en/api/service-tiers", "tier", "usage.service_tier")
    yield from _of(
        "https://docs.claude.com/en/build-with-claude/data-residency", "geo", "usage.inference_geo"
    )
    yield from _of("https://docs.claude.com/en/build-with-claude/fast-mode", "speed", "usage.speed")
    # The totals include the iterations of type `message`. The totals do not include the two types
    # below, which are charged as well.
    yield from _of(ANTHROPIC, None, "usage.iterations[type=message]")
    for type_, source in (
        ("compaction", "https://docs.claude.com/en/build-with-claude/compaction"),
        ("advisor_message", "https://docs.claude.com/en/agents-and-tools/tool-use/advisor-tool"),
    ):
        for name in (
            "input_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "output_tokens",
        ):
            yield from _of(source, "other", f"usage.iterations[type={type_}].{name}")
        for age in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"):
            yield from _of(source, None, f"usage.iterations[type={type_}].cache_creation.{age}")


def _bedrock() -> Iterator[Name]:
    yield from _of(CONVERSE, "input", "usage.inputTokens")
    yield from _of(CONVERSE, "output", "usage.outputTokens")
    yield from _of(CONVERSE, "total", "usage.totalTokens")
    yield from _of(
        CONVERSE, "cached_beside", "usage.cacheReadInputTokens", "usage.cacheReadInputTokenCount"
    )
    yield from _of(
        CONVERSE, "written_beside", "usage.cacheWriteInputTokens", "usage.cacheWriteInputTokenCount"
    )
    cache = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CacheDetail.html"
    yield from _of(cache, "written_5m", "usage.cacheDetails[ttl=5m].inputTokens")
    yield from _of(cache, "written_1h", "usage.cacheDetails[ttl=1h].inputTokens")
    tier = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ServiceTier.html"
    yield from _of(tier, "tier", "serviceTier.type")
    titan = f"{INVOKE}/model-parameters-titan-text.html"
    yield from _of(titan, "prompt", "inputTextTokenCount")
    yield from _of(titan, "output", "results[].tokenCount", "totalOutputTextTokenCount")
    llama = f"{INVOKE}/model-parameters-meta.html"
    yield from _of(llama, "prompt", "prompt_token_count")
    yield from _of(llama, "output", "generation_token_count")
    stream, metrics = f"{INVOKE}/inference-invoke.html", "amazon-bedrock-invocationMetrics"
    yield from _of(stream, "input", f"{metrics}.inputTokenCount")
    yield from _of(stream, "output", f"{metrics}.outputTokenCount")
    yield from _of(stream, "cached_beside", f"{metrics}.cacheReadInputTokenCount")
    yield from _of(stream, "written_beside", f"{metrics}.cacheWriteInputTokenCount")
    headers = "ResponseMetadata.HTTPHeaders"
    yield from _of(stream, "input", f"{headers}.x-amzn-bedrock-input-token-count")
    yield from _of(stream, "output", f"{headers}.x-amzn-bedrock-output-token-count")
    yield from _of(
        stream, "cached_beside", f"{headers}.x-amzn-bedrock-cache-read-input-token-count"
    )
    yield from _of(
        stream, "written_beside", f"{headers}.x-amzn-bedrock-cache-write-input-token-count"
    )


def _cohere() -> Iterator[Name]:
    for body, source in ("usage", COHERE), ("meta", "https://docs.cohere.com/v1/reference/chat"):
        yield from _of(source, "billed_input", f"{body}.billed_units.input_tokens")
        yield from _of(source, "billed_output", f"{body}.billed_units.output_tokens")
        yield from _of(source, "billed_image", f"{body}.billed_units.image_tokens")
        yield from _of(source, "search_units", f"{body}.billed_units.search_units")
        yield from _of(source, "prompt", f"{body}.tokens.input_tokens")
        yield from _of(source, "output", f"{body}.tokens.output_tokens")
        # Moonshot and Together also use this name: https://platform.moonshot.ai/docs/api/chat
        yield from _of(source, "cached", f"{body}.cached_tokens")


def _others() -> Iterator[Name]:
    yield from _of(MISTRAL, "cached", "usage.num_cached_tokens")
    yield from _of(MISTRAL, "audio_seconds", "usage.prompt_audio_seconds")
    yield from _of(MISTRAL, "document_pages", "usage_info.pages_processed")
    conversations = f"{MISTRAL}/endpoint/beta/conversations"
    yield from _of(conversations, "other", "usage.connector_tokens")
    yield from _of(conversations, "web_searches", "usage.connectors.web_search")
    for tool in ("web_search_premium", "code_interpreter", "image_generation", "document_library"):
        yield from _of(conversations, "tool_uses", f"usage.connectors.{tool}")

    yield from _of(DEEPSEEK, "cached", "usage.prompt_cache_hit_tokens")
    yield from _of(DEEPSEEK, "uncached", "usage.prompt_cache_miss_tokens")

    yield from _of(XAI, "cached", "usage.cached_prompt_text_tokens")
    yield from _of(XAI, "input_image", "usage.prompt_image_tokens")
    yield from _of(XAI, None, "usage.prompt_text_tokens")
    # Each source of a live search is charged.
    yield from _of("https://docs.x.ai/docs/guides/live-search", "sources", "usage.num_sources_used")
    yield from _of(XAI, "tools", "usage.num_server_side_tools_used")
    yield from _of(f"{XAI}#chat-completions", "cost_ticks", "usage.cost_in_usd_ticks")
    guide, tools = "https://docs.x.ai/docs/guides/tools/overview", "server_side_tool_usage_details"
    yield from _of(guide, "web_searches", f"usage.{tools}.web_search_calls")
    for tool in (
        "x_search_calls",
        "code_interpreter_calls",
        "view_image_calls",
        "view_x_video_calls",
    ):
        yield from _of(guide, "tool_uses", f"usage.{tools}.{tool}")
    for tool in ("file_search_calls", "document_search_calls", "collections_search_calls"):
        yield from _of(guide, "file_searches", f"usage.{tools}.{tool}")
    yield from _of(
        "https://docs.x.ai/docs/guides/voice", "audio_seconds", "usage.billable_audio_seconds"
    )

    yield from _of(OPENROUTER, "cost", "usage.cost")
    yield from _of(OPENROUTER, "own_key", "usage.is_byok")
    yield from _of(OPENROUTER, "upstream_cost", "usage.cost_details.upstream_inference_cost")
    yield from _of(OPENROUTER, "input_video", "usage.prompt_tokens_details.video_tokens")
    yield from _of(
        OPENROUTER, "executed_tools", "usage.server_tool_use_details.tool_calls_executed"
    )
    yield from _of(OPENROUTER, None, "usage.server_tool_use_details.tool_calls_requested")

    yield from _of(PERPLEXITY, "reasoning", "usage.reasoning_tokens")
    yield from _of(PERPLEXITY, "citation", "usage.citation_tokens")
    yield from _of(PERPLEXITY, "web_searches", "usage.num_search_queries")
    yield from _of(PERPLEXITY, "web_searches", "usage.tool_calls_details.search_web.invocation")
    yield from _of(PERPLEXITY, "cost", "usage.cost.total_cost")
    agents = "https://docs.perplexity.ai/api-reference/responses-post"
    yield from _of(agents, "cached", "usage.input_tokens_details.cache_read_input_tokens")
    yield from _of(agents, "written", "usage.input_tokens_details.cache_creation_input_tokens")

    yield from _of(OLLAMA, "prompt", "prompt_eval_count")
    yield from _of(OLLAMA, "output", "eval_count")

    yield from _of(LITELLM, "written", "usage.prompt_tokens_details.cache_creation_tokens")
    ages = "usage.prompt_tokens_details.cache_creation_token_details"
    yield from _of(LITELLM, "written_5m", f"{ages}.ephemeral_5m_input_tokens")
    yield from _of(LITELLM, "written_1h", f"{ages}.ephemeral_1h_input_tokens")
    yield from _of(LITELLM, "web_searches", "usage.prompt_tokens_details.web_search_requests")
    yield from _of(
        "https://docs.litellm.ai/docs/completion/token_usage",
        "cost",
        "_hidden_params.response_cost",
        "response_cost",
    )

    yield from _of(GATEWAY, "gateway_cost", "usage.pydantic_ai_gateway.cost_estimate")
    yield from _of(GATEWAY, "gateway_cost", "usageMetadata.pydantic_ai_gateway.cost_estimate")

    yield from _of(AI_SDK, "cached", "usage.cachedInputTokens")
    yield from _of(AI_SDK, "reasoning", "usage.reasoningTokens")
    cursor = "https://cursor.com/docs/account/teams/admin-api"
    yield from _of(cursor, "input", "tokenUsage.inputTokens")
    yield from _of(cursor, "output", "tokenUsage.outputTokens")
    yield from _of(cursor, "cached_beside", "tokenUsage.cacheReadTokens")
    yield from _of(cursor, "written_beside", "tokenUsage.cacheWriteTokens")


NAMES: tuple[Name, ...] = (
    *_openai(),
    *_anthropic(),
    *_gemini(),
    *_gemini_of_python(),
    *_bedrock(),
    *_cohere(),
    *_others(),
)


FINISH_REASONS: tuple[tuple[str, str], ...] = (
    ("choices[].finish_reason", f"{OPENAI}/chat/object"),
    ("choices[].stop_reason", f"{INVOKE}/model-parameters-mistral-chat-completion.html"),
    ("candidates[].finishReason", GEMINI),
    (
        "candidates[].finish_reason",
        "https://googleapis.github.io/python-genai/genai.html#genai.types.Candidate",
    ),
    ("stop_reason", ANTHROPIC),
    ("delta.stop_reason", "https://docs.claude.com/en/build-with-claude/streaming"),
    (
        "stopReason",
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
    ),
    (
        "messageStop.stopReason",
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html",
    ),
    ("finish_reason", COHERE),
    ("delta.finish_reason", "https://docs.cohere.com/v2/reference/chat-stream"),
    ("generations[].finish_reason", f"{INVOKE}/model-parameters-cohere-command.html"),
    ("results[].completionReason", f"{INVOKE}/model-parameters-titan-text.html"),
    ("outputs[].stop_reason", f"{INVOKE}/model-parameters-mistral-text-completion.html"),
    ("done_reason", OLLAMA),
    ("incomplete_details.reason", f"{OPENAI}/responses/object"),
    ("finishReason", AI_SDK),
    ("status_details.reason", f"{OPENAI}/realtime-server-events/response/done"),
)
"""Paths to the reason why the model stopped; the first that exists counts.

`[]` is the first element of an array.
"""

MODELS = ("model", "modelVersion", "model_version", "modelId")
"""The members of a body that name the responding model."""

REQUEST_MODELS = ("model", "modelId", "model_id", "model_name")
"""The members of a step's inputs that name the requested model."""

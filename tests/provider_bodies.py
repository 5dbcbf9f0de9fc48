"""Providers' responses as their public pages describe them, with the usage that each contains.

The words and numbers are invented. `extractor` names genai-prices' way to read such a body, if it
has one: (provider, flavor).
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NamedTuple


class ProviderBody(NamedTuple):
    """A response body and its meaning."""

    name: str
    source: str
    """The public page that explains its numbers."""
    body: Any
    usage: dict[str, Any]
    """The fields of `Usage` that are not None, without `usage_kinds`."""
    model: str | None = None
    finish_reason: str | None = None
    extractor: tuple[str, str] | None = None
    answer: str | None = "Rain."
    """What the SQL function `answer_text` reads; None if the model wrote no text."""


def _chat(model: str, usage: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Rain."},
        "finish_reason": finish,
    }
    return {
        "id": "c-1",
        "object": "chat.completion",
        "model": model,
        "choices": [choice],
        "usage": usage,
        **more,
    }


def _used(
    input: int | None, output: int | None = None, total: int | None = None, **more: Any
) -> dict[str, Any]:
    quantities = {"input_tokens": input, "output_tokens": output, "total_tokens": total, **more}
    return {name: value for name, value in quantities.items() if value is not None}


_OPENAI = "https://platform.openai.com/docs/api-reference"
_ANTHROPIC = "https://docs.claude.com/en/api/messages"
_GEMINI = "https://ai.google.dev/api/generate-content#UsageMetadata"
_BEDROCK = "https://docs.aws.amazon.com/bedrock/latest/userguide"

_ANTHROPIC_USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 300,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "cache_read_input_tokens": 5_000,
    "output_tokens": 40,
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
    "service_tier": "standard",
}
_ANTHROPIC_USED = _used(
    5_312, 40, 5_352, cached_input_tokens=5_000, cache_write_tokens=300, cache_write_1h_tokens=200,
    web_searches=2,
    service_tier="standard",
)  # fmt: skip
_COMPLETION = _chat("m-1", {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28})

SAMPLES = (
    ProviderBody(
        "OpenAI chat", f"{_OPENAI}/chat/object",
        _chat("gpt-4o", {
            "prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 0,
                                          "accepted_prediction_tokens": 0,
                                          "rejected_prediction_tokens": 0},
        }, "length", service_tier="default"),
        _used(120, 30, 150, cached_input_tokens=64, reasoning_tokens=10, service_tier="standard"),
        "gpt-4o", "length", ("openai", "chat"),
    ),
    ProviderBody(
        "OpenAI chat, audio", f"{_OPENAI}/chat/object",
        _chat("gpt-audio", {
            "prompt_tokens": 100, "completion_tokens": 90, "total_tokens": 190,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 70, "text_tokens": 30},
            "completion_tokens_details": {"audio_tokens": 60, "text_tokens": 30},
        }),
        _used(100, 90, 190, cached_input_tokens=0, input_audio_tokens=70, output_audio_tokens=60),
        "gpt-audio", "stop", ("openai", "chat"),
    ),
    ProviderBody(
        "OpenAI chat, with numbers in other spellings", f"{_OPENAI}/chat/object",
        _chat("gpt-4o", {"prompt_tokens": 120.0, "completion_tokens": "30",
                         "total_tokens": "150.0"}),
        _used(120, 30, 150), "gpt-4o", "stop",
    ),
    ProviderBody(
        "OpenAI responses", f"{_OPENAI}/responses/object",
        {
            "id": "resp_1", "object": "response", "status": "incomplete", "model": "gpt-5",
            "service_tier": "flex",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [
                {"type": "web_search_call", "action": {"type": "search", "query": "rain"}},
                {"type": "web_search_call", "action": {"type": "open_page",
                                                       "url": "https://example.com"}},
                {"type": "file_search_call", "queries": ["rain"]},
                {"type": "code_interpreter_call", "container_id": "cntr_1"},
                {"type": "code_interpreter_call", "container_id": "cntr_1"},
                {"type": "message", "content": [{"type": "output_text", "text": "Rain."}]},
            ],
            "usage": {"input_tokens": 500, "input_tokens_details": {"cached_tokens": 200},
                      "output_tokens": 80,
                      "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 580},
        },
        _used(500, 80, 580, cached_input_tokens=200, reasoning_tokens=64, web_searches=1,
              file_searches=1, tool_uses=1,
              service_tier="flex"),
        "gpt-5", "max_output_tokens", ("openai", "responses"),
    ),
    ProviderBody(
        "OpenAI responses, as events", f"{_OPENAI}/responses-streaming",
        [
            {"type": "response.created", "response": {"id": "resp_1", "object": "response",
                                                      "model": "gpt-5",
                                                      "status": "in_progress", "usage": None}},
            {"type": "response.output_text.delta", "delta": "Rain."},
            {"type": "response.completed", "response": {
                "id": "resp_1", "object": "response", "model": "gpt-5", "status": "completed",
                "usage": {"input_tokens": 50, "output_tokens": 8, "total_tokens": 58}}},
        ],
        _used(50, 8, 58), "gpt-5", "completed",
    ),
    ProviderBody(
        "OpenAI completions", f"{_OPENAI}/completions/object",
        {"object": "text_completion", "model": "gpt-3.5-turbo-instruct",
         "choices": [{"text": "Rain.", "finish_reason": "length"}],
         "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}},
        _used(5, 7, 12), "gpt-3.5-turbo-instruct", "length", ("openai", "chat"),
    ),
    ProviderBody(
        "OpenAI embeddings", f"{_OPENAI}/embeddings/create",
        {"object": "list", "data": [{"object": "embedding", "embedding": [0.1, -0.2], "index": 0}],
         "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        _used(8, None, 8), "text-embedding-3-small", None, ("openai", "embeddings"), answer=None,
    ),
    ProviderBody(
        "OpenAI images", f"{_OPENAI}/images/object",
        {"created": 1, "data": [{"b64_json": "aGk="}],
         "usage": {"input_tokens": 60,
                   "input_tokens_details": {"text_tokens": 10, "image_tokens": 50},
                   "output_tokens": 1_000,
                   "output_tokens_details": {"text_tokens": 40, "image_tokens": 960},
                   "total_tokens": 1_060}},
        _used(60, 1_000, 1_060, input_image_tokens=50, output_image_tokens=960), None, None,
        ("openai", "images"), answer=None,
    ),
    ProviderBody(
        "OpenAI transcription, by tokens", f"{_OPENAI}/audio/json-object",
        {"text": "Rain.", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 4,
                                    "total_tokens": 18,
                                    "input_token_details": {"text_tokens": 2, "audio_tokens": 12}}},
        _used(14, 4, 18, input_audio_tokens=12),
    ),
    ProviderBody(
        "OpenAI transcription, by duration", f"{_OPENAI}/audio/json-object",
        {"text": "Rain.", "usage": {"type": "duration", "seconds": 9.5}},
        {"audio_ms": 9_500},
    ),
    ProviderBody(
        "OpenAI realtime", f"{_OPENAI}/realtime-server-events/response/done",
        {"type": "response.done", "event_id": "event_1", "response": {
            "object": "realtime.response", "id": "resp_1", "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_audio",
                                                        "transcript": "Rain."}]}],
            "usage": {
                "total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
                "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "image_tokens": 0,
                                        "cached_tokens": 64,
                                        "cached_tokens_details": {"text_tokens": 60,
                                                                  "audio_tokens": 4,
                                                                  "image_tokens": 0}},
                "output_token_details": {"text_tokens": 30, "audio_tokens": 91}}}},
        _used(132, 121, 253, cached_input_tokens=64, input_audio_tokens=13, cached_audio_tokens=4,
              output_audio_tokens=91),
        None, "completed", ("openai", "realtime"),
    ),
    ProviderBody(
        "OpenAI batch", "https://platform.openai.com/docs/guides/batch",
        {"id": "batch_req_1", "custom_id": "a",
         "response": {"status_code": 200, "body": _COMPLETION}, "error": None},
        _used(20, 8, 28, service_tier="batch"), "m-1", "stop",
    ),
    ProviderBody(
        "Anthropic messages", _ANTHROPIC,
        {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
         "stop_reason": "max_tokens",
         "content": [{"type": "text", "text": "Rain."}], "usage": _ANTHROPIC_USAGE},
        _ANTHROPIC_USED, "claude-sonnet-4-5", "max_tokens", ("anthropic", "default"),
    ),
    ProviderBody(
        "Anthropic messages, as events", "https://docs.claude.com/en/build-with-claude/streaming",
        [
            {"type": "message_start", "message": {"id": "msg_1", "type": "message",
                                                  "model": "claude-sonnet-4-5",
                                                  "stop_reason": None,
                                                  "usage": {**_ANTHROPIC_USAGE,
                                                            "output_tokens": 1}}},
            {"type": "content_block_delta", "index": 0,
             "delta": {"type": "text_delta", "text": "Rain."}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
             "usage": {"output_tokens": 40}},
            {"type": "message_stop"},
        ],
        _ANTHROPIC_USED, "claude-sonnet-4-5", "end_turn",
    ),
    ProviderBody(
        "Anthropic, processed only in the United States",
        "https://docs.claude.com/en/build-with-claude/data-residency",
        {"type": "message", "model": "claude-opus-4-6", "stop_reason": "end_turn",
         "content": [{"type": "text", "text": "Rain."}],
         "usage": {"input_tokens": 9, "output_tokens": 3, "service_tier": "batch",
                   "inference_geo": "us"}},
        _used(9, 3, 12, service_tier="batch us"), "claude-opus-4-6", "end_turn",
        ("anthropic", "default"),
    ),
    ProviderBody(
        "Anthropic, with the usage of a compaction",
        "https://docs.claude.com/en/build-with-claude/compaction",
        {"type": "message", "model": "claude-opus-4-6", "stop_reason": "end_turn",
         "content": [{"type": "text", "text": "Rain."}],
         "usage": {"input_tokens": 200, "output_tokens": 10, "iterations": [
             {"type": "compaction", "input_tokens": 5_000, "output_tokens": 100},
             {"type": "message", "input_tokens": 200, "output_tokens": 10}]}},
        _used(200, 10, 5_310, other_tokens=5_100), "claude-opus-4-6", "end_turn",
        ("anthropic", "default"),
    ),
    ProviderBody(
        "Gemini", _GEMINI,
        {"candidates": [{"content": {"parts": [{"text": "Rain."}]}, "finishReason": "MAX_TOKENS",
                         "groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
         "modelVersion": "gemini-3-pro-preview", "responseId": "r-1",
         "usageMetadata": {
             "promptTokenCount": 300, "candidatesTokenCount": 40, "thoughtsTokenCount": 90,
             "toolUsePromptTokenCount": 20,
             "cachedContentTokenCount": 100, "totalTokenCount": 450, "trafficType": "ON_DEMAND",
             "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 50},
                                     {"modality": "IMAGE", "tokenCount": 130},
                                     {"modality": "DOCUMENT", "tokenCount": 20},
                                     {"modality": "AUDIO", "tokenCount": 100}],
             "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 60},
                                    {"modality": "TEXT", "tokenCount": 40}],
             "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
             "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 40}]}},
        _used(320, 130, 450, cached_input_tokens=100, input_audio_tokens=100,
              cached_audio_tokens=60, input_image_tokens=150,
              reasoning_tokens=90, web_searches=2, service_tier="standard"),
        "gemini-3-pro-preview", "MAX_TOKENS", ("google", "default"),
    ),
    ProviderBody(
        "Gemini 2, whose searches are charged by the prompt",
        "https://ai.google.dev/gemini-api/docs/google-search",
        {"candidates": [{"content": {"parts": [{"text": "Rain."}]}, "finishReason": "STOP",
                         "groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}}],
         "modelVersion": "gemini-2.5-flash",
         "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3,
                           "totalTokenCount": 12}},
        _used(9, 3, 12, web_searches=1), "gemini-2.5-flash", "STOP", ("google", "default"),
    ),
    ProviderBody(
        "Gemini, video from a cache", _GEMINI,
        {"candidates": [{"content": {"parts": [{"text": "Rain."}]}}],
         "modelVersion": "gemini-2.5-flash", "usageMetadata": {
            "promptTokenCount": 1_000, "candidatesTokenCount": 5, "totalTokenCount": 1_005,
            "cachedContentTokenCount": 800,
            "promptTokensDetails": [{"modality": "VIDEO", "tokenCount": 900},
                                    {"modality": "TEXT", "tokenCount": 100}],
            "cacheTokensDetails": [{"modality": "VIDEO", "tokenCount": 750},
                                   {"modality": "TEXT", "tokenCount": 50}]}},
        # The video tokens that were not read from the cache.
        _used(1_000, 5, 1_005, cached_input_tokens=800, input_video_tokens=150), "gemini-2.5-flash",
    ),
    ProviderBody(
        "Gemini embeddings", "https://ai.google.dev/api/embeddings",
        {"embedding": {"values": [0.1]},
         "usageMetadata": {"promptTokenCount": 7,
                           "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 7}]}},
        _used(7), None, None, ("google", "default"), answer=None,
    ),
    ProviderBody(
        "Gemini, as chunks",
        "https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent",
        [
            {"candidates": [{"content": {"parts": [{"text": "Ra"}]}}],
             "modelVersion": "gemini-2.5-pro", "responseId": "r",
             "usageMetadata": {"promptTokenCount": 11, "totalTokenCount": 15,
                               "thoughtsTokenCount": 4}},
            {"candidates": [{"content": {"parts": [{"text": "in."}]}, "finishReason": "STOP"}],
             "modelVersion": "gemini-2.5-pro", "responseId": "r",
             "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 6,
                               "thoughtsTokenCount": 9,
                               "totalTokenCount": 26}},
        ],
        _used(11, 15, 26, reasoning_tokens=9), "gemini-2.5-pro", "STOP",
    ),
    ProviderBody(
        "Gemini, by Python", "https://googleapis.github.io/python-genai/genai.html",
        {"model_version": "gemini-2.5-pro",
         "candidates": [{"content": {"parts": [{"text": "Rain."}]}, "finish_reason": "MAX_TOKENS"}],
         "usage_metadata": {"prompt_token_count": 11, "candidates_token_count": 6,
                            "thoughts_token_count": 9,
                            "total_token_count": 26,
                            "prompt_tokens_details": [{"modality": "AUDIO", "token_count": 10}],
                            "traffic_type": "ON_DEMAND_PRIORITY"}},
        _used(11, 15, 26, reasoning_tokens=9, input_audio_tokens=10, service_tier="priority"),
        "gemini-2.5-pro", "MAX_TOKENS",
    ),
    ProviderBody(
        "Bedrock Converse",
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
        {"output": {"message": {"role": "assistant", "content": [{"text": "Rain."}]}},
         "stopReason": "end_turn",
         "metrics": {"latencyMs": 500}, "serviceTier": {"type": "priority"},
         "usage": {"inputTokens": 10, "outputTokens": 20, "totalTokens": 3_630,
                   "cacheReadInputTokens": 2_000,
                   "cacheReadInputTokenCount": 2_000, "cacheWriteInputTokens": 1_600,
                   "cacheWriteInputTokenCount": 1_600,
                   "cacheDetails": [{"ttl": "1h", "inputTokens": 1_000},
                                    {"ttl": "5m", "inputTokens": 600}]}},
        _used(3_610, 20, 3_630, cached_input_tokens=2_000, cache_write_tokens=1_600,
              cache_write_1h_tokens=1_000,
              service_tier="priority"),
        None, "end_turn", ("aws", "default"),
    ),
    ProviderBody(
        "Bedrock Converse, as events",
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html",
        [{"messageStart": {"role": "assistant"}},
         {"contentBlockDelta": {"delta": {"text": "Rain."}}},
         {"messageStop": {"stopReason": "max_tokens"}},
         {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30},
                       "metrics": {"latencyMs": 5}}}],
        _used(10, 20, 30), None, "max_tokens",
    ),
    ProviderBody(
        "Bedrock, Titan", f"{_BEDROCK}/model-parameters-titan-text.html",
        {"inputTextTokenCount": 6, "results": [{"tokenCount": 30, "outputText": "Rain.",
                                                "completionReason": "LENGTH"}]},
        _used(6, 30, 36), None, "LENGTH",
    ),
    ProviderBody(
        "Bedrock, Titan embeddings", f"{_BEDROCK}/model-parameters-titan-embed-text.html",
        {"embedding": [0.1, 0.2], "inputTextTokenCount": 6}, _used(6), answer=None,
    ),
    ProviderBody(
        "Bedrock, Llama", f"{_BEDROCK}/model-parameters-meta.html",
        {"generation": "Rain.", "prompt_token_count": 6, "generation_token_count": 30,
         "stop_reason": "length"},
        _used(6, 30, 36), None, "length",
    ),
    ProviderBody(
        "Bedrock, the last event of a stream", f"{_BEDROCK}/inference-invoke.html",
        {"outputText": "Rain.", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 6,
                                                                     "outputTokenCount": 30,
                                                                     "invocationLatency": 500,
                                                                     "firstByteLatency": 20}},
        _used(6, 30, 36),
    ),
    ProviderBody(
        "Bedrock, Cohere: counted in the headers",
        f"{_BEDROCK}/model-parameters-cohere-command.html",
        {"ResponseMetadata": {"HTTPHeaders": {"x-amzn-bedrock-input-token-count": "6",
                                              "x-amzn-bedrock-output-token-count": "30"}},
         "generations": [{"text": "Rain.", "finish_reason": "MAX_TOKENS"}]},
        _used(6, 30, 36), None, "MAX_TOKENS",
    ),
    ProviderBody(
        "Mistral", "https://docs.mistral.ai/api/endpoint/chat",
        _chat("mistral-large-latest", {"prompt_tokens": 175, "completion_tokens": 39,
                                       "total_tokens": 214,
                                       "num_cached_tokens": 160}, "model_length"),
        _used(175, 39, 214, cached_input_tokens=160), "mistral-large-latest", "model_length",
    ),
    ProviderBody(
        "Mistral, audio", "https://docs.mistral.ai/capabilities/audio_transcription",
        {"model": "voxtral-mini-2507", "text": "Rain.",
         "usage": {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635,
                   "total_tokens": 3_264}},
        _used(4, 635, 3_264, audio_ms=203_000), "voxtral-mini-2507",
    ),
    ProviderBody(
        "Mistral, pages", "https://docs.mistral.ai/api/endpoint/ocr",
        {"model": "mistral-ocr-2505", "pages": [{"index": 0, "markdown": "Rain."}],
         "usage_info": {"pages_processed": 3,
                                                                  "doc_size_bytes": 900}},
        {"document_pages": 3}, "mistral-ocr-2505",
    ),
    ProviderBody(
        "Cohere", "https://docs.cohere.com/v2/reference/chat",
        {"id": "c", "finish_reason": "MAX_TOKENS",
         "message": {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]},
         "usage": {"billed_units": {"input_tokens": 50, "output_tokens": 8},
                   "tokens": {"input_tokens": 600, "output_tokens": 10},
                   "cached_tokens": 512}},
        _used(50, 8, 58), None, "MAX_TOKENS", ("cohere", "default"),
    ),
    ProviderBody(
        "Cohere, without billed units", "https://docs.cohere.com/v2/reference/chat",
        {"finish_reason": "COMPLETE",
         "message": {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]},
         "usage": {"tokens": {"input_tokens": 600, "output_tokens": 10}, "cached_tokens": 512}},
        _used(600, 10, 610, cached_input_tokens=512), None, "COMPLETE", ("cohere", "tokens"),
    ),
    ProviderBody(
        "Cohere embeddings of images", "https://docs.cohere.com/v2/reference/embed",
        {"embeddings": {"float": [[0.1]]}, "meta": {"billed_units": {"input_tokens": 5,
                                                                     "image_tokens": 90}}},
        _used(95, None, None, input_image_tokens=90), answer=None,
    ),
    ProviderBody(
        "Cohere reranking", "https://docs.cohere.com/v2/reference/rerank",
        {"results": [{"index": 0, "relevance_score": 0.9}],
         "meta": {"billed_units": {"search_units": 1}}},
        {"search_units": 1}, answer=None,
    ),
    ProviderBody(
        "DeepSeek", "https://api-docs.deepseek.com/api/create-chat-completion",
        _chat("deepseek-chat", {"prompt_tokens": 563, "completion_tokens": 116, "total_tokens": 679,
                                "prompt_cache_hit_tokens": 512, "prompt_cache_miss_tokens": 51}),
        _used(563, 116, 679, cached_input_tokens=512), "deepseek-chat", "stop",
    ),
    ProviderBody(
        "xAI: the reasoning is beside the completion",
        "https://docs.x.ai/docs/api-reference#chat-completions",
        _chat("grok-4", {"prompt_tokens": 37, "completion_tokens": 530, "total_tokens": 800,
                         "prompt_tokens_details": {"text_tokens": 37, "cached_tokens": 8},
                         "completion_tokens_details": {"reasoning_tokens": 233},
                         "num_sources_used": 0,
                         "cost_in_usd_ticks": 76_300_000}),
        _used(37, 763, 800, cached_input_tokens=8, reasoning_tokens=233, tool_uses=0,
              reported_cost=Decimal("0.00763")),
        "grok-4", "stop", ("x-ai", "chat"),
    ),
    ProviderBody(
        "xAI, by its own client", "https://docs.x.ai/docs/guides/tools/overview",
        {"model": "grok-4", "content": "Rain.",
         "usage": {"prompt_tokens": 100, "completion_tokens": 20,
                                      "reasoning_tokens": 50, "total_tokens": 170,
                                      "cached_prompt_text_tokens": 60, "num_sources_used": 0,
                                      "server_side_tool_usage_details": {"web_search_calls": 2,
                                                                         "x_search_calls": 1}}},
        _used(100, 70, 170, cached_input_tokens=60, reasoning_tokens=50, web_searches=2,
              tool_uses=1),
        "grok-4", None, ("x-ai", "default"),
    ),
    ProviderBody(
        "Groq", "https://console.groq.com/docs/api-reference",
        _chat("llama-3.3-70b-versatile", {"queue_time": 0.1, "prompt_tokens": 42,
                                          "prompt_time": 0.002, "completion_tokens": 8,
                                          "completion_time": 0.01, "total_tokens": 50,
                                          "total_time": 0.012},
              service_tier="on_demand", x_groq={"id": "req_1"}),
        _used(42, 8, 50, service_tier="standard"), "llama-3.3-70b-versatile", "stop",
        ("groq", "default"),
    ),
    ProviderBody(
        "Groq, as chunks", "https://console.groq.com/docs/text-chat",
        [{"id": "c", "object": "chat.completion.chunk", "model": "l",
          "choices": [{"delta": {"content": "Rain."}}],
          "x_groq": {"id": "req_1"}},
         {"id": "c", "object": "chat.completion.chunk", "model": "l",
          "choices": [{"delta": {}, "finish_reason": "stop"}],
          "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 4, "completion_tokens": 2,
                                              "total_tokens": 6}}}],
        _used(4, 2, 6), "l", "stop",
    ),
    ProviderBody(
        "OpenRouter", "https://openrouter.ai/docs/use-cases/usage-accounting",
        _chat("openai/gpt-4o", {"prompt_tokens": 194, "completion_tokens": 2, "total_tokens": 196,
                                "cost": 0.95, "is_byok": False,
                                "cost_details": {"upstream_inference_cost": 19},
                                "prompt_tokens_details": {"cached_tokens": 0,
                                                          "cache_write_tokens": 100,
                                                          "audio_tokens": 0},
                                "completion_tokens_details": {"reasoning_tokens": 0}}),
        _used(194, 2, 196, cached_input_tokens=0, cache_write_tokens=100, reasoning_tokens=0,
              reported_cost=Decimal("0.95")),
        "openai/gpt-4o", "stop", ("openrouter", "chat"),
    ),
    ProviderBody(
        "OpenRouter, with a key of one's own", "https://openrouter.ai/docs/use-cases/byok",
        _chat("openai/gpt-4o", {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6,
                                "cost": 0.05, "is_byok": True,
                                "cost_details": {"upstream_inference_cost": 1}}),
        _used(4, 2, 6, reported_cost=Decimal("1.05")), "openai/gpt-4o", "stop",
    ),
    ProviderBody(
        "Perplexity",
        "https://docs.perplexity.ai/getting-started/models/models/sonar-deep-research",
        _chat("sonar-deep-research", {"prompt_tokens": 33, "completion_tokens": 7_000,
                                      "total_tokens": 7_033,
                                      "citation_tokens": 20_000, "num_search_queries": 18,
                                      "reasoning_tokens": 6_000,
                                      "cost": {"input_tokens_cost": 0.0, "total_cost": 0.2}}),
        _used(33, 33_000, 33_033, citation_tokens=20_000, reasoning_tokens=6_000, web_searches=18,
              reported_cost=Decimal("0.2")),
        "sonar-deep-research", "stop", ("perplexity", "default"),
    ),
    ProviderBody(
        "Ollama", "https://github.com/ollama/ollama/blob/main/docs/api.md",
        {"model": "llama3.2", "message": {"role": "assistant", "content": "Rain."}, "done": True,
         "done_reason": "length",
         "total_duration": 5_000, "prompt_eval_count": 26, "prompt_eval_duration": 100,
         "eval_count": 298},
        _used(26, 298, 324), "llama3.2", "length",
    ),
    ProviderBody(
        "LiteLLM: the prompt includes cached tokens",
        "https://docs.litellm.ai/docs/completion/prompt_caching",
        _chat("claude-sonnet-4-5", {"prompt_tokens": 2_000, "completion_tokens": 30,
                                    "total_tokens": 2_030,
                                    "prompt_tokens_details": {"cached_tokens": 500,
                                                              "cache_creation_tokens": 1_000},
                                    "cache_read_input_tokens": 500,
                                    "cache_creation_input_tokens": 1_000}),
        _used(2_000, 30, 2_030, cached_input_tokens=500, cache_write_tokens=1_000),
        "claude-sonnet-4-5", "stop",
    ),
    ProviderBody(
        "LiteLLM: the prompt excludes cached tokens",
        "https://docs.litellm.ai/docs/completion/prompt_caching",
        _chat("claude-sonnet-4-5", {"prompt_tokens": 2_000, "completion_tokens": 30,
                                    "total_tokens": 3_530,
                                    "cache_read_input_tokens": 500,
                                    "cache_creation_input_tokens": 1_000}, response_cost=0.02),
        _used(3_500, 30, 3_530, cached_input_tokens=500, cache_write_tokens=1_000,
              reported_cost=Decimal("0.02")),
        "claude-sonnet-4-5", "stop",
    ),
    ProviderBody(
        "Cloudflare", "https://developers.cloudflare.com/workers-ai/models/llama-3.1-8b-instruct",
        {"result": {"response": "Rain.", "usage": {"prompt_tokens": 20, "completion_tokens": 8,
                                                   "total_tokens": 28}},
         "success": True, "errors": [], "messages": []},
        _used(20, 8, 28),
    ),
    ProviderBody(
        "LangChain", "https://reference.langchain.com/python/langchain_core/messages/",
        {"content": "Rain.", "usage_metadata": {
            "input_tokens": 350, "output_tokens": 240, "total_tokens": 590,
            "input_token_details": {"audio": 10, "cache_creation": 200, "cache_read": 100},
            "output_token_details": {"audio": 10, "reasoning": 200}}},
        _used(350, 240, 590, cached_input_tokens=100, cache_write_tokens=200, input_audio_tokens=10,
              output_audio_tokens=10,
              reasoning_tokens=200),
    ),
    *(
        ProviderBody(name, "the API's own envelope around an integration's result", body,
               _used(20, 8, 28), "m-1", "stop")
        for name, body in (
            ("A completion in a result", {"result": _COMPLETION}),
            ("A completion in the data of a result",
             {"result": {"data": _COMPLETION, "error": None, "successful": True}}),
            ("A completion as text", {"result": {"data": json.dumps(_COMPLETION), "error": None}}),
            ("A completion in the answer of a gateway",
             {"result": {"data": {"response": _COMPLETION}, "successful": True}}),
            ("Chunks in a result", {"result": {"data": [
                {**_COMPLETION, "object": "chat.completion.chunk", "usage": None},
                {**_COMPLETION, "object": "chat.completion.chunk", "choices": []}],
                "error": None}}),
            ("Chunks by name", {"chunks": [{**_COMPLETION, "usage": None},
                                           {**_COMPLETION, "choices": []}]}),
        )
    ),
)  # fmt: skip

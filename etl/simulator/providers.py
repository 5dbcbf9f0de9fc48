"""The responses of several providers' models, in the form of each provider's API.

Each comes with its meaning. The forms are those of the providers' public references:
https://platform.openai.com/docs/api-reference (chat completions, responses, embeddings),
https://docs.anthropic.com/en/api/messages, https://ai.google.dev/api/generate-content,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
https://openrouter.ai/docs/api-reference/overview, https://docs.perplexity.ai/api-reference.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from etl.simulator import completions
from etl.simulator.model_calls import Call, End, Expected, ModelResponse, Payload
from etl.usage import Usage

EMBEDDING_MODEL = "text-embedding-3-small"


def embedding(tokens: int, random: Random) -> ModelResponse:
    """Return an embedding in eight dimensions, a number that the API lets the caller choose."""
    vector = [int(random.random() * 20_000 - 10_000) / 10_000 for _ in range(8)]
    outputs: Payload = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "model": EMBEDDING_MODEL,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return ModelResponse(
        outputs, Expected(Usage(input_tokens=tokens, total_tokens=tokens), EMBEDDING_MODEL)
    )


_CLAUDE_ENDS: dict[End, str] = {"done": "end_turn", "cut_off": "max_tokens", "tool": "tool_use"}
_GEMINI_ENDS: dict[End, str] = {"done": "STOP", "cut_off": "MAX_TOKENS", "tool": "STOP"}

# Some models have higher prices above 200,000 tokens. This share of their calls reads that many
# tokens from the cache.
_LONG = 0.07

# Tokens of a workflow's instructions, which a provider keeps in its cache.
_CACHED_INSTRUCTIONS = 1536


def _responses(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response of OpenAI's Responses API.

    It has one item for the reasoning, one for each web search, and one for the text or tool call.
    """
    draw = random.random()
    searches = int(draw * 10) if draw < 0.3 else 0
    cached = 1024 if draw >= 0.6 else 0
    tier, means = ("flex", "flex") if random.random() < 0.1 else ("default", "standard")
    reasoning = 64 * int(random.random() * 12)
    read, written = call.tokens + cached + 600 * searches, call.written + reasoning
    items: list[Payload] = [
        {"id": f"rs_{random.getrandbits(128):032x}", "type": "reasoning", "summary": []}
    ]
    items += (
        {
            "id": f"ws_{random.getrandbits(128):032x}",
            "type": "web_search_call",
            "status": "completed",
            "action": {"type": "search", "query": call.topic},
        }
        for _ in range(searches)
    )
    if call.end == "tool":
        items.append(
            {
                "id": f"fc_{random.getrandbits(128):032x}",
                "type": "function_call",
                "status": "completed",
                "name": "search",
                "call_id": f"call_{random.getrandbits(96):024x}",
                "arguments": f'{{"query": "{call.topic}"}}',
            }
        )
    else:
        items.append(
            {
                "id": f"msg_{random.getrandbits(128):032x}",
                "type": "message",
                "status": "incomplete" if call.end == "cut_off" else "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": call.text, "annotations": []}],
            }
        )
    reason = "max_output_tokens" if call.end == "cut_off" else None
    outputs: Payload = {
        "id": f"resp_{random.getrandbits(128):032x}",
        "object": "response",
        "created_at": call.created,
        "status": "completed" if reason is None else "incomplete",
        "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "model": model,
        "output": items,
        "service_tier": tier,
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": read + written,
        },
    }
    usage = Usage(
        input_tokens=read,
        cached_input_tokens=cached,
        output_tokens=written,
        reasoning_tokens=reasoning,
        web_searches=searches or None,
        total_tokens=read + written,
        service_tier=means,
    )
    return ModelResponse(outputs, Expected(usage, model, reason or "completed", reason is not None))


def _claude(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response of Anthropic's Messages API; its input tokens exclude the cache's."""
    draw = random.random()
    hour = _CACHED_INSTRUCTIONS if draw < 0.1 else 0
    minutes = _CACHED_INSTRUCTIONS if 0.1 <= draw < 0.3 else 0
    cached = 0 if hour or minutes else _CACHED_INSTRUCTIONS
    if random.random() < _LONG:
        cached += 200_000 + int(random.random() * 100_000)
    searches = 1 + int(draw * 10) % 2 if random.random() < 0.15 else 0
    tier = "batch" if random.random() < 0.08 else "standard"
    fresh = call.tokens + 900 * searches
    reason = _CLAUDE_ENDS[call.end]
    outputs: Payload = {
        "id": f"msg_{random.getrandbits(96):024x}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [
            {
                "type": "tool_use",
                "id": f"toolu_{random.getrandbits(96):024x}",
                "name": "search",
                "input": {"query": call.topic},
            }
            if call.end == "tool"
            else {"type": "text", "text": call.text}
        ],
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": fresh,
            "cache_creation_input_tokens": minutes + hour,
            "cache_read_input_tokens": cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": minutes,
                "ephemeral_1h_input_tokens": hour,
            },
            "output_tokens": call.written,
            "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 0},
            "service_tier": tier,
            "inference_geo": "not_available",
        },
    }
    read = fresh + minutes + hour + cached
    usage = Usage(
        input_tokens=read,
        cached_input_tokens=cached,
        cache_write_tokens=minutes + hour,
        cache_write_1h_tokens=hour,
        output_tokens=call.written,
        web_searches=searches,
        total_tokens=read + call.written,
        service_tier=tier,
    )
    return ModelResponse(outputs, Expected(usage, model, reason, call.end == "cut_off"))


def _gemini(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response of Google's generateContent.

    It counts tokens by modality; the candidates' tokens exclude thoughts.
    """
    draw = random.random()
    cached = 1024 if draw < 0.25 else 0
    if model.endswith("pro") and random.random() < _LONG:
        cached += 200_000 + int(random.random() * 100_000)
    # A minute of speech has 1,920 tokens, a page 258.
    seen = (
        0
        if draw < 0.4 or not call.media
        else 1920
        if call.media == "AUDIO"
        else 258 * (1 + int(draw * 100) % 4)
    )
    thoughts = int(random.random() * 700)
    text = call.tokens + cached
    total = text + seen + call.written + thoughts
    details = [{"modality": "TEXT", "tokenCount": text}]
    if seen:
        details.append({"modality": call.media, "tokenCount": seen})
    metadata: Payload = {
        "promptTokenCount": text + seen,
        "candidatesTokenCount": call.written,
        "totalTokenCount": total,
        "promptTokensDetails": details,
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": call.written}],
        "thoughtsTokenCount": thoughts,
        "trafficType": "ON_DEMAND",
    }
    if cached:
        metadata["cachedContentTokenCount"] = cached
        metadata["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": cached}]
    reason = _GEMINI_ENDS[call.end]
    outputs: Payload = {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"functionCall": {"name": "search", "args": {"query": call.topic}}}
                        if call.end == "tool"
                        else {"text": call.text}
                    ],
                },
                "finishReason": reason,
                "index": 0,
            }
        ],
        "usageMetadata": metadata,
        "modelVersion": model,
        "responseId": f"{random.getrandbits(96):024x}",
    }
    usage = Usage(
        input_tokens=text + seen,
        cached_input_tokens=cached or None,
        input_audio_tokens=seen if seen and call.media == "AUDIO" else None,
        input_image_tokens=seen if seen and call.media == "IMAGE" else None,
        output_tokens=call.written + thoughts,
        reasoning_tokens=thoughts,
        total_tokens=total,
        service_tier="standard",
    )
    return ModelResponse(outputs, Expected(usage, model, reason, call.end == "cut_off"))


def _converse(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response of Amazon Bedrock's Converse.

    It names no model, and its input tokens exclude the cache's.
    """
    draw = random.random()
    cached, stored = (
        (0, _CACHED_INSTRUCTIONS)
        if draw < 0.2
        else (_CACHED_INSTRUCTIONS, 0)
        if draw < 0.7
        else (0, 0)
    )
    total = call.tokens + cached + stored + call.written
    reason = _CLAUDE_ENDS[call.end]
    outputs: Payload = {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {
                        "toolUse": {
                            "toolUseId": f"tooluse_{random.getrandbits(96):024x}",
                            "name": "search",
                            "input": {"query": call.topic},
                        }
                    }
                    if call.end == "tool"
                    else {"text": call.text}
                ],
            }
        },
        "stopReason": reason,
        "usage": {
            "inputTokens": call.tokens,
            "outputTokens": call.written,
            "totalTokens": total,
            "cacheReadInputTokens": cached,
            "cacheWriteInputTokens": stored,
            "serverToolUsage": {},
        },
        "metrics": {"latencyMs": 400 + int(draw * 3000)},
    }
    usage = Usage(
        input_tokens=call.tokens + cached + stored,
        cached_input_tokens=cached,
        cache_write_tokens=stored,
        output_tokens=call.written,
        total_tokens=total,
    )
    return ModelResponse(outputs, Expected(usage, None, reason, call.end == "cut_off"))


# For each requested model: the model that responds, and the generator of the response. Providers
# resolve aliases, so that the two names often differ.
_PROVIDERS: dict[str, tuple[str, Callable[[str, Call, Random], ModelResponse]]] = {
    "virtuoso-medium": ("virtuoso-medium", completions.arcee),
    "virtuoso-large": ("virtuoso-large", completions.arcee),
    "auto": ("virtuoso-medium", completions.arcee),
    "gpt-4o-mini": ("gpt-4o-mini-2024-07-18", completions.openai),
    "gpt-4o": ("gpt-4o-2024-08-06", completions.openai),
    "o3-mini": ("o3-mini-2025-01-31", completions.openai),
    "gpt-5-mini": ("gpt-5-mini-2025-08-07", _responses),
    "claude-sonnet-4-5": ("claude-sonnet-4-5-20250929", _claude),
    "gemini-2.5-flash": ("gemini-2.5-flash", _gemini),
    "gemini-2.5-pro": ("gemini-2.5-pro", _gemini),
    "amazon.nova-lite-v1:0": ("amazon.nova-lite-v1:0", _converse),
    "openai/gpt-4o": ("openai/gpt-4o", completions.openrouter),
}
MODELS = tuple(_PROVIDERS)
"""The models that `answer` knows."""


def answer(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response as the model's provider sends it. Raises KeyError for an unknown model."""
    name, provider = _PROVIDERS[model]
    return provider(name, call, random)

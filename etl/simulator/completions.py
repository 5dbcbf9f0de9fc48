"""Chat completions in the variants of Arcee, OpenAI, OpenRouter and Perplexity."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from etl.simulator.model_calls import Call, End, Expected, ModelResponse, Payload
from etl.usage import Usage

_ENDS: dict[End, str] = {"done": "stop", "cut_off": "length", "tool": "tool_calls"}


def arcee(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response as Arcee sends it: in the form of the project's recorded sample."""
    reason = _ENDS[call.end]
    total = call.tokens + call.written
    outputs: Payload = {
        "id": f"chatcmpl-{random.getrandbits(128):032x}",
        "object": "chat.completion",
        "created": call.created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "reasoning_content": None,
                    "content": None if call.end == "tool" else call.text,
                    "tool_calls": _tool_calls(call, random),
                },
                "logprobs": None,
                "finish_reason": reason,
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": call.tokens,
            "total_tokens": total,
            "completion_tokens": call.written,
            "prompt_tokens_details": None,
        },
        "prompt_logprobs": None,
        "confidence_info": {
            "error": "No logprobs available - "
            "model/provider may not support confidence calculation",
            "confidence_score": None,
            "mean_entropy": None,
            "total_entropy": None,
        },
    }
    usage = Usage(input_tokens=call.tokens, output_tokens=call.written, total_tokens=total)
    return ModelResponse(outputs, Expected(usage, model, reason, call.end == "cut_off"))


def openai(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response as OpenAI sends it; its completion tokens include reasoning."""
    reason = _ENDS[call.end]
    cached = call.tokens // 2 if random.random() < 0.5 else 0
    reasoning = 64 * (1 + int(random.random() * 20)) if model.startswith("o3") else 0
    written = call.written + reasoning
    outputs: Payload = {
        "id": f"chatcmpl-{random.getrandbits(128):032x}",
        "object": "chat.completion",
        "created": call.created,
        "model": model,
        "choices": [_choice(_message(call, random), reason)],
        "usage": {
            "prompt_tokens": call.tokens,
            "completion_tokens": written,
            "total_tokens": call.tokens + written,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_51db84afab",
    }
    usage = Usage(
        input_tokens=call.tokens,
        cached_input_tokens=cached,
        output_tokens=written,
        reasoning_tokens=reasoning,
        total_tokens=call.tokens + written,
        service_tier="standard",
    )
    return ModelResponse(outputs, Expected(usage, model, reason, call.end == "cut_off"))


def openrouter(model: str, call: Call, random: Random) -> ModelResponse:
    """Return a response as OpenRouter sends it.

    It reports the cost of the call. If the customer uses a key of the provider, it reports
    OpenRouter's fee, and the provider's price separately.
    """
    draw = random.random()
    cached = call.tokens // 2 if draw < 0.3 else 0
    reason = _ENDS[call.end]
    # US dollars per million tokens: cached 1.25, input 2.50, output 10.
    price = (2 * call.tokens - cached + 8 * call.written) * 125 / 100_000_000
    own_key = draw > 0.85
    cost = round(price / 20, 12) if own_key else price
    outputs: Payload = {
        "id": f"gen-{call.created}-{random.getrandbits(80):020x}",
        "provider": "OpenAI",
        "model": model,
        "object": "chat.completion",
        "created": call.created,
        "choices": [{**_choice(_message(call, random), reason), "native_finish_reason": reason}],
        "usage": {
            "prompt_tokens": call.tokens,
            "completion_tokens": call.written,
            "total_tokens": call.tokens + call.written,
            "cost": cost,
            "is_byok": own_key,
            "prompt_tokens_details": {
                "cached_tokens": cached,
                "cache_write_tokens": 0,
                "audio_tokens": 0,
                "video_tokens": 0,
            },
            "cost_details": {"upstream_inference_cost": price if own_key else None},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "image_tokens": 0,
                "audio_tokens": 0,
            },
        },
    }
    usage = Usage(
        input_tokens=call.tokens,
        cached_input_tokens=cached,
        cache_write_tokens=0,
        output_tokens=call.written,
        reasoning_tokens=0,
        total_tokens=call.tokens + call.written,
        reported_cost=Decimal(repr(cost)) + (Decimal(repr(price)) if own_key else 0),
    )
    return ModelResponse(outputs, Expected(usage, model, reason, call.end == "cut_off"))


def perplexity(prompt: str, text: str, created: int, random: Random) -> ModelResponse:
    """Return a response as Perplexity sends it; the reported cost includes a fee per request."""
    read, written = len(prompt) // 4 + 1, len(text) // 4 + 1
    size, fee = ("low", 5000) if random.random() < 0.5 else ("high", 12000)
    cost = (read + written + fee) / 1_000_000
    outputs: Payload = {
        "id": _uuid(random),
        "model": "sonar",
        "created": created,
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "search_context_size": size,
            "cost": {
                "input_tokens_cost": read / 1_000_000,
                "output_tokens_cost": written / 1_000_000,
                "request_cost": fee / 1_000_000,
                "total_cost": cost,
            },
        },
        "citations": ["https://www.example.com/register/hrb-71234"],
        "object": "chat.completion",
        "choices": [_choice({"role": "assistant", "content": text}, "stop")],
    }
    usage = Usage(
        input_tokens=read,
        output_tokens=written,
        total_tokens=read + written,
        reported_cost=Decimal(repr(cost)),
    )
    return ModelResponse(outputs, Expected(usage, "sonar", "stop"))


def _choice(message: Payload, reason: str) -> Payload:
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}


def _message(call: Call, random: Random) -> Payload:
    message: Payload = {
        "role": "assistant",
        "content": None if call.end == "tool" else call.text,
        "refusal": None,
        "annotations": [],
    }
    if call.end == "tool":
        message["tool_calls"] = _tool_calls(call, random)
    return message


def _tool_calls(call: Call, random: Random) -> list[Payload]:
    if call.end != "tool":
        return []
    function = {"name": "search", "arguments": f'{{"query": "{call.topic}"}}'}
    return [{"id": f"call_{random.getrandbits(96):024x}", "type": "function", "function": function}]


def _uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

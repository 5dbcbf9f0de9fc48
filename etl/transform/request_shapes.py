"""Where requests hold prompts, system texts and settings."""

from __future__ import annotations

from collections.abc import Iterator

from etl.transform.provider_pages import (
    AI_SDK,
    ANTHROPIC,
    COHERE,
    GEMINI,
    INVOKE,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENROUTER,
    XAI,
)
from etl.transform.shape import Shape, rows

_CHAT = f"{OPENAI}/chat"
_RESPONSES = f"{OPENAI}/responses"
_CONVERSE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"
_ANTHROPIC_LEGACY = "https://docs.claude.com/en/api/complete"
_COHERE_1 = "https://docs.cohere.com/v1/reference/chat"
_GENAI = "https://googleapis.github.io/python-genai/genai.html"
_CONVERSATIONS = f"{MISTRAL}/endpoint/beta/conversations"
_COMPOSIO = "https://docs.composio.dev/toolkits/perplexityai"
_VERTEX = "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference"
_REALTIME = f"{OPENAI}/realtime-client-events"
_TEXT = ' ? (@.type() == "string")'
# A text or a message, or each of a list of these: a condition applies to the elements of a list.
_ITEM = (
    ' ? (@.type() == "string" || exists (@.content) || @.type == "text"'
    ' || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'
)


def requests() -> Iterator[Shape]:
    """Return the places in a request."""
    yield from rows("prompt", "OpenAI chat", f"{_CHAT}/create", "$.messages[*]")
    yield from rows("prompt", "Gemini", GEMINI, "$.contents[*]")
    yield from rows(
        "prompt",
        "Gemini embeddings",
        "https://ai.google.dev/api/embeddings",
        "$.content ? (exists (@.parts))",
        "$.requests[*].content",
    )
    yield from rows("prompt", "Cohere chat v1", _COHERE_1, "$.chat_history[*]", "$.message" + _TEXT)
    yield from rows("prompt", "OpenAI responses", f"{_RESPONSES}/create", "$.input" + _ITEM)
    yield from rows("prompt", "Mistral conversations", _CONVERSATIONS, "$.inputs" + _ITEM)
    yield from rows(
        "prompt", "OpenAI completions", f"{OPENAI}/completions/create", "$.prompt" + _ITEM
    )
    yield from rows(
        "prompt", "Bedrock, Titan", f"{INVOKE}/model-parameters-titan-text.html", "$.inputText"
    )
    yield from rows(
        "prompt",
        "Bedrock, Titan images",
        f"{INVOKE}/model-parameters-titan-image.html",
        "$.textToImageParams.text",
        "$.inPaintingParams.text",
        "$.imageVariationParams.text",
        "$.outPaintingParams.text",
        "$.colorGuidedGenerationParams.text",
    )
    yield from rows(
        "prompt",
        "Bedrock, Stability",
        f"{INVOKE}/model-parameters-diffusion-1-0-text-image.html",
        "$.text_prompts[*].text",
    )
    yield from rows("prompt", "Vertex, Imagen", f"{_VERTEX}/imagen-api", "$.instances[*].prompt")
    yield from rows(
        "prompt", "Vertex, embeddings", f"{_VERTEX}/text-embeddings-api", "$.instances[*].content"
    )
    yield from rows(
        "prompt",
        "OpenAI realtime",
        f"{_REALTIME}/conversation/item/create",
        '$ ? (@.type == "conversation.item.create").item',
    )
    yield from rows(
        "prompt", "Cohere embeddings", "https://docs.cohere.com/v2/reference/embed", "$.texts[*]"
    )
    yield from rows(
        "prompt",
        "Cohere reranking",
        "https://docs.cohere.com/v2/reference/rerank",
        "$ ? (exists (@.documents)).query",
    )
    yield from rows("prompt", "Perplexity by Composio", _COMPOSIO, "$.userContent")
    yield from rows(
        "prompt",
        "Mistral OCR",
        f"{MISTRAL}/endpoint/ocr",
        "$.document_annotation_prompt",
        '$.document.document_url ? (!(@ starts with "data:"))',
    )

    yield from rows("system", "Anthropic", ANTHROPIC, "$.system")
    yield from rows("system", "Gemini", GEMINI, "$.systemInstruction.parts")
    yield from rows("system", "Gemini", GEMINI, "$.systemInstruction" + _TEXT)
    for event, member in (("session.update", "session"), ("response.create", "response")):
        yield from rows(
            "system",
            "OpenAI realtime",
            f"{_REALTIME}/{event.replace('.', '/')}",
            f'$ ? (@.type == "{event}").{member}.instructions',
        )
    for name in ("system_instruction", "config.system_instruction", "config.systemInstruction"):
        yield from rows(
            "system", "Gemini by Python", _GENAI, f"$.{name}" + _TEXT, f"$.{name}.parts"
        )
    yield from rows("system", "OpenAI responses", f"{_RESPONSES}/create", "$.instructions" + _TEXT)
    yield from rows("system", "Cohere chat v1", _COHERE_1, "$.preamble")
    yield from rows("system", "Perplexity by Composio", _COMPOSIO, "$.systemContent")

    for api, source, names in (
        (
            "OpenAI chat",
            f"{_CHAT}/create",
            "temperature top_p n stop seed max_tokens max_completion_tokens presence_penalty"
            " frequency_penalty logit_bias logprobs top_logprobs response_format stream"
            " stream_options tool_choice parallel_tool_calls reasoning_effort verbosity"
            " service_tier modalities audio prediction web_search_options store",
        ),
        (
            "OpenAI responses",
            f"{_RESPONSES}/create",
            "max_output_tokens max_tool_calls reasoning truncation include background"
            " prompt_cache_retention",
        ),
        ("OpenAI embeddings", f"{OPENAI}/embeddings/create", "dimensions encoding_format"),
        (
            "OpenAI images",
            f"{OPENAI}/images/create",
            "size quality style background moderation output_format output_compression"
            " input_fidelity",
        ),
        (
            "OpenAI audio",
            f"{OPENAI}/audio/createTranscription",
            "language timestamp_granularities voice speed chunking_strategy",
        ),
        ("Anthropic", ANTHROPIC, "thinking stop_sequences top_k output_config context_management"),
        ("Anthropic completions", _ANTHROPIC_LEGACY, "max_tokens_to_sample"),
        ("Ollama", OLLAMA, "format think keep_alive raw"),
        ("xAI", XAI, "search_parameters"),
        ("Groq", "https://console.groq.com/docs/api-reference", "reasoning_format"),
        (
            "Mistral",
            MISTRAL,
            "safe_prompt random_seed prompt_mode pages table_format confidence_scores_granularity",
        ),
        (
            "Cohere",
            COHERE,
            "p k citation_options safety_mode strict_tools input_type embedding_types truncate"
            " top_n",
        ),
        (
            "OpenRouter",
            OPENROUTER,
            "provider models transforms route min_p top_a repetition_penalty resolution"
            " aspect_ratio",
        ),
        ("Bedrock, Llama", f"{INVOKE}/model-parameters-meta.html", "max_gen_len"),
        ("Bedrock Converse", _CONVERSE, "performanceConfig guardrailConfig serviceTier"),
        (
            "AI SDK",
            AI_SDK,
            "maxTokens maxOutputTokens topP topK presencePenalty frequencyPenalty stopSequences"
            " toolChoice maxRetries maxSteps providerOptions",
        ),
        (
            "Gemini",
            "https://ai.google.dev/api/generate-content#generationconfig",
            "candidateCount responseMimeType responseSchema responseModalities thinkingConfig"
            " speechConfig imageConfig mediaResolution safetySettings candidate_count"
            " max_output_tokens response_mime_type response_schema response_modalities"
            " thinking_config safety_settings responseJsonSchema response_json_schema"
            " speech_config media_resolution thinking_level",
        ),
    ):
        yield from rows("parameter", api, source, *(f"$.{name}" for name in names.split()))
    for api, source, name in (
        ("Bedrock Converse", _CONVERSE, "inferenceConfig"),
        ("Bedrock Converse", _CONVERSE, "additionalModelRequestFields"),
        ("Bedrock, Titan", f"{INVOKE}/model-parameters-titan-text.html", "textGenerationConfig"),
        (
            "Bedrock, Titan images",
            f"{INVOKE}/model-parameters-titan-image.html",
            "imageGenerationConfig",
        ),
        (
            "Gemini",
            "https://ai.google.dev/api/generate-content#generationconfig",
            "generationConfig",
        ),
        ("Gemini by Python", _GENAI, "generation_config"),
        ("Gemini by Python", _GENAI, "config"),
        ("OpenAI responses", f"{_RESPONSES}/create", "text"),
        ("Vertex, Imagen", f"{_VERTEX}/imagen-api", "parameters"),
        ("Ollama", OLLAMA, "options"),
        ("Mistral conversations", _CONVERSATIONS, "completion_args"),
    ):
        yield from rows("settings", api, source, f"$.{name}")

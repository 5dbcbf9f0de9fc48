"""Where requests and responses of models hold prompts, answers, tools and media.

Each row names a place, and the public page that documents it. `make docs` writes the rows into the
SQL function `content_shapes`, from which the functions of `model_calls` work; the load uses the
names of the members to count unknown shapes. So the two cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from etl.transform.usage_names import (
    AI_SDK,
    ANTHROPIC,
    COHERE,
    GEMINI,
    INVOKE,
    LANGCHAIN,
    MISTRAL,
    OLLAMA,
    OPENAI,
    OPENROUTER,
)

CONTAINERS = (
    "response", "response_data", "message", "delta", "metadata", "x_groq", "body", "result",
    "data", "chunks", "events", "stream",
)  # fmt: skip
"""Members of integrations, gateways and stream events that may contain the response."""

REQUEST_CONTAINERS = (
    "body", "request", "params", "data", "payload", "json", "input", "input_mapping", "arguments",
    "kwargs", "modelInput",
)  # fmt: skip
"""Members of integrations, gateways and batches that may contain the request."""

MAX_DEPTH = 5
"""The most containers around a request or a response."""

Part = Literal[
    "prompt", "system", "parameter", "settings", "image_input", "audio_input",
    "answer", "tool", "image", "audio", "other",
    "request_container", "response_container",
    "role", "content", "text", "nested", "image_part", "audio_part", "tool_name", "tool_arguments",
]  # fmt: skip
PARTS: dict[Part, str] = {
    "prompt": "messages of a request, or its prompt as text",
    "system": "the system text of a request that is not one of its messages",
    "parameter": "a setting of a request",
    "settings": "an object of settings of a request",
    "image_input": "images of a request that are not part of a content",
    "audio_input": "audio of a request that is not part of a content",
    "answer": "the text of a response",
    "tool": "tools that a response calls",
    "image": "images of a response that are not part of a content",
    "audio": "audio of a response that is not part of a content",
    "other": "a result that is no text, such as an embedding",
    "request_container": "an object of an integration or a batch that can contain the request",
    "response_container": "an object of an integration, a gateway or a stream that can contain the"
    " response",
    "role": "in a message: who wrote it",
    "content": "in a message: its content",
    "text": "in a part of a content: its text",
    "nested": "in a part of a content: the parts inside it",
    "image_part": "in a part of a content: an image",
    "audio_part": "in a part of a content: audio",
    "tool_name": "in a tool call: the name of the tool",
    "tool_arguments": "in a tool call: the arguments",
}
"""The meaning of each part. A path without another start begins at the request or response."""
REQUEST: tuple[Part, ...] = ("prompt", "system", "image_input", "audio_input")
"""The parts that show that an object is a request."""
RESPONSE: tuple[Part, ...] = ("answer", "tool", "image", "audio", "other")
"""The parts that show that an object is a response."""

Kind = Literal["whole", "delta", "either"]

# Behind the start and its conditions, whose parentheses can contain others.
_FIRST_MEMBER = re.compile(r"\$(?: \? \((?:[^()]|\([^()]*\))*\))*\.(\w+)", re.ASCII)


class Shape(NamedTuple):
    """A place in a request or a response."""

    part: Part
    api: str
    """The API. If several rows of one part fit a payload, those of the first API count."""
    path: str
    """The place as an SQL/JSON path, from `each` on."""
    source: str
    """The public page that documents it."""
    each: str = "$"
    """The path to the alternatives, such as the choices; the text of each is an answer."""
    kind: Kind = "whole"
    """`delta`: a piece in an event of a stream; `either`: the same in events and in whole ones."""

    @property
    def member(self) -> str:
        """The first member of the path; empty if it starts with the value itself."""
        found = _FIRST_MEMBER.match(self.whole)
        return "" if found is None else found[1]

    @property
    def direction(self) -> Literal["request", "response"] | None:
        """What an object with this place is; None for a place inside of another, or around one."""
        return "request" if self.part in REQUEST else "response" if self.part in RESPONSE else None

    @property
    def whole(self) -> str:
        """The path from the request or response on."""
        return self.each + self.path.removeprefix("$")


_CHAT = f"{OPENAI}/chat"
_RESPONSES = f"{OPENAI}/responses"
_REALTIME = f"{OPENAI}/realtime-server-events/response"
_STREAM = f"{OPENAI}/responses-streaming"
_CONVERSE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"
_CONVERSE_STREAM = (
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html"
)
_CONTENT_BLOCK = (
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html"
)
_ANTHROPIC_STREAM = "https://docs.claude.com/en/build-with-claude/streaming"
_ANTHROPIC_LEGACY = "https://docs.claude.com/en/api/complete"
_COHERE_1 = "https://docs.cohere.com/v1/reference/chat"
_COHERE_STREAM = "https://docs.cohere.com/v2/reference/chat-stream"
_GENAI = "https://googleapis.github.io/python-genai/genai.html"
_CONVERSATIONS = f"{MISTRAL}/endpoint/beta/conversations"
_LANGCHAIN_DUMP = "https://reference.langchain.com/python/langchain_core/load/"
_AI_STREAM = "https://ai-sdk.dev/docs/reference/ai-sdk-core/stream-text"
_COMPOSIO = "https://docs.composio.dev/toolkits/perplexityai"
_CLOUDFLARE = "https://developers.cloudflare.com/workers-ai/models/llama-3.1-8b-instruct"
_TEXT = ' ? (@.type() == "string")'
_OBJECT = ' ? (@.type() == "object")'
# A text or a message, or each of a list of these: a condition applies to the elements of a list.
_ITEM = (
    ' ? (@.type() == "string" || exists (@.content) || @.type == "text"'
    ' || @.type == "function_call_output")'
)


def _all(part: Part, api: str, source: str, *paths: str, **more: str) -> Iterator[Shape]:
    return (Shape(part, api, path, source, **more) for path in paths)  # type: ignore[arg-type]


def _requests() -> Iterator[Shape]:
    yield from _all("prompt", "OpenAI chat", f"{_CHAT}/create", "$.messages[*]")
    yield from _all("prompt", "Gemini", GEMINI, "$.contents[*]")
    yield from _all(
        "prompt", "Gemini embeddings", "https://ai.google.dev/api/embeddings",
        "$.content ? (exists (@.parts))", "$.requests[*].content",
    )  # fmt: skip
    yield from _all("prompt", "Cohere chat v1", _COHERE_1, "$.chat_history[*]", "$.message" + _TEXT)
    yield from _all("prompt", "OpenAI responses", f"{_RESPONSES}/create", "$.input" + _ITEM)
    yield from _all("prompt", "Mistral conversations", _CONVERSATIONS, "$.inputs" + _ITEM)
    yield from _all("prompt", "OpenAI completions", f"{OPENAI}/completions/create",
                    "$.prompt" + _ITEM)  # fmt: skip
    yield from _all(
        "prompt", "Bedrock, Titan", f"{INVOKE}/model-parameters-titan-text.html", "$.inputText"
    )
    yield from _all(
        "prompt", "Bedrock, Titan images", f"{INVOKE}/model-parameters-titan-image.html",
        "$.textToImageParams.text", "$.inPaintingParams.text", "$.imageVariationParams.text",
    )  # fmt: skip
    yield from _all("prompt", "Cohere embeddings", "https://docs.cohere.com/v2/reference/embed",
                    "$.texts[*]")  # fmt: skip
    yield from _all("prompt", "Cohere reranking", "https://docs.cohere.com/v2/reference/rerank",
                    '$ ? (exists (@.documents)).query')  # fmt: skip
    yield from _all("prompt", "Perplexity by Composio", _COMPOSIO, "$.userContent")

    yield from _all("system", "Anthropic", ANTHROPIC, "$.system")
    yield from _all("system", "Gemini", GEMINI, "$.systemInstruction")
    yield from _all("system", "Gemini by Python", _GENAI, "$.system_instruction",
                    "$.config.systemInstruction", "$.config.system_instruction")  # fmt: skip
    yield from _all("system", "OpenAI responses", f"{_RESPONSES}/create", "$.instructions" + _TEXT)
    yield from _all("system", "Cohere chat v1", _COHERE_1, "$.preamble")
    yield from _all("system", "Perplexity by Composio", _COMPOSIO, "$.systemContent")

    for api, source, names in (
        ("OpenAI chat", f"{_CHAT}/create",
         "temperature top_p n stop seed max_tokens max_completion_tokens presence_penalty"
         " frequency_penalty logit_bias logprobs top_logprobs response_format stream stream_options"
         " tool_choice parallel_tool_calls reasoning_effort verbosity service_tier modalities"
         " audio prediction web_search_options store"),
        ("OpenAI responses", f"{_RESPONSES}/create",
         "max_output_tokens max_tool_calls reasoning truncation include background"),
        ("OpenAI embeddings", f"{OPENAI}/embeddings/create", "dimensions encoding_format"),
        ("OpenAI images", f"{OPENAI}/images/create",
         "size quality style background moderation output_format output_compression"
         " input_fidelity"),
        ("OpenAI audio", f"{OPENAI}/audio/createTranscription",
         "language timestamp_granularities voice speed chunking_strategy"),
        ("Anthropic", ANTHROPIC, "thinking stop_sequences top_k"),
        ("Anthropic completions", _ANTHROPIC_LEGACY, "max_tokens_to_sample"),
        ("Ollama", OLLAMA, "format think keep_alive raw"),
        ("Mistral", MISTRAL, "safe_prompt random_seed prompt_mode"),
        ("Cohere", COHERE,
         "p k citation_options safety_mode strict_tools input_type embedding_types truncate top_n"),
        ("OpenRouter", OPENROUTER, "provider models transforms route min_p top_a"
         " repetition_penalty"),
        ("Bedrock, Llama", f"{INVOKE}/model-parameters-meta.html", "max_gen_len"),
        ("Bedrock Converse", _CONVERSE, "performanceConfig guardrailConfig"),
        ("AI SDK", AI_SDK,
         "maxTokens maxOutputTokens topP topK presencePenalty frequencyPenalty stopSequences"
         " toolChoice maxRetries maxSteps providerOptions"),
        ("Gemini", "https://ai.google.dev/api/generate-content#generationconfig",
         "candidateCount responseMimeType responseSchema responseModalities thinkingConfig"
         " speechConfig imageConfig mediaResolution safetySettings candidate_count"
         " max_output_tokens response_mime_type response_schema response_modalities"
         " thinking_config safety_settings"),
    ):  # fmt: skip
        yield from _all("parameter", api, source, *(f"$.{name}" for name in names.split()))
    for api, source, name in (
        ("Bedrock Converse", _CONVERSE, "inferenceConfig"),
        ("Bedrock Converse", _CONVERSE, "additionalModelRequestFields"),
        ("Bedrock, Titan", f"{INVOKE}/model-parameters-titan-text.html", "textGenerationConfig"),
        ("Bedrock, Titan images", f"{INVOKE}/model-parameters-titan-image.html",
         "imageGenerationConfig"),
        ("Gemini", "https://ai.google.dev/api/generate-content#generationconfig",
         "generationConfig"),
        ("Gemini by Python", _GENAI, "generation_config"),
        ("Gemini by Python", _GENAI, "config"),
        ("Ollama", OLLAMA, "options"),
        ("Mistral conversations", _CONVERSATIONS, "completion_args"),
    ):  # fmt: skip
        yield from _all("settings", api, source, f"$.{name}")


def _answers() -> Iterator[Shape]:
    choices = {"each": "$.choices[*]"}
    chat, chunk = f"{_CHAT}/object", f"{OPENAI}/chat-streaming"
    yield from _all(
        "answer", "OpenAI chat", chat,
        "$.message.content", "$.message.refusal", "$.message.audio.transcript", **choices,
    )  # fmt: skip
    yield from _all(
        "answer", "OpenAI chat", chunk, "$.delta.content", "$.delta.refusal",
        "$.delta.audio.transcript", **choices, kind="delta",
    )  # fmt: skip
    yield from _all("answer", "OpenAI completions", f"{OPENAI}/completions/object",
                    "$.text", **choices, kind="either")  # fmt: skip
    yield from _all("answer", "OpenAI responses", f"{_RESPONSES}/object",
                    '$.output[*] ? (@.type == "message").content')  # fmt: skip
    for event in ("output_text", "refusal", "text", "output_audio_transcript", "audio_transcript"):
        source = _STREAM if event in ("output_text", "refusal") else f"{_REALTIME}/{event}/delta"
        yield from _all("answer", "OpenAI responses", source,
                        f'$ ? (@.type == "response.{event}.delta").delta',
                        kind="delta")  # fmt: skip
    yield from _all("answer", "OpenAI transcription", f"{OPENAI}/audio/json-object",
                    '$ ? (@.type == "transcript.text.delta").delta', kind="delta")  # fmt: skip
    yield from _all("answer", "Gemini", GEMINI, "$.content.parts",
                    each="$.candidates[*]", kind="either")  # fmt: skip
    yield from _all("answer", "Bedrock Converse", _CONVERSE, "$.output.message.content")
    yield from _all("answer", "Bedrock Converse", _CONVERSE_STREAM,
                    "$.contentBlockDelta.delta.text", kind="delta")  # fmt: skip
    yield from _all(
        "answer", "Bedrock, Titan", f"{INVOKE}/model-parameters-titan-text.html",
        "$.outputText", each="$.results[*]",
    )  # fmt: skip
    yield from _all(
        "answer", "Bedrock, Titan", f"{INVOKE}/model-parameters-titan-text.html",
        "$.outputText", kind="either",
    )  # fmt: skip
    yield from _all("answer", "Bedrock, Llama", f"{INVOKE}/model-parameters-meta.html",
                    "$.generation" + _TEXT, kind="either")  # fmt: skip
    yield from _all(
        "answer", "Bedrock, Mistral", f"{INVOKE}/model-parameters-mistral-text-completion.html",
        "$.text", each="$.outputs[*]", kind="either",
    )  # fmt: skip
    yield from _all("answer", "Mistral conversations", _CONVERSATIONS,
                    '$.outputs[*] ? (@.type == "message.output").content')  # fmt: skip
    yield from _all("answer", "Mistral conversations", _CONVERSATIONS,
                    '$ ? (@.type == "message.output.delta").content', kind="delta")  # fmt: skip
    yield from _all("answer", "Mistral OCR", f"{MISTRAL}/endpoint/ocr",
                    "$.markdown", each="$.pages[*]")  # fmt: skip
    yield from _all(
        "answer", "Bedrock, Cohere", f"{INVOKE}/model-parameters-cohere-command.html",
        "$.text", each="$.generations[*]", kind="either",
    )  # fmt: skip
    yield from _all(
        "answer", "Bedrock, AI21", f"{INVOKE}/model-parameters-jurassic2.html",
        "$.data.text", each="$.completions[*]",
    )  # fmt: skip
    yield from _all("answer", "Cohere chat", _COHERE_STREAM,
                    "$.delta.message.content", kind="delta")  # fmt: skip
    yield from _all("answer", "Anthropic", _ANTHROPIC_STREAM, "$.delta.text", kind="delta")
    yield from _all("answer", "Ollama", OLLAMA, "$.message.content", kind="either")
    yield from _all("answer", "Anthropic completions", _ANTHROPIC_LEGACY,
                    "$.completion" + _TEXT, kind="either")  # fmt: skip
    yield from _all("answer", "Cohere chat v1", "https://docs.cohere.com/v1/reference/chat-stream",
                    '$ ? (@.event_type == "text-generation").text', kind="delta")  # fmt: skip
    for name in ("text", "textDelta", "delta"):
        yield from _all("answer", "AI SDK", _AI_STREAM,
                        f'$ ? (@.type == "text-delta").{name}' + _TEXT, kind="delta")  # fmt: skip
    yield from _all("answer", "OpenAI transcription", f"{OPENAI}/audio/json-object",
                    "$.text" + _TEXT)  # fmt: skip
    yield from _all("answer", "LangChain", _LANGCHAIN_DUMP, "$.kwargs.content")
    yield from _all("answer", "LangChain", LANGCHAIN,
                    '$ ? (@.type == "AIMessageChunk").content', kind="delta")  # fmt: skip
    yield from _all("answer", "Anthropic", ANTHROPIC, "$.content")
    yield from _all("answer", "Ollama", OLLAMA, "$.response" + _TEXT, kind="either")
    yield from _all("answer", "Hugging Face", "https://huggingface.co/docs/inference-providers/"
                    "tasks/text-generation", "$.generated_text" + _TEXT)  # fmt: skip


def _tools() -> Iterator[Shape]:
    choices = {"each": "$.choices[*]"}
    yield from _all("tool", "OpenAI chat", f"{_CHAT}/object", "$.message.tool_calls[*]", **choices)
    yield from _all("tool", "OpenAI chat", f"{_CHAT}/object", "$.message.function_call", **choices)
    yield from _all("tool", "OpenAI chat", f"{OPENAI}/chat-streaming", "$.delta.tool_calls[*]",
                    "$.delta.function_call", **choices, kind="delta")  # fmt: skip
    for kind in ("function_call", "custom_tool_call", "mcp_call"):
        yield from _all("tool", "OpenAI responses", f"{_RESPONSES}/object",
                        f'$.output[*] ? (@.type == "{kind}")')  # fmt: skip
        yield from _all(
            "tool", "OpenAI responses", _STREAM,
            f'$ ? (@.type == "response.output_item.done").item ? (@.type == "{kind}")',
            kind="delta",
        )  # fmt: skip
    for kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        yield from _all("tool", "Anthropic", ANTHROPIC, f'$.content[*] ? (@.type == "{kind}")')
        yield from _all("tool", "Anthropic", _ANTHROPIC_STREAM,
                        f'$.content_block ? (@.type == "{kind}")', kind="delta")  # fmt: skip
    yield from _all("tool", "Anthropic", _ANTHROPIC_STREAM,
                    '$.delta ? (@.type == "input_json_delta")', kind="delta")  # fmt: skip
    yield from _all("tool", "Gemini", GEMINI, "$.content.parts[*].functionCall",
                    each="$.candidates[*]")  # fmt: skip
    yield from _all("tool", "Gemini by Python", _GENAI, "$.content.parts[*].function_call",
                    each="$.candidates[*]")  # fmt: skip
    yield from _all("tool", "Bedrock Converse", _CONVERSE, "$.output.message.content[*].toolUse")
    yield from _all(
        "tool", "Bedrock Converse", _CONVERSE_STREAM,
        "$.contentBlockStart.start.toolUse", "$.contentBlockDelta.delta.toolUse", kind="delta",
    )  # fmt: skip
    yield from _all("tool", "Ollama", OLLAMA, "$.message.tool_calls[*]")
    yield from _all("tool", "Cohere chat", _COHERE_STREAM, "$.delta.message.tool_calls",
                    kind="delta")  # fmt: skip
    yield from _all("tool", "Mistral conversations", _CONVERSATIONS,
                    '$.outputs[*] ? (@.type == "function.call")')  # fmt: skip
    yield from _all("tool", "LangChain", _LANGCHAIN_DUMP, "$.kwargs.tool_calls[*]")
    yield from _all("tool", "LangChain", LANGCHAIN, "$.tool_call_chunks[*]", kind="delta")
    yield from _all("tool", "LangChain", LANGCHAIN, "$.tool_calls[*]")
    yield from _all("tool", "AI SDK", AI_SDK, "$.toolCalls[*]")
    for name in ("function.name", "custom.name", "name", "toolName"):
        source = AI_SDK if name == "toolName" else f"{_CHAT}/object"
        yield from _all("tool_name", "OpenAI chat", source, f"$.{name}{_TEXT}")
    for name, api, source in (
        ("function.arguments", "OpenAI chat", f"{_CHAT}/object"),
        ("custom.input", "OpenAI chat", f"{_CHAT}/object"),
        ("arguments", "OpenAI responses", f"{_RESPONSES}/object"),
        ("input", "Anthropic", ANTHROPIC),
        ("partial_json", "Anthropic", _ANTHROPIC_STREAM),
        ("args", "Gemini", GEMINI),
        ("parameters", "Cohere chat v1", _COHERE_1),
    ):
        yield from _all("tool_arguments", api, source, f"$.{name}")


def _media() -> Iterator[Shape]:
    yield from _all("image", "OpenAI images", f"{OPENAI}/images/object",
                    "$.data[*].b64_json", "$.data[*].url")  # fmt: skip
    yield from _all("image_input", "OpenAI images", f"{OPENAI}/images/createEdit", "$.image[*]")
    yield from _all("image", "OpenAI responses", f"{_RESPONSES}/object",
                    '$.output[*] ? (@.type == "image_generation_call").result')  # fmt: skip
    yield from _all("image", "OpenRouter", "https://openrouter.ai/docs/features/multimodal/"
                    "image-generation", "$.choices[*].message.images[*]")  # fmt: skip
    yield from _all("image_input", "Ollama", OLLAMA, "$.images[*]", "$.messages[*].images[*]")
    yield from _all("image", "Bedrock, Titan images",
                    f"{INVOKE}/model-parameters-titan-image.html", "$.images[*]")  # fmt: skip
    yield from _all("image", "Stability", "https://platform.stability.ai/docs/api-reference",
                    "$.artifacts[*].base64")  # fmt: skip
    yield from _all("image", "AI SDK", AI_SDK,
                    '$.files[*] ? (@.mediaType starts with "image/")')  # fmt: skip
    yield from _all("audio", "AI SDK", AI_SDK,
                    '$.files[*] ? (@.mediaType starts with "audio/")')  # fmt: skip
    yield from _all("audio", "OpenAI chat", f"{_CHAT}/object", "$.choices[*].message.audio.data")
    yield from _all("audio_input", "OpenAI transcription", f"{OPENAI}/audio/createTranscription",
                    "$.file")  # fmt: skip

    yield from _all("other", "OpenAI embeddings", f"{OPENAI}/embeddings/object",
                    "$.data[*].embedding")  # fmt: skip
    yield from _all("other", "Gemini embeddings", "https://ai.google.dev/api/embeddings",
                    "$.embedding", "$.embeddings")  # fmt: skip
    yield from _all("other", "Bedrock, Titan embeddings",
                    f"{INVOKE}/model-parameters-titan-embed-text.html",
                    "$.embeddingsByType")  # fmt: skip
    yield from _all("other", "Cohere reranking", "https://docs.cohere.com/v2/reference/rerank",
                    "$.results[*].relevance_score")  # fmt: skip
    yield from _all("other", "AI SDK objects",
                    "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-object",
                    "$.object" + _OBJECT)  # fmt: skip
    yield from _all("other", "OpenAI moderation", f"{OPENAI}/moderations/object",
                    "$.results[*].categories")  # fmt: skip


_HIDDEN = "".join(
    f' || @.type == "{kind}"'
    for kind in ("reasoning", "thinking", "redacted_thinking", "summary_text", "reasoning_text")
)


def _parts() -> Iterator[Shape]:
    yield from _all("role", "OpenAI chat", f"{_CHAT}/create", "$.role" + _TEXT)
    yield from _all("role", "LangChain", LANGCHAIN,
                    '$.type ? (@ == "system" || @ == "human" || @ == "ai" || @ == "tool")')  # fmt: skip
    yield from _all("content", "OpenAI chat", f"{_CHAT}/create", "$.content")
    yield from _all("content", "Gemini", GEMINI, "$.parts")
    yield from _all("content", "Cohere chat v1", _COHERE_1, "$.message" + _TEXT)
    yield from _all("content", "OpenAI responses", f"{_RESPONSES}/create",
                    '$ ? (@.type == "function_call_output").output')  # fmt: skip
    yield from _all("content", "LangChain", _LANGCHAIN_DUMP, "$.kwargs.content")
    yield from _all("content", "Gemini", GEMINI, "$ ? (exists (@.text))")

    # Reasoning is no text of an answer.
    yield from _all("text", "OpenAI chat", f"{_CHAT}/create", "$" + _TEXT)
    yield from _all("text", "Gemini", GEMINI,
                    f"$ ? (!(@.thought == true{_HIDDEN})).text" + _TEXT)  # fmt: skip
    yield from _all("text", "OpenAI chat", f"{_CHAT}/object", "$.refusal" + _TEXT)
    yield from _all("text", "OpenAI realtime", f"{_REALTIME}/done", "$.transcript" + _TEXT)
    yield from _all("nested", "Anthropic", ANTHROPIC,
                    '$ ? (@.type == "tool_result").content[*]')  # fmt: skip
    yield from _all("nested", "Bedrock Converse", _CONTENT_BLOCK, "$.toolResult.content[*]")
    for kind, api, source in (
        ("image_url", "OpenAI chat", f"{_CHAT}/create"),
        ("input_image", "OpenAI responses", f"{_RESPONSES}/create"),
        ("image", "Anthropic", ANTHROPIC),
    ):
        yield from _all("image_part", api, source, f'$ ? (@.type == "{kind}")')
    yield from _all("image_part", "Bedrock Converse", _CONTENT_BLOCK, "$.image.source")
    for kind, part in (("image", "image_part"), ("audio", "audio_part")):
        of: Part = part  # type: ignore[assignment]
        for api, source, data, file, mime in (
            ("Gemini", GEMINI, "inlineData", "fileData", "mimeType"),
            ("Gemini by Python", _GENAI, "inline_data", "file_data", "mime_type"),
        ):
            starts = f' ? (@.{mime} starts with "{kind}/")'
            yield from _all(of, api, source, f"$.{data}{starts}", f"$.{file}{starts}")
        yield from _all(of, "AI SDK", AI_SDK,
                        f'$ ? (@.type == "file" && @.mediaType starts with "{kind}/")')  # fmt: skip
    for kind in ("input_audio", "output_audio", "audio"):
        yield from _all("audio_part", "OpenAI chat", f"{_CHAT}/create", f'$ ? (@.type == "{kind}")')
    yield from _all("audio_part", "Bedrock Converse", _CONTENT_BLOCK, "$.audio.source")


def _containers() -> Iterator[Shape]:
    yield from _all("request_container", "", "", *(f"$.{name}" for name in REQUEST_CONTAINERS))
    yield from _all("response_container", "", "", *(f"$.{name}" for name in CONTAINERS))


SHAPES: tuple[Shape, ...] = (
    *_requests(), *_answers(), *_tools(), *_media(), *_parts(), *_containers(),
)  # fmt: skip

"""Where messages, parts of contents and bodies hold texts and media."""

from __future__ import annotations

from collections.abc import Iterator

from etl.transform.provider_pages import (
    AI_SDK,
    ANTHROPIC,
    COHERE,
    GEMINI,
    INVOKE,
    LANGCHAIN,
    MISTRAL,
    OLLAMA,
    OPENAI,
)
from etl.transform.shape import Part, Shape, rows

_OCR = f"{MISTRAL}/endpoint/ocr"
_INTERACTIONS = "https://ai.google.dev/gemini-api/docs/function-calling"
_CHAT = f"{OPENAI}/chat"
_RESPONSES = f"{OPENAI}/responses"
_REALTIME = f"{OPENAI}/realtime-server-events/response"
_CONTENT_BLOCK = (
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html"
)
_COHERE_1 = "https://docs.cohere.com/v1/reference/chat"
_GENAI = "https://googleapis.github.io/python-genai/genai.html"
_LANGCHAIN_DUMP = "https://reference.langchain.com/python/langchain_core/load/"
_TEXT = ' ? (@.type() == "string")'
_ROLE = 'like_regex "^(system|developer|user|human|assistant|ai|tool|function)$"'
_OBJECT = ' ? (@.type() == "object")'


def media() -> Iterator[Shape]:
    """Return the places of images, audio and results without text."""
    yield from rows(
        "image", "OpenAI images", f"{OPENAI}/images/object", "$.data[*].b64_json", "$.data[*].url"
    )
    yield from rows("image_input", "OpenAI images", f"{OPENAI}/images/createEdit", "$.image[*]")
    yield from rows(
        "image",
        "OpenAI responses",
        f"{_RESPONSES}/object",
        '$.output[*] ? (@.type == "image_generation_call").result',
    )
    yield from rows(
        "image",
        "OpenRouter",
        "https://openrouter.ai/docs/features/multimodal/image-generation",
        "$.choices[*].message.images[*]",
    )
    yield from rows(
        "image",
        "OpenAI images",
        f"{OPENAI}/images-streaming",
        '$ ? (@.type == "image_generation.completed" || @.type == "image_edit.completed").b64_json',
    )
    yield from rows(
        "image",
        "Vertex, Imagen",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api",
        "$.predictions[*].bytesBase64Encoded",
        "$.predictions[*].gcsUri",
    )
    yield from rows(
        "image_input",
        "Vertex, Imagen",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api-edit",
        "$.instances[*].referenceImages[*].referenceImage",
        "$.instances[*].image",
    )
    yield from rows(
        "image",
        "Gemini by Python",
        _GENAI,
        "$.generated_images[*].image",
        "$.generatedImages[*].image",
    )
    yield from rows(
        "image_input",
        "Bedrock, Titan images",
        f"{INVOKE}/model-parameters-titan-image.html",
        "$.textToImageParams.conditionImage",
        "$.inPaintingParams.image",
        "$.outPaintingParams.image",
        "$.imageVariationParams.images[*]",
    )
    yield from rows("image_input", "Ollama", OLLAMA, "$.messages[*].images[*]")
    yield from rows(
        "image_input",
        "OpenRouter images",
        "https://openrouter.ai/docs/guides/overview/multimodal/image-generation",
        "$.input_references[*]",
    )
    yield from rows(
        "image",
        "Bedrock, Titan images",
        f"{INVOKE}/model-parameters-titan-image.html",
        "$.images[*]",
    )
    yield from rows(
        "image",
        "Stability",
        "https://platform.stability.ai/docs/api-reference",
        "$.artifacts[*].base64",
    )
    yield from rows("image", "AI SDK", AI_SDK, '$.files[*] ? (@.mediaType starts with "image/")')
    yield from rows("audio", "AI SDK", AI_SDK, '$.files[*] ? (@.mediaType starts with "audio/")')
    yield from rows("audio", "OpenAI chat", f"{_CHAT}/object", "$.choices[*].message.audio.data")
    yield from rows(
        "audio_input", "OpenAI transcription", f"{OPENAI}/audio/createTranscription", "$.file"
    )
    yield from rows(
        "image_input", "Mistral OCR", _OCR, '$.document ? (@.type == "image_url").image_url'
    )
    yield from rows(
        "file_input",
        "Mistral OCR",
        _OCR,
        '$.document ? (@.type == "document_url" || @.type == "file")',
    )

    yield from rows(
        "other", "OpenAI embeddings", f"{OPENAI}/embeddings/object", "$.data[*].embedding"
    )
    yield from rows(
        "other",
        "Gemini embeddings",
        "https://ai.google.dev/api/embeddings",
        "$.embedding",
        "$.embeddings",
    )
    # A refusal before the model read the prompt.
    yield from rows("other", "Gemini", GEMINI, "$.promptFeedback.blockReason")
    yield from rows("other", "Gemini by Python", _GENAI, "$.prompt_feedback.block_reason")
    yield from rows(
        "other",
        "Bedrock, Titan embeddings",
        f"{INVOKE}/model-parameters-titan-embed-text.html",
        "$.embeddingsByType",
    )
    yield from rows(
        "other",
        "Vertex, embeddings",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api",
        "$.predictions[*].embeddings",
    )
    yield from rows(
        "other",
        "Cohere classification",
        "https://docs.cohere.com/v1/reference/classify",
        "$.classifications[*]",
    )
    yield from rows(
        "other",
        "Cohere reranking",
        "https://docs.cohere.com/v2/reference/rerank",
        "$.results[*].relevance_score",
    )
    yield from rows(
        "other", "OpenAI moderation", f"{OPENAI}/moderations/object", "$.results[*].categories"
    )


_HIDDEN = "".join(
    f' || @.type == "{kind}"'
    for kind in ("reasoning", "thinking", "redacted_thinking", "summary_text", "reasoning_text")
)


def parts() -> Iterator[Shape]:
    """Return the places inside of messages and their parts."""
    # Results of tools that are sent as messages of the user, or without a role.
    for api, source, result in (
        (
            "OpenAI responses",
            f"{_RESPONSES}/create",
            'exists ($ ? (@.type like_regex "_call_output$|^function[._]result$"))',
        ),
        (
            "Anthropic",
            ANTHROPIC,
            'exists ($.content[*] ? (@.type == "tool_result"))'
            ' && !exists ($.content[*] ? (@.type != "tool_result"))',
        ),
        (
            "Bedrock Converse",
            _CONTENT_BLOCK,
            "exists ($.content[*].toolResult) && !exists ($.content[*] ? (!exists (@.toolResult)))",
        ),
        (
            "Gemini",
            GEMINI,
            "exists ($.parts[*].functionResponse)"
            " && !exists ($.parts[*] ? (!exists (@.functionResponse)))",
        ),
        (
            "Gemini by Python",
            _GENAI,
            "exists ($.parts[*].function_response)"
            " && !exists ($.parts[*] ? (!exists (@.function_response)))",
        ),
    ):
        yield from rows("role", api, source, f'"tool" ? ({result})')
    yield from rows(
        "role", "Gemini interactions", _INTERACTIONS, '"model" ? ($.type == "model_output")'
    )
    yield from rows("role", "OpenAI chat", f"{_CHAT}/create", "$.role" + _TEXT)
    yield from rows(
        "role",
        "LangChain",
        LANGCHAIN,
        '$.type ? (@ == "system" || @ == "human" || @ == "ai" || @ == "tool")',
    )
    # A pair of role and content. `$[0]` of a message that is not a list is the message itself.
    yield from rows("role", "LangChain", LANGCHAIN, f"$[0] ? (@ {_ROLE} && exists ($[1]))")
    yield from rows("content", "OpenAI chat", f"{_CHAT}/create", "$.content")
    yield from rows("content", "Gemini", GEMINI, "$.parts")
    yield from rows("content", "Cohere chat v1", _COHERE_1, "$.message" + _TEXT)
    yield from rows(
        "content",
        "OpenAI responses",
        f"{_RESPONSES}/create",
        '$ ? (@.type like_regex "_call_output$").output',
    )
    yield from rows(
        "content",
        "Mistral conversations",
        f"{MISTRAL}/endpoint/beta/conversations",
        '$ ? (@.type like_regex "^function[._]result$").result',
    )
    yield from rows("content", "LangChain", LANGCHAIN, "$.data.content")
    yield from rows("content", "LangChain", _LANGCHAIN_DUMP, "$.kwargs.content")
    yield from rows("content", "Gemini", GEMINI, "$ ? (exists (@.text))")
    # A part in the place of a message.
    yield from rows("content", "Gemini interactions", GEMINI, '$ ? (@.type == "image")')
    for name in ("inlineData", "inline_data", "fileData", "file_data"):
        yield from rows("content", "Gemini", GEMINI, f"$ ? (exists (@.{name}))")
    yield from rows("content", "LangChain", LANGCHAIN, f"$[1] ? (exists ($[0] ? (@ {_ROLE})))")

    # Reasoning is not part of an answer.
    yield from rows("text", "OpenAI chat", f"{_CHAT}/create", "$" + _TEXT)
    yield from rows("text", "Gemini", GEMINI, f"$ ? (!(@.thought == true{_HIDDEN})).text" + _TEXT)
    yield from rows("text", "OpenAI chat", f"{_CHAT}/object", "$.refusal" + _TEXT)
    yield from rows("text", "OpenAI realtime", f"{_REALTIME}/done", "$.transcript" + _TEXT)
    yield from rows(
        "text",
        "Anthropic",
        ANTHROPIC,
        '$ ? (@.type == "document").source ? (@.type == "text").data',
    )
    yield from rows("text", "Cohere chat", COHERE, '$ ? (@.type == "document").document.data')
    # Results of tools as JSON.
    yield from rows("text", "Gemini", GEMINI, "$.functionResponse.response")
    yield from rows("text", "Gemini by Python", _GENAI, "$.function_response.response")
    yield from rows("text", "Bedrock Converse", _CONTENT_BLOCK, "$.json" + _OBJECT)
    yield from rows(
        "text",
        "AI SDK",
        AI_SDK,
        '$ ? (@.type == "tool-result").output ? (@.type != "content").value',
        '$ ? (@.type == "tool-result").result',
    )
    yield from rows(
        "text", "OpenAI responses", f"{_RESPONSES}/create", "$ ? (exists (@.outcome)).stdout"
    )
    yield from rows("text", "Bedrock Converse", _CONTENT_BLOCK, "$.guardContent.text.text")
    yield from rows("text", "Bedrock Converse", _CONTENT_BLOCK, "$.document.source.text")
    yield from rows(
        "nested",
        "AI SDK",
        AI_SDK,
        '$ ? (@.type == "tool-result").output ? (@.type == "content").value[*]',
    )
    yield from rows("nested", "Bedrock Converse", _CONTENT_BLOCK, "$.citationsContent.content[*]")
    yield from rows(
        "nested",
        "Anthropic",
        ANTHROPIC,
        '$ ? (@.type == "search_result").content[*]',
        '$ ? (@.type == "document").source ? (@.type == "content").content[*]',
    )
    yield from rows("nested", "Anthropic", ANTHROPIC, '$ ? (@.type == "tool_result").content[*]')
    yield from rows("nested", "Bedrock Converse", _CONTENT_BLOCK, "$.toolResult.content[*]")
    for kind, api, source in (
        ("image_url", "OpenAI chat", f"{_CHAT}/create"),
        ("input_image", "OpenAI responses", f"{_RESPONSES}/create"),
        ("image", "Anthropic", ANTHROPIC),
    ):
        yield from rows("image_part", api, source, f'$ ? (@.type == "{kind}")')
    yield from rows("image_part", "Bedrock Converse", _CONTENT_BLOCK, "$.image.source")
    for kind, part in (("image", "image_part"), ("audio", "audio_part")):
        of: Part = part  # type: ignore[assignment]
        for api, source, data, file, mime in (
            ("Gemini", GEMINI, "inlineData", "fileData", "mimeType"),
            ("Gemini by Python", _GENAI, "inline_data", "file_data", "mime_type"),
        ):
            starts = f' ? (@.{mime} starts with "{kind}/")'
            yield from rows(of, api, source, f"$.{data}{starts}", f"$.{file}{starts}")
        yield from rows(
            of, "AI SDK", AI_SDK, f'$ ? (@.type == "file" && @.mediaType starts with "{kind}/")'
        )
    for kind in ("input_audio", "output_audio", "audio"):
        yield from rows("audio_part", "OpenAI chat", f"{_CHAT}/create", f'$ ? (@.type == "{kind}")')
    yield from rows("audio_part", "Bedrock Converse", _CONTENT_BLOCK, "$.audio.source")

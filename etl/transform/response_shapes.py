"""Where responses hold answers and tool calls."""

from __future__ import annotations

from collections.abc import Iterator

from etl.transform.provider_pages import (
    AI_SDK,
    ANTHROPIC,
    GEMINI,
    INVOKE,
    LANGCHAIN,
    MISTRAL,
    OLLAMA,
    OPENAI,
)
from etl.transform.shape import Shape, rows

_CHAT = f"{OPENAI}/chat"
_RESPONSES = f"{OPENAI}/responses"
_REALTIME = f"{OPENAI}/realtime-server-events/response"
_STREAM = f"{OPENAI}/responses-streaming"
_CONVERSE = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"
_CONVERSE_STREAM = (
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html"
)
_ANTHROPIC_STREAM = "https://docs.claude.com/en/build-with-claude/streaming"
_BATCHES = "https://docs.claude.com/en/build-with-claude/batch-processing"
_ANTHROPIC_LEGACY = "https://docs.claude.com/en/api/complete"
_COHERE_1 = "https://docs.cohere.com/v1/reference/chat"
_COHERE_STREAM = "https://docs.cohere.com/v2/reference/chat-stream"
_GENAI = "https://googleapis.github.io/python-genai/genai.html"
_CONVERSATIONS = f"{MISTRAL}/endpoint/beta/conversations"
_LANGCHAIN_DUMP = "https://reference.langchain.com/python/langchain_core/load/"
_AI_STREAM = "https://ai-sdk.dev/docs/reference/ai-sdk-core/stream-text"
_INTERACTIONS = "https://ai.google.dev/gemini-api/docs/interactions-breaking-changes-may-2026"
_INTERACTIONS_STREAM = "https://ai.google.dev/gemini-api/docs/interactions/streaming"
_LANGGRAPH = "https://reference.langchain.com/python/langgraph/graph/message/MessagesState"
_XAI_PROTO = "https://github.com/xai-org/xai-proto"
_UI_STREAM = "https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol"
# These have no name: their type names them.
_OWN_TOOLS = (
    "web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search"
)
_TEXT = ' ? (@.type() == "string")'
# Events repeat in `text` what their deltas have reported, or hold reasoning in it.
_NO_EVENT = '$ ? (!(@.type like_regex "^response[.]|-delta$"))'
# The last message of a state is the model's answer.
_SAID = '$.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant")'
_SAID_DUMP = '$.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs'


def answers() -> Iterator[Shape]:
    """Return the places of answers."""
    choices = {"each": "$.choices[*]"}
    chat, chunk = f"{_CHAT}/object", f"{OPENAI}/chat-streaming"
    yield from rows(
        "answer",
        "OpenAI chat",
        chat,
        "$.message.content",
        "$.message.refusal",
        "$.message.audio.transcript",
        **choices,
    )
    yield from rows(
        "answer",
        "OpenAI chat",
        chunk,
        "$.delta.content",
        "$.delta.refusal",
        "$.delta.audio.transcript",
        **choices,
        kind="delta",
    )
    yield from rows(
        "answer",
        "OpenAI completions",
        f"{OPENAI}/completions/object",
        "$.text",
        **choices,
        kind="either",
    )
    yield from rows(
        "answer",
        "OpenAI responses",
        f"{_RESPONSES}/object",
        '$.output[*] ? (@.type == "message").content',
    )
    for event, source in (
        ("output_text", _STREAM),
        ("refusal", _STREAM),
        ("audio.transcript", _STREAM),
        ("text", f"{_REALTIME}/text/delta"),
        ("output_audio_transcript", f"{_REALTIME}/output_audio_transcript/delta"),
        ("audio_transcript", f"{_REALTIME}/audio_transcript/delta"),
    ):
        yield from rows(
            "answer",
            "OpenAI responses",
            source,
            f'$ ? (@.type == "response.{event}.delta").delta',
            kind="delta",
        )
    yield from rows(
        "answer",
        "OpenAI transcription",
        f"{OPENAI}/audio/json-object",
        '$ ? (@.type == "transcript.text.delta").delta',
        kind="delta",
    )
    yield from rows(
        "answer", "Gemini", GEMINI, "$.content.parts", each="$.candidates[*]", kind="either"
    )
    yield from rows(
        "answer",
        "Gemini interactions",
        _INTERACTIONS,
        '$.steps[*] ? (@.type == "model_output").content',
    )
    yield from rows("answer", "Bedrock Converse", _CONVERSE, "$.output.message.content")
    yield from rows(
        "answer",
        "Bedrock Converse",
        _CONVERSE_STREAM,
        "$.contentBlockDelta.delta.text",
        kind="delta",
    )
    yield from rows(
        "answer",
        "Bedrock, Titan",
        f"{INVOKE}/model-parameters-titan-text.html",
        "$.outputText",
        each="$.results[*]",
    )
    yield from rows(
        "answer",
        "Bedrock, Titan",
        f"{INVOKE}/model-parameters-titan-text.html",
        "$.outputText",
        kind="either",
    )
    yield from rows(
        "answer",
        "Bedrock, Llama",
        f"{INVOKE}/model-parameters-meta.html",
        "$.generation" + _TEXT,
        kind="either",
    )
    yield from rows(
        "answer",
        "Bedrock, Mistral",
        f"{INVOKE}/model-parameters-mistral-text-completion.html",
        "$.text",
        each="$.outputs[*]",
        kind="either",
    )
    yield from rows(
        "answer",
        "Mistral conversations",
        _CONVERSATIONS,
        '$.outputs[*] ? (@.type == "message.output").content',
    )
    yield from rows(
        "answer",
        "Mistral conversations",
        _CONVERSATIONS,
        '$ ? (@.type == "message.output.delta").content',
        kind="delta",
    )
    yield from rows("answer", "xAI by gRPC", _XAI_PROTO, "$.message.content", each="$.outputs[*]")
    yield from rows(
        "answer", "Mistral OCR", f"{MISTRAL}/endpoint/ocr", "$.markdown", each="$.pages[*]"
    )
    yield from rows(
        "answer",
        "Bedrock, Cohere",
        f"{INVOKE}/model-parameters-cohere-command.html",
        "$.text",
        each="$.generations[*][*]",
        kind="either",
    )
    yield from rows(
        "answer",
        "Bedrock, AI21",
        f"{INVOKE}/model-parameters-jurassic2.html",
        "$.data.text",
        each="$.completions[*]",
    )
    yield from rows(
        "answer", "Cohere chat", _COHERE_STREAM, "$.delta.message.content", kind="delta"
    )
    yield from rows("answer", "Anthropic", _ANTHROPIC_STREAM, "$.delta.text", kind="delta")
    yield from rows(
        "answer", "Anthropic batches", _BATCHES, '$.message ? (@.type == "message").content'
    )
    yield from rows("answer", "Ollama", OLLAMA, "$.message.content", kind="either")
    yield from rows(
        "answer", "Anthropic completions", _ANTHROPIC_LEGACY, "$.completion" + _TEXT, kind="either"
    )
    yield from rows(
        "answer",
        "Cohere chat v1",
        "https://docs.cohere.com/v1/reference/chat-stream",
        '$ ? (@.event_type == "text-generation").text',
        kind="delta",
    )
    for name in ("text", "textDelta", "delta"):
        yield from rows(
            "answer",
            "AI SDK",
            _AI_STREAM,
            f'$ ? (@.type == "text-delta").{name}' + _TEXT,
            kind="delta",
        )
    yield from rows(
        "answer", "OpenAI transcription", f"{OPENAI}/audio/json-object", _NO_EVENT + ".text" + _TEXT
    )
    yield from rows("answer", "LangChain", _LANGCHAIN_DUMP, "$.kwargs.content")
    yield from rows(
        "answer", "LangChain", LANGCHAIN, '$ ? (@.type == "AIMessageChunk").content', kind="delta"
    )
    yield from rows(
        "answer",
        "LangGraph",
        _LANGGRAPH,
        f"{_SAID}.content",
        f"{_SAID}.data.content",
        f"{_SAID_DUMP}.content",
    )
    yield from rows(
        "answer", "Anthropic", ANTHROPIC, '$ ? (!(@.type == "thought_summary")).content'
    )
    yield from rows("answer", "Ollama", OLLAMA, "$.response" + _TEXT, kind="either")
    yield from rows(
        "answer",
        "Hugging Face",
        "https://huggingface.co/docs/inference-providers/tasks/text-generation",
        "$.generated_text" + _TEXT,
    )
    yield from rows(
        "answer",
        "AI SDK objects",
        "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-object",
        '$ ? (!exists (@.type)) ? (exists (@.finishReason) || @.object.type() == "object"'
        ' || @.object.type() == "array").object',
        kind="json",
    )


def tools() -> Iterator[Shape]:
    """Return the places of tool calls, and the places inside of them."""
    choices = {"each": "$.choices[*]"}
    yield from rows("tool", "OpenAI chat", f"{_CHAT}/object", "$.message.tool_calls[*]", **choices)
    yield from rows("tool", "OpenAI chat", f"{_CHAT}/object", "$.message.function_call", **choices)
    yield from rows(
        "tool",
        "OpenAI chat",
        f"{OPENAI}/chat-streaming",
        "$.delta.tool_calls[*]",
        "$.delta.function_call",
        **choices,
        kind="delta",
    )
    # One path for all kinds keeps their order.
    called = f' ? (@.type like_regex "^(function|custom_tool|mcp|{_OWN_TOOLS})_call$")'
    yield from rows("tool", "OpenAI responses", f"{_RESPONSES}/object", f"$.output[*]{called}")
    yield from rows(
        "tool",
        "OpenAI responses",
        _STREAM,
        f'$ ? (@.type == "response.output_item.done").item{called}',
        kind="delta",
    )
    used = ' ? (@.type like_regex "^(server_|mcp_)?tool_use$")'
    yield from rows("tool", "Anthropic", ANTHROPIC, f"$.content[*]{used}")
    yield from rows("tool", "Anthropic batches", _BATCHES, f"$.message.content[*]{used}")
    yield from rows("tool", "Anthropic", _ANTHROPIC_STREAM, f"$.content_block{used}", kind="delta")
    yield from rows(
        "tool",
        "Anthropic",
        _ANTHROPIC_STREAM,
        '$.delta ? (@.type == "input_json_delta" && exists (@.partial_json))',
        kind="delta",
    )
    yield from rows(
        "tool", "Gemini", GEMINI, "$.content.parts[*].functionCall", each="$.candidates[*]"
    )
    yield from rows(
        "tool",
        "Gemini by Python",
        _GENAI,
        "$.content.parts[*].function_call",
        each="$.candidates[*]",
    )
    yield from rows("tool", "Bedrock Converse", _CONVERSE, "$.output.message.content[*].toolUse")
    yield from rows(
        "tool",
        "Bedrock Converse",
        _CONVERSE_STREAM,
        "$.contentBlockStart.start.toolUse",
        "$.contentBlockDelta.delta.toolUse",
        kind="delta",
    )
    yield from rows("tool", "Ollama", OLLAMA, "$.message.tool_calls[*]")
    yield from rows(
        "tool", "Cohere chat", _COHERE_STREAM, "$.delta.message.tool_calls", kind="delta"
    )
    yield from rows(
        "tool",
        "Mistral conversations",
        _CONVERSATIONS,
        '$.outputs[*] ? (@.type == "function.call" || @.type == "tool.execution")',
    )
    for name in ("steps", "outputs"):
        yield from rows(
            "tool",
            "Gemini interactions",
            _INTERACTIONS,
            f'$.{name}[*] ? (@.type == "function_call")',
        )
    yield from rows(
        "tool",
        "Gemini interactions",
        _INTERACTIONS_STREAM,
        '$.step ? (@.type == "function_call")',
        '$.delta ? (@.type == "arguments_delta" && exists (@.arguments))',
        '$.delta ? (@.type == "function_call" && exists (@.name))',
        kind="delta",
    )
    yield from rows(
        "tool",
        "Mistral conversations",
        _CONVERSATIONS,
        '$ ? (@.type like_regex "^(function.call|tool.execution).(delta|started)$"'
        " && exists (@.output_index))",
        kind="delta",
    )
    yield from rows(
        "tool",
        "xAI by gRPC",
        _XAI_PROTO,
        "$.message.tool_calls[*]",
        "$.message.toolCalls[*]",
        each="$.outputs[*]",
    )
    yield from rows("tool", "LangChain", _LANGCHAIN_DUMP, "$.kwargs.tool_calls[*]")
    yield from rows("tool", "LangChain", LANGCHAIN, "$.tool_call_chunks[*]", kind="delta")
    yield from rows("tool", "LangChain", LANGCHAIN, "$.tool_calls[*]")
    yield from rows(
        "tool",
        "LangGraph",
        _LANGGRAPH,
        f"{_SAID}.tool_calls[*]",
        f"{_SAID}.data.tool_calls[*]",
        f"{_SAID_DUMP}.tool_calls[*]",
    )
    yield from rows(
        "tool", "LangChain", _LANGCHAIN_DUMP, "$.generations[*][*].message.kwargs.tool_calls[*]"
    )
    yield from rows("tool", "AI SDK", AI_SDK, "$.toolCalls[*]")
    yield from rows(
        "tool", "AI SDK", _AI_STREAM, '$ ? (@.type == "tool-call" && exists (@.toolName))'
    )
    yield from rows(
        "tool",
        "AI SDK",
        _UI_STREAM,
        '$ ? (@.type == "tool-input-available" && exists (@.toolName))',
    )
    yield from rows("tool", "AI SDK, a provider", AI_SDK, '$.content[*] ? (@.type == "tool-call")')
    for name in ("function.name", "custom.name", "name", "toolName"):
        source = AI_SDK if name == "toolName" else f"{_CHAT}/object"
        yield from rows("tool_name", "OpenAI chat", source, f"$.{name}{_TEXT}")
    yield from rows(
        "tool_name",
        "OpenAI responses",
        f"{_RESPONSES}/object",
        f'$.type ? (@ like_regex "^({_OWN_TOOLS})_call$")',
    )
    for name, api, source in (
        ("function.arguments", "OpenAI chat", f"{_CHAT}/object"),
        ("custom.input", "OpenAI chat", f"{_CHAT}/object"),
        ("arguments", "OpenAI responses", f"{_RESPONSES}/object"),
        ("input", "Anthropic", ANTHROPIC),
        ("partial_json", "Anthropic", _ANTHROPIC_STREAM),
        ("args", "Gemini", GEMINI),
        ("parameters", "Cohere chat v1", _COHERE_1),
        ("action", "OpenAI responses", f"{_RESPONSES}/object"),
        ("operation", "OpenAI responses", f"{_RESPONSES}/object"),
        ("queries", "OpenAI responses", f"{_RESPONSES}/object"),
        ("code", "OpenAI responses", f"{_RESPONSES}/object"),
    ):
        yield from rows("tool_arguments", api, source, f"$.{name}")

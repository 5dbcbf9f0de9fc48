"""Requests and responses of models as their public pages describe them, with what they say.

The words are invented. `tests/provider_bodies.py` has more responses, with their usage.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A step's payloads, and the columns of `model_calls` that follow from them."""

    name: str
    source: str
    """The public page that describes the request and the response."""
    inputs: Any = None
    outputs: Any = None
    prompt: str | None = None
    system: str | None = None
    answer: str | None = None
    tools: list[dict[str, Any]] | None = None
    images: int | None = 0
    audio: int | None = 0
    parameters: dict[str, Any] | None = None
    """None if there are no inputs."""


_OPENAI = "https://platform.openai.com/docs/api-reference"
_ANTHROPIC = "https://docs.claude.com/en/api/messages"
_GEMINI = "https://ai.google.dev/api/generate-content"
_BEDROCK = "https://docs.aws.amazon.com/bedrock/latest"
_LANGCHAIN = "https://reference.langchain.com/python/langchain_core/messages/"
_LANGGRAPH = "https://reference.langchain.com/python/langgraph/graph/message/MessagesState"
_THINKING = (
    "https://reference.langchain.com/python/langchain-groq/chat_models/ChatGroq/reasoning_format"
)
_PICTURE = "data:image/png;base64,aGk="


def _input(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m-1", "messages": [*messages], **more}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _reply(*messages: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "choices": [
            {"index": index, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
            for index, message in enumerate(messages)
        ],
    }


def _chunks(*deltas: dict[str, Any], index: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": "c-1",
            "object": "chat.completion.chunk",
            "choices": [{"index": index, "delta": one}],
        }
        for one in deltas
    ]


def _tool(arguments: Any, name: str = "look_up") -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


_CITY = {"city": "Łódź"}
_CITY_TEXT = json.dumps(_CITY)
_COMPLETION = _reply({"content": "Rain."})

CALLS = (
    Call("Orchestra's model node", "the project's recorded sample",
         _input({"role": "system", "content": "Be brief."}, _user("Rain today?"), stream=False,
                max_tokens=8192, temperature=0.7, top_p=1, top_k=50, repetition_penalty=0,
                run_id="r-1", input_data={"prompt": "Rain today?", "temperature": 9}),
         _COMPLETION, "Rain today?", "Be brief.", "Rain.",
         parameters={"stream": False, "max_tokens": 8192, "temperature": 0.7, "top_p": 1,
                     "top_k": 50, "repetition_penalty": 0}),
    Call("OpenAI chat, several messages", f"{_OPENAI}/chat/create",
         _input({"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                _user("Rain?"), {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "t", "type": "function",
                     "function": {"name": "look_up", "arguments": _CITY_TEXT}}]},
                {"role": "tool", "tool_call_id": "t", "content": "wet"}, _user("And tomorrow?"),
                tools=[{"type": "function", "function": {"name": "look_up"}}], tool_choice="auto",
                response_format={"type": "json_object"}, seed=7),
         _reply({"content": "Rain."}, {"content": None, "refusal": "No."}),
         "user: Rain?\n\ntool: wet\n\nuser: And tomorrow?", "Be brief.", "Rain.\n\nNo.",
         parameters={"tool_choice": "auto", "response_format": {"type": "json_object"}, "seed": 7}),
    Call("OpenAI chat, images and audio", f"{_OPENAI}/chat/create",
         _input(_user([{"type": "text", "text": "What is"},
                       {"type": "image_url", "image_url": {"url": _PICTURE}},
                       {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
                       {"type": "text", "text": "this?"}])),
         _reply({"content": None, "audio": {"id": "a", "data": "aGk=", "transcript": "Rain."}}),
         "What is\nthis?", None, "Rain.", images=1, audio=2, parameters={}),
    Call("OpenAI chat, tools", f"{_OPENAI}/chat/object", _input(_user("Rain?")),
         _reply({"content": None, "tool_calls": [
             {"id": "1", "type": "function",
              "function": {"name": "look_up", "arguments": _CITY_TEXT}},
             {"id": "2", "type": "function", "function": {"name": "pay", "arguments": "{broken"}},
             {"id": "3", "type": "custom", "custom": {"name": "run", "input": "print(1)"}}]}),
         "Rain?", tools=[_tool(_CITY), _tool("{broken", "pay"), _tool("print(1)", "run")],
         parameters={}),
    Call("OpenAI chat, the former function call", f"{_OPENAI}/chat/object", _input(_user("Rain?")),
         _reply({"content": None, "function_call": {"name": "look_up", "arguments": _CITY_TEXT}}),
         "Rain?", tools=[_tool(_CITY)], parameters={}),
    Call("OpenAI chat, as chunks", f"{_OPENAI}/chat-streaming", _input(_user("Rain?"), stream=True),
         [*_chunks({"role": "assistant", "content": ""}, {"content": "Ra"}),
          *_chunks({"content": "No"}, index=1), *_chunks({"content": "in."}),
          *_chunks({"content": "."}, index=1), {"id": "c-1", "choices": [], "usage": {}}],
         "Rain?", None, "Rain.\n\nNo.", parameters={"stream": True}),
    Call("OpenAI chat, tools as chunks", f"{_OPENAI}/chat-streaming", _input(_user("Rain?")),
         _chunks(
             {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "look_up",
                                                                  "arguments": ""}}]},
             {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
             {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "pay",
                                                                  "arguments": "{}"}}]},
             {"tool_calls": [{"index": 0, "function": {"arguments": '"Łódź"}'}}]}),
         "Rain?", tools=[_tool(_CITY), _tool({}, "pay")], parameters={}),
    Call("OpenAI responses", f"{_OPENAI}/responses/create",
         {"model": "m-1", "instructions": "Be brief.", "input": "Rain?", "store": False,
          "reasoning": {"effort": "low"}, "max_output_tokens": 50, "previous_response_id": "r-0"},
         {"object": "response", "output": [
             {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
             {"type": "message", "role": "assistant", "content": [
                 {"type": "output_text", "text": "Rain"}, {"type": "output_text", "text": "."}]},
             {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": _CITY_TEXT},
             {"type": "image_generation_call", "result": "aGk="}]},
         "Rain?", "Be brief.", "Rain.", [_tool(_CITY)], images=1,
         parameters={"store": False, "reasoning": {"effort": "low"}, "max_output_tokens": 50}),
    Call("OpenAI responses, items", f"{_OPENAI}/responses/create",
         {"input": [{"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "input_text", "text": "Rain?"},
                                                 {"type": "input_image", "image_url": _PICTURE}]},
                    {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "1", "output": "wet"}]},
         {"object": "response", "output": [
             {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
         "user: Rain?\n\ntool: wet", "Be brief.", "No.", images=1, parameters={}),
    Call("OpenAI responses, events", f"{_OPENAI}/responses-streaming", None,
         [{"type": "response.created", "response": {"object": "response", "output": []}},
          {"type": "response.output_text.delta", "delta": "Ra"},
          {"type": "response.output_text.delta", "delta": "in."},
          {"type": "response.output_text.done", "text": "Rain."},
          {"type": "response.output_item.done", "output_index": 1, "item": {
              "type": "function_call", "name": "look_up", "arguments": _CITY_TEXT}},
          {"type": "response.completed", "response": {"object": "response", "output": [
              {"type": "message", "content": [{"type": "output_text", "text": "Rain."}]},
              {"type": "function_call", "name": "look_up", "arguments": _CITY_TEXT}]}}],
         answer="Rain.", tools=[_tool(_CITY)]),
    Call("OpenAI responses, events that end early", f"{_OPENAI}/responses-streaming", None,
         [{"type": "response.output_text.delta", "delta": "Ra"},
          {"type": "response.reasoning_summary_text.delta", "delta": "Hm"},
          {"type": "response.output_text.delta", "delta": "in."},
          {"type": "response.output_item.done", "output_index": 1, "item": {
              "type": "function_call", "name": "look_up", "arguments": _CITY_TEXT}}],
         answer="Rain.", tools=[_tool(_CITY)]),
    Call("OpenAI completions", f"{_OPENAI}/completions/create",
         {"model": "m-1", "prompt": "Once", "max_tokens": 7, "n": 2, "user": "u-1"},
         {"object": "text_completion", "choices": [{"index": 0, "text": " upon"},
                                                   {"index": 1, "text": " more"}]},
         "Once", None, " upon\n\n more", parameters={"max_tokens": 7, "n": 2}),
    Call("OpenAI embeddings", f"{_OPENAI}/embeddings/create",
         {"model": "m-1", "input": ["Rain", "Sun"], "dimensions": 8, "encoding_format": "float"},
         {"object": "list", "data": [{"object": "embedding", "embedding": [0.1]}]},
         "user: Rain\n\nuser: Sun", parameters={"dimensions": 8, "encoding_format": "float"}),
    Call("OpenAI images", f"{_OPENAI}/images/create",
         {"model": "m-1", "prompt": "A cloud", "n": 2, "size": "1024x1024"},
         {"created": 1, "data": [{"b64_json": "aGk="}, {"url": "https://example.com/1.png"}]},
         "A cloud", images=2, parameters={"n": 2, "size": "1024x1024"}),
    Call("OpenAI transcription", f"{_OPENAI}/audio/createTranscription",
         {"model": "m-1", "file": "aGk=", "language": "en", "prompt": "Weather"},
         {"text": "Rain."}, "Weather", None, "Rain.", audio=1, parameters={"language": "en"}),
    Call("OpenAI speech", f"{_OPENAI}/audio/createSpeech",
         {"model": "m-1", "input": "Rain.", "voice": "alloy", "instructions": "Whisper."}, None,
         "Rain.", "Whisper.", parameters={"voice": "alloy"}),
    Call("OpenAI realtime", f"{_OPENAI}/realtime-server-events/response/done", None,
         {"type": "response.done", "response": {"object": "realtime.response", "output": [
             {"type": "message", "content": [{"type": "output_audio", "transcript": "Rain."}]},
             {"type": "function_call", "name": "look_up", "arguments": _CITY_TEXT}]}},
         answer="Rain.", tools=[_tool(_CITY)], audio=1),
    Call("OpenAI batch", "https://platform.openai.com/docs/guides/batch",
         {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
          "body": _input(_user("Rain?"), temperature=0)},
         [{"custom_id": "a", "response": {"status_code": 200, "body": _COMPLETION}},
          {"custom_id": "b",
           "response": {"status_code": 200, "body": _reply({"content": "Sun."})}}],
         "Rain?", None, "Rain.\n\nSun.", parameters={"temperature": 0}),
    Call("Anthropic", _ANTHROPIC,
         {"model": "m-1", "max_tokens": 50, "system": [{"type": "text", "text": "Be brief."},
                                                       {"type": "text", "text": "Be kind."}],
          "thinking": {"type": "enabled", "budget_tokens": 20}, "metadata": {"user_id": "u"},
          "messages": [
              _user([{"type": "image", "source": {"type": "base64", "data": "aGk="}},
                     {"type": "text", "text": "Rain?"}]),
              {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look_up",
                                                 "input": _CITY}]},
              _user([{"type": "tool_result", "tool_use_id": "t", "content": [
                  {"type": "text", "text": "wet"},
                  {"type": "image", "source": {"type": "url", "url": "https://example.com"}}]}])]},
         {"type": "message", "role": "assistant", "content": [
             {"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Rain"},
             {"type": "text", "text": " now."},
             {"type": "tool_use", "id": "u", "name": "look_up", "input": _CITY}]},
         "user: Rain?\n\ntool: wet", "Be brief.\nBe kind.", "Rain now.", [_tool(_CITY)], images=2,
         parameters={"max_tokens": 50, "thinking": {"type": "enabled", "budget_tokens": 20}}),
    Call("Anthropic, events", "https://docs.claude.com/en/build-with-claude/streaming",
         {"system": "Be brief.", "messages": [_user("Rain?")], "stream": True},
         [{"type": "message_start", "message": {"id": "m", "type": "message", "content": []}},
          {"type": "content_block_start", "index": 0, "content_block": {"type": "text",
                                                                        "text": ""}},
          {"type": "content_block_delta", "index": 0,
           "delta": {"type": "thinking_delta", "thinking": "Hm."}},
          {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta",
                                                                "text": "Ra"}},
          {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta",
                                                                "text": "in."}},
          {"type": "content_block_start", "index": 1, "content_block": {
              "type": "tool_use", "id": "t", "name": "look_up", "input": {}}},
          {"type": "content_block_delta", "index": 1, "delta": {
              "type": "input_json_delta", "partial_json": '{"city": "Łó'}},
          {"type": "content_block_delta", "index": 1, "delta": {
              "type": "input_json_delta", "partial_json": 'dź"}'}},
          {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}],
         "Rain?", "Be brief.", "Rain.", [_tool(_CITY)], parameters={"stream": True}),
    Call("Anthropic completions", "https://docs.claude.com/en/api/complete",
         {"model": "m-1", "prompt": "\n\nHuman: Rain?\n\nAssistant:", "max_tokens_to_sample": 9},
         {"type": "completion", "completion": " Rain.", "stop_reason": "stop_sequence"},
         "\n\nHuman: Rain?\n\nAssistant:", None, " Rain.", parameters={"max_tokens_to_sample": 9}),
    Call("Gemini", _GEMINI,
         {"systemInstruction": {"parts": [{"text": "Be brief."}]},
          "contents": [{"role": "user", "parts": [
              {"text": "Rain?"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
              {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}]}],
          "generationConfig": {"temperature": 0.5, "maxOutputTokens": 9}},
         {"candidates": [
             {"index": 0, "content": {"role": "model", "parts": [
                 {"text": "Hm.", "thought": True}, {"text": "Rain"}, {"text": "."},
                 {"functionCall": {"name": "look_up", "args": _CITY}}]}},
             {"index": 1, "content": {"role": "model", "parts": [
                 {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                 {"text": "Wet."}]}}]},
         "Rain?", "Be brief.", "Rain.\n\nWet.", [_tool(_CITY)], images=2, audio=1,
         parameters={"temperature": 0.5, "maxOutputTokens": 9}),
    Call("Gemini by Python", "https://googleapis.github.io/python-genai/genai.html",
         {"model": "m-1", "contents": ["Rain?", "Today?"],
          "config": {"system_instruction": "Be brief.", "temperature": 0.5}},
         {"candidates": [{"content": {"parts": [
             {"text": "Rain."}, {"function_call": {"name": "look_up", "args": _CITY}},
             {"inline_data": {"mime_type": "image/png", "data": "aGk="}}]}}]},
         "user: Rain?\n\nuser: Today?", "Be brief.", "Rain.", [_tool(_CITY)], images=1,
         parameters={"temperature": 0.5}),
    Call("Gemini, chunks", f"{_GEMINI}#method:-models.streamgeneratecontent",
         {"contents": {"parts": [{"text": "Rain?"}]}},
         [{"candidates": [{"content": {"parts": [{"text": "Ra"}]}}], "responseId": "r"},
          {"candidates": [{"content": {"parts": [{"text": "in."}]}}], "responseId": "r"}],
         "Rain?", None, "Rain.", parameters={}),
    Call("Gemini embeddings", "https://ai.google.dev/api/embeddings",
         {"model": "m-1", "content": {"parts": [{"text": "Rain"}]}, "outputDimensionality": 8},
         {"embedding": {"values": [0.1]}}, "Rain", parameters={"outputDimensionality": 8}),
    Call("Bedrock Converse", f"{_BEDROCK}/APIReference/API_runtime_Converse.html",
         {"modelId": "m-1", "system": [{"text": "Be brief."}],
          "messages": [_user([{"text": "Rain?"}, {"image": {"format": "png",
                                                            "source": {"bytes": "aGk="}}}]),
                       _user([{"toolResult": {"toolUseId": "t", "content": [{"text": "wet"}]}}])],
          "inferenceConfig": {"maxTokens": 9, "temperature": 0.5}},
         {"output": {"message": {"role": "assistant", "content": [
             {"reasoningContent": {"reasoningText": {"text": "Hm."}}}, {"text": "Rain."},
             {"toolUse": {"toolUseId": "u", "name": "look_up", "input": _CITY}}]}}},
         "user: Rain?\n\ntool: wet", "Be brief.", "Rain.", [_tool(_CITY)], images=1,
         parameters={"maxTokens": 9, "temperature": 0.5}),
    Call("Bedrock Converse, events", f"{_BEDROCK}/APIReference/API_runtime_ConverseStream.html",
         None,
         {"stream": [
             {"messageStart": {"role": "assistant"}},
             {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Ra"}}},
             {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "in."}}},
             {"contentBlockStart": {"contentBlockIndex": 1, "start": {"toolUse": {
                 "toolUseId": "t", "name": "look_up"}}}},
             {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {
                 "input": '{"city": '}}}},
             {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {
                 "input": '"Łódź"}'}}}}]},
         answer="Rain.", tools=[_tool(_CITY)]),
    Call("Bedrock, Nova", f"{_BEDROCK}/userguide/invoke-titan-text.html",
         {"body": json.dumps({"messages": [_user([{"text": "Rain?"}])],
                              "inferenceConfig": {"maxTokens": 9}})},
         {"body": json.dumps({"output": {"message": {"content": [{"text": "Rain."}]}}})},
         "Rain?", None, "Rain.", parameters={"maxTokens": 9}),
    Call("Bedrock, Titan", f"{_BEDROCK}/userguide/model-parameters-titan-text.html",
         {"inputText": "Rain?", "textGenerationConfig": {"temperature": 0.5, "topP": 1}},
         {"results": [{"outputText": "Rain.", "completionReason": "FINISH"}]},
         "Rain?", None, "Rain.", parameters={"temperature": 0.5, "topP": 1}),
    Call("Bedrock, Llama, chunks", f"{_BEDROCK}/userguide/model-parameters-meta.html",
         {"prompt": "Rain?", "max_gen_len": 9},
         [{"generation": "Ra"}, {"generation": "in.", "stop_reason": "stop"}],
         "Rain?", None, "Rain.", parameters={"max_gen_len": 9}),
    Call("Bedrock, Mistral", f"{_BEDROCK}/userguide/model-parameters-mistral-text-completion.html",
         {"prompt": "<s>[INST] Rain? [/INST]", "max_tokens": 9},
         {"outputs": [{"text": "Rain.", "stop_reason": "stop"}]},
         "<s>[INST] Rain? [/INST]", None, "Rain.", parameters={"max_tokens": 9}),
    Call("Bedrock, Cohere", f"{_BEDROCK}/userguide/model-parameters-cohere-command.html",
         {"prompt": "Rain?", "k": 3}, {"generations": [{"text": "Rain."}, {"text": "Sun."}]},
         "Rain?", None, "Rain.\n\nSun.", parameters={"k": 3}),
    Call("Mistral conversations", "https://docs.mistral.ai/api/endpoint/beta/conversations",
         {"inputs": "Rain?", "instructions": "Be brief.", "completion_args": {"temperature": 0}},
         {"conversation_id": "c", "outputs": [
             {"type": "function.call", "name": "look_up", "arguments": _CITY_TEXT},
             {"type": "message.output", "content": [{"type": "text", "text": "Rain."}]}]},
         "Rain?", "Be brief.", "Rain.", [_tool(_CITY)], parameters={"temperature": 0}),
    Call("Mistral, thinking", "https://docs.mistral.ai/capabilities/reasoning",
         _input(_user("Rain?"), safe_prompt=True),
         _reply({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                             {"type": "text", "text": "Rain."}]}),
         "Rain?", None, "Rain.", parameters={"safe_prompt": True}),
    Call("Cohere", "https://docs.cohere.com/v2/reference/chat", _input(_user("Rain?"), p=0.5),
         {"message": {"role": "assistant", "content": [{"type": "text", "text": "Rain."}],
                      "tool_calls": [{"id": "t", "type": "function", "function": {
                          "name": "look_up", "arguments": _CITY_TEXT}}]}},
         "Rain?", None, "Rain.", [_tool(_CITY)], parameters={"p": 0.5}),
    Call("Cohere, events", "https://docs.cohere.com/v2/reference/chat-stream", None,
         [{"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Ra"}}}},
          {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "in."}}}},
          {"type": "tool-call-start", "index": 1, "delta": {"message": {"tool_calls": {
              "id": "t", "type": "function", "function": {"name": "look_up", "arguments": ""}}}}},
          {"type": "tool-call-delta", "index": 1, "delta": {"message": {"tool_calls": {
              "function": {"arguments": _CITY_TEXT}}}}}],
         answer="Rain.", tools=[_tool(_CITY)]),
    Call("Cohere v1", "https://docs.cohere.com/v1/reference/chat",
         {"model": "m-1", "preamble": "Be brief.", "chat_history": [
             {"role": "USER", "message": "Sun?"}, {"role": "CHATBOT", "message": "No."}],
          "message": "Rain?", "temperature": 0.3},
         {"text": "Rain.", "generation_id": "g",
          "tool_calls": [{"name": "look_up", "parameters": _CITY}]},
         "user: Sun?\n\nchatbot: No.\n\nuser: Rain?", "Be brief.", "Rain.", [_tool(_CITY)],
         parameters={"temperature": 0.3}),
    Call("Cohere v1, events", "https://docs.cohere.com/v1/reference/chat-stream",
         {"message": "Rain?"},
         [{"event_type": "text-generation", "text": "Ra"},
          {"event_type": "text-generation", "text": "in."},
          {"event_type": "stream-end", "response": {"text": "Rain.", "generation_id": "g"}}],
         "Rain?", None, "Rain.", parameters={}),
    Call("Cohere reranking", "https://docs.cohere.com/v2/reference/rerank",
         {"query": "Rain?", "documents": ["wet", "dry"], "top_n": 1},
         {"results": [{"index": 0, "relevance_score": 0.9}]}, "Rain?", parameters={"top_n": 1}),
    Call("DeepSeek", "https://api-docs.deepseek.com/api/create-chat-completion",
         _input(_user("Rain?")), _reply({"reasoning_content": "Hm.", "content": "Rain."}),
         "Rain?", None, "Rain.", parameters={}),
    Call("OpenRouter, an image", "https://openrouter.ai/docs/features/multimodal/image-generation",
         _input(_user("A cloud"), modalities=["image", "text"]),
         _reply({"content": "Here.", "images": [{"type": "image_url",
                                                 "image_url": {"url": _PICTURE}}]}),
         "A cloud", None, "Here.", images=1, parameters={"modalities": ["image", "text"]}),
    Call("Ollama, chat", "https://github.com/ollama/ollama/blob/main/docs/api.md",
         _input({"role": "user", "content": "Rain?", "images": ["aGk="]},
                options={"temperature": 0, "num_ctx": 9}),
         {"model": "m-1", "message": {"role": "assistant", "content": "Rain.", "thinking": "Hm.",
                                      "tool_calls": [{"function": {"name": "look_up",
                                                                   "arguments": _CITY}}]},
          "done": True},
         "Rain?", None, "Rain.", [_tool(_CITY)], images=1,
         parameters={"temperature": 0, "num_ctx": 9}),
    Call("Ollama, generate", "https://github.com/ollama/ollama/blob/main/docs/api.md",
         {"model": "m-1", "prompt": "Rain?", "system": "Be brief.", "images": ["aGk="],
          "format": "json"},
         [{"response": "Ra", "done": False}, {"response": "in.", "done": True}],
         "Rain?", "Be brief.", "Rain.", images=1, parameters={"format": "json"}),
    Call("LangChain", _LANGCHAIN,
         {"messages": [{"type": "system", "content": "Be brief."},
                       {"type": "human", "content": "Rain?"}, {"type": "ai", "content": "Hm?"},
                       {"type": "human", "content": "Rain?"}]},
         {"type": "ai", "content": "Rain.",
          "tool_calls": [{"name": "look_up", "args": _CITY, "id": "t", "type": "tool_call"}]},
         "human: Rain?\n\nai: Hm?\n\nhuman: Rain?", "Be brief.", "Rain.", [_tool(_CITY)],
         parameters={}),
    Call("LangChain, serialised",
         "https://reference.langchain.com/python/langchain_core/load/",
         {"messages": [{"lc": 1, "type": "constructor",
                        "id": ["langchain", "schema", "messages", "HumanMessage"],
                        "kwargs": {"type": "human", "content": "Rain?"}}]},
         {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessage"],
          "kwargs": {"content": "Rain.", "tool_calls": [{"name": "look_up", "args": _CITY}]}},
         "Rain?", None, "Rain.", [_tool(_CITY)], parameters={}),
    Call("LangChain, chunks", _LANGCHAIN, None,
         [{"type": "AIMessageChunk", "content": "Ra"},
          {"type": "AIMessageChunk", "content": "in.", "tool_call_chunks": [
              {"name": "look_up", "args": '{"city": ', "index": 1}]},
          {"type": "AIMessageChunk", "content": "", "tool_call_chunks": [
              {"name": None, "args": '"Łódź"}', "index": 1}]}],
         answer="Rain.", tools=[_tool(_CITY)]),
    Call("AI SDK", "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-text",
         {"system": "Be brief.", "prompt": "Rain?", "maxOutputTokens": 9, "topP": 1},
         {"text": "Rain.", "finishReason": "stop", "reasoningText": "Hm.",
          "content": [{"type": "text", "text": "Rain."}],
          "toolCalls": [{"type": "tool-call", "toolCallId": "t", "toolName": "look_up",
                         "input": _CITY}],
          "files": [{"mediaType": "image/png", "base64": "aGk="}]},
         "Rain?", "Be brief.", "Rain.", [_tool(_CITY)], images=1,
         parameters={"maxOutputTokens": 9, "topP": 1}),
    Call("AI SDK, events", "https://ai-sdk.dev/docs/reference/ai-sdk-core/stream-text", None,
         [{"type": "text-delta", "id": "0", "text": "Ra"}, {"type": "reasoning-delta", "text": "H"},
          {"type": "text-delta", "id": "0", "text": "in."}], answer="Rain."),
    Call("Perplexity in an integration", "https://docs.perplexity.ai/api-reference",
         {"app_name": "perplexityai", "action": "PERPLEXITYAI_PERPLEXITY_AI_SEARCH",
          "input_mapping": {"model": "sonar", "userContent": "Rain?", "systemContent": "Be brief."},
          "run_id": "r-1", "input_data": {"prompt": "no"}},
         {"result": {"data": _COMPLETION, "error": None, "successful": True}},
         "Rain?", "Be brief.", "Rain.", parameters={}),
    Call("OpenAI responses, results of its own tools", f"{_OPENAI}/responses/create",
         {"input": [{"role": "user", "content": "List"},
                    {"type": "shell_call_output", "call_id": "1", "output": [
                        {"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit",
                                                                      "exit_code": 0}}]},
                    {"type": "local_shell_call_output", "id": "2", "output": "b.txt"},
                    {"type": "apply_patch_call_output", "call_id": "3", "status": "completed",
                     "output": "patched"}]},
         {"object": "response", "output": [
             {"type": "shell_call", "call_id": "4", "action": {"commands": ["ls"]}},
             {"type": "apply_patch_call", "call_id": "5", "operation": {
                 "type": "delete_file", "path": "a.txt"}},
             {"type": "tool_search_call", "id": "6", "arguments": {"query": "tea"}}]},
         "user: List\n\ntool: a.txt\n\ntool: b.txt\n\ntool: patched",
         tools=[_tool({"commands": ["ls"]}, "shell_call"),
                _tool({"type": "delete_file", "path": "a.txt"}, "apply_patch_call"),
                _tool({"query": "tea"}, "tool_search_call")], parameters={}),
    Call("Reasoning before the answer", _THINKING,
         _input(_user("Rain?"), reasoning_format="raw"),
         _reply({"content": "<think>\nHm.\n</think>\n\nRain, <think>no</think>."},
                {"content": " <thinking>Hm.</thinking>Sun."}, {"content": "<think>Cut of"},
                {"content": "No <think>of it</think>"}),
         "Rain?", None, "Rain, <think>no</think>.\n\nSun.\n\nNo <think>of it</think>",
         parameters={"reasoning_format": "raw"}),
    Call("Groq, its own tools", "https://console.groq.com/docs/api-reference",
         _input(_user("Rain?"), compound_custom={"tools": {"enabled_tools": ["web_search"]}}),
         _reply({"content": "Rain.", "reasoning": "Hm.", "executed_tools": [
             {"index": 0, "type": "search", "arguments": _CITY_TEXT, "output": "wet"}]}),
         "Rain?", None, "Rain.", parameters={}),
    Call("xAI by gRPC", "https://github.com/xai-org/xai-proto",
         {"messages": [{"role": "ROLE_SYSTEM", "content": [{"text": "Be brief."}]},
                       {"role": "ROLE_USER", "content": [{"text": "Rain?"}]},
                       {"role": "ROLE_TOOL", "content": [{"text": "wet"}]}]},
         {"outputs": [{"index": 0, "finishReason": "REASON_STOP", "message": {
             "role": "ROLE_ASSISTANT", "content": "Rain.", "reasoningContent": "Hm.",
             "toolCalls": [{"id": "t", "function": {"name": "look_up",
                                                    "arguments": _CITY_TEXT}}]}}]},
         "user: Rain?\n\ntool: wet", "Be brief.", "Rain.", [_tool(_CITY)], parameters={}),
    Call("xAI", "https://docs.x.ai/docs/api-reference",
         _input(_user([{"type": "text", "text": "Rain?"}]), search_parameters={"mode": "auto"}),
         {**_reply({"content": "Rain.", "reasoning_content": "Hm.", "refusal": None}),
          "citations": ["https://example.com"]},
         "Rain?", None, "Rain.", parameters={"search_parameters": {"mode": "auto"}}),
    Call("Gemini interactions, results of tools",
         "https://ai.google.dev/gemini-api/docs/function-calling",
         {"model": "m-1", "system_instruction": "Be brief.", "generation_config": {"top_p": 1},
          "input": [{"type": "user_input", "content": [{"type": "text", "text": "Rain?"}]},
                    {"type": "model_output", "content": [{"type": "text", "text": "Where?"}]},
                    {"type": "function_call", "id": "1", "name": "look_up", "arguments": _CITY},
                    {"type": "function_result", "call_id": "1", "name": "look_up",
                     "result": [{"type": "text", "text": "wet"}]}]},
         {"status": "completed", "object": "interaction", "steps": [
             {"type": "thought", "summary": [{"type": "text", "text": "Hm."}]},
             {"type": "model_output", "content": [{"type": "text", "text": "Rain."}]}]},
         "user: Rain?\n\nmodel: Where?\n\ntool: wet", "Be brief.", "Rain.",
         parameters={"top_p": 1}),
    Call("Gemini by Python, images", "https://googleapis.github.io/python-genai/genai.html",
         {"model": "m-1", "prompt": "A cloud", "config": {"number_of_images": 1}},
         {"generated_images": [{"image": {"gcs_uri": None, "image_bytes": "aGk=",
                                          "mime_type": "image/png"}}]},
         "A cloud", images=1, parameters={"number_of_images": 1}),
    Call("Vertex, an edit by Imagen",
         "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api-edit",
         {"instances": [{"prompt": "A cloud", "referenceImages": [
             {"referenceId": 1, "referenceType": "REFERENCE_TYPE_RAW",
              "referenceImage": {"bytesBase64Encoded": "aGk="}}]}],
          "parameters": {"sampleCount": 1, "editMode": "EDIT_MODE_DEFAULT"}},
         {"predictions": [{"gcsUri": "gs://b/1.png", "mimeType": "image/png"}]},
         "A cloud", images=2, parameters={"sampleCount": 1}),
    Call("OpenRouter, the API of images",
         "https://openrouter.ai/docs/guides/overview/multimodal/image-generation",
         {"model": "m-1", "prompt": "A cloud", "aspect_ratio": "16:9", "input_references": [
             {"type": "image_url", "image_url": {"url": "https://example.com/1.jpg"}}]},
         {"created": 1, "data": [{"b64_json": "aGk=", "media_type": "image/png"}],
          "usage": {"cost": 0.04}}, "A cloud", images=2, parameters={"aspect_ratio": "16:9"}),
    Call("Mistral OCR, a document", "https://docs.mistral.ai/api/endpoint/ocr",
         {"model": "m-1", "document": {"type": "document_url", "document_name": "a.pdf",
                                       "document_url": "https://example.com/a.pdf"},
          "document_annotation_prompt": "Find the rain.", "pages": [0, 1],
          "include_image_base64": True},
         {"pages": [{"index": 0, "markdown": "# Rain"}, {"index": 1, "markdown": "Sun"}],
          "model": "m-1", "usage_info": {"pages_processed": 2}},
         "user: Find the rain.\n\nuser: https://example.com/a.pdf", None, "# Rain\n\nSun",
         parameters={"pages": [0, 1], "include_image_base64": True}),
    Call("Mistral OCR, an image", "https://docs.mistral.ai/api/endpoint/ocr",
         {"model": "m-1", "document": {"type": "image_url", "image_url": _PICTURE}},
         {"pages": [{"index": 0, "markdown": "Rain"}]}, None, None, "Rain", images=1,
         parameters={}),
    Call("Mistral OCR, a file", "https://docs.mistral.ai/api/endpoint/ocr",
         {"model": "m-1", "document": {"type": "file", "file_id": "f"}},
         {"pages": [{"index": 0, "markdown": "Rain"}]}, None, None, "Rain", parameters={}),
    Call("Mistral OCR, a document in the request", "https://docs.mistral.ai/api/endpoint/ocr",
         {"model": "m-1", "document": {"type": "document_url",
                                       "document_url": "data:application/pdf;base64,aGk="}},
         {"pages": []}, parameters={}),
    Call("LangChain, candidates", "https://reference.langchain.com/python/langchain_core/outputs/",
         {"input": "Rain?"},
         {"generations": [[{"text": "Rain.", "type": "Generation"}, {"text": "Sun.",
                                                                     "type": "Generation"}],
                          [{"text": "Snow.", "type": "Generation"}]], "type": "LLMResult"},
         "Rain?", None, "Rain.\n\nSun.\n\nSnow.", parameters={}),
    Call("LangGraph, a state", _LANGGRAPH,
         {"messages": [["system", "Be brief."], ["user", "Rain?"],
                       ["human", [{"type": "text", "text": "Now?"}]]]},
         {"messages": [{"type": "human", "content": "Rain?"},
                       {"type": "ai", "content": "", "tool_calls": [
                           {"name": "look_up", "args": _CITY, "id": "t"}]},
                       {"type": "tool", "content": "wet", "tool_call_id": "t"},
                       {"type": "ai", "content": [{"type": "text", "text": "Rain."}]}]},
         "user: Rain?\n\nhuman: Now?", "Be brief.", "Rain.", parameters={}),
    Call("LangGraph, a node that calls a tool", _LANGGRAPH, None,
         {"messages": [{"lc": 1, "type": "constructor",
                        "id": ["langchain", "schema", "messages", "AIMessage"],
                        "kwargs": {"content": "", "type": "ai", "tool_calls": [
                            {"name": "look_up", "args": _CITY, "id": "t"}]}}]},
         tools=[_tool(_CITY)]),
    Call("LangGraph, other forms of messages", _LANGGRAPH,
         {"input": {"messages": ["Rain?", {"role": "assistant", "content": "Hm?"}]}},
         [{"messages": [{"type": "ai", "data": {"content": "Rain.", "tool_calls": [
             {"name": "look_up", "args": _CITY}]}}]},
          {"messages": [{"role": "user", "content": "Rain?"},
                        {"role": "assistant", "content": "Sun."}]},
          {"messages": [{"type": "human", "content": "Not yet answered"}]},
          {"messages": [{"lc": 1, "type": "constructor", "id": ["AIMessageChunk"],
                         "kwargs": {"content": "Snow."}}]}],
         "user: Rain?\n\nassistant: Hm?", None, "Rain.\n\nSun.\n\nSnow.", [_tool(_CITY)],
         parameters={}),
    Call("AI SDK, an object", "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-object",
         {"prompt": "Rain?", "output": "object", "schemaName": "weather"},
         {"object": {"text": "Rain", "sure": True}, "finishReason": "stop", "reasoning": "Hm."},
         "Rain?", None, '{"sure": true, "text": "Rain"}', parameters={}),
    Call("AI SDK, a list", "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-object",
         {"prompt": "Rain?", "output": "array"}, {"object": [{"a": 1}, {"a": 2}]},
         "Rain?", None, '[{"a": 1}, {"a": 2}]', parameters={}),
    Call("AI SDK, one of several words",
         "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-object",
         {"prompt": "Rain?", "output": "enum", "enum": ["yes", "no"]},
         {"object": "yes", "finishReason": "stop"}, "Rain?", None, "yes", parameters={}),
    Call("AI SDK, former results of tools",
         "https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-object",
         {"messages": [{"role": "user", "content": "Rain?"}, {"role": "tool", "content": [
             {"type": "tool-result", "toolCallId": "t", "toolName": "look_up", "result": "wet"}]}]},
         {"text": "Rain."}, "user: Rain?\n\ntool: wet", None, "Rain.", parameters={}),
    Call("A response as text", "the API's own envelope around an integration's result",
         json.dumps(_input(_user("Rain?"), temperature=1)),
         {"result": {"data": json.dumps(_COMPLETION)}}, "Rain?", None, "Rain.",
         parameters={"temperature": 1}),
)  # fmt: skip

"""Streams of models, as a list of events and as one text, as their public pages describe them.

The words are invented.
"""

from __future__ import annotations

import json
from typing import Any

from tests.provider_calls import Call

_CITY = {"city": "Łódź"}
_LOOKED_UP = [{"name": "look_up", "arguments": _CITY}]
_CHUNKS = "https://platform.openai.com/docs/api-reference/chat-streaming"
_EVENTS = "https://html.spec.whatwg.org/multipage/server-sent-events.html"
_GEMINI = "https://ai.google.dev/gemini-api/docs/interactions/streaming"
_MISTRAL = "https://docs.mistral.ai/api/endpoint/beta/conversations"
_THINKING = (
    "https://reference.langchain.com/python/langchain-groq/chat_models/ChatGroq/reasoning_format"
)
_UI = "https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol"


def _chunk(text: str) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": text}}]}  # fmt: skip


def _sent(*events: Any, end: str = "\n", space: str = " ") -> str:
    return "".join(f"data:{space}{json.dumps(one)}{end}{end}" for one in events)


_PIECES = (_chunk("Ra"), _chunk("in."))

STREAMS = (
    Call("OpenAI chat, as sent", _CHUNKS, None, _sent(*_PIECES) + "data: [DONE]\n\n",
         answer="Rain."),
    Call("OpenAI responses, speech",
         "https://platform.openai.com/docs/api-reference/responses-streaming",
         None, [{"type": "response.audio.delta", "delta": "aGk="},
                {"type": "response.audio.transcript.delta", "delta": "Ra"},
                {"type": "response.audio.transcript.delta", "delta": "in."}], answer="Rain."),
    Call("OpenRouter, with comments", "https://openrouter.ai/docs/api/reference/streaming",
         {"body": json.dumps({"messages": [{"role": "user", "content": "Rain?"}]})},
         {"body": ": OPENROUTER PROCESSING\n\n" + _sent(*_PIECES) + "data: [DONE]\n"},
         "Rain?", answer="Rain.", parameters={}),
    Call("Server-sent events, other line ends", _EVENTS, None,
         "\r\nid: 1\r\n" + _sent(*_PIECES, end="\r\n", space=""), answer="Rain."),
    Call("Server-sent events, without blank lines", _EVENTS, None,
         {"result": {"data": "".join(f"data: {json.dumps(one)}\n" for one in _PIECES)}},
         answer="Rain."),
    Call("Server-sent events, an event of several lines", _EVENTS, None,
         "event: a\ndata: {\ndata:   \"choices\": [\ndata:     {\"text\": \"Rain.\"}\n"
         "data:   ]\ndata: }\n\n", answer="Rain."),
    Call("Server-sent events, a list of lines", _EVENTS, None,
         ["event: a", *(f"data: {json.dumps(one)}" for one in _PIECES), "", "data: [DONE]"],
         answer="Rain."),
    Call("Anthropic, as sent", "https://docs.claude.com/en/build-with-claude/streaming", None,
         "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in (
             {"type": "message_start", "message": {"id": "m", "content": []}},
             {"type": "ping"},
             {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta",
                                                                   "text": "Rain."}},
             {"type": "content_block_start", "index": 1, "content_block": {
                 "type": "tool_use", "id": "t", "name": "look_up", "input": {}}},
             {"type": "content_block_delta", "index": 1, "delta": {
                 "type": "input_json_delta", "partial_json": json.dumps(_CITY)}},
             {"type": "message_stop"})),
         answer="Rain.", tools=_LOOKED_UP),
    Call("Ollama, lines of JSON", "https://github.com/ollama/ollama/blob/main/docs/api.md", None,
         "".join(json.dumps({"model": "m", "response": one, "done": one == "in."}) + "\n"
                 for one in ("Ra", "in.")), answer="Rain."),
    Call("Bedrock batch, lines of JSON",
         "https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-results.html",
         "".join(json.dumps({"recordId": one, "modelInput": {"inputText": one}}) + "\n"
                 for one in ("Rain?", "Sun?")),
         "\n".join(json.dumps({"recordId": one, "modelInput": {"inputText": "?"}, "modelOutput": {
             "inputTextTokenCount": 1, "results": [{"outputText": one}]}})
             for one in ("Rain.", "Sun.")),
         "user: Rain?\n\nuser: Sun?", answer="Rain.\n\nSun.", parameters={}),
    Call("Anthropic batch, lines as a list",
         "https://docs.claude.com/en/build-with-claude/batch-processing", None,
         [json.dumps({"custom_id": one, "result": {"type": "succeeded", "message": {
             "type": "message", "content": [{"type": "text", "text": one}]}}})
             for one in ("Rain.", "Sun.")], answer="Rain.\n\nSun."),
    Call("OpenRouter, an image as sent",
         "https://openrouter.ai/docs/guides/overview/multimodal/image-generation", None,
         _sent({"type": "image_generation.partial_image", "b64_json": "aG"},
               {"type": "image_generation.completed", "b64_json": "aGk="}), images=1),
    Call("Gemini interactions, events", _GEMINI, None,
         [{"event_type": "interaction.created", "interaction": {"id": "i"}},
          {"event_type": "step.start", "index": 0, "step": {"type": "thought"}},
          {"event_type": "step.delta", "index": 0, "delta": {
              "type": "thought_summary", "content": {"type": "text", "text": "Hm."}}},
          {"event_type": "step.start", "index": 1, "step": {"type": "model_output"}},
          {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Ra"}},
          {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "in."}},
          {"event_type": "step.start", "index": 2, "step": {
              "type": "function_call", "id": "f", "name": "look_up", "arguments": {}}},
          {"event_type": "step.delta", "index": 2, "delta": {
              "type": "arguments_delta", "arguments": '{"city": '}},
          {"event_type": "step.start", "index": 3, "step": {
              "type": "function_call", "id": "g", "name": "pay", "arguments": {"sum": 1}}},
          {"event_type": "step.delta", "index": 2, "delta": {
              "type": "arguments_delta", "arguments": '"Łódź"}'}},
          {"event_type": "step.stop", "index": 2},
          {"event_type": "interaction.completed", "interaction": {"id": "i", "steps": []}}],
         answer="Rain.", tools=[*_LOOKED_UP, {"name": "pay", "arguments": {"sum": 1}}]),
    Call("Gemini interactions, former events", _GEMINI, None,
         [{"event_type": "content.start", "index": 0, "content": {"type": "text"}},
          {"event_type": "content.delta", "index": 0, "delta": {"type": "text", "text": "Rain."}},
          {"event_type": "content.delta", "index": 1, "delta": {
              "type": "function_call", "id": "f", "name": "look_up", "arguments": _CITY}}],
         answer="Rain.", tools=_LOOKED_UP),
    Call("Mistral conversations, events", _MISTRAL, None,
         [{"event": one["type"], "data": {"created_at": "2026-01-01T00:00:00Z", "id": "e", **one}}
          for one in (
              {"type": "conversation.response.started", "conversation_id": "c"},
              {"type": "tool.execution.started", "output_index": 0, "name": "web_search",
               "arguments": ""},
              {"type": "tool.execution.delta", "output_index": 0, "name": "web_search",
               "arguments": '{"query": "rain"}'},
              {"type": "tool.execution.done", "output_index": 0, "name": "web_search"},
              {"type": "message.output.delta", "output_index": 1, "role": "assistant",
               "content": "Rain."},
              {"type": "function.call.delta", "output_index": 2, "name": "look_up",
               "tool_call_id": "t", "arguments": '{"city": '},
              {"type": "function.call.delta", "output_index": 2, "name": "look_up",
               "tool_call_id": "t", "arguments": '"Łódź"}'},
              {"type": "conversation.response.done", "usage": {}})],
         answer="Rain.",
         tools=[{"name": "web_search", "arguments": {"query": "rain"}}, *_LOOKED_UP]),
    Call("AI SDK, tools in events", "https://ai-sdk.dev/docs/reference/ai-sdk-core/stream-text",
         None,
         [{"type": "tool-input-start", "id": "t", "toolName": "look_up"},
          {"type": "tool-input-delta", "id": "t", "delta": '{"city"'},
          {"type": "tool-call", "toolCallId": "t", "toolName": "look_up", "input": _CITY},
          {"type": "tool-call", "toolCallId": "u", "toolName": "pay", "args": {"sum": 1}},
          {"type": "text-delta", "id": "0", "text": "Rain."}],
         answer="Rain.", tools=[*_LOOKED_UP, {"name": "pay", "arguments": {"sum": 1}}]),
    Call("AI SDK, messages for a page", _UI, None,
         _sent({"type": "start", "messageId": "m"},
               {"type": "text-delta", "id": "0", "delta": "Rain."},
               {"type": "reasoning-delta", "id": "1", "delta": "Hm."},
               {"type": "tool-input-available", "toolCallId": "t", "toolName": "look_up",
                "input": _CITY},
               {"type": "tool-output-available", "toolCallId": "t", "output": {"a": 1}})
         + "data: [DONE]\n\n", answer="Rain.", tools=_LOOKED_UP),
    Call("AI SDK, an object in events",
         "https://ai-sdk.dev/docs/reference/ai-sdk-core/stream-object", None,
         [{"type": "object", "object": {}}, {"type": "text-delta", "textDelta": '{"a"'},
          {"type": "object", "object": {"a": 1}}, {"type": "text-delta", "textDelta": ": 1}"},
          {"type": "finish", "finishReason": "stop"}], answer='{"a": 1}'),
    Call("Reasoning in pieces", _THINKING, None,
         [_chunk("<thi"), _chunk("nk>Hm."), _chunk("</think>\n"), *_PIECES], answer="Rain."),
    Call("No stream", _EVENTS, {"prompt": "data: {not JSON"}, {"text": "data: {\"text\": 1"},
         "data: {not JSON", answer='data: {"text": 1', parameters={}),
)  # fmt: skip

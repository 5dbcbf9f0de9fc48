-- Written by `make docs` from etl/transform/content_shapes.py, which names the public page of each
-- place. The functions of model_call_text use these.

CREATE OR REPLACE FUNCTION orchestra.is_request(body jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT jsonb_typeof(body) = 'object' AND (
        (body ? 'messages' AND (body @? 'lax $.messages[*]'
            OR body @? 'lax $.messages[*].images[*]'))
        OR (body ? 'contents' AND (body @? 'lax $.contents[*]'))
        OR (body ? 'content' AND (body @? 'lax $.content ? (exists (@.parts))'))
        OR (body ? 'requests' AND (body @? 'lax $.requests[*].content'))
        OR (body ? 'chat_history' AND (body @? 'lax $.chat_history[*]'))
        OR (body ? 'message' AND (body @? 'lax $.message ? (@.type() == "string")'))
        OR (body ? 'input' AND (body @? 'lax $.input ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'))
        OR (body ? 'inputs' AND (body @? 'lax $.inputs ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'))
        OR (body ? 'prompt' AND (body @? 'lax $.prompt ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")'))
        OR (body ? 'inputText' AND (body @? 'lax $.inputText'))
        OR (body ? 'textToImageParams' AND (body @? 'lax $.textToImageParams.text'
            OR body @? 'lax $.textToImageParams.conditionImage'))
        OR (body ? 'inPaintingParams' AND (body @? 'lax $.inPaintingParams.text'
            OR body @? 'lax $.inPaintingParams.image'))
        OR (body ? 'imageVariationParams' AND (body @? 'lax $.imageVariationParams.text'
            OR body @? 'lax $.imageVariationParams.images[*]'))
        OR (body ? 'outPaintingParams' AND (body @? 'lax $.outPaintingParams.text'
            OR body @? 'lax $.outPaintingParams.image'))
        OR (body ? 'colorGuidedGenerationParams' AND (body @? 'lax $.colorGuidedGenerationParams.text'))
        OR (body ? 'text_prompts' AND (body @? 'lax $.text_prompts[*].text'))
        OR (body ? 'instances' AND (body @? 'lax $.instances[*].prompt'
            OR body @? 'lax $.instances[*].content'
            OR body @? 'lax $.instances[*].referenceImages[*].referenceImage'
            OR body @? 'lax $.instances[*].image'))
        OR (body ? 'item' AND (body @? 'lax $ ? (@.type == "conversation.item.create").item'))
        OR (body ? 'texts' AND (body @? 'lax $.texts[*]'))
        OR (body ? 'query' AND (body @? 'lax $ ? (exists (@.documents)).query'))
        OR (body ? 'userContent' AND (body @? 'lax $.userContent'))
        OR (body ? 'document_annotation_prompt' AND (body @? 'lax $.document_annotation_prompt'))
        OR (body ? 'document' AND (body @? 'lax $.document.document_url ? (!(@ starts with "data:"))'
            OR body @? 'lax $.document ? (@.type == "image_url").image_url'
            OR body @? 'lax $.document ? (@.type == "document_url" || @.type == "file")'))
        OR (body ? 'system' AND (body @? 'lax $.system'))
        OR (body ? 'systemInstruction' AND (body @? 'lax $.systemInstruction.parts'
            OR body @? 'lax $.systemInstruction ? (@.type() == "string")'))
        OR (body ? 'session' AND (body @? 'lax $ ? (@.type == "session.update").session.instructions'))
        OR (body ? 'response' AND (body @? 'lax $ ? (@.type == "response.create").response.instructions'))
        OR (body ? 'system_instruction' AND (body @? 'lax $.system_instruction ? (@.type() == "string")'
            OR body @? 'lax $.system_instruction.parts'))
        OR (body ? 'config' AND (body @? 'lax $.config.system_instruction ? (@.type() == "string")'
            OR body @? 'lax $.config.system_instruction.parts'
            OR body @? 'lax $.config.systemInstruction ? (@.type() == "string")'
            OR body @? 'lax $.config.systemInstruction.parts'))
        OR (body ? 'instructions' AND (body @? 'lax $.instructions ? (@.type() == "string")'))
        OR (body ? 'preamble' AND (body @? 'lax $.preamble'))
        OR (body ? 'systemContent' AND (body @? 'lax $.systemContent'))
        OR (body ? 'image' AND (body @? 'lax $.image[*]'))
        OR (body ? 'input_references' AND (body @? 'lax $.input_references[*]'))
        OR (body ? 'file' AND (body @? 'lax $.file')))
$$;

COMMENT ON FUNCTION orchestra.is_request(jsonb) IS
    'Whether an object is a known request of a model (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.is_response(body jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT jsonb_typeof(body) = 'object' AND (
        (body ? 'choices' AND (body @? 'lax $.choices[*].message.content'
            OR body @? 'lax $.choices[*].message.refusal'
            OR body @? 'lax $.choices[*].message.audio.transcript'
            OR body @? 'lax $.choices[*].delta.content'
            OR body @? 'lax $.choices[*].delta.refusal'
            OR body @? 'lax $.choices[*].delta.audio.transcript'
            OR body @? 'lax $.choices[*].text'
            OR body @? 'lax $.choices[*].message.tool_calls[*]'
            OR body @? 'lax $.choices[*].message.function_call'
            OR body @? 'lax $.choices[*].delta.tool_calls[*]'
            OR body @? 'lax $.choices[*].delta.function_call'
            OR body @? 'lax $.choices[*].message.images[*]'
            OR body @? 'lax $.choices[*].message.audio.data'))
        OR (body ? 'output' AND (body @? 'lax $.output[*] ? (@.type == "message").content'
            OR body @? 'lax $.output.message.content'
            OR body @? 'lax $.output[*] ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")'
            OR body @? 'lax $.output.message.content[*].toolUse'
            OR body @? 'lax $.output[*] ? (@.type == "image_generation_call").result'))
        OR (body ? 'delta' AND (body @? 'lax $ ? (@.type == "response.output_text.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.refusal.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.audio.transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.text.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.output_audio_transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.audio_transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "transcript.text.delta").delta'
            OR body @? 'lax $.delta.message.content'
            OR body @? 'lax $.delta.text'
            OR body @? 'lax $ ? (@.type == "text-delta").delta ? (@.type() == "string")'
            OR body @? 'lax $.delta ? (@.type == "input_json_delta" && exists (@.partial_json))'
            OR body @? 'lax $.delta.message.tool_calls'
            OR body @? 'lax $.delta ? (@.type == "arguments_delta" && exists (@.arguments))'
            OR body @? 'lax $.delta ? (@.type == "function_call" && exists (@.name))'))
        OR (body ? 'candidates' AND (body @? 'lax $.candidates[*].content.parts'
            OR body @? 'lax $.candidates[*].content.parts[*].functionCall'
            OR body @? 'lax $.candidates[*].content.parts[*].function_call'))
        OR (body ? 'steps' AND (body @? 'lax $.steps[*] ? (@.type == "model_output").content'
            OR body @? 'lax $.steps[*] ? (@.type == "function_call")'))
        OR (body ? 'contentBlockDelta' AND (body @? 'lax $.contentBlockDelta.delta.text'
            OR body @? 'lax $.contentBlockDelta.delta.toolUse'))
        OR (body ? 'results' AND (body @? 'lax $.results[*].outputText'
            OR body @? 'lax $.results[*].relevance_score'
            OR body @? 'lax $.results[*].categories'))
        OR (body ? 'outputText' AND (body @? 'lax $.outputText'))
        OR (body ? 'generation' AND (body @? 'lax $.generation ? (@.type() == "string")'))
        OR (body ? 'outputs' AND (body @? 'lax $.outputs[*].text'
            OR body @? 'lax $.outputs[*] ? (@.type == "message.output").content'
            OR body @? 'lax $.outputs[*].message.content'
            OR body @? 'lax $.outputs[*] ? (@.type == "function.call" || @.type == "tool.execution")'
            OR body @? 'lax $.outputs[*] ? (@.type == "function_call")'
            OR body @? 'lax $.outputs[*].message.tool_calls[*]'
            OR body @? 'lax $.outputs[*].message.toolCalls[*]'))
        OR (body ? 'content' AND (body @? 'lax $ ? (@.type == "message.output.delta").content'
            OR body @? 'lax $ ? (@.type == "AIMessageChunk").content'
            OR body @? 'lax $ ? (!(@.type == "thought_summary")).content'
            OR body @? 'lax $.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")'
            OR body @? 'lax $.content[*] ? (@.type == "tool-call")'))
        OR (body ? 'pages' AND (body @? 'lax $.pages[*].markdown'))
        OR (body ? 'generations' AND (body @? 'lax $.generations[*][*].text'
            OR body @? 'lax $.generations[*][*].message.kwargs.tool_calls[*]'))
        OR (body ? 'completions' AND (body @? 'lax $.completions[*].data.text'))
        OR (body ? 'message' AND (body @? 'lax $.message ? (@.type == "message").content'
            OR body @? 'lax $.message.content'
            OR body @? 'lax $.message.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")'
            OR body @? 'lax $.message.tool_calls[*]'))
        OR (body ? 'completion' AND (body @? 'lax $.completion ? (@.type() == "string")'))
        OR (body ? 'text' AND (body @? 'lax $ ? (@.event_type == "text-generation").text'
            OR body @? 'lax $ ? (@.type == "text-delta").text ? (@.type() == "string")'
            OR body @? 'lax $ ? (!(@.type like_regex "^response[.]|-delta$")).text ? (@.type() == "string")'))
        OR (body ? 'textDelta' AND (body @? 'lax $ ? (@.type == "text-delta").textDelta ? (@.type() == "string")'))
        OR (body ? 'kwargs' AND (body @? 'lax $.kwargs.content'
            OR body @? 'lax $.kwargs.tool_calls[*]'))
        OR (body ? 'messages' AND (body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").content'
            OR body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.content'
            OR body @? 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.content'
            OR body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").tool_calls[*]'
            OR body @? 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.tool_calls[*]'
            OR body @? 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.tool_calls[*]'))
        OR (body ? 'response' AND (body @? 'lax $.response ? (@.type() == "string")'))
        OR (body ? 'generated_text' AND (body @? 'lax $.generated_text ? (@.type() == "string")'))
        OR (body ? 'object' AND (body @? 'lax $ ? (!exists (@.type)) ? (exists (@.finishReason) || @.object.type() == "object" || @.object.type() == "array").object'))
        OR (body ? 'item' AND (body @? 'lax $ ? (@.type == "response.output_item.done").item ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")'))
        OR (body ? 'content_block' AND (body @? 'lax $.content_block ? (@.type like_regex "^(server_|mcp_)?tool_use$")'))
        OR (body ? 'contentBlockStart' AND (body @? 'lax $.contentBlockStart.start.toolUse'))
        OR (body ? 'step' AND (body @? 'lax $.step ? (@.type == "function_call")'))
        OR (body ? 'output_index' AND (body @? 'lax $ ? (@.type like_regex "^(function.call|tool.execution).(delta|started)$" && exists (@.output_index))'))
        OR (body ? 'tool_call_chunks' AND (body @? 'lax $.tool_call_chunks[*]'))
        OR (body ? 'tool_calls' AND (body @? 'lax $.tool_calls[*]'))
        OR (body ? 'toolCalls' AND (body @? 'lax $.toolCalls[*]'))
        OR (body ? 'toolName' AND (body @? 'lax $ ? (@.type == "tool-call" && exists (@.toolName))'
            OR body @? 'lax $ ? (@.type == "tool-input-available" && exists (@.toolName))'))
        OR (body ? 'data' AND (body @? 'lax $.data[*].b64_json'
            OR body @? 'lax $.data[*].url'
            OR body @? 'lax $.data[*].embedding'))
        OR (body ? 'b64_json' AND (body @? 'lax $ ? (@.type == "image_generation.completed" || @.type == "image_edit.completed").b64_json'))
        OR (body ? 'predictions' AND (body @? 'lax $.predictions[*].bytesBase64Encoded'
            OR body @? 'lax $.predictions[*].gcsUri'
            OR body @? 'lax $.predictions[*].embeddings'))
        OR (body ? 'generated_images' AND (body @? 'lax $.generated_images[*].image'))
        OR (body ? 'generatedImages' AND (body @? 'lax $.generatedImages[*].image'))
        OR (body ? 'images' AND (body @? 'lax $.images[*]'))
        OR (body ? 'artifacts' AND (body @? 'lax $.artifacts[*].base64'))
        OR (body ? 'files' AND (body @? 'lax $.files[*] ? (@.mediaType starts with "image/")'
            OR body @? 'lax $.files[*] ? (@.mediaType starts with "audio/")'))
        OR (body ? 'embedding' AND (body @? 'lax $.embedding'))
        OR (body ? 'embeddings' AND (body @? 'lax $.embeddings'))
        OR (body ? 'promptFeedback' AND (body @? 'lax $.promptFeedback.blockReason'))
        OR (body ? 'prompt_feedback' AND (body @? 'lax $.prompt_feedback.block_reason'))
        OR (body ? 'embeddingsByType' AND (body @? 'lax $.embeddingsByType'))
        OR (body ? 'classifications' AND (body @? 'lax $.classifications[*]')))
$$;

COMMENT ON FUNCTION orchestra.is_response(jsonb) IS
    'Whether an object is a known response of a model (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.message_role(message jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($ ? (@.type like_regex "_call_output$|^function[._]result$")))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.content[*] ? (@.type == "tool_result")) && !exists ($.content[*] ? (@.type != "tool_result")))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.content[*].toolResult) && !exists ($.content[*] ? (!exists (@.toolResult))))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.parts[*].functionResponse) && !exists ($.parts[*] ? (!exists (@.functionResponse))))', '{}', true),
        jsonb_path_query_first(message, 'lax "tool" ? (exists ($.parts[*].function_response) && !exists ($.parts[*] ? (!exists (@.function_response))))', '{}', true),
        jsonb_path_query_first(message, 'lax "model" ? ($.type == "model_output")', '{}', true),
        jsonb_path_query_first(message, 'lax $.role ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(message, 'lax $.type ? (@ == "system" || @ == "human" || @ == "ai" || @ == "tool")', '{}', true),
        jsonb_path_query_first(message, 'lax $[0] ? (@ like_regex "^(system|developer|user|human|assistant|ai|tool|function)$" && exists ($[1]))', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.message_role(jsonb) IS
    'Who wrote a message of a request (see the reference of model calls); null if there is none.';

CREATE OR REPLACE FUNCTION orchestra.message_content(message jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(message, 'lax $.content', '{}', true),
        jsonb_path_query_first(message, 'lax $.parts', '{}', true),
        jsonb_path_query_first(message, 'lax $.message ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type like_regex "_call_output$").output', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type like_regex "^function[._]result$").result', '{}', true),
        jsonb_path_query_first(message, 'lax $.data.content', '{}', true),
        jsonb_path_query_first(message, 'lax $.kwargs.content', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.text))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type == "image")', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.inlineData))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.inline_data))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.fileData))', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.file_data))', '{}', true),
        jsonb_path_query_first(message, 'lax $[1] ? (exists ($[0] ? (@ like_regex "^(system|developer|user|human|assistant|ai|tool|function)$")))', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.message_content(jsonb) IS
    'The content of a message (see the reference of model calls); null if there is none.';

CREATE OR REPLACE FUNCTION orchestra.part_text(part jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(part, 'lax $ ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (!(@.thought == true || @.type == "reasoning" || @.type == "thinking" || @.type == "redacted_thinking" || @.type == "summary_text" || @.type == "reasoning_text")).text ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $.refusal ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $.transcript ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "document").source ? (@.type == "text").data', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "document").document.data', '{}', true),
        jsonb_path_query_first(part, 'lax $.functionResponse.response', '{}', true),
        jsonb_path_query_first(part, 'lax $.function_response.response', '{}', true),
        jsonb_path_query_first(part, 'lax $.json ? (@.type() == "object")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "tool-result").output ? (@.type != "content").value', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (@.type == "tool-result").result', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (exists (@.outcome)).stdout', '{}', true),
        jsonb_path_query_first(part, 'lax $.guardContent.text.text', '{}', true),
        jsonb_path_query_first(part, 'lax $.document.source.text', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.part_text(jsonb) IS
    'The text of a part of a content (see the reference of model calls); null if there is none.';

CREATE OR REPLACE FUNCTION orchestra.tool_name(tool jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(tool, 'lax $.function.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.custom.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.toolName ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.type ? (@ like_regex "^(web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.tool_name(jsonb) IS
    'The name of the tool that a tool call names (see the reference of model calls); null if there is none.';

CREATE OR REPLACE FUNCTION orchestra.tool_arguments(tool jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(tool, 'lax $.function.arguments', '{}', true),
        jsonb_path_query_first(tool, 'lax $.custom.input', '{}', true),
        jsonb_path_query_first(tool, 'lax $.arguments', '{}', true),
        jsonb_path_query_first(tool, 'lax $.input', '{}', true),
        jsonb_path_query_first(tool, 'lax $.partial_json', '{}', true),
        jsonb_path_query_first(tool, 'lax $.args', '{}', true),
        jsonb_path_query_first(tool, 'lax $.parameters', '{}', true),
        jsonb_path_query_first(tool, 'lax $.action', '{}', true),
        jsonb_path_query_first(tool, 'lax $.operation', '{}', true),
        jsonb_path_query_first(tool, 'lax $.queries', '{}', true),
        jsonb_path_query_first(tool, 'lax $.code', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.tool_arguments(jsonb) IS
    'The arguments of a tool call (see the reference of model calls); null if there is none.';

CREATE OR REPLACE FUNCTION orchestra.inner_parts(part jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN part @? 'lax $ ? (@.type == "tool-result").output ? (@.type == "content").value[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "tool-result").output ? (@.type == "content").value[*]', '{}', true)
        WHEN part @? 'lax $.citationsContent.content[*]' THEN
            jsonb_path_query_array(part, 'lax $.citationsContent.content[*]', '{}', true)
        WHEN part @? 'lax $ ? (@.type == "search_result").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "search_result").content[*]', '{}', true)
        WHEN part @? 'lax $ ? (@.type == "document").source ? (@.type == "content").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "document").source ? (@.type == "content").content[*]', '{}', true)
        WHEN part @? 'lax $ ? (@.type == "tool_result").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "tool_result").content[*]', '{}', true)
        WHEN part @? 'lax $.toolResult.content[*]' THEN
            jsonb_path_query_array(part, 'lax $.toolResult.content[*]', '{}', true)
    END
$$;

COMMENT ON FUNCTION orchestra.inner_parts(jsonb) IS
    'The parts inside a part of a content (see the reference of model calls); null if there are none.';

CREATE OR REPLACE FUNCTION orchestra.is_image(part jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT part @? 'lax $ ? (@.type == "image_url")'
        OR part @? 'lax $ ? (@.type == "input_image")'
        OR part @? 'lax $ ? (@.type == "image")'
        OR part @? 'lax $.image.source'
        OR part @? 'lax $.inlineData ? (@.mimeType starts with "image/")'
        OR part @? 'lax $.fileData ? (@.mimeType starts with "image/")'
        OR part @? 'lax $.inline_data ? (@.mime_type starts with "image/")'
        OR part @? 'lax $.file_data ? (@.mime_type starts with "image/")'
        OR part @? 'lax $ ? (@.type == "file" && @.mediaType starts with "image/")'
$$;

COMMENT ON FUNCTION orchestra.is_image(jsonb) IS
    'Whether a part of a content is an image (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.is_audio(part jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT part @? 'lax $.inlineData ? (@.mimeType starts with "audio/")'
        OR part @? 'lax $.fileData ? (@.mimeType starts with "audio/")'
        OR part @? 'lax $.inline_data ? (@.mime_type starts with "audio/")'
        OR part @? 'lax $.file_data ? (@.mime_type starts with "audio/")'
        OR part @? 'lax $ ? (@.type == "file" && @.mediaType starts with "audio/")'
        OR part @? 'lax $ ? (@.type == "input_audio")'
        OR part @? 'lax $ ? (@.type == "output_audio")'
        OR part @? 'lax $ ? (@.type == "audio")'
        OR part @? 'lax $.audio.source'
$$;

COMMENT ON FUNCTION orchestra.is_audio(jsonb) IS
    'Whether a part of a content is audio (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.prompt_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (1, 'OpenAI chat', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[*]', 'whole'),
        (2, 'Gemini', 'contents', jsonpath 'lax $',
            jsonpath 'lax $.contents[*]', 'whole'),
        (3, 'Gemini embeddings', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content ? (exists (@.parts))', 'whole'),
        (4, 'Gemini embeddings', 'requests', jsonpath 'lax $',
            jsonpath 'lax $.requests[*].content', 'whole'),
        (5, 'Cohere chat v1', 'chat_history', jsonpath 'lax $',
            jsonpath 'lax $.chat_history[*]', 'whole'),
        (6, 'Cohere chat v1', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message ? (@.type() == "string")', 'whole'),
        (7, 'OpenAI responses', 'input', jsonpath 'lax $',
            jsonpath 'lax $.input ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")', 'whole'),
        (8, 'Mistral conversations', 'inputs', jsonpath 'lax $',
            jsonpath 'lax $.inputs ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")', 'whole'),
        (9, 'OpenAI completions', 'prompt', jsonpath 'lax $',
            jsonpath 'lax $.prompt ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "image" || @.type like_regex "_call_output$|^function[._]result$")', 'whole'),
        (10, 'Bedrock, Titan', 'inputText', jsonpath 'lax $',
            jsonpath 'lax $.inputText', 'whole'),
        (11, 'Bedrock, Titan images', 'textToImageParams', jsonpath 'lax $',
            jsonpath 'lax $.textToImageParams.text', 'whole'),
        (12, 'Bedrock, Titan images', 'inPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.inPaintingParams.text', 'whole'),
        (13, 'Bedrock, Titan images', 'imageVariationParams', jsonpath 'lax $',
            jsonpath 'lax $.imageVariationParams.text', 'whole'),
        (14, 'Bedrock, Titan images', 'outPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.outPaintingParams.text', 'whole'),
        (15, 'Bedrock, Titan images', 'colorGuidedGenerationParams', jsonpath 'lax $',
            jsonpath 'lax $.colorGuidedGenerationParams.text', 'whole'),
        (16, 'Bedrock, Stability', 'text_prompts', jsonpath 'lax $',
            jsonpath 'lax $.text_prompts[*].text', 'whole'),
        (17, 'Vertex, Imagen', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].prompt', 'whole'),
        (18, 'Vertex, embeddings', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].content', 'whole'),
        (19, 'OpenAI realtime', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "conversation.item.create").item', 'whole'),
        (20, 'Cohere embeddings', 'texts', jsonpath 'lax $',
            jsonpath 'lax $.texts[*]', 'whole'),
        (21, 'Cohere reranking', 'query', jsonpath 'lax $',
            jsonpath 'lax $ ? (exists (@.documents)).query', 'whole'),
        (22, 'Perplexity by Composio', 'userContent', jsonpath 'lax $',
            jsonpath 'lax $.userContent', 'whole'),
        (23, 'Mistral OCR', 'document_annotation_prompt', jsonpath 'lax $',
            jsonpath 'lax $.document_annotation_prompt', 'whole'),
        (24, 'Mistral OCR', 'document', jsonpath 'lax $',
            jsonpath 'lax $.document.document_url ? (!(@ starts with "data:"))', 'whole')
$$;

COMMENT ON FUNCTION orchestra.prompt_places() IS
    'The messages of a request, or its prompt (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.system_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (25, 'Anthropic', 'system', jsonpath 'lax $',
            jsonpath 'lax $.system', 'whole'),
        (26, 'Gemini', 'systemInstruction', jsonpath 'lax $',
            jsonpath 'lax $.systemInstruction.parts', 'whole'),
        (27, 'Gemini', 'systemInstruction', jsonpath 'lax $',
            jsonpath 'lax $.systemInstruction ? (@.type() == "string")', 'whole'),
        (28, 'OpenAI realtime', 'session', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "session.update").session.instructions', 'whole'),
        (29, 'OpenAI realtime', 'response', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.create").response.instructions', 'whole'),
        (30, 'Gemini by Python', 'system_instruction', jsonpath 'lax $',
            jsonpath 'lax $.system_instruction ? (@.type() == "string")', 'whole'),
        (31, 'Gemini by Python', 'system_instruction', jsonpath 'lax $',
            jsonpath 'lax $.system_instruction.parts', 'whole'),
        (32, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.system_instruction ? (@.type() == "string")', 'whole'),
        (33, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.system_instruction.parts', 'whole'),
        (34, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.systemInstruction ? (@.type() == "string")', 'whole'),
        (35, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.systemInstruction.parts', 'whole'),
        (36, 'OpenAI responses', 'instructions', jsonpath 'lax $',
            jsonpath 'lax $.instructions ? (@.type() == "string")', 'whole'),
        (37, 'Cohere chat v1', 'preamble', jsonpath 'lax $',
            jsonpath 'lax $.preamble', 'whole'),
        (38, 'Perplexity by Composio', 'systemContent', jsonpath 'lax $',
            jsonpath 'lax $.systemContent', 'whole')
$$;

COMMENT ON FUNCTION orchestra.system_places() IS
    'The system text of a request (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.answer_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (169, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.content', 'whole'),
        (170, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.refusal', 'whole'),
        (171, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.audio.transcript', 'whole'),
        (172, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.content', 'delta'),
        (173, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.refusal', 'delta'),
        (174, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.audio.transcript', 'delta'),
        (175, 'OpenAI completions', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.text', 'either'),
        (176, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "message").content', 'whole'),
        (177, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_text.delta").delta', 'delta'),
        (178, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.refusal.delta").delta', 'delta'),
        (179, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.audio.transcript.delta").delta', 'delta'),
        (180, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.text.delta").delta', 'delta'),
        (181, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_audio_transcript.delta").delta', 'delta'),
        (182, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.audio_transcript.delta").delta', 'delta'),
        (183, 'OpenAI transcription', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "transcript.text.delta").delta', 'delta'),
        (184, 'Gemini', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts', 'either'),
        (185, 'Gemini interactions', 'steps', jsonpath 'lax $',
            jsonpath 'lax $.steps[*] ? (@.type == "model_output").content', 'whole'),
        (186, 'Bedrock Converse', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output.message.content', 'whole'),
        (187, 'Bedrock Converse', 'contentBlockDelta', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockDelta.delta.text', 'delta'),
        (188, 'Bedrock, Titan', 'results', jsonpath 'lax $.results[*]',
            jsonpath 'lax $.outputText', 'whole'),
        (189, 'Bedrock, Titan', 'outputText', jsonpath 'lax $',
            jsonpath 'lax $.outputText', 'either'),
        (190, 'Bedrock, Llama', 'generation', jsonpath 'lax $',
            jsonpath 'lax $.generation ? (@.type() == "string")', 'either'),
        (191, 'Bedrock, Mistral', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.text', 'either'),
        (192, 'Mistral conversations', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "message.output").content', 'whole'),
        (193, 'Mistral conversations', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "message.output.delta").content', 'delta'),
        (194, 'xAI by gRPC', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.message.content', 'whole'),
        (195, 'Mistral OCR', 'pages', jsonpath 'lax $.pages[*]',
            jsonpath 'lax $.markdown', 'whole'),
        (196, 'Bedrock, Cohere', 'generations', jsonpath 'lax $.generations[*][*]',
            jsonpath 'lax $.text', 'either'),
        (197, 'Bedrock, AI21', 'completions', jsonpath 'lax $.completions[*]',
            jsonpath 'lax $.data.text', 'whole'),
        (198, 'Cohere chat', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.message.content', 'delta'),
        (199, 'Anthropic', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.text', 'delta'),
        (200, 'Anthropic batches', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message ? (@.type == "message").content', 'whole'),
        (201, 'Ollama', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.content', 'either'),
        (202, 'Anthropic completions', 'completion', jsonpath 'lax $',
            jsonpath 'lax $.completion ? (@.type() == "string")', 'either'),
        (203, 'Cohere chat v1', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.event_type == "text-generation").text', 'delta'),
        (204, 'AI SDK', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").text ? (@.type() == "string")', 'delta'),
        (205, 'AI SDK', 'textDelta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").textDelta ? (@.type() == "string")', 'delta'),
        (206, 'AI SDK', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").delta ? (@.type() == "string")', 'delta'),
        (207, 'OpenAI transcription', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (!(@.type like_regex "^response[.]|-delta$")).text ? (@.type() == "string")', 'whole'),
        (208, 'LangChain', 'kwargs', jsonpath 'lax $',
            jsonpath 'lax $.kwargs.content', 'whole'),
        (209, 'LangChain', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "AIMessageChunk").content', 'delta'),
        (210, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").content', 'whole'),
        (211, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.content', 'whole'),
        (212, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.content', 'whole'),
        (213, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (!(@.type == "thought_summary")).content', 'whole'),
        (214, 'Ollama', 'response', jsonpath 'lax $',
            jsonpath 'lax $.response ? (@.type() == "string")', 'either'),
        (215, 'Hugging Face', 'generated_text', jsonpath 'lax $',
            jsonpath 'lax $.generated_text ? (@.type() == "string")', 'whole'),
        (216, 'AI SDK objects', 'object', jsonpath 'lax $',
            jsonpath 'lax $ ? (!exists (@.type)) ? (exists (@.finishReason) || @.object.type() == "object" || @.object.type() == "array").object', 'json')
$$;

COMMENT ON FUNCTION orchestra.answer_places() IS
    'The answers of a response (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.tool_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (217, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (218, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.function_call', 'whole'),
        (219, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.tool_calls[*]', 'delta'),
        (220, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.function_call', 'delta'),
        (221, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")', 'whole'),
        (222, 'OpenAI responses', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_item.done").item ? (@.type like_regex "^(function|custom_tool|mcp|web_search|file_search|code_interpreter|computer|local_shell|shell|apply_patch|tool_search)_call$")', 'delta'),
        (223, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")', 'whole'),
        (224, 'Anthropic batches', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.content[*] ? (@.type like_regex "^(server_|mcp_)?tool_use$")', 'whole'),
        (225, 'Anthropic', 'content_block', jsonpath 'lax $',
            jsonpath 'lax $.content_block ? (@.type like_regex "^(server_|mcp_)?tool_use$")', 'delta'),
        (226, 'Anthropic', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "input_json_delta" && exists (@.partial_json))', 'delta'),
        (227, 'Gemini', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts[*].functionCall', 'whole'),
        (228, 'Gemini by Python', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts[*].function_call', 'whole'),
        (229, 'Bedrock Converse', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output.message.content[*].toolUse', 'whole'),
        (230, 'Bedrock Converse', 'contentBlockStart', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockStart.start.toolUse', 'delta'),
        (231, 'Bedrock Converse', 'contentBlockDelta', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockDelta.delta.toolUse', 'delta'),
        (232, 'Ollama', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (233, 'Cohere chat', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.message.tool_calls', 'delta'),
        (234, 'Mistral conversations', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "function.call" || @.type == "tool.execution")', 'whole'),
        (235, 'Gemini interactions', 'steps', jsonpath 'lax $',
            jsonpath 'lax $.steps[*] ? (@.type == "function_call")', 'whole'),
        (236, 'Gemini interactions', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "function_call")', 'whole'),
        (237, 'Gemini interactions', 'step', jsonpath 'lax $',
            jsonpath 'lax $.step ? (@.type == "function_call")', 'delta'),
        (238, 'Gemini interactions', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "arguments_delta" && exists (@.arguments))', 'delta'),
        (239, 'Gemini interactions', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "function_call" && exists (@.name))', 'delta'),
        (240, 'Mistral conversations', 'output_index', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type like_regex "^(function.call|tool.execution).(delta|started)$" && exists (@.output_index))', 'delta'),
        (241, 'xAI by gRPC', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (242, 'xAI by gRPC', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.message.toolCalls[*]', 'whole'),
        (243, 'LangChain', 'kwargs', jsonpath 'lax $',
            jsonpath 'lax $.kwargs.tool_calls[*]', 'whole'),
        (244, 'LangChain', 'tool_call_chunks', jsonpath 'lax $',
            jsonpath 'lax $.tool_call_chunks[*]', 'delta'),
        (245, 'LangChain', 'tool_calls', jsonpath 'lax $',
            jsonpath 'lax $.tool_calls[*]', 'whole'),
        (246, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").tool_calls[*]', 'whole'),
        (247, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.type like_regex "^(ai|AIMessage)" || @.role == "assistant").data.tool_calls[*]', 'whole'),
        (248, 'LangGraph', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[last] ? (@.id[last] like_regex "^AIMessage").kwargs.tool_calls[*]', 'whole'),
        (249, 'LangChain', 'generations', jsonpath 'lax $',
            jsonpath 'lax $.generations[*][*].message.kwargs.tool_calls[*]', 'whole'),
        (250, 'AI SDK', 'toolCalls', jsonpath 'lax $',
            jsonpath 'lax $.toolCalls[*]', 'whole'),
        (251, 'AI SDK', 'toolName', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "tool-call" && exists (@.toolName))', 'whole'),
        (252, 'AI SDK', 'toolName', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "tool-input-available" && exists (@.toolName))', 'whole'),
        (253, 'AI SDK, a provider', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type == "tool-call")', 'whole')
$$;

COMMENT ON FUNCTION orchestra.tool_places() IS
    'The tools that a response calls (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.image_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (270, 'OpenAI images', 'data', jsonpath 'lax $',
            jsonpath 'lax $.data[*].b64_json', 'whole'),
        (271, 'OpenAI images', 'data', jsonpath 'lax $',
            jsonpath 'lax $.data[*].url', 'whole'),
        (272, 'OpenAI images', 'image', jsonpath 'lax $',
            jsonpath 'lax $.image[*]', 'whole'),
        (273, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "image_generation_call").result', 'whole'),
        (274, 'OpenRouter', 'choices', jsonpath 'lax $',
            jsonpath 'lax $.choices[*].message.images[*]', 'whole'),
        (275, 'OpenAI images', 'b64_json', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "image_generation.completed" || @.type == "image_edit.completed").b64_json', 'whole'),
        (276, 'Vertex, Imagen', 'predictions', jsonpath 'lax $',
            jsonpath 'lax $.predictions[*].bytesBase64Encoded', 'whole'),
        (277, 'Vertex, Imagen', 'predictions', jsonpath 'lax $',
            jsonpath 'lax $.predictions[*].gcsUri', 'whole'),
        (278, 'Vertex, Imagen', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].referenceImages[*].referenceImage', 'whole'),
        (279, 'Vertex, Imagen', 'instances', jsonpath 'lax $',
            jsonpath 'lax $.instances[*].image', 'whole'),
        (280, 'Gemini by Python', 'generated_images', jsonpath 'lax $',
            jsonpath 'lax $.generated_images[*].image', 'whole'),
        (281, 'Gemini by Python', 'generatedImages', jsonpath 'lax $',
            jsonpath 'lax $.generatedImages[*].image', 'whole'),
        (282, 'Bedrock, Titan images', 'textToImageParams', jsonpath 'lax $',
            jsonpath 'lax $.textToImageParams.conditionImage', 'whole'),
        (283, 'Bedrock, Titan images', 'inPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.inPaintingParams.image', 'whole'),
        (284, 'Bedrock, Titan images', 'outPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.outPaintingParams.image', 'whole'),
        (285, 'Bedrock, Titan images', 'imageVariationParams', jsonpath 'lax $',
            jsonpath 'lax $.imageVariationParams.images[*]', 'whole'),
        (286, 'Ollama', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[*].images[*]', 'whole'),
        (287, 'OpenRouter images', 'input_references', jsonpath 'lax $',
            jsonpath 'lax $.input_references[*]', 'whole'),
        (288, 'Bedrock, Titan images', 'images', jsonpath 'lax $',
            jsonpath 'lax $.images[*]', 'whole'),
        (289, 'Stability', 'artifacts', jsonpath 'lax $',
            jsonpath 'lax $.artifacts[*].base64', 'whole'),
        (290, 'AI SDK', 'files', jsonpath 'lax $',
            jsonpath 'lax $.files[*] ? (@.mediaType starts with "image/")', 'whole'),
        (294, 'Mistral OCR', 'document', jsonpath 'lax $',
            jsonpath 'lax $.document ? (@.type == "image_url").image_url', 'whole')
$$;

COMMENT ON FUNCTION orchestra.image_places() IS
    'Images beside contents (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.audio_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (291, 'AI SDK', 'files', jsonpath 'lax $',
            jsonpath 'lax $.files[*] ? (@.mediaType starts with "audio/")', 'whole'),
        (292, 'OpenAI chat', 'choices', jsonpath 'lax $',
            jsonpath 'lax $.choices[*].message.audio.data', 'whole'),
        (293, 'OpenAI transcription', 'file', jsonpath 'lax $',
            jsonpath 'lax $.file', 'whole')
$$;

COMMENT ON FUNCTION orchestra.audio_places() IS
    'Audio beside contents (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.parameter_names() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        'temperature',
        'top_p',
        'n',
        'stop',
        'seed',
        'max_tokens',
        'max_completion_tokens',
        'presence_penalty',
        'frequency_penalty',
        'logit_bias',
        'logprobs',
        'top_logprobs',
        'response_format',
        'stream',
        'stream_options',
        'tool_choice',
        'parallel_tool_calls',
        'reasoning_effort',
        'verbosity',
        'service_tier',
        'modalities',
        'audio',
        'prediction',
        'web_search_options',
        'store',
        'max_output_tokens',
        'max_tool_calls',
        'reasoning',
        'truncation',
        'include',
        'background',
        'prompt_cache_retention',
        'dimensions',
        'encoding_format',
        'size',
        'quality',
        'style',
        'moderation',
        'output_format',
        'output_compression',
        'input_fidelity',
        'language',
        'timestamp_granularities',
        'voice',
        'speed',
        'chunking_strategy',
        'thinking',
        'stop_sequences',
        'top_k',
        'output_config',
        'context_management',
        'max_tokens_to_sample',
        'format',
        'think',
        'keep_alive',
        'raw',
        'search_parameters',
        'reasoning_format',
        'safe_prompt',
        'random_seed',
        'prompt_mode',
        'pages',
        'table_format',
        'confidence_scores_granularity',
        'p',
        'k',
        'citation_options',
        'safety_mode',
        'strict_tools',
        'input_type',
        'embedding_types',
        'truncate',
        'top_n',
        'provider',
        'models',
        'transforms',
        'route',
        'min_p',
        'top_a',
        'repetition_penalty',
        'resolution',
        'aspect_ratio',
        'max_gen_len',
        'performanceConfig',
        'guardrailConfig',
        'serviceTier',
        'maxTokens',
        'maxOutputTokens',
        'topP',
        'topK',
        'presencePenalty',
        'frequencyPenalty',
        'stopSequences',
        'toolChoice',
        'maxRetries',
        'maxSteps',
        'providerOptions',
        'candidateCount',
        'responseMimeType',
        'responseSchema',
        'responseModalities',
        'thinkingConfig',
        'speechConfig',
        'imageConfig',
        'mediaResolution',
        'safetySettings',
        'candidate_count',
        'response_mime_type',
        'response_schema',
        'response_modalities',
        'thinking_config',
        'safety_settings',
        'responseJsonSchema',
        'response_json_schema',
        'speech_config',
        'media_resolution',
        'thinking_level'
    ]
$$;

COMMENT ON FUNCTION orchestra.parameter_names() IS
    'The settings of a request (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.settings_names() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        'inferenceConfig',
        'additionalModelRequestFields',
        'textGenerationConfig',
        'imageGenerationConfig',
        'generationConfig',
        'generation_config',
        'config',
        'text',
        'parameters',
        'options',
        'completion_args'
    ]
$$;

COMMENT ON FUNCTION orchestra.settings_names() IS
    'Objects with settings of a request (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.request_containers() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        'body',
        'request',
        'requests',
        'params',
        'data',
        'payload',
        'json',
        'input',
        'input_mapping',
        'arguments',
        'kwargs',
        'modelInput'
    ]
$$;

COMMENT ON FUNCTION orchestra.request_containers() IS
    'Objects around a request (see the reference of model calls).';

CREATE OR REPLACE FUNCTION orchestra.response_containers() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        'response',
        'response_data',
        'message',
        'delta',
        'metadata',
        'x_groq',
        'body',
        'result',
        'data',
        'chunks',
        'events',
        'stream',
        'modelOutput'
    ]
$$;

COMMENT ON FUNCTION orchestra.response_containers() IS
    'Objects around a response (see the reference of model calls).';

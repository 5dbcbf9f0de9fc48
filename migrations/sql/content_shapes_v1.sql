-- Written by `make docs` from etl/transform/content_shapes.py, which names the public page of each
-- place. The functions of model_call_text use these.

CREATE FUNCTION orchestra.is_request(body jsonb) RETURNS boolean
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
        OR (body ? 'input' AND (body @? 'lax $.input ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "function_call_output")'))
        OR (body ? 'inputs' AND (body @? 'lax $.inputs ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "function_call_output")'))
        OR (body ? 'prompt' AND (body @? 'lax $.prompt ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "function_call_output")'))
        OR (body ? 'inputText' AND (body @? 'lax $.inputText'))
        OR (body ? 'textToImageParams' AND (body @? 'lax $.textToImageParams.text'))
        OR (body ? 'inPaintingParams' AND (body @? 'lax $.inPaintingParams.text'))
        OR (body ? 'imageVariationParams' AND (body @? 'lax $.imageVariationParams.text'))
        OR (body ? 'texts' AND (body @? 'lax $.texts[*]'))
        OR (body ? 'query' AND (body @? 'lax $ ? (exists (@.documents)).query'))
        OR (body ? 'userContent' AND (body @? 'lax $.userContent'))
        OR (body ? 'system' AND (body @? 'lax $.system'))
        OR (body ? 'systemInstruction' AND (body @? 'lax $.systemInstruction.parts'))
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
        OR (body ? 'file' AND (body @? 'lax $.file')))
$$;

COMMENT ON FUNCTION orchestra.is_request(jsonb) IS
    'Whether an object is a known request of a model (see the reference of model calls).';

CREATE FUNCTION orchestra.is_response(body jsonb) RETURNS boolean
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
            OR body @? 'lax $.output[*] ? (@.type == "function_call")'
            OR body @? 'lax $.output[*] ? (@.type == "custom_tool_call")'
            OR body @? 'lax $.output[*] ? (@.type == "mcp_call")'
            OR body @? 'lax $.output.message.content[*].toolUse'
            OR body @? 'lax $.output[*] ? (@.type == "image_generation_call").result'))
        OR (body ? 'delta' AND (body @? 'lax $ ? (@.type == "response.output_text.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.refusal.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.text.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.output_audio_transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "response.audio_transcript.delta").delta'
            OR body @? 'lax $ ? (@.type == "transcript.text.delta").delta'
            OR body @? 'lax $.delta.message.content'
            OR body @? 'lax $.delta.text'
            OR body @? 'lax $ ? (@.type == "text-delta").delta ? (@.type() == "string")'
            OR body @? 'lax $.delta ? (@.type == "input_json_delta")'
            OR body @? 'lax $.delta.message.tool_calls'))
        OR (body ? 'candidates' AND (body @? 'lax $.candidates[*].content.parts'
            OR body @? 'lax $.candidates[*].content.parts[*].functionCall'
            OR body @? 'lax $.candidates[*].content.parts[*].function_call'))
        OR (body ? 'contentBlockDelta' AND (body @? 'lax $.contentBlockDelta.delta.text'
            OR body @? 'lax $.contentBlockDelta.delta.toolUse'))
        OR (body ? 'results' AND (body @? 'lax $.results[*].outputText'
            OR body @? 'lax $.results[*].relevance_score'
            OR body @? 'lax $.results[*].categories'))
        OR (body ? 'outputText' AND (body @? 'lax $.outputText'))
        OR (body ? 'generation' AND (body @? 'lax $.generation ? (@.type() == "string")'))
        OR (body ? 'outputs' AND (body @? 'lax $.outputs[*].text'
            OR body @? 'lax $.outputs[*] ? (@.type == "message.output").content'
            OR body @? 'lax $.outputs[*] ? (@.type == "function.call")'))
        OR (body ? 'content' AND (body @? 'lax $ ? (@.type == "message.output.delta").content'
            OR body @? 'lax $ ? (@.type == "AIMessageChunk").content'
            OR body @? 'lax $.content'
            OR body @? 'lax $.content[*] ? (@.type == "tool_use")'
            OR body @? 'lax $.content[*] ? (@.type == "server_tool_use")'
            OR body @? 'lax $.content[*] ? (@.type == "mcp_tool_use")'))
        OR (body ? 'pages' AND (body @? 'lax $.pages[*].markdown'))
        OR (body ? 'generations' AND (body @? 'lax $.generations[*].text'))
        OR (body ? 'completions' AND (body @? 'lax $.completions[*].data.text'))
        OR (body ? 'message' AND (body @? 'lax $.message.content'
            OR body @? 'lax $.message.tool_calls[*]'))
        OR (body ? 'completion' AND (body @? 'lax $.completion ? (@.type() == "string")'))
        OR (body ? 'text' AND (body @? 'lax $ ? (@.event_type == "text-generation").text'
            OR body @? 'lax $ ? (@.type == "text-delta").text ? (@.type() == "string")'
            OR body @? 'lax $ ? (!(@.type like_regex "^response[.]|-delta$")).text ? (@.type() == "string")'))
        OR (body ? 'textDelta' AND (body @? 'lax $ ? (@.type == "text-delta").textDelta ? (@.type() == "string")'))
        OR (body ? 'kwargs' AND (body @? 'lax $.kwargs.content'
            OR body @? 'lax $.kwargs.tool_calls[*]'))
        OR (body ? 'response' AND (body @? 'lax $.response ? (@.type() == "string")'))
        OR (body ? 'generated_text' AND (body @? 'lax $.generated_text ? (@.type() == "string")'))
        OR (body ? 'item' AND (body @? 'lax $ ? (@.type == "response.output_item.done").item ? (@.type == "function_call")'
            OR body @? 'lax $ ? (@.type == "response.output_item.done").item ? (@.type == "custom_tool_call")'
            OR body @? 'lax $ ? (@.type == "response.output_item.done").item ? (@.type == "mcp_call")'))
        OR (body ? 'content_block' AND (body @? 'lax $.content_block ? (@.type == "tool_use")'
            OR body @? 'lax $.content_block ? (@.type == "server_tool_use")'
            OR body @? 'lax $.content_block ? (@.type == "mcp_tool_use")'))
        OR (body ? 'contentBlockStart' AND (body @? 'lax $.contentBlockStart.start.toolUse'))
        OR (body ? 'tool_call_chunks' AND (body @? 'lax $.tool_call_chunks[*]'))
        OR (body ? 'tool_calls' AND (body @? 'lax $.tool_calls[*]'))
        OR (body ? 'toolCalls' AND (body @? 'lax $.toolCalls[*]'))
        OR (body ? 'data' AND (body @? 'lax $.data[*].b64_json'
            OR body @? 'lax $.data[*].url'
            OR body @? 'lax $.data[*].embedding'))
        OR (body ? 'images' AND (body @? 'lax $.images[*]'))
        OR (body ? 'artifacts' AND (body @? 'lax $.artifacts[*].base64'))
        OR (body ? 'files' AND (body @? 'lax $.files[*] ? (@.mediaType starts with "image/")'
            OR body @? 'lax $.files[*] ? (@.mediaType starts with "audio/")'))
        OR (body ? 'embedding' AND (body @? 'lax $.embedding'))
        OR (body ? 'embeddings' AND (body @? 'lax $.embeddings'))
        OR (body ? 'embeddingsByType' AND (body @? 'lax $.embeddingsByType'))
        OR (body ? 'object' AND (body @? 'lax $.object ? (@.type() == "object")')))
$$;

COMMENT ON FUNCTION orchestra.is_response(jsonb) IS
    'Whether an object is a known response of a model (see the reference of model calls).';

CREATE FUNCTION orchestra.message_role(message jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(message, 'lax $.role ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(message, 'lax $.type ? (@ == "system" || @ == "human" || @ == "ai" || @ == "tool")', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.message_role(jsonb) IS
    'Who wrote a message of a request (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.message_content(message jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(message, 'lax $.content', '{}', true),
        jsonb_path_query_first(message, 'lax $.parts', '{}', true),
        jsonb_path_query_first(message, 'lax $.message ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (@.type == "function_call_output").output', '{}', true),
        jsonb_path_query_first(message, 'lax $.kwargs.content', '{}', true),
        jsonb_path_query_first(message, 'lax $ ? (exists (@.text))', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.message_content(jsonb) IS
    'The content of a message (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.part_text(part jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(part, 'lax $ ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $ ? (!(@.thought == true || @.type == "reasoning" || @.type == "thinking" || @.type == "redacted_thinking" || @.type == "summary_text" || @.type == "reasoning_text")).text ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $.refusal ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(part, 'lax $.transcript ? (@.type() == "string")', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.part_text(jsonb) IS
    'The text of a part of a content (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.tool_name(tool jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(tool, 'lax $.function.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.custom.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.name ? (@.type() == "string")', '{}', true),
        jsonb_path_query_first(tool, 'lax $.toolName ? (@.type() == "string")', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.tool_name(jsonb) IS
    'The name of the tool that a tool call names (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.tool_arguments(tool jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT COALESCE(
        jsonb_path_query_first(tool, 'lax $.function.arguments', '{}', true),
        jsonb_path_query_first(tool, 'lax $.custom.input', '{}', true),
        jsonb_path_query_first(tool, 'lax $.arguments', '{}', true),
        jsonb_path_query_first(tool, 'lax $.input', '{}', true),
        jsonb_path_query_first(tool, 'lax $.partial_json', '{}', true),
        jsonb_path_query_first(tool, 'lax $.args', '{}', true),
        jsonb_path_query_first(tool, 'lax $.parameters', '{}', true))
$$;

COMMENT ON FUNCTION orchestra.tool_arguments(jsonb) IS
    'The arguments of a tool call (see the reference of model calls); null if there is none.';

CREATE FUNCTION orchestra.inner_parts(part jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN part @? 'lax $ ? (@.type == "tool_result").content[*]' THEN
            jsonb_path_query_array(part, 'lax $ ? (@.type == "tool_result").content[*]', '{}', true)
        WHEN part @? 'lax $.toolResult.content[*]' THEN
            jsonb_path_query_array(part, 'lax $.toolResult.content[*]', '{}', true)
    END
$$;

COMMENT ON FUNCTION orchestra.inner_parts(jsonb) IS
    'The parts inside a part of a content (see the reference of model calls); null if there are none.';

CREATE FUNCTION orchestra.is_image(part jsonb) RETURNS boolean
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

CREATE FUNCTION orchestra.is_audio(part jsonb) RETURNS boolean
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

CREATE FUNCTION orchestra.prompt_places()
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
            jsonpath 'lax $.input ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "function_call_output")', 'whole'),
        (8, 'Mistral conversations', 'inputs', jsonpath 'lax $',
            jsonpath 'lax $.inputs ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "function_call_output")', 'whole'),
        (9, 'OpenAI completions', 'prompt', jsonpath 'lax $',
            jsonpath 'lax $.prompt ? (@.type() == "string" || exists (@.content) || @.type == "text" || @.type == "function_call_output")', 'whole'),
        (10, 'Bedrock, Titan', 'inputText', jsonpath 'lax $',
            jsonpath 'lax $.inputText', 'whole'),
        (11, 'Bedrock, Titan images', 'textToImageParams', jsonpath 'lax $',
            jsonpath 'lax $.textToImageParams.text', 'whole'),
        (12, 'Bedrock, Titan images', 'inPaintingParams', jsonpath 'lax $',
            jsonpath 'lax $.inPaintingParams.text', 'whole'),
        (13, 'Bedrock, Titan images', 'imageVariationParams', jsonpath 'lax $',
            jsonpath 'lax $.imageVariationParams.text', 'whole'),
        (14, 'Cohere embeddings', 'texts', jsonpath 'lax $',
            jsonpath 'lax $.texts[*]', 'whole'),
        (15, 'Cohere reranking', 'query', jsonpath 'lax $',
            jsonpath 'lax $ ? (exists (@.documents)).query', 'whole'),
        (16, 'Perplexity by Composio', 'userContent', jsonpath 'lax $',
            jsonpath 'lax $.userContent', 'whole')
$$;

COMMENT ON FUNCTION orchestra.prompt_places() IS
    'The messages of a request, or its prompt (see the reference of model calls).';

CREATE FUNCTION orchestra.system_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (17, 'Anthropic', 'system', jsonpath 'lax $',
            jsonpath 'lax $.system', 'whole'),
        (18, 'Gemini', 'systemInstruction', jsonpath 'lax $',
            jsonpath 'lax $.systemInstruction.parts', 'whole'),
        (19, 'Gemini by Python', 'system_instruction', jsonpath 'lax $',
            jsonpath 'lax $.system_instruction ? (@.type() == "string")', 'whole'),
        (20, 'Gemini by Python', 'system_instruction', jsonpath 'lax $',
            jsonpath 'lax $.system_instruction.parts', 'whole'),
        (21, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.system_instruction ? (@.type() == "string")', 'whole'),
        (22, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.system_instruction.parts', 'whole'),
        (23, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.systemInstruction ? (@.type() == "string")', 'whole'),
        (24, 'Gemini by Python', 'config', jsonpath 'lax $',
            jsonpath 'lax $.config.systemInstruction.parts', 'whole'),
        (25, 'OpenAI responses', 'instructions', jsonpath 'lax $',
            jsonpath 'lax $.instructions ? (@.type() == "string")', 'whole'),
        (26, 'Cohere chat v1', 'preamble', jsonpath 'lax $',
            jsonpath 'lax $.preamble', 'whole'),
        (27, 'Perplexity by Composio', 'systemContent', jsonpath 'lax $',
            jsonpath 'lax $.systemContent', 'whole')
$$;

COMMENT ON FUNCTION orchestra.system_places() IS
    'The system text of a request (see the reference of model calls).';

CREATE FUNCTION orchestra.answer_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (140, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.content', 'whole'),
        (141, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.refusal', 'whole'),
        (142, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.audio.transcript', 'whole'),
        (143, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.content', 'delta'),
        (144, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.refusal', 'delta'),
        (145, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.audio.transcript', 'delta'),
        (146, 'OpenAI completions', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.text', 'either'),
        (147, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "message").content', 'whole'),
        (148, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_text.delta").delta', 'delta'),
        (149, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.refusal.delta").delta', 'delta'),
        (150, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.text.delta").delta', 'delta'),
        (151, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_audio_transcript.delta").delta', 'delta'),
        (152, 'OpenAI responses', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.audio_transcript.delta").delta', 'delta'),
        (153, 'OpenAI transcription', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "transcript.text.delta").delta', 'delta'),
        (154, 'Gemini', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts', 'either'),
        (155, 'Bedrock Converse', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output.message.content', 'whole'),
        (156, 'Bedrock Converse', 'contentBlockDelta', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockDelta.delta.text', 'delta'),
        (157, 'Bedrock, Titan', 'results', jsonpath 'lax $.results[*]',
            jsonpath 'lax $.outputText', 'whole'),
        (158, 'Bedrock, Titan', 'outputText', jsonpath 'lax $',
            jsonpath 'lax $.outputText', 'either'),
        (159, 'Bedrock, Llama', 'generation', jsonpath 'lax $',
            jsonpath 'lax $.generation ? (@.type() == "string")', 'either'),
        (160, 'Bedrock, Mistral', 'outputs', jsonpath 'lax $.outputs[*]',
            jsonpath 'lax $.text', 'either'),
        (161, 'Mistral conversations', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "message.output").content', 'whole'),
        (162, 'Mistral conversations', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "message.output.delta").content', 'delta'),
        (163, 'Mistral OCR', 'pages', jsonpath 'lax $.pages[*]',
            jsonpath 'lax $.markdown', 'whole'),
        (164, 'Bedrock, Cohere', 'generations', jsonpath 'lax $.generations[*]',
            jsonpath 'lax $.text', 'either'),
        (165, 'Bedrock, AI21', 'completions', jsonpath 'lax $.completions[*]',
            jsonpath 'lax $.data.text', 'whole'),
        (166, 'Cohere chat', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.message.content', 'delta'),
        (167, 'Anthropic', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.text', 'delta'),
        (168, 'Ollama', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.content', 'either'),
        (169, 'Anthropic completions', 'completion', jsonpath 'lax $',
            jsonpath 'lax $.completion ? (@.type() == "string")', 'either'),
        (170, 'Cohere chat v1', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.event_type == "text-generation").text', 'delta'),
        (171, 'AI SDK', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").text ? (@.type() == "string")', 'delta'),
        (172, 'AI SDK', 'textDelta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").textDelta ? (@.type() == "string")', 'delta'),
        (173, 'AI SDK', 'delta', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "text-delta").delta ? (@.type() == "string")', 'delta'),
        (174, 'OpenAI transcription', 'text', jsonpath 'lax $',
            jsonpath 'lax $ ? (!(@.type like_regex "^response[.]|-delta$")).text ? (@.type() == "string")', 'whole'),
        (175, 'LangChain', 'kwargs', jsonpath 'lax $',
            jsonpath 'lax $.kwargs.content', 'whole'),
        (176, 'LangChain', 'content', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "AIMessageChunk").content', 'delta'),
        (177, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content', 'whole'),
        (178, 'Ollama', 'response', jsonpath 'lax $',
            jsonpath 'lax $.response ? (@.type() == "string")', 'either'),
        (179, 'Hugging Face', 'generated_text', jsonpath 'lax $',
            jsonpath 'lax $.generated_text ? (@.type() == "string")', 'whole')
$$;

COMMENT ON FUNCTION orchestra.answer_places() IS
    'The answers of a response (see the reference of model calls).';

CREATE FUNCTION orchestra.tool_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (180, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (181, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.message.function_call', 'whole'),
        (182, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.tool_calls[*]', 'delta'),
        (183, 'OpenAI chat', 'choices', jsonpath 'lax $.choices[*]',
            jsonpath 'lax $.delta.function_call', 'delta'),
        (184, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "function_call")', 'whole'),
        (185, 'OpenAI responses', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_item.done").item ? (@.type == "function_call")', 'delta'),
        (186, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "custom_tool_call")', 'whole'),
        (187, 'OpenAI responses', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_item.done").item ? (@.type == "custom_tool_call")', 'delta'),
        (188, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "mcp_call")', 'whole'),
        (189, 'OpenAI responses', 'item', jsonpath 'lax $',
            jsonpath 'lax $ ? (@.type == "response.output_item.done").item ? (@.type == "mcp_call")', 'delta'),
        (190, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type == "tool_use")', 'whole'),
        (191, 'Anthropic', 'content_block', jsonpath 'lax $',
            jsonpath 'lax $.content_block ? (@.type == "tool_use")', 'delta'),
        (192, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type == "server_tool_use")', 'whole'),
        (193, 'Anthropic', 'content_block', jsonpath 'lax $',
            jsonpath 'lax $.content_block ? (@.type == "server_tool_use")', 'delta'),
        (194, 'Anthropic', 'content', jsonpath 'lax $',
            jsonpath 'lax $.content[*] ? (@.type == "mcp_tool_use")', 'whole'),
        (195, 'Anthropic', 'content_block', jsonpath 'lax $',
            jsonpath 'lax $.content_block ? (@.type == "mcp_tool_use")', 'delta'),
        (196, 'Anthropic', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta ? (@.type == "input_json_delta")', 'delta'),
        (197, 'Gemini', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts[*].functionCall', 'whole'),
        (198, 'Gemini by Python', 'candidates', jsonpath 'lax $.candidates[*]',
            jsonpath 'lax $.content.parts[*].function_call', 'whole'),
        (199, 'Bedrock Converse', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output.message.content[*].toolUse', 'whole'),
        (200, 'Bedrock Converse', 'contentBlockStart', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockStart.start.toolUse', 'delta'),
        (201, 'Bedrock Converse', 'contentBlockDelta', jsonpath 'lax $',
            jsonpath 'lax $.contentBlockDelta.delta.toolUse', 'delta'),
        (202, 'Ollama', 'message', jsonpath 'lax $',
            jsonpath 'lax $.message.tool_calls[*]', 'whole'),
        (203, 'Cohere chat', 'delta', jsonpath 'lax $',
            jsonpath 'lax $.delta.message.tool_calls', 'delta'),
        (204, 'Mistral conversations', 'outputs', jsonpath 'lax $',
            jsonpath 'lax $.outputs[*] ? (@.type == "function.call")', 'whole'),
        (205, 'LangChain', 'kwargs', jsonpath 'lax $',
            jsonpath 'lax $.kwargs.tool_calls[*]', 'whole'),
        (206, 'LangChain', 'tool_call_chunks', jsonpath 'lax $',
            jsonpath 'lax $.tool_call_chunks[*]', 'delta'),
        (207, 'LangChain', 'tool_calls', jsonpath 'lax $',
            jsonpath 'lax $.tool_calls[*]', 'whole'),
        (208, 'AI SDK', 'toolCalls', jsonpath 'lax $',
            jsonpath 'lax $.toolCalls[*]', 'whole')
$$;

COMMENT ON FUNCTION orchestra.tool_places() IS
    'The tools that a response calls (see the reference of model calls).';

CREATE FUNCTION orchestra.image_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (220, 'OpenAI images', 'data', jsonpath 'lax $',
            jsonpath 'lax $.data[*].b64_json', 'whole'),
        (221, 'OpenAI images', 'data', jsonpath 'lax $',
            jsonpath 'lax $.data[*].url', 'whole'),
        (222, 'OpenAI images', 'image', jsonpath 'lax $',
            jsonpath 'lax $.image[*]', 'whole'),
        (223, 'OpenAI responses', 'output', jsonpath 'lax $',
            jsonpath 'lax $.output[*] ? (@.type == "image_generation_call").result', 'whole'),
        (224, 'OpenRouter', 'choices', jsonpath 'lax $',
            jsonpath 'lax $.choices[*].message.images[*]', 'whole'),
        (225, 'Ollama', 'messages', jsonpath 'lax $',
            jsonpath 'lax $.messages[*].images[*]', 'whole'),
        (226, 'Bedrock, Titan images', 'images', jsonpath 'lax $',
            jsonpath 'lax $.images[*]', 'whole'),
        (227, 'Stability', 'artifacts', jsonpath 'lax $',
            jsonpath 'lax $.artifacts[*].base64', 'whole'),
        (228, 'AI SDK', 'files', jsonpath 'lax $',
            jsonpath 'lax $.files[*] ? (@.mediaType starts with "image/")', 'whole')
$$;

COMMENT ON FUNCTION orchestra.image_places() IS
    'Images beside contents (see the reference of model calls).';

CREATE FUNCTION orchestra.audio_places()
RETURNS TABLE (ordinal integer, api text, member text, alternatives jsonpath, path jsonpath,
    kind text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 2
AS $$
    VALUES
        (229, 'AI SDK', 'files', jsonpath 'lax $',
            jsonpath 'lax $.files[*] ? (@.mediaType starts with "audio/")', 'whole'),
        (230, 'OpenAI chat', 'choices', jsonpath 'lax $',
            jsonpath 'lax $.choices[*].message.audio.data', 'whole'),
        (231, 'OpenAI transcription', 'file', jsonpath 'lax $',
            jsonpath 'lax $.file', 'whole')
$$;

COMMENT ON FUNCTION orchestra.audio_places() IS
    'Audio beside contents (see the reference of model calls).';

CREATE FUNCTION orchestra.parameter_names() RETURNS text[]
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
        'max_tokens_to_sample',
        'format',
        'think',
        'keep_alive',
        'raw',
        'safe_prompt',
        'random_seed',
        'prompt_mode',
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
        'max_gen_len',
        'performanceConfig',
        'guardrailConfig',
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
        'safety_settings'
    ]
$$;

COMMENT ON FUNCTION orchestra.parameter_names() IS
    'The settings of a request (see the reference of model calls).';

CREATE FUNCTION orchestra.settings_names() RETURNS text[]
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
        'options',
        'completion_args'
    ]
$$;

COMMENT ON FUNCTION orchestra.settings_names() IS
    'Objects with settings of a request (see the reference of model calls).';

CREATE FUNCTION orchestra.request_containers() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT ARRAY[
        'body',
        'request',
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

CREATE FUNCTION orchestra.response_containers() RETURNS text[]
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
        'stream'
    ]
$$;

COMMENT ON FUNCTION orchestra.response_containers() IS
    'Objects around a response (see the reference of model calls).';

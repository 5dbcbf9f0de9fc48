{# The kinds of usage with a price of their own, in the order of the type orchestra.usage. #}
{% macro orchestra_kinds() %}
    {{ return([
        'input_tokens', 'cached_input_tokens', 'cache_write_tokens', 'cache_write_1h_tokens',
        'input_audio_tokens', 'cached_audio_tokens', 'input_image_tokens', 'cached_image_tokens',
        'input_video_tokens', 'output_tokens', 'reasoning_tokens', 'output_audio_tokens',
        'output_image_tokens', 'output_video_tokens', 'citation_tokens', 'other_tokens',
        'web_searches', 'file_searches', 'tool_uses', 'audio_ms', 'document_pages', 'search_units',
        'unread_quantities',
    ]) }}
{% endmacro %}


{# The usage of a row as one value. #}
{% macro orchestra_usage(row) %}
    CAST(ROW(
        {%- for kind in orchestra.orchestra_kinds() -%}
            {{ row }}.{{ kind }}{{ ', ' if not loop.last }}
        {%- endfor -%}
    ) AS orchestra.usage)
{%- endmacro %}


{# A sum over calls: null if there are calls and none of them reports the value. #}
{% macro orchestra_sum(name) %}
    CAST(COALESCE(sum({{ name }}), CASE WHEN bool_or(is_call) THEN NULL ELSE 0 END) AS bigint)
{%- endmacro %}

"""`make bench-search`: a search of a large history, with and without its index.

SQL generates the history: runs with five steps, spread evenly over a year, of which two call a
model. Their prompts and answers consist of sentences of invented words in five scripts, whose
frequencies follow Zipf's law. Known phrases are hidden in it: one in a hundred thousand steps, or in
a few. The benchmark measures each search over the default window and over everything, the build of
the index, and the load of new runs with and without it.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psycopg

from etl.embedded.postgres import EmbeddedPostgres
from etl.schema import upgrade
from tests.postgres_fixture import new_home
from tests.support import query

WORKFLOWS, NODES, DAYS = 10, 5, 365
# The usual memory settings of a server with two cores; everything else is PostgreSQL's default.
SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "maintenance_work_mem": "1GB",
    "work_mem": "32MB",
    "autovacuum": "off",
}

# Words of one to four syllables; the first are by far the most frequent, as in any language. A
# Chinese "word" has one or two characters. Sentences are made once, because a word for each place
# of each text would take most of the benchmark's time.
_SENTENCES = """
    CREATE UNLOGGED TABLE sentences AS
    WITH syllables AS (
        SELECT array_agg(onset || vowel || coda ORDER BY random()) AS known
        FROM unnest('{b,c,d,f,g,h,l,m,n,p,r,s,t,v,w,st,tr,pr,sh,th}'::text[]) AS onset,
             unnest('{a,e,i,o,u,ea,ou,io}'::text[]) AS vowel,
             unnest('{"",n,r,s,t,l,nd,ck}'::text[]) AS coda
    ), words AS (
        SELECT n, script, CASE script
            WHEN 0 THEN (SELECT string_agg(known[1 + floor(random() * 1280)::integer + 0 * s], '')
                         FROM generate_series(1, 1 + n %% 3) AS s WHERE n >= 0)
            WHEN 1 THEN (SELECT string_agg(chr(19968 + floor(power(random(), 2) * 6000)::integer + 0 * s), '')
                         FROM generate_series(1, 1 + n %% 2) AS s WHERE n >= 0)
            WHEN 2 THEN (SELECT string_agg(chr(1575 + floor(random() * 36)::integer + 0 * s), '')
                         FROM generate_series(1, 3 + n %% 4) AS s WHERE n >= 0)
            WHEN 3 THEN (SELECT string_agg(chr(1072 + floor(random() * 32)::integer + 0 * s), '')
                         FROM generate_series(1, 3 + n %% 6) AS s WHERE n >= 0)
            END AS word
        FROM syllables, generate_series(1, 10000) AS n, generate_series(0, 3) AS script
    ), lists AS (
        SELECT script, array_agg(word ORDER BY n) AS known FROM words GROUP BY script
    )
    SELECT n, initcap((
            SELECT string_agg(known[1 + floor(power(10000, random()) - 1)::integer + 0 * s],
                              CASE script WHEN 1 THEN '' ELSE ' ' END)
            FROM generate_series(1, 8 + n %% 8) AS s WHERE n > 0
        )) || (ARRAY['. ', '? ', '. ', ' – ', '.\\n', ': '])[1 + n %% 6]
           || CASE WHEN n %% 40 = 0 THEN '🎉 ' ELSE '' END AS text
    FROM generate_series(0, 99999) AS n
    -- 75 % are Latin, a tenth Chinese, the rest Arabic and Cyrillic.
    JOIN lists ON script = CASE WHEN n %% 100 < 75 THEN 0 WHEN n %% 100 < 85 THEN 1
                                WHEN n %% 100 < 93 THEN 2 ELSE 3 END
"""

_RUNS = """
    INSERT INTO orchestra.runs (id, workflow_id, status, state, status_source, tracking,
                                start_time, end_time, first_seen_at, updated_at)
    SELECT 'run-' || n, 'workflow-' || 1 + n %% %(workflows)s, 'completed', 'succeeded', 'api',
           'final', time, time + interval '9 s', time, time
    FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS n
    CROSS JOIN LATERAL (
        SELECT now() - (1 - n / %(runs)s::double precision)
               * make_interval(days => CAST(%(days)s AS integer)) AS time
    ) AS t
"""

_STEPS = """
    INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, node_type, position, status,
                                 state, start_time, end_time, request_model, response_model,
                                 input_tokens, output_tokens, total_tokens, error, content_hash,
                                 first_seen_at, updated_at)
    SELECT 'step-' || n || '-' || node, r.id, r.workflow_id, 'node-' || node,
           CASE node %% 2 WHEN 0 THEN 'model' ELSE 'integration' END, node - 1, 'completed',
           CASE WHEN failed THEN 'failed' ELSE 'succeeded' END,
           r.start_time + make_interval(secs => node), r.start_time + make_interval(secs => node + 1),
           model, model, tokens, tokens, 2 * tokens,
           CASE WHEN failed THEN to_jsonb('upstream answered 503 after ' || n || ' ms') END,
           '\\x00', r.start_time, r.start_time
    FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS n
    JOIN orchestra.runs AS r ON r.id = 'run-' || n
    CROSS JOIN generate_series(1, %(nodes)s) AS node
    CROSS JOIN LATERAL (
        SELECT CASE node %% 2 WHEN 0 THEN 'gpt-4o' END AS model,
               CASE node %% 2 WHEN 0 THEN 100 + n %% 300 END AS tokens,
               node = 5 AND n %% 50 = 0 AS failed
    ) AS made
"""

# A call has two paragraphs of three sentences, another step one sentence on each side. Each text
# begins with a number of its own. `phrase` is what some of them contain besides.
_INPUTS = """
    INSERT INTO orchestra.inputs (step_id, data, size_bytes)
    SELECT 'step-' || i || '-' || node, data, octet_length(CAST(data AS text))
    FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS g (i)
    CROSS JOIN generate_series(1, %(nodes)s) AS node
    JOIN paragraphs AS a ON a.n = (i * 7919::bigint + node * 104729) %% 100000
    CROSS JOIN LATERAL (
        SELECT CASE node %% 2 WHEN 0 THEN jsonb_build_object(
                'model', 'gpt-4o', 'temperature', 0.2,
                'messages', jsonb_build_array(
                    jsonb_build_object('role', 'system', 'content', 'You answer customers of a shop'
                        ' briefly and politely, in the language of the question.'),
                    jsonb_build_object('role', 'user', 'content',
                        'Order ' || i * 5 + node || ': ' || a.text || COALESCE(CASE
                            WHEN i %% 20000 = 77 AND node = 2
                            THEN (ARRAY['the zebra warranty of 1987', '钛合金自行车的保修',
                                        'ضمان الدراجة الفضية', '🦓🚲 please'])[1 + i / 20000 %% 4]
                            END, ''))))
            ELSE jsonb_build_object('order', 'order-' || i * 5 + node,
                                    'note', split_part(a.text, '. ', 1))
            END AS data
    ) AS made
"""

_OUTPUTS = """
    INSERT INTO orchestra.outputs (step_id, data, size_bytes)
    SELECT 'step-' || i || '-' || node, data, octet_length(CAST(data AS text))
    FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS g (i)
    CROSS JOIN generate_series(1, %(nodes)s) AS node
    JOIN paragraphs AS a ON a.n = (i * 6007::bigint + node * 15485863) %% 100000
    CROSS JOIN LATERAL (
        SELECT CASE node %% 2 WHEN 0 THEN jsonb_build_object(
                'id', 'chatcmpl-' || md5(CAST(i * 5 + node AS text)), 'model', 'gpt-4o-2024-08-06',
                'choices', jsonb_build_array(jsonb_build_object(
                    'index', 0, 'finish_reason', 'stop',
                    'message', jsonb_build_object('role', 'assistant', 'content',
                        a.text || CASE WHEN i %% 3 = 0 THEN 'See our refund policy.' ELSE '' END))),
                'usage', jsonb_build_object('prompt_tokens', 100 + i %% 300,
                    'completion_tokens', 100 + i %% 300, 'total_tokens', 200 + i %% 300 * 2))
            ELSE jsonb_build_object('status', 'ok', 'text', split_part(a.text, '. ', 1))
            END AS data
    ) AS made
"""
_PARAGRAPHS = """
    CREATE UNLOGGED TABLE paragraphs AS
    SELECT a.n, a.text || b.text || c.text AS text
    FROM sentences AS a
    -- A text has one script, so the sentences are of the same hundred.
    JOIN sentences AS b ON b.n = (a.n + 100 * 331) %% 100000
    JOIN sentences AS c ON c.n = (a.n + 100 * 577) %% 100000
"""

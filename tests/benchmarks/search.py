"""`make bench-search`: a search of a large history, with and without its index.

SQL generates the history: runs with five steps, spread evenly over a year, of which two call a
model. Their prompts and answers are sentences of invented words in four scripts, whose frequencies
follow Zipf's law. Known phrases are hidden in some of them. The benchmark measures each search over
the default window and over everything, the build of the index, and the load of new runs with and
without it. Of each search it shows the time, PostgreSQL's CPU time and the hits. A search without
the index over everything takes time in proportion to the steps, so its CPU time is also shown for
10 million steps: extrapolated, unless there are so many (--runs 2000000).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import LiteralString, NamedTuple

import psycopg

from etl import logs
from etl.admin import search_index
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.pipeline.reading import Reading
from etl.schema import upgrade
from tests.benchmarks.cost import server_cpu
from tests.benchmarks.load_stage import load, read
from tests.benchmarks.recorded import Corpus
from tests.postgres_fixture import new_home
from tests.support import query

WORKFLOWS, NODES, DAYS = 10, 5, 365
# The usual memory settings of a server with two cores; everything else is PostgreSQL's default.
SERVER = {
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "maintenance_work_mem": "2GB",
    "work_mem": "32MB",
}
PHRASES = {
    "rare": "the zebra warranty of 1987",
    "common": "refund policy",
    "Chinese": "钛合金自行车的保修",
    "Arabic": "ضمان الدراجة الفضية",
    "emoji": "🦓🚲",
    "no hit": "the quagga insurance of 1883",
}
"""The searched phrases. Each rare phrase is in a few steps, the common one in one of eight."""

# Words of one to four syllables; the first are by far the most frequent, as in any language. A
# Chinese "word" has one or two characters. Sentences are made once: a choice of each word of each
# text would take most of the benchmark's time. `0 * s` makes each random() another.
_SENTENCES = """
    CREATE UNLOGGED TABLE sentences AS
    WITH syllables AS (
        SELECT array_agg(onset || vowel || coda ORDER BY random()) AS known
        FROM unnest('{b,c,d,f,g,h,l,m,n,p,r,s,t,v,w,st,tr,pr,sh,th}'::text[]) AS onset,
             unnest('{a,e,i,o,u,ea,ou,io}'::text[]) AS vowel,
             unnest('{"",n,r,s,t,l,nd,ck}'::text[]) AS coda
    ), words AS (
        SELECT n, script, CASE script
            WHEN 0 THEN (SELECT string_agg(known[1 + 0 * s + floor(random() * 1280)::integer], '')
                         FROM generate_series(1, 1 + n %% 3) AS s)
            WHEN 1 THEN (SELECT string_agg(chr(
                             19968 + 0 * s + floor(power(random(), 2) * 6000)::integer), '')
                         FROM generate_series(1, 1 + n %% 2) AS s)
            WHEN 2 THEN (SELECT string_agg(chr(1575 + 0 * s + floor(random() * 36)::integer), '')
                         FROM generate_series(1, 3 + n %% 4) AS s)
            WHEN 3 THEN (SELECT string_agg(chr(1072 + 0 * s + floor(random() * 32)::integer), '')
                         FROM generate_series(1, 3 + n %% 6) AS s)
            END AS word
        FROM syllables, generate_series(1, 10000) AS n, generate_series(0, 3) AS script
    ), lists AS (
        SELECT script, array_agg(word ORDER BY n) AS known FROM words GROUP BY script
    )
    SELECT n, initcap((
            SELECT string_agg(known[1 + 0 * s + floor(power(10000, random()) - 1)::integer],
                              CASE script WHEN 1 THEN '' ELSE ' ' END)
            FROM generate_series(1, 8 + n %% 8) AS s WHERE n > 0
        )) || (ARRAY['. ', '? ', '. ', ' – ', '.\\n', ': '])[1 + n %% 6]
           || CASE WHEN n %% 40 = 0 THEN '🎉 ' ELSE '' END AS text
    FROM generate_series(0, CAST(%(texts)s AS integer) - 1) AS n
    -- Three quarters are Latin, a tenth is Chinese, the rest Arabic and Cyrillic.
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
           r.start_time + make_interval(secs => node),
           r.start_time + make_interval(secs => node + 1),
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
# begins with a number of its own. One run of `every` has a hidden phrase.
_INPUTS = """
    INSERT INTO orchestra.inputs (step_id, data, size_bytes)
    SELECT 'step-' || i || '-' || node, data, octet_length(CAST(data AS text))
    FROM generate_series(CAST(%(first)s AS integer), CAST(%(last)s AS integer)) AS g (i)
    CROSS JOIN generate_series(1, %(nodes)s) AS node
    JOIN paragraphs AS a ON a.n = (i * 7919::bigint + node * 104729) %% %(texts)s
    CROSS JOIN LATERAL (
        SELECT CASE node %% 2 WHEN 0 THEN jsonb_build_object(
                'model', 'gpt-4o', 'temperature', 0.2,
                'messages', jsonb_build_array(
                    jsonb_build_object('role', 'system', 'content', 'You answer customers of a shop'
                        ' briefly and politely, in the language of the question.'),
                    jsonb_build_object('role', 'user', 'content',
                        'Order ' || i * 5 + node || ': ' || a.text || COALESCE(CASE
                            WHEN i %% %(every)s = 0 AND node = 2 THEN (CAST(%(hidden)s AS text[]))
                            [1 + i / CAST(%(every)s AS integer) %% 4] END, ''))))
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
    JOIN paragraphs AS a ON a.n = (i * 6007::bigint + node * 15485863) %% %(texts)s
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
    JOIN sentences AS b ON b.n = (a.n + 100 * 331) %% %(texts)s
    JOIN sentences AS c ON c.n = (a.n + 100 * 577) %% %(texts)s
"""
_WORKFLOWS = """
    INSERT INTO orchestra.workflows (id, name, labels)
    SELECT 'workflow-' || w, 'workflow ' || w, '{}'
    FROM generate_series(1, CAST(%(workflows)s AS integer)) AS w
"""

_SEARCH = """
    SELECT count(*) AS hits
    FROM orchestra.search(%s, since => now() - CAST(%s AS interval), max_hits => 100)
"""
MOST_HITS = 100
WITHOUT, WITH = "without the index", "with the index"
BATCH = 100_000
TEN_MILLION = 10_000_000


class SearchCost(NamedTuple):
    """The cost of a search."""

    seconds: float
    server_seconds: float
    """Seconds of CPU that PostgreSQL used."""
    hits: int


def seed(url: str, runs: int) -> None:
    """Fill the tables; no trigger fires, because no search reads what they write."""
    given = {
        "runs": runs,
        "workflows": WORKFLOWS,
        "days": DAYS,
        "nodes": NODES,
        "every": max(1, runs // 100),
        # Whole hundreds, among which the scripts are distributed.
        "texts": 100 * min(1000, max(1, runs // 5)),
        "hidden": [PHRASES[name] for name in ("rare", "Chinese", "Arabic", "emoji")],
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        made: tuple[LiteralString, ...] = (_SENTENCES, _PARAGRAPHS, _WORKFLOWS)
        for statement in made:
            connection.execute(statement, given)
        connection.execute("ANALYZE paragraphs")
        for first in range(1, runs + 1, BATCH):
            batch = {**given, "first": first, "last": min(runs, first + BATCH - 1)}
            rows: tuple[LiteralString, ...] = (_RUNS, _STEPS, _INPUTS, _OUTPUTS)
            for statement in rows:
                connection.execute(statement, batch)
            print(f"\r{batch['last']:,} runs", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        connection.execute("DROP TABLE sentences, paragraphs")
        connection.execute("VACUUM ANALYZE")


def search(url: str, phrase: str, window: timedelta) -> SearchCost:
    """Search for the phrase; the second of two searches counts, whose pages are in memory."""
    for _ in range(2):
        before = server_cpu(url)
        begun = time.perf_counter()
        [row] = query(url, _SEARCH, phrase, window)
        seconds = time.perf_counter() - begun
    return SearchCost(seconds, server_cpu(url) - before, row["hits"])


def searches(url: str, title: str, steps: int) -> dict[str, dict[str, SearchCost]]:
    """Print the cost of each search, and return it by phrase and window."""
    print(f"\n{title:18}{'7 days, s':>11}{'CPU s':>8}{'hits':>6}{'everything, s':>15}{'CPU s':>8}"
          f"{'hits':>6}{'CPU s for 10 million steps':>28}", flush=True)  # fmt: skip
    found: dict[str, dict[str, SearchCost]] = {}
    for name, phrase in PHRASES.items():
        week = search(url, phrase, timedelta(days=7))
        every = search(url, phrase, timedelta(days=DAYS + 1))
        found[name] = {"7 days": week, "everything": every}
        # Enough hits, or an index, end a search before it has read everything.
        whole = every.hits < MOST_HITS and title == WITHOUT
        large = f"{every.server_seconds * TEN_MILLION / steps:,.0f}" if whole else ""
        if large and steps < TEN_MILLION:
            large += " (extrapolated)"
        print(
            f"{name:18}{week.seconds:>11.2f}{week.server_seconds:>8.2f}{week.hits:>6}"
            f"{every.seconds:>15.2f}{every.server_seconds:>8.2f}{every.hits:>6}{large:>28}",
            flush=True,
        )
    return found


def build(url: str) -> None:
    """Build the index; print its cost beside the estimate."""
    database = Database(url, pool_size=2)
    try:
        cost = database.transaction(search_index.estimate)
        begun = time.perf_counter()
        search_index.build(database, url, lambda progress: None)
        seconds = time.perf_counter() - begun
        size = sum(one.bytes for one in database.transaction(search_index.existing))
    finally:
        database.close()
    print(
        f"\nindex: {size / 1e6:,.0f} MB in {seconds:,.0f} s;"
        f" estimated {cost.bytes / 1e6:,.0f} MB in {cost.seconds:,.0f} s"
        f" (key text {cost.bytes / search_index.INDEX_BYTES / 1e6:,.0f} MB)",
        flush=True,
    )


def main() -> None:
    """Search, load, build the index, search and load again."""
    logs.configure("warning", "json")
    parser = argparse.ArgumentParser(
        prog="make bench-search",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=200_000, help="runs to search, five steps each")
    parser.add_argument("--loaded", type=int, default=2000, help="runs of each measured load")
    parser.add_argument(
        "--without-index", action="store_true", help="only search, and only without the index"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    readings = [] if given.without_index else read(Corpus(3 * given.loaded))
    parts = [readings[at::3] for at in range(3)]
    steps = given.runs * NODES
    home = new_home()
    try:
        with EmbeddedPostgres(home, settings=SERVER) as server:
            url = server.url
            upgrade(url)
            begun = time.perf_counter()
            seed(url, given.runs)
            print(f"{steps:,} steps in {time.perf_counter() - begun:,.0f} s")
            found = {WITHOUT: searches(url, WITHOUT, steps)}
            rates: dict[str, float] = {}
            if not given.without_index:
                rates[WITHOUT] = _rate(url, parts[0])
                build(url)
                found[WITH] = searches(url, WITH, steps)
                rates[WITH] = _rate(url, parts[1])
                for table in search_index.KEYS:
                    index = f"orchestra.{search_index.name(table)}"
                    query(url, f"ALTER INDEX {index} SET (fastupdate = off)")
                rates["with it, fastupdate off"] = _rate(url, parts[2])
            print()
            for name, rate in rates.items():
                print(f"load {name:30}{rate:>10,.0f} steps/s")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if given.json:
        figures = {
            title: {
                phrase: {window: took._asdict() for window, took in each.items()}
                for phrase, each in every.items()
            }
            for title, every in found.items()
        }
        report = {"steps": steps, "searches": figures, "loaded_steps_a_second": rates}
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def _rate(url: str, readings: list[Reading]) -> float:
    steps = sum(len(one.steps.steps) for one in readings if one.steps is not None)
    return steps / load(url, readings).seconds


if __name__ == "__main__":
    main()

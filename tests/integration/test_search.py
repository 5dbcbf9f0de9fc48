"""A search finds a phrase in payloads and errors, with and without its index."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from etl import schema
from etl.admin import roles, search_index
from etl.database import Database
from etl.embedded.postgres import EmbeddedPostgres
from etl.privileges import ANALYST, LOADER, PAYLOAD_ANALYST
from tests import processes
from tests.command_line import Command
from tests.examples import examples
from tests.stored_text import columns_with
from tests.support import query, slow, wait_until

NOW = datetime.now(UTC)

SCRIPTS = {
    "English": ("The Refund POLICY of “Northwind” – please.", "refund policy of “north"),
    "German": ("Größe ÄNDERN, Straße", "GRÖSSE ändern".replace("SS", "ß")),
    "Chinese": ("客户要求在三十天内退货并全额退款。", "退货并"),
    "one Chinese character": ("客户要求在三十天内退货并全额退款。", "款"),
    "Arabic": ("سياسة استرداد الأموال للعملاء", "استرداد الأموال"),
    "Russian": ("Широкая Электрификация губерний", "электрификация ГУБ"),
    "Greek": ("Η ΟΔΟΣ είναι κλειστή, οδός", "οδος ΕΊΝΑΙ"),
    "Turkish": ("İSTANBUL'DA İADE", "istanbul'da i"),
    "emoji": ("ride 🦓🚲 home", "🦓🚲 Home"),
    "mixed": ("退款 policy für 🦓", "款 Policy FÜR 🦓"),
    "Kelvin": ("ask, 5 \u212a", "ASK, 5 k"),
    "percent": ("exactly 100% of it", "100% O"),
    "underscore": ("snake_case", "E_C"),
    "backslash": (r"C:\temp\new", r"c:\TEMP\n"),
    "quote": ('it\'s "so" $$ :name %s', '\'S "so" $$ :name %S'),
    "punctuation": ("what?! -- no", "?! --"),
    "two letters": ("a zq b", "ZQ"),
    "line break": ("one\ntwo three", "one\ntwo"),
}
"""Stored texts, each with a phrase that it alone contains."""


def add(
    url: str,
    run: str,
    *steps: dict[str, Any],
    age: timedelta = timedelta(hours=1),
    workflow: str = "w",
    run_inputs: object = None,
    run_error: object = None,
) -> None:
    """Insert a run that started `age` ago, with steps `run-0`, `run-1`, ..."""
    start = NOW - age
    query(
        url,
        "INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time,"
        " error) VALUES (%s, %s, 'succeeded', 'api', 'final', %s, %s::jsonb)",
        run, workflow, start, None if run_error is None else json.dumps(run_error),
    )  # fmt: skip
    if run_inputs is not None:
        query(
            url,
            "INSERT INTO orchestra.run_payloads (run_id, inputs) VALUES (%s, %s::jsonb)",
            run, json.dumps(run_inputs),
        )  # fmt: skip
    for position, step in enumerate(steps):
        query(
            url,
            "INSERT INTO orchestra.steps (id, run_id, workflow_id, node_id, position, state,"
            " start_time, error, reported_error, absent_since, content_hash)"
            " VALUES (%s, %s, %s, %s, %s, 'succeeded', %s, %s::jsonb, %s, %s, '')",
            f"{run}-{position}", run, workflow, step.get("node", "n"), position,
            start + timedelta(seconds=position),
            json.dumps(step["error"]) if "error" in step else None, step.get("reported"),
            step.get("absent"),
        )  # fmt: skip
        for table in ("inputs", "outputs"):
            if table in step:
                query(
                    url,
                    f"INSERT INTO orchestra.{table} (step_id, data, size_bytes)"
                    " VALUES (%s, %s::jsonb, 1)",
                    f"{run}-{position}", json.dumps(step[table]),
                )  # fmt: skip


def question(*texts: str) -> dict[str, Any]:
    """Return the inputs of a model call with these messages, the first from the system."""
    parts = [
        {"role": "user" if index else "system", "content": one} for index, one in enumerate(texts)
    ]
    return {"model": "m", "messages": parts, "note": "aside"}


def answer(text: str) -> dict[str, Any]:
    """Return the outputs of a model call."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "object": "chat"}


def found(url: str, phrase: str, more: str = "", *values: object) -> list[tuple[str, ...]]:
    """Return place and step, or run, of each hit, in the order of the search."""
    rows = query(url, f"SELECT * FROM orchestra.search(%s{more})", phrase, *values)
    return [(row["place"], row["step_id"] or row["run_id"]) for row in rows]


def build(
    url: str, report: Callable[[search_index.BuildProgress], None] = lambda one: None
) -> None:
    """Build the index as `db index-search` does."""
    database = Database(url, pool_size=2)
    try:
        search_index.build(database, url, report)
    finally:
        database.close()


def always_indexed(url: str) -> None:
    """Build the index, and make the search use it at once, not after its first slices."""
    build(url)
    [row] = query(
        url, "SELECT pg_get_functiondef(oid) AS text FROM pg_proc WHERE proname = 'search'"
    )
    changed = row["text"].replace("is_indexed AND runs >= 200", "is_indexed AND runs >= 0")
    changed = changed.replace("runs * max_hits > hits", "max_hits + 1 > hits")
    changed = changed.replace("runs * 10 >= frequency", "frequency >= 0")
    assert changed.count("runs >= 0") == changed.count("max_hits + 1") == 1
    assert changed.count("frequency >= 0") == 1
    query(url, changed)


def used(url: str) -> int:
    """Return how often searches have used the indexes."""
    query(url, "SELECT pg_stat_force_next_flush()")
    [row] = query(
        url,
        "SELECT COALESCE(sum(idx_scan), 0)::integer AS scans FROM pg_stat_user_indexes"
        " WHERE indexrelname LIKE '%search_idx'",
    )  # fmt: skip
    return int(row["scans"])


def prefer_the_index(url: str) -> None:
    """Make the planner use the index; with few rows, it would not."""
    for plan in ("seqscan", "indexscan", "nestloop"):
        query(url, f"ALTER FUNCTION orchestra.search SET enable_{plan} = off")


@pytest.fixture
def ascii_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """Provide a database whose locale knows only the letters of ASCII."""
    with psycopg.connect(postgres_server.url_for("postgres"), autocommit=True) as connection:
        name = sql.Identifier("ascii")
        connection.execute(
            sql.SQL(
                "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc"
                " LOCALE 'C'"
            ).format(name)
        )
        url = postgres_server.url_for("ascii")
        schema.upgrade(url)
        yield url
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _scripts(url: str) -> None:
    for number, (text, _) in enumerate(SCRIPTS.values()):
        add(url, f"run-{number:02}", {"inputs": question("You help.", text)})


def _hits(url: str) -> dict[str, list[tuple[str, ...]]]:
    return {name: found(url, phrase) for name, (_, phrase) in SCRIPTS.items()}


def test_a_phrase_is_found_in_any_script(database_url: str) -> None:
    """Case is ignored in all scripts, and the characters of LIKE are data.

    The index gives the same hits, and serves every phrase that has a trigram.
    """
    _scripts(database_url)
    expected = {name: [("prompt", f"run-{number:02}-0")] for number, name in enumerate(SCRIPTS)}
    expected["one Chinese character"] = [*expected["Chinese"], *expected["one Chinese character"]]
    expected["Chinese"] = expected["one Chinese character"]
    expected["one Chinese character"] = [*expected["Chinese"], *expected["mixed"]]
    assert _hits(database_url) == expected

    always_indexed(database_url)
    assert _hits(database_url) == expected
    unserved = {
        name
        for name, (_, phrase) in SCRIPTS.items()
        if not query(database_url, "SELECT orchestra.search_is_indexed(%s) AS it", phrase)[0]["it"]
    }
    assert unserved == {"punctuation", "two letters", "underscore"}
    assert used(database_url) >= len(SCRIPTS) - len(unserved)


@pytest.mark.slow
def test_a_locale_of_ascii_changes_nothing(ascii_database_url: str, database_url: str) -> None:
    """The hits do not depend on the database's locale, with or without the index."""
    for url in (ascii_database_url, database_url):
        _scripts(url)
    expected = _hits(database_url)
    assert _hits(ascii_database_url) == expected
    always_indexed(ascii_database_url)
    assert _hits(ascii_database_url) == expected
    assert used(ascii_database_url) > 0


LETTERS = "aAiIkKzZ 1éÉßẞςσΣİı\u212a\u212b\u0307ǄǅДд退款ضم🦓\u2028\x7f" + '"\\/\n\t\b\x01bnu0'
TEXTS = st.text(LETTERS, max_size=12)
NAMES = st.sampled_from(
    ["content", "text", "delta", "response", "completion", "generation", "outputText"]
)
VALUES = st.recursive(
    TEXTS | st.none() | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=12,
)
STREAMS = st.lists(st.dictionaries(NAMES, TEXTS, min_size=1, max_size=1), min_size=2, max_size=4)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in _strings(one)]


@st.composite
def stored_and_phrases(draw: st.DrawFn) -> tuple[Any, str]:
    """Draw a value, and a phrase that may be in one of its strings, or in all of them, joined."""
    value = draw(VALUES | STREAMS)
    texts = _strings(value)
    whole = draw(st.sampled_from([*texts, "".join(texts), "\n".join(texts)])) or "z"
    start = draw(st.integers(0, len(whole) - 1))
    phrase = whole[start : draw(st.integers(start + 1, len(whole)))]
    return value, draw(st.sampled_from([phrase, phrase.upper(), phrase.lower()]))


@pytest.mark.parametrize("collation", [*slow("pg_c_utf8"), "pg_unicode_fast"])
def test_no_hit_is_ruled_out(database_url: str, collation: str) -> None:
    """A value that contains a phrase is never ruled out by its text as JSON.

    This holds for every script, case and escape, in strings and in joined chunks, and for
    collations that map characters one by one or, like ICU's, depending on their neighbours.
    """
    [row] = query(
        database_url, "SELECT pg_get_functiondef('orchestra.search_fold'::regproc) AS text"
    )
    assert row["text"].count("pg_c_utf8") == 1
    query(database_url, row["text"].replace("pg_c_utf8", f'"{collation}"'))
    hits = 0
    with psycopg.connect(database_url, autocommit=True) as connection:

        @settings(max_examples=examples(100), suppress_health_check=list(HealthCheck))
        @given(st.lists(stored_and_phrases(), min_size=10, max_size=20))
        def rules_out(cases: list[tuple[Any, str]]) -> None:
            nonlocal hits
            rows = connection.execute(
                """
                SELECT c.data, c.phrase, orchestra.search_may_contain(
                    c.data, orchestra.search_part(orchestra.search_fold(c.phrase)), c.is_output)
                FROM (SELECT unnest(%(data)s::jsonb[]) AS data,
                             unnest(%(phrases)s::text[]) AS phrase, is_output
                      FROM (VALUES (false), (true)) AS v (is_output)) AS c
                WHERE strpos(orchestra.search_fold(
                    CASE WHEN c.is_output THEN orchestra.search_output(c.data)
                         ELSE orchestra.search_text(c.data) END),
                    orchestra.search_fold(c.phrase)) > 0
                """,
                {"data": [Jsonb(data) for data, _ in cases], "phrases": [one for _, one in cases]},
            ).fetchall()
            hits += len(rows)
            assert [row for row in rows if not row[2]] == []

        rules_out()
    assert hits > examples(400)


def test_what_a_phrase_is_not_in_is_ruled_out(read_only_database_url: str) -> None:
    """Values without a phrase are ruled out, but not an output that may be a stream."""
    chunks = [{"delta": {"content": part}} for part in ("ref", "und")]
    assert query(
        read_only_database_url,
        """
        SELECT orchestra.search_may_contain(%s::jsonb, 'refund', true) AS answer,
               orchestra.search_may_contain(%s, 'refund', true) AS stream,
               orchestra.search_may_contain(%s, 'refund', false) AS input
        """,
        Jsonb(answer("no such policy")), Jsonb(chunks), Jsonb(chunks),
    ) == [{"answer": False, "stream": True, "input": False}]  # fmt: skip


def _places(url: str) -> None:
    add(
        url, "r1",
        {"inputs": question("Be brief: alpha.", "What is beta?"), "outputs": answer("A gamma.")},
        {"node": "code", "inputs": {"a": ["alpha delta"]}, "outputs": {"b": {"c": "delta"}}},
        {"node": "code", "error": {"message": "no epsilon", "code": 7}},
        {"node": "code", "reported": "soft epsilon"},
        {"node": "code", "inputs": {"x": "alpha"}, "absent": NOW},
        run_inputs={"topic": "Delta run"}, run_error="run epsilon",
    )  # fmt: skip


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "index"])
def test_places(database_url: str, indexed: bool) -> None:
    """Each place is named, `within` limits them, and absent steps are left out."""
    _places(database_url)
    if indexed:
        always_indexed(database_url)
    expected = {
        ("alpha", "all"): [("input", "r1-1"), ("prompt", "r1-0")],
        ("alpha", "prompts"): [("prompt", "r1-0")],
        ("beta", "prompts"): [("prompt", "r1-0")],
        ("aside", "all"): [("input", "r1-0")],
        ("aside", "prompts"): [],
        ("gamma", "answers"): [("answer", "r1-0")],
        ("assistant", "all"): [("output", "r1-0")],
        ("assistant", "answers"): [],
        ("delta", "all"): [("input", "r1-1"), ("output", "r1-1"), ("input", "r1")],
        ("epsilon", "errors"): [("error", "r1-3"), ("error", "r1-2"), ("error", "r1")],
        ("epsilon", "prompts"): [],
        ("messages", "all"): [],
    }
    assert {
        (phrase, within): found(database_url, phrase, ", within => %s", within)
        for phrase, within in expected
    } == expected
    assert found(database_url, "delta", ", node => 'code'") == [
        ("input", "r1-1"),
        ("output", "r1-1"),
    ]
    assert used(database_url) > 0 or not indexed


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "index"])
def test_streams_and_base64(database_url: str, indexed: bool) -> None:
    """The chunks of a stream are searched as one text; base64, and text after a million, never."""
    chunks = [
        {"id": "s", "choices": [{"delta": {"content": part}, "index": 0}]}
        for part in ("the ref", "und pol", "icy")
    ]
    add(url := database_url, "stream", {"outputs": chunks})
    add(
        url, "image", {"inputs": {"url": "data:image/png;base64,AAAAzebraAAAA", "b": "zebra" * 300}}
    )
    add(url, "long", {"inputs": ["x" * 999 + " ", "y " * 500_000, "behind everything"]})
    add(url, "short", {"inputs": {"b": "zebra" * 199}})
    if indexed:
        always_indexed(url)
    assert found(url, "Refund Policy") == [("answer", "stream-0")]
    assert found(url, "Refund Policy", ", within => 'answers'") == [("answer", "stream-0")]
    assert found(url, "zebra") == [("input", "short-0")]
    assert found(url, "y y y y") == [("input", "long-0")]
    assert found(url, "behind everything") == []


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "index"])
def test_window_order_and_limit(database_url: str, indexed: bool) -> None:
    """The newest run comes first, a week is the default, and the limit is exact."""
    for day in range(12):
        add(
            database_url, f"day-{day:02}", {"inputs": "the phrase"}, {"outputs": "Phrase"},
            age=timedelta(days=day, minutes=1), workflow=f"w{day % 2}",
        )  # fmt: skip
    query(
        database_url,
        "UPDATE orchestra.runs SET start_time = NULL, first_seen_at = %s WHERE id = 'day-03'",
        NOW - timedelta(days=3),
    )
    if indexed:
        always_indexed(database_url)
    steps = [("output", f"day-{day:02}-1") if one else ("input", f"day-{day:02}-0")
             for day in range(12) for one in (1, 0)]  # fmt: skip
    assert found(database_url, "phrase") == steps[:14]
    assert found(database_url, "phrase", ", since => NULL") == steps
    assert found(database_url, "phrase", ", since => '-infinity', max_hits => 5") == steps[:5]
    assert found(database_url, "phrase", ", max_hits => 0") == []
    until = NOW - timedelta(days=9)
    window = ", since => %s, until => %s"
    assert found(database_url, "phrase", window, NOW - timedelta(days=11), until) == steps[18:22]
    assert found(database_url, "phrase", ", workflow => 'w1', max_hits => 3") == [
        *steps[2:4], steps[6],
    ]  # fmt: skip
    assert found(database_url, "phrase", ", until => %s", NOW - timedelta(days=90)) == []


def test_wrong_arguments(database_url: str) -> None:
    """A blank or too long phrase and an unknown place are refused in one line."""
    for phrase, more in ((" \n", ""), ("x" * 1001, ""), ("x", ", within => 'keys'")):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            found(database_url, phrase, more)
    assert query(database_url, "SELECT count(*)::integer AS n FROM orchestra.search(NULL)") == [
        {"n": 0}
    ]


def test_snippets(database_url: str) -> None:
    """A snippet is one line around the hit, whose place is exact in any script."""
    text = "a" * 50 + "\n\tÄ 退款 « İ REFUND\r\n" + "z" * 60
    add(database_url, "r", {"inputs": [text]})
    for phrase in ("refund", "退款 «", "a" * 45, "Z"):
        [row] = query(database_url, "SELECT * FROM orchestra.search(%s)", phrase)
        snippet, start = row["snippet"], row["hit_start"] - 1
        end = start + row["hit_length"]
        assert snippet[start:end].lower() == phrase.lower()
        assert (snippet[start - 1], snippet[end]) == ("«", "»")
        assert not re.search(r"[\n\r\t]", snippet)
        assert len(snippet) <= len(phrase) + 84
    [row] = query(database_url, "SELECT snippet FROM orchestra.search('refund')")
    assert row["snippet"] == "…" + "a" * 29 + "  Ä 退款 « İ «REFUND»  " + "z" * 38 + "…"


def test_a_phrase_that_was_frequent_long_ago(database_url: str) -> None:
    """A search for a phrase that was frequent only long ago ends at its limit without the index.

    A search for a rare phrase uses the index.
    """
    query(
        database_url,
        """
        INSERT INTO orchestra.runs (id, workflow_id, state, status_source, tracking, start_time)
        SELECT 'run-' || n, 'w', 'succeeded', 'api', 'final', now() - make_interval(mins => n)
        FROM generate_series(1, 700) AS n;
        INSERT INTO orchestra.steps (id, run_id, workflow_id, position, state, content_hash)
        SELECT r.id || '-' || m, r.id, 'w', 0, 'succeeded', ''
        FROM orchestra.runs AS r, generate_series(1, 20) AS m
        WHERE m = 1 OR r.start_time < now() - interval '300 minutes';
        INSERT INTO orchestra.outputs (step_id, data, size_bytes)
        SELECT s.id, to_jsonb(CASE WHEN s.id = 'run-700-20' THEN 'the quagga insurance '
                                   WHEN r.start_time < now() - interval '300 minutes'
                                   THEN 'our refund policy ' ELSE 'nothing ' END || s.id), 1
        FROM orchestra.steps AS s JOIN orchestra.runs AS r ON r.id = s.run_id;
        """,
    )
    build(database_url)
    query(database_url, "ANALYZE")
    prefer_the_index(database_url)
    before = used(database_url)
    assert len(found(database_url, "Refund Policy")) == 100
    assert used(database_url) == before
    assert found(database_url, "Quagga Insurance") == [("output", "run-700-20")]
    assert used(database_url) > before


def test_what_is_removed_is_not_found(database_url: str, command: Command) -> None:
    """Erased runs are found neither in the tables nor in the statistics of the index."""
    for number in range(3):
        add(
            database_url, f"r{number}",
            {"inputs": question("s", f"canary {number}"), "outputs": answer("canary"),
             "error": "canary"},
            run_inputs="canary", run_error="canary",
        )  # fmt: skip
        query(
            database_url,
            "INSERT INTO orchestra_etl.run_ledger (run_id, workflow_id, source, tracking)"
            " VALUES (%s, 'w', 'list', 'final')", f"r{number}",
        )  # fmt: skip
    always_indexed(database_url)
    query(database_url, "ANALYZE")
    assert len(found(database_url, "Canary")) == 15
    assert (
        query(database_url, "SELECT tablename FROM pg_stats WHERE tablename LIKE '%search_idx'")
        == []
    )
    for number in range(2):
        assert command("erase", "--run", f"r{number}", "--yes").status == 0
    assert [one for one in found(database_url, "Canary") if not one[1].startswith("r2")] == []
    assert len(found(database_url, "Canary")) == 5
    query(
        database_url,
        "UPDATE orchestra.inputs SET data = '\"[redacted]\"' WHERE step_id = 'r2-0'",
    )
    assert ("prompt", "r2-0") not in found(database_url, "Canary")
    assert "orchestra.inputs.data" not in columns_with(database_url, "canary")


def test_only_payload_analysts_search(postgres_server: EmbeddedPostgres, database_url: str) -> None:
    """An analyst may not search; a payload analyst may, and the loader still writes."""
    _places(database_url)
    database = Database(database_url, pool_size=1)
    roles.apply(database)
    database.close()
    try:
        always_indexed(database_url)
        with psycopg.connect(database_url, autocommit=True) as connection:
            for role, allowed in (
                (ANALYST, False), (PAYLOAD_ANALYST, True), (LOADER, True),
            ):  # fmt: skip
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                statement = "SELECT place FROM orchestra.search('alpha')"
                if allowed:
                    assert len(connection.execute(statement).fetchall()) == 2
                else:
                    for refused in (statement, "SELECT orchestra.search_frequency('alpha')"):
                        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="search"):
                            connection.execute(refused)
            connection.execute("INSERT INTO orchestra.inputs VALUES ('r1-2', '\"later alpha\"', 1)")
            assert len(connection.execute(statement).fetchall()) == 3
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("REASSIGN OWNED BY orchestra_migrator TO postgres")
            for role in roles.PURPOSES:
                connection.execute(f"DROP OWNED BY {role}".encode())
                connection.execute(f"DROP ROLE {role}".encode())


def test_the_command(database_url: str, command: Command) -> None:
    """Hits are printed with their run and place; after the limit it says how to continue."""
    for number in range(4):
        add(
            database_url, f"run-{number}", {"inputs": question("s", f"My Refund {number}")},
            age=timedelta(days=3 * number, hours=1),
        )  # fmt: skip
    done = command("runs", "search", "refund")
    assert (done.status, done.err) == (0, "")
    first = f"{NOW - timedelta(hours=1):%Y-%m-%d %H:%M:%SZ}"
    assert done.out.splitlines()[:2] == [f"{first}  run-0  n  prompt", "  s  My «Refund» 0"]
    assert len(done.out.splitlines()) == 8, done.out
    assert "3 hits in the runs since" in done.out
    assert "--since searches further back" in done.out

    since = ("--since", "2001-01-01")
    done = command("runs", "search", "refund", "--limit", "2", *since)
    [until] = re.findall(r"2 hits, more hits may follow: continue with --until (\S+)", done.out)
    done = command("runs", "search", "refund", "--json", "--until", until, *since)
    assert [hit["run_id"] for hit in done.json["hits"]] == ["run-1", "run-2", "run-3"]
    assert done.json["complete"] is True
    assert done.json["hits"][0]["snippet"][done.json["hits"][0]["hit_start"] - 1 :][:6] == "Refund"
    assert command("runs", "search", "refund", "-w", "w", "--in", "answers", *since).out.startswith(
        "0 hits"
    )
    assert command("runs", "search", "refund", "--node", "m", "--json").json["hits"] == []


def test_more_hits_in_one_run_than_the_limit(database_url: str, command: Command) -> None:
    """If a single run has more hits than the limit, the command never says to search before it."""
    steps = [{"inputs": ["refund"]} for _ in range(3)]
    add(database_url, "run", *steps)
    done = command("runs", "search", "refund", "--limit", "2")
    assert done.out.endswith("2 hits, and more of the same run: repeat with a larger --limit\n"), (
        done.out
    )
    found = command("runs", "search", "refund", "--limit", "2", "--json").json
    assert (found["complete"], found["next_until"]) == (False, None)


def test_hostile_content(database_url: str, command: Command) -> None:
    """Control characters in a hit reach the terminal escaped, and markup stays text."""
    add(
        database_url, "run",
        {"node": "[bold]\x1b[2J", "inputs": ["\x1b]0;title\x07 refund [red]\u202e«here»"]},
    )  # fmt: skip
    done = command("runs", "search", "refund")
    assert "\x1b" not in done.out
    assert r"\x1b]0;title\x07 «refund» [red]\u202e«here»" in done.out
    assert r"[bold]\x1b[2J" in done.out


@pytest.mark.parametrize(
    ("phrase", "words"), [("  ", "empty"), ("x" * 1001, "1,001 characters"), ("a\0b", "NUL")]
)
def test_a_phrase_that_cannot_be_searched(command: Command, phrase: str, words: str) -> None:
    """A phrase that no search accepts is a usage error of one line."""
    done = command("runs", "search", phrase)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert len(done.err.splitlines()) == 1


def test_a_schema_without_the_search(database_url: str, command: Command) -> None:
    """The command names the upgrade if the schema is older than the search."""
    query(database_url, "DROP FUNCTION orchestra.search CASCADE")
    done = command("runs", "search", "refund")
    assert done.status == 4
    assert "run `orchestra-etl db upgrade`" in done.err


def test_the_index_command(database_url: str, command: Command) -> None:
    """The command reports the cost, builds, finds nothing more to do, and drops.

    `db check` does not mind the index.
    """
    _places(database_url)
    done = command("db", "index-search")
    assert done.status == 0
    assert "about" in done.out
    assert "nothing was built: --yes builds it" in done.out
    assert command("db", "index-search", "--json").json["indexes"] == []
    done = command("db", "index-search", "--yes")
    assert (done.status, "the index is built" in done.out) == (0, True), done.err
    assert query(database_url, "SELECT orchestra.search_is_indexed('abc') AS it") == [{"it": True}]
    assert command("db", "index-search", "--yes").out.startswith("the index exists: ")
    assert command("db", "check").out.startswith("the schema is correct")
    assert command("db", "index-search", "--yes", "--drop").status == 2
    assert command("db", "index-search", "--drop", "--json").json["dropped"] == list(
        search_index.KEYS
    )
    assert command("db", "index-search", "--drop").out.startswith("nothing to do")
    assert found(database_url, "beta") == [("prompt", "r1-0")]


def test_an_interrupted_build_is_built_again(database_url: str) -> None:
    """Ctrl-C during a build leaves no index behind, and a leftover is built again."""
    _places(database_url)
    build(database_url)
    query(database_url, "DROP INDEX orchestra.outputs_search_idx")
    state = "SELECT count(*)::integer AS n FROM pg_index WHERE indexrelid = to_regclass(%s)"
    with psycopg.connect(database_url) as blocker:
        # The build waits for this transaction.
        blocker.execute("LOCK TABLE orchestra.outputs IN ROW EXCLUSIVE MODE")
        with processes.started(
            "db", "index-search", "--yes",
            variables=processes.environment_of({"DATABASE_URL": database_url}),
        ) as process:  # fmt: skip
            wait_until(lambda: query(database_url, state, "orchestra.outputs_search_idx")[0]["n"])
            process.send_signal(signal.SIGINT)
            # It waits five seconds for the lock. On a busy machine everything takes ten times as
            # long.
            assert process.wait(240) == 130
        [left] = query(database_url, state, "orchestra.outputs_search_idx")
        assert left["n"] in (0, 1)
    query(database_url, "DROP INDEX IF EXISTS orchestra.outputs_search_idx")
    query(
        database_url,
        "CREATE INDEX outputs_search_idx ON orchestra.outputs (size_bytes)",
    )
    query(
        database_url,
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'orchestra.outputs_search_idx'::regclass",
    )
    assert query(database_url, "SELECT orchestra.search_is_indexed('abc') AS it") == [{"it": False}]
    build(database_url)
    assert query(database_url, "SELECT orchestra.search_is_indexed('abc') AS it") == [{"it": True}]
    always_indexed(database_url)
    assert found(database_url, "gamma") == [("answer", "r1-0")]

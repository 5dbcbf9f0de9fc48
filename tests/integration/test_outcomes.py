"""Outcomes of steps and runs, and kinds of failures: a table of cases for each decision."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import psycopg
import pytest

from etl.transform import generation
from tests.support import query

NOTHING: list[Any] = [
    None, "", "  ", "None", "none", " NULL ", "null", "nil", "<nil>", "undefined", "NaN", "N/A",
    "-", "0", "false", "False", "no error", "OK", "success", "{}", "[ ]", '""', "\n\t", "\u00a0",
    0, 0.0, -0.0, False,
    {}, [], [None], [[], {}], {"message": None, "code": None},
    {"message": "", "code": 0, "retry": False}, {"error": {"message": "null"}}, ["", "None"],
]  # fmt: skip
"""Values of an error field that mean that there is no error."""
SOMETHING: list[Any] = [
    "refused", "0x80070005", "none of the keys fits", "no errors were expected", "nullable",
    1, -1, 0.5, True, {"code": 5}, {"message": None, "code": "rate_limited"},
    {"message": "refused"}, [5], ["refused"], [None, {"a": [{"b": "refused"}]}],
    "********",
]  # fmt: skip


@pytest.fixture
def database_url(read_only_database_url: str) -> str:
    """Provide one database for all tests here: none of them writes."""
    return read_only_database_url


def outcome(url: str, state: str, error: Any, reported_error: str | None) -> str:
    """Return the result of `orchestra.outcome`; the error is any JSON value."""
    [row] = query(
        url,
        "SELECT orchestra.outcome(%s, CAST(%s AS jsonb), %s) AS outcome",
        state,
        json.dumps(error),
        reported_error,
    )
    return str(row["outcome"])


@pytest.mark.parametrize("error", NOTHING, ids=repr)
def test_an_error_that_says_nothing_is_not_an_error(database_url: str, error: Any) -> None:
    """A success stays a success if the error of the step or in its payload is empty."""
    assert outcome(database_url, "succeeded", error, None) == "succeeded"
    assert (
        outcome(database_url, "succeeded", None, error if isinstance(error, str) else None)
        == "succeeded"
    )
    assert query(
        database_url,
        "SELECT orchestra.error_message(CAST(%s AS jsonb), NULL) AS m",
        json.dumps(error),
    ) == [{"m": None}]
    assert not generation.is_error(error)


@pytest.mark.parametrize("error", SOMETHING, ids=repr)
def test_a_success_with_an_error_is_a_soft_failure(database_url: str, error: Any) -> None:
    """An error with content makes a success a soft failure, and changes no other state."""
    assert outcome(database_url, "succeeded", error, None) == "soft_failed"
    assert (
        outcome(database_url, "succeeded", None, error if isinstance(error, str) else "refused")
        == "soft_failed"
    )
    for state in ("failed", "cancelled", "skipped", "running", "pending", "unknown"):
        assert outcome(database_url, state, error, "refused") == state
    assert generation.is_error(error)


def test_the_load_and_the_database_agree_on_a_text(database_url: str) -> None:
    """Python and SQL agree on which texts are errors, for each character before or in a text."""
    texts = [f"{chr(code)}none" for code in range(1, 0x3100)]
    texts += [
        "\u017fuccess",
        "o\u212a",
        "N\u0130L",
        "n\u0131l",
        "NIL",
        "{\u00a0}",
        "{\x0b}",
        "[\x1c]",
    ]
    sql = (
        "SELECT t, orchestra.is_error_text(t) AS is_error FROM unnest(CAST(%s AS text[])) AS u (t)"
    )
    found = {row["t"]: row["is_error"] for row in query(database_url, sql, texts)}
    assert found == {text: generation.is_error(text) for text in texts}
    nothing = {text for text, is_error in found.items() if not is_error}
    assert {"\x1cnone", "\x85none", "\u00a0none", "\u3000none", "NIL"} <= nothing
    assert nothing.isdisjoint({"\u200bnone", "\u017fuccess", "n\u0131l"})


@pytest.mark.parametrize("nothing", [" ", '"', "-", "\u2003", "{ }"])
def test_an_error_behind_blanks_is_found_in_either_place(database_url: str, nothing: str) -> None:
    """An error between thousands of blanks counts, both as the step's own and in its payload."""
    error = nothing * 3_000 + "refused" + nothing * 3_000
    outputs = msgspec.Raw(json.dumps({"result": {"error": error, "successful": True}}).encode())
    reported = generation.read_generation(None, outputs).reported_error
    assert reported is not None
    assert len(reported) <= generation.MAX_ERROR_CHARACTERS
    assert outcome(database_url, "succeeded", None, reported) == "soft_failed"
    assert outcome(database_url, "succeeded", error, None) == "soft_failed"


def test_a_large_error_is_judged_quickly(database_url: str) -> None:
    """A megabyte of blanks or nulls, or the deepest nesting, is judged within two seconds."""
    begun = time.process_time()
    for blanks in (" ", '"', "-", "{", "'. "):
        assert generation.is_error(blanks * 500_000 + "x")
    assert time.process_time() - begun < 2
    with psycopg.connect(database_url) as connection:
        connection.execute("SET statement_timeout = '2s'")
        for error in (
            "[" + ",".join(["null"] * 200_000) + "]",
            "[" * 4_999 + "]" * 4_999,
            json.dumps(" " * 1_000_000),
        ):
            [row] = connection.execute("SELECT orchestra.is_error(%s::jsonb)", [error]).fetchall()
            assert row == (False,)
        for blanks in (" ", '"', "-", "{", "'. "):
            [row] = connection.execute(
                "SELECT orchestra.is_error_text(%s)", [blanks * 500_000 + "x"]
            ).fetchall()
            assert row == (True,)


@pytest.mark.parametrize(
    ("error", "reported_error", "message"),
    [
        ('"it broke"', "refused", "it broke"),
        ('{"message": "it broke", "code": 5}', None, "it broke"),
        ('{"detail": "it broke"}', None, "it broke"),
        ('{"error": {"code": 5}}', None, '{"code": 5}'),
        ('{"error": {"message": "it broke", "code": 5}}', None, "it broke"),
        (
            '{"message": "", "error": {"message": "None", "detail": "it broke"}}',
            "refused",
            "it broke",
        ),
        ('{"message": "", "code": 5}', "refused", '{"code": 5, "message": ""}'),
        ('""', "refused", "refused"),
        ('"null"', "refused", "refused"),
        ("{}", "refused", "refused"),
        ("[]", "refused", "refused"),
        ("false", "refused", "refused"),
        ("0", "refused", "refused"),
        ("7", "refused", "7"),
        ("true", None, "true"),
        ('""', "", None),
        ('{"code": 5}', None, '{"code": 5}'),
        ("[5]", None, "[5]"),
        ("null", "refused", "refused"),
        (None, "refused", "refused"),
        (None, None, None),
    ],
)
def test_a_message(
    database_url: str, error: str | None, reported_error: str | None, message: str | None
) -> None:
    """A message comes from the step's own error, else from its payload; empty parts are skipped."""
    found = query(
        database_url,
        "SELECT orchestra.error_message(CAST(%s AS jsonb), %s) AS m",
        error,
        reported_error,
    )
    assert found == [{"m": message}]


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        (
            "Limit 30000, Used 29,417.5: try again in 12.3s.",
            "Limit <n>, Used <n>: try again in <n>s.",
        ),
        (
            "no run 0e5c100e-e84c-438a-9cb3-1f18fe8e7fa4 of 'support  triage'",
            "no run <id> of <text>",
        ),
        ('KeyError: "a b" and `c`', "KeyError: <text> and <text>"),
        ("trace id 4f00aa12be, at 0xdeadbeef", "trace id <id>, at <id>"),
        ("it's what the customer's server didn't do", "it's what the customer's server didn't do"),
        ("  refused:\n\t by  the API ", "refused: by the API"),
        ("Service Unavailable", "Service Unavailable"),
        ("", ""),
        # A client library's text of a response: the values of its fields distinguish the kinds.
        (
            "Error code: 401 - {'error': {'message': 'Incorrect key: sk-ab12cd34ef56.',"
            " 'param': None, 'code': 'invalid_key'}}",
            "Error code: 401 - {error: {message: Incorrect key: sk-<id>.,"
            " param: None, code: invalid_key}}",
        ),
        (
            "Error code: 404 - {'error': {'message': \"The model 'x' isn't there\","
            " 'code': 'model_not_found'}}",
            "Error code: 404 - {error: {message: The model <text> isn't there,"
            " code: model_not_found}}",
        ),
        (
            '{"error": {"message": "No funds", "input": "a secret", "code": 4711}}',
            "{error: {message: No funds, input: <text>, code: 4711}}",
        ),
        (
            '{"detail": [{"loc": ["body", 7], "msg": "field required"}]}',
            "{detail: [{loc: [<text>, <n>], msg: field required}]}",
        ),
        (
            "HTTP/1.1 503 from 10.0.0.1:443, status: 502, in 1234 ms",
            "HTTP/<n> 503 from <ip>, status: 502, in <n> ms",
        ),
        # Ids are long mixes of letters and digits, often after a prefix; words and numbers are not.
        (
            "req_011CSHoEeqs5C35K2UUqR7Fy, call_AbC12dEf, org-AbCd1234EfGh5678",
            "req_<id>, call_<id>, org-<id>",
        ),
        ("chatcmpl-9xYzAbCdEfGh of user_7b3997d6b800", "chatcmpl-<id> of user_<id>"),
        ("used 9999999 or 12345678 of a facade, decade", "used <n> or <n> of a facade, decade"),
        ("no user \u201cbob\u201d, no \u00abalice\u00bb", "no user <text>, no <text>"),
        (r'said \"bob\", then "a \"b\" c"', "said <text>, then <text>"),
        ("x" * 490 + " 'a secret that goes on" + " and on" * 600, "x" * 490 + " <text>"),
        ('"a secret that goes on' + " and on" * 600, "<text>"),
    ],
)
def test_a_pattern(database_url: str, message: str, pattern: str) -> None:
    """Numbers, ids and quoted texts do not distinguish failures; words do."""
    assert query(database_url, "SELECT orchestra.failure_pattern(%s) AS p", message) == [
        {"p": pattern}
    ]


@pytest.mark.parametrize(
    "message",
    [
        "'" * 5000,
        '"a' * 5000,
        "9" * 5000,
        "0" * 15 + "g" * 5000,
        "a1" * 5000,
        " " * 5000,
        "{'a': " * 900,
        "code: '" * 800,
        "http/1." * 800,
        "ab_1" * 1300,
        "1:" * 2500,
        "a1:" * 1700,
        "a.b@" * 1300,
        "a" * 4000 + "@",
        "+1 (" * 1300,
        "mon, 1 jan " * 500,
        "/tmp/" * 900,
        "error code is " * 400,
        "error (1" * 600,
        "exit code: -1" * 400,
        "://a" * 1200,
        "x" * 1_000_000,
        "'" * 500_000 + '"' * 500_000,
        "\ue000\ue001" * 2500,
    ],
)
def test_a_hostile_message_is_judged_quickly(database_url: str, message: str) -> None:
    """The pattern of every hostile message is found within a second."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SET statement_timeout = '1s'")
        connection.execute("SELECT orchestra.failure_pattern(%s)", [message])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # The operating system.
        (
            "OSError: [Errno 28] No space left on device: 'a'",
            "OSError: [Errno 13] No space left on device: 'b'",
        ),
        ("write failed, errno=28", "write failed, errno=13"),
        ("spawn failed (errno: -13)", "spawn failed (errno: -2)"),
        ("failed to open (os error 2)", "failed to open (os error 13)"),
        ("[WinError 5] refused", "[WinError 32] refused"),
        ("HRESULT: 0x80070005", "HRESULT: 0x80070057"),
        ("Exception code 0xC0000005", "Exception code 0xC00000FD"),
        ("System error 5 has occurred", "System error 53 has occurred"),
        ("the process exited with code 137", "the process exited with code 1"),
        ("returned non-zero exit status 2.", "returned non-zero exit status 127."),
        (
            "Process finished with exit code -1073741819",
            "Process finished with exit code -1073740791",
        ),
        ("exited with 137", "exited with 139"),
        ("killed by signal 9", "killed by signal 11"),
        ("terminated (signal: 15)", "terminated (signal: 6)"),
        ("curl: (28) it went wrong", "curl: (7) it went wrong"),
        # Databases.
        ("ERROR: it went wrong (SQLSTATE 23505)", "ERROR: it went wrong (SQLSTATE 40001)"),
        ("ERROR: it went wrong (SQLSTATE 42P01)", "ERROR: it went wrong (SQLSTATE 42703)"),
        ("SQLSTATE[HY000]: general", "SQLSTATE[42S02]: general"),
        ("SQL state [23505]; error code [0]", "SQL state [40001]; error code [0]"),
        ("SQLCODE=-803, SQLSTATE=23505", "SQLCODE=-911, SQLSTATE=40001"),
        ("{'code': '23505', 'name': 'error'}", "{'code': '40001', 'name': 'error'}"),
        ('{"code": 23505}', '{"code": 40001}'),
        ("ERROR 1062 (23000): no", "ERROR 1045 (28000): no"),
        ("ERROR: 40001: no", "ERROR: 40P01: no"),
        ("[23000] [Microsoft][ODBC Driver]", "[40001] [Microsoft][ODBC Driver]"),
        ("Msg 2627, Level 14", "Msg 1205, Level 14"),
        ("ORA-00001: no", "ORA-00942: no"),
        ("E11000 duplicate", "E11600 duplicate"),
        ("PGRST116", "PGRST204"),
        # Protocols.
        ("HTTP 503", "HTTP 429"),
        ("HTTP/1.1 404", "HTTP/1.1 500"),
        ("Request failed with status code 404", "Request failed with status code 500"),
        ("Client error '404 Not Found' for url 'x'", "Client error '403 Forbidden' for url 'x'"),
        ("502 Bad Gateway", "504 Bad Gateway"),
        ("the server returned 500 for it", "the server returned 404 for it"),
        ("<Response [404]>", "<Response [500]>"),
        ("Error 429: no", "Error 529: no"),
        ("error=401", "error=403"),
        ("{statusCode: 404}", "{statusCode: 500}"),
        ('{"status_code": 404}', '{"status_code": 500}'),
        ("rpc error: code = 14 desc = x", "rpc error: code = 4 desc = x"),
        ("grpc-status: 14", "grpc-status: 4"),
        ("AADSTS50011: no", "AADSTS70016: no"),
        ("TS2304: no", "TS2322: no"),
    ],
)
def test_codes_distinguish_kinds(database_url: str, one: str, other: str) -> None:
    """Error numbers, exit codes, SQLSTATEs and statuses stay in the pattern as written."""
    patterns = [
        query(database_url, "SELECT orchestra.failure_pattern(%s) AS p", m)[0]["p"]
        for m in (one, other)
    ]
    assert patterns[0] != patterns[1]


@pytest.mark.parametrize(
    ("one", "other", "pattern"),
    [
        ("no mailbox for ann.o'hara+x@example.com", "no mailbox for ann.b@mail.example.org", None),
        ("<bob@example.com>: refused", "<eve_1@x.example>: refused", "<<email>>: refused"),
        ("no host 10.0.0.7:443", "no host 192.168.1.20:80", "no host <ip>"),
        ("no host fe80::1ff:fe23:4567:890a", "no host ::1", "no host <ip>"),
        ("no card 00:1A:2b:3c:4d:5e", "no card 01:1A:2b:3c:4d:5f", "no card <ip>"),
        ("at 2026-01-02T03:04:05.678Z", "at 2025-11-30 23:59:59+01:00", "at <time>"),
        (
            "retry after Mon, 12 Jan 2026 10:00:00 GMT",
            "retry after Tue, 3 Feb 2026 09:08:07 GMT",
            "retry after <time>",
        ),
        ("Jan 12 10:00:00 refused", "Dec  3 01:02:03 refused", "<time> refused"),
        ("due 2026-01-02", "due 2026-12-31", "due <time>"),
        ("until 10:00:00", "until 9:15:59", "until <time>"),
        ("call +49 170 1234567", "call +1 (555) 123-4567", "call <phone>"),
        ("call 555-123-4567", "call (555) 987-6543", "call <phone>"),
        ("postgresql://ann:secret@db/x", "postgresql://bob:other@db/x", "postgresql://<user>@db/x"),
        ("no file /home/ann/a", "no file /home/bob/a", "no file /home/<user>/a"),
        ("no file /tmp/tmpk3j2h1x9/part", "no file /tmp/tmp_zzz0a/part", "no file /tmp/<id>"),
        ("GET /users/12345/orders/6", "GET /users/7/orders/88", "GET /users/<n>/orders/<n>"),
        (
            "no run 0e5c100e-e84c-438a-9cb3-1f18fe8e7fa4",
            "no run 1f5c100e-e84c-438a-9cb3-1f18fe8e7fa4",
            "no run <id>",
        ),
        # Quantities, even after a word for a code.
        ("returned 500 rows", "returned 404 rows", "returned <n> rows"),
        ("failed with 3 errors", "failed with 12 errors", "failed with <n> errors"),
        ("error: 12 files", "error: 345 files", "error: <n> files"),
        (
            "verification code 839201 expired",
            "verification code 112233 expired",
            "verification code <n> expired",
        ),
        (
            "Limit 300, Used 250, Requested 100",
            "Limit 500, Used 450, Requested 200",
            "Limit <n>, Used <n>, Requested <n>",
        ),
        ("invoice INV-203917", "invoice INV-203918", "invoice INV-<n>"),
    ],
)
def test_what_differs_within_a_kind_is_folded(
    database_url: str, one: str, other: str, pattern: str | None
) -> None:
    """The pattern omits people, times, places and quantities, which do not distinguish failures."""
    patterns = [
        query(database_url, "SELECT orchestra.failure_pattern(%s) AS p", m)[0]["p"]
        for m in (one, other)
    ]
    assert patterns[0] == patterns[1] == (pattern or patterns[0])
    assert "@example" not in patterns[0]

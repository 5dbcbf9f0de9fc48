"""Input from variables, shells, files and terminals works, or is refused in one line."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path

import pytest

from etl.cli.commands import run
from tests.support import query, slow

WORKFLOW, RUN = "w-ü", "r-日本"
NAME = "Wëtter ☀️ 日本 “quoted” → x"
TOML = f'[[workflows]]\nid = "{WORKFLOW}"\nname = "{NAME}"\ndiscover = false\n[api]\nattempts = 1\n'
# Every command that reads settings, with arguments that let it get that far.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("sync",), ("backfill",), ("serve",), ("track", WORKFLOW, "r"), ("workflows",),
    ("runs", "list"), ("runs", "show", RUN), ("status",), ("dead-letters", "list"),
    ("dead-letters", "show", "1"), ("dead-letters", "retry", "1"),
    ("dead-letters", "discard", "1"),
    ("gaps", "list"), ("gaps", "ack", "1"), ("rollups", "refresh"), ("rollups", "verify"),
    ("prune",),
    ("erase", "--run", RUN), ("redact", "preview", RUN), ("prices", "list"),
    ("prices", "set", "m", "--input", "1", "--output", "1"),
    ("prices", "unset", "m"), ("prices", "explain", "s"),
    ("db", "upgrade"), ("db", "current"), ("db", "check"), ("db", "roles"), ("db", "psql"),
    ("config", "check"), ("config", "show"),
)  # fmt: skip


def _some(case: object) -> tuple[tuple[str, ...], ...]:
    """Return every seventh command, from a start that depends on the case.

    All cases together cover all commands.
    """
    start = sum(str(case).encode()) % 7
    return COMMANDS[start::7]


# The commands that only read and need no API.
READERS = tuple(
    words for words in COMMANDS
    if words[0]
    in ("runs", "status", "dead-letters", "gaps", "prices", "erase", "db", "config", "rollups")
    and not {"psql", "roles", "set", "unset", "ack", "retry", "discard", "check", "explain"}
    & set(words)
)  # fmt: skip


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Path:
    """Provide a configuration and a stored run with names in several scripts."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("ORCHESTRA_BASE_URL", "http://127.0.0.1:9/x")
    monkeypatch.setenv("ORCHESTRA_API_KEY", "k")
    query(
        database_url, "INSERT INTO orchestra.workflows (id, name) VALUES (%s, %s)", WORKFLOW, NAME
    )
    query(
        database_url,
        "INSERT INTO orchestra_etl.run_ledger"
        " (run_id, workflow_id, source, tracking, steps_observed_at, priority)"
        " VALUES (%s, %s, 'list', 'final', now(), 0)",
        RUN, WORKFLOW,
    )  # fmt: skip
    query(
        database_url,
        "INSERT INTO orchestra.runs"
        " (id, workflow_id, state, status_source, tracking, start_time, error)"
        " VALUES (%s, %s, 'failed', 'api', 'final', now(), to_jsonb(%s::text))",
        RUN, WORKFLOW, f"näin … {NAME}",
    )  # fmt: skip
    config = tmp_path / "etl.toml"
    config.write_text(TOML, encoding="utf-8")
    return config


def _one_line(
    capsys: pytest.CaptureFixture[str], config: Path | None, words: tuple[str, ...], name: str
) -> str:
    capsys.readouterr()
    status = run([*(() if config is None else ("--config", str(config))), *words])
    printed = capsys.readouterr()
    assert (status, printed.out, printed.err.count("\n")) == (2, "", 1), (words, printed)
    assert name in printed.err, (words, printed.err)
    assert "unexpected" not in printed.err
    return printed.err


WRONG_VARIABLES = [
    ("ORCHESTRA_ETL_POLING__LEASE", "1s"), ("ORCHESTRA_ETL_SERVICE__PORT", "abc"),
    ("ORCHESTRA_ETL_API__TRUST_ENV", "maybe"), ("ORCHESTRA_ETL_API", "x"), ("ORCHESTRA_ETL_", "x"),
    ("ORCHESTRA_ETL_API__CONCURRENCY", "1e3"), ("ORCHESTRA_ETL_API__REQUESTS_PER_SECOND", "nan"),
    ("ORCHESTRA_ETL_API__DEADLINE", "60"), ("ORCHESTRA_ETL_STATES__X", "nope"),
    ("ORCHESTRA_ETL_WORKFLOWS", '[{"id": "a"},]'), ("ORCHESTRA_ETL_WORKFLOWS", "null"),
    ("ORCHESTRA_ETL_WORKFLOWS", '["a"]'), ("ORCHESTRA_ETL_WORKFLOWS", '[{"id": "null"}]'),
    ("ORCHESTRA_ETL_WORKFLOWS", r'[{"id": "\"a\""}]'),
    ("ORCHESTRA_ETL_WORKFLOWS", r'[{"id": "a", "runs": ["{\"run_id\": \"x\"}"]}]'),
    ("ORCHESTRA_ETL_LOGS__LEVEL", "loud"), ("orchestra_etl_service__port", "1"),
    ("Orchestra_Api_Key", "k"), ("ORCHESTRA_REDACTION_KEYFILE", "k"),
    ("ORCHESTRA_REDACTION_KEY", "'" + "k" * 40 + "'"), ("ORCHESTRA_API_KEY", '"quoted"'),
    ("ORCHESTRA_API_KEY", "Bearer abc"), ("ORCHESTRA_API_KEY", "k" * 5_000),
    ("ORCHESTRA_BASE_URL", "localhost:80"), ("DATABASE_URL", "'postgresql://x/y'"),
    ("ORCHESTRA_ETL_CONFIG", "/nowhere/etl.toml"),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "value"), WRONG_VARIABLES)
def test_a_wrong_variable_is_one_line_of_every_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
) -> None:
    """A wrong variable ends every command with status 2 and one line that names it."""
    config = tmp_path / "etl.toml"
    config.write_text("")
    monkeypatch.setenv(variable, value)
    for words in COMMANDS if variable == WRONG_VARIABLES[0][0] else _some((variable, value)):
        _one_line(
            capsys,
            None if variable == "ORCHESTRA_ETL_CONFIG" else config,
            words,
            value if "CONFIG" in variable else variable,
        )


@pytest.mark.parametrize(
    "variable", ["DATABASE_URI", "ORCHESTRA_BASE_URI", "ORCHESTRA_API_KY", "ORCHESTRA_API_KEY_2"]
)
def test_a_similar_variable_is_reported_only_if_the_right_one_is_missing(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    """A variable with a similar name is reported only while the program's own one is not set."""
    monkeypatch.setenv(variable, "x")
    assert run(["--config", str(stored), "db", "current"]) == 0
    for name in ("DATABASE_URL", "ORCHESTRA_BASE_URL", "ORCHESTRA_API_KEY"):
        monkeypatch.delenv(name)
    assert "did you mean" in _one_line(capsys, stored, ("db", "current"), variable)


FILES = {
    "latin-1": ("# caf\xe9\n".encode("latin-1"), "line 1"),
    "utf-16 without a mark": (TOML.encode("utf-16-le"), "UTF-8"),
    "duplicate keys": (b"[api]\nattempts = 1\nattempts = 2\n", "line 3"),
    "duplicate tables": (b"[api]\n[api]\n", "line 2"),
    "trailing comma": (b"[api],\n", "line 1"),
    "json": (b'{"api": {}}', "TOML"),
    "yaml": (b"api:\n  attempts: 1\n", "TOML"),
    "smart quotes": ("[api]\nheader_name = “x”\n".encode(), "line 2"),
    "json for an id": (b'[[workflows]]\nid = "{\\"id\\": 1}"\n', "workflows no. 1.id"),
    "json for a run": (b'[[workflows]]\nid = "w"\nruns = ["null"]\n', "workflows no. 1.runs no. 1"),
    "json for a rule's workflow": (
        b'[[redaction.rules]]\nworkflow = "[\\"w\\"]"\npath = "$.x"\naction = "drop"\n',
        "workflow",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_wrong_file_is_one_line_of_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A file in a wrong encoding or syntax ends every command with one line: file and place."""
    content, words = FILES[kind]
    config = tmp_path / "etl.toml"
    config.write_bytes(content)
    for command in COMMANDS if kind == "latin-1" else _some(kind):
        assert words in _one_line(capsys, config, command, str(config))


@pytest.mark.parametrize("kind", ["a folder", "missing", "a device without end", "closed"])
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A folder, a missing file or an endless device as --config is reported in one line."""
    path = {
        "a folder": tmp_path,
        "missing": tmp_path / "x",
        "a device without end": Path("/dev/zero"),
    }.get(kind, tmp_path / "c" / "x")
    if kind == "closed":
        path.parent.write_text("a file, no folder")
    for words in _some(kind):
        _one_line(capsys, path, words, str(path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_of_windows_are_read(
    stored: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    line_end: str,
) -> None:
    """Byte order marks, UTF-16, tabs and CRLF work in the configuration and in a key file."""
    stored.write_bytes(TOML.replace("id =", "\tid\t=").replace("\n", line_end).encode(encoding))
    key = stored.parent / "key"
    key.write_bytes(f"k{line_end}{line_end}".encode(encoding))
    monkeypatch.delenv("ORCHESTRA_API_KEY")
    monkeypatch.setenv("ORCHESTRA_API_KEY_FILE", str(key))
    assert run(["--config", str(stored), "config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["workflows"][0]["name"] == NAME
    assert run(["--config", str(stored), "workflows"]) == 5


@pytest.mark.parametrize(
    "content",
    [
        b"\xff", b"a" * 70_000, b"k\0", b"{\"key\":\"k\"}", b"'k'", b"two lines\nof it", b"",
        "k".encode("utf-16-le"),
    ],
)  # fmt: skip
def test_a_wrong_key_file_is_one_line(
    stored: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
) -> None:
    """A key file with content that cannot be a key is reported in one line that names the file."""
    key = stored.parent / "key"
    key.write_bytes(content)
    monkeypatch.delenv("ORCHESTRA_API_KEY")
    monkeypatch.setenv("ORCHESTRA_API_KEY_FILE", str(key))
    for words in (("workflows",), ("sync",)):
        _one_line(capsys, stored, words, str(key))


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE"),
        ({"SSL_CERT_FILE": "/etc/passwd"}, "SSL_CERT_FILE"),
        ({"HTTP_PROXY": "http://user:secret@:99999"}, "HTTP_PROXY"),
        ({"HTTP_PROXY": "http://[::1"}, "HTTP_PROXY"),
        ({"HTTP_PROXY": "socks5://127.0.0.1:1"}, "HTTP_PROXY"),
        ({"http_proxy": "://"}, "HTTP_PROXY"),
    ],
)
def test_a_wrong_proxy_or_certificate_is_one_line(
    stored: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    name: str,
) -> None:
    """With `trust_env`, an error about a proxy or certificate names the variable, not its value."""
    monkeypatch.setenv("ORCHESTRA_ETL_API__TRUST_ENV", "true")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    for words in (("workflows",), ("sync",)):
        assert "secret" not in _one_line(capsys, stored, words, name)


def test_a_proxy_without_a_scheme_is_used(
    stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`host:port`, as curl accepts it, is a proxy; if it does not respond, the error names it."""
    monkeypatch.setenv("ORCHESTRA_ETL_API__TRUST_ENV", "true")
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    assert run(["--config", str(stored), "workflows"]) == 5
    assert "cannot connect to the proxy" in capsys.readouterr().err


def test_a_proxy_whose_name_is_unknown_is_named_as_the_proxy(
    stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unresolved proxy is named as the proxy; without one the error names `api.base_url`."""
    monkeypatch.setenv("ORCHESTRA_BASE_URL", "http://api.invalid/x")
    assert run(["--config", str(stored), "workflows"]) == 5
    assert "the host's name cannot be resolved (api.invalid:80)" in (
        printed := capsys.readouterr().err
    )
    assert "check `api.base_url`" in printed
    monkeypatch.setenv("ORCHESTRA_ETL_API__TRUST_ENV", "true")
    monkeypatch.setenv("HTTP_PROXY", "proxy.invalid")
    assert run(["--config", str(stored), "workflows"]) == 5
    assert "the proxy's name cannot be resolved (proxy.invalid:80)" in (
        printed := capsys.readouterr().err
    )
    assert "api.base_url" not in printed


@pytest.mark.parametrize(
    "variables",
    [
        {
            "TZ": "garbage", "COLUMNS": "0", "TERM": "nonsense", "TMPDIR": "/nowhere",
            "LC_ALL": "xx_YY.foo", "HOME": "",
        },
        {
            "TZ": ":/nowhere", "COLUMNS": "-5", "NO_COLOR": "1", "PGPASSFILE": "/nowhere",
            "ORCHESTRA_ETL_SERVICE__PORT": " ",
        },
        *slow(
            {
                "COLUMNS": "1", "FORCE_COLOR": "x", "TERM": "", "ORCHESTRA_ETL_CONFIG": "",
                "LC_ALL": "C", "PYTHONUTF8": "0",
            },
            {"COLUMNS": "99999999", "LINES": "0", "TERM": "dumb"},
            {"COLUMNS": "abc", "LINES": "abc"},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_other_variables_with_nonsense_are_ignored(
    stored: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    """An invalid time zone, width, colour, locale or folder changes no command that reads."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    time.tzset()
    try:
        for words in READERS:
            status = run(["--config", str(stored), *words])
            printed = capsys.readouterr()
            assert "unexpected" not in printed.err, (words, printed.err)
            assert status == (2 if words[0] == "dead-letters" and "show" in words else 0), (
                words,
                printed.err,
            )
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("encoding", ["ascii", "shift_jis", *slow("latin-1", "cp1252")])
def test_a_terminal_that_is_not_utf_8_works_with_every_command(
    stored: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Text is written in the terminal's characters, and JSON keeps its meaning."""

    def written(*words: str) -> bytes:
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            for name, to in (("stdout", out), ("stderr", io.BytesIO())):
                patch.setattr(sys, name, io.TextIOWrapper(to, encoding=encoding, errors="strict"))
            status = run(["--config", str(stored), *words])
            sys.stdout.flush()
            assert status == (2 if "☀️" in words or words[:2] == ("dead-letters", "show") else 0), (
                words
            )
            return out.getvalue()

    for words in (*READERS, ("runs", "show", "☀️")):
        written(*words).decode(encoding)
    [found] = json.loads(written("runs", "list", "--json").decode(encoding))
    assert (found["id"], found["workflow_name"]) == (RUN, NAME)


JSON_TEXTS = (
    '{"run_id": "x"}',
    '["a"]',
    '"abc"',
    "null",
    " null ",
    "true",
    "'abc'",
    '{"run_id": ',
    '["a",]',
    "[]x",
    "“abc”",
    "`id`",
)


@pytest.mark.parametrize("text", JSON_TEXTS)
@pytest.mark.parametrize(
    "words",
    [
        ("runs", "show", "…"), ("runs", "list", "--workflow", "…"), ("erase", "--run", "…"),
        ("erase", "--user", "…"), ("erase", "--organisation", "…"),
        ("erase", "--run", "r", "--workflow", "…"), ("redact", "preview", "…"),
        ("redact", "preview", "r", "--workflow", "…"), ("sync", "--workflow", "…"),
        ("backfill", "-w", "…"), ("gaps", "list", "-w", "…"),
        ("dead-letters", "list", "-w", "…"), ("track", "…", "r"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_json_is_not_accepted_as_an_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    """JSON in place of an id, as `jq` prints it, is refused by every command in one line."""
    config = tmp_path / "etl.toml"
    config.write_text("")
    printed = _one_line(capsys, config, tuple(text if word == "…" else word for word in words), "")
    assert "JSON" in printed


READ = [
    (b'{"run_id": "a"}', ["a"]), (b'["a", "b"]', ["a", "b"]), (b'"a"\n"b"\n', ["a", "b"]),
    (b"a\r\nb\r\n\r\n", ["a", "b"]), (b"\xef\xbb\xbfa\r\n", ["a"]),
    ("a\nb".encode("utf-16"), ["a", "b"]),
    (b'{\n  "run_id": "a",\n  "status": "x"\n}\nb\n', ["a", "b"]),
    (b'[{"run_id": "a"}, "b"]\n{"run_id": "c"}\n', ["a", "b", "c"]), (b"  a  \n\n", ["a"]),
    ("日本\n".encode(), ["日本"]), (b"", []), (b'"\\u00e9"', ["é"]), (b"a", ["a"]),
]  # fmt: skip
REFUSED = [
    b"null\n", b'{"run_id": null}', b'{"id": "a"}', b'["a",]', b'"a",\n"b",\n', b"a,\nb,\n",
    b"[null]", b"[[\"a\"]]", b"{", b'"a" "b"x', b"\xff\xfea", b"caf\xe9", "a".encode("utf-16-le"),
    b"a\0b", b"run a", b"'a'", b'["a"] "b', b"true", b"[1]", b"a\tb", b"None",
]  # fmt: skip


@pytest.mark.parametrize(("content", "wanted"), READ, ids=repr)
def test_track_reads_what_shells_write(
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    content: bytes,
    wanted: list[str],
) -> None:
    """`track` reads ids, API responses and JSON arrays from its input and its arguments."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
    tracked = "SELECT run_id FROM orchestra_etl.run_ledger WHERE run_id <> %s ORDER BY run_id"
    assert run(["--config", str(stored), "track", WORKFLOW, "-"]) == 0
    assert [row["run_id"] for row in query(database_url, tracked, RUN)] == wanted
    if content[:1] in b'{["' and content:
        assert run(["--config", str(stored), "track", WORKFLOW, content.decode()]) == 0
        assert [row["run_id"] for row in query(database_url, tracked, RUN)] == wanted


@pytest.mark.parametrize("content", REFUSED, ids=repr)
def test_track_refuses_what_is_not_an_id(
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    database_url: str,
    content: bytes,
) -> None:
    """Input that is neither ids nor API responses is refused in one line; no run is tracked."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
    _one_line(capsys, stored, ("track", WORKFLOW, "-"), "")
    assert query(database_url, "SELECT count(*) AS n FROM orchestra_etl.run_ledger") == [{"n": 1}]


def test_closed_streams_and_other_bytes_are_one_line(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A closed stream or an argument that is not text causes no crash."""
    monkeypatch.setattr(sys, "stdin", None)
    _one_line(capsys, stored, ("track", WORKFLOW, "-"), "standard input, which is closed")
    for words in COMMANDS:
        _one_line(capsys, stored, (*words, os.fsdecode(b"caf\xe9")), "is not text")
    monkeypatch.setattr(sys, "stdout", None)
    for words in READERS:
        assert run(
            ["--config", str(stored), *words, *(("--json",) if words[0] == "runs" else ())]
        ) in (0, 2)


def test_variables_of_libpq_are_named(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a libpq variable prevents the connection, the error names the variable."""
    monkeypatch.setenv("ORCHESTRA_ETL_DATABASE__PATIENCE", "0s")
    for name in ("PGSSLMODE", "PGSERVICE", "PGTZ", "PGOPTIONS"):
        monkeypatch.setenv(name, "nonsense")
        assert run(["--config", str(stored), "status"]) == 4
        assert f"{name} in the environment" in capsys.readouterr().err
        monkeypatch.delenv(name)


@pytest.mark.parametrize("home", ["/proc/x", "/etc/passwd", "~nosuchuser/x"])
def test_a_home_that_cannot_be_used_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: str
) -> None:
    """An unusable folder for the embedded database is one line that names ORCHESTRA_ETL_HOME."""
    config = tmp_path / "etl.toml"
    config.write_text("")
    monkeypatch.setenv("ORCHESTRA_ETL_HOME", home)
    for words in (("status",), ("db", "current"), ("db", "psql"), ("demo",)):
        _one_line(capsys, config, words, "ORCHESTRA_ETL_HOME")


def test_config_init_writes_the_named_file_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config init` writes the named file and its schema, creates folders, or fails in one line."""
    monkeypatch.chdir(tmp_path)
    assert run(["--config", "a/b/c.toml", "config", "init"]) == 0
    assert run(["--config", "a/b/c.toml", "config", "show"]) == 0
    monkeypatch.setenv("ORCHESTRA_ETL_CONFIG", str(tmp_path / "d.toml"))
    assert run(["config", "init"]) == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.toml")) == [
        "a/b/c.toml",
        "d.toml",
    ]
    _one_line(capsys, None, ("config", "init"), "already exists")
    _one_line(capsys, None, ("config", "init", "--user"), "omit --user")
    _one_line(capsys, tmp_path / "d.toml" / "x", ("config", "init"), "cannot write")
    monkeypatch.delenv("ORCHESTRA_ETL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "d.toml"))
    assert "--user" not in _one_line(capsys, None, ("config", "init", "--user"), "cannot write")
    _one_line(capsys, Path("/proc/etl.toml"), ("config", "init"), "cannot write")
    # If the schema beside it cannot be written, the file is not either, so that a repeat works.
    (tmp_path / "e" / "etl.schema.json").mkdir(parents=True)
    _one_line(capsys, tmp_path / "e" / "etl.toml", ("config", "init"), "cannot write")
    assert not (tmp_path / "e" / "etl.toml").exists()

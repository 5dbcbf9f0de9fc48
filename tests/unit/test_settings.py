"""Settings: their sources, the refusals and their texts, and the secrecy of secrets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from etl.errors import ConfigurationError
from etl.settings import Settings, load, mask_url, sources
from etl.settings.prices import PriceSettings
from etl.usage import CALLS, KINDS

EXAMPLE = Path(__file__).parents[2] / "etl" / "settings" / "etl.toml"
SECRET = "hunter2secret"


def read(tmp_path: Path, toml: str = "", **environment: str) -> Settings:
    """Load this TOML with this environment."""
    path = tmp_path / "etl.toml"
    path.write_text(toml, encoding="utf-8")
    return load(path, environment)


def refusal(tmp_path: Path, toml: str = "", **environment: str) -> str:
    """Return the one line with which this TOML and this environment are refused."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, toml, **environment)
    line = str(caught.value)
    assert "\n" not in line
    assert SECRET not in line
    assert SECRET not in repr(caught.value.__cause__)
    return line.replace(str(tmp_path / "etl.toml"), "FILE")


def test_the_example_has_the_defaults() -> None:
    """Every value in the shipped file is the built-in default, including the embedded database."""
    example = load(EXAMPLE, {}).masked()
    built_in = Settings().masked()
    assert built_in["database"]["url"] == "embedded"
    assert example == built_in


def test_every_setting_is_in_the_example() -> None:
    """Each key of each section is in the shipped file, at least as a comment."""
    text = EXAMPLE.read_text(encoding="utf-8")
    shown = Settings().masked()
    sections = (
        "api", "database", "polling", "retention", "redaction", "export", "service", "logs"
    )  # fmt: skip
    missing = [key for section in sections for key in shown[section] if f"{key} = " not in text]
    # The keys themselves must not be in it; the rules are tables.
    assert missing == ["api_key", "key", "rules"]
    assert "[[redaction.rules]]" in text
    assert "[[prices]]" in text
    assert all(f"# {key} = " in text for key in PriceSettings.model_fields)
    assert all(
        f"{key} = " in text
        for key in ("id", "name", "interval", "cron", "discover", "runs", "labels")
    )


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable replaces the file's value, and leaves the section's other values alone."""
    settings = read(
        tmp_path,
        '[polling]\nlease = "10s"\nreconcile = "2h"\n[api]\nbase_url = "http://file/"\n',
        ORCHESTRA_ETL_POLLING__LEASE="2s",
        ORCHESTRA_ETL_API__REQUESTS_PER_SECOND="0",
        ORCHESTRA_ETL_SERVICE__PORT="0",
        ORCHESTRA_ETL_API__TRUST_ENV="true",
        ORCHESTRA_ETL_STATES__REVIEW="running",
        ORCHESTRA_BASE_URL="https://environment:8443/api/",
    )
    assert (settings.polling.lease, settings.polling.reconcile) == (2.0, 7200.0)
    assert (settings.api.requests_per_second, settings.api.trust_env, settings.service.port) == (
        0.0,
        True,
        0,
    )
    assert settings.states == {"review": "running"}
    assert settings.api.base_url == "https://environment:8443/api"


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    """An empty variable changes nothing, because Compose files pass unset variables as empty."""
    settings = read(
        tmp_path,
        '[database]\nurl = "embedded"\n',
        DATABASE_URL="",
        ORCHESTRA_ETL_POLLING__LEASE=" ",
    )
    assert settings.database_url() == "embedded"
    assert settings.polling.lease == 60.0


def test_workflows_can_come_from_the_environment(tmp_path: Path) -> None:
    """A JSON list in one variable replaces the file's workflows, so a container needs no file."""
    settings = read(
        tmp_path,
        '[[workflows]]\nid = "old"\n',
        ORCHESTRA_ETL_WORKFLOWS=(
            '[{"id": "a", "runs": ["r1"], "labels": {"team": "x"}}, {"id": "b", "cron": "*/5 '
            '* * * *"}]'
        ),
    )
    assert [workflow.id for workflow in settings.workflows] == ["a", "b"]
    assert settings.workflows[0].runs == ("r1",)
    assert settings.workflows[1].cron == "*/5 * * * *"


def test_the_file_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the argument, ORCHESTRA_ETL_CONFIG, ./config/etl.toml, or the user's own.

    It is never a file of an installation.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(None, {}).config_file is None
    assert "run `orchestra-etl config init`" in load(None, {}).source
    own = sources.user_file()
    assert own is not None
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert load(None, {}).config_file == own
    (tmp_path / "config").mkdir()
    for name in ("config/etl.toml", "named.toml", "argument.toml"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert load(None, {}).config_file == Path("config/etl.toml")
    assert load(None, {"ORCHESTRA_ETL_CONFIG": "named.toml"}).config_file == Path("named.toml")
    assert load(Path("argument.toml"), {"ORCHESTRA_ETL_CONFIG": "x"}).config_file == Path(
        "argument.toml"
    )
    with pytest.raises(
        ConfigurationError, match=r"missing\.toml: the configuration cannot be read: No such file"
    ):
        load(None, {"ORCHESTRA_ETL_CONFIG": "missing.toml"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("7d", 604800),
        ("1h 5m", 3900),
        ("2M", 120),
    ],
)
def test_durations_are_read_with_their_units(tmp_path: Path, text: str, seconds: float) -> None:
    """A duration is a number with a unit, or several of them, and becomes seconds."""
    settings = read(tmp_path, f'[polling]\nlease = "{text}"\n')
    assert settings.polling.lease == seconds
    shown = settings.masked()["polling"]["lease"]
    assert read(tmp_path, f'[polling]\nlease = "{shown}"\n').polling.lease == seconds


@pytest.mark.parametrize(
    "text", ['"90"', "90", '"-5s"', '""', '"0s"', '"1y"', '"s"', '"9999999d"', "true", '"1.2.3s"']
)
def test_an_invalid_duration_is_refused(tmp_path: Path, text: str) -> None:
    """A duration without a unit, negative or endless is refused with one clear line."""
    assert refusal(tmp_path, f"[polling]\nlease = {text}\n").startswith("FILE: polling.lease: ")


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (
            '[polling]\nleese = "5s"',
            "polling.leese: there is no such setting; did you mean polling.lease?",
        ),
        ('[poling]\nlease = "5s"', "poling: there is no such setting; did you mean polling?"),
        ('lease = "5s"', "lease: there is no such setting; did you mean polling.lease?"),
        ('[[workflow]]\nid = "a"', "workflow: there is no such setting; did you mean workflows?"),
        (
            "[polling]\nfoo = 1",
            "polling.foo: there is no such setting; known here: settle_after, "
            "open_interval_min, open_interval_max, "
            "give_up_after, lease, reconcile, reconcile_pages",
        ),
        ("[logs]\nlog = 1", "logs.log: there is no such setting; known here: level, format"),
        ("[logs]\nxyz = 1", "logs.xyz: there is no such setting; known here: level, format"),
        (
            "[[workflows]]\nid = 'a'\nlabel = {}",
            "workflows no. 1.label: there is no such setting; did you mean workflows.labels?",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, toml: str, line: str) -> None:
    """A misspelt key is an error with the nearest known key."""
    assert refusal(tmp_path, toml) == f"FILE: {line}"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ORCHESTRA_ETL_POLING__LEASE", "did you mean ORCHESTRA_ETL_POLLING__LEASE?"),
        ("ORCHESTRA_ETL_LEASE", "did you mean ORCHESTRA_ETL_POLLING__LEASE?"),
        ("ORCHESTRA_ETL_LOGS__LEVEL__X", "did you mean ORCHESTRA_ETL_LOGS__LEVEL?"),
        ("ORCHESTRA_ETL_WORKFLOWS__ID", "ORCHESTRA_ETL_WORKFLOWS to a JSON list"),
        ("ORCHESTRA_ETL_NONSENSE", "there is no such setting"),
    ],
)
def test_an_unknown_variable_is_an_error_too(tmp_path: Path, name: str, meant: str) -> None:
    """A misspelt variable is an error that does not show its value."""
    line = refusal(tmp_path, **{name: SECRET})
    assert line.startswith(f"{name}: ")
    assert meant in line


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[api", "is not valid TOML"),
        ("[export]\n[logs]\n[export]\n", "the table [export] is defined twice (at line 3,"),
        ("[logs]\nlevel = 'info'\nlevel = 'info'\n", "a key is defined twice (at line 3,"),
        ("[notify.ops]\nurl = 'x'\n", "notify.ops.url: there is no such setting (and 1 more)"),
        ("[api]\nbase_url = nonsense", "(at line 2, column 12)"),
        ("api = 5", "api: must be a table"),
        ("[workflows]\nid = 'a'", "must be a list of tables: [[workflows]]"),
        ("[[workflows]]\nname = 'a'", "workflows no. 1.id: is missing"),
        ("[service]\nport = 'abc'", "service.port: must be a valid integer"),
        ("[service]\nport = 99999", "service.port: must be less than or equal to 65535"),
        ("[service]\nhost = ''", "service.host: must not be empty"),
        ("[service]\nport = 'x'\nhost = ''", "(and 1 more)"),
        ("[api]\nrequests_per_second = true", "api.requests_per_second: must be a number"),
        ("[api]\nrequests_per_second = -1",
         "api.requests_per_second: must be greater than or equal to 0"),
        ("[api]\nbase_url = 'ftp://host/'", "must begin with http:// or https://"),
        ("[[alerts]]\nname = 'a'\nmetric = 'runs'\nabove_usual = true",
         "alerts no. 1.above_usual: must be a number"),
        ("[api]\nbase_url = 'https:///path'", "no host"),
        ("[api]\nbase_url = 'https://host:99999/'", "is not a valid URL"),
        (f"[api]\nbase_url = 'https://user:{SECRET}@host/'", "must not hold a user or password"),
        ("[api]\nbase_url = 'https://host/?a=b'", "without '?' or '#'"),
        ("[api]\nbase_url = 'https://host/#a'", "without '?' or '#'"),
        ("[api]\nbase_url = ''", "must begin with http:// or https://"),
        ("[api]\nbase_url = 'localhost:8000'", "must begin with http:// or https://"),
        (f"[api]\nbase_url = 'https://host:{SECRET}/'", "is not a valid URL"),
        ('[api]\nbase_url = "https://ho\\nst/"', "characters that a URL cannot contain"),
        ("[api]\nheader_name = ''", "is not a valid HTTP header name"),
        ("[api]\nheader_name = 'X Key'", "is not a valid HTTP header name"),
        ("[api]\nheader_name = 'a: b'", "is not a valid HTTP header name"),
        ("[api]\nheader_name = 'Schlüssel'", "is not a valid HTTP header name"),
        ('[api]\nheader_name = "X\\r\\nY"', "is not a valid HTTP header name"),
        ("[[prices]]\nmodel = 'a'\ninput = '1'\noutput = '1'\nabove_input_tokens = true",
         "above_input_tokens: must be a number"),
        (f"[api]\napi_key = '{SECRET}'", "set ORCHESTRA_API_KEY or ORCHESTRA_API_KEY_FILE"),
        (f"[api]\nkey = '{SECRET}'", "set ORCHESTRA_API_KEY or ORCHESTRA_API_KEY_FILE"),
        (f"[database]\nurl = 'mysql://u:{SECRET}@host/'", "must begin with postgresql://"),
        ("[database]\nurl = 'embedded'\nurl_file = 'x'", "the database is named twice"),
        ("[logs]\nlevel = 'loud'", "logs.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("[states]\nreview = 'reviewing'", "'review' must be one of pending, running"),
        ("[polling]\nopen_interval_min = '1h'", "open_interval_min must not be longer"),
        ("[[workflows]]\nid = 'a'\n[[workflows]]\nid = 'a'", "the id a is configured twice"),
        ("[[workflows]]\nid = 'a'\ninterval = '1m'\ncron = '* * * * *'",
         "has both interval and cron"),
        ("[[workflows]]\nid = 'a'\ncron = '* * *'",
         "no. 1.cron: is not a cron line of five fields"),
        ("[[workflows]]\nid = 'a'\ncron = '61 * * * *'", "no. 1.cron: is not a cron line"),
        ("[[workflows]]\nid = 'a'\ncron = '0 0 31 2 *'", "never comes due"),
        ("[[workflows]]\nid = 'a'\ncron = '* * * * 8'", "weekday '8' must be from 0 to 7"),
        ("[[workflows]]\nid = '..'", "no. 1.id: cannot be part of a request's path"),
        ("[[workflows]]\nid = ''", "no. 1.id: cannot be part of a request's path"),
        ("[[workflows]]\nid = 'a'\nruns = ['x', 'a\\u0000b', \"a\\u0000b\"]",
         "no. 1.runs no. 3: cannot be part of a request"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_that_names_the_place(
    tmp_path: Path, toml: str, words: str
) -> None:
    """Every mistake in the file is one line with file, key and reason, without a secret."""
    line = refusal(tmp_path, toml)
    assert line.startswith("FILE: ")
    assert words in line


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ORCHESTRA_API_KEY", f"{SECRET}\n{SECRET}", "holds a line break"),
        ("ORCHESTRA_API_KEY", f"{SECRET}é", "a character outside ASCII"),
        ("DATABASE_URL", f"mysql://u:{SECRET}@host/x", "must begin with postgresql://"),
        ("DATABASE_URL", f"postgres://u:{SECRET}@host/a b", "holds a space or a line break"),
        ("ORCHESTRA_BASE_URL", f"https://u:{SECRET}@host", "must not hold a user or password"),
        ("ORCHESTRA_ETL_POLLING__LEASE", SECRET, "is not a valid duration"),
        ("ORCHESTRA_ETL_API__CONCURRENCY", SECRET, "must be a valid integer"),
        ("ORCHESTRA_ETL_WORKFLOWS", SECRET, "must be a JSON list"),
        ("ORCHESTRA_ETL_WORKFLOWS", '["a"]', "no. 1: must be a table"),
        (
            "ORCHESTRA_ETL_LOGS",
            '{"levl": "info"}',
            "levl: there is no such setting; did you mean logs.level?",
        ),
        ("ORCHESTRA_ETL_LOGS", '"info"', "must be a table in JSON"),
        (
            "ORCHESTRA_ETL_LOGS",
            '{"level": "info", "level": "debug"}',
            "holds the key 'level' twice in one object",
        ),
        (
            "ORCHESTRA_ETL_WORKFLOWS",
            '[{"id": "a", "id": "b"}]',
            "holds the key 'id' twice in one object",
        ),
        (
            "ORCHESTRA_ETL_WORKFLOWS",
            '[{"id": "a", "labels": {"x": "1", "x": "2"}}]',
            "holds the key 'x' twice",
        ),
        (
            "ORCHESTRA_ETL_WORKFLOWS",
            '[{"id": "a"}, {"id": "b"}, {"id": "a"}]',
            "the id a is configured twice",
        ),
        ("ORCHESTRA_ETL_PRICES", '[{"model": "m", "model": "n"}]', "holds the key 'model' twice"),
        (
            "ORCHESTRA_ETL_REDACTION__RULES",
            '[{"path": "$.a", "path": "$.b"}]',
            "holds the key 'path' twice",
        ),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(
    tmp_path: Path, name: str, value: str, words: str
) -> None:
    """A mistake in the environment names the variable, not the file, without the value."""
    line = refusal(tmp_path, **{name: value})
    assert line.startswith(f"{name}: ")
    assert words in line


@pytest.mark.parametrize(
    ("toml", "environment", "source"),
    [
        ("[api]\nconcurrency = 3", {"ORCHESTRA_API_KEY": "a", "ORCHESTRA_API_KEY_FILE": "b"},
         "ORCHESTRA_API_KEY and ORCHESTRA_API_KEY_FILE: the key is set twice"),
        ("[api]\napi_key_file = 'x'", {"ORCHESTRA_API_KEY": "a",
                                       "ORCHESTRA_ETL_API": '{"api_key_file": "b"}'},
         "ORCHESTRA_API_KEY and ORCHESTRA_ETL_API: the key is set twice"),
        ("[database]\nurl = 'postgresql://x'", {"DATABASE_URL": "postgresql://y",
                                                "DATABASE_URL_FILE": "b"},
         "DATABASE_URL and DATABASE_URL_FILE: the database is named twice"),
        ("[redaction]\nkey_file = 'x'", {"ORCHESTRA_REDACTION_KEY": "a" * 32,
                                         "ORCHESTRA_REDACTION_KEY_FILE": "b"},
         "ORCHESTRA_REDACTION_KEY and ORCHESTRA_REDACTION_KEY_FILE: the key is set twice"),
        ("[polling]\nopen_interval_max = '1m'",
         {"ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN": "1h", "ORCHESTRA_ETL_POLLING__LEASE": "1m"},
         "FILE: polling and ORCHESTRA_ETL_POLLING__OPEN_INTERVAL_MIN: open_interval_min must not"),
        ("[polling]\nopen_interval_min = '1h'\nopen_interval_max = '1m'",
         {"ORCHESTRA_ETL_POLLING__LEASE": "1m"},
         "FILE: polling: open_interval_min must not"),
        ("[logs]\nlevel = 'loud'", {"ORCHESTRA_ETL_LOGS__LEVEL": "louder"},
         "ORCHESTRA_ETL_LOGS__LEVEL: must be"),
        ("[logs]\nlevel = 'loud'", {"ORCHESTRA_ETL_LOGS": '{"level": "louder"}'},
         "ORCHESTRA_ETL_LOGS: level: must be"),
        # Two variables for one setting.
        ("", {"ORCHESTRA_API_KEY": "a", "ORCHESTRA_ETL_API__API_KEY": "b"},
         "ORCHESTRA_ETL_API__API_KEY and ORCHESTRA_API_KEY set the same"),
        ("", {"ORCHESTRA_ETL_API": '{"concurrency": 5}', "ORCHESTRA_ETL_API__CONCURRENCY": "4"},
         "ORCHESTRA_ETL_API and ORCHESTRA_ETL_API__CONCURRENCY set the same"),
        ("", {"ORCHESTRA_ETL_API": "5", "ORCHESTRA_ETL_API__CONCURRENCY": "4"},
         "ORCHESTRA_ETL_API: must be a table"),
        # A variable does not hide that the file is wrong.
        ("polling = 3", {"ORCHESTRA_ETL_POLLING__LEASE": "1m"}, "FILE: polling: must be a table"),
    ],
)  # fmt: skip
def test_a_conflict_names_its_sources(
    tmp_path: Path, toml: str, environment: dict[str, str], source: str
) -> None:
    """A conflict between two sources, variables or the file, names exactly these sources."""
    assert refusal(tmp_path, toml, **environment).startswith(source)


def test_a_section_in_json_goes_with_single_variables_and_the_file(tmp_path: Path) -> None:
    """A section's variable, a setting's variable and the file combine: each sets what it names."""
    settings = read(
        tmp_path,
        "[api]\nattempts = 7\nconcurrency = 3",
        ORCHESTRA_ETL_API='{"concurrency": 5}',
        ORCHESTRA_ETL_API__PAGE_SIZE="9",
    )
    assert (settings.api.attempts, settings.api.concurrency, settings.api.page_size) == (7, 5, 9)


def test_the_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """A key loses its trailing newline, and a key file is re-read when its key changes."""
    assert read(tmp_path, ORCHESTRA_API_KEY=f"{SECRET}\n").read_api_key() == SECRET
    (tmp_path / "key").write_text("first\r\n", encoding="utf-8")
    settings = read(tmp_path, '[api]\napi_key_file = "key"\n')
    assert settings.read_api_key() == "first"
    (tmp_path / "key").write_text("renewed\n", encoding="utf-8")
    assert settings.read_api_key() == "renewed"
    assert (
        read(tmp_path, '[api]\napi_key_file = "key"\n', ORCHESTRA_API_KEY="other").read_api_key()
        == "other"
    )


def test_a_missing_key_is_an_error_only_when_it_is_needed(tmp_path: Path) -> None:
    """Commands on the database alone work without a key; the others say how to give one."""
    with pytest.raises(
        ConfigurationError, match="set ORCHESTRA_API_KEY, or ORCHESTRA_API_KEY_FILE"
    ):
        read(tmp_path).read_api_key()
    with pytest.raises(
        ConfigurationError,
        match=r"nowhere: the API key .*ORCHESTRA_API_KEY_FILE.* cannot be read: No such file",
    ):
        read(tmp_path, ORCHESTRA_API_KEY_FILE=str(tmp_path / "nowhere")).read_api_key()
    (tmp_path / "key").write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is empty"):
        read(tmp_path, ORCHESTRA_API_KEY_FILE=str(tmp_path / "key")).read_api_key()
    (tmp_path / "key").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        read(tmp_path, ORCHESTRA_API_KEY_FILE=str(tmp_path / "key")).read_api_key()
    assert "not both" in refusal(tmp_path, ORCHESTRA_API_KEY="a", ORCHESTRA_API_KEY_FILE="b")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_url_becomes_a_libpq_uri(tmp_path: Path, scheme: str) -> None:
    """Each usual spelling gives the same libpq URI, from the environment and from a file."""
    url = f"{scheme}://user:pass@host:5433/name?sslmode=disable"
    expected = "postgresql://user:pass@host:5433/name?sslmode=disable"
    assert read(tmp_path, DATABASE_URL=url).database_url() == expected
    (tmp_path / "url").write_text(f"{url}\n", encoding="utf-8")
    settings = read(
        tmp_path, '[database]\nurl = "embedded"\n', DATABASE_URL_FILE=str(tmp_path / "url")
    )
    assert settings.database_url() == expected


def test_without_a_database_it_is_the_embedded_one(tmp_path: Path) -> None:
    """The default database is the embedded one, with a file and without."""
    assert read(tmp_path).database_url() == "embedded"
    assert load(None, {}).database_url() == "embedded"


@pytest.mark.parametrize(
    "url",
    [
        "u:hunter2secret/x@h/d",
        "u:hunter2secret%zz@h/d",
        "u@h/d?pasword=hunter2secret",
        "u@h:0/d",
        "u@h:65536/d",
        "u@h:5432,g:99999999/d",
    ],
)
def test_a_url_that_libpq_refuses_is_not_quoted(tmp_path: Path, url: str) -> None:
    """The error for a URL that libpq refuses does not quote it, unlike libpq's own text.

    libpq quotes what it does not understand, mostly a piece of the password.
    """
    settings = read(tmp_path, DATABASE_URL=f"postgresql://{url}")
    with pytest.raises(ConfigurationError, match="cannot be parsed") as caught:
        settings.database_url()
    assert SECRET not in str(caught.value)


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    """Neither `config show` nor the settings' representation shows a key or password."""
    settings = read(
        tmp_path,
        ORCHESTRA_API_KEY=SECRET,
        DATABASE_URL=f"postgres://user:{SECRET}@host/d?sslmode=require&password={SECRET}",
    )
    shown = settings.masked()
    assert SECRET not in repr(shown) + repr(settings) + str(settings)
    assert shown["api"]["api_key"] == "********"
    assert (
        shown["database"]["url"]
        == "postgresql://user:********@host/d?sslmode=require&password=********"
    )


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:a@b/c@host/d", "postgresql://u:********@host/d"),
        ("postgresql://u:a?b@host/d", "postgresql://u:********@host/d"),
        ("postgresql://us?er:a#b@host/d", "postgresql://us?er:********@host/d"),
        ("postgresql://:a@host", "postgresql://:********@host"),
        ("postgresql://host/d?PassWord=x&port=1", "postgresql://host/d?PassWord=********&port=1"),
        ("postgresql://host/d?pasword=x", "postgresql://host/d?pasword=********"),
        ("postgresql://host/d?sslpassword=x", "postgresql://host/d?sslpassword=********"),
        ("postgresql://host/d?pass%77ord=x", "postgresql://host/d?pass%77ord=********"),
        (
            "postgresql://host/d?%70%61ssword=x%26y&sslmode=require",
            "postgresql://host/d?%70%61ssword=********&sslmode=require",
        ),
        (
            "postgresql://host/d?password=a#b&password=c",
            "postgresql://host/d?password=********&password=********",
        ),
        ("postgresql://host/d?password=a=b", "postgresql://host/d?password=********"),
        (
            "postgresql://host?oauth_client_secret=x&scram_client_key=y&scram_server_key=z",
            "postgresql://host?oauth_client_secret=********&scram_client_key=********&scram_server_key=********",
        ),
        (
            "postgresql://host/d?passfile=/a/b&sslkey=/c",
            "postgresql://host/d?passfile=/a/b&sslkey=/c",
        ),
        ("host=h password=x", "********"),
        ("postgresql://host/d?sslmode=require#x", "postgresql://host/d?sslmode=require#x"),
        ("postgresql://user@host/d", "postgresql://user@host/d"),
        ("embedded", "embedded"),
    ],
)
def test_passwords_in_urls_are_masked_in_every_form(url: str, masked: str) -> None:
    """A password in a URL is masked even if it is not percent-encoded, or is a parameter."""
    assert mask_url(url) == masked


def test_settings_cannot_be_changed() -> None:
    """Loaded settings cannot be changed: assigning to one fails."""
    with pytest.raises(ValidationError):
        Settings().polling.lease = 1.0


def test_importing_the_settings_is_cheap() -> None:
    """Reading the settings imports neither the scheduler nor the database driver."""
    code = "import sys, etl.settings; etl.settings.load(environment={}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pydantic" in loaded
    assert not loaded & {"apscheduler", "psycopg", "sqlalchemy", "httpx", "structlog", "msgspec"}


def test_an_id_is_as_long_as_the_tables_take(tmp_path: Path) -> None:
    """Ids are measured in bytes, like the tables' constraints and indexes do."""
    assert read(tmp_path, f'[[workflows]]\nid = "{"é" * 256}"').workflows[0].id == "é" * 256
    line = "FILE: workflows no. 1.id: is longer than 512 bytes"
    assert refusal(tmp_path, f'[[workflows]]\nid = "{"é" * 257}"') == line


def test_prices_are_read_exactly(tmp_path: Path) -> None:
    """A price is the exact decimal number, written as a number or as text, with defaults."""
    toml = """
        [[prices]]
        model = "gpt-*"
        input = 0.15
        output = "0.60"
        [[prices]]
        model = "gpt-*"
        input = 1
        output = 0
        cached_input = 0.1
        currency = "eur"
        provider = "azure"
        valid_from = 2026-01-31
    """
    always, later = read(tmp_path, toml).prices
    assert (always.input, always.output, always.cached_input) == (
        Decimal("0.15"),
        Decimal("0.60"),
        None,
    )
    assert (always.currency, always.provider, always.valid_from) == ("USD", None, None)
    assert (later.input, later.output, later.cached_input) == (
        Decimal(1),
        Decimal(0),
        Decimal("0.1"),
    )
    assert (later.currency, later.provider, later.valid_from) == ("EUR", "azure", date(2026, 1, 31))
    shown = json.dumps(read(tmp_path, toml).masked()["prices"])
    assert read(tmp_path, ORCHESTRA_ETL_PRICES=shown).prices == (always, later)


def test_every_kind_has_a_price(tmp_path: Path) -> None:
    """Each kind of usage may have its own price, for a service tier and a length of the input."""
    parts = [kind.price for kind in (*KINDS, CALLS)]
    assert set(parts) < set(PriceSettings.model_fields)
    lines = "\n".join(f"{part} = {number}" for number, part in enumerate(parts))
    toml = f'[[prices]]\nmodel = "m"\n{lines}\nservice_tier = "Batch"\nabove_input_tokens = 200000'
    [price] = read(tmp_path, toml).prices
    assert price.amounts == {part: Decimal(number) for number, part in enumerate(parts)}
    assert (price.service_tier, price.above_input_tokens) == ("batch", 200_000)
    # Each table is for other calls.
    others = "\n".join(
        f'[[prices]]\nmodel = "m"\ninput = 1\noutput = 1\n{one}'
        for one in ("", 'service_tier = "us"', "above_input_tokens = 32000")
    )
    assert [one.service_tier for one in read(tmp_path, others).prices] == [
        "standard",
        "us",
        "standard",
    ]


def test_a_price_without_tokens(tmp_path: Path) -> None:
    """Without a price per token, neither input nor output needs one."""
    [price] = read(tmp_path, '[[prices]]\nmodel = "m"\ndocument_pages = 1.5').prices
    assert price.amounts == {"document_pages": Decimal("1.5")}


@pytest.mark.parametrize(
    ("price", "line"),
    [
        ('model = "m"\noutput = 1', "prices no. 1.input: is missing"),
        ('model = "m"', "prices no. 1.input: is missing (and 1 more)"),
        ('model = "m"\ninput = 1\noutput_audio = 1', "prices no. 1.output: is missing"),
        (
            'model = "m"\ninput = 1\noutput = 1\nabove_input_tokens = 150000',
            "prices no. 1.above_input_tokens: must be 0 or one of 32000, 100000, 128000, "
            "199999, 200000, 256000, 272000,"
            " 512000, 524288: prices change there",
        ),
        (
            'model = "m"\ninput = 1\noutput = 1\nservice_tier = "%s"' % ("x" * 51),
            "prices no. 1.service_tier: must be a name of at most 50 characters",
        ),
        (
            (
                'model = "m"\naudio = 1\nservice_tier = "us"\n[[prices]]\nmodel = "m"\naudio '
                '= 2\nservice_tier = "US"'
            ),
            "prices: the price of m is set twice",
        ),
        (
            'model = "m"\ninput = -0.1\noutput = 1',
            "prices no. 1.input: must be greater than or equal to 0",
        ),
        ('model = "m"\ninput = true\noutput = 1', "prices no. 1.input: must be a number"),
        ('model = "m"\ninput = nan\noutput = 1', "prices no. 1.input: must be a finite number"),
        (
            'model = " m"\ninput = 1\noutput = 1',
            "prices no. 1.model: must be a name without line breaks and outer spaces",
        ),
        (
            'model = "m"\ninput = 1\noutput = 1\ncurrency = "US"',
            "prices no. 1.currency: must be three letters, such as USD",
        ),
        (
            'model = "m"\ninput = 1\noutput = 1\nvalid_from = 2026',
            "prices no. 1.valid_from: must be a day, such as 2026-01-31",
        ),
        (
            'model = "m"\ninputs = 1\noutput = 1\ninput = 1',
            "prices no. 1.inputs: there is no such setting; did you mean prices.input?",
        ),
        (
            'model = "m"\ninput = 1\noutput = 1\n[[prices]]\nmodel = "m"\ninput = 2\noutput = 2',
            "prices: the price of m is set twice",
        ),
    ],
)
def test_a_price_that_cannot_be_one(tmp_path: Path, price: str, line: str) -> None:
    """An invalid price is refused with its table and key."""
    assert refusal(tmp_path, f"[[prices]]\n{price}") == f"FILE: {line}"


def test_prices_in_the_environment_are_a_list(tmp_path: Path) -> None:
    """One variable holds all prices; single keys of a list have no variable."""
    line = "ORCHESTRA_ETL_PRICES__INPUT: set ORCHESTRA_ETL_PRICES to a JSON list of prices instead"
    assert refusal(tmp_path, ORCHESTRA_ETL_PRICES__INPUT="1") == line
    assert (
        refusal(tmp_path, ORCHESTRA_ETL_PRICES="m") == "ORCHESTRA_ETL_PRICES: must be a JSON list"
    )


def test_a_checkout_shows_the_template_and_not_the_users_file(tmp_path: Path) -> None:
    """In a checkout, `config/etl.toml` belongs to the user: it never becomes the template."""
    root = EXAMPLE.parents[2]
    shutil.copytree(root / "etl", tmp_path / "etl", ignore=shutil.ignore_patterns("__pycache__"))
    users = tmp_path / sources.WORKING_FOLDER
    users.parent.mkdir()
    users.write_text("# mine\n")
    program = "from etl.settings import sources; print(sources.template(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == EXAMPLE.read_text(encoding="utf-8")
    assert (
        not (root / ".git").exists()
        or f"/{sources.WORKING_FOLDER}" in (root / ".gitignore").read_text().splitlines()
    )


@pytest.mark.parametrize(
    ("toml", "where"),
    [
        ('[[workflows]]\nid = "a"\nname = "a\\u0000b"', "workflows no. 1.name"),
        ('[[workflows]]\nid = "a"\nlabels = { "team\\u0000" = "a" }', "workflows no. 1.labels"),
        ('[[workflows]]\nid = "a"\nlabels = { team = "a\\u0000" }', "workflows no. 1.labels"),
        ('[states]\n"open\\u0000" = "running"', "states"),
        ('[notify."ops\\u0000"]\nurl_file = "ops"', "notify"),
        ('[notify.ops]\nurl_file = "ops\\u0000"', "notify.ops.url_file"),
        ('[api]\napi_key_file = "key\\u0000"', "api.api_key_file"),
        ('[service]\nhost = "local\\u0000host"', "service.host"),
        (
            '[[redaction.rules]]\nnode = "a\\u0000"\npath = "$.a"\naction = "drop"',
            "redaction.rules no. 1.node",
        ),
    ],
)
def test_text_that_cannot_be_stored(tmp_path: Path, toml: str, where: str) -> None:
    """NUL in a name, a label, a state, a channel, a file or a host is refused with its place."""
    problem = "must not contain NUL or half of a surrogate pair"
    assert refusal(tmp_path, toml) == f"FILE: {where}: {problem}"


def test_errors_of_variables_without_a_file_name_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a configuration file, an error of a whole section names the variable that sets it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "user_file", lambda: None)
    for name, value, problem in (
        (
            "ORCHESTRA_ETL_WORKFLOWS",
            r'[{"id": "a", "name": "\ud800"}]',
            "no. 1.name: must not contain NUL or half of a surrogate pair",
        ),
        (
            "ORCHESTRA_ETL_STATES",
            r'{"\ud800": "running"}',
            "must not contain NUL or half of a surrogate pair",
        ),
        (
            "ORCHESTRA_ETL_ALERTS",
            '[{"name": "a", "metric": "runs", "above": 1, "notify": ["ops"]}]',
            "the rule a notifies ops, but there is no [notify.ops]",
        ),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(None, {name: value})
        assert str(caught.value) == f"{name}: {problem}"

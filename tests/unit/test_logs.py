"""Logs: their two formats, and the secrets that they must not contain."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from etl import logs
from etl.errors import ApiUnavailable

log = structlog.get_logger("etl.test")
SECRET = "zq9/cret key"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore the logging configuration after the test."""
    root, ours = logging.getLogger(), logging.getLogger("etl")
    before = (list(root.handlers), root.level, ours.level, set(logs._secrets))
    yield
    root.handlers, ours.level = before[0], before[2]
    root.setLevel(before[1])
    logs._secrets.clear()
    logs._secrets.update(before[3])
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the events that were logged as JSON lines."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_in_utc() -> None:
    """Away from a terminal an event is a JSON line: time in UTC, level, event, then its fields."""
    logs.configure("info", "auto", stream := io.StringIO())
    log.info("sweep_finished", workflow="w\n1", new=3)
    (event,) = events(stream)
    assert list(event) == ["timestamp", "level", "event", "workflow", "new"]
    assert (event["level"], event["event"], event["workflow"], event["new"]) == (
        "info",
        "sweep_finished",
        "w\n1",
        3,
    )
    assert event["timestamp"].endswith("Z")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(event["timestamp"])) < timedelta(
        minutes=1
    )


def test_a_terminal_gets_text_for_people() -> None:
    """On a terminal `auto` is the console format; elsewhere `console` is text without colours."""
    logs.configure("info", "auto", terminal := Terminal())
    log.warning("gap_found", workflow="w1")
    assert "\x1b[" in terminal.getvalue()
    logs.configure("info", "console", stream := io.StringIO())
    log.warning("gap_found", workflow="w1")
    assert "gap" in stream.getvalue()
    assert "workflow=w1" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()
    assert terminal.getvalue().count("gap") == 1


def test_logs_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs go to standard error, because standard output is for results."""
    logs.configure("info", "json")
    log.info("sweep_finished")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert json.loads(printed.err)["event"] == "sweep_finished"


def test_the_level_holds_back_what_is_below_it() -> None:
    """The level `warning` shows no info event, and `debug` shows all of the product's events."""
    logs.configure("warning", "json", stream := io.StringIO())
    log.info("quiet")
    log.error("loud")
    logs.configure("debug", "json", stream)
    log.debug("chatter")
    assert [event["event"] for event in events(stream)] == ["loud", "chatter"]


@pytest.mark.parametrize(
    "name", ["httpx", "aiohttp.access", "sqlalchemy.engine", "apscheduler", "alembic", "asyncio"]
)
def test_libraries_log_from_warning_on(name: str) -> None:
    """Libraries log only from WARNING on, even at debug, because they log URLs and rows below."""
    logs.configure("debug", "json", stream := io.StringIO())
    logging.getLogger(name).info("GET https://host/runs?key=1")
    logging.getLogger(name).warning("attention %s", "now")
    (event,) = events(stream)
    assert (event["event"], event["level"], event["logger"]) == ("attention now", "warning", name)


def test_a_hidden_secret_appears_nowhere() -> None:
    """A secret is masked in texts, keys, lists, objects, exceptions and libraries' messages.

    The forms that it has in a URL are masked too.
    """
    logs.configure("debug", "json", stream := io.StringIO())
    logs.add_secret(SECRET)
    logs.add_secret("")
    logs.add_secret(None)
    log.info(
        f"key {SECRET}",
        url="http://h/?k=zq9%2Fcret%20key&l=zq9%2Fcret+key&m=zq9/cret%20key",
        nested={SECRET: [SECRET, (SECRET, 1)]},
        thing=ValueError(SECRET),
        raw=SECRET.encode(),
        number=1.5,
    )
    logging.getLogger("aiohttp").error("bad header %s", SECRET)
    try:
        raise RuntimeError(f"header {SECRET}")
    except RuntimeError as error:
        log.error("failed", exc_info=error)
    text = stream.getvalue()
    assert "zq9" not in text
    assert events(stream)[0]["url"] == "http://h/?k=********&l=********&m=********"
    assert events(stream)[0]["number"] == 1.5
    assert "header ********" in events(stream)[2]["exception"]


def test_the_longest_secret_is_masked_first() -> None:
    """A secret that contains another one is masked whole."""
    logs.add_secret("abc")
    logs.add_secret("abcdef")
    assert logs.mask("abcdef abc") == "******** ********"


def test_a_foreign_exception_is_shown_by_its_type() -> None:
    """A foreign exception is logged by its type, because its text may quote a row or payload.

    The text appears only at debug.
    """
    logs.configure("info", "json", stream := io.StringIO())
    try:
        raise ValueError("DETAIL: row (payload)")
    except ValueError as error:
        log.error("failed", exc_info=error)
        log.exception("failed")
        log.error("failed", cause=error)
        logging.getLogger("apscheduler").error("job raised\npayload", exc_info=True)
        logs.log_traceback(error)
        logs.configure("debug", "json", stream)
        logs.log_traceback(error)
    assert [event.get("error") or event["cause"] for event in events(stream)] == ["ValueError"] * 5
    *quiet, traced = stream.getvalue().splitlines()
    assert "payload" not in "".join(quiet)
    assert "Traceback" not in "".join(quiet)
    assert "row (payload)" in json.loads(traced)["exception"]


def test_errors_of_the_product_are_shown_with_their_text() -> None:
    """An error of the product is logged with its text, which is written to be shown."""
    logs.configure("info", "json", stream := io.StringIO())
    try:
        raise ApiUnavailable("no answer; try again") from ValueError("payload")
    except ApiUnavailable as error:
        log.error("failed", exc_info=error)
    assert events(stream)[0]["error"] == "ApiUnavailable: no answer; try again"
    assert "payload" not in stream.getvalue()


def test_a_closed_stream_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A closed log stream neither raises nor makes logging print the event by itself."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    stream.close()
    log.info("sweep_finished", payload="x")
    assert capsys.readouterr().err == ""


def test_configuring_twice_logs_once() -> None:
    """The second configuration replaces the first instead of adding to it."""
    logs.configure("info", "json", first := io.StringIO())
    logs.configure("info", "json", second := io.StringIO())
    log.info("sweep_finished")
    assert first.getvalue() == ""
    assert len(events(second)) == 1
    assert sys.stderr not in [
        getattr(handler, "stream", None) for handler in logging.getLogger().handlers
    ]

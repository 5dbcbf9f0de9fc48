"""Logs: events with keywords, as JSON lines or for the console, on standard error.

Three guarantees:

- A registered secret never appears.
- Of a third-party exception only the type appears, because its text may contain rows or payloads.
  The level debug adds the traceback.
- Libraries log only at WARNING and above (httpx logs every URL at INFO).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO
from urllib.parse import quote, quote_plus

from etl.errors import EtlError
from etl.imports import without
from etl.terminal import LONGEST_LINE, plain, safe_json, unguarded, visible

# structlog would use rich for tracebacks, which are plain here. That import takes 30 ms.
with without("rich"):
    import structlog
    from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

MASK = "********"

_HANDLER = "orchestra-etl"
_FIRST = ("timestamp", "level", "event")
_secrets: set[str] = set()


def configure(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for the process; a second call replaces the first.

    Args:
        level: the lowest level of the project's own events; libraries log at WARNING and above.
        format: `auto` is `console` on a terminal, else `json` (one object a line).
        stream: where to write; None: standard error.
    """
    stream = unguarded(stream if stream is not None else sys.stderr)
    on_terminal = stream.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor] = [structlog.processors.JSONRenderer(), _safe_json]
    if format == "console" or (format == "auto" and on_terminal):
        console = structlog.dev.ConsoleRenderer(
            colors=on_terminal, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
        renderers = [_visible_event, console]
    handler = _Handler(stream, for_people=format == "auto" and on_terminal)
    handler.name = _HANDLER
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, _first_line],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _Exceptions(with_traceback=level == "debug"),
                _mask_event,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    for old in [one for one in root.handlers if one.name == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger("etl").setLevel(number)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: logging.getLogger("etl"),
    )


def add_secret(secret: str | None) -> None:
    """Mask this text, also URL-encoded, in every later event; ignore None and an empty text."""
    if secret:
        _secrets.update({secret, quote(secret), quote(secret, safe=""), quote_plus(secret)})


def is_configured() -> bool:
    """Return whether `configure` has been called.

    Log nothing before that: unconfigured, structlog prints an exception with the variables of every
    frame, secrets included, to standard output.
    """
    return structlog.is_configured()


def leave_out(*events: str) -> None:
    """Leave these events out where a person also reads a command's own summary: on a terminal.

    A format that is set explicitly still has every event.
    """
    for one in logging.getLogger().handlers:
        if isinstance(one, _Handler) and one.for_people:
            one.left_out = frozenset(events)


def log_traceback(error: BaseException) -> None:
    """Log where an error came from, at the level debug; do nothing until logging is configured."""
    if is_configured():
        structlog.get_logger("etl").debug("traceback", exc_info=error)


def mask(text: str) -> str:
    """Return the text with every registered secret replaced by `MASK`."""
    # The longest first: one secret may contain another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


class _Handler(logging.StreamHandler[TextIO]):
    left_out: frozenset[str] = frozenset()

    def __init__(self, stream: TextIO, *, for_people: bool) -> None:
        super().__init__(stream)
        self.for_people = for_people

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for an event that is left out; structlog passes each event as a dict."""
        event = record.msg.get("event") if isinstance(record.msg, dict) else None
        return event not in self.left_out and bool(super().filter(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore errors of the stream.

        The default would print the event's arguments unmasked. A closed stream must not stop the
        work.
        """


class _Exceptions:
    """A processor that replaces `exc_info` by the part of the exception that may be shown."""

    def __init__(self, *, with_traceback: bool) -> None:
        self._with_traceback = with_traceback

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        found = event.pop("exc_info", None)
        event.pop("stack_info", None)
        if found is True:
            found = sys.exc_info()
        error = found[1] if isinstance(found, tuple) else found
        if isinstance(error, BaseException):
            event["error"] = _shown(error)
            if self._with_traceback:
                event["exception"] = structlog.processors.format_exc_info(
                    logger, method, {"exc_info": error}
                )["exception"]
        return event


def _shown(error: BaseException) -> str:
    """Return the type and text of an `EtlError`, and only the type of any other error."""
    return (
        f"{type(error).__name__}: {error}" if isinstance(error, EtlError) else type(error).__name__
    )


def _first_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Keep only the first line of a library's event.

    Later lines contain representations of tasks and exceptions, payloads included.
    """
    event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _mask_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Return the event with plain values only, secrets masked, and the `_FIRST` keys first."""
    plain = {key: _plain(value) for key, value in event.items()}
    return {**{key: plain.pop(key) for key in _FIRST if key in plain}, **plain}


def _safe_json(logger: WrappedLogger, method: str, line: Any) -> Any:
    """Escape DEL, the only character of the renderer's ASCII that a terminal would not show."""
    return safe_json(line)


def _visible_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Return the event in visible characters, every value on one line except a traceback."""
    return {
        key: visible(value) if key == "exception" else _visible(value)
        for key, value in event.items()
    }


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value, LONGEST_LINE)
    if isinstance(value, Mapping):
        return {_visible(key): _visible(one) for key, one in value.items()}
    return [_visible(one) for one in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return mask(_shown(value) if isinstance(value, BaseException) else str(value))

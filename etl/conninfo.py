"""The libpq settings of a connection, and the source of each: URL, environment or service file."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psycopg
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict
from psycopg.pq import Conninfo

# PostgreSQL truncates longer names of databases and users.
_LONGEST_NAME_BYTES = 63
# Server parameters that libpq reads from the environment and sends to the server. libpq has no
# connection setting for them.
_SENT_VARIABLES = {"TimeZone": "PGTZ", "DateStyle": "PGDATESTYLE", "geqo": "PGGEQO"}


class Sources(dict[str, str]):
    """The source of each libpq setting, in words, by its keyword.

    `text.format_map(Sources(url))` replaces `{sslmode}` in the text by, for example,
    `sslmode in DATABASE_URL`.
    """

    def __init__(self, url: str) -> None:
        """Parse the URL, a libpq URI. An invalid URL sets nothing."""
        super().__init__()
        self._given = _given(url)

    def __missing__(self, keyword: str) -> str:
        if self._given.get(keyword) is None:
            variable = _variables().get(keyword) or _SENT_VARIABLES.get(keyword)
            if variable and os.environ.get(variable):
                return f"{variable} in the environment"
            if keyword not in _variables():
                keyword = "options"
            elif keyword != "service" and _settings("").get(keyword) and _service(self._given):
                return f"{keyword} in the service file"
        return f"{keyword} in DATABASE_URL"


def names(url: str) -> list[str]:
    """Return the names of the database and the user, whole and truncated, longest first.

    A message of the server may contain any of them.
    """
    settings = _settings(url)
    whole = {str(settings[key]) for key in ("dbname", "user") if settings.get(key)}
    cut = {name.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore") for name in whole}
    return sorted(whole | cut, key=len, reverse=True)


def address(url: str) -> str:
    """Return the address for display: `PostgreSQL at db.example.com:5432`, or the socket folder."""
    settings = _settings(url)
    hosts = str(settings.get("host") or settings.get("hostaddr") or "local socket").split(",")
    ports = str(settings.get("port") or 5432).split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    shown = ", ".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return "PostgreSQL at " + "".join(one if one.isprintable() else "?" for one in shown)[:300]


def attempts(url: str) -> int:
    """Return how many addresses a connection would try, one after another."""
    try:
        return len(conninfo_attempts(conninfo_to_dict(url)))
    except psycopg.Error:
        return 1


def _given(url: str) -> Mapping[str, object]:
    try:
        return conninfo_to_dict(url)
    except psycopg.Error:
        return {}


def _settings(url: str) -> Mapping[str, object]:
    """Return the effective settings: the URL's, then those of the environment and service file."""
    defaults = {
        one.keyword.decode(): one.val.decode(errors="replace")
        for one in Conninfo.get_defaults()
        if one.val
    }
    return {**defaults, **_given(url)}


def _variables() -> Mapping[str, str]:
    """Return the environment variable of each libpq keyword; empty if it has none."""
    return {one.keyword.decode(): (one.envvar or b"").decode() for one in Conninfo.get_defaults()}


def _service(given: Mapping[str, object]) -> bool:
    return bool(given.get("service") or os.environ.get("PGSERVICE"))

"""What libpq is told about a connection, and where each setting comes from: the URL, the environment or a service file."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psycopg
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict
from psycopg.pq import Conninfo

# PostgreSQL cuts longer names of databases and users.
_LONGEST_NAME_BYTES = 63
# What the server itself is sent from the environment, by the parameter's name. libpq has no
# connection setting for them.
_SENT_VARIABLES = {"TimeZone": "PGTZ", "DateStyle": "PGDATESTYLE", "geqo": "PGGEQO"}


class Sources(dict[str, str]):
    """Where a setting of libpq is set, in words, by its keyword: fills the `{sslmode}` of a text with `format_map`."""

    def __init__(self, url: str) -> None:
        """`url`: a libpq URI."""
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
    """The names that a message of the server may hold: of the database and of the user, as it was given and as it was cut."""
    settings = _settings(url)
    whole = {str(settings[key]) for key in ("dbname", "user") if settings.get(key)}
    cut = {name.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore") for name in whole}
    return sorted(whole | cut, key=len, reverse=True)


def address(url: str) -> str:
    """`PostgreSQL at db.example.com:5432`, or the sockets' folder, for people."""
    settings = _settings(url)
    hosts = str(settings.get("host") or settings.get("hostaddr") or "local socket").split(",")
    ports = str(settings.get("port") or 5432).split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    shown = ", ".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return "PostgreSQL at " + "".join(one if one.isprintable() else "?" for one in shown)[:300]


def attempts(url: str) -> int:
    """How many addresses a connection would try, one after another."""
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
    """What holds: the URL's settings, and for the rest those of the environment and of its service file."""
    defaults = {
        one.keyword.decode(): one.val.decode(errors="replace")
        for one in Conninfo.get_defaults()
        if one.val
    }
    return {**defaults, **_given(url)}


def _variables() -> Mapping[str, str]:
    """The variable of each of libpq's keywords; empty where there is none."""
    return {one.keyword.decode(): (one.envvar or b"").decode() for one in Conninfo.get_defaults()}


def _service(given: Mapping[str, object]) -> bool:
    return bool(given.get("service") or os.environ.get("PGSERVICE"))

"""The types of settings: durations, ids, paths and secrets, each with its validation."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from errno import EFBIG
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from etl.errors import ConfigurationError

EMBEDDED = "embedded"
"""The database URL that selects the embedded PostgreSQL."""

MASK = "********"

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:(?:\d+(?:\.\d+)?|\.\d+)(?:ms|s|m|h|d))+")
_LONGEST_KEY = 4096
_LARGEST_SECRET = 64 * 1024
_CENTURY = 36525 * 86400.0
_DATABASE_SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")


def seconds(value: object) -> float:
    """Return a duration with its unit, such as `1h30m`, in seconds.

    Raises:
        ValueError: it is not a duration.
    """
    if not isinstance(value, str):
        raise ValueError("must be a duration in quotes, such as '90s', '5m' or '1h30m'")
    text = "".join(value.lower().split())
    if not _DURATION.fullmatch(text):
        raise ValueError(
            "is not a valid duration: write a number and a unit (ms, s, m, h, d), such as '90s', "
            "'5m' or '1h30m'"
        )
    found = sum(
        float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h|d)", text)
    )
    if found > _CENTURY:
        raise ValueError("is longer than a century")
    return found


def _duration_text(seconds: float) -> str:
    """Return the duration as the file spells it, such as `1h` or `1.5s`."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return seconds


# Accepts what `seconds` accepts: either case, and spaces between any two characters.
WRITTEN_DURATION = (
    r"^\s*(?:(?:\d[\d\s]*(?:\.\s*\d[\d\s]*)?|\.\s*\d[\d\s]*)(?:[Mm]\s*[Ss]|[SsMmHhDd])\s*)+$"
)
WRITTEN_POSITIVE = WRITTEN_DURATION.replace("^", r"^(?![0.\sSsMmHhDd]*$)", 1)
Duration = Annotated[
    float,
    BeforeValidator(seconds),
    PlainSerializer(_duration_text),
    WithJsonSchema({"type": "string", "pattern": WRITTEN_DURATION}),
]
"""A duration in seconds; zero is allowed."""
PositiveDuration = Annotated[
    Duration,
    AfterValidator(_positive),
    WithJsonSchema({"type": "string", "pattern": WRITTEN_POSITIVE}),
]
"""A duration in seconds, longer than zero."""


def _name(text: str) -> str:
    if not text.isprintable() or text != text.strip() or not text:
        raise ValueError("must be a name without line breaks and outer spaces")
    return text


CONTROL = r"\x00-\x1f\x7f-\x9f"
"""Control characters, for patterns; the program also refuses all other unprintable characters."""
_ONE_LINE = {"type": "string", "pattern": rf"^(?!\s)(?!.*\s$)[^{CONTROL}]+$"}
"""The JSON Schema of texts without line breaks and outer spaces."""
Name = Annotated[str, AfterValidator(_name), WithJsonSchema(_ONE_LINE)]


def at_most(characters: int) -> WithJsonSchema:
    """Return the JSON Schema of a name with a length limit that the type's validator checks."""
    return WithJsonSchema({**_ONE_LINE, "maxLength": characters})


def refuse_json(id: str) -> str:
    """Return the id unchanged.

    Raises:
        ValueError: a program such as `jq` printed this text instead of an id: JSON, or quoted.
    """
    if id.strip().lower() in {"null", "true", "false", "none", "undefined"}:
        raise ValueError("is a JSON value, not an id: check the program that printed it")
    if id.lstrip()[:1] in set("{[\"'`“”‘’") or id.rstrip()[-1:] in set("\"'`“”‘’"):
        raise ValueError("is JSON or in quotes: give the bare id (`jq --raw-output`)")
    return id


def clean_id(id: str) -> str:
    """Return the id unchanged.

    Raises:
        ValueError: it cannot be stored, or cannot be part of a request's path.
    """
    # Imported here, so that settings without ids do not pay for the import.
    from etl.identifiers import is_path_segment
    from etl.records import MAX_ID_BYTES

    refuse_json(id)
    if (
        not id.isprintable()
        or id != id.strip()
        or (len(id) <= MAX_ID_BYTES and not is_path_segment(id))
    ):
        raise ValueError(
            "cannot be part of a request's path (it is empty, has '.' or '..' as a part of its"
            " path, has control characters, or begins or ends with a space)"
        )
    if len(id.encode()) > MAX_ID_BYTES:
        raise ValueError(f"is longer than {MAX_ID_BYTES} bytes")
    return id


class _IdentifierSchema:
    """The JSON Schema of ids; the settings import their limit only when they check an id."""

    def __get_pydantic_json_schema__(self, _schema: object, _handler: object) -> dict[str, Any]:
        from etl.records import MAX_ID_BYTES

        return {**_ONE_LINE, "maxLength": MAX_ID_BYTES}


Identifier = Annotated[str, AfterValidator(clean_id), _IdentifierSchema()]


def expand_home(path: Path) -> Path:
    """Return the path with a leading `~` or `~user` expanded.

    Raises:
        ValueError: this user, or the named user, has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path.parts[0]} stands for no home folder on this machine: write the full path"
        ) from None


SecretFile = Annotated[Path, AfterValidator(expand_home)]


def is_secret(parameter: str) -> bool:
    """Return whether this connection parameter is secret.

    Examples: password, sslpassword, oauth_client_secret, scram_client_key.
    """
    return re.search(r"password|secret|scram_.*_key", parameter, re.IGNORECASE) is not None


def mask_url(url: str) -> str:
    """Return the URL with every secret masked, even where libpq would not expect one."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if url == EMBEDDED else MASK
    account = re.match(r"([^:]*:).*@|([^/?@]*@)|", rest)
    if account is None:
        return MASK
    user = f"{account[1]}{MASK}@" if account[1] is not None else account[0]
    where, question, query = rest[account.end() :].partition("?")
    return f"{scheme}://{user}{where}{question}" + "&".join(
        map(_mask_parameter, query.split("&") if question else ())
    )


def _mask_parameter(text: str) -> str:
    """Mask the parameter's value unless libpq knows the parameter and it is not secret.

    The misspelt `pasword` contains a password, too. libpq percent-decodes the names.
    """
    from psycopg.pq import Conninfo

    name, equals, _ = text.partition("=")
    decoded = unquote(name)
    shown = not is_secret(decoded) and any(
        one.keyword.decode() == decoded for one in Conninfo.get_defaults()
    )
    return text if shown else f"{name}{equals}{MASK}"


def clean_key(text: str) -> str:
    """Return the key without outer spaces.

    Raises:
        ValueError: it cannot be sent in a header.
    """
    key = text.strip()
    if not key:
        raise ValueError("is empty")
    if key.lower().startswith("bearer "):
        raise ValueError("begins with 'Bearer': the program adds that, give the key alone")
    if key[0] in "\"'`{[" or key[-1] in "\"'`":
        raise ValueError("is in quotes or is JSON: it must be the key alone")
    if len(key) > _LONGEST_KEY:
        raise ValueError(
            f"is longer than {_LONGEST_KEY} characters: no server accepts such a header"
        )
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(
            "holds a line break, a space or a character outside ASCII: it must be the key alone, "
            "on one line"
        )
    return key


def clean_database_url(text: str) -> str:
    """Return a libpq URI, or `embedded`.

    Raises:
        ValueError: the text is neither.
    """
    url = text.strip()
    if url.lower() == EMBEDDED:
        return EMBEDDED
    if not url.isprintable() or " " in url:
        raise ValueError("holds a space or a line break: it must be the URL alone, on one line")
    for scheme in _DATABASE_SCHEMES:
        if url.startswith(scheme):
            return "postgresql://" + url.removeprefix(scheme)
    raise ValueError(f"must begin with postgresql:// or postgres://, or be the word {EMBEDDED}")


DATABASE_URL = (
    r"^\s*(?:[Ee][Mm][Bb][Ee][Dd][Dd][Ee][Dd]"
    rf"|postgres(?:ql(?:\+psycopg)?)?://[^\s{CONTROL}]*)\s*$"
)
"""The JSON Schema's pattern of what `clean_database_url` accepts."""


def clean_channel_url(text: str) -> str:
    """Return the URL of a channel without outer spaces.

    Raises:
        ValueError: the text is not one URL. Its scheme and parts are checked where it is used.
    """
    url = text.strip()
    if not url.isprintable() or " " in url:
        raise ValueError("holds a space or a line break: it must be the URL alone, on one line")
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", url):
        raise ValueError("is not a URL: it must begin with a scheme, such as https:// or slack://")
    return url


def clean_http_url(text: str, no_password: str) -> str:
    """Return the URL without outer spaces and without a slash at its end.

    Raises:
        ValueError: it is not the URL of a host and a path; `no_password` says why it must not hold
            a user or password.
    """
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must begin with http:// or https://")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("has no host, or contains characters that a URL cannot contain")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not hold a user or password; {no_password}")
    if "?" in url or "#" in url:
        raise ValueError("must end with its path, without '?' or '#'")
    return url


HTTP_URL = (
    r"^\s*(?=[!-~]+\s*$)[Hh][Tt][Tt][Pp][Ss]?://"
    r"(?:\[[^\s/?#@\[\]]+\]|[^\s/?#@:\[\]])[^\s/?#@:\[\]]*(?::\d*)?(?:/[^\s?#]*)?\s*$"
)
"""The JSON Schema's pattern of what `clean_http_url` accepts; the program checks more."""


def libpq_understands(url: str) -> bool:
    """Return whether libpq can parse the URL.

    The error of libpq itself quotes the part that it cannot parse, often a piece of the password.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        ports = str(conninfo_to_dict(url).get("port") or "")
    except (psycopg.Error, UnicodeError):
        return False
    return all(
        port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536
        for port in ports.split(",")
        if port
    )


def parse_json(text: str, what: str) -> Any:
    """Parse a setting in JSON.

    Raises:
        ValueError: the text is not valid JSON ("must be {what}"), or an object contains a key
            twice; Python would silently keep the last value.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = next(key for key in found if sum(key == other for other, _ in pairs) > 1)
            repeated.append(key)
        return found

    repeated: list[str] = []
    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise ValueError(f"must be {what}") from None
    if repeated:
        raise ValueError(
            f"holds the key {repeated[0][:40]!r} twice in one object: keep one of them"
        )
    return value


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the file's content.

    Raises:
        OSError: the file cannot be read, or is larger than `limit` bytes; a device can be endless.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(EFBIG, f"it is larger than {limit:,} bytes")
    return content


def decode(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark, as Windows writes it.

    Raises:
        ValueError: the content is neither; the message names the line.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content:
        raise ValueError("is not UTF-8 text: save it as UTF-8")
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 text (see line {line}): save it as UTF-8") from None


def from_file(path: Path, what: str, clean: Callable[[str], str]) -> str:
    """Read a secret from a file.

    Raises:
        ConfigurationError: the file cannot be read, or `clean` refuses its content. The message
            names the file and never quotes the content.
    """
    try:
        content = read_bytes(path, _LARGEST_SECRET)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {what} cannot be read: {error.strerror or 'no such file'}"
        ) from None
    try:
        return clean(decode(content))
    except ValueError as error:
        raise ConfigurationError(f"{path}: {what} {error}") from None

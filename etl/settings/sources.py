"""Read the settings from one TOML file and the environment.

This module merges the two; the models validate the result. It uses plain pydantic instead of
pydantic-settings, which ignores a misspelt environment variable, cannot name the variable that a
wrong value came from, and takes a third longer to import.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from etl.errors import ConfigurationError
from etl.settings.models import Settings
from etl.settings.names import KNOWN, LISTS, SECTIONS, nearest
from etl.settings.problems import describe
from etl.settings.values import EMBEDDED, decode, expand_home, parse_json, read_bytes

PREFIX = "ORCHESTRA_ETL_"
WORKING_FOLDER = Path("config/etl.toml")
SCHEMA_FILE = "etl.schema.json"
"""The JSON Schema beside the configuration file, for editors. The program never reads it."""
_LARGEST_FILE = 16 * 1024 * 1024
_NAMED = {
    "ORCHESTRA_API_KEY": ("api", "api_key"),
    "ORCHESTRA_API_KEY_FILE": ("api", "api_key_file"),
    "ORCHESTRA_BASE_URL": ("api", "base_url"),
    "DATABASE_URL": ("database", "url"),
    "DATABASE_URL_FILE": ("database", "url_file"),
    "ORCHESTRA_REDACTION_KEY": ("redaction", "key"),
    "ORCHESTRA_REDACTION_KEY_FILE": ("redaction", "key_file"),
}
_NO_SETTINGS = {"ORCHESTRA_ETL_CONFIG", "ORCHESTRA_ETL_HOME"}
# Two settings for one thing: a value of either from the environment replaces both in the file.
_ALTERNATIVES = [
    ("api", "api_key", "api_key_file"),
    ("database", "url", "url_file"),
    ("redaction", "key", "key_file"),
]
# Settings that name files or folders, which are relative to the configuration file.
_PATHS = [*((section, key) for section, _, key in _ALTERNATIVES), ("export", "location")]


def load(config: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    The file is `config`, else the one that ORCHESTRA_ETL_CONFIG names, else ./config/etl.toml, else
    etl.toml in the user's configuration folder. Without a file the defaults apply. Paths in the
    file are relative to it. An empty variable counts as unset.

    Raises:
        ConfigurationError: a setting is wrong. The message is one line that names the file or the
            variable and what to do.
    """
    environment = {name: value for name, value in environment.items() if value.strip()}
    path = config_file(config, environment)
    values = {} if path is None else _read_file(path)
    origins = _overlay(values, environment)
    _check_spelling(values, environment)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        # A misspelt key is often the reason why another one is missing.
        problems.sort(key=lambda one: one["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigurationError(describe(problems[0], path, values, origins) + more) from None
    settings._config_file = path
    return settings


def config_file(config: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the file that settings are read from; None if there is none.

    A file that the command line or ORCHESTRA_ETL_CONFIG names need not exist.

    Raises:
        ConfigurationError: the path in ORCHESTRA_ETL_CONFIG begins with a `~` that cannot be
            expanded.
    """
    if named := named_file(config, environment):
        return named
    return next(
        (place for place in (WORKING_FOLDER, user_file()) if place is not None and place.is_file()),
        None,
    )


def named_file(config: Path | None, environment: Mapping[str, str]) -> Path | None:
    """Return the file that the command line or ORCHESTRA_ETL_CONFIG names; None if neither does.

    Raises:
        ConfigurationError: the path in ORCHESTRA_ETL_CONFIG begins with a `~` that cannot be
            expanded.
    """
    if config is not None:
        return config
    named = environment.get("ORCHESTRA_ETL_CONFIG", "").strip()
    try:
        return expand_home(Path(named)) if named else None
    except ValueError as error:
        raise ConfigurationError(f"ORCHESTRA_ETL_CONFIG: {error}") from None


def user_file() -> Path | None:
    """Return the path of the user's own etl.toml; None if the user has no home folder."""
    import platformdirs

    try:
        return Path(platformdirs.user_config_dir("orchestra-etl")).expanduser() / "etl.toml"
    except RuntimeError:
        return None


def template() -> str:
    """Return a configuration file that explains every setting; its first line names SCHEMA_FILE."""
    return _shipped("etl.toml")


def json_schema() -> str:
    """Return the JSON Schema of the configuration file, for editors."""
    return _shipped(SCHEMA_FILE)


def _shipped(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _reworded(error: tomllib.TOMLDecodeError) -> str:
    """Return the text of an error; a text of its own for a table or key that is defined twice.

    This is a common mistake: `config init` writes every table, and a user adds another one below.
    """
    text = str(error)
    if found := re.match(r"Cannot declare \((.*?),?\) twice", text):
        table = ".".join(one.strip(" '\"") for one in found[1].split(","))
        return (
            f"the table [{table}] is defined twice{text[found.end() :]}: put all its keys into one"
        )
    return text.replace("Cannot overwrite a value", "a key is defined twice")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = decode(read_bytes(path, _LARGEST_FILE))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the configuration cannot be read: {error.strerror or type(error).__name__}"
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not valid TOML: {_reworded(error)}") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(
            f"{path}: contains a number that is too long, or is nested too deeply"
        ) from None
    api = values.get("api")
    for key in ("api_key", "key", "token"):
        if isinstance(api, dict) and key in api:
            raise ConfigurationError(
                f"{path}: api.{key}: the key itself must not be in this file; set "
                "ORCHESTRA_API_KEY or ORCHESTRA_API_KEY_FILE in the environment, or "
                "api.api_key_file here"
            )
    redaction = values.get("redaction")
    if isinstance(redaction, dict) and "key" in redaction:
        raise ConfigurationError(
            f"{path}: redaction.key: the key itself must not be in this file; set "
            "ORCHESTRA_REDACTION_KEY or ORCHESTRA_REDACTION_KEY_FILE in the environment, or "
            "redaction.key_file here"
        )
    paths = [(section, values.get(section), key) for section, key in _PATHS]
    channels = values.get("notify")
    if isinstance(channels, dict):
        paths += [(f"notify.{name}", table, "url_file") for name, table in channels.items()]
    for section, table, key in paths:
        if isinstance(table, dict) and _is_path(table.get(key)):
            try:
                table[key] = str(path.parent / expand_home(Path(table[key])))
            except ValueError as error:
                raise ConfigurationError(f"{path}: {section}.{key}: {error}") from None
    return values


def _is_path(value: object) -> bool:
    # An empty name would become the folder of the configuration file.
    return isinstance(value, str) and bool(value.strip()) and "://" not in value


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Replace values of the file by those of the environment, in place.

    Returns:
        For each setting or section that a variable sets, the variable's name.
    """
    origins: dict[tuple[str, ...], str] = {}
    overlay: dict[str, Any] = {}
    named = [(name, path) for name, path in _NAMED.items() if name in environment]
    others = [
        (name, tuple(name.removeprefix(PREFIX).lower().split("__", 1)))
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in _NO_SETTINGS
    ]
    for name, path in [*others, *named]:
        _check_variable(name, path)
        value = environment[name] if len(path) == 2 else _section(name, path[0], environment[name])
        if path[0] in LISTS:
            given = {path: value}
            overlay[path[0]] = value
        else:
            settings = {path[1]: value} if len(path) == 2 else value
            given = {path: value, **{(path[0], key): value for key in settings}}
            overlay.setdefault(path[0], {}).update(settings)
        for place in given:
            if place in origins:
                raise ConfigurationError(
                    f"{origins[place]} and {name} set the same value: unset one of them"
                )
            origins[place] = name
    for section, one, other in _ALTERNATIVES:
        if isinstance(values.get(section), dict) and not {one, other}.isdisjoint(
            overlay.get(section, ())
        ):
            values[section] = {
                key: value for key, value in values[section].items() if key not in {one, other}
            }
    for section, over in overlay.items():
        under = values.get(section, {})
        if isinstance(over, dict) and isinstance(under, dict):
            values[section] = {**under, **over}
        elif section in LISTS:
            values[section] = over
    return origins


def _section(name: str, section: str, text: str) -> Any:
    """Return the value of a variable that sets a whole section: an object, or a list of tables."""
    example = f"{PREFIX}{section.upper()}__KEY"
    try:
        value = parse_json(
            text, "a JSON list" if section in LISTS else f"JSON; or set single values as {example}"
        )
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    if section not in LISTS and not isinstance(value, dict):
        raise ConfigurationError(
            f"{name}: must be a table in JSON; or set single values as {example}"
        )
    return value


def _check_spelling(values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Refuse a variable that is meant for this program but misspelt.

    A variable that only resembles a known name may belong to another program. It is refused only
    if the setting of that name is not set otherwise.
    """
    for name in environment:
        capitals = name.upper()
        if name in _NAMED or name.startswith(PREFIX):
            continue
        if capitals.startswith("ORCHESTRA_") and (
            capitals in _NAMED or capitals.startswith(PREFIX)
        ):
            raise ConfigurationError(f"{name}: write it in capitals: {capitals}")
        close = get_close_matches(capitals, _NAMED, 1, 0.9)
        if close and not _is_given(values, *_NAMED[close[0]]):
            raise ConfigurationError(f"{name}: there is no such variable; did you mean {close[0]}?")


def _is_given(values: Mapping[str, Any], section: str, key: str) -> bool:
    """Return whether the setting or its alternative has a value other than its default."""
    table = values.get(section)
    keys = next(
        ({one, other} for of, one, other in _ALTERNATIVES if of == section and key in (one, other)),
        {key},
    )
    defaults = {None, EMBEDDED, SECTIONS[section].model_fields[key].default}
    return isinstance(table, dict) and any(table.get(one) not in defaults for one in keys)


def _check_variable(name: str, path: tuple[str, ...]) -> None:
    if path[0] in LISTS and len(path) > 1:
        raise ConfigurationError(
            f"{name}: set {PREFIX}{path[0].upper()} to a JSON list of {path[0]} instead"
        )
    if path[0] != "states" and ".".join(path) not in KNOWN:
        close = nearest(".".join(path))
        variable = PREFIX + close.replace(".", "__").upper() if close else None
        raise ConfigurationError(
            f"{name}: there is no such setting"
            + (f"; did you mean {variable}?" if variable else "")
        )

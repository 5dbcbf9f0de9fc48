"""What is wrong with a setting, and where it is set, in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from etl.settings.models import Settings
from etl.settings.names import SECTIONS, nearest


def describe(
    problem: Any,
    path: Path | None,
    values: Mapping[str, Any],
    origins: Mapping[tuple[str, ...], str],
) -> str:
    """Return one line: where the value is set, and what is wrong with it."""
    location = tuple(problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not location:
        # An error of all settings begins with the section that it concerns.
        section, _, message = message.partition(": ")
        location = (section,)
    origin = next(
        (origins[location[:n]] for n in range(len(location), 0, -1) if location[:n] in origins),
        None,
    )
    if table := _table(values, location):
        whole = origins.get(location) if path is None else None
        origin = _blamed(table, location, message=message, path=path, origins=origins) or whole
    where = _dotted(location)
    if origin is None:
        place = f"{path}: {where}" if where else f"{path}"
    else:
        inner = location[1:] if origin == origins.get((location[0],)) else ()
        place = f"{origin}: {_dotted(inner)}" if inner else origin
    match problem["type"]:
        case "extra_forbidden":
            close = nearest(".".join(str(part) for part in location if not isinstance(part, int)))
            what = "there is no such setting" + (
                f"; did you mean {close}?" if close else _choices(location)
            )
        case "string_too_short":
            what = "must not be empty"
        case "missing":
            what = "is missing"
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            what = "must be a table"
        case "tuple_type":
            what = (
                f"must be a list of tables: [[{where}]]" if where in SECTIONS else "must be a list"
            )
        case _:
            what = message.replace("Input should be", "must be")
    return f"{place}: {what}"


def _table(values: Mapping[str, Any], location: tuple[str | int, ...]) -> Mapping[str, Any] | None:
    """Return the section's values if the error concerns the whole section, else None."""
    table = values.get(str(location[0])) if len(location) == 1 else None
    return table if isinstance(table, dict) else None


def _blamed(
    table: Mapping[str, Any],
    location: tuple[str | int, ...],
    message: str,
    path: Path | None,
    origins: Mapping[tuple[str, ...], str],
) -> str | None:
    """Return where the values are set that an error of a whole section names.

    These are variables, and the file if it sets any of them. None: only the file sets them.
    """
    section = str(location[0])
    found = {
        origins.get((section, key)) for key in table if re.search(rf"\b{re.escape(key)}\b", message)
    }
    variables = sorted(name for name in found if name is not None)
    if not variables:
        return None
    return " and ".join([f"{path}: {section}"] * (None in found and path is not None) + variables)


def _choices(location: tuple[str | int, ...]) -> str:
    table = ".".join(part for part in location[:-1] if isinstance(part, str))
    model: type[BaseModel] | None = SECTIONS.get(table) if table else Settings
    if model is None:
        return ""
    return f"; known here: {', '.join(one.alias or key for key, one in model.model_fields.items())}"


def _dotted(location: tuple[str | int, ...]) -> str:
    """Return the dotted name, such as `polling.lease`; members of a list are counted from 1."""
    text = ""
    for part in location:
        text += f" no. {part + 1}" if isinstance(part, int) else f".{part}"
    return text.strip(" .")

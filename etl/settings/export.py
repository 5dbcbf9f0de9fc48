"""The export to a lake."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from etl.settings.section import Section
from etl.settings.values import CONTROL, PositiveDuration, expand_home

_STORES = ("s3", "gs", "abfss")
_OBJECTS = "[0-9A-Za-z_.@=/-]+"
_STORE = f"(?:{'|'.join(_STORES)})://{_OBJECTS}"
_FOLDER = rf"(?!.*://)[^\s{CONTROL}][^{CONTROL}]*"
_NAMESPACE = "[a-z][a-z0-9_]{0,62}"


class ExportSettings(Section):
    """Where and when the history is exported to Apache Iceberg tables; needs the extra `export`."""

    location: str | None = Field(
        default=None,
        json_schema_extra={"pattern": rf"^\s*(?:{_STORE}|{_FOLDER})\s*$"},
    )
    """The lake: a folder, or a URL such as `s3://bucket/lake`; none: there is no export. The
    credentials of a store come from the environment or the platform."""
    every: PositiveDuration | None = None
    """How often `serve` exports what has changed; none: only `export run` does."""
    payloads: bool = False
    """Whether to export inputs and outputs, too, in tables of their own."""
    namespace: str = Field(default="orchestra", json_schema_extra={"pattern": f"^{_NAMESPACE}$"})
    """The namespace of the tables, and the folder in `location` that contains them."""
    file_bytes: int = Field(default=128 * 1024 * 1024, ge=1024 * 1024)
    """Approximate maximum size of a file in bytes; the rows of a large day are in several files."""

    @field_validator("location")
    @classmethod
    def _usable_location(cls, location: str | None) -> str | None:
        if location is None:
            return None
        scheme, separator, rest = location.strip().partition("://")
        if not separator:
            if not scheme or not scheme.isprintable():
                raise ValueError("is not the name of a folder")
            return str(expand_home(Path(scheme)).absolute()).rstrip("/")
        if scheme not in _STORES:
            raise ValueError(
                f"must be a folder, or begin with {', '.join(f'{one}://' for one in _STORES)}"
            )
        if not re.fullmatch(_OBJECTS, rest):
            raise ValueError(
                "must hold only letters, digits and the characters . _ - = / @ after its scheme"
            )
        if scheme != "abfss" and "@" in urlsplit(location).netloc:
            raise ValueError("must not hold a user or password: they belong in the environment")
        return f"{scheme}://{rest.rstrip('/')}"

    @field_validator("namespace")
    @classmethod
    def _usable_namespace(cls, name: str) -> str:
        if not re.fullmatch(_NAMESPACE, name):
            raise ValueError("must be a name of lower-case letters, digits and underscores")
        return name

    @model_validator(mode="after")
    def _somewhere(self) -> ExportSettings:
        if self.every is not None and self.location is None:
            raise ValueError("every needs location: where to export to")
        return self

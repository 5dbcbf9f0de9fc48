"""What can be set: frozen models with their defaults and rules.

Durations are written with a unit in the file and the environment (`90s`, `1m30s`, `500ms`, `7d`)
and are seconds (float) in the program. Only the files with secrets are read again while the program
runs: the API key's for every request, the database URL's for every new connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from etl.errors import ConfigurationError
from etl.settings.prices import PriceSettings
from etl.settings.privacy import RedactionSettings, clean_redaction_key
from etl.settings.retention import RetentionSettings
from etl.settings.section import Section
from etl.settings.values import (
    EMBEDDED,
    MASK,
    Duration,
    Identifier,
    PositiveDuration,
    SecretFile,
    clean_database_url,
    clean_key,
    from_file,
    libpq_understands,
    mask_url,
)

NO_FILE = "no configuration file; run `orchestra-etl config init` to write one"


class ApiSettings(Section):
    """The API that is read, and how hard it may be asked."""

    base_url: str = "https://orchestra.arcee.ai/api/v1/workflow"
    """Every request goes below it, and to no other host."""
    api_key: SecretStr | None = None
    """From the environment only."""
    api_key_file: SecretFile | None = None
    """A file that holds the key; read again for every request."""
    header_name: str = "Authorization"
    """The header that carries `Bearer <key>`."""
    all_workflows: bool = False
    """Whether every workflow that the key can see is swept, not only those that are named."""
    requests_per_second: float = Field(default=50.0, ge=0, allow_inf_nan=False)
    """For all replicas together; 0 is no limit."""
    concurrency: int = Field(default=16, ge=1, le=1000)
    """Requests at once, of one process."""
    deadline: PositiveDuration = 60.0
    """For one request, from connecting to the last byte."""
    attempts: int = Field(default=5, ge=1, le=100)
    """How often a request is tried before it counts as failed."""
    max_response_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """The largest answer, after decompression; a larger one is set aside."""
    page_size: int = Field(default=100, ge=1, le=10_000)
    """Rows asked for at once when runs are listed."""
    trust_env: bool = False
    """Whether proxies and certificates are as the environment says (HTTPS_PROXY, SSL_CERT_FILE)."""

    @field_validator("base_url")
    @classmethod
    def _usable_base_url(cls, url: str) -> str:
        url = url.strip().rstrip("/")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise ValueError("is no URL") from None
        if parts.scheme not in {"http", "https"}:
            raise ValueError("must begin with http:// or https://")
        if not host or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("has no host, or characters that no URL may have")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "must not hold a user or password; the key goes into ORCHESTRA_API_KEY"
            )
        if "?" in url or "#" in url:
            raise ValueError("must end with its path, without '?' or '#'")
        return url

    @field_validator("header_name")
    @classmethod
    def _usable_header(cls, name: str) -> str:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise ValueError("is no name of an HTTP header")
        return name

    @field_validator("api_key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(clean_key(key.get_secret_value()))

    @model_validator(mode="after")
    def _one_key(self) -> ApiSettings:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("the key is given twice: keep api_key or api_key_file, not both")
        return self


class DatabaseSettings(Section):
    """The PostgreSQL that is written."""

    url: SecretStr | None = None
    """`postgresql://user@host/name`, or the word `embedded` for the PostgreSQL that comes with the program. `embedded` where
    neither this nor `url_file` is set."""
    url_file: SecretFile | None = None
    """A file that holds the URL; read again for every connection."""
    migrate_on_start: bool = False
    """Whether the schema is brought up to date at each start; the embedded one always is."""
    statement_timeout: Duration = Field(default=40.0, le=2_000_000)
    """How long a statement may take; 0 is no limit. A connection that is silent for 10 s longer is given up."""
    lock_timeout: Duration = Field(default=30.0, le=2_000_000)
    """How long a statement may wait for a lock; 0 is no limit."""
    patience: Duration = 120.0
    """For how long a unit of work is repeated. A database that is away is waited for so long by `sync`, `backfill` and `serve`,
    by other commands for 5 s at most."""

    @field_validator("url")
    @classmethod
    def _usable_url(cls, url: SecretStr | None) -> SecretStr | None:
        return None if url is None else SecretStr(clean_database_url(url.get_secret_value()))

    @model_validator(mode="after")
    def _one_url(self) -> DatabaseSettings:
        if self.url is not None and self.url_file is not None:
            raise ValueError("the database is named twice: keep url or url_file, not both")
        return self


class WorkflowSettings(Section):
    """One workflow whose runs are stored."""

    id: Identifier
    """As the API gives it."""
    name: str | None = None
    """For people; without it as the API says."""
    interval: PositiveDuration = 60.0
    """Between two sweeps; without effect where `cron` is set."""
    cron: str | None = None
    """Five fields in UTC, as cron reads them: weekdays from 0 or `sun`, either of two day fields is enough; or `@daily`."""
    discover: bool = True
    """Whether its run list is swept; else only named runs are read."""
    runs: tuple[Identifier, ...] = ()
    """Ids of runs known beforehand."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Stored with the workflow, for analysts."""

    @field_validator("cron")
    @classmethod
    def _usable_cron(cls, line: str | None) -> str | None:
        if line is not None:
            from etl import cron  # 100 ms, and most configurations have no cron line

            cron.parse(line)
        return line

    @model_validator(mode="after")
    def _one_schedule(self) -> WorkflowSettings:
        if self.cron is not None and "interval" in self.model_fields_set:
            raise ValueError("has both interval and cron; keep one of them")
        return self


class PollingSettings(Section):
    """When runs are read again, and when they are left alone."""

    settle_after: Duration = 60.0
    """A run is final when it was read this long after its end, or twice the same."""
    open_interval_min: PositiveDuration = 5.0
    """How often young open runs are read."""
    open_interval_max: PositiveDuration = 600.0
    """How often old open runs are read."""
    give_up_after: PositiveDuration = 7 * 86400.0
    """A run that is open for longer is marked stale and read once a day."""
    lease: PositiveDuration = 60.0
    """For how long the work of a process that died stays its own."""
    reconcile: PositiveDuration = 3600.0
    """How often the whole list is read, for late changes and what is missing."""
    reconcile_pages: int = Field(default=1000, ge=1)
    """Pages of it read at most."""

    @model_validator(mode="after")
    def _ordered(self) -> PollingSettings:
        if self.open_interval_min > self.open_interval_max:
            raise ValueError("open_interval_min must not be longer than open_interval_max")
        return self


class ServiceSettings(Section):
    """Where the service answers health checks and metrics."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address for /livez, /readyz and /metrics."""
    port: int = Field(default=8484, ge=0, le=65535)
    """0: no HTTP server."""


class LogSettings(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged, from this level up."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, else JSON, a line an event."""

    @field_validator("level", "format", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class Settings(Section):
    """All settings. Made by `load`."""

    api: ApiSettings = ApiSettings()
    database: DatabaseSettings = DatabaseSettings()
    workflows: tuple[WorkflowSettings, ...] = ()
    polling: PollingSettings = PollingSettings()
    redaction: RedactionSettings = RedactionSettings()
    retention: RetentionSettings = RetentionSettings()
    prices: tuple[PriceSettings, ...] = ()
    """They go before those set by command and the published ones; the first that matches counts."""
    service: ServiceSettings = ServiceSettings()
    logs: LogSettings = LogSettings()
    states: Mapping[str, str] = Field(default_factory=dict)
    """Status as the API gives it → state, in addition to the known spellings."""
    _config_file: Path | None = PrivateAttr(default=None)

    @field_validator("workflows")
    @classmethod
    def _distinct_workflows(
        cls, workflows: tuple[WorkflowSettings, ...]
    ) -> tuple[WorkflowSettings, ...]:
        seen: set[str] = set()
        for workflow in workflows:
            if workflow.id in seen:
                raise ValueError(f"the id {workflow.id} is configured twice")
            seen.add(workflow.id)
        return workflows

    @field_validator("prices")
    @classmethod
    def _distinct_prices(cls, prices: tuple[PriceSettings, ...]) -> tuple[PriceSettings, ...]:
        seen = set()
        for price in prices:
            key = (price.model, price.service_tier, price.above_input_tokens, price.valid_from)
            if key in seen:
                since = f" from {price.valid_from} on" if price.valid_from else ""
                raise ValueError(f"the price of {price.model}{since} is given twice")
            seen.add(key)
        return prices

    @field_validator("states")
    @classmethod
    def _known_states(cls, states: Mapping[str, str]) -> Mapping[str, str]:
        if states:
            from typing import get_args

            from etl.records import State

            for status, state in states.items():
                if state not in get_args(State):
                    raise ValueError(f"{status!r} must be one of {', '.join(get_args(State))}")
        return states

    @property
    def config_file(self) -> Path | None:
        """The file that was read; None where there is none, and the defaults hold."""
        return self._config_file

    @property
    def source(self) -> str:
        """The file that was read, in words."""
        return NO_FILE if self._config_file is None else str(self._config_file)

    def read_api_key(self) -> str:
        """The API key; a key file is read anew at every call, so that a renewed key takes effect by itself.

        Raises:
            ConfigurationError: there is no key, or the file cannot be read or holds no key.
        """
        if self.api.api_key is not None:
            return self.api.api_key.get_secret_value()
        path = self.api.api_key_file
        if path is None:
            raise ConfigurationError(
                "no API key: set ORCHESTRA_API_KEY, or ORCHESTRA_API_KEY_FILE to a file that holds it"
            )
        return from_file(path, "the API key (ORCHESTRA_API_KEY_FILE, api.api_key_file)", clean_key)

    def read_redaction_key(self) -> str:
        """The key of redaction; where there are no rules it may be empty.

        Raises:
            ConfigurationError: the key's file cannot be read or holds no usable key.
        """
        if self.redaction.key is not None:
            return self.redaction.key.get_secret_value()
        if self.redaction.key_file is None:
            return ""
        source = "the redaction key (ORCHESTRA_REDACTION_KEY_FILE, redaction.key_file)"
        return from_file(self.redaction.key_file, source, clean_redaction_key)

    def database_url(self) -> str:
        """The database as a libpq URI (`postgresql://…`), or the word `embedded`.

        Raises:
            ConfigurationError: its file cannot be read, or libpq does not understand the URL.
        """
        if self.database.url is not None:
            url = self.database.url.get_secret_value()
        elif self.database.url_file is not None:
            source = "the database URL (DATABASE_URL_FILE, database.url_file)"
            url = from_file(self.database.url_file, source, clean_database_url)
        else:
            url = EMBEDDED
        if url != EMBEDDED and not libpq_understands(url):
            raise ConfigurationError(
                "the database URL is not understood: percent-encode special characters in user and password "
                "(@ is %40, / is %2F, : is %3A), and check the port and the names of the parameters"
            )
        return url

    def masked(self) -> dict[str, Any]:
        """All settings as they may be shown and written into a file, secrets masked."""
        shown = self.model_dump(mode="json")
        if self.api.api_key is not None:
            shown["api"]["api_key"] = MASK
        if self.redaction.key is not None:
            shown["redaction"]["key"] = MASK
        if self.database.url is not None:
            shown["database"]["url"] = mask_url(self.database.url.get_secret_value())
        elif self.database.url_file is None:
            shown["database"]["url"] = EMBEDDED
        return shown

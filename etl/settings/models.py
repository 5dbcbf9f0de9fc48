"""All settings as one frozen model of sections, with their defaults and rules.

Durations have a unit in the file and the environment (`90s`, `1m30s`, `500ms`, `7d`) and are
seconds (float) in the program. While the program runs it re-reads only files with secrets: the API
key's for every request, the database URL's for every new connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from etl.errors import ConfigurationError
from etl.settings.alerts import AlertSettings, NotifySettings
from etl.settings.api import ApiSettings
from etl.settings.database import DatabaseSettings
from etl.settings.export import ExportSettings
from etl.settings.prices import PriceSettings
from etl.settings.privacy import RedactionSettings, clean_redaction_key
from etl.settings.retention import RetentionSettings
from etl.settings.section import Section
from etl.settings.values import (
    EMBEDDED,
    HTTP_URL,
    MASK,
    Duration,
    PositiveDuration,
    clean_channel_url,
    clean_database_url,
    clean_http_url,
    clean_key,
    from_file,
    libpq_understands,
    mask_url,
)
from etl.settings.workflows import WorkflowSettings

NO_FILE = "no configuration file; run `orchestra-etl config init` to write one"


class PollingSettings(Section):
    """How often runs are re-read, and when that ends."""

    settle_after: Duration = 60.0
    """A run is final once it was read this long after its end, or a second read found no
    change."""
    open_interval_min: PositiveDuration = 5.0
    """How often a young open run is read."""
    open_interval_max: PositiveDuration = 600.0
    """How often an old open run is read."""
    give_up_after: PositiveDuration = 7 * 86400.0
    """A run that is open for longer becomes stale and is read once a day."""
    lease: PositiveDuration = 60.0
    """How long a crashed process keeps its claims."""
    reconcile: PositiveDuration = 3600.0
    """How often a full walk of the run list looks for late changes and missing runs."""
    reconcile_pages: int = Field(default=1000, ge=1)
    """Maximum number of pages of the list that a full walk reads."""

    @model_validator(mode="after")
    def _ordered(self) -> PollingSettings:
        if self.open_interval_min > self.open_interval_max:
            raise ValueError("open_interval_min must not be longer than open_interval_max")
        return self


class ServiceSettings(Section):
    """The address of the service's health checks and metrics."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """The address on which `serve` provides /livez, /readyz and /metrics."""
    port: int = Field(default=8484, ge=0, le=65535)
    """The port; 0: no HTTP server."""


class DashboardSettings(Section):
    """Where people open the dashboards."""

    url: str | None = Field(default=None, json_schema_extra={"pattern": HTTP_URL})
    """The address of Superset, such as `https://superset.example.com`, for links in messages about
    alerts; none: they have no links."""

    @field_validator("url")
    @classmethod
    def _usable_url(cls, url: str | None) -> str | None:
        return None if url is None else clean_http_url(url, "messages would show it")


class LogSettings(Section):
    """Level and format of the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: `console` on a terminal, without the events that a summary repeats; else `json`, with
    one event per line."""

    @field_validator("level", "format", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class Settings(Section):
    """All settings, as `load` returns them."""

    api: ApiSettings = ApiSettings()
    database: DatabaseSettings = DatabaseSettings()
    workflows: tuple[WorkflowSettings, ...] = ()
    polling: PollingSettings = PollingSettings()
    redaction: RedactionSettings = RedactionSettings()
    retention: RetentionSettings = RetentionSettings()
    prices: tuple[PriceSettings, ...] = ()
    """Prices of models. The first match applies; prices set by command and published ones come
    after these."""
    alerts: tuple[AlertSettings, ...] = ()
    """The rules of alerts."""
    notify: Mapping[str, NotifySettings] = Field(default_factory=dict)
    """The channels for messages about alerts, by name."""
    dashboards: DashboardSettings = DashboardSettings()
    export: ExportSettings = ExportSettings()
    service: ServiceSettings = ServiceSettings()
    logs: LogSettings = LogSettings()
    states: Mapping[str, str] = Field(default_factory=dict)
    """The state of each API status that the program does not know."""
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
                raise ValueError(f"the price of {price.model}{since} is set twice")
            seen.add(key)
        return prices

    @model_validator(mode="after")
    def _known_channels(self) -> Settings:
        names: set[str] = set()
        for alert in self.alerts:
            if alert.name in names:
                raise ValueError(f"alerts: two rules have the name {alert.name}")
            names.add(alert.name)
            for channel in alert.notify:
                if channel not in self.notify:
                    raise ValueError(
                        f"alerts: the rule {alert.name} notifies {channel}, but there is no "
                        f"[notify.{channel}]"
                    )
        return self

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
        """The file that was read; None if there is none and the defaults apply."""
        return self._config_file

    @property
    def source(self) -> str:
        """The path of the file that was read, or a text that says that there is none."""
        return NO_FILE if self._config_file is None else str(self._config_file)

    def read_api_key(self) -> str:
        """Return the API key.

        Each call re-reads the key file, so that a new key takes effect without a restart.

        Raises:
            ConfigurationError: there is no key, or its file cannot be read or contains no key.
        """
        if self.api.api_key is not None:
            return self.api.api_key.get_secret_value()
        path = self.api.api_key_file
        if path is None:
            raise ConfigurationError(
                "no API key: set ORCHESTRA_API_KEY, or ORCHESTRA_API_KEY_FILE to a file that holds "
                "it"
            )
        return from_file(path, "the API key (ORCHESTRA_API_KEY_FILE, api.api_key_file)", clean_key)

    def read_redaction_key(self) -> str:
        """Return the redaction key; empty if none is set, which is possible only without rules.

        Raises:
            ConfigurationError: the key's file cannot be read or contains no usable key.
        """
        if self.redaction.key is not None:
            return self.redaction.key.get_secret_value()
        if self.redaction.key_file is None:
            return ""
        source = "the redaction key (ORCHESTRA_REDACTION_KEY_FILE, redaction.key_file)"
        return from_file(self.redaction.key_file, source, clean_redaction_key)

    def read_channel_url(self, name: str) -> str:
        """Return the URL of a channel of `notify`; each call re-reads its file.

        Raises:
            ConfigurationError: the file cannot be read, or contains no URL.
        """
        path = self.notify[name].url_file
        return from_file(path, f"the URL (notify.{name}.url_file)", clean_channel_url)

    def database_url(self) -> str:
        """Return the database as a libpq URI (`postgresql://…`), or `embedded`.

        Raises:
            ConfigurationError: the URL's file cannot be read, or libpq cannot parse the URL.
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
                "the database URL cannot be parsed: percent-encode special characters in user and "
                "password (@ is %40, / is %2F, : is %3A), and check the port and the names of the "
                "parameters"
            )
        return url

    def masked(self) -> dict[str, Any]:
        """Return all settings with secrets masked, to be shown or written into a file."""
        shown = self.model_dump(mode="json", by_alias=True)
        if self.api.api_key is not None:
            shown["api"]["api_key"] = MASK
        if self.redaction.key is not None:
            shown["redaction"]["key"] = MASK
        if self.database.url is not None:
            shown["database"]["url"] = mask_url(self.database.url.get_secret_value())
        elif self.database.url_file is None:
            shown["database"]["url"] = EMBEDDED
        return shown

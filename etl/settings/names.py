"""The names of all settings."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from pydantic import BaseModel

from etl.settings.alerts import AlertSettings
from etl.settings.api import ApiSettings
from etl.settings.database import DatabaseSettings
from etl.settings.export import ExportSettings
from etl.settings.models import (
    DashboardSettings,
    LogSettings,
    PollingSettings,
    ServiceSettings,
    Settings,
)
from etl.settings.prices import PriceSettings
from etl.settings.privacy import RedactionRuleSettings, RedactionSettings
from etl.settings.retention import RetentionSettings
from etl.settings.workflows import WorkflowSettings

SECTIONS: Mapping[str, type[BaseModel]] = {
    "api": ApiSettings,
    "database": DatabaseSettings,
    "workflows": WorkflowSettings,
    "polling": PollingSettings,
    "redaction": RedactionSettings,
    "redaction.rules": RedactionRuleSettings,
    "retention": RetentionSettings,
    "prices": PriceSettings,
    "alerts": AlertSettings,
    "dashboards": DashboardSettings,
    "export": ExportSettings,
    "service": ServiceSettings,
    "logs": LogSettings,
}
"""The tables, each with the model of its settings; of a list, the model of one element."""
LISTS = ("workflows", "prices", "alerts")
"""The sections that are lists of tables."""
KNOWN = [*Settings.model_fields] + [
    f"{name}.{field.alias or key}"
    for name, model in SECTIONS.items()
    for key, field in model.model_fields.items()
]
"""All sections, and all settings as `section.key`."""


def nearest(key: str) -> str | None:
    """Return the known key closest to this one: as a whole, else by its last part anywhere."""
    alike = [known for known in KNOWN if known.count(".") == key.count(".")]
    # Keys of redaction rules are compared by their last part only: the first two parts are most of
    # the text, so that any two such keys would look alike.
    if key.count(".") < 2 and (close := get_close_matches(key, alike, 1, 0.75)):
        return close[0]
    leaves = {known.rpartition(".")[2]: known for known in reversed(alike if "." in key else KNOWN)}
    close = get_close_matches(key.rpartition(".")[2], leaves, 1, 0.75)
    return leaves[close[0]] if close else None

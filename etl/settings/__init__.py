"""The settings: a TOML file, the environment, which wins over it, and files with secrets."""

from etl.settings.models import Settings
from etl.settings.sources import load
from etl.settings.values import EMBEDDED, mask_url
from etl.settings.workflows import DEFAULT_INTERVAL, WorkflowSettings

__all__ = ["DEFAULT_INTERVAL", "EMBEDDED", "Settings", "WorkflowSettings", "load", "mask_url"]

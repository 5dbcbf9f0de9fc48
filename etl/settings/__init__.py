"""The settings: a TOML file, the environment that wins over it, and the files that hold secrets."""

from etl.settings.models import Settings, WorkflowSettings
from etl.settings.sources import load
from etl.settings.values import EMBEDDED, mask_url

__all__ = ["EMBEDDED", "Settings", "WorkflowSettings", "load", "mask_url"]

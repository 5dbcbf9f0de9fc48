"""The settings: a TOML file, the environment that wins over it, and the files that hold secrets."""

from etl.settings.models import EMBEDDED, Settings, Workflow, mask_url
from etl.settings.sources import load

__all__ = ["EMBEDDED", "Settings", "Workflow", "load", "mask_url"]

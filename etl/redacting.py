"""The redaction rules of the settings."""

from __future__ import annotations

from etl import logs
from etl.settings import Settings
from etl.transform.redact import Redaction, RedactionRule


def open_redaction(settings: Settings) -> Redaction:
    """Return the redaction rules with their key.

    Raises:
        ConfigurationError: the key cannot be read.
    """
    key = settings.read_redaction_key()
    logs.add_secret(key)
    return Redaction(
        [
            RedactionRule(rule.path, rule.action, rule.workflow, rule.node)
            for rule in settings.redaction.rules
        ],
        key,
    )

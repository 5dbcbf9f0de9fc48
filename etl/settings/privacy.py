"""The redaction rules, which remove content before anything is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from etl.settings.section import Section
from etl.settings.values import Identifier, SecretFile, clean_key, parse_json

LEAST_KEY_CHARACTERS = 32
"""If the key can be guessed, so can short values (names, numbers): hash guesses until one fits."""

_MAKE_A_KEY = "make one with `openssl rand -hex 32`"


class RedactionRuleSettings(Section):
    """One rule: what to remove from which steps and runs."""

    workflow: Identifier | None = None
    """Only this workflow; none: every workflow."""
    node: str | None = Field(default=None, min_length=1)
    """Only steps of this node; none: the steps of every node, and the run's own row."""
    path: str = Field(json_schema_extra={"pattern": r"^\$[\s\S]"})
    """A JSONPath (RFC 9535) on the step or run as the API returns it."""
    action: Literal["drop", "mask", "hash"]
    """`drop` the member, `mask` its value, or `hash` it with the key: equal values stay equal."""

    @field_validator("path")
    @classmethod
    def _usable_path(cls, path: str) -> str:
        # Imported here: it takes 35 ms, and most configurations have no rules.
        from jsonpath_rfc9535 import JSONPathError, compile

        try:
            query = compile(path)
        except (JSONPathError, RecursionError) as error:
            token = getattr(error, "token", None)
            place = "" if token is None else f" (see character {token.index + 1})"
            raise ValueError(
                f"is not a valid JSONPath (RFC 9535), such as $.inputs.messages[*].content{place}"
            ) from None
        if query.empty():
            raise ValueError(
                "names the whole step or run, which cannot be removed: name members, "
                "such as $.inputs"
            )
        return path


class RedactionSettings(Section):
    """The redaction rules, and the key of their hashes. Without it, nobody can guess values."""

    key: SecretStr | None = None
    """The key; set it in the environment only."""
    key_file: SecretFile | None = None
    """A file that contains the key: at least 32 characters, made by `openssl rand -hex 32`."""
    rules: tuple[RedactionRuleSettings, ...] = ()
    """The rules; see the table below."""

    @field_validator("rules", mode="before")
    @classmethod
    def _from_a_variable(cls, rules: object) -> object:
        return parse_json(rules, "a JSON list of rules") if isinstance(rules, str) else rules

    @field_validator("key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(clean_redaction_key(key.get_secret_value()))

    @model_validator(mode="after")
    def _one_key(self) -> RedactionSettings:
        if self.key is not None and self.key_file is not None:
            raise ValueError("the key is set twice: keep key or key_file, not both")
        if self.rules and self.key is None and self.key_file is None:
            raise ValueError(
                "the rules need a key, also without `hash`: content that cannot be redacted is"
                f" replaced by its keyed hash; {_MAKE_A_KEY}, and set ORCHESTRA_REDACTION_KEY, or "
                "ORCHESTRA_REDACTION_KEY_FILE to a file that holds it"
            )
        return self


def clean_redaction_key(text: str) -> str:
    """Return the key without outer spaces.

    Raises:
        ValueError: it is too short, or cannot be a key.
    """
    key = clean_key(text)
    if len(key) < LEAST_KEY_CHARACTERS:
        raise ValueError(f"is shorter than {LEAST_KEY_CHARACTERS} characters: {_MAKE_A_KEY}")
    return key

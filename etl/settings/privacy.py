"""What must not be kept: rules that remove payload before anything is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from etl.settings.section import Section
from etl.settings.values import Identifier, SecretFile, clean_key, parse_json

LEAST_KEY_CHARACTERS = 32
"""With a key that can be guessed, hashes of short values (names, numbers) can be undone by trying."""

_MAKE_A_KEY = "make one with `openssl rand -hex 32`"


class RedactionRuleSettings(Section):
    """One thing to remove from every step, or run, that it applies to."""

    workflow: Identifier | None = None
    """None: every workflow."""
    node: str | None = Field(default=None, min_length=1)
    """None: the steps of every node, and the run's own row."""
    path: str
    """JSONPath (RFC 9535) on the step or the run as the API gives it."""
    action: Literal["drop", "mask", "hash"]
    """`drop` the member, `mask` its value, or `hash` it by the key: equal values stay equal."""

    @field_validator("path")
    @classmethod
    def _usable_path(cls, path: str) -> str:
        # Here, as most configurations have no rules: the library takes 35 ms to import.
        from jsonpath_rfc9535 import JSONPathError, compile

        try:
            query = compile(path)
        except (JSONPathError, RecursionError) as error:
            token = getattr(error, "token", None)
            place = "" if token is None else f" (see character {token.index + 1})"
            raise ValueError(
                f"is no JSONPath by RFC 9535, such as $.inputs.messages[*].content{place}"
            ) from None
        if query.empty():
            raise ValueError(
                "names the whole step or run, which cannot be removed: name members, such as $.inputs"
            )
        return path


class RedactionSettings(Section):
    """The rules, and the key by which hashes are made: without it nobody can find out a hashed value by trying."""

    key: SecretStr | None = None
    """From the environment only."""
    key_file: SecretFile | None = None
    """A file that holds the key: 32 characters or more, such as `openssl rand -hex 32` makes."""
    rules: tuple[RedactionRuleSettings, ...] = ()
    """See the table below."""

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
            raise ValueError("the key is given twice: keep key or key_file, not both")
        if self.rules and self.key is None and self.key_file is None:
            raise ValueError(
                f"the rules need a key: {_MAKE_A_KEY}, and set ORCHESTRA_REDACTION_KEY, or ORCHESTRA_REDACTION_KEY_FILE to "
                "a file that holds it"
            )
        return self


def clean_redaction_key(text: str) -> str:
    """A key that can be used. Raises ValueError where it cannot."""
    key = clean_key(text)
    if len(key) < LEAST_KEY_CHARACTERS:
        raise ValueError(f"is shorter than {LEAST_KEY_CHARACTERS} characters: {_MAKE_A_KEY}")
    return key

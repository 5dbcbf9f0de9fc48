"""How the database is reached."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator, model_validator

from etl.settings.section import Section
from etl.settings.values import DATABASE_URL, Duration, SecretFile, clean_database_url


class DatabaseSettings(Section):
    """The PostgreSQL database, and the time limits of statements."""

    url: SecretStr | None = Field(default=None, json_schema_extra={"pattern": DATABASE_URL})
    """`postgresql://user@host/name`, or `embedded` for the PostgreSQL that comes with the program;
    `embedded` if neither this nor `url_file` is set."""
    url_file: SecretFile | None = None
    """A file that contains the URL; the program re-reads it for every connection."""
    migrate_on_start: bool = False
    """Whether each start upgrades the schema; with `embedded` it always does."""
    statement_timeout: Duration = Field(default=40.0, le=2_000_000)
    """Time limit of a statement; 0: no limit. The program gives up a connection that is silent for
    10 s longer."""
    lock_timeout: Duration = Field(default=30.0, le=2_000_000)
    """How long a statement waits for a lock; 0: no limit."""
    patience: Duration = 120.0
    """How long a unit of work is retried. `sync`, `backfill` and `serve` wait this long for a
    database that cannot be reached; other commands wait at most 5 s."""

    @field_validator("url")
    @classmethod
    def _usable_url(cls, url: SecretStr | None) -> SecretStr | None:
        return None if url is None else SecretStr(clean_database_url(url.get_secret_value()))

    @model_validator(mode="after")
    def _one_url(self) -> DatabaseSettings:
        if self.url is not None and self.url_file is not None:
            raise ValueError("the database is named twice: keep url or url_file, not both")
        return self

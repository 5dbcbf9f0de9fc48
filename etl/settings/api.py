"""How the API is reached."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator, model_validator

from etl.settings.section import Section
from etl.settings.values import (
    HTTP_URL,
    PositiveDuration,
    SecretFile,
    clean_http_url,
    clean_key,
)

_HEADER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


class ApiSettings(Section):
    """The Orchestra API, and the limits on requests to it."""

    base_url: str = Field(
        default="https://orchestra.arcee.ai/api/v1/workflow",
        json_schema_extra={"pattern": HTTP_URL},
    )
    """The URL that all requests start with; no request goes to another host."""
    api_key: SecretStr | None = None
    """The API key; set it in the environment only."""
    api_key_file: SecretFile | None = None
    """A file that contains the key; the program re-reads it for every request."""
    header_name: str = Field(default="Authorization", json_schema_extra={"pattern": f"^{_HEADER}$"})
    """The header that carries `Bearer <key>`."""
    all_workflows: bool = False
    """Whether to sweep every workflow that the key can see, not only the configured ones."""
    requests_per_second: float = Field(default=50.0, ge=0, allow_inf_nan=False)
    """Limit for all replicas together; 0: no limit."""
    concurrency: int = Field(default=16, ge=1, le=1000)
    """Concurrent requests of one process."""
    deadline: PositiveDuration = 60.0
    """Time limit of one request, from connecting to the last byte."""
    attempts: int = Field(default=5, ge=1, le=100)
    """How often a request is sent before it counts as failed."""
    max_response_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Largest response body, after decompression; a larger one becomes a dead letter."""
    page_size: int = Field(default=100, ge=1, le=10_000)
    """Rows of the run list per request."""
    trust_env: bool = False
    """Whether to use HTTPS_PROXY, SSL_CERT_FILE and the like from the environment."""

    @field_validator("base_url")
    @classmethod
    def _usable_base_url(cls, url: str) -> str:
        return clean_http_url(url, "the key goes into ORCHESTRA_API_KEY")

    @field_validator("header_name")
    @classmethod
    def _usable_header(cls, name: str) -> str:
        if not re.fullmatch(_HEADER, name):
            raise ValueError("is not a valid HTTP header name")
        return name

    @field_validator("api_key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(clean_key(key.get_secret_value()))

    @model_validator(mode="after")
    def _one_key(self) -> ApiSettings:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("the key is set twice: keep api_key or api_key_file, not both")
        return self

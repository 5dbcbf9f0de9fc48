"""Every error that the project raises on purpose, grouped by what the caller should do.

The user sees the text of an error unchanged. It is one line that says what is wrong and what to do.
It never contains a secret or a payload, nor the text of a third-party exception, which may contain
either.
"""

from __future__ import annotations

import copy
import os
from typing import ClassVar, Self

from etl.exit_status import ExitStatus


def system_reason(error: OSError) -> str:
    """Return the operating system's reason, without the text that a library adds to it."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__  # a name that cannot be resolved


class EtlError(Exception):
    """The root of the tree. A command that does not handle the error exits with `exit_status`."""

    exit_status: ClassVar[int] = ExitStatus.UNEXPECTED

    def reworded(self, text: str) -> Self:
        """Return a copy of this error with another text and the same fields."""
        other = copy.copy(self)
        other.args = (text,)
        return other


class ConfigurationError(EtlError):
    """The user must change a setting or an argument."""

    exit_status = ExitStatus.USAGE


class DatabaseError(EtlError):
    """The database cannot be used as it is; the failed unit of work wrote nothing."""

    exit_status = ExitStatus.DATABASE


class DatabaseUnavailable(DatabaseError):
    """The database does not respond, or keeps failing for transient reasons: retry later."""


class ConnectionRefused(DatabaseError):
    """The server refuses the connection until a person changes something, such as the password."""


class SchemaMismatch(DatabaseError):
    """The schema is missing, too old or too new: run `db upgrade`, or upgrade the program."""


class LakeError(EtlError):
    """The lake cannot be read or written; the database holds what it held before."""

    exit_status = ExitStatus.LAKE


class ApiError(EtlError):
    """A request to the API failed permanently, or its retries are exhausted."""

    exit_status = ExitStatus.API


class ApiUnavailable(ApiError):
    """No usable response (network, timeout, 408, 425, 429, 5xx, a broken body): retry later."""


class KeyRefused(ApiError):
    """401: the key is missing, wrong or sent under the wrong header name.

    No further requests are sent until that changes.
    """

    exit_status = ExitStatus.KEY_REFUSED


class WorkflowRefused(ApiError):
    """403: this key may not read this workflow; the other workflows continue."""

    exit_status = ExitStatus.KEY_REFUSED


class _Refused(ApiError):
    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        """The HTTP status of the response; None if the status is not the reason for the error."""


class NotFound(_Refused):
    """404: the resource does not exist, or the server does not offer the endpoint."""


class RequestRefused(_Refused):
    """Another 4xx, a redirect, a partial body or an unrequested encoding: a retry does not help."""


class ResponseTooLarge(ApiError):
    """The response is larger than `api.max_response_bytes`, counted after decompression."""


class InvalidIdentifier(ApiError):
    """The id would change the meaning of a URL's path (empty, `.`, `..`, control characters)."""

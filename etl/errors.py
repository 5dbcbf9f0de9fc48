"""Every error the project raises on purpose, in one tree ordered by what the caller should do.

The text of an error is shown to the user as it is: one line, what is wrong and what to do, never a
secret, a payload or the text of somebody else's exception that may hold one.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Self

from etl.exit_status import ExitStatus


class EtlError(Exception):
    """The root. `exit_status` is what a command ends with when the error reaches it."""

    exit_status: ClassVar[int] = ExitStatus.UNEXPECTED

    def reworded(self, text: str) -> Self:
        """Return this error with another text; its other fields stay."""
        other = copy.copy(self)
        other.args = (text,)
        return other


class ConfigurationError(EtlError):
    """The user must change a setting or an argument."""

    exit_status = ExitStatus.USAGE


class DatabaseError(EtlError):
    """The database cannot be used as it is; nothing was written by the unit of work that failed."""

    exit_status = ExitStatus.DATABASE


class DatabaseUnavailable(DatabaseError):
    """The database does not answer, or keeps refusing for transient reasons: try again later."""


class ConnectionRefused(DatabaseError):
    """The server refuses every connection like this one until somebody changes something, such as the password."""


class SchemaMismatch(DatabaseError):
    """The schema is missing, older or newer than this program: run `db upgrade`, or upgrade the program."""


class ApiError(EtlError):
    """A request to the API failed for good; the retries are already spent."""

    exit_status = ExitStatus.API


class ApiUnavailable(ApiError):
    """No usable answer (network, time-out, 408, 425, 429, 5xx, a broken body): try again later."""


class KeyRefused(ApiError):
    """401: the key is missing, wrong or sent under the wrong header name. Nothing more is asked until that changes."""

    exit_status = ExitStatus.KEY_REFUSED


class WorkflowRefused(ApiError):
    """403: this key may not read this workflow; the other workflows go on."""

    exit_status = ExitStatus.KEY_REFUSED


class _Refused(ApiError):
    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        """What the server answered; None where it is not the status that makes the answer useless."""


class NotFound(_Refused):
    """404: the server knows no such thing, or does not offer the endpoint."""


class RequestRefused(_Refused):
    """Any other 4xx, a redirect, or an answer that we did not ask for: repeating the same request will not help."""


class ResponseTooLarge(ApiError):
    """The answer is larger than `api.max_response_bytes`, counted after decompression."""


class InvalidIdentifier(ApiError):
    """The id cannot be put into a request's path without changing the path's meaning (empty, `.`, `..`, control characters)."""

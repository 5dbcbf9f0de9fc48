"""The store of the lake's files: a folder of this machine, or objects of S3, GCS or Azure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType
from pyiceberg.exceptions import ValidationError, ValidationException
from pyiceberg.io import load_file_io
from pyiceberg.io.pyarrow import PyArrowFileIO

from etl.errors import LakeError

# AWS's word for the error; the rest of the text can contain names of buckets and keys.
_AWS_ERROR = re.compile(r"AWS Error ([A-Z_]{3,60})")

# For S3: pyiceberg's properties, and AWS's variables for each. The first variable that is set wins.
_VARIABLES = {
    "s3.endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "s3.region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
}
_LIMITS = {"s3.connect-timeout": "10", "s3.request-timeout": "60"}
"""Seconds; a request is repeated twice."""


def properties() -> dict[str, str]:
    """Return pyiceberg's settings of the store.

    Arrow reads credentials from the environment, from files or from the platform, but not the
    address of a server that is not AWS's. Without a region, pyiceberg asks AWS for the bucket's.
    """
    found = dict(_LIMITS)
    for name, variables in _VARIABLES.items():
        for variable in variables:
            if value := os.environ.get(variable):
                found.setdefault(name, value)
    return found


class StoredFile(msgspec.Struct, frozen=True):
    """A file of the store."""

    path: str
    """Its path in the store's own form; see `Store.path`."""
    size: int
    """Bytes."""


class Store:
    """A folder of the store."""

    def __init__(self, folder: str) -> None:
        """Open no connection yet.

        Args:
            folder: a local path or a URL.
        """
        io = load_file_io(properties(), folder)
        assert isinstance(io, PyArrowFileIO)
        self.io = io
        self._folder = folder

    def path(self, location: str) -> str:
        """Return the path in the store, without a scheme, of a file that Iceberg names."""
        return self.io.parse_location(location)[2]

    def check_writable(self) -> None:
        """Write a file and delete it."""
        path = f"{self._folder}/orchestra-etl.probe"
        with self.io.new_output(path).create(overwrite=True) as file:
            file.write(b"orchestra-etl checks that it can write here")
        self.io.delete(path)

    def files(self) -> Iterator[StoredFile]:
        """Yield every file below the folder."""
        selector = FileSelector(self.path(self._folder), recursive=True, allow_not_found=True)
        for found in self._system().get_file_info(selector):
            if found.type is FileType.File:
                yield StoredFile(found.path, found.size)

    def delete(self, files: Iterable[StoredFile]) -> None:
        """Delete files; one that is gone already is no error."""
        system = self._system()
        for one in files:
            with suppress(FileNotFoundError):
                system.delete_file(one.path)

    def _system(self) -> FileSystem:
        scheme, host, _ = self.io.parse_location(self._folder)
        return self.io.fs_by_scheme(scheme, host)


@contextmanager
def reported(location: str) -> Iterator[None]:
    """Turn errors of the store and of damaged files into `LakeError`s.

    Raises:
        LakeError: the lake cannot be read or written.
    """
    try:
        yield
    except FileNotFoundError:
        raise LakeError(
            f"the lake at {location} lacks a file that its tables name: put it back, or set"
            " export.location or export.namespace to a new place"
        ) from None
    except OSError as error:
        # Arrow raises it without a number, too, for a file whose content it cannot decode.
        if not error.errno and "://" not in location:
            raise LakeError(f"the lake at {location} is damaged: it has unreadable files") from None
        raise LakeError(f"the lake at {location} cannot be used: {_reason(error)}") from None
    except (pa.ArrowException, ValidationError, ValidationException, ValueError) as error:
        raise LakeError(
            f"the lake at {location} is damaged, or its values cannot be written"
            f" ({type(error).__name__})"
        ) from None


def _reason(error: OSError) -> str:
    if error.errno:
        return f"{os.strerror(error.errno)}: check the location, its free space and permissions"
    found = _AWS_ERROR.search(str(error))
    reason = f"the store reports {found[1]}" if found else "the store refuses or does not respond"
    return f"{reason}: check its address, the credentials and the network"

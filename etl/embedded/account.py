"""The system user that PostgreSQL's programs run as.

It is the user of this process. If that is root, which PostgreSQL refuses, it is another user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from etl.errors import ConfigurationError

SYSTEM_USERS = ("orchestra-etl", "postgres", "nobody")
"""The users for the server of root if no user owns the data or home yet.

The first that exists on the system is used.
"""


class Account(NamedTuple):
    """A system user, by number."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's name, or the number of a user without a name."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def run(self, command: Sequence[str], *inherited: int, output: int = subprocess.DEVNULL) -> int:
        """Run a program to its end and return its exit status.

        The program inherits the descriptors `inherited`.

        Raises:
            ConfigurationError: this user cannot run it.
        """
        switches = os.geteuid() == 0
        try:
            return subprocess.run(  # noqa: S603  this program builds the command, without a shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=inherited,
                cwd="/",  # this process's folder may be closed to that user
                # The environment of this process is not passed on: it can contain the API key, or
                # settings for another PostgreSQL.
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,  # Ctrl-C on the terminal must not reach the program
                umask=0o077,
                user=self.uid if switches else None,
                group=self.gid if switches else None,
                extra_groups=[] if switches else None,
                check=False,
            ).returncode
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigurationError(
                f"cannot run {Path(command[0]).name} as user {self.name} ({error}): "
                f"run as an ordinary user, or name a database in DATABASE_URL"
            ) from error

    def can_enter(self, path: Path) -> bool:
        """Return whether the user may enter the folder, or execute the program, at `path`."""
        return self.run(["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]) == 0

    def own(self, path: Path) -> None:
        """Make the user the owner of `path`; of a link itself, not of its target."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account_for(data: Path, home: Path) -> Account:
    """Return the user that the server of the folder `data` in `home` runs as.

    It is the owner of `data`, else of `home`. If that is root, it is one of `SYSTEM_USERS`.

    Raises:
        ConfigurationError: none of these users exists, or the user may not enter `home`.
    """
    owner = (data if data.exists() else home).stat()
    if os.geteuid() != 0:
        if owner.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{data} belongs to another user (uid {owner.st_uid}): "
                f"run as that user, or name another folder in ORCHESTRA_ETL_HOME"
            )
        return Account(owner.st_uid, owner.st_gid)
    if owner.st_uid != 0:
        account = Account(owner.st_uid, owner.st_gid)
    elif data.exists() and any(data.iterdir()):
        raise ConfigurationError(
            f"{data} belongs to root, whom PostgreSQL refuses: give it to another user (chown -R)"
        )
    else:
        account = _system_account()
    if not account.can_enter(home):
        raise ConfigurationError(
            f"as root, PostgreSQL runs as user {account.name}, who may not enter {home}: "
            f"name a folder in ORCHESTRA_ETL_HOME whose parents are open to all, "
            f"such as /var/lib/orchestra-etl"
        )
    return account


def _system_account() -> Account:
    for name in SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigurationError(
        f"as root, PostgreSQL needs another user to run as, and none of "
        f"{', '.join(SYSTEM_USERS)} exists: "
        f"create one (useradd --system {SYSTEM_USERS[0]}), or run as an ordinary user"
    )


def open_for_owner(path: Path, flags: int) -> int:
    """Open a file, and create it if it is missing; return its descriptor.

    It belongs to the owner of its folder, even if this process is root: that user must be able to
    use it afterwards.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor

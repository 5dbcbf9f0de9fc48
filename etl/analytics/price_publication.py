"""Where the published prices come from, and how old they are."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from importlib.metadata import version as installed
from importlib.util import find_spec
from pathlib import Path

import msgspec

from etl.terminal import counted

PACKAGE = "genai-prices"
OLD_AFTER_DAYS = 180
"""Days after which published prices are reported as old."""
_START = re.compile(r"start_date=datetime\.date\((\d{4}), (\d{1,2}), (\d{1,2})\)")


@cache
def version() -> str:
    """Return the version of the package, which is also the version of its data."""
    return installed(PACKAGE)


class Publication(msgspec.Struct, frozen=True):
    """The source of the published prices, and their age."""

    package: str
    version: str
    newest_price: date | None
    """The first day of the newest price that is not in the future; None: unknown.

    The package does not say when its data were gathered. This day is an estimate.
    """
    age_days: int | None
    is_old: bool

    @property
    def source(self) -> str:
        """The package and its version."""
        return f"{self.package} {self.version}"

    @property
    def text(self) -> str:
        """The source and age in words."""
        if self.age_days is None:
            return f"{self.source}, of unknown age"
        text = (
            f"{self.source}, whose newest price is from {self.newest_price}, "
            f"{counted(self.age_days, 'day')} ago"
        )
        return (
            f"{text}: old, so update {self.package} (nothing is downloaded automatically)"
            if self.is_old
            else text
        )


@cache
def publication(today: date) -> Publication:
    """Return the source and age of the installed prices.

    Args:
        today: the day (UTC) at which their age is measured.
    """
    newest = max((day for day in _days() if day <= today), default=None)
    age = None if newest is None else (today - newest).days
    return Publication(
        package=PACKAGE,
        version=version(),
        newest_price=newest,
        age_days=age,
        is_old=age is not None and age > OLD_AFTER_DAYS,
    )


def _days() -> list[date]:
    """Return the first days of all prices, parsed from the package's source.

    Importing the package would take twenty times as long, in every `status`.
    """
    package = find_spec("genai_prices")
    folders = [] if package is None else package.submodule_search_locations or []
    texts = [
        path.read_text(encoding="utf-8")
        for path in (Path(one) / "data.py" for one in folders)
        if path.is_file()
    ]
    return [date(*map(int, found)) for text in texts for found in _START.findall(text)]

"""Named points just before and just after every commit and every request, at which a worker kills itself.

`install` is called in the worker. `FAIL_POINT` names the point and which passage of it is the last:
`after commit of X#2`. `FAIL_POINTS_LOG` names a file into which each passage writes the point's
name.
"""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from etl.database import Database
from etl.extract.client import OrchestraClient

T = TypeVar("T")

REQUESTS = ("steps", "run", "run_page", "workflows")


def install() -> None:
    """Pass through the points from now on."""
    wanted, log = os.environ.pop("FAIL_POINT", None), os.environ.pop("FAIL_POINTS_LOG", None)
    passages: Counter[str] = Counter()

    def point(name: str) -> None:
        passages[name] += 1
        if log is not None:
            with Path(log).open("a") as file:
                file.write(f"{name}\n")
        if wanted == f"{name}#{passages[name]}":
            os.kill(os.getpid(), signal.SIGKILL)

    transaction = Database.transaction

    def committing(self: Database, work: Callable[[Connection], T]) -> T:
        named = work.func if isinstance(work, functools.partial) else work
        name = f"{named.__module__.rpartition('.')[2]}.{named.__qualname__.replace('.<locals>', '').replace('<lambda>', '')}"
        name = name.rstrip(".")

        def then_commit(connection: Connection) -> T:
            result = work(connection)
            point(f"before commit of {name}")
            return result

        result = transaction(self, then_commit)
        point(f"after commit of {name}")
        return result

    def requesting(name: str) -> Callable[..., Awaitable[Any]]:
        ask = getattr(OrchestraClient, name)

        @functools.wraps(ask)
        async def asking(self: OrchestraClient, *arguments: Any, **options: Any) -> Any:
            point(f"before request of {name}")
            answer = await ask(self, *arguments, **options)
            point(f"after request of {name}")
            return answer

        return asking

    Database.transaction = committing  # type: ignore[method-assign]
    for name in REQUESTS:
        setattr(OrchestraClient, name, requesting(name))


def passed(log: Path) -> list[str]:
    """The points that a worker passed through: the first passage of each, and the last where there are more."""
    counts = Counter(log.read_text().splitlines())
    return [f"{name}#{number}" for name, count in counts.items() for number in sorted({1, count})]

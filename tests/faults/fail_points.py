"""Named points just before and after every commit and request, at which a worker kills itself.

`install` is called in the worker. `FAIL_POINT` names the point and the passage at which the worker
dies, for example `after commit of X#2`. `FAIL_POINTS_LOG` names a file; each passage appends the
point's name to it.
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
    """Install the fail points in this process."""
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
        module = named.__module__.rpartition(".")[2]
        qualified = named.__qualname__.replace(".<locals>", "").replace("<lambda>", "")
        name = f"{module}.{qualified}"
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
    """Return the points that a worker passed: each one's first passage and its last repetition."""
    counts = Counter(log.read_text().splitlines())
    return [f"{name}#{number}" for name, count in counts.items() for number in sorted({1, count})]

"""Named points just before and after every commit and request, at which a worker kills itself.

In exports, there are also points around every change of the lake's files.

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


def install_lake() -> None:
    """Install the fail points in this process, and those around each change of the lake."""
    install(lake=True)


def install(*, lake: bool = False) -> None:
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

    def committing(method: str) -> Callable[..., Any]:
        transaction = getattr(Database, method)

        @functools.wraps(transaction)
        def committed(self: Database, work: Callable[[Connection], T]) -> T:
            named = work.func if isinstance(work, functools.partial) else work
            module = named.__module__.rpartition(".")[2]
            qualified = named.__qualname__.replace(".<locals>", "").replace("<lambda>", "")
            name = f"{module}.{qualified}"
            name = name.rstrip(".")

            def then_commit(connection: Connection) -> T:
                result = work(connection)
                point(f"before commit of {name}")
                return result

            result: T = transaction(self, then_commit)
            point(f"after commit of {name}")
            return result

        return committed

    def requesting(name: str) -> Callable[..., Awaitable[Any]]:
        request = getattr(OrchestraClient, name)

        @functools.wraps(request)
        async def passing(self: OrchestraClient, *arguments: Any, **options: Any) -> Any:
            point(f"before request of {name}")
            response = await request(self, *arguments, **options)
            point(f"after request of {name}")
            return response

        return passing

    def around(owner: Any, method: str) -> None:
        step = getattr(owner, method)

        @functools.wraps(step)
        def stepping(*arguments: Any, **options: Any) -> Any:
            point(f"before {step.__qualname__}")
            result = step(*arguments, **options)
            point(f"after {step.__qualname__}")
            return result

        setattr(owner, method, stepping)

    for name in ("transaction", "in_one_snapshot"):
        setattr(Database, name, committing(name))
    for name in REQUESTS:
        setattr(OrchestraClient, name, requesting(name))
    if lake:
        from etl.export.lake import OpenTable
        from etl.export.store import Store

        for owner, name in ((OpenTable, "replace"), (OpenTable, "commit"), (OpenTable, "publish"),
                            (Store, "delete")):  # fmt: skip
            around(owner, name)


def passed(log: Path) -> list[str]:
    """Return the points that a worker passed: each one's first passage and its last repetition."""
    counts = Counter(log.read_text().splitlines())
    return [f"{name}#{number}" for name, count in counts.items() for number in sorted({1, count})]
